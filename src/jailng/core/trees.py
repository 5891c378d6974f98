"""Whose tree a path of the host's leads through: a jail's, where its root decides what it means, or nobody's.

So it does in a directory of the host's that was mounted into a jail and that its root writes in, by whichever path.

A program or a configuration that the host is told of by such a path is the enemy's. A tree is known by device and inode
of its root, so that a link of the host's, another spelling and a bind mount of the root lead into it as well.
"""

from __future__ import annotations

import posix

from jailng.linux import filekind
from jailng.linux.libc import EAGAIN, ELOOP
from jailng.linux.mount import O_PATH, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet
    from posix import stat_result

_STICKY = 0o1000
_EXDEV = 18
_MOST_LINKS = 40  # as the kernel's own (namei(7): MAXSYMLINKS)
# Where the host's own programs and settings are. For a path that passes nothing else not every record is read.
_COMMON = (
    "/bin /etc /lib /lib64 /sbin /usr /usr/bin /usr/lib /usr/lib64 /usr/local /usr/local/bin /usr/local/sbin /usr/sbin"
).split()


class Way:
    """The way that the kernel goes from / to a path, and its end.

    ``end`` is an O_PATH descriptor of what lies there; ``passed`` are device and inode of each directory on the way,
    and of the end itself; ``loose`` is the first of these that others than root can change, or "".
    """

    __slots__ = ("end", "loose", "passed", "status")

    def __init__(self, path: str) -> None:
        """``path`` is absolute. Raises OSError."""
        self.passed: list[tuple[int, int]] = []
        self.loose = ""
        self.end = -1
        self._walk(path)

    def _walk(self, path: str) -> None:
        here = posix.open("/", O_PATH | posix.O_CLOEXEC)
        names: list[str] = []
        rest = path.split("/")[::-1]
        links = 0
        try:
            self._pass(here, names)
            while rest:
                name = rest.pop()
                if name in ("", "."):
                    continue
                found = posix.open(name, O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=here)
                if filekind.of(posix.fstat(found)) == filekind.LINK:
                    try:
                        target = posix.readlink("", dir_fd=found)
                    finally:
                        posix.close(found)
                    links += 1
                    if links > _MOST_LINKS:
                        raise OSError(ELOOP, posix.strerror(ELOOP), path)
                    rest += target.split("/")[::-1]
                    if not target.startswith("/"):
                        continue
                    found = posix.open("/", O_PATH | posix.O_CLOEXEC)
                    names = []
                elif name == "..":
                    names = names[:-1]
                else:
                    names = [*names, name]
                posix.close(here)
                here = found
                self._pass(here, names)
        except BaseException:
            posix.close(here)
            raise
        self.end = here

    def _pass(self, fd: int, names: list[str]) -> None:
        self.status = status = posix.fstat(fd)
        self.passed.append((status.st_dev, status.st_ino))
        if not self.loose and _is_loose(status):
            self.loose = "/" + "/".join(names)

    def close(self) -> None:
        """Let go of the end."""
        posix.close(self.end)


def _is_loose(status: stat_result) -> bool:
    """Whether others than root, or who runs this, can change a file, or what a directory has by some name."""
    if status.st_uid not in (0, posix.geteuid()):
        return True
    others = 0o002 if status.st_gid == 0 else 0o022
    if filekind.of(status) == filekind.DIRECTORY and status.st_mode & _STICKY:
        return False
    return status.st_mode & others != 0


