"""The program that judges mounts, run in an interpreter of the part of eBPF that it uses."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jailng.linux import bpf, lsm

MASK = (1 << 64) - 1
STACK, CONTEXT = 0x10000, 0x20000
NEW, BIND, REMOUNT, MOVE = 0, 0x1000, 0x20, 0x2000
ONLY_SHARED, ONLY_RDONLY = 1 << 20, 1


def run(program: bytes, kind: bytes | None, flags: int) -> int:
    """r0 of a program that is told of a mount of that type and flags: linux/bpf.h, with a stack of 512 bytes."""
    registers = [0] * 11
    registers[1], registers[10] = CONTEXT, STACK
    memory = {STACK - 512 + at: 0xAA for at in range(512)}  # what was there before is not 0
    for word, value in enumerate((1, 2, 3, flags, 5)):
        memory |= dict(enumerate(struct.pack("<Q", value), CONTEXT + 8 * word))
    counter = 0
    while True:
        code, both, offset, value = struct.unpack_from("<BBhi", program, 8 * counter)
        to, source = both & 0xF, both >> 4
        counter += 1
        match code:
            case 0xB7:
                registers[to] = value & MASK
            case 0xBF:
                registers[to] = registers[source]
            case 0x07:
                registers[to] = registers[to] + value & MASK
            case 0x57:
                registers[to] &= value & MASK
            case 0x5F:
                registers[to] &= registers[source]
            case 0x18:
                high = struct.unpack_from("<i", program, 8 * counter + 4)[0]
                registers[to] = (high & 0xFFFFFFFF) << 32 | value & 0xFFFFFFFF
                counter += 1
            case 0x79:
                registers[to] = int.from_bytes(
                    bytes(memory[registers[source] + offset + i] for i in range(8)), "little"
                )
            case 0x7B:
                memory |= dict(enumerate(struct.pack("<Q", registers[source]), registers[to] + offset))
            case 0x15:
                counter += offset if registers[to] == value & MASK else 0
            case 0x5D:
                counter += offset if registers[to] != registers[source] else 0
            case 0x85:
                assert (value, registers[2], registers[3]) == (115, 16, 3)  # bpf_probe_read_kernel_str(to, size, from)
                if kind is not None:
                    memory |= dict(enumerate(kind[:15] + b"\0", registers[1]))
                registers[0] = (min(len(kind), 15) + 1 if kind is not None else -14) & MASK
                registers[1:6] = [0x5A5A] * 5
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"instruction {counter - 1}: {code:#x}")


PROGRAMS = [[b"tmpfs"], [b"fuse"], [b"tmpfs", b"fuse"]]


@pytest.mark.parametrize("types", PROGRAMS)
def test_types_that_are_named_and_no_other(types: list[bytes]) -> None:
    program = lsm.judge(types)
    for kind in (b"tmpfs", b"fuse", b"fuse.sshfs", b"fuse.a-very-long-name-indeed"):
        assert run(program, kind, NEW) == (kind.partition(b".")[0] in types), kind
        assert run(program, kind, ONLY_RDONLY) == (kind.partition(b".")[0] in types), kind
    for (
        kind
    ) in b"ramfs proc sysfs devpts mqueue overlay cgroup cgroup2 bpf binfmt_misc ext4 tmpf tmpfss fus fuseblk".split():
        assert run(program, kind, NEW) == 0, kind
    for other in (b"", b"TMPFS", b"xtmpfs", b"devtmpfs", b"fusectl", b" tmpfs", b"fuse-", None):
        assert run(program, other, NEW) == 0, other


@given(st.binary(max_size=40).map(lambda kind: kind.replace(b"\0", b"")))
@example(b"fuse.")
@example(b"fuse")
@example(b"tmpfs.tmpfs")
def test_any_type(kind: bytes) -> None:
    for types in PROGRAMS:
        assert run(lsm.judge(types), kind, NEW) == (kind.partition(b".")[0] in types)


@pytest.mark.parametrize("flags", [BIND, REMOUNT, REMOUNT | BIND, MOVE, ONLY_SHARED, 1 << 17, 1 << 18, 1 << 19])
@pytest.mark.parametrize("kind", [None, b"", b"none", b"proc"])
def test_what_mounts_nothing_new_is_the_filters_to_judge(flags: int, kind: bytes | None) -> None:
    assert run(lsm.judge([b"tmpfs"]), kind, flags) == 1


def test_text_on_the_stack() -> None:
    for content in (b"a", b"1234567", b"12345678", b"bpf_lsm_sb_mount"):
        code, at = bpf.text(content)
        code += bpf.copy(bpf.R3, bpf.FRAME) + bpf.fetch(bpf.R0, bpf.R3, at) + bpf.leave()
        assert run(code, None, NEW) == int.from_bytes((content + b"\0").ljust(8, b"\0")[:8], "little")
        assert at % 8 == 0 and -at > len(content)
