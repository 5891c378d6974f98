"""netlink(7) made by hand: messages, one system call for many of them, and the kernel's answers.

pyroute2 costs 130 ms to import and five times as much for each jail. Numbers are those of the kernel's uapi headers,
in the machine's byte order; rtnetlink.py and nftables.py know what the messages mean.
"""

from __future__ import annotations

import _socket
import posix
from _struct import pack, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    # What is to be done (RTM_NEWLINK), with which NLM_F_ flags, and the body: a family header and attributes.
    Message = tuple[int, int, bytes]

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 1
NLM_F_ACK = 4
NLM_F_DUMP_INTR = 0x10
NLM_F_REPLACE = 0x100
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

NLMSG_ERROR = 2
NLMSG_DONE = 3

NLA_F_NESTED = 0x8000

_SOL_NETLINK = 270
_SO_SNDBUFFORCE = 32
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
_HEADER = 16
# nfnetlink's brackets around a transaction: struct nfgenmsg with the subsystem (10, nf_tables) in network order.
_BATCH_BEGIN = (0x10, 0, b"\0\0\0\x0a")
_BATCH_END = (0x11, 0, b"\0\0\0\x0a")
_EAGAIN = 11
_ENOBUFS = 105
_EMSGSIZE = 90


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute: length, kind, payload, padded to four bytes. Raises struct.error above 65,531 bytes."""
    return pack("HH", len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def number(kind: int, value: int) -> bytes:
    """An attribute that holds an unsigned number of 32 bits."""
    return pack("HHI", 8, kind, value)


def string(kind: int, value: str) -> bytes:
    """An attribute that holds a name, with the NUL that the kernel expects."""
    return attribute(kind, value.encode("utf-8", "surrogateescape") + b"\0")


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes of ``data`` from ``offset`` on, by kind (without the nested mark); of equals the last.

    Raises ValueError where a length points outside.
    """
    found = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = unpack_from("HH", data, offset)
        if length < 4 or offset + length > end:
            raise ValueError("netlink attribute with a wrong length")
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def encode(messages: list[Message], sequence: int, acknowledged: int = -1) -> bytes:
    """The messages as one datagram of requests, numbered from ``sequence``; the kernel acknowledges one of them."""
    parts = []
    for place, (kind, flags, body) in enumerate(messages):
        flags |= NLM_F_REQUEST | (NLM_F_ACK if place == acknowledged else 0)
        parts.append(pack("IHHII", _HEADER + len(body), kind, flags, sequence + place, 0))
        parts.append(body)
        parts.append(bytes(-len(body) % 4))
    return b"".join(parts)


def decode(datagram: bytes) -> list[tuple[int, int, int, bytes]]:
    """The messages of a datagram: type, flags, sequence, body. Raises ValueError where a length points outside."""
    messages = []
    offset = 0
    end = len(datagram)
    while offset + _HEADER <= end:
        length, kind, flags, sequence = unpack_from("IHHI", datagram, offset)
        if length < _HEADER or offset + length > end:
            raise ValueError("netlink message with a wrong length")
        messages.append((kind, flags, sequence, datagram[offset + _HEADER : offset + length]))
        offset += (length + 3) & ~3
    return messages


def failure(flags: int, body: bytes) -> OSError | None:
    """The error that an NLMSG_ERROR carries (with the kernel's own words behind it), or None: an acknowledgement."""
    code: int = -unpack_from("i", body)[0]
    if code == 0:
        return None
    text = posix.strerror(code)
    if flags & _NLM_F_ACK_TLVS:
        # The request stands between the error and the words: whole, or its header only where the socket asked for that.
        skipped = _HEADER if flags & _NLM_F_CAPPED else unpack_from("I", body, 4)[0]
        words = attributes(body, 4 + ((skipped + 3) & ~3)).get(_NLMSGERR_ATTR_MSG)
        if words:
            text = f"{text} ({words.rstrip(bytes(1)).decode(errors='replace')})"
    return OSError(code, text)


class Netlink:
    """A netlink socket in the network namespace that it was opened in, wherever the process goes later."""

    __slots__ = ("_sequence", "_socket")

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        """Raises OSError (EPROTONOSUPPORT: this kernel has no such family)."""
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, protocol)
        self._sequence = 0
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def __del__(self) -> None:
        # One that is merely let go is closed without a warning; __init__ may have failed before there was any.
        if hasattr(self, "_socket"):
            self._socket.close()

    def batch(self, messages: list[Message], ignored: tuple[int, ...] = ()) -> None:
        """Have all of it done, in order, by one system call.

        Raises OSError for the first that failed, but for the ``ignored`` errors. The kernel has then tried those
        behind it as well: undo, or let the namespace die.
        """
        first = self._send(messages, len(messages) - 1)
        self._acknowledged(first, first + len(messages) - 1, ignored)

    def transaction(self, messages: list[Message]) -> None:
        """Have all of it done or nothing, by one system call: nf_tables only. Raises OSError for what failed first."""
        first = self._send([_BATCH_BEGIN, *messages, _BATCH_END], len(messages))
        self._acknowledged(first, first + len(messages), ())

    def ask(self, message: Message) -> list[tuple[int, bytes]]:
        """The answers to one question: types and bodies. Raises OSError.

        A dump that was disturbed (NLM_F_DUMP_INTR), or of which a part was lost (ENOBUFS), is asked for again.
        """
        for _ in range(20):
            try:
                answers, whole = self._answers(self._send([message], 0))
            except OSError as error:
                if error.errno != _ENOBUFS or message[1] & NLM_F_DUMP != NLM_F_DUMP:
                    raise
                continue
            if whole:
                return answers
        raise OSError(_EAGAIN, posix.strerror(_EAGAIN))

    def _send(self, messages: list[Message], acknowledged: int) -> int:
        first = self._sequence + 1
        self._sequence += len(messages)
        datagram = encode(messages, first, acknowledged)
        try:
            sent = self._socket.send(datagram)
        except OSError as error:
            if error.errno != _EMSGSIZE:
                raise
            # The rules of a hundred jails are more than a socket has room for at first (net.core.wmem_default).
            self._socket.setsockopt(_socket.SOL_SOCKET, _SO_SNDBUFFORCE, len(datagram))
            sent = self._socket.send(datagram)
        if sent != len(datagram):
            raise OSError(_EMSGSIZE, posix.strerror(_EMSGSIZE))
        return first

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except OSError:  # ENOBUFS: something was lost; what comes after it is no answer to what is asked next
            try:
                while True:
                    self._socket.recv(65536, _socket.MSG_DONTWAIT)
            except OSError:
                pass
            raise

    def _acknowledged(self, first: int, last: int, ignored: tuple[int, ...]) -> None:
        # Errors are reported unasked, in the order of the messages; only the last message's success is asked for.
        found: OSError | None = None
        while True:
            for kind, flags, sequence, body in decode(self._receive()):
                if kind != NLMSG_ERROR or not first <= sequence <= last:
                    continue
                error = failure(flags, body)
                if error and error.errno not in ignored:
                    found = found or error
                if sequence == last:
                    if found:
                        raise found
                    return

    def _answers(self, wanted: int) -> tuple[list[tuple[int, bytes]], bool]:
        answers: list[tuple[int, bytes]] = []
        whole = True
        while True:
            for kind, flags, sequence, body in decode(self._receive()):
                if sequence != wanted:
                    continue
                if flags & NLM_F_DUMP_INTR:
                    whole = False
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    error = failure(flags, body) if len(body) >= 4 else None
                    if error:
                        raise error
                    return answers, whole
                answers.append((kind, body))
