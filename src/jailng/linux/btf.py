"""Where the members of the kernel's structures lie, from the type information that it carries: BTF.

The kernel's documentation, bpf/btf.rst, has the format. There are some 100,000 types, each of its own length, so that
walking them takes longer than a jail does to start. A structure is found by its name instead: a word that is the
place of the name among the strings, followed by one that says "structure". Only what has to be found by its number (a
member's own structure, a function) costs the walk.
"""

from __future__ import annotations

import posix
import sys
from _struct import Struct
from errno import ENOENT, ENOEXEC

VMLINUX = "/sys/kernel/btf/vmlinux"
_MAGIC = 0xEB9F
_INT, _ARRAY, _STRUCT, _UNION, _FUNC, _FUNC_PROTO = 1, 3, 4, 5, 12, 13
_ALIASES = (8, 9, 10, 11, 18)  # typedef, volatile, const, restrict, type tag: what a type is called besides
# Bytes after the three words that every type begins with: always, and for each of its members.
_MORE = {
    _INT: (4, 0),
    _ARRAY: (12, 0),
    _STRUCT: (0, 12),
    _UNION: (0, 12),
    6: (0, 8),  # enum
    _FUNC_PROTO: (0, 8),
    14: (4, 0),  # variable
    15: (0, 12),  # section
    17: (4, 0),  # declaration's tag
    19: (0, 12),  # enum of 64 bits
}
_ORDER = "<" if sys.byteorder == "little" else ">"
_WORDS = Struct(f"{_ORDER}3I")
_HEAD = Struct(f"{_ORDER}HBB5I")


class Types:
    """The types of a kernel. Raises OSError: there is no such file, or it has another format (ENOEXEC)."""

    __slots__ = ("_content", "_found", "_places", "_strings", "_types", "path")

    def __init__(self, path: str = VMLINUX) -> None:
        self.path = path
        content = _whole(path)
        if len(content) < _HEAD.size or _HEAD.unpack_from(content)[0] != _MAGIC:
            raise OSError(ENOEXEC, posix.strerror(ENOEXEC), path)
        _, _, _, head, at, size, strings, length = _HEAD.unpack_from(content)
        self._content = content
        self._types = (head + at, head + at + size)
        self._strings = content[head + strings : head + strings + length]
        self._places: list[int] = []
        self._found: dict[tuple[str, int], list[int]] = {}

    def offset(self, structure: str, *members: str) -> int:
        """Bytes from the beginning of ``structure`` to a member, or a member of a member that is a structure.

        What lies in members without a name is found as in C. Raises OSError (ENOENT) where there is none.
        """
        for place in self._named(structure, _STRUCT):
            found = self._path(place, members)
            if found is not None:
                return found
        raise OSError(ENOENT, "the kernel has no such member", f"struct {structure}: {'.'.join(members)}")

    def size(self, structure: str) -> int:
        """The structure's size in bytes. Raises OSError (ENOENT)."""
        for place in self._named(structure, _STRUCT):
            return self._words(place)[2]
        raise OSError(ENOENT, "the kernel has no such type", f"struct {structure}")

    def function(self, name: str) -> int:
        """The number of a function, for ``bpf.load``. Raises OSError (ENOENT)."""
        for place in self._named(name, _FUNC):
            return self._all().index(place)
        raise OSError(ENOENT, "the kernel has no such function", name)

    def _path(self, place: int, members: tuple[str, ...]) -> int | None:
        found = self._member(place, members[0].encode())
        if found is None or len(members) == 1:
            return found and found[0]
        inner = self._path(self._structure(found[1]), members[1:])
        return None if inner is None else found[0] + inner

    def _member(self, place: int, name: bytes) -> tuple[int, int] | None:
        """A member's offset in bytes and the number of its type."""
        _, info, _ = self._words(place)
        inner = []
        for number in range(info & 0xFFFF):
            name_at, kind, bits = self._words(place + 12 + 12 * number)
            at = (bits & 0xFFFFFF if info >> 31 else bits) // 8
            if name_at == 0:
                inner.append((at, kind))
            elif self._strings.startswith(name + b"\0", name_at):
                return at, kind
        for at, kind in inner:
            structure = self._structure(kind)
            found = self._member(structure, name) if structure else None
            if found is not None:
                return at + found[0], found[1]
        return None

    def _structure(self, number: int) -> int:
        """Where the structure or union of that number lies, its other names aside; 0: it is none."""
        while True:
            place = self._all()[number]
            _, info, rest = self._words(place)
            kind = info >> 24 & 31
            if kind not in _ALIASES:
                return place if kind in (_STRUCT, _UNION) else 0
            number = rest

    def _named(self, name: str, kind: int) -> list[int]:
        """Where the types of that name and kind lie."""
        if (name, kind) in self._found:
            return self._found[name, kind]
        begin, end = self._types
        found = self._found[name, kind] = []
        for at in _all_of(self._strings, b"\0%s\0" % name.encode(), 0, len(self._strings)):
            word = (at + 1).to_bytes(4, sys.byteorder)
            for place in _all_of(self._content, word, begin, end):
                if (place - begin) % 4 == 0 and place + 12 <= end:
                    info = self._words(place)[1]
                    if info >> 24 & 31 == kind and (kind == _FUNC or info & 0xFFFF):
                        found.append(place)
        return found

    def _all(self) -> list[int]:
        """Where each type lies, by its number; the walk."""
        if not self._places:
            content, (at, end), words, more = self._content, self._types, _WORDS.unpack_from, _MORE.get
            places = [0]
            while at < end:
                places.append(at)
                info = words(content, at)[1]
                always, each = more(info >> 24 & 31, (0, 0))
                at += 12 + always + each * (info & 0xFFFF)
            self._places = places
        return self._places

    def _words(self, place: int) -> tuple[int, int, int]:
        return _WORDS.unpack_from(self._content, place)


def _all_of(content: bytes, word: bytes, begin: int, end: int) -> list[int]:
    found = []
    at = content.find(word, begin, end)
    while at >= 0:
        found.append(at)
        at = content.find(word, at + 1, end)
    return found


def _whole(path: str) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        parts = []
        while part := posix.read(fd, 1 << 24):
            parts.append(part)
        return b"".join(parts)
    finally:
        posix.close(fd)
