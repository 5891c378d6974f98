"""What this process is for a while, and the way back: in a namespace (setns(2)), of a uid (setresuid(2))."""

from __future__ import annotations

import posix

from jailng.linux import ns
from jailng.linux.libc import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NAMES = {ns.CLONE_NEWNET: "net", ns.CLONE_NEWIPC: "ipc", ns.CLONE_NEWNS: "mnt", ns.CLONE_NEWUTS: "uts"}


def _come_back(way: Callable[[], object]) -> None:
    """Go a way back, a second time if the first fails: who stays away can clear nothing away. Raises OSError."""
    try:
        way()
    except OSError:
        way()


class InNamespace:
    """``with InNamespace(fd, kind):`` in that namespace, or that of a pidfd's process, and back. Raises OSError.

    ``kind`` is CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS or CLONE_NEWNS; of the last, whoever is back is at the root of
    the namespace, not necessarily its own.
    """

    __slots__ = ("_fd", "_here", "_kind")

    def __init__(self, fd: int, kind: int) -> None:
        self._fd = fd
        self._kind = kind
        self._here = -1

    def __enter__(self) -> None:
        self._here = posix.open(f"/proc/self/ns/{_NAMES[self._kind]}", posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            ns.setns(self._fd, self._kind)
        except BaseException:
            posix.close(self._here)
            raise

    def __exit__(self, *_: object) -> None:
        try:
            _come_back(lambda: ns.setns(self._here, self._kind))
        finally:
            posix.close(self._here)


class AsUser:
    """``with AsUser(uid):`` of that effective uid, and of root's again. Raises OSError."""

    __slots__ = ("_uid",)

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def __enter__(self) -> None:
        syscall("setresuid", -1, self._uid, -1)

    def __exit__(self, *_: object) -> None:
        _come_back(lambda: syscall("setresuid", -1, 0, -1))
