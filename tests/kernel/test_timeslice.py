"""ng.slice: how long a jail's processes run before others have their turn (core/timeslice.py)."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jailng.core import process, registry, timeslice, undo
from jailng.engine import modify
from jailng.errors import JailError
from jailng.linux.libc import NR
from jailng.params.model import Parameters
from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace, run
from tests.kernel.stage import Stage
from tests.kernel.stdio_host import until

PYTHON = "/usr/bin/python3"
SIZE = 48
_libc = ctypes.CDLL(None, use_errno=True)

# A thread besides the first, of which nobody is told.
STAYS = """
import os, threading, time
there, done = os.pipe()
if os.fork() == 0:
    os.setsid()
    threading.Thread(target=time.sleep, args=(1000,)).start()
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3): os.dup2(null, number)
    os.write(done, b".")
    time.sleep(1000)
os.read(there, 1)
"""
TRIES = f"""
import ctypes, json, os, struct
libc = ctypes.CDLL(None, use_errno=True)
def attempt(do):
    try: do()
    except OSError as error: return error.strerror
    return "done"
def asked(length):
    wanted = struct.pack("=IIQiIQQQ", {SIZE}, 0, 0, 0, 0, length, 0, 0)
    if libc.syscall({NR["sched_setattr"]}, 0, wanted, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
said = [attempt(lambda: asked(100000))]
none = os.sched_param(0)
said.append(attempt(lambda: os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, none)))
for policy in (os.SCHED_BATCH, os.SCHED_OTHER):
    said.append(attempt(lambda: os.sched_setscheduler(0, policy, none)))
