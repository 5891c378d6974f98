"""The program that sees what passes through the masters of jails' ptys: at the end of each system call of the machine.

Whoever shows a terminal to somebody reads what is shown from the master of a pty, and writes what is typed to it. The
program leaves at once what is neither such a call nor a jail's; of the others it finds out whether the descriptor is a
master's, which devpts that is in, and so whose ring the bytes go into. What cannot be copied it tells the number of.

Its processes are those of jails, and those of the host's (jexec(8), consoles) that have opened a master in the devpts
of a watched jail: these it finds as they do. docs/decisions/0031-terminals.md.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from jailng.linux import btf, tracing
from jailng.linux.bpf import FRAME, R0, R1, R2, R3, R4, R6, R7, R8, R9
from jailng.linux.libc import MACHINE
from jailng.linux.tracing import Code

# A record in a ring: what `put` lays down. time, pid and tid, dev, index, kind, size, code, uid, count, lost, comm
HEAD = struct.Struct("=QQIiIIIIQQ16s")
TIME, TID, PID, DEV, INDEX, KIND, SIZE, CODE, UID, COUNT, LOST, COMM = 0, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 56
CHUNK = 16384
_CHUNKS = 64  # of one system call; the rest is told of as unrecorded
# Behind the content, in the scratch map: where the next bytes are, how many of that buffer, where the next buffer is
# told of, and how much there is in all.
_BASE, _LEFT, _VECTOR, _REST = range(HEAD.size + CHUNK, HEAD.size + CHUNK + 32, 8)
SCRATCH = HEAD.size + CHUNK + 32
DEPTHS = (7, 5, 3, 1)  # below the cgroup of all jails: a jail in a jail in a jail …, as core/create.py lays them

OUTPUT, INPUT, RESIZE, START, UNRECORDED = range(5)
PACKET = 1  # in `code`: the first byte tells how the pty is, and is none of its content (TIOCPKT of ioctl_tty(2))
# The same, of UNRECORDED: why.
SPLICE, SENDFILE, FAULT, LENGTH = range(4)
REASONS = ("splice", "sendfile", "unreadable memory", "too much at once")

_CALLS = {  # x86_64, aarch64, which has not all of them
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "preadv2": (327, 286),
    "pwritev2": (328, 287),
    "ioctl": (16, 29),
    "open": (2, -1),
    "openat": (257, 56),
    "openat2": (437, 437),
    "creat": (85, -1),
    "splice": (275, 76),
    "sendfile": (40, 71),
}
_COLUMN = {"x86_64": 0, "aarch64": 1}[MACHINE]
_TIOCSWINSZ = 0x5414
_PTMX = 5 << 20 | 2  # as the kernel lays out a device number
_TTY = 5 << 20
_SLAVES = 136  # and the seven majors that follow

# The stack.
_TMP, _NUMBER, _FD, _SECOND, _THIRD, _OWNER, _KIND, _CODE, _INDEX = range(-8, -80, -8)
_DEV, _JAILED, _VECTORS, _KEY = range(-80, -112, -8)

OFFSETS = (
    ("task_struct", "files"),
    ("files_struct", "fdt"),
    ("fdtable", "fd"),
    ("fdtable", "max_fds"),
    ("file", "f_inode"),
    ("file", "private_data"),
    ("inode", "i_rdev"),
    ("tty_file_private", "tty"),
    ("tty_struct", "link"),
    ("tty_struct", "driver_data"),
    ("tty_struct", "index"),
    ("tty_struct", "ctrl", "packet"),
    ("dentry", "d_sb"),
    ("super_block", "s_dev"),
)
Offsets = dict[tuple[str, ...], int]


def offsets(types: btf.Types) -> Offsets:
    """Where this kernel has what the program looks at. Raises OSError."""
    return {path: types.offset(*path) for path in OFFSETS}


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


def program(at: Offsets, maps: Maps) -> bytes:
    """The program, for ``tracing.load``."""
    return _Program(at, maps).made()


class _Program:
    """R6 is the registers of the call, later the ring; R7 what the call returned.

    R8 is what is looked at, later the record.
    """

    def __init__(self, at: Offsets, maps: Maps) -> None:
        self.at = at
        self.maps = maps
        self.code = Code()

    def made(self) -> bytes:
        self._calls()
        self._who()
        self._arguments()
        self._terminals()
        self._owner()
        self._record()
        self._chunks()
        self._ends()
        return self.code.assembled()

    def _calls(self) -> None:
        """Leave what is none of these calls, or has failed; the others' kinds are put down."""
        code = self.code
        code.fetch(R7, R1, 8)
        code.fetch(R6, R1, 0)
        code.when(R7, "s<", 0, "out")
        code.read_kernel(_NUMBER, 8, R6, tracing.CALL_NUMBER, "out")
        code.fetch(R9, FRAME, _NUMBER, 4)
        for name, numbers in _CALLS.items():
            if numbers[_COLUMN] >= 0:
                code.when(R9, "==", numbers[_COLUMN], name)
        code.jump("out")
        for names, kind, following in (
            (("read",), OUTPUT, "moved"),
            (("write",), INPUT, "moved"),
            (("readv", "preadv", "preadv2"), OUTPUT, "vector"),
            (("writev", "pwritev", "pwritev2"), INPUT, "vector"),
            (("splice", "sendfile"), UNRECORDED, "moved"),
            (("open", "openat", "openat2", "creat"), START, "known"),
            (("ioctl",), RESIZE, "known"),
        ):
            for name in names:
                code.label(name)
            code.move(R8, kind)
            code.move(R1, 0)
            code.jump(following)
        code.label("vector")
        code.move(R1, 1)
        code.label("moved")
        code.when(R7, "==", 0, "out")
        code.label("known")
        code.put(FRAME, _KIND, R8)
        code.put(FRAME, _VECTORS, R1)

    def _who(self) -> None:
        """Leave the processes of the host's that have nothing to do with a watched jail."""
        code = self.code
        code.map_value(R2, self.maps.config)
        code.fetch(R1, R2, 8)
        code.call(tracing.CURRENT_ANCESTOR_CGROUP_ID)
        code.map_value(R2, self.maps.config)
        code.fetch(R1, R2, 0)
        code.put_value(FRAME, _JAILED, 1)
        code.when_of(R0, "==", R1, "concerned")
        code.put_value(FRAME, _JAILED, 0)
        code.when(R8, "==", START, "concerned")
        code.call(tracing.CURRENT_PID_TGID)
        code.shift_right(R0, 32)
        code.put(FRAME, _KEY, R0)
        code.look_up(self.maps.pids, _KEY)
        code.when(R0, "==", 0, "out")
        code.label("concerned")

    def _arguments(self) -> None:
        code = self.code
        for slot, place in zip((_FD, _SECOND, _THIRD), tracing.CALL_ARGUMENTS, strict=False):
            code.read_kernel(slot, 8, R6, place, "out")
        code.when(R8, "!=", START, "given")
        code.put(FRAME, _FD, R7)  # what was opened
        code.label("given")
        code.when(R8, "!=", RESIZE, "found")
        code.fetch(R1, FRAME, _SECOND)
        code.when(R1, "!=", _TIOCSWINSZ, "out")
        code.label("found")

    def _terminals(self) -> None:
        """Find the pty: the descriptor's, or of two the first that is one."""
        code = self.code
        code.put_value(FRAME, _CODE, 0)
        self._terminal(_FD, "first", "other")
        code.jump("pty")
        code.label("other")
        code.fetch(R8, FRAME, _KIND)
        code.when(R8, "!=", UNRECORDED, "out")
        code.fetch(R1, FRAME, _NUMBER, 4)
        code.when(R1, "!=", _CALLS["splice"][_COLUMN], "out")  # sendfile(2) reads from no terminal
        self._terminal(_THIRD, "second", "out")
        code.label("pty")

    def _terminal(self, slot: int, name: str, none: str) -> None:
        """Of the descriptor in a slot: R8 is the tty. Leaves its number and its devpts in theirs."""
        code, at = self.code, self.at
        code.call(tracing.CURRENT_TASK)
        code.follow(R8, R0, at["task_struct", "files"], _TMP, none)
        code.follow(R8, R8, at["files_struct", "fdt"], _TMP, none)
        code.read_kernel(_TMP, 4, R8, at["fdtable", "max_fds"], none)
        code.fetch(R1, FRAME, _TMP, 4)
        code.fetch(R9, FRAME, slot, 4)
        code.when_of(R9, ">=", R1, none)
        code.follow(R8, R8, at["fdtable", "fd"], _TMP, none)
        code.shift_left(R9, 3)
        code.add_of(R8, R9)
        code.follow(R8, R8, 0, _TMP, none)
        code.follow(R9, R8, at["file", "f_inode"], _TMP, none)
        code.read_kernel(_TMP, 4, R9, at["inode", "i_rdev"], none)
        code.fetch(R9, FRAME, _TMP, 4)
        code.when(R9, "==", _PTMX, f"{name} master")
        code.fetch(R1, FRAME, _KIND)
        code.when(R1, "!=", RESIZE, none)  # that can be done from either side
        code.when(R9, "==", _TTY, f"{name} slave")
        code.shift_right(R9, 20)
        code.when(R9, "<", _SLAVES, none)
        code.when(R9, ">", _SLAVES + 7, none)
        code.label(f"{name} slave")
        code.follow(R8, R8, at["file", "private_data"], _TMP, none)
        code.follow(R8, R8, at["tty_file_private", "tty"], _TMP, none)
        code.copy(R9, R8)
        code.jump(f"{name} pair")
        code.label(f"{name} master")
        code.follow(R8, R8, at["file", "private_data"], _TMP, none)
        code.follow(R8, R8, at["tty_file_private", "tty"], _TMP, none)
        code.follow(R9, R8, at["tty_struct", "link"], _TMP, none)
        code.label(f"{name} pair")  # R9 is the slave, which knows its name
        code.read_kernel(_INDEX, 4, R9, at["tty_struct", "index"], none)
        code.follow(R9, R9, at["tty_struct", "driver_data"], _TMP, none)
        code.follow(R9, R9, at["dentry", "d_sb"], _TMP, none)
        code.put_value(FRAME, _DEV, 0)
        code.read_kernel(_DEV, 4, R9, at["super_block", "s_dev"], none)

    def _owner(self) -> None:
        """Whose ring: that of the jail whose devpts it is, else of the watched one that the caller is in."""
        code, maps = self.code, self.maps
        code.look_up(maps.devs, _DEV)
        code.when(R0, "==", 0, "unknown")
        code.fetch(R1, R0, 0)
        code.put(FRAME, _OWNER, R1)
        code.fetch(R1, FRAME, _JAILED)
        code.when(R1, "!=", 0, "owned")
        code.fetch(R1, FRAME, _KIND)
        code.when(R1, "!=", START, "owned")
        code.call(tracing.CURRENT_PID_TGID)
        code.shift_right(R0, 32)
        code.put(FRAME, _KEY, R0)
        code.map(R1, maps.pids)
        code.frame(R2, _KEY)
        code.frame(R3, _KEY)
        code.move(R4, 0)
        code.call(tracing.MAP_UPDATE)
        code.jump("owned")
        code.label("unknown")
        code.fetch(R1, FRAME, _JAILED)
        code.when(R1, "==", 0, "out")
        for depth in DEPTHS:
            code.map_value(R2, maps.config)
            code.fetch(R1, R2, 8)
            code.add(R1, depth)
            code.call(tracing.CURRENT_ANCESTOR_CGROUP_ID)
            code.put(FRAME, _OWNER, R0)
            code.when(R0, "==", 0, f"not {depth}")
            code.look_up(maps.rings, _OWNER)
            code.when(R0, "!=", 0, "ring")
            code.label(f"not {depth}")
        code.jump("out")
        code.label("owned")
        code.look_up(maps.rings, _OWNER)
        code.when(R0, "==", 0, "out")
        code.label("ring")
        code.copy(R6, R0)

    def _record(self) -> None:
        """Put the record's head together. R8 was the tty, and is where."""
        code, maps = self.code, self.maps
        code.fetch(R1, FRAME, _KIND)
        code.when(R1, "!=", OUTPUT, "plain")
        code.read_kernel(_CODE, 1, R8, self.at["tty_struct", "ctrl", "packet"], "out")
        code.label("plain")
        code.put_value(FRAME, _KEY, 0)
        code.look_up(maps.scratch, _KEY)
        code.when(R0, "==", 0, "out")
        code.copy(R8, R0)
        code.call(tracing.BOOT_TIME)
        code.put(R8, TIME, R0)
        code.call(tracing.CURRENT_PID_TGID)
        code.put(R8, TID, R0)
        code.call(tracing.CURRENT_UID_GID)
        code.put(R8, UID, R0, 4)
        code.copy(R1, R8)
        code.add(R1, COMM)
        code.move(R2, 16)
        code.call(tracing.CURRENT_COMM)
        for slot, place in ((_DEV, DEV), (_INDEX, INDEX), (_KIND, KIND), (_CODE, CODE)):
            code.fetch(R1, FRAME, slot, 4)
            code.put(R8, place, R1, 4)
        code.put_value(R8, LOST, 0)
        code.look_up(maps.counts, _OWNER)
        code.when(R0, "==", 0, "none lost")
        code.fetch(R1, R0, 0)
        code.put(R8, LOST, R1)
        code.label("none lost")
        code.put_value(R8, SIZE, 0, 4)
        code.put(R8, COUNT, R7)
        code.fetch(R9, FRAME, _KIND)
        code.when(R9, "==", START, "alone")
        code.when(R9, "==", RESIZE, "size")
        code.when(R9, "!=", UNRECORDED, "bytes")
        code.fetch(R1, FRAME, _NUMBER, 4)
        code.put_value(R8, CODE, SPLICE, 4)
        code.when(R1, "==", _CALLS["splice"][_COLUMN], "alone")
        code.put_value(R8, CODE, SENDFILE, 4)
        code.jump("alone")
        code.label("size")
        code.copy(R1, R8)
        code.add(R1, COUNT)
        code.move(R2, 8)
        code.fetch(R3, FRAME, _THIRD)
        code.call(tracing.READ_USER)
        code.when(R0, "!=", 0, "out")
        code.jump("alone")

    def _chunks(self) -> None:
        """Copy the content: of one buffer, or of several one after the other.

        What this goes on with lies in the scratch map, about which the verifier assumes nothing: so it finds each
        round to be like the last one, and does not follow every way through all of them.
        """
        code = self.code
        code.label("bytes")
        code.fetch(R1, FRAME, _SECOND)
        code.put(R8, _BASE, R1)
        code.put(R8, _VECTOR, R1)
        code.put(R8, _REST, R7)
        code.put(R8, _LEFT, R7)
        code.fetch(R1, FRAME, _VECTORS)
        code.when(R1, "==", 0, "whole")
        code.put_value(R8, _LEFT, 0)
        code.label("whole")
        code.move(R7, 0)
        code.move(R9, 0)
        code.label("next")
        code.when(R9, ">=", _CHUNKS, "long")
        code.add(R9, 1)
        code.fetch(R1, R8, _LEFT)
        code.when(R1, "!=", 0, "chunk")
        # struct iovec: where, and how many bytes
        code.copy(R1, R8)
        code.add(R1, _BASE)
        code.move(R2, 16)
        code.fetch(R3, R8, _VECTOR)
        code.call(tracing.READ_USER)
        code.when(R0, "!=", 0, "fault")
        code.fetch(R1, R8, _VECTOR)
        code.add(R1, 16)
        code.put(R8, _VECTOR, R1)
        code.jump("next")
        code.label("chunk")
        code.fetch(R2, R8, _REST)
        code.when_of(R1, "<=", R2, "within")
        code.copy(R1, R2)
        code.label("within")
        code.when(R1, "<=", CHUNK, "fits")
        code.move(R1, CHUNK)
        code.label("fits")
        code.put(R8, SIZE, R1, 4)
        code.copy(R2, R1)
        code.copy(R1, R8)
        code.add(R1, HEAD.size)
        code.fetch(R3, R8, _BASE)
        code.call(tracing.READ_USER)
        code.when(R0, "!=", 0, "fault")
        code.fetch(R3, R8, SIZE, 4)
        code.when(R3, ">", CHUNK, "out")
        code.add(R3, HEAD.size)
        code.copy(R1, R6)
        code.copy(R2, R8)
        code.move(R4, 0)
        code.call(tracing.RING_OUTPUT)
        code.when(R0, "==", 0, "written")
        code.look_up(self.maps.counts, _OWNER)
        code.when(R0, "==", 0, "written")
        code.move(R1, 1)
        code.count(R0, 0, R1)
        code.fetch(R1, R8, SIZE, 4)
        code.count(R0, 8, R1)
        code.label("written")
        code.put_value(R8, CODE, 0, 4)  # only the first of a call's begins as TIOCPKT has it
        code.fetch(R1, R8, SIZE, 4)
        for place in (_LEFT, _REST):
            code.fetch(R2, R8, place)
            code.subtract_of(R2, R1)
            code.put(R8, place, R2)
        code.when(R2, "==", 0, "out")
        code.fetch(R2, R8, _BASE)
        code.add_of(R2, R1)
        code.put(R8, _BASE, R2)
        code.jump("next")

    def _ends(self) -> None:
        """A record without content; and the end."""
        code = self.code
        for name, why in (("fault", FAULT), ("long", LENGTH)):
            code.label(name)
            code.put_value(R8, CODE, why, 4)
            code.put_value(R8, KIND, UNRECORDED, 4)
            code.put_value(R8, SIZE, 0, 4)
            code.fetch(R1, R8, _REST)
            code.put(R8, COUNT, R1)
            code.jump("alone")
        code.label("alone")
        code.copy(R1, R6)
        code.copy(R2, R8)
        code.move(R3, HEAD.size)
        code.move(R4, 0)
        code.call(tracing.RING_OUTPUT)
        code.when(R0, "==", 0, "out")
        code.look_up(self.maps.counts, _OWNER)
        code.when(R0, "==", 0, "out")
        code.move(R1, 1)
        code.count(R0, 0, R1)
        code.label("out")
        code.leave(0)


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
        code.call(tracing.CURRENT_ANCESTOR_CGROUP_ID)
        code.when_of(R0, "==", R7, "found")
        code.add(R9, 1)
    code.move(R9, -1)
    code.label("found")
    code.copy(R0, R9)
    code.end()
    loaded = tracing.load(tracing.PROG_TYPE_RAW_TRACEPOINT, code.assembled())
    try:
        return tracing.run(loaded)
    finally:
        os.close(loaded)
