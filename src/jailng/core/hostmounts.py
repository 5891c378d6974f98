"""Whether a directory is where the host's other users find it, or in a mount namespace of the caller's own.

They are in the machine's, which is that of its PID 1. Into one that root has made for himself (unshare -m), and what
he has mounted there, he alone brings anybody.
"""

from __future__ import annotations

import posix

from jailng.core import reach, rootfs
from jailng.linux import content

_KERNELS = 2  # kthreadd, which has the machine's first mount namespace
_DEEPEST = 100  # ancestors that are looked at


def is_here_alone(path: str, mounts: list[list[bytes]]) -> bool:
    """Whether nobody in the machine's reaches what is at ``path``, by that path or by another.

    ``mounts`` are ``rootfs.mounts``. Not so where that cannot be found out.
    """
    here = _identity("/proc/self/ns/mnt")
    for pid in _witnesses():
        machine = _identity(f"/proc/{pid}/ns/mnt")
        if machine is None:
            continue
        if machine == here:
            return False
        try:
            return not reach.has_doors(path, mounts, rootfs.mounts(pid), f"/proc/{pid}/root")
        except OSError:
            continue
    return False


def _witnesses() -> list[int]:
    """Who may tell which the machine's is: PID 1, a thread of the kernel's, and the ancestors, the eldest first.

    A root whose capabilities are not all that PID 1 has is not shown that one's.
    """
    ancestors: list[int] = []
    pid = posix.getppid()
    while pid > 1 and len(ancestors) < _DEEPEST:
        ancestors.insert(0, pid)
        pid = _parent(pid)
    return [1, *([_KERNELS] if _parent(_KERNELS) == 0 else []), *ancestors]


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = posix.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _parent(pid: int) -> int:
    """Its parent's pid; 1 where it is no more."""
    try:
        return int(content.read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1])
    except OSError:
        return 1
