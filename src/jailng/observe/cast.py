"""The file of one session: asciicast v2 (https://docs.asciinema.org/manual/asciicast/v2), and every byte in it.

The first line is the header, a JSON object; what is ours in it stands under ``jailng``. Each other line is an event,
``[seconds since the start, code, text]``, whole in one write(2). The specification's codes are used as it says: ``o``
(shown), ``i`` (typed), ``r`` (COLUMNSxROWS), ``m`` (a marker, for people). Those below are ours; players pass over
codes that they do not know.

Text has to be UTF-8, and what goes through a terminal need not be. A byte that is no part of a character in UTF-8 is
written as the character U+10F700 + byte, of a private plane that nobody uses; where one of these is itself in the
stream, its four bytes are written so. A character that is divided between two events stands in the second. What there
is of it until then follows the first, under PENDING, so that a recorder killed in between loses nothing.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeGuard

OUTPUT, INPUT, RESIZE, MARKER = "o", "i", "r", "m"
PENDING = "P"  # a stream's code, and the first bytes of a character: its next event has them, too, if one comes
WHO = "W"  # a JSON object: what has become known of who is behind the session; goes over the header's
COUNTS = "C"  # a JSON object: what has been counted so far (Counts)
END = "E"  # the same, and the last line; with `state`, how it ended
STREAMS = (OUTPUT, INPUT)

_BYTE = 0x10F700
_OWN = re.compile("[\U0010f780-\U0010f7ff]")
_LONE = re.compile("[\udc80-\udcff]")
_TO_OWN = {0xDC00 + byte: _BYTE + byte for byte in range(0x80, 0x100)}
_TO_LONE = {_BYTE + byte: 0xDC00 + byte for byte in range(0x80, 0x100)}
# What JSON may leave as it is, and a terminal on which somebody reads the file would act upon.
_BARE = re.compile("[\x7f-\x9f]")
# Where the machine has lost its power there may be zeros instead, or whatever was on the disk before.
_TORN = re.compile(rb'\[(\d+\.\d+), "([oiP])", "((?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-f]{4})*)')
_LONGEST_HEADER = 65536
# Facts that are numbers, of 64 bits. Whoever has been at a file may have written anything there, a broken disk too.
_NUMBERS = frozenset("base dev jid late pid start terminal uid user_pid user_uid wall".split())
_MOST = 1 << 63
_LATEST = 1 << 35  # seconds since 1970: of a time that can be shown
_LONGEST = 1e9  # seconds: what can be waited for


def text(data: bytes) -> str:
    """Bytes as text from which ``content`` makes the same bytes again, whatever they are."""
    return _sealed(data.decode("utf-8", "surrogateescape"))


def _sealed(decoded: str) -> str:
    if decoded.isascii():
        return decoded
    if _OWN.search(decoded):
        decoded = _OWN.sub(lambda match: match.group().encode().decode("ascii", "surrogateescape"), decoded)
    return decoded.translate(_TO_OWN) if _LONE.search(decoded) else decoded


def content(shown: str) -> bytes:
    """The bytes of an event's text."""
    if not shown.isascii() and _OWN.search(shown):
        return shown.translate(_TO_LONE).encode("utf-8", "surrogateescape")
    return shown.encode("utf-8", "surrogatepass")


def printable(shown: str) -> str:
    """An event's text with U+FFFD, as a terminal shows it, where it stands for bytes that are no character's."""
    return shown if shown.isascii() else _OWN.sub("\ufffd", shown)


class Stream:
    """Bytes that come in pieces, as text in pieces: a character is never divided."""

    def __init__(self, held: bytes = b"") -> None:
        """``held``: the first bytes of a character that were there before."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._decoder.decode(held)

    def add(self, data: bytes) -> str:
        """The text of what is complete by now."""
        return _sealed(self._decoder.decode(data))

    @property
    def held(self) -> bytes:
        """The bytes at the end that are no character yet, three at most."""
        return self._decoder.getstate()[0]

    def flush(self) -> str:
        """What is held, as bytes that are no character."""
        rest = _sealed(self._decoder.decode(b"", True))
        self._decoder.reset()
        return rest


def line(nanoseconds: int, code: str, data: str) -> bytes:
    """An event's line. ``nanoseconds`` since the start of the session."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f'[{seconds}.{rest:09}, "{code}", {_json(data)}]\n'.encode()


def _json(value: object) -> str:
    written = json.dumps(value, ensure_ascii=False)
    if written.isascii() and "\x7f" not in written:
        return written
    return _BARE.sub(lambda match: f"\\u{ord(match.group()):04x}", written) if _BARE.search(written) else written


@dataclass
class Header:
    """The first line. ``timestamp`` in seconds since 1970; ``own``: under ``jailng``."""

    width: int = 80
    height: int = 24
    timestamp: int = 0
    title: str = ""
    env: dict[str, str] = field(default_factory=dict)
    own: dict[str, str | int] = field(default_factory=dict)

    def line(self) -> bytes:
        """The header's line."""
        facts = {
            "version": 2,
            "width": self.width,
            "height": self.height,
            "timestamp": self.timestamp,
            "title": self.title,
            "env": self.env,
            "jailng": self.own,
        }
        return f"{_json(facts)}\n".encode("utf-8", "replace")


