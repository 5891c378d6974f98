"""Where this kernel has the members of its structures, and by which numbers it knows its functions.

Its own type information tells (linux/btf.py), but walking that takes longer than a jail does to start. So whatever has
been looked up is kept, as long as the machine is up, in a file that only root can read. A file that is damaged, or
another kernel's, is as none, and one that cannot be written is done without.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

from jailng.core import index, registry
from jailng.linux import content

if TYPE_CHECKING:
    from jailng.linux.btf import Types

_FILE = f"{index.DIRECTORY}/offsets"


class Offsets:
    """By structure, member, and member of a member: ``offsets["tty_struct", "ctrl", "packet"]``, in bytes."""

    def __init__(self) -> None:
        self._known = _kept()
        self._new: dict[str, int] = {}
        self._types: Types | None = None

    def __getitem__(self, path: tuple[str, ...]) -> int:
        """Raises OSError: the kernel has no such member (ENOENT), or does not tell of its structures."""
        name = ".".join(path)
        if name not in self._known:
            self._add(name, self._read().offset(*path))
        return self._known[name]

    def function(self, name: str) -> int:
        """The number of a function, for ``tracing.load``. Raises OSError."""
        called = f"{name}()"
        if called not in self._known:
            self._add(called, self._read().function(name))
        return self._known[called]

    def _read(self) -> Types:
        if self._types is None:
            from jailng.linux.btf import Types

            self._types = Types()
        return self._types

    def _add(self, name: str, number: int) -> None:
        self._known[name] = self._new[name] = number

    def keep(self) -> None:
        """Spare whoever comes next to look for what this one had to."""
        if self._new:
            lines = [f"{name} {number}\n" for name, number in sorted({**_kept(), **self._new}.items())]
            body = "".join(lines).encode("ascii")
            with suppress(OSError):
                content.replace(_FILE, _head(body) + body, 0o600)
            self._new = {}


def _kept() -> dict[str, int]:
    try:
        head, end, body = content.read(_FILE).partition(b"\n")
        if head + end != _head(body):
            return {}
        pairs = [line.split() for line in body.decode("ascii").splitlines()]
        return {name: int(number) for name, number in pairs}
    except (OSError, ValueError):
        return {}


def _head(body: bytes) -> bytes:
    """The first line: of which kernel this is, and by what it is known to be whole."""
    return f"{registry.boot_id()} {os.uname().release} {zlib.crc32(body):08x}\n".encode()
