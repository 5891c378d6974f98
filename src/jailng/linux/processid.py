"""What a process is known by in a record: its pid, and what tells it from every other that ever had that pid."""

from __future__ import annotations

import posix

from jailng.linux.libc import EINVAL, ENOENT, ESRCH, keep_if
from jailng.linux.ns import ends_within, pidfd_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_GOING = 0x4 | 0x400  # PF_EXITING, PF_SIGNALED of include/linux/sched.h
_KILLED = 1 << 8  # SIGKILL
_HIDDEN = (1, 13)  # EPERM, EACCES: by hidepid= of proc(5), which may say ENOENT as well, or by an LSM
_NO_PROCESS = (ESRCH, EINVAL, ENOENT)  # the latter two: the number is a thread's, which depends on the kernel


def of(pid: int) -> str:
    """What tells a process from every other that ever had its pid: ``PID INODE`` of its pidfd.

    pidfds have an inode of their own since Linux 6.9, unique while the machine runs. Raises OSError (ESRCH).
    """
    fd = pidfd_open(pid)
    try:
        return f"{pid} {posix.fstat(fd).st_ino}"
    finally:
        posix.close(fd)


def is_own(identity: str) -> bool:
    """Whether it is the identity of this process."""
    return identity == of(posix.getpid())


def is_alive(identity: str) -> bool:
    """Whether the process of that identity lives, which "" is not. Raises OSError where there is no telling."""
    return not ends(identity, 0)


def ends(identity: str, seconds: float) -> bool:
    """Wait so long for the process of that identity to end; whether it has. Raises as ``is_alive`` does."""
    fd = open_process(identity)
    if fd < 0:
        return True
    try:
        # A zombie has a pidfd too, but one that is readable: it is no longer alive.
        return ends_within(fd, seconds)
    finally:
        posix.close(fd)


def is_ending(identity: str) -> bool:
    """Whether the process of that identity runs no more of its program: it has ended, is about to, or was killed.

    Whoever kills it, and whatever goes with it, is not before this can be told. Raises as ``is_alive`` does; to whom
    /proc shows nothing of it, it is no more than that.
    """
    fd = open_process(identity)
    if fd < 0:
        return True
    from jailng.linux import content

    try:
        place = f"/proc/{identity.partition(' ')[0]}"
        # In this order: when the signal is no longer pending, the flags say so.
        status = content.read(f"{place}/status")
        flags = int(content.read(f"{place}/stat").rpartition(b")")[2].split()[6])
        pending = [int(content.field(status, name), 16) for name in (b"SigPnd", b"ShdPnd")]
        return bool(flags & _GOING or any(signals & _KILLED for signals in pending)) or ends_within(fd, 0)
    except OSError as error:
        if error.errno not in (*_NO_PROCESS, *_HIDDEN):
            raise
        return ends_within(fd, 0)
    finally:
        posix.close(fd)


def open_process(identity: str) -> int:
    """A pidfd of the process of that identity, or -1: it has been reaped.

    Raises OSError where there is no telling. No jail may end because a command has no descriptor left.
    """
    pid, _, inode = identity.partition(" ")
    if not (pid.isascii() and pid.isdigit()):
        return -1
    try:
        fd = pidfd_open(int(pid))
    except OSError as error:
        if error.errno not in _NO_PROCESS:
            raise
        return -1
    return keep_if(fd, lambda fd: str(posix.fstat(fd).st_ino) == inode)


def opened(identity: str, opening: Callable[[int], int]) -> int:
    """What that opens by the pid of the process of that identity. Raises OSError (ENOENT, ESRCH: it has ended)."""
    fd = keep_if(opening(int(identity.partition(" ")[0])), lambda _: _has_pid(identity))
    if fd < 0:
        raise OSError(ENOENT, posix.strerror(ENOENT))
    return fd


def open_namespace(identity: str, kind: str) -> int:
    """A namespace of the process of that identity. Raises OSError as ``opened`` does."""
    return opened(identity, lambda pid: posix.open(f"/proc/{pid}/ns/{kind}", posix.O_RDONLY | posix.O_CLOEXEC))


def _has_pid(identity: str) -> bool:
    """Whether it has it still, and so had it before: to hold a pidfd does not keep the pid from being another's."""
    fd = open_process(identity)
    if fd >= 0:
        posix.close(fd)
    return fd >= 0