class Trees:
    """The trees of a jail by that name and root (a path, or ""), and of all that run and that ``more`` tells of.

    ``own`` are paths of what else that jail writes in, and ``more`` yields name and path. A root that is / is nobody's:
    such a jail confines no files. With ``alone`` it is about trees, and not about what is mounted in them.
    """

    __slots__ = ("_alone", "_common", "_more", "_others", "_own")

    def __init__(
        self,
        name: str = "",
        path: str = "",
        more: Callable[[], Iterable[tuple[str, str]]] | None = None,
        own: Iterable[str] = (),
        alone: bool = False,
    ) -> None:
        found = [_identity(one) for one in (path, *own) if one]
        self._own = {identity: name for identity in found if identity is not None}
        self._more = more
        self._alone = alone
        self._others: dict[tuple[int, int], str] | None = None
        self._common = {_identity(path) for path in _COMMON} | {_of(posix.stat("/"))}

    def owner(self, way: Way) -> str:
        """The name of the jail whose tree the way passes, or ""."""
        for each in way.passed:
            if each in self._own:
                return self._own[each]
        if all(each in self._common for each in way.passed[:-1]):
            return ""
        others = self._of_others()
        return next((others[each] for each in way.passed if each in others), "")

    def left(self, path: str, through: bool, into: bool) -> str | None:
        """The name of the jail by a link in whose tree an absolute path leads out of that again; None: by none.

        A link at its end counts with ``through``, and where the path ends in a slash, and with ``into`` where it leads
        to a directory. Raises OSError.
        """
        from jailng.core import hostpath

        found = hostpath.come_to(self._own, path)
        if found is None and not self._is_in_common(path):
            found = hostpath.come_to(self._of_others(), path)
        if found is None:
            return None
        top, rest = found
        try:
            if rest.partition("/")[0] == "..":  # by which nobody but the host has led out
                above = posix.readlink(f"/proc/self/fd/{top}").rpartition("/")[0]
                return self.left(f"{above}/{rest[3:]}{path[len(path.rstrip('/')) :]}", through, into)
            to_the_end = through or path.endswith(("/", "/.", "/..")) or (into and _is_directory(path))
            if not _leads_out(top, rest if to_the_end else rest.rpartition("/")[0]):
                return None
            return self.all()[hostpath.identity(top)]
        finally:
            posix.close(top)

    def _is_in_common(self, path: str) -> bool:
        try:
            way = Way(path.rpartition("/")[0] or "/")
        except (OSError, ValueError):
            return False
        way.close()
        return all(each in self._common for each in way.passed)

    def all(self) -> dict[tuple[int, int], str]:
        """Device and inode of each, and whose it is."""
        return {**self._of_others(), **self._own}

    def _of_others(self) -> dict[tuple[int, int], str]:
        if self._others is None:
            self._others = self._known()
        return self._others

    def _known(self) -> dict[tuple[int, int], str]:
        from jailng.core import registry

        jails = registry.jails()
        found = [(record.name, record.params.get("path", "/")) for record in jails]
        if self._more is not None:
            found += self._more()
        known: dict[tuple[int, int], str] = {}
        for name, path in sorted(found, key=lambda one: one[0].count(".")):
            # Where a root that is in the tree of another jail leads is said by that one's root, and is nobody's.
            if "." in name and _passes(path, known.keys() | self._own.keys()):
                continue
            identity = _identity(path)
            if identity is not None:
                known.setdefault(identity, name)
        if not self._alone:
            for record in jails:
                for place in record.places:
                    known.setdefault(place, record.name)
        return known


def _is_directory(path: str) -> bool:
    try:
        return filekind.of(posix.stat(path)) == filekind.DIRECTORY
    except OSError:
        return False


def _leads_out(top: int, path: str) -> bool:
    """Whether a path below a directory does, by a link: an absolute one always does, wherever that leads in there."""
    from jailng.linux import mountfd

    how = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
    try:
        posix.close(mountfd.openat2(top, path.encode("utf-8", "surrogateescape") or b".", O_PATH, how))
    except OSError as error:
        return error.errno in (_EXDEV, EAGAIN)  # EAGAIN: something is moved at this moment, and there is no telling
    return False


def _of(status: stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _passes(path: str, known: AbstractSet[tuple[int, int]]) -> bool:
    """Whether the way to a path leads through any of these."""
    try:
        way = Way(path)
    except (OSError, ValueError):
        return False
    way.close()
    return any(each in known for each in way.passed[:-1])


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode of a root, None where there is none or it is /."""
    try:
        found = _of(posix.stat(path))
    except (OSError, ValueError):
        return None
    return found if found != _of(posix.stat("/")) else None


def distrust(path: str, fd: int, trees: Trees) -> str:
    """Why what an open file of the host's says is not to be believed, or "". ``path`` is what it was opened by.

    Raises OSError where that leads nowhere any more.
    """
    here = "" if path.startswith("/") else posix.getcwd()
    rest = path
    while here and rest.startswith("../"):  # what is above a tree is not found by way of it
        here, rest = here.rpartition("/")[0], rest[3:]
    way = Way(f"{here}/{rest}")
    try:
        name = trees.owner(way)
        if name:
            return f"in the tree of jail {visible(name)}, whose root can write to it"
        if _of(posix.fstat(fd)) != way.passed[-1]:
            return "changed while it was opened"
        if way.loose:
            itself = _identity(way.loose) == way.passed[-1]
            what = "it" if itself else f"{visible(way.loose)}, by way of which it is found"
            return f"others than root may write to {what}: chown root, chmod go-w"
    finally:
        way.close()
    return ""
