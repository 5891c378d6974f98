"""Project quotas: quotactl_fd(2), Linux 5.14, and the project of a file: ioctl_fsgetxattr(2), file_setattr(2).

Structures of include/uapi/linux/quota.h, dqblk_xfs.h and fs.h.
"""

from __future__ import annotations

import fcntl
from _struct import pack, pack_into, unpack_from

from jailng.linux.libc import EINVAL, ENOENT, ENOSYS, ESRCH, buffer, syscall
from jailng.linux.mount import AT_SYMLINK_NOFOLLOW

FS_XFLAG_IMMUTABLE = 8
FS_XFLAG_PROJINHERIT = 0x200

_PRJQUOTA = 2


def _command(number: int) -> int:
    """QCMD()."""
    return number << 8 | _PRJQUOTA


_GETQUOTA, _SETQUOTA, _GETNEXTQUOTA = [_command(0x800000 | number) for number in (7, 8, 9)]
_XGETQSTAT = _command(ord("X") << 8 | 5)
_QIF_LIMITS = 1 | 4
_BLOCK = 1024  # in which limits of space are counted; use is counted in bytes
_ENFORCED = 0x10 | 0x20  # qs_flags: projects are accounted, and held to their limits
_FS_IOC_FSGETXATTR, _FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
_XATTR_BYTES, _ATTR_BYTES = 28, 24
_PROJECT = 12  # where struct fsxattr has the project; struct file_attr has it 4 bytes further
_ENOTTY, _EOPNOTSUPP = 25, 95
_NO_SUCH = (EINVAL, ENOSYS, _ENOTTY, _EOPNOTSUPP)


def is_enforced(fd: int) -> bool:
    """Whether the file system under ``fd`` holds projects to limits. Raises OSError."""
    state = buffer(256)
    try:
        syscall("quotactl_fd", fd, _XGETQSTAT, 0, state)
    except OSError as error:
        if error.errno in (*_NO_SUCH, ESRCH):
            return False
        raise
    flags: int = unpack_from("H", state.raw, 2)[0]
    return flags & _ENFORCED == _ENFORCED


def get(fd: int, project: int) -> tuple[int, int, int, int]:
    """The limits of a project in bytes and inodes, 0 for none, and its use of both. Raises OSError."""
    found = buffer(72)
    try:
        syscall("quotactl_fd", fd, _GETQUOTA, project, found)
    except OSError as error:
        if error.errno != ENOENT:  # xfs: nothing is known of it
            raise
        return 0, 0, 0, 0
    blocks, _, space, inodes, _, used = unpack_from("6Q", found.raw)
    return blocks * _BLOCK, inodes, space, used


def put(fd: int, project: int, size: int, inodes: int) -> None:
    """Set the limits of a project, 0 for none; a part of a block counts as a whole one. Raises OSError."""
    blocks = -(-size // _BLOCK)
    request = pack("8QIxxxx", blocks, 0, 0, inodes, 0, 0, 0, 0, _QIF_LIMITS)
    syscall("quotactl_fd", fd, _SETQUOTA, project, request)


def following(fd: int, project: int) -> int:
    """The first project from that number on of which the file system knows, -1 if there is none. Raises OSError."""
    found = buffer(80)
    try:
        syscall("quotactl_fd", fd, _GETNEXTQUOTA, project, found)
    except OSError as error:
        if error.errno != ENOENT:
            raise
        return -1
    number: int = unpack_from("I", found.raw, 68)[0]
    return number


def attributes(fd: int) -> tuple[int, int]:
    """FS_XFLAG_ flags and project of the open file or directory. Raises OSError (ENOTTY: its file system has none)."""
    found = bytearray(_XATTR_BYTES)
    fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, found)
    return unpack_from("I", found)[0], unpack_from("I", found, _PROJECT)[0]


def enroll(fd: int, project: int, inherit: bool) -> None:
    """Put the open file or directory into a project; what is made below ``inherit``s that or not. Raises OSError."""
    held = bytearray(_XATTR_BYTES)
    fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, held)
    flags = unpack_from("I", held)[0]
    pack_into("I", held, 0, flags | FS_XFLAG_PROJINHERIT if inherit else flags & ~FS_XFLAG_PROJINHERIT)
    pack_into("I", held, _PROJECT, project)
    fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, held)


def enroll_special(directory: int, name: str, project: int) -> bool:
    """The same for what cannot be opened, links, sockets, fifos and nodes; False where this kernel cannot.

    file_setattr(2): Linux 6.17. Raises OSError.
    """
    path = name.encode("utf-8", "surrogateescape")
    held = buffer(_ATTR_BYTES)
    try:
        syscall("file_getattr", directory, path, held, _ATTR_BYTES, AT_SYMLINK_NOFOLLOW)
        wanted = bytearray(held.raw)
        if unpack_from("I", wanted, _PROJECT + 4)[0] == project:
            return True
        pack_into("I", wanted, _PROJECT + 4, project)
        syscall("file_setattr", directory, path, bytes(wanted), _ATTR_BYTES, AT_SYMLINK_NOFOLLOW)
    except OSError as error:
        if error.errno not in _NO_SUCH:
            raise
        return False
    return True
