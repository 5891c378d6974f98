"""A root that a process brings into a jail: a directory of the host's, seen there by it and its children.

jailng of 2001 broke chroot(2) out of creating and joining a jail; this is that, but for chroot(2), out of which root
climbs. The process has a mount namespace of its own, which belongs to the host as the jail's does, with a clone of the
directory's mount as its root, mapped to the jail's uids, and on it the jail's very /dev and /proc. It is held by its
processes, so it ends with the last of them, and there is nothing to undo (docs/decisions/0027-join.md).
Nothing can be mounted in it, not with allow.mount either: it would have to be the jail's, whose user namespace makes no
mount namespaces (core/boot.py).
"""

from __future__ import annotations

import posix

from jailng.core import blueprint, hostmounts, reach, rootfs
from jailng.core.program import kept
from jailng.errors import JailError
from jailng.linux import mount as m
from jailng.linux import ns, processid
from jailng.linux.libc import ENOENT, SHORTAGES
from jailng.params.model import Parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.program import Program
    from jailng.core.registry import Record

_OWN = (("dev", "devfs"), ("proc", "procfs"))
_OWN_TREE = rootfs.DEV  # what is kept of them for a moment
_CLONE = m.OPEN_TREE_CLONE | posix.O_CLOEXEC | m.AT_EMPTY_PATH


class View:
    """A directory that has been found to be one that the jail can be given. ``fds`` are what a program needs of it."""

    __slots__ = ("_below", "_own", "_path", "_private", "_root", "_userns")

    def __init__(self, record: Record, path: str) -> None:
        """``path`` is absolute, and of the host's. Raises JailError in the words of the parameter of that name."""
        if not path.startswith("/"):
            raise JailError(f"path {path}: not an absolute pathname")
        params = Parameters.from_texts(record.params)
        self._root = rootfs.open_root(path)
        self._userns = -1
        try:
            self._path = posix.readlink(f"/proc/self/fd/{self._root}")
            rootfs.check_mount_points(self._root, path)
            known = rootfs.mounts()
            if not params.flag("ng.lenient"):
                _check_reach(self._root, self._path, known)
            self._userns = _user_namespace(record)
        except BaseException:
            self.close()
            raise
        self._private = params.text("ng.uids") == "private"
        below = rootfs.mounts_below(self._path, known)
        self._below = blueprint.taken_along(below, {}, self._private or not record.parent)
        self._own = [name for name, kind in _OWN if params.flag(f"mount.{kind}")]

    @property
    def fds(self) -> list[int]:
        """The descriptors that a program has to keep until ``enter``."""
        return [self._root, self._userns]

    def close(self) -> None:
        """Let go of the directory."""
        for fd in (self._root, self._userns):
            if fd >= 0:
                posix.close(fd)
        self._root = self._userns = -1

    def enter(self, way: Program, init: int) -> None:
        """Have a program, which still has the host's privileges and mounts, make the namespace and be in it.

        It is a copy of the jail's, which has the jail's /dev and /proc, with another root. ``init`` is a pidfd of the
        jail's PID 1.
        """
        slots = {"root": self._root, "userns": self._userns}
        rootfs.CloneTree(self._path, self._below, {}).outside(way, slots)
        way.must("setns", init, ns.CLONE_NEWNS, label="jail_attach")
        way.must("unshare", ns.CLONE_NEWNS, label="jail_attach")
        rootfs.AttachTree(self._path, self._below, self._private, {}).inside(way, slots)
        for name in self._own:
            _take_along(way, name)
        rootfs.Pivot().inside(way, slots)


def _take_along(way: Program, name: str) -> None:
    """Put the jail's own mounts of that name, which are seen from the working directory, onto the new tree.

    Nothing, where either has no such directory. In a tree that is the jail's anything can be there by now, but nothing
    that is not the jail's.
    """
    label = f"jail_attach: /{name}"
    strict = rootfs.beneath(way, m.O_PATH | posix.O_NOFOLLOW)
    missing = way.here()
    way.must("openat2", m.AT_FDCWD, way.text(name), *strict, keep=rootfs.POINT, label=label, unless=ENOENT)
    way.must("open_tree", kept(rootfs.POINT), way.text(b""), _CLONE | m.AT_RECURSIVE, keep=_OWN_TREE, label=label)
    way.must("close", kept(rootfs.POINT))
    nowhere = way.here()
    way.must("openat2", kept(rootfs.TREE), way.text(name), *strict, keep=rootfs.POINT, label=label, unless=ENOENT)
    rootfs.attach(way, _OWN_TREE, kept(rootfs.POINT))
    way.must("close", kept(rootfs.POINT))
    way.skip(nowhere)
    way.skip(missing)


def _user_namespace(record: Record) -> int:
    """Of the jail's PID 1. Raises JailError."""
    try:
        return processid.open_namespace(record.init, "user")
    except OSError as error:
        if error.errno in SHORTAGES:
            raise JailError(f'jail "{record.name}": {error.strerror}') from None
        raise JailError(f'jail "{record.name}" not found') from None


def _check_reach(root: int, path: str, known: list[list[bytes]]) -> None:
    """As for the root of a jail. Raises JailError."""
    mend = reach.reachable(root, path)
    if mend and not hostmounts.is_here_alone(path, known):
        raise JailError(reach.warning(path, mend))
    reach.check_doors(path, known)
