"""How long a jail's processes run before others have their turn, ng.slice: who wakes beside them need not wait for it.

The kernel puts whoever wakes before whoever runs where the slice of the latter is longer; else it waits for a tick,
4 ms of HZ=250 (PREEMPT_SHORT in kernel/sched/features.h, Linux 6.12; older kernels have one slice for all, and take no
notice). Nobody inside can have another: core/filter.py. docs/decisions/0036-slices.md. Loaded where it is asked for.
"""

from __future__ import annotations

import posix

from jailng.core import attach, halt, process, registry
from jailng.errors import JailError
from jailng.linux import cgroup, gathering
from jailng.linux.libc import ENOSYS, ESRCH, buffer, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.linux.libc import Buffer
    from jailng.params.model import Parameters

_SIZE = 48  # SCHED_ATTR_SIZE_VER0
_POLICIES = (posix.SCHED_OTHER, posix.SCHED_BATCH, posix.SCHED_IDLE)
# The kernel leaves the slice of who is idle as it is (fair_policy(), kernel/sched/sched.h); a group's follows from it.
_WAYS = {posix.SCHED_IDLE: (posix.SCHED_BATCH, posix.SCHED_IDLE)}
_MOST_PASSES = 1000


def must_be_known() -> None:
    """Raises OSError where the kernel has not a slice for each process."""
    if _now(0)[2] == 0:
        raise OSError(ENOSYS, "this kernel has one slice for all processes")


def is_known() -> bool:
    """Whether the kernel has a slice for each process."""
    try:
        must_be_known()
    except OSError:
        return False
    return True


def check(params: Parameters) -> None:
    """Raises JailError for a slice that this kernel cannot give, unless with ng.lenient."""
    try:
        must_be_known()
    except OSError as error:
        if not params.flag("ng.lenient"):
            raise JailError(f"ng.slice: {error.strerror} (Linux 6.12)") from None


def change(record: Record, params: Parameters) -> None:
    """Give all in a jail that runs the slice of ``params``, and those in it that have none of their own.

    They stand still meanwhile: who does nothing but fork and end would be missed, and so would all that come of him.
    Raises JailError; then all is as it was.
    """
    before = attach.slice_of(record)
    try:
        check(params)
        with halt.Halted(record):
            _give_below(record, params.number("ng.slice") * 1_000_000 or _above(record))
    except OSError as error:
        try:
            _give_below(record, before)
        except OSError:
            pass  # it is what has failed
        raise JailError(f"ng.slice: {error.strerror}") from None


def shorten(record: Record) -> None:
    """Let those who are to die come to it as soon as others come to theirs. Nothing is raised."""
    try:
        _give(record, 0)
    except OSError:
        pass  # it has ended


def take(record: Record) -> None:
    """Have this process, which works for those in the jail and is in its cgroup, run as they do. Raises OSError."""
    wanted = attach.slice_of(record)
    if wanted:
        _give_to(0, wanted)


def _above(record: Record) -> int:
    parent = registry.load(record.parent) if record.parent else None
    return attach.slice_of(parent) if parent is not None else 0


def _give_below(record: Record, wanted: int) -> None:
    _give(record, wanted)
    for one in sorted(registry.below(record.name), key=lambda one: one.name.count(".")):
        own = int(one.params.get("ng.slice") or 0)
        if own and one.alive():
            _give(one, own * 1_000_000)


def _give(record: Record, wanted: int) -> None:
    """The slice of all that are in the jail now, and in those in it, in nanoseconds; 0 is the kernel's own.

    Raises OSError.
    """
    for _ in range(_MOST_PASSES):  # they may fork meanwhile
        pids = gathering.members(record.cgroup) | _brokers(record)
        if True not in [_give_to(thread, wanted) for pid in pids for thread in _threads(pid)]:
            return


def _brokers(record: Record) -> set[int]:
    """Of the jail and of those in it: root inside keeps them busy; a group has the shortest slice of what is in it."""
    found: set[int] = set()
    for one in (record, *registry.below(record.name)):
        for name in gathering.HOSTS:
            try:
                found.update(cgroup.members(f"{one.cgroup}/{name}"))
            except FileNotFoundError:
                continue
    return found


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in posix.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return []


def _give_to(thread: int, wanted: int) -> bool:
    """Whether it has it now and had it not before."""
    try:
        policy, nice, before = _now(thread)
        if policy not in _POLICIES or before == wanted:
            return False
        for way in _WAYS.get(policy, (policy,)):
            syscall("sched_setattr", thread, process.scheduling(way, nice, wanted), 0)
        return _now(thread)[2] != before
    except OSError as error:
        if error.errno != ESRCH:  # it has ended
            raise
        return False


def _now(thread: int) -> tuple[int, int, int]:
    """Its policy, niceness and slice; 0 where the kernel has one for all."""
    found = buffer(_SIZE)
    syscall("sched_getattr", thread, found, _SIZE, 0)
    return _number(found, 4, 4), _number(found, 16, 4), _number(found, 24, 8)


def _number(found: Buffer, at: int, size: int) -> int:
    return int.from_bytes(found.raw[at : at + size], "little")
