"""Datagrams of a log socket, with what the kernel says of who has sent each, and what they say themselves.

They are looked at before they are taken, so that one that was looked at by a process that was killed then is still
there. The kernel's time stamp tells it from another.
"""

from __future__ import annotations

import base64
import re
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING

from jailng.linux import letting

if TYPE_CHECKING:
    from jailng.observe.chain import Fields

_SO_TIMESTAMPNS = 35
_SO_PEEK_OFF = 42
_STAMP = struct.Struct("=qq")
_CREDENTIALS = struct.Struct("=iii")
# Room for both, and for no descriptor: those that come along the kernel closes, as this process.
_ANCILLARY = socket.CMSG_SPACE(_STAMP.size) + socket.CMSG_SPACE(_CREDENTIALS.size)
_LARGEST = 1 << 19  # bytes of a datagram
_LONGEST = 1 << 16  # bytes of it that are kept
_SECOND = 10**9
FACILITIES = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp audit alert clock "
    "local0 local1 local2 local3 local4 local5 local6 local7"
).split()
SEVERITIES = "emerg alert crit err warning notice info debug".split()
_PRIORITY = re.compile(rb"<(\d{1,3})>")
_CLAIMED_TIME = re.compile(rb"[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d ")


class Datagram:
    """``pid``, ``uid`` and ``gid`` are the sender's as the host counts them, ``stamp`` when: nanoseconds since 1970."""

    __slots__ = ("data", "gid", "pid", "stamp", "uid")

    def __init__(self, data: bytes, stamp: int, pid: int, uid: int, gid: int) -> None:
        self.data = data
        self.stamp = stamp
        self.pid = pid
        self.uid = uid
        self.gid = gid

    def fields(self) -> Fields:
        """What it says, for the chain: of a syslog(3) line its facility, severity, and the time that it claims."""
        data = self.data.rstrip(b"\n\0")
        said: Fields = {}
        priority = _PRIORITY.match(data)
        if priority is not None:
            facility, severity = divmod(int(priority[1]), 8)
            said["facility"] = FACILITIES[facility] if facility < len(FACILITIES) else str(facility)
            said["severity"] = SEVERITIES[severity]
            data = data[priority.end() :]
        claimed = _CLAIMED_TIME.match(data)
        if claimed is not None:
            said["claimed_time"] = claimed[0].decode("ascii").rstrip()
            data = data[claimed.end() :]
        if len(data) > _LONGEST:
            said["cut"] = len(data) - _LONGEST
            data = data[:_LONGEST]
        try:
            said["message"] = data.decode()
        except UnicodeDecodeError:
            said["message"] = data.decode("utf-8", "backslashreplace")
            said["base64"] = base64.b64encode(data).decode("ascii")
        return said


class Receiver:
    """A socket that is bound, from its other side's point of view a log's. Never blocks."""

    def __init__(self, bound: socket.socket) -> None:
        self.socket = bound
        self._buffer = bytearray(_LARGEST)
        self._with_more: deque[bool] = deque()  # of those that have been looked at: whether descriptors are beside it
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        bound.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        bound.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, 0)

    def look(self) -> Datagram | None:
        """The next one that has not been looked at, which stays where it is; None where there is none."""
        try:
            length, ancillary, flags, _ = self.socket.recvmsg_into([self._buffer], _ANCILLARY, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        self._with_more.append(bool(flags & socket.MSG_CTRUNC))
        stamp, pid, uid, gid = 0, 0, -1, -1
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(content) == _STAMP.size:
                seconds, rest = _STAMP.unpack(content)
                stamp = seconds * _SECOND + rest
            elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS and len(content) == _CREDENTIALS.size:
                pid, uid, gid = _CREDENTIALS.unpack(content)
        return Datagram(bytes(self._buffer[:length]), stamp, pid, uid, gid)

    def take(self, count: int) -> None:
        """Have the kernel forget so many of those that have been looked at."""
        for _ in range(count):
            if self._with_more.popleft():
                letting.go(lambda: self.socket.recv(1))
            else:
                self.socket.recv(1)

    def retire(self) -> None:
        """Take no more: whoever sends to it hears that it is gone (EPIPE). What is there can still be looked at."""
        self.socket.shutdown(socket.SHUT_RD)
