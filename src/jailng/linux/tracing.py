"""eBPF programs that look on: on raw tracepoints, and at the end of kernel functions where the kernel allows that.

A program sees the whole machine; what it is not about it leaves as early as it can. Memory of the kernel's and of
programs is read by helpers that fail instead of faulting. bpf(2), bpf-helpers(7).
"""

from __future__ import annotations

import posix
from errno import ENOENT

from jailng.linux import assembler, bpf, bpfmap
from jailng.linux.libc import MACHINE, address, buffer, syscall, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.bpfmap import Map

PROG_TYPE_RAW_TRACEPOINT = 17
PROG_TYPE_TRACING = 26
FUNCTION_EXIT = 25  # enum bpf_attach_type: BPF_TRACE_FEXIT

_RAW_TRACEPOINT_OPEN = 17
_LOG = 1 << 16

# Where struct pt_regs has the number and the arguments of the system call that is at its end.
_REGISTERS = {
    "x86_64": (120, (112, 104, 96, 56, 72, 64)),
    # struct pt_regs of arm64: regs[31] sp pc pstate orig_x0 syscallno; x0 has the result by then
    "aarch64": (280, (272, 8, 16, 24, 32, 40)),
}
CALL_NUMBER, CALL_ARGUMENTS = _REGISTERS[MACHINE]


class Code(assembler.Code):
    """A program in the making, with what one that looks on needs besides: 64 bits, unsigned comparison, maps."""

    __slots__ = ()

    def move(self, register: int, value: int) -> None:
        """``register = value``, of 64 bits with a sign, of which 32 are given."""
        self._add(0xB7, register, 0, value)

    def add(self, register: int, value: int) -> None:
        """``register += value``."""
        self._add(0x07, register, 0, value)

    def add_of(self, register: int, other: int) -> None:
        """``register += other``."""
        self._add(0x0F, register, 0, 0, other)

    def subtract_of(self, register: int, other: int) -> None:
        """``register -= other``."""
        self._add(0x1F, register, 0, 0, other)

    def shift_left(self, register: int, bits: int) -> None:
        """``register <<= bits``."""
        self._add(0x67, register, 0, bits)

    def shift_right(self, register: int, bits: int) -> None:
        """``register >>= bits``, without a sign."""
        self._add(0x77, register, 0, bits)

    def fetch(self, register: int, source: int, offset: int, size: int = 8) -> None:
        """``register`` = the ``size`` bytes at ``source + offset``."""
        self._add(0x61 | _SIZES[size], register, offset, 0, source)

    def put(self, target: int, offset: int, register: int, size: int = 8) -> None:
        """The ``size`` bytes at ``target + offset`` = ``register``."""
        self._add(0x63 | _SIZES[size], target, offset, 0, register)

    def put_value(self, target: int, offset: int, value: int, size: int = 8) -> None:
        """The ``size`` bytes at ``target + offset`` = ``value``."""
        self._add(0x62 | _SIZES[size], target, offset, value)

    def count(self, target: int, offset: int, register: int) -> None:
        """The 8 bytes at ``target + offset`` += ``register``, in one piece."""
        self._add(0xDB, target, offset, 0, register)

    def when(self, register: int, relation: str, value: int, label: str) -> None:
        """Go on at ``label`` if the 64 bits of ``register`` are in that relation (``== != < <= > >=``) to ``value``.

        Without a sign; ``s<`` and ``s>`` are with one.
        """
        self._jump(_RELATIONS[relation], register, value, label)

    def when_of(self, register: int, relation: str, other: int, label: str) -> None:
        """The same, compared to a register."""
        self._instructions.append((_RELATIONS[relation] | 8, register | other << 4, 0, label))

    def map(self, register: int, fd: int) -> None:
        """``register`` = the map behind a descriptor."""
        self._add(0x18, register, 0, fd, 1)
        self._add(0)

    def map_value(self, register: int, fd: int, offset: int = 0) -> None:
        """``register`` = a place in the only entry of the ARRAY map behind a descriptor."""
        self._add(0x18, register, 0, fd, 2)
        self._add(0, 0, 0, offset)

    def end(self) -> None:
        """Return what is in r0."""
        self._instructions.append(bpf.leave())

    def constant(self, register: int, value: int) -> None:
        """``register = value``, of 64 bits."""
        self._instructions += [bpf.constant(register, value)[:8], bpf.constant(register, value)[8:]]

    def look_up(self, fd: int, key: int) -> None:
        """``r0`` = the value, or inner map, under the key at ``key`` on the stack; 0: there is none."""
        self.map(bpf.R1, fd)
        self.frame(bpf.R2, key)
        self.call(bpf.MAP_LOOKUP_ELEM)

    def read_kernel(self, slot: int, size: int, base: int, offset: int, failed: str) -> None:
        """``size`` bytes of the kernel's, at ``base + offset``, to ``slot`` on the stack; else go on at ``failed``."""
        self.frame(bpf.R1, slot)
        self.move(bpf.R2, size)
        self.copy(bpf.R3, base)
        self.add(bpf.R3, offset)
        self.call(bpf.PROBE_READ_KERNEL)
        self.when(bpf.R0, "!=", 0, failed)

    def follow(self, register: int, base: int, offset: int, slot: int, failed: str) -> None:
        """``register`` = the pointer at ``base + offset``, by way of ``slot``; none: go on at ``failed``."""
        self.read_kernel(slot, 8, base, offset, failed)
        self.fetch(register, bpf.FRAME, slot)
        self.when(register, "==", 0, failed)


