"""The files of configurations, as the host has them."""

from __future__ import annotations

import posix

from jailng import start
from jailng.linux import filekind
from jailng.linux.libc import EBADF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jailng.conf.config import Config, Setting
    from jailng.core.trees import Trees
    from jailng.errors import JailError

_LARGEST = 64 << 20  # bytes of one file: some hundred thousand jails
_PIECE = 1 << 16
_CONFIGURATION = "/etc/jail.conf"
_OF_ONE_JAIL = ("/etc/jail.*.conf", "/etc/jail.conf.d/*.conf")  # where service(8) finds a jail's own (ctl/rcjail.py)


class Files:
    """What ``jailng.conf.config.load`` reads from.

    The first file, which the command line names, may be a pipe or a terminal, as in ``jail -f /dev/fd/3``. What it
    includes has to be regular files, so that nothing waits for what a name leads to. What a regular file says is done
    by root: one that somebody else can change, or that lies in the tree of a running jail, is refused.
    """

    __slots__ = ("_first", "_trees", "seen")

    def __init__(self) -> None:
        self._first = True
        self._trees: Trees | None = None
        self.seen: set[str] = set()

    def read(self, path: str) -> bytes:
        """All of a file; "-" is standard input. Raises OSError, also for what is no file, or too large a one."""
        first, self._first = self._first, False
        self.seen.add(path)
        if path == "-":
            if 0 in start.closed:
                raise OSError(EBADF, posix.strerror(EBADF), path)
            return _all(0, path)
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOCTTY | posix.O_NONBLOCK)
        try:
            kind = filekind.of(posix.fstat(fd))
            if kind == filekind.DIRECTORY:
                raise IsADirectoryError(21, "Is a directory", path)
            if kind != filekind.REGULAR and not first:
                raise OSError(22, "not a regular file", path)
            if kind == filekind.REGULAR:
                self._check(path, fd)
            else:
                _wait(path, fd)
            return _all(fd, path)
        finally:
            posix.close(fd)

    def _check(self, path: str, fd: int) -> None:
        """Raises OSError for a file whose content is another's to say: a jail's root's, or another user's."""
        if path == "/dev/stdin" or path.startswith(("/dev/fd/", "/proc/self/fd/")):
            return  # whoever handed it over has opened it
        from jailng.core import trees

        if self._trees is None:
            self._trees = trees.Trees()
        try:
            why = trees.distrust(path, fd, self._trees)
        except ValueError:
            why = ""
        if why:
            raise OSError(13, why, path)

    def glob(self, pattern: str) -> list[str]:
        """The paths that match, sorted as bytes are; what cannot be looked into has none."""
        found = ["/"] if pattern.startswith("/") else [""]
        parts = [part for part in pattern.split("/") if part]
        for number, part in enumerate(parts):
            last = number + 1 == len(parts)
            found = [path + ("" if last else "/") for before in found for path in _within(before, part)]
        return sorted([path for path in found if parts and _exists(path)], key=_bytes)


def _within(directory: str, part: str) -> list[str]:
    """What a part of a pattern stands for in a directory, whose path is "" or ends in a slash."""
    from jailng.conf.pattern import fits, is_pattern, words

    if not is_pattern(part):
        return [directory + "".join([str(word) for word in words(part)])]
    try:
        names = posix.listdir(directory or ".")
    except OSError:
        return []
    return [directory + name for name in names if fits(name, part)]


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _exists(path: str) -> bool:
    try:
        posix.lstat(path)
    except OSError:
        return False
    return True


def _wait(path: str, fd: int) -> None:
    """Wait for what comes out of a pipe or terminal that is the host's. Raises OSError for a jail's."""
    from jailng.core import hostpath

    owner = hostpath.owner(path)
    if owner:
        from jailng.params.values import visible

        raise OSError(13, f"in the tree of jail {visible(owner)}, whose root can write to it", path)
    hostpath.wait_for(fd)


def _all(fd: int, path: str) -> bytes:
    pieces = []
    size = 0
    while piece := posix.read(fd, _PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > _LARGEST:
            raise OSError(27, f"larger than {_LARGEST >> 20} MB", path)
    return b"".join(pieces)


def trees_of_jails() -> dict[tuple[int, int], str]:
    """Device and inode of the trees of jails that run, and of configured ones: where links are their roots'."""
    from jailng.core import trees

    return trees.Trees(more=configured_places).all()


def configured_roots() -> Iterator[tuple[str, str]]:
    """Name and path of each jail that is configured, as far as that can be read; what is wrong is not told."""
    for name, setting in _settings():
        if setting.name == "path":
            yield name, setting.values[-1]


def configured_places() -> Iterator[tuple[str, str]]:
    """The same, and name and path of what else of the host's each has mounted to write in."""
    for name, setting in _settings():
        if setting.name == "path":
            yield name, setting.values[-1]
        elif setting.name in ("mount", "mount.fstab"):
            for path in places(setting.name, setting.values):
                yield name, path


def configured() -> Iterator[tuple[str, Config | JailError | OSError]]:
    """/etc/jail.conf, and each file of one jail alone that it does not include: what it says, or why not."""
    from jailng.conf import config
    from jailng.errors import JailError

    files = Files()
    for file in [_CONFIGURATION, *[path for pattern in _OF_ONE_JAIL for path in files.glob(pattern)]]:
        if file not in files.seen:
            try:
                yield file, config.load(file, files)
            except (JailError, OSError) as error:
                yield file, error


def places(parameter: str, values: Iterable[str]) -> list[str]:
    """The paths of the host's in which a jail writes that mounts these, as far as they can be read."""
    from jailng.core import mounting
    from jailng.errors import JailError
    from jailng.params.model import Parameters

    params = Parameters()
    try:
        for value in values:
            params.add(parameter, value, append=True)
        return mounting.written([entry for _, entry in mounting.entries(params)])
    except (JailError, OSError):
        return []


def _settings() -> Iterator[tuple[str, Setting]]:
    """The key of a jail, and what is set for it, for each that has a value."""
    from jailng.conf.config import Config

    for _, found in configured():
        for jail in found.jails if isinstance(found, Config) else ():
            yield from ((jail.key, setting) for setting in jail.sound() if setting.values)
