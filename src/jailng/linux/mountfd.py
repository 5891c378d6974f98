"""Mounts, and the walk to them by file descriptor: open_tree(2), move_mount(2), mount_setattr(2), openat2(2).

Calls that this process makes itself. What a jail is built with is laid down as a program instead (core/rootfs.py).
"""

from __future__ import annotations

import posix
import sys

from jailng.linux.libc import SHORTAGES, buffer, keep_if, syscall, words
from jailng.linux.mount import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    BENEATH,
    FSCONFIG_CMD_CREATE,
    FSCONFIG_CMD_RECONFIGURE,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    MS_PRIVATE,
    O_PATH,
    OPEN_TREE_CLONE,
    RESOLVE_NO_MAGICLINKS,
)

_FSPICK_CLOEXEC = 1
_FSPICK_EMPTY_PATH = 8
_STATX_MNT_ID_UNIQUE = 0x4000
_STATMOUNT_MNT_BASIC = 0x2
_STATMOUNT_MNT_POINT = 0x10
_STATMOUNT_FS_TYPE = 0x20
_EOVERFLOW = 75
_LARGEST = 1 << 24  # bytes of what is told of a mount
_LONGEST = 4000  # bytes of a path that one call takes (PATH_MAX)


def openat2(directory: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2): open ``path`` below ``directory`` under the given RESOLVE_ rules. Raises OSError."""
    how = words(flags | posix.O_CLOEXEC, mode, resolve)
    return syscall("openat2", directory, path, how, len(how), path=path)


def open_place(path: bytes, flags: int) -> int:
    """The place at an absolute path, however long that is, by no link of /proc's. Raises OSError."""
    here, rest = AT_FDCWD, path
    try:
        while len(rest) > _LONGEST:
            at = rest.rindex(b"/", 0, _LONGEST)
            below = openat2(here, rest[:at], O_PATH | posix.O_DIRECTORY, RESOLVE_NO_MAGICLINKS)
            if here != AT_FDCWD:
                posix.close(here)
            here, rest = below, rest[at + 1 :]
        return openat2(here, rest, flags, RESOLVE_NO_MAGICLINKS)
    finally:
        if here != AT_FDCWD:
            posix.close(here)


def open_tree(directory: int, path: bytes = b"", recursive: bool = False) -> int:
    """A detached copy of the mount (with ``recursive``, of the whole tree) at ``path``; empty: ``directory`` itself."""
    flags = OPEN_TREE_CLONE | posix.O_CLOEXEC | (0 if path else AT_EMPTY_PATH) | (AT_RECURSIVE if recursive else 0)
    return syscall("open_tree", directory, path, flags, path=path)


def mount_setattr(
    tree: int, attributes: int, userns: int = 0, recursive: bool = False, clear: int = 0, propagation: int = 0
) -> None:
    """Set MOUNT_ATTR_ flags; MOUNT_ATTR_IDMAP maps ids through ``userns``, while detached only. Raises OSError."""
    attr = words(attributes, clear, propagation, userns)
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


def reconfigure(fd: int, options: list[tuple[bytes, bytes]]) -> None:
    """Give the file system, at the root of one of whose mounts the O_PATH descriptor is, other options.

    Raises OSError.
    """
    context = syscall("fspick", fd, b"", _FSPICK_CLOEXEC | _FSPICK_EMPTY_PATH)
    try:
        for key, value in options:
            syscall("fsconfig", context, FSCONFIG_SET_STRING, key, value, 0, path=key)
        syscall("fsconfig", context, FSCONFIG_CMD_RECONFIGURE, None, None, 0)
    finally:
        posix.close(context)


def move_mount(tree: int, target: int) -> None:
    """Attach the detached mount ``tree`` where the O_PATH descriptor ``target`` leads. Raises OSError."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    syscall("move_mount", tree, b"", target, b"", flags)


def mount_id(fd: int) -> int:
    """The number of the mount that ``fd`` is on: no other has it while the machine runs. Linux 6.8; raises OSError."""
    result = buffer(256)
    syscall("statx", fd, b"", AT_EMPTY_PATH, _STATX_MNT_ID_UNIQUE, result)
    return int.from_bytes(result.raw[0x90:0x98], sys.byteorder)


def stat_mount(number: int) -> tuple[bytes, str] | None:
    """Where the mount of that ``mount_id`` is mounted and its type; None: not in this mount namespace.

    statmount(2), Linux 6.8. Raises OSError.
    """
    request = words(24, number, _STATMOUNT_MNT_POINT | _STATMOUNT_FS_TYPE)
    size = 0x4000
    while True:
        result = buffer(size)
        try:
            syscall("statmount", request, result, size, 0)
            break
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != _EOVERFLOW or size == _LARGEST:
                raise
            size = _LARGEST  # a jail's root has moved the directories above it far down
    content = result.raw
    kind, point = (int.from_bytes(content[at : at + 4], sys.byteorder) + 512 for at in (36, 108))
    return content[point : content.index(b"\0", point)], content[kind : content.index(b"\0", kind)].decode()


def parent_mount(number: int) -> int:
    """The number of the mount that the mount of that ``mount_id`` lies on; 0: on none, or it is not there.

    Raises OSError.
    """
    result = buffer(0x400)
    try:
        syscall("statmount", words(24, number, _STATMOUNT_MNT_BASIC), result, 0x400, 0)
    except FileNotFoundError:
        return 0
    parent = int.from_bytes(result.raw[48:56], sys.byteorder)
    return parent if parent != number else 0


def mounts_below(number: int, most: int = 64) -> list[int]:
    """What is mounted below the mount of that ``mount_id`` or on it, at any depth, the first ``most``: listmount(2).

    Raises OSError.
    """
    result = buffer(8 * most)
    found = syscall("listmount", words(24, number, 0), result, most, 0)
    return [int.from_bytes(result.raw[at : at + 8], sys.byteorder) for at in range(0, 8 * found, 8)]


def unmount(fd: int, flags: int = 0) -> None:
    """umount2(2) of the mount whose root the O_PATH descriptor ``fd`` is. Raises OSError (EINVAL: it is none)."""
    syscall("umount2", f"/proc/self/fd/{fd}".encode(), flags)


def file_system_magic(fd: int) -> int:
    """The type of the file system under ``fd``, as statfs(2) numbers it."""
    result = buffer(120)
    syscall("fstatfs", fd, result)
    return int.from_bytes(result.raw[:8], sys.byteorder)


def open_mounted(tree: int, path: bytes, flags: int, magic: int) -> int:
    """The directory ``path`` below ``tree``, by no link, if it is of that type of file system; else -1.

    Raises OSError where there is no telling.
    """
    try:
        fd = openat2(tree, path, flags | posix.O_DIRECTORY | posix.O_CLOEXEC, BENEATH)
    except OSError as error:
        if error.errno in SHORTAGES:
            raise
        return -1
    return keep_if(fd, lambda fd: file_system_magic(fd) == magic)


def make_private() -> None:
    """Cut the mount namespace's propagation: nothing that is mounted from now on reaches the one it was copied from."""
    attr = words(0, 0, MS_PRIVATE, 0)
    syscall("mount_setattr", AT_FDCWD, b"/", AT_RECURSIVE, attr, len(attr), path=b"/")
