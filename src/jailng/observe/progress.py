"""How far one process has got, for the one that goes on when it is killed."""

from __future__ import annotations

import json
import mmap
import struct

_SLOT = 1 << 15
_LENGTH = struct.Struct("=I")


class Progress:
    """A note that one process leaves in memory for another, whole whenever that process dies."""

    __slots__ = ("_memory",)

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 3 * _SLOT)

    def note(self, words: object) -> None:
        """Leave a note in place of the last one."""
        text = json.dumps(words).encode()
        other = self._memory[0] % 2 + 1
        at = other * _SLOT
        _LENGTH.pack_into(self._memory, at, len(text))
        self._memory[at + 4 : at + 4 + len(text)] = text
        self._memory[0] = other

    def noted(self) -> list[object] | None:
        """The last note, if there is any."""
        if not self._memory[0]:
            return None
        at = self._memory[0] * _SLOT
        size = _LENGTH.unpack_from(self._memory, at)[0]
        return list(json.loads(self._memory[at + 4 : at + 4 + size]))
