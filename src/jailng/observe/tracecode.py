"""eBPF programs that copy the kernel's own structures: what ``linux.tracing`` has, and what these need besides."""

from __future__ import annotations

from jailng.linux import bpf, tracing
from jailng.linux.bpf import FRAME, R1, R2, R3, R4, R8

_TEMPORARY = -8  # the place on the stack that these methods may use


class Trace(tracing.Code):
    """A program in the making. It keeps a record that R8 points to; what the kernel has not is 0."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        super().__init__()
        self._made = 0

    def fresh(self) -> str:
        """A label that nobody else uses."""
        self._made += 1
        return f".{self._made}"

    def zero(self, offset: int, size: int) -> None:
        """Clear the stack from ``offset`` on, ``size`` bytes, a multiple of eight."""
        for at in range(offset, offset + size, 8):
            self.put_value(FRAME, at, 0)

    def count_one(self, target: int, offset: int) -> None:
        """Add one to the eight bytes at ``target + offset``, whoever else does at the time. R1 is lost."""
        self.set(R1, 1)
        self.count(target, offset, R1)

    def keep(self, place: int, size: int, source: int, offset: int) -> None:
        """What the kernel has at ``source + offset``, to ``place`` in the record. R0 to R5 are lost."""
        self._from(source, offset)
        self.copy(R1, R8)
        self.add(R1, place)
        self._read(size)

    def hop(self, register: int, source: int, offset: int, size: int = 8) -> None:
        """``register`` = what the kernel has at ``source + offset``. R0 to R5 are lost."""
        if size != 8:
            self.zero(_TEMPORARY, 8)
        self._from(source, offset)
        self.frame(R1, _TEMPORARY)
        self._read(size)
        self.fetch(register, FRAME, _TEMPORARY, size)

    def _from(self, source: int, offset: int) -> None:
        self.copy(R3, source)
        if offset:
            self.add(R3, offset)

    def _read(self, size: int) -> None:
        self.set(R2, size)
        self.call(bpf.PROBE_READ_KERNEL)

    def output(self, source: int, size: int) -> None:
        """To the ring in R1, so many bytes from ``source`` on."""
        self.copy(R2, source)
        self.set(R3, size)
        self._output()

    def output_of(self, source: int, size: int) -> None:
        """The same, as many as that register says."""
        self.copy(R2, source)
        self.copy(R3, size)
        self._output()

    def _output(self) -> None:
        self.set(R4, 0)
        self.call(bpf.RINGBUF_OUTPUT)

    def when_words_differ(self, register: int, other: int, label: str) -> None:
        """Go on at ``label`` if the low halves of the registers differ."""
        self._instructions.append((0x5E, register | other << 4, 0, label))