def header(first: bytes) -> Header:
    """The header of that line, of whoever wrote it. Raises ValueError if it is none."""
    if not first.endswith(b"\n"):
        raise ValueError("a header that is not whole")
    facts = _read(first)
    if not isinstance(facts, dict) or facts.get("version") != 2:
        raise ValueError("not asciicast v2")
    width, height = [_number(facts.get(key), _MOST) for key in ("width", "height")]
    env = facts.get("env")
    return Header(
        width=width,
        height=height,
        timestamp=_number(facts.get("timestamp"), _LATEST),
        title=str(facts.get("title") or ""),
        env={str(key): str(value) for key, value in env.items()} if isinstance(env, dict) else {},
        own=facts_of(facts.get("jailng")),
    )


def _read(raw: bytes | str) -> object:
    """What JSON says. Raises ValueError, whatever it is that it cannot be."""
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _number(value: object, limit: int) -> int:
    """A whole number from 0 to below the limit; 0 for anything else. Other programs write times with a fraction."""
    if isinstance(value, (int, float)) and 0 <= value < limit:
        return int(value)
    return 0


def facts_of(found: object) -> dict[str, str | int]:
    """What a JSON object has of text and whole numbers; nothing if it is no object."""
    if not isinstance(found, dict):
        return {}
    return {str(key): value for key, value in found.items() if _is_fact(str(key), value)}


def _is_fact(key: str, value: object) -> bool:
    if isinstance(value, int):
        return -_MOST <= value < _MOST
    return isinstance(value, str) and key not in _NUMBERS


@dataclass
class Counts:
    """What has been counted of one session.

    ``shown`` and ``typed``: bytes in the record; ``dropped``: events that the kernel had no room for, up to so many of
    which were this session's; ``unrecorded``: bytes that were seen and not kept, or moved unseen, by reason; ``gaps``:
    how often nobody recorded.
    """

    shown: int = 0
    typed: int = 0
    dropped: int = 0
    gaps: int = 0
    unrecorded: dict[str, int] = field(default_factory=dict)

    def json(self, **more: object) -> str:
        """As the text of an event."""
        return json.dumps(vars(self) | more)


def counts(data: str) -> Counts:
    """What ``Counts.json`` has made that text of. Raises ValueError."""
    facts = _read(data)
    if not isinstance(facts, dict):
        raise ValueError("no counts")
    shown, typed, dropped, gaps = [_number(facts.get(key), _MOST) for key in ("shown", "typed", "dropped", "gaps")]
    reasons = facts.get("unrecorded")
    reasons = reasons if isinstance(reasons, dict) else {}
    return Counts(shown, typed, dropped, gaps, {str(key): _number(value, _MOST) for key, value in reasons.items()})


def more(data: str) -> dict[str, object]:
    """What else is beside counts, or known of who is behind a session: an object, as JSON has it. Raises ValueError."""
    found = _read(data)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return {str(key): value for key, value in found.items()}


@dataclass(frozen=True)
class Entry:
    """One event of a file: ``time`` in seconds since the start."""

    time: float
    code: str
    data: str


def entry(raw: bytes) -> Entry:
    """The event of a line. Raises ValueError."""
    found = _read(raw)
    if not is_event(found):
        raise ValueError("not an event")
    return Entry(float(found[0]), found[1], found[2])


def is_event(found: object) -> TypeGuard[list[Any]]:
    """Whether what JSON said is an event: a time, a code, and text."""
    if not isinstance(found, list) or len(found) != 3:
        return False
    time, code, data = found
    return isinstance(time, (int, float)) and 0 <= time <= _LONGEST and isinstance(code, str) and isinstance(data, str)


def nanoseconds(raw: bytes) -> int:
    """The time in an event's line, exactly: nanoseconds since the start. Raises ValueError."""
    seconds, _, rest = raw[1 : raw.index(b",")].partition(b".")
    return int(seconds) * 1_000_000_000 + int(rest[:9].ljust(9, b"0") or 0)


def opened(file: BinaryIO) -> Header:
    """Read the header off a file. Raises ValueError."""
    return header(file.readline(_LONGEST_HEADER))


def entries(file: BinaryIO) -> Iterator[Entry]:
    """The events of a file whose header has been read; also what there is of one that is torn off at the end.

    A line that is none is passed over: a record is read as far as it can be.
    """
    for raw in file:
        if not raw.endswith(b"\n"):
            raw = mended(raw)
        if raw:
            try:
                yield entry(raw)
            except ValueError:
                continue


def pieces(found: Iterable[Entry], code: str) -> Iterator[tuple[float, bytes]]:
    """What went through one stream, byte for byte, with the times at which it did."""
    held: tuple[float, bytes] | None = None
    for event in found:
        if event.code == code:
            held = None
            yield event.time, content(event.data)
        elif event.code == PENDING and event.data[:1] == code:
            held = event.time, content(event.data[1:])
    if held:
        yield held


def mended(torn: bytes) -> bytes:
    """A line of which only the beginning was written, made a whole one of what there is; b"" if there is nothing."""
    whole = torn + b"\n"
    try:
        entry(whole)
        return whole
    except ValueError:
        pass
    match = _TORN.match(torn)
    if not match:
        return b""
    kept = match.group()
    # A character of which not all bytes are there.
    codec = codecs.getincrementaldecoder("utf-8")("strict")
    try:
        codec.decode(kept)
    except ValueError:
        return b""
    kept = kept[: len(kept) - len(codec.getstate()[0])]
    made = kept + b'"]\n'
    return made if entry(made).data[match.group(2) == b"P" :] else b""
