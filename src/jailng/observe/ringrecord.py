"""What the programs that see terminals have in common: whose a terminal is, and records in the ring of its jail.

There are two that do: observe/sysexit.py, at the end of system calls, and observe/functionexit.py, at the end of
functions of the kernel's pty driver. Of either kind a machine runs one. docs/decisions/0031-terminals.md.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from jailng.linux import bpf, tracing
from jailng.linux.bpf import FRAME, R0, R1, R2, R3, R4, R6, R7, R8, R9
from jailng.linux.tracing import Code
from jailng.observe.offsets import Offsets

# A record in a ring: what `put` lays down. time, pid and tid, dev, index, kind, size, code, uid, count, lost, comm
HEAD = struct.Struct("=QQIiIIIIQQ16s")
TIME, TID, DEV, INDEX, KIND, SIZE, CODE, UID, COUNT, LOST, COMM = 0, 8, 16, 20, 24, 28, 32, 36, 40, 48, 56
CHUNK = 16384
SCRATCH = HEAD.size + CHUNK + 32
DEPTHS = (7, 5, 3, 1)  # below the cgroup of all jails: a jail in a jail in a jail …, as core/create.py lays them

OUTPUT, INPUT, RESIZE, START, UNRECORDED = range(5)
PACKET = 1  # in `code`: the first byte tells how the pty is, and is none of its content (TIOCPKT of ioctl_tty(2))
# The same, of UNRECORDED: why.
SPLICE, SENDFILE, FAULT, LENGTH = range(4)
REASONS = ("splice", "sendfile", "unreadable memory", "too much at once")


# The stack: what a number is read to, and what is known of the terminal.
TMP, OWNER, KIND_, CODE_, INDEX_, DEV_, JAILED, KEY = range(-8, -72, -8)
OWN = KEY - 8  # the first that is a mechanism's own


@dataclass
class Maps:
    """Descriptors of the program's maps.

    ``config``, an array of one: the id of the cgroup that all jails are in, and how deep it is, 8 bytes each.
    ``rings``, id of a watched jail's cgroup to its ring. ``devs``, a devpts (4 bytes, as the kernel lays them out, and
    4 of nothing) to the id of its jail's cgroup. ``counts``, that id to what there was no room for: events, bytes.
    ``pids``, of the host's processes with such a master. ``scratch``, where a record is put together.
    """

    config: int
    rings: int
    devs: int
    counts: int
    pids: int
    scratch: int


class Program:
    """A program in the making. R6 is the ring, once it is known; R8 the tty, later the record; R7 how much there is."""

    def __init__(self, at: Offsets, maps: Maps) -> None:
        self.at = at
        self.maps = maps
        self.code = Code()

    def find_caller(self) -> None:
        """Note whether the process is one of a jail's."""
        code = self.code
        code.map_value(R2, self.maps.config)
        code.fetch(R1, R2, 8)
        code.call(bpf.GET_CURRENT_ANCESTOR_CGROUP_ID)
        code.map_value(R2, self.maps.config)
        code.fetch(R1, R2, 0)
        code.put_value(FRAME, JAILED, 1)
        code.when_of(R0, "==", R1, "jailed")
        code.put_value(FRAME, JAILED, 0)
        code.label("jailed")

    def name_caller(self) -> None:
        """The process, as a key of ``pids``."""
        self.code.call(bpf.GET_CURRENT_PID_TGID)
        self.code.shift_right(R0, 32)
        self.code.put(FRAME, KEY, R0)

    def name(self, none: str) -> None:
        """Number and devpts of the pty of which R9 is the slave, which knows its name."""
        code, at = self.code, self.at
        code.read_kernel(INDEX_, 4, R9, at["tty_struct", "index"], none)
        code.follow(R9, R9, at["tty_struct", "driver_data"], TMP, none)
        code.follow(R9, R9, at["dentry", "d_sb"], TMP, none)
        code.put_value(FRAME, DEV_, 0)
        code.read_kernel(DEV_, 4, R9, at["super_block", "s_dev"], none)

    def find_owner(self) -> None:
        """Whose ring: that of the jail whose devpts it is, else of the watched one that the caller is in."""
        code, maps = self.code, self.maps
        code.look_up(maps.devs, DEV_)
        code.when(R0, "==", 0, "unknown")
        code.fetch(R1, R0, 0)
        code.put(FRAME, OWNER, R1)
        code.fetch(R1, FRAME, JAILED)
        code.when(R1, "!=", 0, "owned")
        code.fetch(R1, FRAME, KIND_)
        code.when(R1, "!=", START, "owned")
        self.name_caller()
        code.map(R1, maps.pids)
        code.frame(R2, KEY)
        code.frame(R3, KEY)
        code.move(R4, 0)
        code.call(bpf.MAP_UPDATE_ELEM)
        code.jump("owned")
        code.label("unknown")
        code.fetch(R1, FRAME, JAILED)
        code.when(R1, "==", 0, "out")
        for depth in DEPTHS:
            code.map_value(R2, maps.config)
            code.fetch(R1, R2, 8)
            code.add(R1, depth)
            code.call(bpf.GET_CURRENT_ANCESTOR_CGROUP_ID)
            code.put(FRAME, OWNER, R0)
            code.when(R0, "==", 0, f"not {depth}")
            code.look_up(maps.rings, OWNER)
            code.when(R0, "!=", 0, "ring")
            code.label(f"not {depth}")
        code.jump("out")
        code.label("owned")
        code.look_up(maps.rings, OWNER)
        code.when(R0, "==", 0, "out")
        code.label("ring")
        code.copy(R6, R0)

    def begin(self) -> None:
        """Put the record's head together. R8 was the tty, and is where."""
        code, maps = self.code, self.maps
        code.put_value(FRAME, KEY, 0)
        code.look_up(maps.scratch, KEY)
        code.when(R0, "==", 0, "out")
        code.copy(R8, R0)
        code.call(bpf.KTIME_GET_BOOT_NS)
        code.put(R8, TIME, R0)
        code.call(bpf.GET_CURRENT_PID_TGID)
        code.put(R8, TID, R0)
        code.call(bpf.GET_CURRENT_UID_GID)
        code.put(R8, UID, R0, 4)
        code.copy(R1, R8)
        code.add(R1, COMM)
        code.move(R2, 16)
        code.call(bpf.GET_CURRENT_COMM)
        for slot, place in ((DEV_, DEV), (INDEX_, INDEX), (KIND_, KIND), (CODE_, CODE)):
            code.fetch(R1, FRAME, slot, 4)
            code.put(R8, place, R1, 4)
        code.put_value(R8, LOST, 0)
        code.look_up(maps.counts, OWNER)
        code.when(R0, "==", 0, "none lost")
        code.fetch(R1, R0, 0)
        code.put(R8, LOST, R1)
        code.label("none lost")
        code.put_value(R8, SIZE, 0, 4)
        code.put(R8, COUNT, R7)

    def master(self, none: str) -> None:
        """R8, the file of a pty's master, becomes its tty, and R9 the slave."""
        self.tty(none)
        self.slave(none)

    def tty(self, none: str) -> None:
        """R8, the file of a terminal, becomes its tty."""
        self.code.follow(R8, R8, self.at["file", "private_data"], TMP, none)
        self.code.follow(R8, R8, self.at["tty_file_private", "tty"], TMP, none)

    def slave(self, none: str) -> None:
        """R9 is the slave of the master R8."""
        self.code.follow(R9, R8, self.at["tty_struct", "link"], TMP, none)

    def chunk(self, helper: int, base: int, offset: int, failed: str) -> None:
        """Write a record with R1 bytes of content, or as many as one may have, which ``copy`` copies."""
        code = self.code
        code.when(R1, "<=", CHUNK, "fits")
        code.move(R1, CHUNK)
        code.label("fits")
        code.put(R8, SIZE, R1, 4)
        code.copy(R2, R1)
        self.copy(HEAD.size, helper, base, offset, failed)
        code.fetch(R3, R8, SIZE, 4)
        code.when(R3, ">", CHUNK, "out")
        code.add(R3, HEAD.size)
        self._output("written")
        code.fetch(R1, R8, SIZE, 4)
        code.count(R0, 8, R1)
        code.label("written")

    def copy(self, place: int, helper: int, base: int, offset: int, failed: str) -> None:
        """R2 bytes to ``place`` in the record, of the memory to which the pointer at ``base + offset`` leads.

        ``helper``: PROBE_READ_USER or PROBE_READ_KERNEL. Where it cannot be read go on at ``failed``.
        """
        code = self.code
        code.copy(R1, R8)
        code.add(R1, place)
        code.fetch(R3, base, offset)
        code.call(helper)
        code.when(R0, "!=", 0, failed)

    def unrecorded(self, why: int) -> None:
        """Make the record one of bytes that are not recorded: as many as R2 says."""
        code = self.code
        code.put(R8, COUNT, R2)
        code.put_value(R8, KIND, UNRECORDED, 4)
        code.put_value(R8, CODE, why, 4)
        code.put_value(R8, SIZE, 0, 4)

    def finish(self) -> None:
        """A record without content; and the end."""
        code = self.code
        code.label("alone")
        code.move(R3, HEAD.size)
        self._output("out")
        code.label("out")
        code.leave(0)

    def _output(self, done: str) -> None:
        """R3 bytes of the record to the ring, and go on at ``done``. Else that is counted, and R0 is where."""
        code = self.code
        code.copy(R1, R6)
        code.copy(R2, R8)
        code.move(R4, 0)
        code.call(bpf.RINGBUF_OUTPUT)
        code.when(R0, "==", 0, done)
        code.look_up(self.maps.counts, OWNER)
        code.when(R0, "==", 0, done)
        code.move(R1, 1)
        code.count(R0, 0, R1)


def depth(config: int) -> int:
    """How deep the cgroup of all jails is, which this process is in; its id is in ``config``. Raises OSError.

    The path that a process sees begins at the root of its cgroup namespace, where the kernel's does not.
    """
    code = Code()
    code.map_value(R6, config)
    code.fetch(R7, R6, 0)
    code.move(R9, 0)
    for _ in range(64):
        code.copy(R1, R9)
        code.call(bpf.GET_CURRENT_ANCESTOR_CGROUP_ID)
        code.when_of(R0, "==", R7, "found")
        code.add(R9, 1)
    code.move(R9, -1)
    code.label("found")
    code.copy(R0, R9)
    code.end()
    loaded = tracing.load(tracing.PROG_TYPE_RAW_TRACEPOINT, code.assembled())
    try:
        return bpf.run(loaded)
    finally:
        os.close(loaded)
