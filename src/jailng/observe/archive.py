"""The files of one jail's sessions: what they take, which of them are open, and which give way."""

from __future__ import annotations

import os
import time
from collections import OrderedDict, deque

from jailng.observe import budget, cast, entry, session
from jailng.observe.budget import Options

_OPEN = 64  # files that are open at once
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_LOOK_AGAIN = 10_000_000_000  # nanoseconds after which an administrator may have made room


class File:
    """One file. Its descriptor is there when it is in use; behind ``size`` is part of a line while it is ``torn``."""

    __slots__ = ("fd", "name", "size", "torn")

    def __init__(self, name: str, size: int = 0, fd: int = -1) -> None:
        self.name = name
        self.size = size
        self.fd = fd
        self.torn = False


class Archive:
    """A directory of sessions that is written to by one process, within an administrator's limits."""

    def __init__(self, directory: int, options: Options) -> None:
        """``directory``: a descriptor of it."""
        self._directory = directory
        self.options = options
        self._disk = budget.Disk(directory)
        self._beginnings = budget.beginnings()
        self._open: OrderedDict[File, None] = OrderedDict()
        self._in_use: set[str] = set()
        self._ended: deque[tuple[str, int]] = deque()  # with their sizes, the oldest first
        self._size = 0  # of all files
        self._looked = 0
        self.removed = 0  # files that had to give way

    def names(self) -> list[str]:
        """All sessions' files, in the order in which these began. Raises OSError."""
        return sorted(name for name in os.listdir(self._directory) if session.number(name))

    def has_ended(self, name: str) -> bool:
        """Whether there is nothing to be done about that file: thousands may be there. Raises OSError."""
        try:
            fd = entry.opened(name, self._directory)
        except (FileNotFoundError, entry.NoFile):
            return True
        try:
            return session.has_ended(fd)
        finally:
            os.close(fd)

    def take_up(self, name: str) -> File:
        """Open a file that is there, to go on in it. Raises OSError."""
        fd = os.open(name, _FLAGS, dir_fd=self._directory)
        file = File(name, os.fstat(fd).st_size, fd)
        self._use(file)
        self._size += file.size
        return file

    def read(self, file: File) -> session.Summary:
        """What the file says. Raises ValueError and OSError."""
        return session.summary(self._descriptor(file))

    def _use(self, file: File) -> None:
        self._in_use.add(file.name)
        self._open[file] = None
        while len(self._open) > _OPEN:
            oldest, _ = self._open.popitem(last=False)
            os.close(oldest.fd)
            oldest.fd = -1

    def _descriptor(self, file: File) -> int:
        if file.fd < 0:
            file.fd = os.open(file.name, _FLAGS, dir_fd=self._directory)
            self._use(file)
        else:
            self._open.move_to_end(file)
        return file.fd

    # Room.

    def room(self, now: int, size: int, own: int) -> str:
        """Whether a file of ``own`` bytes may grow by ``size``: "", or why not."""
        if self._size + size > budget.most(self.options, own) and not self._freed(now, size, own):
            return "total"
        return "" if self._disk.has(now, size) else "disk"

    def _room_for_one(self, now: int, size: int) -> str:
        if not self._beginnings.has(now, 1):
            return "sessions"
        if self._count() >= self.options.sessions and not self._freed(now, size, 0):
            return "sessions"
        if self._size + size > self.options.total and not self._freed(now, size, 0):
            return "total"
        return "" if self._disk.has(now, size, 1) else "disk"

    def _count(self) -> int:
        return len(self._in_use) + len(self._ended)

    def _freed(self, now: int, size: int, own: int) -> bool:
        """Make room, if it is to be made, or see whether somebody has."""
        if not 0 <= now - self._looked < _LOOK_AGAIN:
            self._looked = now
            self.look()
        most = budget.most(self.options, own)
        while self._size + size > most or (not own and self._count() >= self.options.sessions):
            if not self.options.oldest or not self._ended:
                return False
            name, removed = self._ended.popleft()
            try:
                os.unlink(name, dir_fd=self._directory)
                self.removed += 1
            except FileNotFoundError:
                pass
            except OSError:  # chattr(1), say: what is there stays
                return False
            self._size -= removed
        return True

    def look(self) -> None:
        """Count anew what is there. Raises OSError."""
        self._ended.clear()
        self._size = 0
        there = set()
        for name in self.names():
            try:
                size = os.stat(name, dir_fd=self._directory, follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
            there.add(name)
            self._size += size
            if name not in self._in_use:
                self._ended.append((name, size))

    # Writing.

    def create(self, now: int, timestamp: int, number: str, content: bytes) -> tuple[File | None, str]:
        """A new file with that content; or why there is none."""
        why = self._room_for_one(now, len(content))
        if why:
            return None, why
        name = session.name(time.strftime("%Y%m%dT%H%M%S", time.gmtime(timestamp)), number)
        try:
            fd = os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._directory)
        except OSError:
            return None, "disk"
        self._beginnings.take(1)
        file = File(name, 0, fd)
        self._use(file)
        if not self.append(file, content):
            self.remove(file)
            return None, "disk"
        return file, ""

    def append(self, file: File, content: bytes) -> bool:
        """Write it, all of it or nothing. Whether there was room."""
        if not content:
            return True
        try:
            fd = self._descriptor(file)
            if file.torn:
                os.ftruncate(fd, file.size)
                file.torn = False
            written = os.write(fd, content)
            if written < len(content):
                file.torn = True
                os.ftruncate(fd, file.size)
                file.torn = False
                return False
        except OSError:
            # Whatever the reason, a disk that fails among them: it is not recorded.
            return False
        file.size += written
        self._size += written
        return True

    def mend(self, file: File, found: session.Summary) -> bool:
        """Make a whole line of a torn one at the end, or none. Whether there was room. Raises OSError."""
        made = cast.mended(found.torn)
        same = min(len(made), len(found.torn))
        while made[:same] != found.torn[:same]:
            same -= 1
        kept = found.whole + same
        os.ftruncate(self._descriptor(file), kept)
        self._size -= file.size - kept
        file.size = kept
        return self.append(file, made[same:])

    def is_gone(self, file: File) -> bool:
        """Whether somebody has removed it."""
        try:
            if file.fd >= 0:
                return os.fstat(file.fd).st_nlink == 0
            os.stat(file.name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return True
        except OSError:
            pass  # who knows
        return False

    def leave(self, file: File) -> None:
        """Have nothing to do with one that is gone."""
        self._release(file)
        self._size -= file.size

    def remove(self, file: File) -> None:
        """Remove a file. Raises OSError."""
        self.leave(file)
        os.unlink(file.name, dir_fd=self._directory)

    def finish(self, file: File) -> None:
        """Nothing more comes."""
        self._release(file)
        self._ended.append((file.name, file.size))

    def _release(self, file: File) -> None:
        self._in_use.discard(file.name)
        if file in self._open:
            del self._open[file]
        if file.fd >= 0:
            os.close(file.fd)
            file.fd = -1
