"""The console log of a jail, opened and followed by its name: across rotation, truncation and restarts of the jail.

What lies below the jail's root is its enemy's: there no link is followed, and nothing but a regular file is read.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
import sys
from dataclasses import dataclass

from jailng.core import hostpath
from jailng.ctl import hostfile, state
from jailng.errors import JailError
from jailng.linux.mount import BENEATH, O_PATH
from jailng.linux.mountfd import openat2
from jailng.observe import store
from jailng.params.values import visible

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_PIECE = 1 << 16
_LONGEST = 1 << 13  # characters of a line that are kept until it ends
_FURTHEST = 1 << 30  # bytes at the end of a file among which its last lines are looked for


@dataclass(frozen=True)
class Place:
    """Where a jail's console is kept, and below which directories links are its root's to make."""

    jail: str
    path: str
    roots: tuple[str, ...]

    def open(self) -> int:
        """A descriptor to read from. Raises OSError: there is none, or it is no file."""
        try:
            fd = self._open()
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.path) from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(22, "not a regular file", self.path)
        return fd

    def _open(self) -> int:
        for root in self.roots:
            try:
                below = hostfile.opened(root, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                rest = hostpath.beneath(below, self.path)
                if rest is not None:
                    return openat2(below, (rest or ".").encode("utf-8", "surrogateescape"), _FLAGS, BENEATH)
            finally:
                os.close(below)
        return hostfile.opened(self.path, _FLAGS)


def place(known: state.All, name: str) -> Place:
    """Where the console of a jail is kept: exec.consolelog of its configuration, else with what else is kept of it.

    It need not be there. Raises JailError: no such jail, and nothing kept of one.
    """
    kept = f"{store.BASE}/{name}/console.log"
    try:
        one = known.named(name)[0]
    except JailError:
        if "/" in name or name in ("", ".", "..") or not os.path.lexists(kept):
            raise
        return Place(name, kept, ())
    given = one.params.get("exec.consolelog") or _configured(one, "exec.consolelog")
    path = given if given.startswith("/") else f"{store.BASE}/{one.name}/console.log"
    roots = {one.path, _configured(one, "path")}  # it may run with another than it is going to have
    return Place(one.name, path, tuple(sorted(root for root in roots if root and root != "/")))


def _configured(known: state.Known, name: str) -> str:
    settings = known.defined.sound() if known.defined is not None else []
    return next((one.values[-1] for one in settings if one.name == name and one.values), "")


class Reader:
    """What a console log says, line by line."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._fd = -1
        self._at = 0
        self._end = sys.maxsize
        self._lines = _Lines()

    def start(self, last: int, follow: bool = False) -> None:
        """Open it, at the last so many lines, or with less than 0 at the beginning. Raises OSError.

        What comes from now on is read with ``follow`` alone: who writes as fast as it is read would have no end.
        """
        self._fd = self.place.open()
        self._end = sys.maxsize if follow else os.fstat(self._fd).st_size
        self._at = 0 if last < 0 else _offset(self._fd, last)

    def read(self) -> list[bytes]:
        """The lines that there are now, each with its newline, where it is whole. At the end of the file none."""
        if self._fd < 0:
            return []
        if os.fstat(self._fd).st_size < self._at:  # copied and truncated
            self._at = 0
        while piece := os.pread(self._fd, min(_PIECE, max(self._end - self._at, 0)), self._at):
            if not piece.strip(b"\0") and (at := _behind_hole(self._fd, self._at)) > self._at:
                self._at = at
                continue
            self._at += len(piece)
            if lines := self._lines.take(piece):
                return lines
        return []

    def rest(self) -> list[bytes]:
        """The line that has no end."""
        return self._lines.rest()

    def successor(self) -> int:
        """Another file of that name, to ``go_on`` with when this one has been read; -1 while there is none."""
        try:
            new = self.place.open()
        except OSError:
            return -1
        if self._fd >= 0 and os.path.sameopenfile(self._fd, new):
            os.close(new)
            return -1
        return new

    def go_on(self, successor: int) -> None:
        """Read that from now on, from its beginning."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._at = successor, 0


class _Lines:
    def __init__(self) -> None:
        self._rest = b""

    def take(self, piece: bytes) -> list[bytes]:
        *whole, self._rest = (self._rest + piece).split(b"\n")
        found = [line + b"\n" for line in whole]
        if len(self._rest) > _LONGEST:
            found += self.rest()
        return found

    def rest(self) -> list[bytes]:
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def _behind_hole(fd: int, at: int) -> int:
    """Where there is data again, if at that place there is none: nobody has written it, and it may be 8 EB long."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        return os.fstat(fd).st_size if error.errno == errno.ENXIO else at


def _offset(fd: int, lines: int) -> int:
    """Where the last so many lines of a file begin; the last need not have an end."""
    end = os.fstat(fd).st_size
    furthest = max(end - _FURTHEST, 0)
    if end and os.pread(fd, 1, end - 1) == b"\n":
        lines += 1
    at = end
    while at > furthest:
        start = max(at - _PIECE, furthest)
        piece = os.pread(fd, at - start, start)
        found = piece.count(b"\n")
        if found >= lines:
            place = len(piece)
            for _ in range(lines):
                place = piece.rindex(b"\n", 0, place)
            return start + place + 1 if lines else end
        lines -= found
        at = start
    return furthest


class Shown:
    """Lines as a terminal may have them: what is not printable is escaped, tabs excepted."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def text(self, line: bytes) -> str:
        """Without the newline, and the carriage return before it."""
        whole = line.endswith(b"\n")
        bare = line.removesuffix(b"\n").removesuffix(b"\r") if whole else line
        return visible(self._decoder.decode(bare, final=whole), keep="\t")
