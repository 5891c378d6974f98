"""A jail's tree as a project of its file system, which the kernel then holds to limits (ext4, xfs, f2fs).

The project's number follows from the inode of the root, so that it is the same at each start and another for each root;
it stays on the files. Once a directory has it and FS_XFLAG_PROJINHERIT, all that is made below has it as well, and
neither can be changed from a user namespace that is not the host's (fileattr_set_prepare() in fs/file_attr.c). So a
tree is walked once. The limits themselves last as long as the jail.

The tree is an enemy's. It is walked while no jail runs in it, in a copy of its mount alone, so that nothing mounted
below is come upon and no device in it answers; each name is opened without following it.
"""

from __future__ import annotations

import posix

from jailng.core import registry
from jailng.errors import JailError
from jailng.linux import mount as m
from jailng.linux import mountfd, quota
from jailng.linux.libc import ELOOP, ENOENT, ENOTDIR
from jailng.params.values import escape_word, unescape, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.registry import Record

# Numbers that nobody gives out by hand: 0x70000000 and the 28 lower bits of an inode's number.
FIRST, COUNT = 0x70000000, 0x10000000
_NAMES = ("/etc/projid", "/etc/projects")  # the administrator's own, xfs_quota(8)
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
_FILE = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
_PARENT = m.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
_LARGEST = 1 << 20


def begin(record: Record, root: int, path: str, size: int, inodes: int) -> None:
    """Hold what the directory ``root``, which is ``path``, contains to ``size`` bytes and ``inodes``, 0 for any number.

    With its undo record written before. Needs the jail's lock. Raises JailError, OSError.
    """
    project = number(posix.fstat(root).st_ino)
    check_alone(record, root, path)
    tree = mountfd.open_tree(root)
    top = -1
    try:
        mountfd.mount_setattr(tree, m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOATIME, clear=m.MOUNT_ATTR__ATIME)
        top = posix.open(".", _DIRECTORY, dir_fd=tree)
        if not _is_enrolled(top, project):
            _check_free(top, root, project, path)
            quota.put(top, project, 0, 0)  # what a power cut may have left
            quota.enroll(top, project, inherit=False)  # from now on the number is taken
            _Walk(project, path).enroll(top)
            quota.enroll(top, project, inherit=True)  # and this says that all below has it
        device = posix.fstat(root).st_dev
        record.append([f"undo quota {project} {device} {escape_word(path)}"])
        quota.put(top, project, size, inodes)
    finally:
        for fd in (top, tree):
            if fd >= 0:
                posix.close(fd)


def number(inode: int) -> int:
    """The project of a root with that inode."""
    return FIRST + inode % COUNT


def is_ours(project: int) -> bool:
    """Whether such a number is one that jails are given."""
    return FIRST <= project < FIRST + COUNT


def of(record: Record) -> int:
    """The project that the jail was started with, 0 where it has none."""
    return next((int(line.split(" ")[1]) for line in record.undo if line.startswith("quota ")), 0)


def _is_enrolled(fd: int, project: int) -> bool:
    flags, found = quota.attributes(fd)
    return found == project and bool(flags & quota.FS_XFLAG_PROJINHERIT)


# What is not ours to take


def check_alone(record: Record, root: int, path: str) -> None:
    """Refuse a tree that another jail has, or lives in. Raises JailError."""
    real = posix.readlink(f"/proc/self/fd/{root}")
    for other in registry.records():
        if other.jid == record.jid or not other.alive():
            continue
        theirs = other.params.get("path", "/")
        if f"{theirs}/".startswith(f"{real}/") or (theirs != "/" and f"{real}/".startswith(f"{theirs}/")):
            raise JailError(f'ng.quota: {visible(path)}: jail "{visible(other.name)}" runs in that tree')


def _check_free(top: int, root: int, project: int, path: str) -> None:
    """Refuse to take the tree from a project that it is in, or a number that others have. Raises JailError."""
    flags, held = quota.attributes(top)
    if held and not is_ours(held):
        raise JailError(
            f"ng.quota: {visible(path)}: already in project {held}, which jailng has not made: "
            f'take it out (chattr -R -p 0 -P {visible(path)}) or set ng.quota="image:SIZE"'
        )
    above = posix.open("..", _PARENT, dir_fd=root)
    try:
        reopened = posix.open(".", _DIRECTORY, dir_fd=above)
    finally:
        posix.close(above)
    try:
        same = posix.fstat(reopened).st_dev == posix.fstat(top).st_dev
        flags, theirs = quota.attributes(reopened) if same else (0, 0)
    finally:
        posix.close(reopened)
    if held and theirs == held and flags & quota.FS_XFLAG_PROJINHERIT:
        raise JailError(f"ng.quota: {visible(path)}: in the tree of another jail that has a quota")
    if held != project and quota.get(top, project)[3]:
        raise JailError(f"ng.quota: {visible(path)}: project {project} is that of other files on this file system")
    for file in _NAMES:
        if str(project) in _words(file):
            raise JailError(f"ng.quota: {visible(path)}: project {project} is in {file}")


