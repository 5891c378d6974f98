"""What changes in directories: inotify(7)."""

from __future__ import annotations

import posix
from _struct import Struct

from jailng.linux.libc import syscall

IN_CREATE, IN_DELETE, IN_Q_OVERFLOW = 0x100, 0x200, 0x4000
_HEAD = Struct("=iIII")  # struct inotify_event: wd mask cookie len
_SIZE = 65536


class Watcher:
    """An instance; ``fd`` becomes readable when something has happened. Raises OSError."""

    __slots__ = ("fd",)

    def __init__(self) -> None:
        self.fd = syscall("inotify_init1", posix.O_NONBLOCK | posix.O_CLOEXEC)

    def add(self, path: str, mask: int) -> int:
        """Watch a directory; the number that its events bear. Raises OSError."""
        return syscall("inotify_add_watch", self.fd, path.encode("utf-8", "surrogateescape") + b"\0", mask)

    def read(self) -> tuple[list[tuple[int, str, int]], bool]:
        """What has happened since: number of the watch, name, mask; and whether the kernel had no room for more."""
        found: list[tuple[int, str, int]] = []
        overflown = False
        while True:
            try:
                content = posix.read(self.fd, _SIZE)
            except BlockingIOError:
                return found, overflown
            at = 0
            while at < len(content):
                watch, mask, _, length = _HEAD.unpack_from(content, at)
                at += _HEAD.size
                name = content[at : at + length].partition(b"\0")[0].decode("utf-8", "surrogateescape")
                at += length
                if mask & IN_Q_OVERFLOW:
                    overflown = True
                else:
                    found.append((watch, name, mask))

    def close(self) -> None:
        """Watch nothing any more."""
        posix.close(self.fd)
