"""A recorded session as its file tells of it, without reading the whole of it."""

from __future__ import annotations

import calendar
import errno
import fcntl
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from jailng.observe import cast
from jailng.observe.cast import Counts, Header

_NAME = re.compile(r"\d{8}T\d{6}Z-([0-9a-f]{8})\.cast")
_RECORDER = re.compile(r"[\w.-]+")
_STAMP = len("20261125T221500")
_TAIL, _HEAD = 4096, 1 << 16
LIVE, ENDED, CUT_OFF, DAMAGED = "live", "ended", "cut off", "damaged"
# How much of a file there is at most between two lines of what has been counted, and a line more.
EVERY = 256 << 10
_LONGEST = 1 << 20


class NotBegun(ValueError):
    """Not even the first line of a file was written whole."""


def name(seconds: str, number: str) -> str:
    """The name of a file; names in order are sessions in the order in which they began."""
    return f"{seconds}Z-{number}.cast"


def began(file: str) -> int:
    """When the session began whose file has that name: seconds since 1970, or 0 where the name says no time."""
    try:
        return calendar.timegm(time.strptime(file[:_STAMP], "%Y%m%dT%H%M%S"))
    except (ValueError, OverflowError):
        return 0


def number(file: str) -> str:
    """The session whose file that is; "" if it is none."""
    match = _NAME.fullmatch(file)
    return match.group(1) if match else ""


@dataclass
class Summary:
    """What a file says of its session.

    ``last``: nanoseconds from its start to the last that is there; ``ended``: how it ended, "" if the file does not
    say; ``held``: first bytes of characters, by stream; ``latest``: of each stream the time of the last event and how
    many bytes of it are there; ``who``: what has become known, beside the header, of who is behind it; ``size``: of
    the file; ``whole``: up to where its lines are; ``torn``: what is there of one more.
    """

    header: Header
    counts: Counts = field(default_factory=Counts)
    last: int = 0
    ended: str = ""
    held: dict[str, bytes] = field(default_factory=dict)
    latest: dict[str, tuple[int, int]] = field(default_factory=dict)
    who: dict[str, str | int] = field(default_factory=dict)
    size: int = 0
    whole: int = 0
    torn: bytes = b""


def has_ended(fd: int) -> bool:
    """Whether the last line is the one that ends a file, which can be told without reading more. Raises OSError."""
    content = os.pread(fd, _TAIL, max(os.fstat(fd).st_size - _TAIL, 0))
    return content.endswith(b"\n") and b'"E", ' in content[:-1].rpartition(b"\n")[2][:40]


def summary(fd: int) -> Summary:
    """Read it. Raises NotBegun or another ValueError if it has no header, and OSError."""
    size = os.fstat(fd).st_size
    first = _first(fd)
    found = Summary(cast.header(first), size=size)
    for window in (_TAIL, EVERY + _LONGEST, size):
        begin = max(len(first), size - window)
        if _read(found, os.pread(fd, size - begin, begin), begin, begin == len(first)):
            break
    return found


def _first(fd: int) -> bytes:
    content = os.pread(fd, _TAIL, 0)
    if b"\n" not in content:
        content = os.pread(fd, _HEAD, 0)
    end = content.find(b"\n")
    if end < 0 and len(content) < _HEAD:
        raise NotBegun("a header that is not whole")
    return content[: end + 1]  # empty, and no header, where there is no end


def _read(found: Summary, content: bytes, begin: int, everything: bool) -> bool:
    """Take over what the end of a file says. Whether it was enough of it."""
    skipped = 0 if everything else content.find(b"\n") + 1
    end = content.rfind(b"\n") + 1
    lines = content[skipped:end].splitlines(keepends=True) if end > skipped else []
    last = 0
    for index in range(len(lines) - 1, -1, -1):
        if b'"C", ' in lines[index][:40] or b'"E", ' in lines[index][:40]:
            last = index
            break
    else:
        if not everything:
            return False
    found.counts, found.ended, found.held, found.latest, found.who = Counts(), "", {}, {}, {}
    for position, raw in enumerate(lines):
        try:
            event, found.last = cast.entry(raw), cast.nanoseconds(raw)
            _take(found, event)
        except ValueError:
            continue
        if position < last:
            found.counts = Counts()
    found.whole = begin + end
    found.torn = content[end:]
    return True


def _take(found: Summary, event: cast.Entry) -> None:
    if event.code in cast.STREAMS:
        size = len(cast.content(event.data))
        count(found.counts, event.code, size)
        _latest(found, event.code, size)
        found.held.pop(event.code, None)
    elif event.code == cast.PENDING:
        held = cast.content(event.data[1:])
        _latest(found, event.data[:1], len(held))
        found.held[event.data[:1]] = held
    elif event.code in (cast.COUNTS, cast.END):
        found.counts = cast.counts(event.data)
        more = cast.more(event.data)
        found.who |= cast.facts_of(more.get("who"))
        found.ended = str(more.get("state", ENDED)) if event.code == cast.END else ""
    elif event.code == cast.WHO:
        found.who |= cast.facts_of(cast.more(event.data))


def _latest(found: Summary, code: str, size: int) -> None:
    time, before = found.latest.get(code, (-1, 0))
    had = before if time == found.last else 0
    found.latest[code] = found.last, had + size - len(found.held.get(code, b""))


def count(counts: Counts, code: str, size: int) -> None:
    """So many bytes more have been recorded of a stream."""
    if code == cast.OUTPUT:
        counts.shown += size
    else:
        counts.typed += size


def user_of(facts: Mapping[str, str | int]) -> int:
    """The uid, as the host has it, of whoever sits at a terminal; -1: it is not known.

    Who has opened it sits there, unless that is root: an sshd, login(1), jexec(8) open it for somebody.
    """
    sits, opener = facts.get("user_uid"), facts.get("uid")
    if isinstance(sits, int):
        return sits
    return opener if isinstance(opener, int) and opener not in (0, facts.get("base")) else -1


def lock(directory: int, recorder: str, make: bool = False) -> int:
    """The lock of whoever records under that name: a descriptor while it is held; -1 if somebody has it.

    Raises OSError.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if make else 0)
    try:
        fd = os.open(f"{recorder}.lock", flags, 0o600, dir_fd=directory)
    except FileNotFoundError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno != errno.EWOULDBLOCK:
            raise
        return -1
    return fd


def unlock(directory: int, recorder: str) -> None:
    """Take away the lock of whoever has recorded under that name, if it is one. Raises OSError."""
    if _RECORDER.fullmatch(recorder):
        with suppress(FileNotFoundError):
            os.unlink(f"{recorder}.lock", dir_fd=directory)


def is_recorded(directory: int, recorder: str) -> bool:
    """Whether somebody records under that name now."""
    if not _RECORDER.fullmatch(recorder):
        return False
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(f"{recorder}.lock", flags, dir_fd=directory)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
