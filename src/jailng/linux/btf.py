"""Where the members of the kernel's structures lie, from the type information that it carries: BTF.

The kernel's documentation, bpf/btf.rst, has the format. There are some 100,000 types, each of its own length, so they
are walked once, from the first to the last: that takes longer than a jail does to start (observe/offsets.py keeps what
was found). Each string is there once, so that a name is known by its place among them.
"""

from __future__ import annotations

import posix
from _struct import Struct
from errno import ENOENT, ENOEXEC

from jailng.linux import content

VMLINUX = "/sys/kernel/btf/vmlinux"
_MAGIC = 0xEB9F
_STRUCT, _UNION, _FUNC = 4, 5, 12
_ALIASES = (8, 9, 10, 11, 18)  # typedef, volatile, const, restrict, type tag: what a type is called besides
# Words of 32 bits after the three that every type begins with, by its kind: always, and for each of its members.
_ALWAYS = {1: 1, 3: 3, 14: 1, 17: 1}  # int, array, variable, declaration's tag
_EACH = {_STRUCT: 3, _UNION: 3, 6: 2, 13: 2, 15: 3, 19: 3}  # enum, a function's prototype, section, enum of 64 bits
_HEAD = Struct("=HBB5I")  # in the order of the kernel's machine, as all of it


class Types:
    """The types of a kernel. Raises OSError: there is no such file, or it has another format (ENOEXEC)."""

    __slots__ = ("_functions", "_places", "_strings", "_structures", "_words", "path")

    def __init__(self, path: str = VMLINUX) -> None:
        self.path = path
        whole = content.read(path)
        if len(whole) < _HEAD.size or _HEAD.unpack_from(whole)[0] != _MAGIC:
            raise OSError(ENOEXEC, posix.strerror(ENOEXEC), path)
        _, _, _, head, at, size, strings, length = _HEAD.unpack_from(whole)
        self._strings = whole[head + strings : head + strings + length]
        self._words = memoryview(whole)[head + at : head + at + size].cast("I")
        self._places = [0]  # where each type lies, by its number
        self._structures: dict[int, list[int]] = {}  # where those lie that have members, by their name
        self._functions: dict[int, int] = {}  # the numbers of functions
        self._walk()

    def _walk(self) -> None:
        words, places, structures, functions = self._words, self._places, self._structures, self._functions
        lengths = [(3 + _ALWAYS.get(kind, 0), _EACH.get(kind, 0)) for kind in range(32)]
        at, end = 0, len(words)
        while at < end:
            info = words[at + 1]
            kind = info >> 24 & 31
            if kind == _FUNC:
                functions[words[at]] = len(places)
            elif kind == _STRUCT and info & 0xFFFF:
                structures.setdefault(words[at], []).append(at)
            places.append(at)
            always, each = lengths[kind]
            at += always + each * (info & 0xFFFF) if each else always

    def offset(self, structure: str, *members: str) -> int:
        """Bytes from the beginning of ``structure`` to a member, or a member of a member that is a structure.

        What lies in members without a name is found as in C. Raises OSError (ENOENT) where there is none.
        """
        for place in self._structures.get(self._name(structure), ()):
            found = self._path(place, members)
            if found is not None:
                return found
        raise OSError(ENOENT, "the kernel has no such member", f"struct {structure}: {'.'.join(members)}")

    def function(self, name: str) -> int:
        """The number of a function, for ``bpf.load``. Raises OSError (ENOENT)."""
        number = self._functions.get(self._name(name))
        if number is None:
            raise OSError(ENOENT, "the kernel has no such function", name)
        return number

    def _name(self, name: str) -> int:
        """Where a name is among the strings; -1: it is none of them."""
        return self._strings.find(b"\0%s\0" % name.encode()) + 1 or -1

    def _path(self, place: int, members: tuple[str, ...]) -> int | None:
        found = self._member(place, members[0].encode())
        if found is None or len(members) == 1:
            return found and found[0]
        structure = self._structure(found[1])
        inner = None if structure is None else self._path(structure, members[1:])
        return None if inner is None else found[0] + inner

    def _member(self, place: int, name: bytes) -> tuple[int, int] | None:
        """A member's offset in bytes and the number of its type."""
        info = self._words[place + 1]
        inner = []
        for at in range(place + 3, place + 3 + 3 * (info & 0xFFFF), 3):
            name_at, kind, bits = self._words[at : at + 3]
            offset = (bits & 0xFFFFFF if info >> 31 else bits) // 8
            if name_at == 0:
                inner.append((offset, kind))
            elif self._strings.startswith(name + b"\0", name_at):
                return offset, kind
        for offset, kind in inner:
            structure = self._structure(kind)
            found = None if structure is None else self._member(structure, name)
            if found is not None:
                return offset + found[0], found[1]
        return None

    def _structure(self, number: int) -> int | None:
        """Where the structure or union of that number lies, its other names aside; None: it is none."""
        while number:  # 0 is void
            place = self._places[number]
            kind = self._words[place + 1] >> 24 & 31
            if kind not in _ALIASES:
                return place if kind in (_STRUCT, _UNION) else None
            number = self._words[place + 2]
        return None
