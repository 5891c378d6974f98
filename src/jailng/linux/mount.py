"""Mounts, and the walk to them by file descriptor: open_tree(2), move_mount(2), mount_setattr(2), openat2(2)."""

from __future__ import annotations

import posix
import sys

from jailng.linux.libc import buffer, syscall, words

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
O_PATH = 0o10000000

MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
MOUNT_ATTR_NOEXEC = 8
MOUNT_ATTR_IDMAP = 0x100000

RESOLVE_NO_XDEV = 1
RESOLVE_NO_MAGICLINKS = 2
RESOLVE_NO_SYMLINKS = 4
RESOLVE_BENEATH = 8

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 0x1000
MS_PRIVATE = 1 << 18

DEVPTS_SUPER_MAGIC = 0x1CD1

OPEN_TREE_CLONE = 1
_CLOEXEC = posix.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
MNT_DETACH = 2


def openat2(directory: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2): open ``path`` below ``directory`` under the given RESOLVE_ rules. Raises OSError."""
    how = words(flags | _CLOEXEC, mode, resolve)
    return syscall("openat2", directory, path, how, len(how), path=path)


def open_tree(directory: int, path: bytes = b"", recursive: bool = False) -> int:
    """A detached copy of the mount (with ``recursive``, of the whole tree) at ``path``; empty: ``directory`` itself."""
    flags = OPEN_TREE_CLONE | _CLOEXEC | (0 if path else AT_EMPTY_PATH) | (AT_RECURSIVE if recursive else 0)
    return syscall("open_tree", directory, path, flags, path=path)


def mount_setattr(tree: int, attributes: int, userns: int = 0, recursive: bool = False) -> None:
    """Set MOUNT_ATTR_ flags; MOUNT_ATTR_IDMAP maps ids through ``userns``, while detached only. Raises OSError."""
    attr = words(attributes, 0, 0, userns)
    syscall("mount_setattr", tree, b"", AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), attr, len(attr))


def new_file_system(kind: bytes, options: list[tuple[bytes, bytes | None]], attributes: int = 0) -> int:
    """A new instance of a file system, as a detached mount. An option without a value is a flag.

    Raises OSError; EINVAL names an option that this kernel does not know.
    """
    context = syscall("fsopen", kind, 1, path=kind)
    try:
        for key, value in options:
            if value is None:
                syscall("fsconfig", context, FSCONFIG_SET_FLAG, key, None, 0, path=key)
            else:
                syscall("fsconfig", context, FSCONFIG_SET_STRING, key, value, 0, path=key)
        syscall("fsconfig", context, FSCONFIG_CMD_CREATE, None, None, 0, path=kind)
        return syscall("fsmount", context, 1, attributes, path=kind)
    finally:
        posix.close(context)


def takes_pid_namespace() -> bool:
    """Whether a procfs can be made for another pid namespace than one's own: Linux 6.18, fsconfig's ``pidns``."""
    major, minor = posix.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (6, 18)


def file_system_magic(fd: int) -> int:
    """The type of the file system under ``fd``, as statfs(2) numbers it."""
    result = buffer(120)
    syscall("fstatfs", fd, result)
    return int.from_bytes(result.raw[:8], sys.byteorder)


def make_private() -> None:
    """Cut the mount namespace's propagation: nothing that is mounted from now on reaches the one it was copied from."""
    attr = words(0, 0, MS_PRIVATE, 0)
    syscall("mount_setattr", AT_FDCWD, b"/", AT_RECURSIVE, attr, len(attr), path=b"/")
