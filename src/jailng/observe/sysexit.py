"""The program that sees what passes through the masters of jails' ptys: at the end of each system call of the machine.

Whoever shows a terminal to somebody reads what is shown from the master of a pty, and writes what is typed to it. The
program leaves at once what is neither such a call nor a jail's; of the others it finds out whether the descriptor is a
master's, which devpts that is in, and so whose ring the bytes go into. What cannot be copied it tells the number of.

Its processes are those of jails, and those of the host's (jexec(8), consoles) that have opened a master in the devpts
of a watched jail: these it finds as they do. docs/decisions/0031-terminals.md.
"""

from __future__ import annotations

from jailng.linux import bpf, tracing
from jailng.linux.bpf import FRAME, R0, R1, R2, R6, R7, R8, R9
from jailng.linux.libc import MACHINE
from jailng.observe.offsets import Offsets
from jailng.observe.ringrecord import (
    CHUNK,
    CODE,
    CODE_,
    COUNT,
    FAULT,
    HEAD,
    INPUT,
    JAILED,
    KEY,
    KIND_,
    LENGTH,
    OUTPUT,
    OWN,
    RESIZE,
    SENDFILE,
    SIZE,
    SPLICE,
    START,
    TMP,
    UNRECORDED,
    Maps,
    Program,
)

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

_CHUNKS = 64  # of one system call; the rest is told of as unrecorded
# The stack, and, behind the content in the scratch map: where the next bytes are, how many of that buffer, where the
# next buffer is told of, and how much there is in all.
_NUMBER, _FD, _SECOND, _THIRD, _VECTORS = range(OWN, OWN - 40, -8)
_BASE, _LEFT, _VECTOR, _REST = range(HEAD.size + CHUNK, HEAD.size + CHUNK + 32, 8)


def program(at: Offsets, maps: Maps) -> bytes:
    """The program, for ``tracing.load``. Raises OSError."""
    return _Program(at, maps).made()


