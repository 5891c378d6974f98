"""eBPF with labels, in the kernel's form: struct bpf_insn of include/uapi/linux/bpf.h."""

from __future__ import annotations

import struct
import sys

import pytest

from jailng.linux.assembler import Code
from jailng.linux.bpf import FRAME, R0, R1, R2


def _fields(code: bytes) -> list[tuple[int, int, int, int, int]]:
    """Of each instruction the code, both registers, the offset and the value."""
    found = []
    for at in range(0, len(code), 8):
        operation, registers, offset, value = struct.unpack_from("=BBhi", code, at)
        low, high = registers & 0xF, registers >> 4
        target, source = (low, high) if sys.byteorder == "little" else (high, low)
        found.append((operation, target, source, offset, value))
    return found


def test_labels_before_and_behind() -> None:
    code = Code()
    code.label("top")
    code.load(R2, R1, 4)
    code.jump_if(R2, 7, "end")
    code.jump_unless(R2, 9, "top")
    code.jump("end")
    code.store(FRAME, -8, R2)
    code.label("end")
    code.leave(1)
    assert _fields(code.assembled()) == [
        (0x61, 2, 1, 4, 0),  # r2 = *(u32 *)(r1 + 4)
        (0x16, 2, 0, 3, 7),  # if w2 == 7 goto +3
        (0x56, 2, 0, -3, 9),  # if w2 != 9 goto -3
        (0x05, 0, 0, 1, 0),  # goto +1
        (0x63, 10, 2, -8, 0),  # *(u32 *)(r10 - 8) = r2
        (0xB4, 0, 0, 0, 1),  # w0 = 1
        (0x95, 0, 0, 0, 0),  # exit
    ]


def test_words_are_without_a_sign_and_errors_with_one() -> None:
    code = Code()
    code.set(R0, 0xFFFF0000)
    code.refuse(13)
    found = _fields(code.assembled())
    assert found[0] == (0xB4, 0, 0, 0, 0xFFFF0000 - (1 << 32))
    assert found[1] == (0xB7, 1, 0, 0, -13)  # r1 = -13, of 64 bits
    assert found[2] == (0x85, 0, 0, 0, 187)


def test_a_label_that_is_nowhere() -> None:
    code = Code()
    code.jump("nowhere")
    with pytest.raises(KeyError, match="nowhere"):
        code.assembled()
