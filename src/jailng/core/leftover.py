"""What stands in the way of a new jail and is none: what a dead one has left, and a name that a killed command took.

Loaded where there is such a thing.
"""

from __future__ import annotations

import time

from jailng.core import hierarchy, registry, undo
from jailng.linux import processid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

_PATIENCE = 1.0  # seconds, for a command that clears it away already; one that runs exec.poststop may take for ever
_PAUSE = 0.005


def settled(record: Record, name: str) -> bool:
    """Whether what ``record`` tells of is not in the way of a jail of that ``name`` any more. Raises JailError."""
    if record.alive():
        return record.name != name and hierarchy.finish_renaming(record)
    until = time.monotonic() + _PATIENCE
    while not undo.recover(record):
        again = registry.load(record.jid)
        if again is None or again.init != record.init:
            return True  # what there is by now is another's
        if time.monotonic() > until or (not again.up and processid.is_alive(again.starter)):  # one in the making
            return False
        time.sleep(_PAUSE)
    return True
