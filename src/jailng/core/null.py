"""The null device that a command in a jail has as a standard stream: the jail's own where it has one."""

from __future__ import annotations

import posix

from jailng.linux import filekind, mount, mountfd

_NULL = posix.makedev(1, 3)
_NO_LINK = posix.O_NOFOLLOW | posix.O_CLOEXEC


def open_for(root: int | None) -> int:
    """The jail's null device, whose inode is its own; where there is none, one that has no place in any tree."""
    if root is not None:
        try:
            fd = _open_own(root)
        except OSError:
            fd = -1
        if fd >= 0:
            return fd
    tree = mountfd.new_file_system(b"tmpfs", [(b"size", b"4096")], mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC)
    try:
        posix.mknod("null", filekind.CHARACTER | 0o600, _NULL, dir_fd=tree)
        fd = posix.open("null", posix.O_RDWR | posix.O_CLOEXEC, dir_fd=tree)
    finally:
        posix.close(tree)
    posix.fchmod(fd, 0o666)
    return fd


def _open_own(root: int) -> int:
    """The jail's null device, or -1 where that is something else. The walk is a name at a time and follows no link."""
    directory = posix.open("dev", mount.O_PATH | posix.O_DIRECTORY | _NO_LINK, dir_fd=root)
    try:
        null = posix.open("null", mount.O_PATH | _NO_LINK, dir_fd=directory)
    finally:
        posix.close(directory)
    try:
        status = posix.fstat(null)
        if filekind.of(status) != filekind.CHARACTER or status.st_rdev != _NULL:
            return -1
        return posix.open(f"/proc/self/fd/{null}", posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC)
    finally:
        posix.close(null)
