"""The programs that see what passes through jails' ptys in the kernel's pty driver itself: at the end of its functions.

What is shown and typed is there whole, whichever system call has brought it and whoever holds the master, and it is
the kernel's memory that is copied: there is nothing that could not be. Nothing but terminals pays for them. Not every
kernel lets such programs be attached (BPF trampolines, programs of type TRACING).
"""

from __future__ import annotations

from collections.abc import Iterator

from jailng.linux import bpf
from jailng.linux.bpf import FRAME, R1, R2, R6, R7, R8, R9
from jailng.observe.offsets import Offsets
from jailng.observe.ringrecord import (
    CODE_,
    COUNT,
    INPUT,
    KIND_,
    LENGTH,
    OUTPUT,
    OWN,
    RESIZE,
    SIZE,
    START,
    TMP,
    Maps,
    Program,
)

_PTY, _MASTER, _SLAVE = 4, 1, 2  # TTY_DRIVER_TYPE_PTY, PTY_TYPE_MASTER, PTY_TYPE_SLAVE of linux/tty_driver.h
_GIVEN = OWN  # on the stack: the bytes, or the size


class _Function(Program):
    def write_(self) -> bytes:
        """``ssize_t pty_write(tty, bytes, size)``: to the slave what is shown, to the master what is typed."""
        code = self.code
        self._begin(8, 24)
        code.when(R7, "==", 0, "out")
        self._side()
        code.jump("found")
        self._rest()
        code.fetch(R1, R8, COUNT)
        self.chunk(bpf.PROBE_READ_KERNEL, FRAME, _GIVEN, "out")
        code.fetch(R1, R8, SIZE, 4)
        code.fetch(R2, R8, COUNT)
        code.subtract_of(R2, R1)
        code.when(R2, "==", 0, "out")
        self.unrecorded(LENGTH)
        self.finish()
        return code.assembled()

    def resize(self) -> bytes:
        """``int pty_resize(tty, winsize)``, and ``tty_do_resize``, of either side."""
        code = self.code
        self._begin(8, 16)
        self._side()
        code.label("found")
        code.put_value(FRAME, KIND_, RESIZE)
        self._rest("named")
        code.move(R2, 8)
        self.copy(COUNT, bpf.PROBE_READ_KERNEL, FRAME, _GIVEN, "out")
        self.finish()
        return code.assembled()

    def open(self) -> bytes:
        """``int ptmx_open(inode, file)``."""
        code = self.code
        code.fetch(R7, R1, 16)
        code.shift_left(R7, 32)  # an int
        code.when(R7, "!=", 0, "out")
        code.fetch(R8, R1, 8)
        code.put_value(FRAME, KIND_, START)
        code.put_value(FRAME, CODE_, 0)
        self.master("out")
        self._rest("named")
        self.finish()
        return code.assembled()

    def _begin(self, given: int, returned: int) -> None:
        """R8 is the tty, R7 what the function has returned; a failure is nobody's business."""
        code = self.code
        code.fetch(R8, R1, 0)
        code.fetch(R6, R1, given)
        code.fetch(R7, R1, returned)
        code.put(FRAME, _GIVEN, R6)
        code.put_value(FRAME, CODE_, 0)
        code.shift_left(R7, 32)
        code.when(R7, "s<", 0, "out")
        code.shift_right(R7, 32)

    def _side(self) -> None:
        """R9 is the slave, and which side R8 is tells what has passed."""
        code = self.code
        code.follow(R9, R8, self.at["tty_struct", "driver"], TMP, "out")
        code.read_kernel(TMP, 2, R9, self.at["tty_driver", "type"], "out")
        code.fetch(R1, FRAME, TMP, 2)
        code.when(R1, "!=", _PTY, "out")
        code.read_kernel(TMP, 2, R9, self.at["tty_driver", "subtype"], "out")
        code.fetch(R1, FRAME, TMP, 2)
        code.put_value(FRAME, KIND_, OUTPUT)
        code.copy(R9, R8)
        code.when(R1, "==", _SLAVE, "found")
        code.when(R1, "!=", _MASTER, "out")
        code.put_value(FRAME, KIND_, INPUT)
        self.slave("out")

    def _rest(self, label: str = "found") -> None:
        """Whose terminal it is, and the head of the record."""
        self.code.label(label)
        self.name("out")
        self.find_caller()
        self.find_owner()
        self.begin()


def programs(at: Offsets, maps: Maps) -> Iterator[tuple[str, bytes]]:
    """Functions, and what is to run at their end, for ``tracing.load``. Raises OSError."""
    yield "pty_write", _Function(at, maps).write_()
    yield "pty_resize", _Function(at, maps).resize()
    yield "tty_do_resize", _Function(at, maps).resize()  # where a side has no resize of its own
    yield "ptmx_open", _Function(at, maps).open()
