"""The ground of what looks on: the kernel's types, maps, ring buffers, programs on raw tracepoints."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from jailng.linux import bpf, bpfmap, btf, ringbuffer, tracing
from jailng.linux.libc import NR
from jailng.observe import functionexit, ringrecord, shared
from jailng.observe.offsets import Offsets

_FCHDIR = NR["fchdir"]


def _looker(ring: int) -> int:
    """A program that tells, of this process's fchdir(2)s, the descriptor."""
    code = tracing.Code()
    code.copy(bpf.R6, bpf.R1)
    code.call(bpf.GET_CURRENT_PID_TGID)
    code.shift_right(bpf.R0, 32)
    code.when(bpf.R0, "!=", os.getpid(), "out")
    code.fetch(bpf.R7, bpf.R6, 0)
    code.read_kernel(-8, 8, bpf.R7, tracing.CALL_NUMBER, "out")
    code.fetch(bpf.R1, bpf.FRAME, -8, 4)
    code.when(bpf.R1, "!=", _FCHDIR, "out")
    code.read_kernel(-16, 8, bpf.R7, tracing.CALL_ARGUMENTS[0], "out")
    code.map(bpf.R1, ring)
    code.frame(bpf.R2, -16)
    code.move(bpf.R3, 8)
    code.move(bpf.R4, 0)
    code.call(bpf.RINGBUF_OUTPUT)
    code.label("out")
    code.leave(0)
    return tracing.load(tracing.PROG_TYPE_RAW_TRACEPOINT, code.assembled())


@pytest.fixture
def ring() -> Iterator[bpfmap.Map]:
    try:
        made = ringbuffer.create(ringbuffer.page_size())
    except PermissionError:
        pytest.skip("this root may not use BPF")
    yield made
    made.close()


def test_what_a_program_writes_is_read_once_and_by_whoever_comes_next(ring: bpfmap.Map) -> None:
    program = _looker(ring.fd)
    link = tracing.attach(program, b"sys_exit")
    reader = ringbuffer.Ring(ring.fd, ringbuffer.page_size())
    home = os.open(".", os.O_RDONLY)
    try:
        os.fchdir(home)
        thread = threading.Thread(target=os.fchdir, args=(home,))
        thread.start()
        thread.join()
        assert reader.waiting == 32
        assert [int.from_bytes(one, "little") for one in reader.read(1)] == [home]
        other = ringbuffer.Ring(ring.fd, ringbuffer.page_size())
        assert [int.from_bytes(one, "little") for one in other.read()] == [home]
        assert list(reader.read()) == []
        other.close()
        for _ in range(1000):  # the buffer has room for 256
            os.fchdir(home)
        assert len(list(reader.read())) == ringbuffer.page_size() // 16 - 1
        for _ in range(3):  # beyond the end and back at the beginning
            os.fchdir(home)
        begun = reader.position
        assert reader.skip() and reader.position == begun + 16
        assert len(list(reader.read())) == 2
        assert not reader.skip()
        os.close(link)
        os.fchdir(home)
        assert list(reader.read()) == []
    finally:
        reader.close()
        os.close(home)
        os.close(program)


def test_maps() -> None:
    try:
        table = bpfmap.create(bpfmap.HASH, 8, 4, 2)
    except PermissionError:
        pytest.skip("this root may not use BPF")
    table.put(b"one     ", b"1111")
    table.put(b"two     ", b"2222")
    with pytest.raises(OSError):
        table.put(b"three   ", b"3333")
    with pytest.raises(FileExistsError):
        table.put(b"two     ", b"4444", bpfmap.NOEXIST)
    assert sorted(table.keys()) == [b"one     ", b"two     "]
    assert table.get(b"two     ") == b"2222"
    table.drop(b"two     ")
    table.drop(b"two     ")
    assert table.get(b"two     ") is None
    table.close()


def test_what_the_verifier_refuses_is_told_of(ring: bpfmap.Map) -> None:
    code = tracing.Code()
    code.fetch(bpf.R0, bpf.R5, 0)
    code.leave(0)
    with pytest.raises(PermissionError, match="R5 !read_ok"):
        tracing.load(tracing.PROG_TYPE_RAW_TRACEPOINT, code.assembled())


@pytest.mark.skipif(not os.path.exists(btf.VMLINUX), reason="a kernel without BTF")
def test_what_looks_on_at_functions_is_verified_where_it_cannot_be_attached_too() -> None:
    """A raw tracepoint hands a program the same as the end of a function does: words that nobody vouches for."""
    try:
        maps = shared.new_maps()
    except PermissionError:
        pytest.skip("this root may not use BPF")
    programs = functionexit.programs(Offsets(), ringrecord.Maps(**{name: one.fd for name, one in maps.items()}))
    for _, code in programs:
        os.close(tracing.load(tracing.PROG_TYPE_RAW_TRACEPOINT, code))
    for one in maps.values():
        one.close()


@pytest.mark.skipif(not os.path.exists(btf.VMLINUX), reason="a kernel without BTF")
def test_members_of_the_kernels_structures() -> None:
    types = btf.Types()
    assert types.offset("task_struct", "files") > 0
    inner = types.offset("tty_struct", "ctrl", "packet")  # a member of a structure that has no name of its own
    assert types.offset("tty_struct", "ctrl") < inner < types.offset("tty_struct", "ctrl") + 64
    assert types.function("pty_write") > 0
    with pytest.raises(FileNotFoundError, match="no such member"):
        types.offset("task_struct", "no_such_member")
    with pytest.raises(FileNotFoundError, match="no such member"):
        types.offset("no_such_struct", "files")
    with pytest.raises(FileNotFoundError, match="no such function"):
        types.function("no_such_function")


def test_a_kernel_without_types_is_told_of() -> None:
    with pytest.raises(FileNotFoundError):
        btf.Types("/sys/kernel/btf/none")
    with pytest.raises(OSError, match="/proc/version"):
        btf.Types("/proc/version")
