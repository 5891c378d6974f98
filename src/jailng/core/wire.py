"""What a program and its worker (engine/worker.py) say to each other: packets of words, with descriptors beside them.

A packet is text, its words parted by NUL, which no argument, variable or parameter can hold. A list is its length and
its items. Packets travel over unix sockets that keep them apart (SOCK_SEQPACKET). One that is too long for that goes
into a memfd, which is then the last of the descriptors beside the packet ``ELSEWHERE``.
"""

from __future__ import annotations

import posix
import sys
from _socket import SCM_RIGHTS, SOL_SOCKET

from jailng.errors import JailError, NotFound
from jailng.linux.libc import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Controls = list[tuple[int, int, bytes]]

LARGEST = 65536  # bytes; well below what a socket takes by default (net.core.wmem_default)
MOST_DESCRIPTORS = 5
ELSEWHERE = b"\0"


def pack(*words: str | int | list[str]) -> bytes:
    """A packet of these words. Raises ValueError where one has a NUL in it."""
    flat: list[str] = []
    for word in words:
        if isinstance(word, list):
            flat.append(str(len(word)))
            flat += word
        else:
            flat.append(str(word))
    text = "\0".join(flat)
    if text.count("\0") != len(flat) - 1:
        raise ValueError("embedded null byte")
    return text.encode("utf-8", "surrogateescape")


def as_memfd(packet: bytes) -> int:
    """A packet as a descriptor. Raises OSError."""
    fd = posix.memfd_create("jailng", posix.MFD_CLOEXEC)
    try:
        rest = memoryview(packet)
        while rest:
            rest = rest[posix.write(fd, rest) :]
    except OSError:
        posix.close(fd)
        raise
    return fd


def from_memfd(fd: int) -> bytes:
    """The packet in a descriptor, which is closed. Raises OSError."""
    try:
        return posix.pread(fd, posix.fstat(fd).st_size, 0)
    finally:
        posix.close(fd)


def beside(*fds: int) -> Controls:
    """What sendmsg(2) takes for these descriptors to travel beside a packet: cmsg(3)."""
    return [(SOL_SOCKET, SCM_RIGHTS, words(*fds, size=4))] if fds else []


def received(controls: Controls) -> list[int]:
    """The descriptors that came beside a packet, from what recvmsg(2) has."""
    data = b"".join([content for level, kind, content in controls if (level, kind) == (SOL_SOCKET, SCM_RIGHTS)])
    return [int.from_bytes(data[at : at + 4], sys.byteorder) for at in range(0, len(data) - 3, 4)]


def pairs(flat: list[str]) -> Iterable[tuple[str, str]]:
    """A list of names and values in turn, two by two."""
    return zip(flat[::2], flat[1::2], strict=True)


class Words:
    """A packet that is read word by word."""

    __slots__ = ("_at", "_words")

    def __init__(self, packet: bytes) -> None:
        self._words = packet.decode("utf-8", "surrogateescape").split("\0")
        self._at = 0

    @property
    def left(self) -> int:
        """How many words there are still: another release may have said more, or less."""
        return len(self._words) - self._at

    def word(self) -> str:
        """The next word."""
        self._at += 1
        return self._words[self._at - 1]

    def number(self) -> int:
        """The next word, which is a number."""
        return int(self.word())

    def words(self) -> list[str]:
        """The next list."""
        first = self._at + 1
        self._at = first + self.number()
        return self._words[first : self._at]


def complaint(error: BaseException | None) -> list[str | int]:
    """What there is to an error beyond its sentence, as words that ``failure`` reads; none where that is all."""
    gone = int(isinstance(error, NotFound))
    number = error.errno or 0 if isinstance(error, (JailError, OSError)) else 0
    kind = error.kind if isinstance(error, JailError) else ""
    return [gone, number, kind] if gone or number or kind else []


def failure(said: Words) -> JailError:
    """The error that the words behind ``error`` tell of: a status, a sentence, and what ``complaint`` has said."""
    status, text = said.number(), said.word()
    gone = said.left and said.number()
    errno = said.number() if said.left else 0
    return (NotFound if gone else JailError)(text, status, errno, said.word() if said.left else "")
