"""core/procfiles.py, machine.py, cpuinfo.py: texts in the kernel's format, of a machine as large as a jail may use."""

from __future__ import annotations

import posix

import pytest

from jailng.core import cpuinfo, machine, procfiles
from jailng.core.machine import Size, State
from jailng.core.registry import Record
from jailng.errors import JailError
from jailng.linux import content, cpuset
from jailng.params.model import Parameters


def _fields(text: bytes) -> dict[str, int]:
    return {line.split(":")[0]: int(line.split()[1]) for line in text.decode().splitlines()}


@pytest.mark.parametrize(
    ("total", "told"), [(24684084, 20971520), (16315124, 14680064), (1 << 24, 1 << 24), (65535, 57344), (3, 3), (0, 0)]
)
def test_memory_is_told_roughly(total: int, told: int) -> None:
    assert procfiles.rough(total) == told


def test_meminfo_has_the_lines_of_the_kernel() -> None:
    """At least those that every kernel with this configuration has, in its columns."""
    text = procfiles.meminfo(24684084, 0, {})
    for line in text.splitlines():
        name, _, value = line.partition(b":")
        assert value.endswith(b" kB") or name.startswith(b"HugePages_"), line
        assert len(line) == (24 if name.startswith(b"HugePages_") else 27) or name == b"VmallocTotal", line


def test_memory_that_is_not_in_use_is_free() -> None:
    use = {b"Used": 700, b"AnonPages": 300, b"Cached": 350, b"Inactive(file)": 200, b"Active(file)": 100, b"Swap": 5}
    told = _fields(procfiles.meminfo(1000, 50, use | {b"SReclaimable": 20, b"SUnreclaim": 30}))
    assert (told["MemTotal"], told["MemFree"], told["MemAvailable"]) == (1000, 300, 620)
    assert (told["Cached"], told["AnonPages"], told["Slab"]) == (350, 300, 50)
    assert (told["Active"], told["Inactive"]) == (100, 200)
    assert (told["SwapTotal"], told["SwapFree"]) == (50, 45)


def test_more_in_use_than_there_is_leaves_nothing() -> None:
    told = _fields(procfiles.meminfo(1000, 50, {b"Used": 1700, b"Swap": 70, b"Inactive(file)": 2000}))
    assert (told["MemFree"], told["SwapFree"], told["MemAvailable"]) == (0, 0, 1000)


def test_stat() -> None:
    lines = procfiles.stat([0, 1, 5], 1000000000, (300, 60, 1000), 2, 9).splitlines()
    assert [line.split()[0] for line in lines[:5]] == [b"cpu", b"cpu0", b"cpu1", b"cpu5", b"intr"]
    assert [len(line.split()) for line in lines[:4]] == [11] * 4
    assert lines[0].startswith(b"cpu  300 0 60 ")
    for field in range(1, 11):
        assert sum(int(line.split()[field]) for line in lines[1:4]) == int(lines[0].split()[field])
    assert int(lines[0].split()[4]) - 3 * 1000 + 360 == 3 * 100  # a second each
    assert {b"btime 1000000000", b"processes 9", b"procs_running 2", b"procs_blocked 0"} < {*lines}


def test_a_jail_that_has_just_begun_is_idle() -> None:
    """Of 0 in all, top(1) would make no percents."""
    line = procfiles.stat(range(2), 0, (0, 0, 0), 1, 1).splitlines()[0]
    assert line == b"cpu  0 0 0 200 0 0 0 0 0 0"


def test_stat_is_as_long_as_before() -> None:
    """So that who reads it while it is written finds no rest of the text before."""
    lengths = {len(procfiles.stat([0, 1], 0, (use, use, 100 * use), 1, use)) for use in (0, 9, 10, 12345, 99999)}
    assert max(lengths) - min(lengths) <= 1


def test_more_time_used_than_passed_leaves_none_idle() -> None:
    line = procfiles.stat([0], 0, (5000, 0, 10), 1, 1).splitlines()[0]
    assert line == b"cpu  5000 0 0 100 0 0 0 0 0 0"


def test_a_load_that_grows_by_little_at_a_time_is_kept() -> None:
    """In 0.05 s the average of a quarter of an hour of a jail that keeps a tenth of a processor busy."""
    state = State(0, 0, Size(1, 0, [0]), loads=(0.1 * 5 / 90000,) * 3)
    assert machine.parse(state.text).loads[2] == pytest.approx(state.loads[2], rel=0.001)


def test_loadavg() -> None:
    assert procfiles.loadavg((0.127, 1, 12.5), 3, 41) == b"0.13 1.00 12.50 3/41 41\n"