os.nice(3)
child = os.fork()
if child == 0:
    found = ctypes.create_string_buffer({SIZE})
    libc.syscall({NR["sched_getattr"]}, 0, found, {SIZE}, 0)
    print(json.dumps([said, int.from_bytes(found.raw[24:32], "little")]), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


# Four that live as long as a fork takes, each the parent of the next, until there is a file; then it says what it has.
COMETS = f"""
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
for number in range(4):
    if os.fork() == 0:
        os.setsid()
        print("on its way", flush=True)
        while not os.path.exists(sys.argv[1]):
            if libc.fork(): os._exit(0)
        found = ctypes.create_string_buffer({SIZE})
        libc.syscall({NR["sched_getattr"]}, 0, found, {SIZE}, 0)
        print(int.from_bytes(found.raw[24:32], "little"), flush=True)
        os._exit(0)
"""
# It is idle; then it says what it has.
IDLES = f"""
import ctypes, os, time
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
print("idle", flush=True)
input()
found = ctypes.create_string_buffer({SIZE})
ctypes.CDLL(None).syscall({NR["sched_getattr"]}, 0, found, {SIZE}, 0)
print(os.sched_getscheduler(0) == os.SCHED_IDLE, int.from_bytes(found.raw[24:32], "little"), flush=True)
"""


def slice_of(thread: int) -> int:
    """In nanoseconds, by sched_getattr(2)."""
    found = ctypes.create_string_buffer(SIZE)
    if _libc.syscall(NR["sched_getattr"], thread, found, SIZE, 0) != 0:
        raise OSError(ctypes.get_errno(), f"sched_getattr of {thread}")
    return int.from_bytes(found.raw[24:32], "little")


def ask_for(length: int) -> None:
    """Have this process's slice be so long, in nanoseconds."""
    wanted = process.scheduling(os.SCHED_OTHER, 0, length)
    assert _libc.syscall(NR["sched_setattr"], 0, wanted, 0) == 0


class Slices:
    """Jails with a process that stays, and the slices of all in them."""

    def __init__(self, stage: Stage, jail: Command, jexec: Command) -> None:
        self.stage = stage
        self.jail = jail
        self.jexec = jexec

    def make(self, name: str, *words: str) -> None:
        made = self.jail("-c", f"name={name}", "path=/", "persist", *words)
        assert (made.returncode, made.stderr) == (0, "")

    def stays(self, name: str) -> None:
        entered = self.jexec(name, PYTHON, "-ISc", STAYS)
        assert (entered.returncode, entered.stderr) == (0, "")

    def all_of(self, name: str) -> set[int]:
        """Of PID 1, all others and all their threads."""
        jid = run("jls", "-j", name, "jid").strip()
        (top,) = [path for path in self.stage.cgroup2.glob(f"jailng/**/{jid}") if path.is_dir()]
        files = [
            top / "init/cgroup.threads",
            *top.glob("members/cgroup.threads"),
            *top.glob("members/own/cgroup.threads"),
            *[path for name in ("broker", "sockets") for path in top.glob(f"{name}/cgroup.threads")],
        ]
        found = set()
        for thread in [int(word) for file in files for word in file.read_text().split()]:
            with suppress(ProcessLookupError):  # a broker's child that has answered ends
                found.add(slice_of(thread))
        return found


@pytest.fixture
def slices(
    stage: Stage, jail: Command, jexec: Command, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Slices]:
    if slice_of(0) == 0:
        pytest.skip("this kernel has one slice for all (Linux 6.12)")
    monkeypatch.setenv("PATH", f"{checkout}/bin:{os.environ['PATH']}")
    yield Slices(stage, jail, jexec)
    jail("-R", "a")


def test_it_is_changed_while_the_jail_runs(slices: Slices) -> None:
    usual = slice_of(0)
    slices.make("a")
    slices.stays("a")
    assert slices.all_of("a") == {usual}
    for text, expected in (("12", 12_000_000), ("40", 40_000_000), ("0", usual)):
        changed = slices.jail("-m", "name=a", f"ng.slice={text}")
        assert (changed.returncode, changed.stderr) == (0, "")
        assert slices.all_of("a") == {expected}
        slices.stays("a")
        assert slices.all_of("a") == {expected}


def test_what_was_is_asked_for(slices: Slices) -> None:
    """As where a `jail -m` was killed that had given another, and had not yet told the record."""
    slices.make("a", "ng.slice=12")
    record = registry.find("a")
    assert record is not None and record.lock()
    timeslice.change(record, Parameters.from_texts({**record.params, "ng.slice": "40"}))
    record.unlock()
    assert slices.all_of("a") == {40_000_000}
    changed = slices.jail("-m", "name=a", "ng.slice=12")
    assert (changed.returncode, changed.stderr) == (0, "")
    assert slices.all_of("a") == {12_000_000}


def test_from_its_start(slices: Slices) -> None:
    slices.make("a", "ng.slice=12")
    slices.stays("a")
    assert slices.all_of("a") == {12_000_000}


def test_who_is_to_die_comes_to_it_as_soon_as_others(slices: Slices) -> None:
    slices.make("a", "ng.slice=100")
    slices.stays("a")
    record = registry.find("a")
    assert record is not None
    undo.let_die(record)
    assert slices.all_of("a") == {slice_of(0)}


def test_of_jails_in_it(slices: Slices) -> None:
    """The nearest above that has one says it."""
    usual = slice_of(0)
    slices.make("a", "children.max=4")
    slices.make("a.b", "children.max=1")
    slices.make("a.b.d")
    slices.make("a.c", "ng.slice=20")
    names = ("a", "a.b", "a.b.d", "a.c")
    for name in names:
        slices.stays(name)
    assert [slices.all_of(name) for name in names] == [{usual}, {usual}, {usual}, {20_000_000}]
    slices.jail("-m", "name=a", "ng.slice=8")
    assert [slices.all_of(name) for name in names] == [{8_000_000}, {8_000_000}, {8_000_000}, {20_000_000}]
    slices.jail("-m", "name=a.b", "ng.slice=30")
    slices.jail("-m", "name=a", "ng.slice=10")
    assert [slices.all_of(name) for name in names] == [{10_000_000}, {30_000_000}, {30_000_000}, {20_000_000}]
    slices.jail("-m", "name=a.b", "ng.slice=0")
    assert slices.all_of("a.b.d") == {10_000_000}
    slices.jail("-r", "a.b.d")
    slices.make("a.b.d")
    slices.stays("a.b.d")
    assert slices.all_of("a.b.d") == {10_000_000}


def test_who_is_inside_may_not_set_it(slices: Slices, checkout: Path) -> None:
    slices.make("a", "children.max=1")
    tried = slices.jexec("a", f"{checkout}/bin/jail", "-c", "name=b", "path=/", "ng.slice=1", "persist")
    assert (tried.returncode, tried.stdout) == (1, "")
    assert "Operation not permitted" in tried.stderr


def test_no_other_can_be_had_inside(slices: Slices) -> None:
    slices.make("a", "ng.slice=12")
    said, has = json.loads(slices.jexec("a", PYTHON, "-ISc", TRIES).stdout)
    assert said == ["Operation not permitted", "Operation not permitted", "done", "done"]
    assert has == 12_000_000


def test_whoever_forks_and_ends_all_the_time_is_not_missed(slices: Slices, tmp_path: Path) -> None:
    slices.make("a")
    enough = tmp_path / "enough"
    comets = subprocess.Popen(["jexec", "a", PYTHON, "-ISc", COMETS, enough], stdout=subprocess.PIPE, text=True)
    assert comets.stdout is not None
    assert [comets.stdout.readline() for _ in range(4)] == ["on its way\n"] * 4
    for _ in range(8):
        assert slices.jail("-m", "name=a", "ng.slice=0").returncode == 0
        assert slices.jail("-m", "name=a", "ng.slice=12").returncode == 0
    enough.touch()
    said, _ = comets.communicate(timeout=60)
    assert said.split() == [str(12_000_000)] * 4


def test_who_is_idle_has_it_too(slices: Slices) -> None:
    slices.make("a")
    words = ["jexec", "a", PYTHON, "-ISc", IDLES]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as idle:
        assert idle.stdin is not None and idle.stdout is not None
        assert idle.stdout.readline() == "idle\n"
        assert slices.jail("-m", "name=a", "ng.slice=12").returncode == 0
        idle.stdin.write("\n")
        idle.stdin.flush()
        assert idle.stdout.readline() == f"True {12_000_000}\n"


@pytest.mark.parametrize("word", ["children.max=2", "ng.stack=shared"])
def test_those_who_work_for_it_have_it_too(slices: Slices, lan: Namespace, word: str) -> None:
    usual, longer = {slice_of(0)}, {12_000_000}
    slices.make("a", "ip4.addr=198.51.100.1", word, "ng.slice=12")
    if "children" in word:  # who answers is there
        assert slices.jexec("a", "/dev/.jailng/commands/jls").returncode == 0
    until(lambda: slices.all_of("a") == longer, "who has just been born has it, too")
    slices.jail("-m", "name=a", "ng.slice=0")
    assert slices.all_of("a") == usual
    slices.jail("-m", "name=a", "ng.slice=12")
    assert slices.all_of("a") == longer


def test_that_of_the_caller_stays_outside(slices: Slices) -> None:
    usual = {slice_of(0)}
    ask_for(100_000)
    try:
        slices.make("a")
        slices.stays("a")
        assert slices.all_of("a") == usual
    finally:
        ask_for(0)
    assert {slice_of(0)} == usual


@pytest.mark.parametrize("value", ["101", "-1", "1.5", "ms"])
def test_what_is_none(slices: Slices, value: str) -> None:
    refused = slices.jail("-c", "name=a", "path=/", "persist", f"ng.slice={value}")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "ng.slice" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_kernel_with_one_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by name, unless with ng.lenient."""
    monkeypatch.setattr(timeslice, "_now", lambda thread: (0, 0, 0))
    with pytest.raises(JailError, match=r"ng\.slice: this kernel has one slice for all processes \(Linux 6\.12\)"):
        timeslice.check(Parameters.from_texts({"ng.slice": "12"}))
    timeslice.check(Parameters.from_texts({"ng.slice": "12", "ng.lenient": "true"}))
    # Nor is the one that a jail has, 0 in a configuration, looked at again by `jail -m`, which would be refused.
    assert not modify._is_half_done(registry.Record(7), modify._slice, given=True)
