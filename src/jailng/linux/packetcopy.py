"""Copies of packets where no packet socket can be, or would be seen: BPF programs that write them to a ring buffer.

Two places: an interface of another network namespace (TCX, Linux 6.6), whose root is shown neither a socket nor a
queueing discipline; and a cgroup, for what goes through the sockets of its processes on a stack that they share with
others. The programs take no part in what becomes of a packet. They last as long as somebody has their descriptors.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from typing import TYPE_CHECKING

from jailng.linux import bpf, bpfattached, bpfmap, tracing
from jailng.linux.bpf import R0, R1, R2, R3, R4, R6, R7, R8, R9
from jailng.linux.libc import syscall, words
from jailng.linux.packet import Frame, tagged

if TYPE_CHECKING:
    from collections.abc import Iterator

TCX_INGRESS, TCX_EGRESS = 46, 47
IN, OUT = 0, 4  # PACKET_HOST, PACKET_OUTGOING

_PROG_TYPE_SCHED_CLS = 3
_LINK_DETACH = 34
_TCX_NEXT = 0xFFFFFFFF
_ALLOW = 1
# Offsets in struct __sk_buff.
_LENGTH, _VLAN_PRESENT, _VLAN_TCI, _VLAN_PROTOCOL = 0, 20, 24, 28
# What is written before a packet: time, its length, what is copied of it, direction, whether there is a tag, the tag,
# the tag's protocol in the order of the wire.
_HEAD = struct.Struct("=QIIIIII4x")
# The kernel wants to know before it runs a program how much room that asks for, so there are rooms of some sizes.
_ROOMS = (256, 2048, 16384, 66560)
_BUSY, _DISCARDED = 1 << 31, 1 << 30
_RECORD = struct.Struct("=II")
_POSITION = _COUNT = struct.Struct("=Q")


class Copies:
    """The packets of one place, from now on; the same to its reader as a ``packet.Ring``.

    ``index`` is the number of an interface of this network namespace, where what comes in is copied, and with ``both``
    what goes out, too; with 0 it is the cgroup2 directory of the descriptor ``cgroup``. To packets that have no header
    of Ethernet's, those of a cgroup or of an interface that is ``bare``, one is added. ``most`` is how many bytes of a
    packet are copied. Raises OSError.
    """

    __slots__ = (
        "_available",
        "_consumer",
        "_counted",
        "_data",
        "_dropped",
        "_fds",
        "_links",
        "_index",
        "_raw",
        "_size",
        "sequence",
    )

    def __init__(
        self, size: int, most: int, index: int = 0, both: bool = True, bare: bool = False, cgroup: int = -1
    ) -> None:
        self.sequence = 0
        self._raw = bare or not index
        self._index = index
        self._size = 1 << (size - 1).bit_length()
        self._counted = mmap.mmap(-1, _COUNT.size)  # which processes that have this by fork(2) share
        self._available = 0
        self._fds: list[int] = []
        self._links: list[int] = []
        try:
            ring = self._kept(bpfmap.create(bpfmap.RINGBUF, 0, 0, self._size).fd)
            self._dropped = bpfmap.create(bpfmap.ARRAY, 4, _COUNT.size, 1)
            dropped = self._kept(self._dropped.fd)
            page = mmap.PAGESIZE
            self._consumer = mmap.mmap(ring, page)
            # The data lies twice, one behind the other, so that what goes round the end is in one piece.
            self._data = memoryview(mmap.mmap(ring, page + 2 * self._size, prot=mmap.PROT_READ, offset=page))
            ways = [(OUT, bpf.CGROUP_INET_EGRESS), (IN, bpf.CGROUP_INET_INGRESS)]
            if index:
                ways = [(OUT, TCX_EGRESS), (IN, TCX_INGRESS)][not both :]
            for direction, place in ways:
                kind = _PROG_TYPE_SCHED_CLS if index else bpf.PROG_TYPE_CGROUP_SKB
                code = _program(ring, dropped, most, direction, _TCX_NEXT if index else _ALLOW)
                program = bpf.load(kind, place, code)
                try:
                    self._links.append(self._kept(bpf.link(index or cgroup, program, place)))
                finally:
                    os.close(program)
        except BaseException:
            self.close()
            raise

    def _kept(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def fileno(self) -> int:
        """The ring buffer: readable when there is something in it."""
        return self._fds[0]

    def close(self) -> None:
        """Copy no more, and let go of what was not read."""
        while self._fds:
            os.close(self._fds.pop())

    def resume(self, sequence: int) -> None:
        """Go on at that place, where another left off."""
        self.sequence = sequence
        _POSITION.pack_into(self._consumer, 0, sequence)

    def ready(self) -> bool:
        """Whether there is something to be read."""
        self._available = _POSITION.unpack_from(self._data, 0)[0]
        return self._available > self.sequence and not self._record(self.sequence)[0] & _BUSY

    def _record(self, position: int) -> tuple[int, int]:
        at = mmap.PAGESIZE + position % self._size
        return int(_RECORD.unpack_from(self._data, at)[0]), at + _RECORD.size

    def frames(self) -> Iterator[Frame]:
        """What there was when this was found ``ready``. Then ``give_back`` it."""
        ahead = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        position = self.sequence
        while position < self._available:
            size, at = self._record(position)
            if size & _BUSY:
                break
            position += (size & ~_DISCARDED) + _RECORD.size + 7 & ~7
            if not size & _DISCARDED:
                yield self._frame(at, ahead)
        self._available = position

    def _frame(self, at: int, ahead: int) -> Frame:
        boot, length, kept, direction, present, tag, protocol = _HEAD.unpack_from(self._data, at)
        data: memoryview | bytes = self._data[at + _HEAD.size : at + _HEAD.size + kept]
        if self._raw:
            kind = b"\x86\xdd" if kept and data[0] >> 4 == 6 else b"\x08\0"
            data, length = b"".join([bytes(12), kind, data]), length + 14
        elif present and kept >= 12:
            data, length = tagged(data, tag, int.from_bytes(struct.pack("=H", protocol & 0xFFFF), "big")), length + 4
        return Frame(boot + ahead, length, direction, data)

    def give_back(self) -> None:
        """Let the kernel have the room of what was read."""
        self.resume(self._available)

    @property
    def end(self) -> int:
        """What ``resume`` takes once what ``frames`` gave has been dealt with."""
        return self._available

    def stop(self) -> None:
        """Take no more, whoever else holds the descriptors."""
        for link in self._links:
            attr = words(link, size=4) + bytes(60)
            try:
                syscall("bpf", _LINK_DETACH, attr, len(attr))
            except OSError:
                pass  # the interface is gone

    def gone(self) -> bool:
        """Whether nothing more will come, since the interface is there no longer."""
        return self._index > 0 and not any(_ifindex(link) for link in self._links)

    def drops(self) -> int:
        """How many packets were dropped since this was asked last, by whichever process."""
        drops = self._dropped.get(bytes(4)) or bytes(_COUNT.size)
        before, self._counted[:] = self._counted[:], drops
        return int(_COUNT.unpack(drops)[0] - _COUNT.unpack(before)[0])


def _ifindex(link: int) -> int:
    """The number of the interface that a link of TCX is on, 0 when that is gone."""
    # struct bpf_link_info: type id prog_id, and 16 bytes from its start the interface's number
    return int.from_bytes(bpf.info(link)[16:20], sys.byteorder)


def is_tapped(index: int) -> bool:
    """Whether a program is attached by TCX to what comes in on an interface of this network namespace."""
    try:
        return bool(bpfattached.numbers(index, TCX_INGRESS))
    except OSError:
        return False


def _program(ring: int, dropped: int, most: int, direction: int, verdict: int) -> bytes:
    code = tracing.Code()
    code.copy(R6, R1)
    code.load(R7, R6, _LENGTH)
    code.copy(R8, R7)
    code.when(R8, ">", min(most, _ROOMS[-1]), "cut")
    code.jump_if(R8, 0, "done")
    code.jump("measured")
    code.label("cut")
    code.set(R8, min(most, _ROOMS[-1]))
    code.label("measured")
    for room in _ROOMS:
        code.when(R8, ">", room, f"more than {room}")
        code.map(R1, ring)
        code.set(R2, _HEAD.size + room)
        code.set(R3, 0)
        code.call(bpf.RINGBUF_RESERVE)
        code.jump_if_null(R0, "dropped")
        code.copy(R9, R0)
        code.copy(R1, R6)
        code.set(R2, 0)
        code.copy(R3, R9)
        code.add(R3, _HEAD.size)
        code.copy(R4, R8)
        code.call(bpf.SKB_LOAD_BYTES)
        code.jump_unless(R0, 0, "unreadable")
        code.jump("copied")
        code.label(f"more than {room}")
    code.jump("done")
    code.label("copied")
    code.call(bpf.KTIME_GET_BOOT_NS)
    code.put(R9, 0, R0)
    code.store(R9, 8, R7)
    code.store(R9, 12, R8)
    code.set(R1, direction)
    code.store(R9, 16, R1)
    for offset, place in ((20, _VLAN_PRESENT), (24, _VLAN_TCI), (28, _VLAN_PROTOCOL)):
        code.load(R1, R6, place)
        code.store(R9, offset, R1)
    code.copy(R1, R9)
    code.set(R2, 0)
    code.call(bpf.RINGBUF_SUBMIT)
    code.jump("done")
    code.label("unreadable")
    code.copy(R1, R9)
    code.set(R2, 0)
    code.call(bpf.RINGBUF_DISCARD)
    code.label("dropped")
    code.map_value(R1, dropped)
    code.set(R2, 1)
    code.count(R1, 0, R2)
    code.label("done")
    code.leave(verdict)
    return code.assembled()