def _words(file: str) -> list[str]:
    try:
        fd = posix.open(file, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        return posix.read(fd, _LARGEST).decode("utf-8", "replace").replace(":", " ").split()
    finally:
        posix.close(fd)


# The walk


class _Walk:
    """Putting all below a directory into a project: two descriptors at a time, however deep it is."""

    __slots__ = ("path", "project")

    def __init__(self, project: int, path: str) -> None:
        self.project = project
        self.path = path

    def enroll(self, top: int) -> None:
        """All but ``top`` itself. Raises JailError that names the file."""
        here = posix.dup(top)
        waiting = [self._contents(here, [])]
        way: list[str] = []
        inodes = [posix.fstat(here).st_ino]
        try:
            while waiting:
                if waiting[-1]:
                    name = waiting[-1].pop()
                    below = self._enter(here, name, way)
                    if below < 0:
                        continue
                    posix.close(here)
                    here = below
                    way.append(name)
                    inodes.append(posix.fstat(here).st_ino)
                    waiting.append(self._contents(here, way))
                    continue
                waiting.pop()
                inodes.pop()
                if waiting:
                    above = posix.open("..", _DIRECTORY, dir_fd=here)
                    posix.close(here)
                    here = above
                    if posix.fstat(here).st_ino != inodes[-1]:
                        raise self._wrong(way, "", "moved while it was looked at")
                    way.pop()
        finally:
            posix.close(here)

    def _enter(self, here: int, name: str, way: list[str]) -> int:
        """The directory below ``here``, put into the project; -1 where it has gone, or is another jail's root."""
        try:
            fd = posix.open(name, _DIRECTORY, dir_fd=here)
        except FileNotFoundError:
            return -1
        except OSError as error:
            raise self._wrong(way, name, error.strerror or "") from None
        try:
            own = number(posix.fstat(fd).st_ino)
            if own != self.project and _is_enrolled(fd, own):
                posix.close(fd)
                return -1
            self._put(fd, way, name, inherit=True)
        except BaseException:
            posix.close(fd)
            raise
        return fd

    def _contents(self, here: int, way: list[str]) -> list[str]:
        """Put what a directory contains into the project; the names of the directories in it, which are not yet."""
        found: list[str] = []
        with posix.scandir(here) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    self._file(here, entry.name, way)
                else:
                    self._special(here, entry.name, way)
        return found

    def _file(self, here: int, name: str, way: list[str]) -> None:
        try:
            fd = posix.open(name, _FILE, dir_fd=here)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._wrong(way, name, error.strerror or "") from None
        try:
            self._put(fd, way, name, inherit=False)
        finally:
            posix.close(fd)

    def _put(self, fd: int, way: list[str], name: str, inherit: bool) -> None:
        try:
            flags, held = quota.attributes(fd)
            if held == self.project and bool(flags & quota.FS_XFLAG_PROJINHERIT) is inherit:
                return
            if held and not is_ours(held):
                raise self._wrong(way, name, f"already in project {held}, which jailng has not made")
            if flags & quota.FS_XFLAG_IMMUTABLE:
                raise self._wrong(way, name, "immutable: chattr -i it for the first start")
            quota.enroll(fd, self.project, inherit)
        except OSError as error:
            raise self._wrong(way, name, error.strerror or "") from None

    def _special(self, here: int, name: str, way: list[str]) -> None:
        """A link, socket, fifo or node: before Linux 6.17 it stays in no project, and counts for nobody."""
        try:
            quota.enroll_special(here, name, self.project)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._wrong(way, name, error.strerror or "") from None

    def _wrong(self, way: list[str], name: str, why: str) -> JailError:
        shown = "/".join([self.path.rstrip("/"), *way[-8:], *([name] if name else [])])
        return JailError(f"ng.quota: {visible(shown)}: {why}")


# Undoing


def _undo(words: list[str]) -> None:
    """``quota PROJECT DEVICE PATH``: the project has no limits any more. Where the tree is gone, neither has it.

    Two jails that were started at once on one tree have the same; the last one takes them.
    """
    line = " ".join(["quota", *words])
    if sum([line in record.undo for record in registry.records()]) > 1:
        return
    try:
        fd = posix.open(unescape(words[2]), _DIRECTORY)
    except OSError as error:
        if error.errno not in (ENOENT, ENOTDIR, ELOOP):
            raise
        return
    try:
        if posix.fstat(fd).st_dev == int(words[1]) and quota.is_enforced(fd):
            quota.put(fd, int(words[0]), 0, 0)
    finally:
        posix.close(fd)


UNDO: dict[str, Callable[[list[str]], None]] = {"quota": _undo}
