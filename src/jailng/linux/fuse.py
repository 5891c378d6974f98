"""FUSE connections, as fusectl shows them: Documentation/filesystems/fuse/fuse.rst."""

from __future__ import annotations

import posix

from jailng.linux.libc import ENODEV
from jailng.linux.mountfd import new_file_system

_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC


def abort(uids: range) -> None:
    """End every connection that was mounted with a ``user_id`` of these, as the host counts them.

    Whoever waits for an answer of its server gets ENOTCONN. A process that is killed while it closes a file of one
    waits for the server, and not even SIGKILL ends it if it is itself what holds /dev/fuse open. Raises OSError.
    """
    try:
        control = new_file_system(b"fusectl", [])
    except OSError as error:
        if error.errno == ENODEV:  # a kernel without FUSE, or whose module nobody has asked for
            return
        raise
    try:
        directory = posix.open(".", _DIRECTORY, dir_fd=control)
        try:
            for name in posix.listdir(directory):
                _abort_if_of(directory, name, uids)
        finally:
            posix.close(directory)
    finally:
        posix.close(control)


def _abort_if_of(directory: int, name: str, uids: range) -> None:
    try:
        if posix.stat(name, dir_fd=directory).st_uid not in uids:
            return
        fd = posix.open(f"{name}/abort", posix.O_WRONLY | posix.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:  # it has ended meanwhile
        return
    try:
        posix.write(fd, b"1")
    finally:
        posix.close(fd)
