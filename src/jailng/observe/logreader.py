"""Reading a log, entry by entry, while it is written to: from the first that is there, or from where one was before."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jailng.linux import inotify
from jailng.observe import entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STEP = 1 << 20  # bytes at once


@dataclass(frozen=True)
class Position:
    """Behind a line: the epoch of its file, and the bytes of that up to there."""

    epoch: int
    offset: int


class Reader:
    """The lines of the log in a directory, or in another that has its name since somebody has removed it.

    Raises OSError: there is none.
    """

    def __init__(self, directory: Path, start: Position | None = None) -> None:
        self.position = start or Position(0, 0)
        self._directory = directory
        self._changes: inotify.Watcher | None = None
        self._folder = self._opened()

    def _opened(self) -> int:
        return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def changes(self) -> int:
        """A descriptor that can be read from when there may be more ``lines``, which are to be asked for then."""
        if self._changes is None:
            self._changes = inotify.Watcher()
            self._watch(self._changes)
        return self._changes.fd

    def _watch(self, changes: inotify.Watcher) -> None:
        changes.add(str(self._directory), inotify.IN_CREATE | inotify.IN_MODIFY)
        changes.add(str(self._directory.parent), inotify.IN_DELETE)  # of a directory that is open it is not told itself

    @property
    def removed(self) -> bool:
        """Whether somebody has removed the directory. When there is another nothing tells."""
        return os.fstat(self._folder).st_nlink == 0

    def close(self) -> None:
        """Read no more."""
        os.close(self._folder)
        if self._changes is not None:
            self._changes.close()

    def lines(self) -> Iterator[bytes]:
        """Those that are there and have not been read yet, newlines not among them. ``position`` is behind each."""
        if self._changes is not None:
            self._changes.clear()
        if self.removed:
            self._go_on_elsewhere()
        later: list[int] = []  # the next one last
        while True:
            yield from self._rest()
            later = later or [epoch for epoch in entry.epochs(self._folder) if epoch > self.position.epoch][::-1]
            if not later:
                return
            yield from self._rest()  # it was written to until the next one was begun
            self.position = Position(later.pop(), 0)

    def _go_on_elsewhere(self) -> None:
        with suppress(FileNotFoundError):
            before, self._folder = self._folder, self._opened()
            os.close(before)
            if self._changes is not None:
                self._watch(self._changes)

    def _rest(self) -> Iterator[bytes]:
        try:
            fd = entry.opened(entry.file_name(self.position.epoch), self._folder)
        except (FileNotFoundError, entry.NoFile):
            return
        with open(fd, "rb") as file:
            file.seek(self.position.offset)
            rest = b""
            while data := file.read(_STEP):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self.position = Position(self.position.epoch, self.position.offset + len(line) + 1)
                    yield line
