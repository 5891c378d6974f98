"""The file of ``exec.consolelog``, opened to be written to, though its path may lead through the tree of a jail."""

from __future__ import annotations

import posix

from jailng.core import hostpath, rootfs
from jailng.engine import files
from jailng.errors import JailError
from jailng.linux import filekind, mount, mountfd
from jailng.linux.libc import ENOENT

_FLAGS = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC | posix.O_NOCTTY


def opened(path: str, root: str) -> int:
    """The file ``path``, absolute, of a jail with that ``root``. Raises JailError, OSError.

    In a tree no link is followed, and what is no regular file would be a way to keep the host waiting.
    """
    if root != "/":
        below = rootfs.open_root(root)
        try:
            rest = hostpath.beneath(below, path)
            if rest is not None:
                return _in_its_tree(below, root, rest)
        finally:
            posix.close(below)
    return hostpath.created(path, _FLAGS, 0o666, files.trees_of_jails)


def _in_its_tree(below: int, root: str, path: str) -> int:
    try:
        fd = _openat(below, path or ".", _FLAGS | posix.O_NONBLOCK, 0o666)
    except OSError:
        _check_path(below, root, path)
        raise
    return _regular(fd, f"{root}/{path}")


def _regular(fd: int, path: str) -> int:
    if filekind.of(posix.fstat(fd)) != filekind.REGULAR:
        posix.close(fd)
        raise JailError(f"exec.consolelog: {path}: not a regular file")
    return fd


def _openat(below: int, path: str, flags: int, mode: int = 0) -> int:
    return mountfd.openat2(below, path.encode("utf-8", "surrogateescape"), flags, mount.BENEATH, mode)


def _check_path(below: int, root: str, path: str) -> None:
    """Say, as check_path of jail(8) does, which part of a way that could not be gone is a link, or is not there."""
    parts = path.split("/")
    for number in range(1, len(parts) + 1):
        way = "/".join(parts[:number])
        try:
            fd = _openat(below, way, mount.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC)
        except OSError as error:
            if number == len(parts) and error.errno == ENOENT:
                return
            raise JailError(f"exec.consolelog: {root}/{way}: {error.strerror}") from None
        try:
            if filekind.of(posix.fstat(fd)) == filekind.LINK:
                raise JailError(f"exec.consolelog: {root}/{way} is a symbolic link")
        finally:
            posix.close(fd)
