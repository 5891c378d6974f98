"""Looking for text in a recording: in what was shown or typed, wherever events begin, and whatever colours it had."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from jailng.observe import cast, escapes

_BATCH = 4 << 20  # bytes of a file that are read at once
_CARRIED = 16384  # characters before a piece that are looked at again with it
_CONTEXT = 40  # characters
_ERASERS = "\b\x7f"


@dataclass(frozen=True)
class Match:
    """One place. ``time``: seconds since the start; ``code``: o (shown) or i (typed)."""

    time: float
    code: str
    before: str
    text: str
    after: str


def search(file: BinaryIO, pattern: re.Pattern[str], codes: str) -> Iterator[Match]:
    """Where the pattern is found in the streams of these codes; the file's header has been read."""
    streams = {code: _Stream(code, pattern) for code in codes}
    while True:
        lines = file.readlines(_BATCH)
        for event in _entries(lines):
            stream = streams.get(event[1])
            if stream is not None:
                stream.add(event[0], event[2])
        for stream in streams.values():
            yield from stream.found(final=not lines)
        if not lines:
            return


def _entries(lines: list[bytes]) -> list[tuple[float, str, str]]:
    try:
        found: list[tuple[float, str, str]] = json.loads(b"[" + b",".join(lines) + b"]")
        if all(map(cast.is_event, found)):
            return found
    except (ValueError, RecursionError):
        pass
    made = [cast.mended(line.rstrip(b"\n")) for line in lines]
    return [(event.time, event.code, event.data) for event in map(cast.entry, filter(None, made))]


class _Stream:
    """What went through one stream, of which a piece is looked at, at a time."""

    def __init__(self, code: str, pattern: re.Pattern[str]) -> None:
        self._code = code
        self._pattern = pattern
        self._parts: list[str] = []
        self._places: list[int] = []  # where each event begins
        self._times: list[float] = []
        self._length = 0
        self._gone = 0  # characters before these
        self._latest = -1  # where the last match began, of all of the stream

    def add(self, time: float, text: str) -> None:
        """One more event."""
        self._places.append(self._length)
        self._times.append(time)
        self._parts.append(text)
        self._length += len(text)

    def found(self, final: bool) -> Iterator[Match]:
        """What is found in what has been added; then all of it but its end is forgotten."""
        if not self._parts:
            return
        text = cast.printable("".join(self._parts))
        end = len(text) if final else escapes.begun(text)
        yield from self._matches(text[:end])
        cut = max(0, min(end, len(text) - _CARRIED))
        cut = max(cut, text.find("\n", cut, end) + 1)
        first = bisect_right(self._places, cut) - 1
        self._times = self._times[first:]
        self._places = [0, *[place - cut for place in self._places[first + 1 :]]]
        self._parts = [text[cut:]]
        self._length = len(text) - cut
        self._gone += cut

    def _matches(self, text: str) -> Iterator[Match]:
        if self._code == cast.INPUT:
            text = text.replace("\r", "\n")
        clean = escapes.plain(text)
        found: list[tuple[int, re.Match[str]]] = []
        matches = list(self._pattern.finditer(clean))
        pieces = escapes.pieces(text) if matches else []
        starts = [start for start, _ in pieces]
        for match in matches:
            start, place = pieces[bisect_right(starts, match.start()) - 1]
            found.append((place + match.start() - start, match))
        if self._code == cast.INPUT and ("\b" in text or "\x7f" in text):
            edited, places = _edited(text)
            known = {place for place, _ in found}
            for match in self._pattern.finditer(edited):
                place = places[match.start()] if match.start() < len(places) else len(text)
                if place not in known:
                    found.append((place, match))
            found.sort(key=lambda one: one[0])
        for place, match in found:
            if self._gone + place > self._latest:
                self._latest = self._gone + place
                yield self._match(place, match)

    def _match(self, place: int, match: re.Match[str]) -> Match:
        time = self._times[max(0, bisect_right(self._places, place) - 1)]
        whole, begin, end = match.string, match.start(), match.end()
        before, after = whole[max(0, begin - _CONTEXT) : begin], whole[end : end + _CONTEXT]
        return Match(time, self._code, before, match.group(), after)


def _edited(text: str) -> tuple[str, list[int]]:
    """What remains of a line when characters have been erased, and where each of the remaining was."""
    kept = escapes.plain(text, typed=True)
    pieces = escapes.pieces(text, typed=True)
    made: list[str] = []
    places: list[int] = []
    for (start, begin), (end, _) in zip(pieces, [*pieces[1:], (len(kept), 0)], strict=True):
        for index in range(start, end):
            char = kept[index]
            if char not in _ERASERS:
                made.append(char)
                places.append(begin + index - start)
            elif made and made[-1] != "\n":
                made.pop()
                places.pop()
    return "".join(made), places
