"""Namespaces, and processes by pidfd: namespaces(7), setns(2), unshare(2), pidfd_open(2)."""

from __future__ import annotations

import _signal
import posix

from jailng.linux.libc import buffer, syscall

CLONE_NEWTIME = 0x80
CLONE_PIDFD = 0x1000
CLONE_PARENT = 0x8000
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000
LONGEST = 2**31 - 1  # milliseconds that poll(2) takes
_PIDFD_GET_PID_NAMESPACE = 0xFF05  # Linux 6.11
_NS_GET_TGID_FROM_PIDNS = 0x8004B707  # Linux 6.11
_AT_EMPTY_PATH, _STATX_INO, _STATX_MNT_ID_UNIQUE = 0x1000, 0x100, 0x4000
_O_PATH = 0o10000000  # linux/mount.py has it, which most commands do without
_DIRECTORY = _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
_FAR_UP = "../" * 1000


_jailed: list[bool] = []


def is_jailed() -> bool:
    """Whether this process is in another user namespace than the machine's first, as those in a jail are.

    user_namespaces(7): that one maps every id to itself.
    """
    if not _jailed:
        try:
            file = posix.open("/proc/self/uid_map", posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:  # there is no /proc
            return False
        _jailed.append(posix.read(file, 64).split() != [b"0", b"0", b"4294967295"])
        posix.close(file)
    return _jailed[0]


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    syscall("unshare", flags)


def setns(fd: int, flags: int) -> None:
    """setns(2): ``fd`` is a namespace, or a pidfd with the flags of every namespace to take over. Raises OSError."""
    syscall("setns", fd, flags)


def open_root(pid: int) -> int:
    """The root of the mount namespace that a process is in, as an O_PATH descriptor. Raises OSError.

    Not what the process has made its root by chroot(2), as PID 1 of a guest may (ng.init): from there it goes up, and
    above the root of a namespace is nothing but that root.
    """
    found = posix.open(f"/proc/{pid}/root", _DIRECTORY)
    way = ".."
    while True:
        try:
            above = posix.open(way, _DIRECTORY, dir_fd=found)
        except PermissionError:  # a FUSE file system of the jail's own lets no process of the host's go anywhere in it
            return found
        except BaseException:
            posix.close(found)
            raise
        is_top = _place(above) == _place(found)
        posix.close(found)
        if is_top:
            return above
        found, way = above, _FAR_UP


def _place(fd: int) -> bytes:
    """The mount, device and inode of a descriptor."""
    result = buffer(256)
    syscall("statx", fd, b"", _AT_EMPTY_PATH, _STATX_INO | _STATX_MNT_ID_UNIQUE, result)
    return result.raw[0x20:0x28] + result.raw[0x88:0x98]  # stx_ino; stx_dev_major, stx_dev_minor, stx_mnt_id


def pidfd_open(pid: int) -> int:
    """pidfd_open(2). Raises OSError (ESRCH: no such process)."""
    return posix.pidfd_open(pid)


def pid_from(pidfd: int, pid: int) -> int:
    """The pid that a process has here which has ``pid`` in the pid namespace of the process ``pidfd``.

    Raises OSError (ESRCH: either of them has ended).
    """
    from fcntl import ioctl

    namespace = ioctl(pidfd, _PIDFD_GET_PID_NAMESPACE, 0)
    try:
        return ioctl(namespace, _NS_GET_TGID_FROM_PIDNS, pid)
    finally:
        posix.close(namespace)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """pidfd_send_signal(2): what kill(2) should have been. Raises OSError (ESRCH: it has been reaped)."""
    _signal.pidfd_send_signal(pidfd, signal)  # type: ignore[attr-defined, unused-ignore]


def ends_within(pidfd: int, seconds: float) -> bool:
    """Wait until the process has ended, reaped or not, ``seconds`` at most (below 0: no wait); whether it has.

    poll(2) takes no more than 24 days, and so does this.
    """
    from select import POLLIN, poll

    waiter = poll()
    waiter.register(pidfd, POLLIN)
    return bool(waiter.poll(min(max(1000 * seconds, 0), LONGEST)))


def sethostname(name: bytes) -> None:
    """sethostname(2): at most 64 bytes. Raises OSError (EINVAL: longer)."""
    syscall("sethostname", name, len(name))


def setdomainname(name: bytes) -> None:
    """setdomainname(2): the NIS domain, at most 64 bytes. Raises OSError (EINVAL: longer)."""
    syscall("setdomainname", name, len(name))
