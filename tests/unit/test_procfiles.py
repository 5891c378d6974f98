"""core/procfiles.py: texts in the kernel's format."""

from __future__ import annotations

import pytest

from jailng.core import procfiles


@pytest.mark.parametrize(
    ("total", "told"), [(24684084, 20971520), (16315124, 14680064), (1 << 24, 1 << 24), (65535, 57344), (3, 3)]
)
def test_memory_is_told_roughly(total: int, told: int) -> None:
    lines = [line.split() for line in procfiles.meminfo(total).splitlines()]
    assert lines[:3] == [[name, b"%d" % told, b"kB"] for name in (b"MemTotal:", b"MemFree:", b"MemAvailable:")]


def test_meminfo_has_the_lines_of_the_kernel() -> None:
    """At least those that every kernel with this configuration has, in its columns."""
    text = procfiles.meminfo(24684084)
    for line in text.splitlines():
        name, _, value = line.partition(b":")
        assert value.endswith(b" kB") or name.startswith(b"HugePages_"), line
        assert len(line) == (24 if name.startswith(b"HugePages_") else 27) or name == b"VmallocTotal", line


def test_stat() -> None:
    lines = procfiles.stat(3, 1000000000).splitlines()
    assert [line.split()[0] for line in lines[:5]] == [b"cpu", b"cpu0", b"cpu1", b"cpu2", b"intr"]
    assert [len(line.split()) for line in lines[:4]] == [11] * 4
    assert lines[0].startswith(b"cpu  ")
    assert sum(int(line.split()[4]) for line in lines[1:4]) == int(lines[0].split()[4])
    assert b"btime 1000000000" in lines


def test_every_jail_has_a_boot_of_its_own() -> None:
    first, second = (dict(procfiles.texts())[b"sys/kernel/random/boot_id"] for _ in range(2))
    assert first != second and len(first) == 37
