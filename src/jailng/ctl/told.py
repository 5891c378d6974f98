"""What a process that moves files tells the one that waits for it, and how much it may move."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass

_MOST = 20  # files of which is told one by one
_LONGEST = 200  # characters of what is told of one
_BEAT = 1.0  # seconds between signs of life


class Excess(Exception):
    """There is more of something than was allowed."""


@dataclass
class Limits:
    """How many files, and how many bytes of data in them, may be moved; 0 for any number."""

    files: int = 1_000_000
    size: int = 64 << 30
    _files: int = 0
    _size: int = 0

    def count(self) -> None:
        """One file more, of whatever kind. Raises Excess."""
        self._files += 1
        if self.files and self._files > self.files:
            raise Excess(f"more than {self.files} files: --max-files")

    def take(self, size: int) -> None:
        """So many bytes more. Raises Excess."""
        self._size += size
        if self.size and self._size > self.size:
            raise Excess(f"more than {self.size} bytes: --max-size")


class Told:
    """The end of the pipe at which is told. A line is a JSON object of one word and what belongs to it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._counts: dict[str, int] = {}
        self._last = 0.0

    def _say(self, word: str, value: object) -> None:
        os.write(self._fd, json.dumps({word: value}).encode() + b"\n")

    def beat(self) -> None:
        """Something has moved."""
        now = time.monotonic()
        if now - self._last > _BEAT:
            self._last = now
            os.write(self._fd, b"\n")

    def failed(self, path: str, why: str) -> None:
        """One file could not be moved."""
        self._one("failed", f"{path[-_LONGEST:]}: {why}")

    def skipped(self, path: str, kind: str) -> None:
        """One file was left out, as it should be."""
        self._one("skipped", f"{path[-_LONGEST:]}: {kind}")

    def dropped(self) -> None:
        """A set-user-ID or set-group-ID bit, or the like, was not taken over."""
        self._counts["dropped"] = self._counts.get("dropped", 0) + 1

    def _one(self, word: str, text: str) -> None:
        number = self._counts[word] = self._counts.get(word, 0) + 1
        if number <= _MOST:
            self._say(word, text)

    def done(self) -> None:
        """All has been moved that could be."""
        self._say("done", self._counts)

    def ended(self, why: str, consequence: bool = False) -> None:
        """It has come to nothing; ``consequence``: since the other end has ended."""
        self._say("consequence" if consequence else "ended", why)