_SIZES = {4: 0x00, 2: 0x08, 1: 0x10, 8: 0x18}
_RELATIONS = {
    "==": 0x15, "!=": 0x55, ">": 0x25, ">=": 0x35, "<": 0xA5, "<=": 0xB5, "s>": 0x65, "s<": 0xC5,
}  # fmt: skip


def load(kind: int, code: bytes, attach_type: int = 0, function: int = 0) -> int:
    """As ``bpf.load``; but what the verifier does not like is in the error's text."""
    try:
        return bpf.load(kind, attach_type, code, 0, function)
    except OSError as error:
        said = _verified(kind, attach_type, code, function)
        if said:
            raise OSError(error.errno, f"{error.strerror}: {said}", "bpf") from None
        raise


def _verified(kind: int, attach_type: int, code: bytes, function: int) -> str:
    """The verifier's last lines about a program."""
    log = buffer(_LOG)
    try:
        posix.close(bpf.load(kind, attach_type, code, 0, function, log))
    except OSError:
        pass
    lines = log.raw.rstrip(b"\0").decode("ascii", "replace").split("\n")
    return "; ".join(line for line in lines[-4:] if line and not line.startswith(("processed", "verification")))


def attach(program: int, tracepoint: bytes | None) -> int:
    """Have a program run at a raw tracepoint, or (None) at the function that it was loaded for; a descriptor.

    It runs as long as somebody has that, or what pidfd_getfd(2) makes of it. Raises OSError.
    """
    name = None if tracepoint is None else buffer(tracepoint + b"\0")
    attr = words(address(name) if name else 0) + words(program, 0, size=4)
    return syscall("bpf", _RAW_TRACEPOINT_OPEN, attr, len(attr))


def taken_over(maps: list[tuple[int, int, int]], links: list[int]) -> tuple[list[Map], list[int]] | None:
    """Maps, each by its number and the sizes of keys and values, and links, by theirs; None where one is gone.

    Nothing is left open then. Raises OSError.
    """
    opened: list[int] = []
    try:
        found = []
        for number, key, value in maps:
            found.append(bpfmap.numbered(number, key, value))
            opened.append(found[-1].fd)
        for link in links:
            opened.append(bpf.numbered(bpf.LINK_GET_FD_BY_ID, link))
    except OSError as error:
        for fd in opened:
            posix.close(fd)
        if error.errno != ENOENT:
            raise
        return None
    return found, opened[len(found) :]
