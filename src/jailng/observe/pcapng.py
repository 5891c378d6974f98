"""pcapng, the form in which packets are kept: its blocks, made and read (draft-ietf-opsawg-pcapng).

What is written is what libpcap reads, too: all interfaces of a file have Ethernet's link type and one snapshot length.
What is read may be of either byte order, and may end in the middle of a block, as a file does whose writer was killed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from mmap import mmap

ETHERNET = 1  # LINKTYPE_ETHERNET
UNKNOWN, IN, OUT = 0, 1, 2  # directions, as epb_flags has them

PACKET = 6  # an enhanced packet block
_SECTION, _INTERFACE, _STATISTICS = 0x0A0D0D0A, 1, 5
_ORDER = 0x1A2B3C4D
_COMMENT, _APPLICATION = 1, 4
_IF_NAME, _IF_DESCRIPTION, _IF_RESOLUTION, _IF_FILTER = 2, 3, 9, 11
_FLAGS = 2
_IF_RECEIVED, _IF_DROPPED, _OS_DROPPED, _DELIVERED = 4, 5, 7, 8
_NANOSECONDS = 9  # ten to the power of minus that
_NEVER = 1 << 64  # nanoseconds: what the times of a file of ours end before
_LONGEST = 1 << 24  # bytes of a block; libpcap takes longer ones for damage, too
_EPB_HEAD = struct.Struct("=7I")
_EPB_TAIL = struct.Struct("=HHIII")  # epb_flags, the end of the options, the length once more
_EPB_REST = _EPB_HEAD.size + _EPB_TAIL.size
_PADDING = [b"", bytes(3), bytes(2), bytes(1)]  # by the length's last two bits


class Malformed(ValueError):
    """Bytes that are no pcapng; ``args[0]`` says why."""


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + value + bytes(-len(value) % 4)


def _text(code: int, value: str) -> bytes:
    encoded = value.encode("utf-8", "backslashreplace")[:65000]
    return _option(code, encoded) if encoded else b""


def _block(kind: int, body: bytes) -> bytes:
    size = len(body) + 12
    return struct.pack("=II", kind, size) + body + struct.pack("=I", size)


def section(comment: str = "") -> bytes:
    """The block that begins a section; every interface is told of again after it."""
    options = _text(_COMMENT, comment) + _text(_APPLICATION, "jailng") + bytes(4)
    return _block(_SECTION, struct.pack("=IHHq", _ORDER, 1, 0, -1) + options)


def interface(name: str, snaplen: int, description: str = "", expression: str = "") -> bytes:
    """An interface: the first of a section is number 0. Times of its packets are in nanoseconds."""
    options = _text(_IF_NAME, name) + _text(_IF_DESCRIPTION, description)
    options += _option(_IF_RESOLUTION, bytes([_NANOSECONDS]))
    if expression:
        options += _option(_IF_FILTER, b"\0" + expression.encode("utf-8", "backslashreplace")[:65000])
    return _block(_INTERFACE, struct.pack("=HHI", ETHERNET, 0, snaplen) + options + bytes(4))


def around(interface: int, time: int, captured: int, length: int, direction: int) -> tuple[bytes, bytes]:
    """What goes before and after the ``captured`` bytes of a packet.

    ``time`` is in nanoseconds since 1970, ``length`` what the packet had before it was cut.
    """
    padding = _PADDING[captured & 3]
    total = _EPB_REST + captured + len(padding)
    head = _EPB_HEAD.pack(PACKET, total, interface, time >> 32, time & 0xFFFFFFFF, captured, length)
    return head, padding + _EPB_TAIL.pack(_FLAGS, 4, direction, 0, total)


def packet(interface: int, time: int, data: bytes, length: int, direction: int = UNKNOWN) -> bytes:
    """A packet as a block."""
    head, tail = around(interface, time, len(data), length, direction)
    return head + data + tail


def statistics(interface: int, time: int, counts: Counts, comment: str = "") -> bytes:
    """What was counted on an interface since its section began."""
    options = _text(_COMMENT, comment)
    for code, value in (
        (_IF_RECEIVED, counts.received),
        (_IF_DROPPED, counts.dropped + counts.unwritten),
        (_OS_DROPPED, counts.dropped),
        (_DELIVERED, counts.received - counts.dropped - counts.unwritten),
    ):
        options += _option(code, struct.pack("=Q", value))
    return _block(_STATISTICS, struct.pack("=III", interface, time >> 32, time & 0xFFFFFFFF) + options + bytes(4))


@dataclass
class Counts:
    """Packets of an interface: those that passed the filter, and what of them the file lacks.

    ``dropped`` found no room in the kernel's ring, ``unwritten`` none on the disk.
    """

    received: int = 0
    dropped: int = 0
    unwritten: int = 0

    @property
    def lost(self) -> int:
        """All that are not in the file."""
        return self.dropped + self.unwritten


@dataclass(frozen=True)
class Section:
    """The beginning of one; ``comment`` tells of a gap before it."""

    comment: str


@dataclass(eq=False)
class Interface:
    """An interface of a section, with the ``resolution`` of its times in parts of a second."""

    name: str
    linktype: int
    snaplen: int
    description: str
    expression: str
    resolution: int


@dataclass(frozen=True)
class Packet:
    """A packet: ``time`` in nanoseconds since 1970, ``length`` before it was cut to ``data``."""

    interface: Interface
    time: int
    length: int
    data: bytes
    direction: int


@dataclass(frozen=True)
class Statistics:
    """What was counted on an interface since its section began."""

    interface: Interface
    time: int
    counts: Counts
    comment: str


class Reader:
    """Iterates over what is in a file of pcapng, in its order; kinds of blocks that it does not know are passed over.

    ``offset`` is the end of the last block that was whole; where a file ends in the middle of one, so does this. Raises
    Malformed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._order = "="
        self._interfaces: list[Interface] = []
        self.offset = 0

    def __iter__(self) -> Iterator[Section | Interface | Packet | Statistics]:
        while (found := self._next()) is not None:
            kind, body = found
            try:
                made = self._read(kind, body)
            except (struct.error, IndexError):
                raise Malformed(f"a block of kind {kind} is too short") from None
            if made is not None:
                yield made

    def _next(self) -> tuple[int, bytes] | None:
        head = self._file.read(12)
        if len(head) < 12:
            return None
        if head[:4] == b"\n\r\r\n":
            self._order = _order_of(head[8:])
            self._interfaces = []
        elif not self.offset:
            raise Malformed("no pcapng: it does not begin with a section")
        kind, size = struct.unpack_from(f"{self._order}II", head)
        if size < 12 or size % 4 or size > _LONGEST:
            raise Malformed(f"a block of {size} bytes")
        rest = self._file.read(size - 12)
        if len(rest) < size - 12:
            return None
        whole = head[8:] + rest
        if struct.unpack(f"{self._order}I", whole[-4:])[0] != size:
            raise Malformed("a block has two lengths")
        self.offset += size
        return kind, whole[:-4]

    def _read(self, kind: int, body: bytes) -> Section | Interface | Packet | Statistics | None:
        if kind == _SECTION:
            return Section(_words(self._options(body, 16).get(_COMMENT, b"")))
        if kind == _INTERFACE:
            made = self._read_interface(body)
            self._interfaces.append(made)
            return made
        if kind == PACKET:
            return self._read_packet(body)
        if kind == _STATISTICS:
            return self._read_statistics(body)
        return None

    def _read_interface(self, body: bytes) -> Interface:
        linktype, snaplen = struct.unpack_from(f"{self._order}HxxI", body)
        options = self._options(body, 8)
        resolution = options.get(_IF_RESOLUTION, b"\6")[0]
        ticks = 1 << (resolution & 0x7F) if resolution & 0x80 else 10 ** (resolution & 0x7F)
        return Interface(
            _words(options.get(_IF_NAME, b"")),
            linktype,
            snaplen,
            _words(options.get(_IF_DESCRIPTION, b"")),
            _words(options.get(_IF_FILTER, b"")[1:]),
            ticks,
        )

    def _read_packet(self, body: bytes) -> Packet:
        number, high, low, captured, length = struct.unpack_from(f"{self._order}5I", body)
        found = self._interfaces[number]
        data = body[20 : 20 + captured]
        if len(data) < captured:
            raise Malformed("a packet is longer than its block")
        flags = self._options(body, 20 + -(-captured // 4) * 4).get(_FLAGS, bytes(4))
        direction = struct.unpack(f"{self._order}I", flags)[0] & 3
        return Packet(found, self._time(found, high, low), length, data, direction)

    def _read_statistics(self, body: bytes) -> Statistics:
        number, high, low = struct.unpack_from(f"{self._order}3I", body)
        found = self._interfaces[number]
        options = self._options(body, 12)
        values = {
            code: struct.unpack(f"{self._order}Q", options.get(code, bytes(8)))[0]
            for code in (_IF_RECEIVED, _IF_DROPPED, _OS_DROPPED)
        }
        lost = values[_IF_DROPPED]
        dropped = min(values[_OS_DROPPED], lost)
        counts = Counts(max(values[_IF_RECEIVED], lost), dropped, lost - dropped)
        return Statistics(found, self._time(found, high, low), counts, _words(options.get(_COMMENT, b"")))

    def _time(self, found: Interface, high: int, low: int) -> int:
        time = (high << 32 | low) * 1_000_000_000 // found.resolution
        if time >= _NEVER:
            raise Malformed("a time that is none")
        return time

    def _options(self, body: bytes, offset: int) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        while offset + 4 <= len(body):
            code, size = struct.unpack_from(f"{self._order}HH", body, offset)
            if code == 0:
                break
            if offset + 4 + size > len(body):
                raise Malformed("an option is longer than its block")
            found.setdefault(code, body[offset + 4 : offset + 4 + size])
            offset += 4 + -(-size // 4) * 4
        return found


def _order_of(magic: bytes) -> str:
    for order in "<>":
        if struct.unpack(f"{order}I", magic)[0] == _ORDER:
            return order
    raise Malformed("a section of no byte order")


def _words(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def whole(text: bytes | mmap) -> int:
    """How many bytes are whole blocks, from the beginning; what follows is not. What is in them is not looked at."""
    at, order, size = 0, "=", len(text)
    while at + 12 <= size:
        kind, length = struct.unpack_from(f"{order}II", text, at)
        if kind == _SECTION:
            try:
                order = _order_of(text[at + 8 : at + 12])
            except Malformed:
                break
            kind, length = struct.unpack_from(f"{order}II", text, at)
        elif not at:
            break
        after = at + length
        if length < 12 or length % 4 or length > _LONGEST or after > size:
            break
        if struct.unpack_from(f"{order}I", text, after - 4)[0] != length:
            break
        at = after
    return at
