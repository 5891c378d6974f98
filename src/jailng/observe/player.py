"""Playing a recording: each piece of what was shown at its time."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable
from typing import Protocol

_PAUSE, _STEP, _QUIT, _FASTER, _SLOWER = b" p", b".", b"q\x03\x04", b"+=", b"-_"
_SPEEDS = (1 / 64, 1024.0)
_LONGEST = 86400.0  # seconds


class Clock(Protocol):
    """What a player waits by."""

    def now(self) -> float:
        """Seconds, from whenever."""

    def wait(self, seconds: float | None) -> bytes:
        """The keys that are pressed before so long; None: until there are any."""


class Wall:
    """Time as it passes, and keys of a terminal; ``keys`` is -1 where there is none."""

    def __init__(self, keys: int) -> None:
        self._keys = keys

    def now(self) -> float:
        """Seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    def wait(self, seconds: float | None) -> bytes:
        """No longer than the kernel can count; who waits asks again. Raises OSError."""
        seconds = seconds if seconds is None else min(seconds, _LONGEST)
        if self._keys < 0:
            time.sleep(seconds or 0)
            return b""
        if not select.select([self._keys], [], [], seconds)[0]:
            return b""
        # The other end of a terminal that has gone is as if somebody had left.
        return os.read(self._keys, 64) or b"q"


class Player:
    """Plays once. ``idle``: the longest that it waits between two pieces, in seconds of the recording."""

    def __init__(self, clock: Clock, speed: float = 1.0, idle: float | None = None) -> None:
        self._clock = clock
        self._speed = speed
        self._idle = idle
        self._paused = False
        self._stepping = False
        self._quit = False

    def play(self, pieces: Iterable[tuple[float, bytes]], write: Callable[[bytes], None]) -> bool:
        """Write each piece when it is due. Whether it came to the end."""
        last = 0.0
        due = self._clock.now()
        for at, data in pieces:
            gap = max(0.0, at - last)
            last = at
            due = self._wait(due, gap if self._idle is None else min(gap, self._idle))
            if self._quit:
                return False
            write(data)
        return True

    def _wait(self, due: float, left: float) -> float:
        """Wait for so many seconds of the recording. Returns when the piece after these was due."""
        while not self._quit:
            if self._paused and not self._stepping:
                self._keys(self._clock.wait(None))
                due = self._clock.now()
                continue
            if self._stepping:
                self._stepping = False
                return self._clock.now()
            now = self._clock.now()
            rest = due + left / self._speed - now
            if rest <= 0:
                return due + left / self._speed
            speed = self._speed
            keys = self._clock.wait(rest)
            if keys:
                # What has gone by was at the speed of then.
                passed = (self._clock.now() - due) * speed
                due, left = self._clock.now(), max(0.0, left - passed)
                self._keys(keys)
        return due

    def _keys(self, keys: bytes) -> None:
        for key in keys:
            if key in _QUIT:
                self._quit = True
            elif key in _PAUSE:
                self._paused = not self._paused
            elif key in _STEP:
                self._stepping = self._paused
            elif key in _FASTER:
                self._speed = min(_SPEEDS[1], self._speed * 2)
            elif key in _SLOWER:
                self._speed = max(_SPEEDS[0], self._speed / 2)
