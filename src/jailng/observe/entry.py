"""An entry of a log as a line of its file (``chain``), and the names of the files.

What authenticates a line has a fixed place at its end, so that a line can be checked without being understood; and when
it was and what kind it is of at its beginning, so that of many lines those that are wanted can be found.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import re
import stat
import time
from typing import TYPE_CHECKING

from jailng.observe import ratchet
from jailng.procs import jsontext

if TYPE_CHECKING:
    from collections.abc import Mapping

UNSYNCED = "unsynced"  # in a file's first entry: the first that may not have been on the disk when the power went
_SUFFIX = ".jsonl"
_DIGITS = 8
_HEX = 64
_MAC = b',"mac":"'
_PREV = b',"prev":"'
_START = b'{"seq":'
_BEGINNING = re.compile(rb'\{"seq":\d+,"time":"([^"\\]*)","kind":"([^"\\]*)"[,}]')
_TAIL = len(_MAC) + _HEX + 2
_LINK = len(_PREV) + _HEX + 1
_MOST_DIGITS = 18
_SECOND = 10**9
_STEP = 1 << 16  # bytes that are read at once
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def digest(line: bytes) -> str:
    """The hash that the next line has of this one; ``line`` is without its newline."""
    return hashlib.sha256(line).hexdigest()


def made(number: int, kind: str, fields: Mapping[str, object], prev: str, key: bytes) -> bytes:
    """The line of an entry, newline and all. ``fields`` may have ``time``, in nanoseconds since 1970."""
    stamp = fields.get("time")
    when = stamp if isinstance(stamp, int) else time.time_ns()
    rest = {name: value for name, value in fields.items() if name != "time"}
    text = jsontext.dumped({"seq": number, "time": shown_time(when), "kind": kind, **rest}, spaces=False)
    body = text[:-1].encode("ascii") + b',"prev":"%s"' % prev.encode("ascii")
    return body + b',"mac":"%s"}\n' % ratchet.mac(key, body).encode("ascii")


def shown_time(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 writes them, in UTC."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


class Line:
    """A line, newline not among it, taken apart: ``number``, ``prev`` and ``mac`` as it claims them.

    ``whole`` is whether it has the form of an entry at all; else the others mean nothing.
    """

    __slots__ = ("_body", "mac", "number", "prev", "whole")

    def __init__(self, line: bytes) -> None:
        self._body = line[:-_TAIL]
        self.mac = line[-_HEX - 2 : -2].decode("latin-1")
        self.prev = self._body[-_HEX - 1 : -1].decode("latin-1")
        number = self._body[len(_START) :].partition(b",")[0]
        self.number = int(number) if number.isdigit() and len(number) <= _MOST_DIGITS else -1
        self.whole = (
            line.endswith(b'"}')
            and line[-_TAIL : -_TAIL + len(_MAC)] == _MAC
            and self._body.startswith(_START)
            and self._body.endswith(b'"')
            and self._body[-_LINK : -_LINK + len(_PREV)] == _PREV
            and self.number >= 0
        )

    def is_by(self, key: bytes) -> bool:
        """Whether it was written with that entry's key."""
        return self.whole and hmac.compare_digest(self.mac.encode("latin-1"), ratchet.mac(key, self._body).encode())


def fields(line: bytes) -> dict[str, object]:
    """What the entry says; nothing where it is no JSON."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def told(line: bytes) -> tuple[str, str]:
    """When the entry was, as ``shown_time`` has it, and its kind; "None" for what it does not say."""
    found = _BEGINNING.match(line)
    if found is not None:
        return found[1].decode("latin-1"), found[2].decode("latin-1")
    said = fields(line)
    return str(said.get("time")), str(said.get("kind"))


def file_name(epoch: int) -> str:
    """The name of that epoch's file."""
    return f"{epoch:0{_DIGITS}}{_SUFFIX}"


def epochs(folder: int) -> list[int]:
    """The epochs of which there are files, in order; ``folder`` is a descriptor of the directory."""
    names = {name.removesuffix(_SUFFIX) for name in os.listdir(folder) if name.endswith(_SUFFIX)}
    numbers = [int(name) for name in names if name.isascii() and name.isdigit() and len(name) <= _MOST_DIGITS]
    return sorted({number for number in numbers if file_name(number).removesuffix(_SUFFIX) in names})


def line_before(fd: int, end: int) -> bytes | None:
    """The line of a file that ends at so many bytes, without its newline; None where none does."""
    if os.fstat(fd).st_size < end:
        return None
    data, start = b"", end
    while start and b"\n" not in data[:-1]:
        step = min(start, _STEP)
        start -= step
        data = os.pread(fd, step, start) + data
    return data[:-1].rpartition(b"\n")[2] if data.endswith(b"\n") else None


class NoFile(OSError):
    """What has a file's name is something else: a link, a FIFO, a directory."""


def opened(path: str | os.PathLike[str], folder: int | None = None) -> int:
    """A descriptor to read a file by; never waits. Raises NoFile, OSError."""
    try:
        fd = os.open(path, _READ, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            raise NoFile(error.errno, os.strerror(error.errno), path) from None
        raise
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise NoFile(errno.EINVAL, os.strerror(errno.EINVAL), path)
