"""``jailctl cp``: files into and out of running jails, whatever is in their trees."""

from __future__ import annotations

import getopt
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from jailng.core import registry, trees
from jailng.core.registry import Record
from jailng.ctl import carrier, hostfile, sizes
from jailng.ctl.carrier import Carrier, Pump
from jailng.ctl.tarin import Manner, Writer
from jailng.ctl.tarout import Reader, Wanted
from jailng.ctl.told import Limits, Told
from jailng.engine import files
from jailng.errors import JailError, UsageError
from jailng.linux import ns
from jailng.params.values import visible

USAGE = """\
usage: jailctl cp [-aLr] [--max-files number] [--max-size bytes] source ... target
       a source or the target is path, jail:path, or - for a tar archive"""


@dataclass
class End:
    """A source or the target: whose tree it is in (None: the host's), and where there; "-" is a stream."""

    word: str
    record: Record | None
    path: str

    @property
    def is_stream(self) -> bool:
        """Whether it is standard input or output."""
        return self.record is None and self.path == "-"


@dataclass
class Asked:
    """The command line."""

    sources: list[End] = field(default_factory=list)
    target: End = field(default_factory=lambda: End("", None, ""))
    archive: bool = False
    follow: bool = False
    deep: bool = False
    limits: Limits = field(default_factory=Limits)


def parse(argv: list[str]) -> Asked:
    """The words after the verb. Raises UsageError, JailError."""
    try:
        options, words = getopt.getopt(argv, "aLrR", sizes.OPTIONS)
    except getopt.GetoptError as error:
        raise UsageError(f"jailctl: cp: {error.msg}\n{USAGE}") from None
    if len(words) < 2 or not all(words):
        raise UsageError(USAGE)
    asked = Asked()
    for option, value in options:
        if not sizes.take("cp", asked.limits, option, value):
            asked.archive |= option == "-a"
            asked.follow |= option == "-L"
            asked.deep |= option in ("-a", "-r", "-R")
    ends = [_end(word) for word in words]
    asked.sources, asked.target = ends[:-1], ends[-1]
    if any(end.is_stream for end in asked.sources) and len(asked.sources) > 1:
        raise UsageError(f"jailctl: cp: - is the only source, or none\n{USAGE}")
    if len({end.record.jid if end.record else 0 for end in asked.sources}) > 1:
        raise JailError("cp: sources of several jails: one at a time")
    if asked.target.record is None and asked.sources[0].record is None:
        raise JailError("cp: neither from nor into a jail: a path in one is jail:path")
    return asked


def _end(word: str) -> End:
    name, colon, path = word.partition(":")
    if not colon or "/" in name or name in ("", ".", ".."):
        return End(word, None, word)
    record = registry.find(name)
    if record is None:
        raise JailError(f'cp: "{visible(name)}" not found (a file of such a name is ./{visible(word)})')
    if not path:
        raise JailError(f"cp: {visible(word)}: which file of it?")
    return End(word, record, path)


def main(argv: list[str]) -> int:
    """Copy: 0, or 1 where a file was left behind. Raises UsageError, JailError, OSError."""
    asked = parse(argv)
    if os.geteuid() != 0 or ns.is_jailed():
        raise JailError("cp: only the host's root can")
    source, to = carrier.pipe()
    carriers: list[Carrier] = []
    pump: Pump | None = None
    try:
        if asked.sources[0].is_stream:
            pump = Pump(0, to, outside_is_source=True)
        else:
            carriers.append(_reader(asked, to))
        if asked.target.is_stream:
            if sys.stdout.isatty():
                raise JailError("cp: an archive is not for a terminal")
            pump = Pump(source, 1, outside_is_source=False)
        else:
            carriers.append(_writer(asked, source))
    except BaseException:
        os.close(source)
        os.close(to)
        carrier.stop(carriers)
        raise
    # The end that a pump has is its own to close; the others are the processes'.
    if not asked.sources[0].is_stream:
        os.close(to)
    if not asked.target.is_stream:
        os.close(source)
    if pump is not None:
        pump.start()
    if pump is not None and asked.target.is_stream:
        carrier.wait_out(carriers, pump, "cp: -")
    else:
        carrier.wait(carriers, pump)
    return carrier.report("cp", carriers)


# The source


def _reader(asked: Asked, to: int) -> Carrier:
    record = asked.sources[0].record
    if record is None:
        return _host_reader(asked, to)

    def run(told: Told) -> None:
        with os.fdopen(to, "wb", carrier.BUFFER) as stream:
            reader = Reader(stream, asked.limits, told)
            for end in asked.sources:
                reader.read(_located(end.path, asked, fifos=False))
            reader.end()

    return carrier.in_jail(record, run, (to,))


