"""Whether other users of the host can reach a jail's tree: what is set-uid in it would be so for them.

An idmapped root keeps uid 0 on the disk, so ``chmod 4755 sh`` inside is a set-uid-root shell for whoever reaches the
file outside, and what setcap gives is given there as well.
"""

from __future__ import annotations

import posix

from jailng.core import rootfs
from jailng.errors import JailError
from jailng.linux import filekind
from jailng.linux import mount as m
from jailng.linux.libc import SHORTAGES
from jailng.params.values import visible

# Directories that every user of the host needs.
_EVERYBODYS = frozenset(["", *"bin etc home lib media mnt opt proc run sbin srv sys tmp usr var".split()])


def reachable(root: int, path: str, inside: bool = True, above: str = "") -> str:
    """What mends a root in which another user of the host could run what the jail's root has made, a command, or "".

    What keeps them out is a directory of root's above it that gives nothing to group and others; the group's bits may
    be those of an access control list, which may name anybody (acl(5)). The root's own mode does not count, since the
    jail's root can change it; it does for a directory that is not ``inside``, but above what the jail has.

    ``/`` itself is FreeBSD's idiom for a jail that confines no files. With ``above``, a process's /proc/PID/root, it is
    the users in that one's mount namespace, of which ``root`` is.
    """
    status = posix.fstat(root)
    top = posix.stat(f"{above}/")
    if (status.st_ino, status.st_dev) == (top.st_ino, top.st_dev):
        return ""
    here = posix.dup(root)
    try:
        while True:
            if not inside and status.st_uid == 0 and not status.st_mode & 0o011:
                return ""
            inside = False
            if (status.st_ino, status.st_dev) == (top.st_ino, top.st_dev):
                break
            outer = posix.open("..", m.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=here)
            posix.close(here)
            here = outer
            status = posix.fstat(here)
    finally:
        posix.close(here)
    parent = path.rstrip("/").rpartition("/")[0]
    if not parent:
        return "install -d -m 700 /jail, and a root of its own in that"  # not mv /usr /jail/
    if parent.count("/") < 2 and parent[1:] in _EVERYBODYS:
        return f"install -d -m 700 /jail && mv {path.rstrip('/')} /jail/"
    return f"chmod 0700 {parent}"


def warning(path: str, mend: str) -> str:
    """What is said of a root that is ``reachable``."""
    return (
        f"path {path}: other users of this host can reach it, "
        f"and a set-uid file made inside would be one outside: {mend} (or set ng.lenient)"
    )


def doors(path: str, mounts: list[list[bytes]]) -> list[tuple[str, str]]:
    """Where else on the host the tree at ``path``, or a part of it, is to be seen by other users, and what mends that.

    ``mounts`` are ``rootfs.mounts``. A tree is in another place where its file system, a directory above the tree, or
    one in it is mounted there as well. What is mounted nosuid gives nobody anything. Raises OSError.
    """
    placed = _placed(path, mounts)
    if placed is None:
        return []
    own, place = placed
    found = _seen(own[2], place, [fields for fields in mounts if fields is not own])
    return [(door, f"umount {door}") for door in _open(path, found) if door != path] if found else []


def check_doors(path: str, mounts: list[list[bytes]]) -> None:
    """Refuse a root that other users reach in another place than at its path. Raises JailError."""
    for door, mend in doors(path, mounts):
        raise JailError(
            f"path {path}: other users of this host can reach it at {visible(door)}, "
            f"and a set-uid file made inside would be one outside: {visible(mend)} (or set ng.lenient)"
        )


def has_doors(path: str, mounts: list[list[bytes]], theirs: list[list[bytes]], above: str) -> bool:
    """Whether that tree is to be seen by users in another mount namespace, which has the mounts ``theirs``.

    ``above`` is /proc/PID/root of a process there. Yes, where it cannot be told what the tree is. Raises OSError.
    """
    placed = _placed(path, mounts)
    return placed is None or bool(_open(path, _seen(placed[0][2], placed[1], theirs), above))


def _placed(path: str, mounts: list[list[bytes]]) -> tuple[list[bytes], bytes] | None:
    """The mount that a directory is in, and where in that one's file system; None of ``/``, and where none is shown."""
    here = rootfs.escape(path.encode("utf-8", "surrogateescape").rstrip(b"/"))
    own: list[bytes] = []
    for fields in mounts:
        if _is_above(fields[4], here) and (not own or len(fields[4]) >= len(own[4])):
            own = fields
    return (own, own[3].rstrip(b"/") + here[len(own[4].rstrip(b"/")) :]) if own and here else None


def _seen(device: bytes, place: bytes, mounts: list[list[bytes]]) -> list[tuple[bytes, bool]]:
    """Where a place in a file system is mounted: where it would be, and True, or where a part of it is, and False."""
    found = []
    for fields in mounts:
        if fields[2] != device or b"nosuid" in fields[5].split(b","):
            continue
        if _is_above(fields[3], place):
            found.append((fields[4].rstrip(b"/") + place[len(fields[3].rstrip(b"/")) :], True))
        elif _is_above(place, fields[3]):
            found.append((fields[4], False))
    return found


def _is_above(directory: bytes, path: bytes) -> bool:
    return (path + b"/").startswith(directory.rstrip(b"/") + b"/")


def _open(path: str, found: list[tuple[bytes, bool]], above: str = "") -> list[str]:
    """Those of the places by which others come in. A whole tree that is not there lies under another mount."""
    status = posix.stat(path)
    top = posix.stat(f"{above}/")
    opened = []
    for name, whole in found:
        door = rootfs.unescape(name).decode("utf-8", "surrogateescape")
        try:
            there = posix.stat(above + door)
            if whole and (there.st_dev, there.st_ino) != (status.st_dev, status.st_ino):
                continue
            inside = filekind.of(there) == filekind.DIRECTORY
            directory = door if inside else door.rpartition("/")[0] or "/"
            fd = posix.open(above + directory, m.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            continue
        try:
            at = posix.fstat(fd)
            if (at.st_dev, at.st_ino) == (top.st_dev, top.st_ino) or reachable(fd, door, inside, above):
                opened.append(door)
        finally:
            posix.close(fd)
    return opened
