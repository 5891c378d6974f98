"""All that is in a file: of one of /proc or /sys nobody knows the size before it is read."""

from __future__ import annotations

import posix

_AT_ONCE = 1 << 16
_NAMELESS = posix.O_TMPFILE | posix.O_WRONLY | posix.O_CLOEXEC


def read(path: str, directory: int | None = None) -> bytes:
    """The content of a file; a path that is not absolute is one in the ``directory``, a descriptor. Raises OSError."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=directory)
    parts = []
    try:
        while part := posix.read(fd, _AT_ONCE):
            parts.append(part)
    finally:
        posix.close(fd)
    return b"".join(parts)


def text(path: str, directory: int | None = None) -> str:
    """The same as text, in which what is no UTF-8 stands as surrogates. Raises OSError."""
    return read(path, directory).decode("utf-8", "surrogateescape")


def field(status: bytes, name: bytes) -> bytes:
    """What stands on the line of that name in a text like /proc/PID/status, whose first line is another's; b"": none.

    A name of a process has no newline there, whatever it is called (proc(5)).
    """
    return status.partition(b"\n%s:" % name)[2].partition(b"\n")[0].strip()


def replace(path: str, made: bytes, mode: int) -> None:
    """Make a file that is whole or not there, whenever this is killed; what is there goes. Raises OSError.

    Of two that do so at once one may lose.
    """
    file = posix.open(path.rpartition("/")[0], _NAMELESS, mode)
    try:
        while made:  # a file system that is about to be full takes a part
            made = made[posix.write(file, made) :]
        try:
            posix.unlink(path)
        except FileNotFoundError:
            pass
        posix.link(f"/proc/self/fd/{file}", path, src_dir_fd=file)  # linkat(2), else the link is not followed
    except FileExistsError:
        pass  # another process was as fast
    finally:
        posix.close(file)