def _host_reader(asked: Asked, to: int) -> Carrier:
    """What is named may lie anywhere on the host, so each is opened before its process has another root."""
    paths = [_checked(end.path, asked.follow) for end in asked.sources]
    found = [_located(path, asked, fifos=False, opened=hostfile.opened) for path in paths]

    def run(told: Told) -> None:
        with os.fdopen(to, "wb", carrier.BUFFER) as stream:
            reader = Reader(stream, asked.limits, told)
            for wanted in found:
                reader.read(wanted)
            reader.end()

    try:
        tops = [wanted.top for wanted in found]
        return carrier.on_host("host", run, (to, *tops), tops[0])
    finally:
        for wanted in found:
            os.close(wanted.top)


def _located(path: str, asked: Asked, fifos: bool, opened: Callable[[str, int], int] = os.open) -> Wanted:
    """A source, as it is seen from where this process is: the directory that it is in, and its name there.

    FreeBSD, cp(1): of a directory whose name ends in a slash it is the content. What a link leads to has the name of
    the link, since that of the file is said by the jail's root, and it may be one that the host obeys (.profile).
    """
    called = path.rpartition("/")[2]
    content = _is_content(path)
    if asked.follow:
        path = os.path.realpath(path)
    above, _, name = path.rpartition("/")
    if content:
        if not os.path.isdir(path):
            os.stat(path)
            raise NotADirectoryError(20, os.strerror(20), path)
        above, name, called = path, ".", ""
    elif not name:  # a link to /
        above, name = "/", "."
    try:
        top = opened(above or ("/" if path.startswith("/") else "."), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    return Wanted(top, name, deep=asked.deep, fifos=fifos, called=called)


def _is_content(path: str) -> bool:
    """Whether that is meant, and not the directory itself."""
    return path.rpartition("/")[2] in ("", ".", "..")


def _checked(path: str, follow: bool = False) -> str:
    """A path of the host's. Raises JailError for one by way of a jail's tree, where its root says what it means.

    In what of the host's is mounted in a jail no link is followed: so not with ``follow``.
    """
    full = path if path.startswith("/") else f"{os.getcwd()}/{path}"
    known = trees.Trees(more=files.configured_places) if follow else trees.Trees(alone=True)
    for one in (full, full.rstrip("/").rpartition("/")[0]):
        try:
            way = trees.Way(one or "/")
        except (OSError, ValueError):
            continue
        name = known.owner(way)
        way.close()
        if name:
            instead = f"say {visible(name)}:path" if registry.find(name) is not None else "not with -L"
            raise JailError(f"cp: {visible(path)}: in the tree of jail {visible(name)}: {instead}")
    return path


# The target


def _writer(asked: Asked, source: int) -> Carrier:
    end = asked.target
    if end.record is None:
        top, manner = _place(_checked(end.path), asked, hostfile.opened)
        manner.special = False  # a set-user-ID file of a jail's would be one of the host's
        try:
            return carrier.on_host("host", _writing(asked, source, lambda: (top, manner)), (source, top), top)
        finally:
            os.close(top)
    return carrier.in_jail(end.record, _writing(asked, source, lambda: _place(end.path, asked)), (source,))


def _writing(asked: Asked, source: int, place: Callable[[], tuple[int, Manner]]) -> Callable[[Told], None]:
    def run(told: Told) -> None:
        top, manner = place()
        stream: BinaryIO = os.fdopen(source, "rb", carrier.BUFFER)
        Writer(top, manner, asked.limits, told).write(stream)

    return run


def _place(path: str, asked: Asked, opened: Callable[[str, int], int] = os.open) -> tuple[int, Manner]:
    """Where to write, as it is seen from where this process is."""
    manner = Manner(owners=asked.archive, special=asked.archive, fifos=asked.target.record is not None)
    if not any(end.is_stream or _is_content(end.path) for end in asked.sources):
        manner.names = frozenset([end.path.rpartition("/")[2] for end in asked.sources])
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return opened(path, flags), manner
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        if path.endswith("/") or stat.S_IFMT(os.lstat(path).st_mode) not in (stat.S_IFREG, stat.S_IFLNK):
            raise
    if len(asked.sources) > 1 or asked.sources[0].is_stream:
        raise OSError(20, os.strerror(20), path)
    above, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise FileNotFoundError(2, os.strerror(2), path)
    manner.rename, manner.directory = name, path.endswith("/")
    return opened(above or ("/" if path.startswith("/") else "."), flags), manner
