"""Reading a log, entry by entry, while it is written to: from the first that is there, or from where one was before."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    """The lines of the log in a directory. Raises OSError: there is none."""

    def __init__(self, directory: Path, start: Position | None = None) -> None:
        self.position = start or Position(0, 0)
        self._folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Read no more."""
        os.close(self._folder)

    def lines(self) -> Iterator[bytes]:
        """Those that are there and have not been read yet, newlines not among them. ``position`` is behind each."""
        while True:
            yield from self._rest()
            later = [epoch for epoch in entry.epochs(self._folder) if epoch > self.position.epoch]
            if not later:
                return
            yield from self._rest()  # it was written to until the next one was begun
            self.position = Position(later[0], 0)

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
