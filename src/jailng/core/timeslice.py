"""How long those in a limited jail run before others have their turn: so that who wakes beside them need not wait.

The kernel puts whoever wakes before whoever runs where the slice of the latter is longer; else it waits for a tick,
4 ms of HZ=250 (PREEMPT_SHORT in kernel/sched/features.h, Linux 6.12; older kernels have one slice for all, and take no
notice). So all that is in a limited jail has a longer one, and can have no other: core/filter.py. A group has the
shortest of what is in it. docs/decisions/0036-slices.md.
"""

from __future__ import annotations

import posix

from jailng.core import process
from jailng.linux import gathering
from jailng.linux.libc import EPERM, ESRCH, buffer, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.linux.libc import Buffer

_SIZE = 48  # SCHED_ATTR_SIZE_VER0
_POLICIES = (posix.SCHED_OTHER, posix.SCHED_BATCH, posix.SCHED_IDLE)
_MOST_PASSES = 1000


def give(record: Record, limited: bool) -> None:
    """Give all that are in the jail the slice of a limited one, or again the kernel's own; not those in jails in it.

    Where this process may not (CAP_SYS_NICE), they keep what they have. Raises OSError.
    """
    for _ in range(_MOST_PASSES):  # they may fork meanwhile
        given = [_give(thread, limited) for pid in gathering.members(record.cgroup) for thread in _threads(pid)]
        if True not in given:
            return


def are_known() -> bool:
    """Whether the kernel has a slice for each process. Raises OSError."""
    return _now(0)[2] != 0


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in posix.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return []


def _give(thread: int, limited: bool) -> bool:
    """Whether it has it now and had it not before."""
    try:
        policy, nice, before = _now(thread)
        if policy not in _POLICIES or (before == process.LIMITED_SLICE) == limited:
            return False
        wanted = process.scheduling(policy, nice, process.LIMITED_SLICE if limited else 0)
        syscall("sched_setattr", thread, wanted, 0)
        return _now(thread)[2] != before
    except OSError as error:
        if error.errno not in (ESRCH, EPERM):
            raise
        return False


def _now(thread: int) -> tuple[int, int, int]:
    """Its policy, niceness and slice, which kernels that have one for all say nothing of."""
    found = buffer(_SIZE)
    syscall("sched_getattr", thread, found, _SIZE, 0)
    return _number(found, 4, 4), _number(found, 16, 4), _number(found, 24, 8)


def _number(found: Buffer, at: int, size: int) -> int:
    return int.from_bytes(found.raw[at : at + size], "little")
