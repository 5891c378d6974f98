"""A visit of this process to a namespace, and the way back: setns(2), namespaces(7)."""

from __future__ import annotations

import posix

from jailng.linux import ns

_NAMES = {ns.CLONE_NEWNET: "net", ns.CLONE_NEWIPC: "ipc", ns.CLONE_NEWNS: "mnt", ns.CLONE_NEWUTS: "uts"}


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
            ns.setns(self._here, self._kind)
        finally:
            posix.close(self._here)
