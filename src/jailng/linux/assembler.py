"""eBPF with labels, for programs that are too long to count their instructions by hand: linux/bpf.py has the others.

A ``Code`` is instructions in order. Words are of 32 bits, as the kernel's contexts of sockets have them, and in the
machine's order; a register that one is loaded into has zeros above it.
"""

from __future__ import annotations

from jailng.linux import bpf

_LOAD_WORD, _LOAD_WORDS, _STORE_WORD = 0x61, 0x79, 0x63
_JUMP, _SAME, _DIFFERENT, _NULL = 0x05, 0x16, 0x56, 0x15
_AND32, _MOV32, _ADD = 0x54, 0xB4, 0x07


class Code:
    """A program in the making. Each method adds an instruction, or the few that belong together."""

    __slots__ = ("_instructions", "_labels")

    def __init__(self) -> None:
        self._instructions: list[bytes | tuple[int, int, int, str]] = []
        self._labels: dict[str, int] = {}

    def _add(self, code: int, register: int = 0, offset: int = 0, value: int = 0, source: int = 0) -> None:
        self._instructions.append(bpf.instruction(code, register, offset, value, source))

    def _jump(self, code: int, register: int, value: int, label: str) -> None:
        self._instructions.append((code, register, value, label))

    def label(self, name: str) -> None:
        """Where jumps to ``name`` go."""
        self._labels[name] = len(self._instructions)

    def copy(self, register: int, source: int) -> None:
        """``register = source``, all of it."""
        self._instructions.append(bpf.copy(register, source))

    def set(self, register: int, value: int) -> None:
        """``register = value``, of 32 bits and without a sign."""
        self._add(_MOV32, register, 0, value)

    def frame(self, register: int, offset: int) -> None:
        """``register`` = that place on the stack."""
        self.copy(register, bpf.FRAME)
        self._add(_ADD, register, 0, offset)

    def mask(self, register: int, value: int) -> None:
        """``register &= value``, of 32 bits."""
        self._add(_AND32, register, 0, value)

    def load(self, register: int, source: int, offset: int) -> None:
        """``register`` = the word at ``source + offset``."""
        self._add(_LOAD_WORD, register, offset, 0, source)

    def load_pointer(self, register: int, source: int, offset: int) -> None:
        """``register`` = the two words at ``source + offset``."""
        self._add(_LOAD_WORDS, register, offset, 0, source)

    def store(self, target: int, offset: int, register: int) -> None:
        """The word at ``target + offset`` = ``register``."""
        self._add(_STORE_WORD, target, offset, 0, register)

    def jump(self, label: str) -> None:
        """Go on at ``label``."""
        self._jump(_JUMP, 0, 0, label)

    def jump_if(self, register: int, value: int, label: str) -> None:
        """Go on at ``label`` if the word in ``register`` is ``value``."""
        self._jump(_SAME, register, value, label)

    def jump_unless(self, register: int, value: int, label: str) -> None:
        """Go on at ``label`` if the word in ``register`` is not ``value``."""
        self._jump(_DIFFERENT, register, value, label)

    def jump_if_null(self, register: int, label: str) -> None:
        """Go on at ``label`` if the pointer in ``register`` is none."""
        self._jump(_NULL, register, 0, label)

    def call(self, helper: int) -> None:
        """``r0 = helper(r1, ...)``. What is in r1 to r5 is lost."""
        self._instructions.append(bpf.call(helper))

    def leave(self, value: int) -> None:
        """Return ``value``."""
        self.set(bpf.R0, value)
        self._instructions.append(bpf.leave())

    def refuse(self, error: int) -> None:
        """Have the system call fail with that errno."""
        self._instructions.append(bpf.mov(bpf.R1, -error))
        self.call(bpf.SET_RETVAL)
        self.leave(0)

    def assembled(self) -> bytes:
        """The program, for ``bpf.load``. Raises KeyError for a label that is nowhere."""
        parts = []
        for at, found in enumerate(self._instructions):
            if isinstance(found, tuple):
                code, register, value, label = found
                parts.append(bpf.instruction(code, register, self._labels[label] - at - 1, value))
            else:
                parts.append(found)
        return b"".join(parts)
