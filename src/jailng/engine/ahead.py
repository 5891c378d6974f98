"""Jails that die while another is taken down: the kernel takes its time for a jail's processes and namespaces.

A jail that is stopped next, and of whose end nobody is told before it is removed, need not wait for its turn to die.
What it had is let go of when it has its turn. Where that never comes, it is as a jail that has ended by itself.
"""

from __future__ import annotations

from jailng.core import remove
from jailng.engine.dependency import STOP
from jailng.errors import JailError
from jailng.linux import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from jailng.engine.dependency import Jail

_TELLING = ("exec.prestop", "exec.stop", "exec.poststop")


def kill(jails: Iterable[Jail], forced: bool) -> None:
    """Have these begin to die, in their order, up to the first that has to wait for its turn. ``forced`` as with -R."""
    for jail in jails:
        if jail.killed:
            continue
        if not _may_die(jail, forced) or jail.record is None or not remove.kill(jail.record):
            return
        jail.killed = True


def _may_die(jail: Jail, forced: bool) -> bool:
    record = jail.record
    if record is None or record.remote or jail.work != STOP or jail.open or jail.failed:
        return False  # of a jail in this one the broker kills what it removes
    if any(line.startswith("mount ") for line in record.undo):  # which may have to stay
        return False
    if forced:
        return True
    try:
        if jail.params is None:
            jail.params = jail.read(True)
    except (JailError, OSError):
        return False  # told when it has its turn
    if any(jail.params.strings(step) for step in _TELLING) or record.params.get("ng.init", "none") != "none":
        return False
    return not jail.params.number("stop.timeout") or not cgroup.populated(f"{record.cgroup}/members")
