"""Whether other users of the host can reach a jail's tree: what is set-uid in it would be so for them.

An idmapped root keeps uid 0 on the disk, so ``chmod 4755 sh`` inside is a set-uid-root shell for whoever reaches the
file outside, and what setcap gives is given there as well.
"""

from __future__ import annotations

import posix

from jailng.core import rootfs
from jailng.linux import mount as m

# Directories that every user of the host needs.
_EVERYBODYS = frozenset(["", *"bin etc home lib media mnt opt proc run sbin srv sys tmp usr var".split()])
_S_IFMT, _S_IFDIR = 0o170000, 0o040000


def reachable(root: int, path: str, inside: bool = True) -> str:
    """The command that mends a root in which another user of the host could run what the jail's root has made, or "".

    What keeps them out is a directory of root's above it that gives nothing to group and others; the group's bits may
    be those of an access control list, which may name anybody (acl(5)). The root's own mode does not count, since the
    jail's root can change it; it does for a directory that is not ``inside``, but above what the jail has.

    ``/`` itself is FreeBSD's idiom for a jail that confines no files.
    """
    status = posix.fstat(root)
    top = posix.stat("/")
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
            above = posix.open("..", m.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=here)
            posix.close(here)
            here = above
            status = posix.fstat(here)
    finally:
        posix.close(here)
    parent = path.rstrip("/").rpartition("/")[0]
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
    here = rootfs.escape(path.encode("utf-8", "surrogateescape").rstrip(b"/"))
    if not here:
        return []
    own = mounts[0]
    for fields in mounts:
        if _is_above(fields[4], here) and len(fields[4]) >= len(own[4]):
            own = fields
    place = own[3].rstrip(b"/") + here[len(own[4].rstrip(b"/")) :]
    found = []
    for fields in mounts:
        if fields[2] != own[2] or fields is own or b"nosuid" in fields[5].split(b","):
            continue
        if _is_above(fields[3], place):
            found.append((fields[4].rstrip(b"/") + place[len(fields[3].rstrip(b"/")) :], True))
        elif _is_above(place, fields[3]):
            found.append((fields[4], False))
    return _open(path, found) if found else []


def _is_above(directory: bytes, path: bytes) -> bool:
    return (path + b"/").startswith(directory.rstrip(b"/") + b"/")


def _open(path: str, found: list[tuple[bytes, bool]]) -> list[tuple[str, str]]:
    """Those of the places by which others come in. A whole tree that is not there lies under another mount."""
    status = posix.stat(path)
    opened = []
    for name, whole in found:
        door = rootfs.unescape(name).decode("utf-8", "surrogateescape")
        if door == path:
            continue
        try:
            there = posix.stat(door)
            if whole and (there.st_dev, there.st_ino) != (status.st_dev, status.st_ino):
                continue
            inside = there.st_mode & _S_IFMT == _S_IFDIR
            directory = door if inside else door.rpartition("/")[0] or "/"
            fd = posix.open(directory, m.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except OSError:
            continue
        try:
            top, at = posix.stat("/"), posix.fstat(fd)
            if (at.st_dev, at.st_ino) == (top.st_dev, top.st_ino) or reachable(fd, door, inside):
                opened.append((door, f"umount {door}"))
        finally:
            posix.close(fd)
    return opened
