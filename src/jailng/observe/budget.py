"""How much of a jail's terminals is recorded: what an administrator has set, and what the disk has room for."""

from __future__ import annotations

import os
from dataclasses import dataclass

_SECOND = 1_000_000_000
_BURST = 16  # seconds of its rate that may be written at once
# What each session may record when others have used up the rate: what somebody does who types, but no flood.
_QUIET_RATE, _QUIET_BURST = 4096, 65536
_NEW_RATE, _NEW_BURST = 2, 1000  # new files a second, and at once
_SMALL = 65536  # bytes of a session's file up to which the last eighth of the total is for it
_RESERVE = 64 << 20  # bytes of the disk that are the host's, or a twentieth of a disk that is small
_RESERVED_FILES = 1000


@dataclass(frozen=True)
class Options:
    """What ``ng.watch=tty`` was given. Sizes are of files, in bytes.

    ``size``: of one session; ``rate``: bytes a second of all terminals of a jail, half of it at most of one;
    ``sessions``: how many of a jail are kept; ``total``: of all of a jail. ``oldest``: whether the oldest sessions give
    way when one of the last two is reached; else it is what is new that is not recorded.
    """

    size: int = 100 << 20
    rate: int = 1 << 20
    sessions: int = 10_000
    total: int = 1 << 30
    oldest: int = 0


class Bucket:
    """So much a second on the average, and so much at once."""

    __slots__ = ("_depth", "_last", "_level", "_rate", "_refused")

    def __init__(self, rate: int, depth: int) -> None:
        self._rate = rate
        self._depth = depth
        self._level = float(depth)
        self._last = 0
        self._refused = False

    def has(self, now: int, amount: int) -> bool:
        """Whether that much may be had; after it could not be, what comes in a second has to be there again.

        ``now`` in nanoseconds; a time before the last counts as that.
        """
        if now > self._last:
            self._level = min(self._depth, self._level + self._rate * (now - self._last) / _SECOND)
            self._last = now
        need = max(amount, self._rate) if self._refused else amount
        self._refused = self._level < min(need, self._depth)
        return not self._refused

    def take(self, amount: int) -> None:
        """Take it, whether there or not."""
        self._level -= amount


class Budget:
    """What one session may record at its rate."""

    __slots__ = ("_all", "_own", "_quiet", "_typed")

    def __init__(self, options: Options, all_sessions: Bucket) -> None:
        half = options.rate // 2
        self._own = Bucket(half, half * _BURST)
        quiet = min(_QUIET_RATE, half), min(_QUIET_BURST, half * _BURST)
        self._quiet, self._typed = Bucket(*quiet), Bucket(*quiet)
        self._all = all_sessions

    def take(self, now: int, amount: int) -> bool:
        """Whether that many bytes may be recorded now; they are then taken."""
        quiet = self._quiet.has(now, amount)
        if not self._own.has(now, amount) or not (self._all.has(now, amount) or quiet):
            return False
        self._own.take(amount)
        self._all.take(amount)
        if quiet:
            self._quiet.take(amount)
        return True

    def take_typed(self, now: int, amount: int) -> bool:
        """The same of what is typed: as much as somebody types is recorded whatever the terminal shows meanwhile."""
        if not self._typed.has(now, amount):
            return self.take(now, amount)
        for bucket in (self._typed, self._own, self._all):
            bucket.take(amount)
        return True


def together(options: Options) -> Bucket:
    """What all sessions of a jail may record at its rate."""
    return Bucket(options.rate, options.rate * _BURST)


def beginnings() -> Bucket:
    """How many sessions may begin."""
    return Bucket(_NEW_RATE, _NEW_BURST)


def most(options: Options, size: int) -> int:
    """How large all files may become by one of that size."""
    return options.total if size < _SMALL else options.total - options.total // 8


class Disk:
    """The room that is left for recordings. The last of it is left to the host."""

    __slots__ = ("_checked", "_fd", "_files", "_room")

    def __init__(self, directory: int) -> None:
        self._fd = directory
        self._checked = -_SECOND
        self._room = self._files = 0

    def has(self, now: int, amount: int, files: int = 0) -> bool:
        """Whether there is room for that many bytes and files more, which are then taken to be written."""
        if not 0 <= now - self._checked < _SECOND or self._room < 1 << 20:
            self.look(now)
        if self._room < amount or self._files < files:
            return False
        self._room -= amount
        self._files -= files
        return True

    def look(self, now: int) -> None:
        """Ask the file system."""
        found = os.fstatvfs(self._fd)
        self._checked = now
        reserve = min(_RESERVE, found.f_blocks * found.f_frsize // 20)
        self._room = found.f_bavail * found.f_frsize - reserve
        # A file system that makes its inodes as it goes has none to count.
        spare = found.f_favail - min(_RESERVED_FILES, found.f_files // 20)
        self._files = spare if found.f_files else 1 << 30