class _Program(Program):
    """R6 is the registers of the call, later the ring; R7 what the call returned.

    R8 is what is looked at, later the record.
    """

    def made(self) -> bytes:
        self._calls()
        self._who()
        self._arguments()
        self._terminals()
        self.find_owner()
        self._packet()
        self.begin()
        self._content()
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
        code.put(FRAME, KIND_, R8)
        code.put(FRAME, _VECTORS, R1)

    def _who(self) -> None:
        """Leave the processes of the host's that have nothing to do with a watched jail."""
        code = self.code
        self.find_caller()
        code.fetch(R1, FRAME, JAILED)
        code.when(R1, "!=", 0, "concerned")
        code.when(R8, "==", START, "concerned")
        self.name_caller()
        code.look_up(self.maps.pids, KEY)
        code.when(R0, "==", 0, "out")
        code.label("concerned")

    def _arguments(self) -> None:
        """What says which terminal; the rest is read when that is one."""
        code = self.code
        first, second, _ = tracing.CALL_ARGUMENTS[:3]
        code.put(FRAME, _FD, R7)  # what was opened
        code.when(R8, "==", START, "given")
        code.read_kernel(_FD, 8, R6, first, "out")
        code.when(R8, "!=", RESIZE, "given")
        code.read_kernel(_SECOND, 8, R6, second, "out")
        code.fetch(R1, FRAME, _SECOND, 4)
        code.when(R1, "!=", _TIOCSWINSZ, "out")
        code.label("given")

    def _terminals(self) -> None:
        """Find the pty: the descriptor's, or of two the first that is one."""
        code = self.code
        code.put_value(FRAME, CODE_, 0)
        self._terminal(_FD, "first", "other")
        code.jump("pty")
        code.label("other")
        code.fetch(R8, FRAME, KIND_)
        code.when(R8, "!=", UNRECORDED, "out")
        code.read_kernel(_THIRD, 8, R6, tracing.CALL_ARGUMENTS[2], "out")
        code.fetch(R1, FRAME, _NUMBER, 4)
        code.when(R1, "==", _CALLS["splice"][_COLUMN], "two")
        code.read_kernel(_THIRD, 8, R6, tracing.CALL_ARGUMENTS[1], "out")
        code.label("two")
        self._terminal(_THIRD, "second", "out")
        code.label("pty")
        code.read_kernel(_SECOND, 8, R6, tracing.CALL_ARGUMENTS[1], "out")
        code.read_kernel(_THIRD, 8, R6, tracing.CALL_ARGUMENTS[2], "out")

    def _terminal(self, slot: int, name: str, none: str) -> None:
        """Of the descriptor in a slot: R8 is the tty. Leaves its number and its devpts in theirs."""
        code, at = self.code, self.at
        code.call(bpf.GET_CURRENT_TASK)
        code.follow(R8, R0, at["task_struct", "files"], TMP, none)
        code.follow(R8, R8, at["files_struct", "fdt"], TMP, none)
        code.read_kernel(TMP, 4, R8, at["fdtable", "max_fds"], none)
        code.fetch(R1, FRAME, TMP, 4)
        code.fetch(R9, FRAME, slot, 4)
        code.when_of(R9, ">=", R1, none)
        code.follow(R8, R8, at["fdtable", "fd"], TMP, none)
        code.shift_left(R9, 3)
        code.add_of(R8, R9)
        code.follow(R8, R8, 0, TMP, none)
        code.follow(R9, R8, at["file", "f_inode"], TMP, none)
        code.read_kernel(TMP, 4, R9, at["inode", "i_rdev"], none)
        code.fetch(R9, FRAME, TMP, 4)
        code.when(R9, "==", _PTMX, f"{name} master")
        code.fetch(R1, FRAME, KIND_)
        code.when(R1, "!=", RESIZE, none)  # that can be done from either side
        code.when(R9, "==", _TTY, f"{name} slave")
        code.shift_right(R9, 20)
        code.when(R9, "<", _SLAVES, none)
        code.when(R9, ">", _SLAVES + 7, none)
        code.label(f"{name} slave")
        self.tty(none)
        code.copy(R9, R8)
        code.jump(f"{name} pair")
        code.label(f"{name} master")
        self.master(none)
        code.label(f"{name} pair")
        self.name(none)

    def _packet(self) -> None:
        """Note whether what is read begins with a byte of TIOCPKT's."""
        code = self.code
        code.fetch(R1, FRAME, KIND_)
        code.when(R1, "!=", OUTPUT, "plain")
        code.read_kernel(CODE_, 1, R8, self.at["tty_struct", "ctrl", "packet"], "out")
        code.label("plain")

    def _content(self) -> None:
        """What a record without bytes of the terminal's has."""
        code = self.code
        code.fetch(R9, FRAME, KIND_)
        code.when(R9, "==", START, "alone")
        code.when(R9, "==", RESIZE, "size")
        code.when(R9, "!=", UNRECORDED, "bytes")
        code.fetch(R1, FRAME, _NUMBER, 4)
        code.put_value(R8, CODE, SPLICE, 4)
        code.when(R1, "==", _CALLS["splice"][_COLUMN], "alone")
        code.put_value(R8, CODE, SENDFILE, 4)
        code.jump("alone")
        code.label("size")
        code.move(R2, 8)
        self.copy(COUNT, bpf.PROBE_READ_USER, FRAME, _THIRD, "out")
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
        code.move(R2, 16)
        self.copy(_BASE, bpf.PROBE_READ_USER, R8, _VECTOR, "fault")
        code.fetch(R1, R8, _VECTOR)
        code.add(R1, 16)
        code.put(R8, _VECTOR, R1)
        code.jump("next")
        code.label("chunk")
        code.fetch(R2, R8, _REST)
        code.when_of(R1, "<=", R2, "within")
        code.copy(R1, R2)
        code.label("within")
        self.chunk(bpf.PROBE_READ_USER, R8, _BASE, "fault")
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
        code = self.code
        for name, why in (("fault", FAULT), ("long", LENGTH)):
            code.label(name)
            code.fetch(R2, R8, _REST)
            self.unrecorded(why)
            code.jump("alone")
        self.finish()
