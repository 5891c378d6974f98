"""``jailctl destroy``: jail_remove(2), and nothing else."""

from __future__ import annotations

import os

from jailng.core import registry, remove
from jailng.engine import ending
from jailng.errors import JailError, UsageError
from jailng.params.values import visible

USAGE = "usage: jailctl destroy jailname"


def main(argv: list[str]) -> int:
    """Kill what runs in the jail, and let go of all that it had. Raises UsageError, JailError."""
    if len(argv) != 1 or not argv[0] or argv[0].startswith("-"):
        raise UsageError(USAGE)
    name = argv[0]
    if os.geteuid() != 0:
        raise JailError("destroy: jail_remove: Operation not permitted")
    record = registry.find(name)
    if record is None:
        if ending.clear_away(name):  # killed in the middle, this is what is run again
            return 0
        raise JailError(f'destroy: jail "{visible(name)}" not found')
    try:
        remove.jail_remove(record, ())
    except JailError as error:
        raise JailError(f"destroy: {error}", error.status) from None
    finally:
        record.unlock()
    return 0
