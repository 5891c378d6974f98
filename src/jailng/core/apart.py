"""Mounting apart: in a child that has a mount namespace of its own, of which one descriptor comes out."""

from __future__ import annotations

import posix

from jailng.core import registry
from jailng.errors import JailError, explain
from jailng.linux import child, mountfd, ns
from jailng.linux.libc import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MOST = 4096


def apart(work: Callable[[int], int]) -> int:
    """The descriptor of a detached mount that ``work`` returns in a child, whose mounts nobody else sees.

    ``work`` is given a descriptor on which a program may complain. Raises JailError with its first line, or else with
    what ``work`` raised.
    """
    told, tell = posix.pipe2(posix.O_CLOEXEC)
    stay, leave = posix.pipe2(posix.O_CLOEXEC)
    pid, pidfd = child.clone3()
    if pid == 0:
        posix.close(leave)
        _in_the_child(work, tell, stay)
    try:
        posix.close(tell)
        said = b""
        while len(said) < _MOST and not said.endswith(b"\0") and (more := posix.read(told, _MOST)):
            said += more
        if not said.endswith(b"\0"):
            raise JailError(said.decode("utf-8", "replace").strip().partition("\n")[0])
        return syscall("pidfd_getfd", pidfd, int(said[:-1].rpartition(b"\n")[2]), 0)
    finally:
        for fd in (told, stay, leave):
            posix.close(fd)
        posix.waitpid(pid, 0)
        posix.close(pidfd)


def _in_the_child(work: Callable[[int], int], tell: int, stay: int) -> None:
    try:
        registry.forked()  # mount(8) may wait for a server for ever, and this process with it, when its parent is dead
        ns.unshare(ns.CLONE_NEWNS)
        mountfd.make_private()
        posix.write(tell, b"\n%d\0" % work(tell))
        posix.read(stay, 1)  # until it has been fetched
    except BaseException as error:
        posix.write(tell, explain(error).encode("utf-8", "replace"))
    finally:
        posix._exit(0)
