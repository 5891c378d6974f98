"""The files of a jail's packets: written one after the other, within a budget, the oldest of which goes.

``NUMBER-TIME.pcapng``. A file appears with its first section in it. One that a dead writer left is cut after its last
whole block, and gone on with in a new section.
"""

from __future__ import annotations

import errno
import fcntl
import io
import mmap
import os
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from jailng.observe import pcapng

if TYPE_CHECKING:
    from collections.abc import Sequence

_SUFFIX = ".pcapng"
_NEW = ".new"
_LEAST = 1 << 16  # bytes of a file, however small a part of the budget that is
_LAST = 4096  # bytes for what is counted at its end
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_LOOKED_AT = 128 << 20  # bytes of a file, for the end of its last whole block: a start waits for that
_VECTOR = 1020  # buffers that one writev(2) takes: IOV_MAX is 1024


def stored(directory: Path) -> list[Path]:
    """The files, the oldest first."""
    try:
        names = [entry.name for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return [directory / name for name in sorted(names, key=_number) if name.endswith(_SUFFIX) and _number(name)]


def _number(name: str) -> int:
    head = name.partition("-")[0]
    return int(head) if head.isascii() and head.isdigit() else 0


class Sections(Protocol):
    """What the files have besides packets."""

    def begin(self, comment: str) -> bytes:
        """The blocks at the beginning of a section, which has that remark."""

    def finish(self) -> bytes:
        """The blocks at its end."""

    def finished(self) -> None:
        """They are written."""


class Files:
    """A writer of the files in ``directory``, of ``size`` bytes in all, in about that ``many``.

    A file is written for ``seconds`` at most from its first packet on, if that is not 0. What raises OSError has left
    no part of a block, or removes it before anything else is written.
    """

    def __init__(self, directory: Path, size: int, many: int, seconds: int, sections: Sections) -> None:
        self.directory = directory
        self.limit(size, many, seconds)
        self._sections = sections
        self._comment = ""  # that the next section is to have
        self._fd = -1
        self._since = 0.0  # when the first was written behind ``_head``, where the sections' beginning ends
        self._head = 0
        self._torn = False  # there may be a part of a block behind ``offset``
        self._taken = ""  # the file's name, as long as it has the sections of others alone
        self.name = ""
        self.offset = 0

    def limit(self, size: int, many: int, seconds: int) -> None:
        """From now on it is as much as that."""
        self._size = size
        self._each = max(size // many, _LEAST)
        self._seconds = seconds

    @property
    def room(self) -> int:
        """Bytes that the file has left for packets."""
        return self._each - _LAST - self.offset

    @property
    def due(self) -> bool:
        """Whether it is time for the next file, or there was none when it was."""
        late = self.offset > self._head and time.monotonic() - self._since >= self._seconds
        return bool(self._comment) or (bool(self._seconds) and late)

    @property
    def removed(self) -> bool:
        """Whether somebody has removed the file while it is written."""
        return bool(self.name) and os.fstat(self._fd).st_nlink == 0

    def open(self, comment: str, name: str = "", offset: int = -1) -> None:
        """Go on in the newest file, if it is not full, or begin one; ``comment`` goes into the new section.

        Where the writer before has left word of it, the file ``name`` was written up to ``offset``, and its last
        section is to be finished. Raises OSError; then ``begin`` tries it again.
        """
        files = stored(self.directory)
        for path in self.directory.glob(f"*{_NEW}"):
            path.unlink()
        self._comment = comment
        if files and self._take(files[-1], offset if files[-1].name == name else -1):
            if files[-1].name == name:
                self._finish()
            if self.room <= 0:
                self._close()
        self.begin()

    def _take(self, path: Path, offset: int) -> bool:
        fd = os.open(path, _FLAGS)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = os.fstat(fd).st_size
            offset = offset if 0 <= offset <= size else _whole(fd, size)
        except BlockingIOError:  # another still writes it, or it is very large
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._taken, self.offset, self._since = fd, path.name, offset, time.monotonic()
        self._torn = True
        return True

    def rotate(self, comment: str = "") -> None:
        """End this file and begin the next. Raises OSError: then this one goes on, or there is none."""
        self._comment = comment or self._comment
        if self.name:
            self._finish()
            self._close()
        self.begin()

    def begin(self) -> None:
        """Begin a file, or a section in that of another, unless that was done. Raises OSError."""
        if self._taken:
            self._begin()
            self.name, self._taken = self._taken, ""
        if self.name:
            return
        os.makedirs(self.directory, 0o700, exist_ok=True)
        files = stored(self.directory)
        number = _number(files[-1].name) + 1 if files else 1
        self._make_room(files)
        name = f"{number:08}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}{_SUFFIX}"
        new = self.directory / f"{name}{_NEW}"
        self._fd = os.open(new, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        self._since = time.monotonic()
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._begin()
            os.rename(new, self.directory / name)
            self.name = name
        except BaseException:
            self._close()
            os.unlink(new)
            raise

    def _make_room(self, files: list[Path]) -> None:
        sizes = [path.stat().st_size for path in files]
        total = sum(sizes)
        for path, size in zip(files, sizes, strict=True):
            if total + self._each <= self._size:
                break
            path.unlink()
            total -= size

    def _begin(self) -> None:
        self.write([self._sections.begin(self._comment)])
        self._comment = ""
        self._head = self.offset

    def _finish(self) -> None:
        self.write([self._sections.finish()])
        self.name = ""  # nobody is to finish it again
        self._sections.finished()

    def write(self, buffers: Sequence[bytes | memoryview]) -> None:
        """Append whole blocks to the file that there is. Raises OSError."""
        self._mend()
        self._torn = True
        if self.offset == self._head:
            self._since = time.monotonic()
        written = 0
        try:
            for first in range(0, len(buffers), _VECTOR):
                part = buffers[first : first + _VECTOR]
                wanted = sum(len(one) for one in part)
                done = os.writev(self._fd, part)
                rest = b"".join(part)[done:] if done < wanted else b""
                while rest:  # the disk is full, and the next call says so
                    rest = rest[os.write(self._fd, rest) :]
                written += wanted
        except OSError:
            with suppress(OSError):
                self._mend()
            raise
        self._torn = False
        self.offset += written

    def _mend(self) -> None:
        if self._torn:
            os.ftruncate(self._fd, self.offset)
            os.lseek(self._fd, self.offset, os.SEEK_SET)
            self._torn = False

    def close(self) -> None:
        """End the section, if there is one. Raises OSError."""
        try:
            if self.name:
                self._finish()
        finally:
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                self._mend()
            os.close(self._fd)
        self._fd, self.name, self._taken, self.offset, self._head, self._torn = -1, "", "", 0, 0, False


def _whole(fd: int, size: int) -> int:
    """Raises BlockingIOError: it takes too long to find out."""
    if size > _LOOKED_AT:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    if not size:
        return 0
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as text:
        return pcapng.whole(text)


@dataclass
class Look:
    """What a file has: ``first`` and ``last`` times of packets in nanoseconds, 0 where there are none."""

    size: int
    packets: int = 0
    first: int = 0
    last: int = 0
    lost: int = 0
    remarks: list[str] = field(default_factory=list)


def look(path: Path) -> Look:
    """What is in a file that this module wrote, without reading packets. Raises OSError."""
    with open(path, "rb") as file:
        found = Look(os.fstat(file.fileno()).st_size)
        if not found.size:
            return found
        with mmap.mmap(file.fileno(), found.size, prot=mmap.PROT_READ) as text:
            _scan(text, found)
    return found


def _scan(text: mmap.mmap, found: Look) -> None:
    at = 0
    losses: dict[int, int] = {}
    few: list[bytes] = []  # all but packets: what a reader makes of them
    head = struct.Struct("=5I").unpack_from
    while at + 20 <= found.size:
        kind, size, _, high, low = head(text, at)
        if size < 12 or at + size > found.size:
            break
        if kind == pcapng.PACKET:
            stamp = high << 32 | low
            found.packets += 1
            found.first = min(found.first or stamp, stamp)
            found.last = max(found.last, stamp)
        else:
            few.append(text[at : at + size])
        at += size
    for one in _read(few):
        if isinstance(one, pcapng.Section):
            found.lost += sum(losses.values())
            losses = {}
        elif isinstance(one, pcapng.Statistics):
            losses[id(one.interface)] = one.counts.lost
        if isinstance(one, pcapng.Section | pcapng.Statistics) and one.comment:
            found.remarks.append(one.comment)
    found.lost += sum(losses.values())
    found.remarks = list(dict.fromkeys(found.remarks))


def _read(blocks: list[bytes]) -> list[object]:
    made: list[object] = []
    try:
        made.extend(pcapng.Reader(io.BytesIO(b"".join(blocks))))
    except pcapng.Malformed:
        pass  # somebody else wrote there
    return made
