"""Which cgroup a process is in: cgroups(7), proc_pid_cgroup(5)."""

from __future__ import annotations

import posix

from jailng.linux.libc import ESRCH


def of_process(pidfd: int) -> str:
    """The cgroup2 path of a process, as /proc has it. Raises OSError (ESRCH: it has ended)."""
    pid = _numbered(pidfd)
    file = posix.open(f"/proc/{pid}/cgroup", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        lines = posix.read(file, 65536).split(b"\n")
    finally:
        posix.close(file)
    if _numbered(pidfd) != pid:  # else what was read may be of another that has got its number
        raise OSError(ESRCH, posix.strerror(ESRCH))
    path = next(line for line in lines if line.startswith(b"0::"))[3:]
    return path.decode("utf-8", "surrogateescape")


def _numbered(pidfd: int) -> int:
    file = posix.open(f"/proc/self/fdinfo/{pidfd}", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        pid = int(posix.read(file, 4096).partition(b"Pid:")[2].split(None, 1)[0])
    finally:
        posix.close(file)
    if pid <= 0:
        raise OSError(ESRCH, posix.strerror(ESRCH))
    return pid
