"""inotify(7): being told that something has changed in a directory, or a file."""

from __future__ import annotations

import posix
from _struct import Struct

from jailng.linux.libc import syscall

IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_Q_OVERFLOW = 0x2, 0x40, 0x80, 0x100, 0x200, 0x4000
IN_NAMES = IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
_HEAD = Struct("=iIII")  # struct inotify_event: wd mask cookie len
_SIZE = 65536


class Watcher:
    """An instance; ``fd`` becomes readable when something has happened. Raises OSError."""

    __slots__ = ("fd",)

    def __init__(self) -> None:
        self.fd = syscall("inotify_init1", posix.O_NONBLOCK | posix.O_CLOEXEC)

    def add(self, path: str, mask: int) -> int:
        """Watch that, which may be the path of a descriptor; the number that its events bear. Raises OSError."""
        place = path.encode("utf-8", "surrogateescape")
        return syscall("inotify_add_watch", self.fd, place + b"\0", mask, path=place)

    def clear(self) -> None:
        """Forget what has happened so far: the caller looks for itself."""
        try:
            while posix.read(self.fd, _SIZE):
                pass
        except BlockingIOError:
            pass

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
