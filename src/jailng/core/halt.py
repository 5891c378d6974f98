"""Every process of a jail standing still for a moment: cgroup2's freezer, so that none is missed while they fork.

Whoever halts a jail writes that to its record first, so that who finds the jail halted by a process that has died lets
it go on (``recover``).
"""

from __future__ import annotations

import posix

from jailng.core import registry
from jailng.linux import cgroup, gathering, ns, processid
from jailng.linux.libc import ESRCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

_PATIENCE = 1000  # milliseconds: one that waits for a disk, or for the child of a vfork(2), does not stop before that
_ROUNDS = 8  # in which those are found that were born while others were signalled
_STOPPED = b"user.jailng.stopped"
_AT_ONCE = 256  # so many are held at a time


class Halted:
    """``with Halted(record):`` all members stand still, those of the jails in it as well. Needs the lock.

    What the administrator has frozen is left frozen. Raises OSError.
    """

    __slots__ = ("_record", "_was")

    def __init__(self, record: Record) -> None:
        self._record = record
        self._was = False

    def __enter__(self) -> None:
        recover(self._record)
        self._was = cgroup.read(_file(self._record)).strip() == b"1"
        if not self._was:
            self._record.append([f"halted {processid.of(posix.getpid())}"])
            try:
                freeze(self._record)
            except BaseException:  # ^C, too, for which there is time: some do not stop at once
                self.__exit__()
                raise

    def __exit__(self, *_: object) -> None:
        if not self._was:
            thaw(self._record)
            self._record.append(["halted "])


class Stopped:
    """``Halted`` for the warden, which has not the lock: it marks the cgroup. Raises OSError."""

    __slots__ = ("_record", "_was")

    def __init__(self, record: Record) -> None:
        self._record = record
        self._was = False

    def __enter__(self) -> None:
        self._was = cgroup.read(_file(self._record)).strip() == b"1"
        if not self._was:
            cgroup.mark(f"{self._record.cgroup}/members", _STOPPED)
            try:
                freeze(self._record)
            except BaseException:
                resume(self._record)
                raise

    def __exit__(self, *_: object) -> None:
        if not self._was:
            resume(self._record)


def resume(record: Record) -> None:
    """Let those go on whom a warden has stopped, be it dead by now. Nothing where the jail has ended."""
    try:
        if cgroup.is_marked(f"{record.cgroup}/members", _STOPPED):
            thaw(record)
            cgroup.unmark(f"{record.cgroup}/members", _STOPPED)
    except FileNotFoundError:
        pass


def recover(record: Record) -> None:
    """Let a jail go on whose halter has died in the middle. Needs the lock."""
    if record.halted and not processid.is_alive(record.halted):
        thaw(record)
        record.append(["halted "])


def look_after(record: Record) -> None:
    """``recover``, for who has not the lock. Raises OSError."""
    if processid.is_alive(record.halted) or not record.lock():
        return
    try:
        recover(record)
    finally:
        record.unlock()


def _file(record: Record) -> str:
    return f"{record.cgroup}/members/cgroup.freeze"


def freeze(record: Record) -> None:
    """Have all members stand still, and wait until they do. Raises OSError."""
    from select import POLLPRI, poll

    events = cgroup.open_file(f"{record.cgroup}/members/cgroup.events", posix.O_RDONLY)
    try:
        waiter = poll()
        waiter.register(events, POLLPRI)
        cgroup.write(_file(record), b"1")
        # Each change makes it readable anew, so one look after it was read is enough to miss none.
        while b"frozen 1" not in posix.pread(events, 256, 0) and waiter.poll(_PATIENCE):
            pass
    finally:
        posix.close(events)


def thaw(record: Record) -> None:
    """Let them go on. Nothing where the jail has ended."""
    try:
        cgroup.write(_file(record), b"0")
    except OSError:
        pass


def members(record: Record) -> list[int]:
    """The pids of a jail's members and of those of the jails in it, in whatever cgroups these have made for themselves.

    PID 1 of a jail in it is none, nor is what the host runs beside that. Raises OSError.
    """
    inits: set[int] = set()
    for one in registry.below(record.name):
        if cgroup.exists(f"{one.cgroup}/init"):
            inits.update(cgroup.members(f"{one.cgroup}/init"))
    return sorted(pid for pid in gathering.members(f"{record.cgroup}/members") - inits if pid)


def signal(record: Record, number: int) -> int:
    """Send every member the signal, once; how many there were. Needs the lock. Raises OSError."""
    done: dict[int, int] = {}
    with Halted(record):
        send(record, number, done)
    return len(done)


def send(record: Record, number: int, done: dict[int, int]) -> None:
    """Signal every member that is not ``done``, and note it there: pid, and inode of its pidfd. Raises OSError."""
    for _ in range(_ROUNDS):
        if not _send(record, number, done):
            break


def _send(record: Record, number: int, done: dict[int, int]) -> bool:
    """Signal those that have not had it; whether there were any."""
    pids = members(record)
    found = False
    for first in range(0, len(pids), _AT_ONCE):
        held = [(pid, pidfd) for pid in pids[first : first + _AT_ONCE] if (pidfd := _open(pid)) >= 0]
        try:
            there = set(members(record))  # a pid that is still a member's while its pidfd is held is that very one's
            for pid, pidfd in held:
                inode = posix.fstat(pidfd).st_ino
                if pid in there and done.get(pid) != inode:
                    done[pid] = inode
                    found = True
                    _try(pidfd, number)
        finally:
            for _, pidfd in held:
                posix.close(pidfd)
    return found


def _open(pid: int) -> int:
    try:
        return ns.pidfd_open(pid)
    except OSError as error:
        if error.errno == ESRCH:
            return -1
        raise


def _try(pidfd: int, number: int) -> None:
    try:
        ns.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass  # it has ended
