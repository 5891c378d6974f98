"""PID 1 of a jail that is made in another: born in there, where there may be no room for it.

Where cgroup2 counts the processes of the jail above (``maxproc``), PID 1 of this one is among them, and so is, as long
as that takes, the process that forks it. A jail that has as many processes as it may have is to be entered, and to be
given a jail, all the same, as with v1: clone3(2) is refused then, a move is not (docs/decisions/0019-limits.md).
"""

from __future__ import annotations

from jailng.errors import JailError
from jailng.linux import cgroup, ns
from jailng.linux.libc import EAGAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.program import Running


def born(init: Running, again: Callable[[int], Running], outer: int, home: str) -> Running:
    """Wait until PID 1 has been forked in the jail above, whose own is ``outer``, a pidfd; it or another in its place.

    ``again`` starts another for a cgroup, or for this process's own (-1). It is in the cgroup ``home`` then. Raises
    JailError with what failed, or OSError.
    """
    try:
        init.forked()
    except JailError as error:
        if error.errno != EAGAIN:
            raise
        init = again(-1)
        _move(init.forked(), outer, home)
    pids = cgroup.members(home)
    if not pids:
        raise JailError(init.complaint() or "jail_set: PID 1 died")
    init.pid = pids[0]
    return init


def _move(pid: int, outer: int, home: str) -> None:
    """Before its id maps are written it does nothing but wait, and it ends if this process does."""
    try:
        cgroup.write(f"{home}/cgroup.procs", b"%d" % ns.pid_from(outer, pid))
    except ProcessLookupError:
        pass  # it has died