def test_a_state_is_read_as_it_was_written() -> None:
    state = State(1795632377, 179281, Size(524288, 17, [0, 3, 127]), 179402, 50, (0.5, 0.25, 0.125))
    read = machine.parse(state.text + b"0\n")  # the rest of a longer one, whose writer was killed
    assert (read.since, read.began, read.seen, read.used) == (1795632377, 179281, 179402, 50)
    assert list(read.loads) == [0.5, 0.25, 0.125]
    assert (read.size.memory, read.size.swap, list(read.size.processors)) == (524288, 17, [0, 3, 127])
    with pytest.raises(ValueError):
        machine.parse(b"")


def _texts(*assignments: str, parent: Record | None = None) -> dict[bytes, bytes]:
    params = Parameters()
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        params.add(name, value)
    return dict(procfiles.texts(params, parent))


def test_every_jail_has_a_boot_of_its_own() -> None:
    first, second = (_texts()[b"sys/kernel/random/boot_id"] for _ in range(2))
    assert first != second and len(first) == 37


def _jail(jid: int, limits: str, parent: int = 0) -> Record:
    record = Record(jid)
    record.parent = parent
    record.params = {"ng.limits": limits}
    return record


def test_without_limits_there_is_roughly_what_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = posix.sysconf("SC_PHYS_PAGES") * posix.sysconf("SC_PAGE_SIZE") >> 10
    told = _fields(_texts()[b"meminfo"])
    assert pages * 4 // 5 < told["MemTotal"] <= pages
    assert told["MemTotal"] & -told["MemTotal"] >= told["MemTotal"] >> 3
    assert told["SwapTotal"] == 0
    monkeypatch.setattr(machine, "_swap", lambda: 1 << 30)
    much = _fields(_texts("ng.limits=memoryuse:deny=1P,swapuse:deny=1P")[b"meminfo"])
    assert (much["MemTotal"], much["SwapTotal"]) == (told["MemTotal"], 1 << 30)


def test_limits_are_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_swap", lambda: 1 << 30)
    monkeypatch.setattr(
        posix, "sysconf", lambda name: {"SC_NPROCESSORS_ONLN": 4, "SC_NPROCESSORS_CONF": 4}.get(name, 1 << 20)
    )
    told = _texts("ng.limits=memoryuse:deny=64M,swapuse:deny=8M,pcpu:deny=150,maxproc:deny=3,memoryuse:log=1M")
    assert _fields(told[b"meminfo"])["MemTotal"] == 64 << 10
    assert _fields(told[b"meminfo"])["SwapTotal"] == 8 << 10
    assert [line.split()[0] for line in told[b"stat"].splitlines()[:4]] == [b"cpu", b"cpu0", b"cpu1", b"intr"]
    assert b"cpuinfo" in told
    assert b"cpuinfo" not in _texts("ng.limits=pcpu:deny=1000")


def test_a_limited_jail_has_processors_that_are_online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the second thread of each core is switched off: /proc/cpuinfo has no block of those."""
    numbers = {"SC_NPROCESSORS_ONLN": 3, "SC_NPROCESSORS_CONF": 6}
    monkeypatch.setattr(posix, "sysconf", lambda name: numbers.get(name, 1 << 20))
    monkeypatch.setattr(cpuset, "online", lambda: [0, 2, 4])
    told = _texts("ng.limits=pcpu:deny=150")
    assert [line.split()[0] for line in told[b"stat"].splitlines()[:4]] == [b"cpu", b"cpu0", b"cpu2", b"intr"]
    assert b"cpuinfo" not in _texts("ng.limits=pcpu:deny=300")


def test_limits_of_the_jails_above_count(monkeypatch: pytest.MonkeyPatch) -> None:
    outer, middle = _jail(1, "memoryuse:deny=64M"), _jail(2, "pcpu:deny=250,memoryuse:deny=128M", 1)
    monkeypatch.setattr("jailng.core.registry.load", {1: outer, 2: middle}.get)
    monkeypatch.setattr(cpuset, "processors", lambda _: [2, 3, 6, 7])
    told = _texts("ng.limits=memoryuse:deny=1G", parent=middle)
    assert _fields(told[b"meminfo"])["MemTotal"] == 64 << 10
    assert [line.split()[0] for line in told[b"stat"].splitlines()[1:4]] == [b"cpu2", b"cpu3", b"cpu6"]
    found = machine.of(_jail(3, "memoryuse:deny=32M", 2))
    assert (found.memory, list(found.processors)) == (32 << 10, [2, 3, 6])


def test_a_limit_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(JailError):
        machine.of_new(["memoryuse"], None)


_CPUINFO = b"""\
processor\t: 0
microcode\t: 0x1000065
flags\t\t: fpu

processor\t: 1
microcode\t: 0x1000065
flags\t\t: fpu

processor\t: 12
microcode\t: 0x1000065
flags\t\t: fpu

"""


def test_cpuinfo_has_the_processors_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "read", lambda _: _CPUINFO)
    assert cpuinfo.text([0, 12]) == b"processor\t: 0\nflags\t\t: fpu\n\nprocessor\t: 12\nflags\t\t: fpu\n\n"
