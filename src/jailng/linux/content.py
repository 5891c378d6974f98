"""All that a file of /proc or /sys tells, whose size nobody knows before it is read."""

from __future__ import annotations

import posix

_AT_ONCE = 1 << 16


def read(path: str) -> bytes:
    """The content of a file. Raises OSError."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    content = b""
    try:
        while part := posix.read(fd, _AT_ONCE):
            content += part
    finally:
        posix.close(fd)
    return content


def text(path: str) -> str:
    """The same as text, in which what is no UTF-8 stands as surrogates. Raises OSError."""
    return read(path).decode("utf-8", "surrogateescape")
