"""Frames of a network interface, as the kernel lays them into memory that is shared with it: packet(7), TPACKET_V3.

A ring is blocks of ``BLOCK`` bytes, which the kernel fills one after the other and hands over when one is full, or
after ``PATIENCE`` milliseconds; it goes on with the next when that has been given back, and until then it counts what
it drops. The ring is of the socket, and lasts as long as anybody has that: what is in it survives whoever reads.
"""

from __future__ import annotations

import mmap
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 1 << 20
PATIENCE = 40

_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION, _TPACKET_V3 = 5, 6, 10, 2
_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_FRAME = 1 << 11  # of no meaning to version 3, but the kernel checks that so many fill the blocks
_READY = 1  # TP_STATUS_USER
_VLAN_VALID, _VLAN_TPID_VALID = 1 << 4, 1 << 6
_ETH_P_8021Q = 0x8100
TAG = 4  # bytes of a VLAN's
_TAGS = (b"\x81\0", b"\x88\xa8")  # ETH_P_8021Q, ETH_P_8021AD
_OUTGOING = 4  # PACKET_OUTGOING

# struct tpacket_block_desc: version, offset_to_priv; struct tpacket_hdr_v1: block_status, num_pkts,
# offset_to_first_pkt, blk_len, seq_num
_DESCRIPTION = struct.Struct("=8x4IQ")
_STATUS = struct.Struct("=I")
# struct tpacket3_hdr: next_offset, sec, nsec, snaplen, len, status, mac, net, then rxhash, vlan_tci, vlan_tpid; and
# behind it, 48 bytes from its start, struct sockaddr_ll, of which pkttype is the eleventh byte.
_HEADER = struct.Struct("=6IHHIIH")
_KIND = 48 + 10
_RETURN = 0x06  # BPF_RET | BPF_K


class Frame:
    """A frame in the ring: ``data`` is the memory that it lies in, good until its block is given back.

    ``time`` is in nanoseconds since 1970; ``length`` what it had before it was cut; ``kind`` a PACKET_ of packet(7).
    """

    __slots__ = ("data", "kind", "length", "time")

    def __init__(self, time: int, length: int, kind: int, data: memoryview | bytes) -> None:
        self.time = time
        self.length = length
        self.kind = kind
        self.data = data

    @property
    def outgoing(self) -> bool:
        """Whether the interface has sent it."""
        return self.kind == _OUTGOING


class Ring:
    """Every frame of one interface of this network namespace, from now on.

    ``program`` is one of classic BPF, instructions as bytes: how much of each frame is kept (0: it is none of ours).
    It is there before the first frame is. ``size`` is in bytes, and rounded to blocks, of which there are two at least.
    Raises OSError (ENODEV, ENOMEM).
    """

    __slots__ = ("_memory", "_socket", "_view", "blocks", "place", "sequence")

    def __init__(self, name: str, size: int, program: bytes) -> None:
        self.blocks = max(2, size // BLOCK)
        self.place = 0
        self.sequence = 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        try:
            attach(self._socket, program)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
            request = struct.pack("=7I", BLOCK, self.blocks, _FRAME, BLOCK // _FRAME * self.blocks, PATIENCE, 0, 0)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
            self._memory = mmap.mmap(self._socket.fileno(), BLOCK * self.blocks)
            self._socket.bind((name, _ETH_P_ALL))
        except BaseException:
            self._socket.close()
            raise
        self._view = memoryview(self._memory)

    def fileno(self) -> int:
        """The socket: readable when a block is."""
        return self._socket.fileno()

    def close(self) -> None:
        """Let go of the ring, and what is in it."""
        self._socket.close()

    def resume(self, sequence: int) -> None:
        """Go on behind the block of that number, the last that was dealt with (0: none was), where another left off."""
        self.sequence = sequence
        self.place = (sequence - 1) % self.blocks
        if sequence and self.ready() and self._number() == sequence:
            self.give_back()
        else:
            self.place = sequence % self.blocks

    def _status(self) -> int:
        return int(_STATUS.unpack_from(self._memory, self.place * BLOCK + 8)[0])

    def _number(self) -> int:
        return int(_DESCRIPTION.unpack_from(self._memory, self.place * BLOCK)[4])

    def ready(self) -> bool:
        """Whether a block is to be read."""
        return bool(self._status() & _READY)

    def frames(self) -> Iterator[Frame]:
        """The frames of the block that is ready. Then ``give_back`` it."""
        start = self.place * BLOCK
        _, count, first, _, _ = _DESCRIPTION.unpack_from(self._memory, start)
        at = start + first
        view = self._view
        read = _HEADER.unpack_from
        for _ in range(count):
            following, seconds, nanoseconds, kept, length, status, mac, _, _, tag, protocol = read(view, at)
            begin = at + mac
            data: memoryview | bytes = view[begin : begin + kept]
            if status & _VLAN_VALID and kept >= 12:
                data, length = tagged(data, tag, protocol if status & _VLAN_TPID_VALID else 0), length + TAG
            yield Frame(seconds * 1_000_000_000 + nanoseconds, length, view[at + _KIND], data)
            at += following

    def give_back(self) -> None:
        """Let the kernel have the block that was ready, and go on to the next."""
        self.sequence = self._number()
        _STATUS.pack_into(self._memory, self.place * BLOCK + 8, 0)
        self.place = (self.place + 1) % self.blocks

    @property
    def end(self) -> int:
        """What ``resume`` takes once the block that is ready has been dealt with."""
        return self._number()

    def keep(self, program: bytes) -> None:
        """Keep what that program keeps from now on. Raises OSError."""
        attach(self._socket, program)

    def stop(self) -> None:
        """Take no more, whoever else holds the ring. Raises OSError."""
        self.keep(everything(0))

    def gone(self) -> bool:
        """Whether the interface is here no longer, and nothing more will come. What the socket complains of is read."""
        self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return not self._socket.getsockname()[0]

    def drops(self) -> int:
        """How many frames that passed the program were dropped since this was asked last, by whichever process."""
        _, drops, _ = struct.unpack("=3I", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12))
        return int(drops)


def is_tapped(name: str) -> bool:
    """Whether a packet socket is there for all that an interface of this network namespace has. Raises OSError."""
    index = str(socket.if_nametoindex(name))
    with open("/proc/thread-self/net/packet") as file:
        lines = [line.split() for line in file.read().splitlines()[1:]]
    return any(words[3] == f"{_ETH_P_ALL:04x}" and words[4] == index for words in lines)


def tagged(data: memoryview | bytes, tag: int, protocol: int) -> bytes:
    """A frame with the VLAN's tag where it was on the wire: the kernel hands that over beside the frame."""
    return b"".join([data[:12], struct.pack("!HH", protocol or _ETH_P_8021Q, tag), data[12:]])


def is_tagged(data: bytes) -> bool:
    """Whether a frame has a VLAN's tag, of the kinds that the kernel takes out of one that has come in."""
    return len(data) >= 12 + TAG and data[12:14] in _TAGS


def untagged(data: bytes) -> bytes:
    """A frame that has a tag without it, as programs see it: ``tagged`` the other way round."""
    return data[:12] + data[12 + TAG :]


def everything(most: int) -> bytes:
    """A program that keeps that many bytes of each frame."""
    return struct.pack("=HBBI", _RETURN, 0, 0, most)


def attach(to: socket.socket, program: bytes) -> None:
    """SO_ATTACH_FILTER. Raises OSError (EINVAL: the kernel does not take it)."""
    from jailng.linux.libc import address, buffer

    instructions = buffer(program)
    # struct sock_fprog: a count, and a pointer
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, address(instructions)))
