"""inotify(7): being told that something has changed in a directory. What it was is for the caller to look at."""

from __future__ import annotations

import os

from jailng.linux.libc import syscall

MODIFY, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x40, 0x80, 0x100, 0x200
NAMES = MOVED_FROM | MOVED_TO | CREATE | DELETE
_BYTES = 1 << 16


class Watch:
    """``fd`` can be read from when something has changed. Raises OSError."""

    def __init__(self) -> None:
        self.fd = syscall("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)

    def add(self, path: str, mask: int) -> None:
        """Watch a directory or a file, by a path that may be that of a descriptor."""
        syscall("inotify_add_watch", self.fd, path.encode(), mask, path=path.encode())

    def clear(self) -> None:
        """Forget what it has told so far."""
        try:
            while os.read(self.fd, _BYTES):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Watch no more."""
        os.close(self.fd)
