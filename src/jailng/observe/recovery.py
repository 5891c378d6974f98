"""What a log's last writer has left, where it was killed or the files were tampered with, and where to go on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jailng.observe import entry, ratchet

if TYPE_CHECKING:
    from jailng.observe.seal import State


class Recovery:
    """Takes the state on over what was written after it, as far as that is the chain's.

    ``unsealed`` is how many entries that are, ``half`` how many bytes of an unfinished line follow. ``damage`` says
    what is wrong with what is there, "" for nothing; then the last file is to be left as it is.
    """

    def __init__(self, folder: int, state: State) -> None:
        self.unsealed = 0
        self.half = 0
        self.damage = ""
        self._folder = folder
        self._state = state

    def run(self) -> None:
        """Look. Raises OSError."""
        self.damage = self._check_last()
        while not self.damage and self._take_over():
            pass

    def _goes_on(self, later: list[int]) -> bool:
        """Whether the next file, which the seal does not know of yet, is the chain's; one with no entry goes."""
        state = self._state
        name = entry.file_name(later[0])
        data = self._read(later[0], 0)
        if b"\n" not in data and len(later) == 1:
            os.unlink(name, dir_fd=self._folder)
            return True
        key = ratchet.first_of(state.later)
        line = entry.Line(data.partition(b"\n")[0])
        if not line.is_by(key) or line.prev != state.prev or line.number != state.seq:
            return False
        state.epoch, state.offset = later[0], 0
        state.key, state.later = key, ratchet.later_epoch(state.later, 1)
        first = entry.fields(data.partition(b"\n")[0]).get("first")
        state.first = first if isinstance(first, int) else state.first
        return True

    def _check_last(self) -> str:
        """What is wrong with the file as far as the seal knows it."""
        state = self._state
        if not state.offset:
            return ""  # nothing was written yet
        name = entry.file_name(state.epoch)
        try:
            fd = entry.opened(name, self._folder)
        except FileNotFoundError:
            return f"{name} is missing"
        except entry.NoFile:
            return f"{name} is no file"
        try:
            size = os.fstat(fd).st_size
            if size < state.offset:
                return f"{name} has been cut: {size} bytes of {state.offset}"
            last = entry.line_before(fd, state.offset)
        finally:
            os.close(fd)
        return "" if last is not None and entry.digest(last) == state.prev else f"{name} has been altered"

    def _take_over(self) -> bool:
        """Take over the entries of the file that come after the state, and whether another file follows."""
        state = self._state
        *lines, rest = self._read(state.epoch, state.offset).split(b"\n")
        for text in lines:
            line = entry.Line(text)
            if not line.is_by(state.key) or line.prev != state.prev or line.number != state.seq:
                self.damage = f"{entry.file_name(state.epoch)} goes on with what is not the chain's"
                return False
            state.seq += 1
            state.offset += len(text) + 1
            state.prev = entry.digest(text)
            state.key = ratchet.after(state.key)
            self.unsealed += 1
        later = [epoch for epoch in entry.epochs(self._folder) if epoch > state.epoch]
        if not later:
            self.half = len(rest)
        elif later[0] != state.epoch + 1 or rest or not self._goes_on(later):
            self.damage = f"{entry.file_name(later[0])} does not continue the chain"
        return bool(later)

    def _read(self, epoch: int, offset: int) -> bytes:
        try:
            fd = entry.opened(entry.file_name(epoch), self._folder)
        except FileNotFoundError:
            return b""
        except entry.NoFile:
            return b"\n"  # no entry
        with open(fd, "rb") as file:
            file.seek(offset)
            return file.read()
