"""What goes on to the guest's own syslogd, as if each sender had sent it there: with its pid, uid and gid.

It is asked by the address of its socket. Nothing here waits for it: what it does not take is kept for a while, and
counted when there is too much of that.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING

from jailng.linux import child, letting

if TYPE_CHECKING:
    from jailng.observe.datagram import Datagram

_CREDENTIALS = struct.Struct("=iii")
_MOST_LINES, _MOST_BYTES = 4096, 4 << 20
_TYPES = (socket.SOCK_DGRAM, socket.SOCK_STREAM)


class Guest:
    """The guest's syslogd, if it has one. ``lost`` counts what it did not take in time.

    ``owner`` is the jail's root as the host counts, by whose ids it is connected to: what the guest gives for its
    syslogd may be a socket of the host's that is mounted there, which knows by them whom it serves.
    """

    def __init__(self, owner: int = 0) -> None:
        self._owner = owner
        self.socket: socket.socket | None = None
        self.lost = 0
        self._waiting: deque[Datagram] = deque()
        self._bytes = 0
        self._unheard = 0  # too many to wait, for whom it is not known yet whether there is anybody

    @property
    def waits(self) -> bool:
        """Whether something is to be sent as soon as its socket can be written to."""
        return self.socket is not None and bool(self._waiting)

    def connect(self, address: int) -> bool:
        """Send to the socket that this descriptor (O_PATH) is of, from now on; whether somebody listens there."""
        self.leave()
        for kind in _TYPES:
            asked = socket.socket(socket.AF_UNIX, kind)
            asked.setblocking(False)
            try:
                with child.Guise(self._owner, connects=True):
                    asked.connect(f"/proc/self/fd/{address}")
            except OSError as error:
                asked.close()
                if error.errno == errno.EPROTOTYPE:
                    continue
                return False
            self.socket = asked
            self.lost += self._unheard
            self._unheard = 0
            return True
        return False

    def leave(self) -> None:
        """It is gone; what waits, waits for the next one."""
        if self.socket is not None:
            letting.go(self.socket.close)  # what it has sent here nobody has read
            self.socket = None

    def pass_on(self, datagram: Datagram) -> None:
        """Send it, after what waits already."""
        self._waiting.append(datagram)
        self._bytes += len(datagram.data)
        self.send()
        while len(self._waiting) > _MOST_LINES or self._bytes > _MOST_BYTES:
            self._forget()
            if self.socket is None:
                self._unheard += 1
            else:
                self.lost += 1

    def send(self) -> None:
        """Send what waits, as far as it is taken."""
        while self._waiting and self.socket is not None:
            try:
                self._send(self.socket, self._waiting[0])
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                    self.leave()
                    return
                self.lost += 1
            self._forget()

    def drop_waiting(self) -> None:
        """There is nobody to send it to, who could have lost any."""
        self._unheard = 0
        while self._waiting:
            self._forget()

    def _forget(self) -> None:
        self._bytes -= len(self._waiting.popleft().data)

    def _send(self, to: socket.socket, datagram: Datagram) -> None:
        data = datagram.data.rstrip(b"\0") + b"\0" if to.type == socket.SOCK_STREAM else datagram.data
        # A process that has ended has no pid any more, and the next best is none: the kernel shows this one's as 0.
        for pid in (datagram.pid, os.getpid()):
            identity = _CREDENTIALS.pack(pid, datagram.uid, datagram.gid)
            told = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, identity)]
            try:
                sent = to.sendmsg([data], told, socket.MSG_NOSIGNAL)
            except ProcessLookupError:
                continue
            if sent < len(data):
                raise ConnectionResetError  # half a line is in its way
            return
