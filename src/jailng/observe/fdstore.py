"""Descriptors that outlive the process that has made them: in flight between two sockets that another process holds.

The supervisor of a post makes the store and never looks at it; a worker puts descriptors in, and the next one takes
copies out. What is put in replaces what was there.
"""

from __future__ import annotations

import os
import socket

from jailng.core import wire

_SO_PEEK_OFF = 42
_MOST = 8  # descriptors
_NUMBER = 4


class Store:
    """To be made before the fork. Raises OSError."""

    def __init__(self) -> None:
        self._in, self._out = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._in.setblocking(False)
        self._out.setblocking(False)
        self._waiting = 0

    def put(self, fds: list[int]) -> None:
        """Keep these, and let go of those that were there before."""
        self._in.sendmsg([b"\0"], wire.beside(*fds))
        for _ in range(self._waiting):
            self._close(self._receive(0))
        self._waiting = 1

    def get(self) -> list[int]:
        """Copies of those that are there; none where nothing was put in. Once in a process, before any ``put``."""
        found: list[int] = []
        self._waiting = 0
        self._out.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, 0)
        while True:
            try:
                next_ones = self._receive(socket.MSG_PEEK)
            except BlockingIOError:
                break
            self._waiting += 1  # two, if whoever put the last one in was killed at once
            self._close(found)
            found = next_ones
        self._out.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, -1)
        return found

    def close(self) -> None:
        """Keep nothing any more."""
        self._in.close()
        self._out.close()

    def _receive(self, flags: int) -> list[int]:
        _, controls, _, _ = self._out.recvmsg(1, socket.CMSG_LEN(_MOST * _NUMBER), flags)
        fds = wire.received(controls)
        for fd in fds:
            os.set_inheritable(fd, False)
        return fds

    @staticmethod
    def _close(fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
