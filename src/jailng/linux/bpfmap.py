"""Maps of eBPF programs: what a program and the processes outside of the kernel share. bpf(2)."""

from __future__ import annotations

import posix
from errno import ENOENT

from jailng.linux import bpf
from jailng.linux.libc import address, buffer, syscall, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.libc import Buffer

HASH = 1
ARRAY = 2
PERCPU_ARRAY = 6
LRU_HASH = 9
HASH_OF_MAPS = 13
RINGBUF = 27

NO_PREALLOC = 1  # memory for an entry is taken when there is one

ANY = 0
NOEXIST = 1

_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_GET_NEXT_KEY = range(5)


class Map:
    """A map, by the descriptor ``fd`` (close-on-exec), which this object does not close by itself."""

    __slots__ = ("fd", "key", "value")

    def __init__(self, fd: int, key: int, value: int) -> None:
        self.fd = fd
        self.key = key
        self.value = value

    def put(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """Set an entry; NOEXIST: only a new one. Raises OSError (EEXIST, E2BIG: full)."""
        asked, given = buffer(key), buffer(value)
        _call(_MAP_UPDATE, self.fd, address(asked), address(given), flags)

    def get(self, key: bytes, processors: int = 1) -> bytes | None:
        """An entry's value, None where there is none; of a PERCPU map, those of all ``processors``."""
        asked, found = buffer(key), buffer(self.value * processors)
        try:
            _call(_MAP_LOOKUP, self.fd, address(asked), address(found), 0)
        except OSError as error:
            if error.errno != ENOENT:
                raise
            return None
        return found.raw

    def drop(self, key: bytes) -> None:
        """Remove an entry, if there is one."""
        asked = buffer(key)
        try:
            _call(_MAP_DELETE, self.fd, address(asked), 0, 0)
        except OSError as error:
            if error.errno != ENOENT:
                raise

    def keys(self) -> list[bytes]:
        """The keys of all entries, as they were found one after the other."""
        found: list[bytes] = []
        last: Buffer | None = None
        following = buffer(self.key)
        while True:
            try:
                _call(_MAP_GET_NEXT_KEY, self.fd, address(last) if last else 0, address(following), 0)
            except OSError as error:
                if error.errno != ENOENT:
                    raise
                return found
            found.append(following.raw)
            last = buffer(following.raw)

    def number(self) -> int:
        """What the kernel calls the map as long as it lives, for ``numbered``. Raises OSError."""
        return bpf.number(self.fd)

    def close(self) -> None:
        """Let go of the map. It lives as long as somebody, a program among others, has it."""
        posix.close(self.fd)


def create(kind: int, key: int, value: int, most: int, inner: int = 0, flags: int = 0) -> Map:
    """A new map for ``most`` entries, keys and values of these sizes; ``inner``: the fd of one like those in it.

    ``flags``: NO_PREALLOC. Raises OSError.
    """
    # union bpf_attr, BPF_MAP_CREATE: map_type key_size value_size max_entries map_flags inner_map_fd numa_node name[16]
    attr = words(kind, key, value, most, flags, inner, 0, size=4) + bpf.NAME.ljust(16, b"\0")
    return Map(syscall("bpf", _MAP_CREATE, attr, len(attr)), key, -(-value // 8) * 8 if kind == PERCPU_ARRAY else value)


def numbered(number: int, key: int, value: int) -> Map:
    """The map that the kernel calls by that number, whoever holds it. Raises OSError (ENOENT: nobody does)."""
    return Map(bpf.numbered(bpf.MAP_GET_FD_BY_ID, number), key, value)


def _call(command: int, fd: int, key: int, value: int, flags: int) -> None:
    # union bpf_attr, BPF_MAP_*_ELEM: map_fd (and 4 bytes of nothing) key value flags
    attr = words(fd, 0, size=4) + words(key, value, flags)
    syscall("bpf", command, attr, len(attr))
