"""Programs that read what /proc tells of the machine find one as large as the jail may use, and nobody else on it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng import Jail
from jailng.api import connection
from jailng.core import machine, procfiles
from jailng.core.index import DIRECTORY
from tests.kernel.conftest import Command, standing
from tests.kernel.stage import Stage


@pytest.fixture
def cell(jail: Command, debian: Path) -> Iterator[str]:
    """A jail with a Debian, by name."""
    with standing(jail, debian) as name:
        yield name


class Seen:
    """What a jail's root is shown of the machine."""

    def __init__(self, jexec: Command, name: str) -> None:
        self.jexec = jexec
        self.name = name

    def run(self, command: str) -> list[str]:
        """The lines that a shell command prints inside."""
        done = self.jexec(self.name, "/bin/sh", "-c", command)
        assert (done.returncode, done.stderr) == (0, ""), command
        return done.stdout.splitlines()

    def fields(self) -> dict[str, int]:
        """/proc/meminfo in kB."""
        return {line.split(":")[0]: int(line.split()[1]) for line in self.run("cat /proc/meminfo")}

    def processors(self) -> tuple[list[int], list[int]]:
        """The numbers in stat, and in cpuinfo."""
        stat = [int(line.split()[0][3:]) for line in self.run("grep ^cpu[0-9] /proc/stat")]
        return stat, [int(line.split(":")[1]) for line in self.run("grep ^processor /proc/cpuinfo")]


class State:
    """What the host keeps of the files of a jail, where only the host can open it."""

    def __init__(self, stage: Stage, jid: str) -> None:
        init = (stage.cgroup2 / "jailng" / jid / "init/cgroup.procs").read_text().strip()
        self.directory = Path(f"/proc/{init}/root/proc/driver")
        self.file = self.directory / "state"

    def read(self) -> machine.State:
        return machine.parse(self.file.read_bytes())

    def age(self, seconds: int, used: int = 0, ago: int = 0) -> None:
        """As if the files had last been made that long ago, the jail having used so much less of a processor.

        ``ago``: or then, in hundredths of a second.
        """
        state = self.read()
        state.seen = procfiles.now() - ago if ago else state.seen - 100 * seconds
        state.began -= 100 * seconds
        state.used -= 100 * used
        self.file.write_bytes(state.text)


def test_procps(jexec: Command, cell: str) -> None:
    run = Seen(jexec, cell).run
    names, memory, _ = (line.split() for line in run("free"))
    values = dict(zip(names, map(int, memory[1:]), strict=True))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    assert pages * 4 // 5 < values["total"] <= pages
    assert 0 <= values["used"] <= values["total"] - values["available"]
    assert [line.split()[-1] for line in run("ps aux")[:2]] == ["COMMAND", "init"]
    started = time.mktime(time.strptime(run("ps -o lstart= 1")[0]))
    assert abs(started - time.time()) < 60
    first = next(line for line in run("top -bn2 -d0.1") if line.startswith("%Cpu"))
    assert abs(sum(float(part.split()[0]) for part in first.split(":")[1].split(",")) - 100) < 1
    assert "load average: 0.0" in run("uptime")[0]
    assert run("w -h") == []
    for command in (
        "nproc",
        "getconf _NPROCESSORS_ONLN",
        "grep -c ^cpu[0-9] /proc/stat",
        "grep -c ^proc /proc/cpuinfo",
    ):
        assert run(command) == [str(os.cpu_count())]


def test_the_masks_are_no_part_of_the_kernels(jexec: Command, cell: str) -> None:
    """Each is a read-only file of the host's, so that what stands in it is what the host put there."""
    paths = "sys/fs/file-nr sys/fs/inode-nr sys/fs/inode-state sys/fs/dentry-state sys/fs/aio-nr sys/kernel/pty/nr"
    paths += " sys/kernel/core_pattern sys/dev sys/fs/quota meminfo stat loadavg cpuinfo"
    script = "for file in $@; do stat -f -c %T /proc/$file; done; cat /proc/sys/kernel/core_pattern; echo >/proc/stat"
    done = jexec(cell, "/bin/sh", "-c", script, "sh", paths)
    count = len(paths.split())
    assert done.stdout.splitlines() == ["ramfs"] * count + ["core"]
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize("uids", ["private", "shared"])
def test_the_host_alone_writes_them(stage: Stage, jail: Command, jexec: Command, small_root: Path, uids: str) -> None:
    """Neither by the directory that is there for it, nor by what is bound from it, nor after chmod, chown or a copy."""
    made = jail("-i", "-c", "name=cell", f"path={small_root}", "persist", f"ng.uids={uids}")
    assert made.returncode == 0, made.stderr
    try:
        state = State(stage, made.stdout.strip())
        before = {path.name: path.stat() for path in state.directory.iterdir()}
        attempts = (
            "ls /proc/driver/ || cd /proc/driver || chmod 777 /proc/driver || chown 0 /proc/driver || "
            "echo 1 >/proc/driver/state || echo 1 >/proc/meminfo || rm /proc/meminfo || chmod 666 /proc/meminfo || "
            "(exec 3</proc/stat; echo 1 >/proc/self/fd/3) || mv /proc/driver /tmp || touch /proc/loadavg || "
            "rmdir /proc || mv /proc /tmp || echo 1 >/proc/1/root/proc/driver/state || echo none"
        )
        assert jexec("cell", "sh", "-c", attempts).stdout.splitlines() == ["none"]
        after = {path.name: path.stat() for path in state.directory.iterdir()}
        assert {name: (status.st_mode, status.st_uid) for name, status in before.items()} == {
            name: (status.st_mode, status.st_uid) for name, status in after.items()
        }
    finally:
        assert jail("-r", "cell").returncode == 0


def test_limits_are_what_there_is(jail: Command, jexec: Command, debian: Path) -> None:
    """From the start, and from the moment at which they change."""
    words = ("persist", "ng.limits=memoryuse:deny=640M,pcpu:deny=100", "children.max=1")
    made = jail("-c", "name=cell", f"path={debian}", *words)
    assert made.returncode == 0, made.stderr
    try:
        cell = Seen(jexec, "cell")
        assert cell.fields()["MemTotal"] == 640 << 10
        assert cell.processors() == ([0], [0])
        assert cell.run("getconf _NPROCESSORS_ONLN") == ["1"]
        made = jail("-c", "name=cell.inner", f"path={debian}", "persist")
        assert made.returncode == 0, made.stderr
        inner = Seen(jexec, "cell.inner")
        assert inner.fields()["MemTotal"] == 640 << 10
        assert inner.processors() == ([0], [0])
        changed = jail("-m", "name=cell", "ng.limits=memoryuse:deny=320M")
        assert changed.returncode == 0, changed.stderr
        everything = list(range(os.cpu_count() or 1))
        for seen in (cell, inner):
            assert seen.fields()["MemTotal"] == 320 << 10
            assert seen.processors() == (everything, everything)
        free = dict(zip(cell.run("free")[0].split(), cell.run("free")[1].split()[1:], strict=True))
        assert free["total"] == str(320 << 10)
    finally:
        assert jail("-r", "cell").returncode == 0


def test_a_command_finds_them_fresh(stage: Stage, jail: Command, jexec: Command, debian: Path) -> None:
    """Whoever enters brings them up to date, unless that was done a moment ago."""
    made = jail("-i", "-c", "name=cell", f"path={debian}", "persist")
    assert made.returncode == 0, made.stderr
    try:
        state, cell = State(stage, made.stdout.strip()), Seen(jexec, "cell")
        cell.run("true")
        began = state.read().began
        state.age(60, used=30)
        cell.run("true")
        now = state.read()
        assert now.began == began - 6000
        # Half of a processor for a minute: 0.5 * (1 - exp(-1)), and for a fifth and a fifteenth of the time.
        assert [round(load, 1) for load in now.loads] == [0.3, 0.1, 0.0]
        assert round(float(cell.run("cat /proc/loadavg")[0].split()[0]), 1) == 0.3
        total = list(map(int, cell.run("grep '^cpu ' /proc/stat")[0].split()[1:]))
        assert 5900 * (os.cpu_count() or 1) < sum(total) < 7000 * (os.cpu_count() or 1)
        just_now = procfiles.now()
        state.age(0, ago=10)  # which is not a moment
        cell.run("true")
        assert state.read().seen >= just_now
        state.age(-3600)  # as if it had been done in an hour
        now = state.read()
        cell.run("true")
        assert state.read().seen == now.seen
    finally:
        assert jail("-r", "cell").returncode == 0


@pytest.mark.parametrize("mounts", [False, True])
def test_a_command_of_the_library_finds_them_fresh(stage: Stage, jail: Command, small_root: Path, mounts: bool) -> None:
    """But where root inside may mount there what keeps waiting whoever opens it: all jails have one helper process."""
    made = jail("-i", "-c", "name=cell", f"path={small_root}", "persist", f"allow.mount={mounts}")
    assert made.returncode == 0, made.stderr
    try:
        state = State(stage, made.stdout.strip())
        state.age(60)
        before = state.read().seen
        assert Jail.find("cell").run(["/bin/true"]).returncode == 0
        assert (state.read().seen == before) is mounts
    finally:
        connection.close()
        assert jail("-r", "cell").returncode == 0


def test_a_proc_that_is_another_now_is_left_alone(jail: Command, jexec: Command, small_root: Path) -> None:
    """The root of the jail above may exchange what it has in its tree: then nothing is written, and nobody waits."""
    outer, inner = small_root, small_root / "inner"
    subprocess.run(["cp", "-a", f"{small_root}/bin", "-t", str(_directories(inner))], check=True)
    for words in (("name=o", f"path={outer}", "children.max=1"), ("name=o.i", f"path={inner}")):
        made = jail("-c", *words, "persist")
        assert made.returncode == 0, made.stderr
    try:
        trap = "mv /inner/proc /inner/was && mkdir -p /trap/driver && echo mine >/trap/driver/state"
        trap += " && ln -s /trap /inner/proc"
        assert jexec("o", "sh", "-c", trap).returncode == 0
        for _ in range(2):
            assert jexec("o.i", "true").returncode == 0
        assert jail("-m", "name=o", "ng.limits=memoryuse:deny=64M").returncode == 0
        assert (outer / "trap/driver/state").read_text() == "mine\n"
    finally:
        assert jail("-r", "o").returncode == 0


def _directories(root: Path) -> Path:
    for name in ("dev", "proc", "tmp", "etc"):
        (root / name).mkdir(parents=True)
    return root


def test_use_is_told_where_it_is_counted(stage: Stage, jail: Command, jexec: Command, debian: Path) -> None:
    """Of memory and tasks by the jail's cgroup; of the processor always."""
    made = jail("-i", "-c", "name=cell", f"path={debian}", "persist", "ng.limits=memoryuse:deny=256M")
    assert made.returncode == 0, made.stderr
    try:
        state, cell = State(stage, made.stdout.strip()), Seen(jexec, "cell")
        cell.run("head -c 20000000 /dev/zero >/dev/shm/file")
        state.age(10)
        cell.run("true")  # while this starts they are made
        told = cell.fields()
        assert told["MemTotal"] == 256 << 10
        assert told["MemTotal"] - told["MemFree"] > 20000000 >> 10
        assert told["Shmem"] >= 20000000 >> 10
        assert told["MemAvailable"] < told["MemTotal"] - (20000000 >> 10)
    finally:
        assert jail("-r", "cell").returncode == 0


def test_a_warden_keeps_them_fresh(stage: Stage, jail: Command, small_root: Path) -> None:
    """It looks each second, whatever it is that it watches."""
    made = jail("-i", "-c", "name=cell", f"path={small_root}", "persist", "ng.limits=cputime:log=1000")
    assert made.returncode == 0, made.stderr
    try:
        state = State(stage, made.stdout.strip())
        began, until = state.read().seen, time.monotonic() + 20
        while state.read().seen < began + 80 and time.monotonic() < until:
            time.sleep(0.05)
        assert state.read().seen >= began + 80
    finally:
        assert jail("-r", "cell").returncode == 0


def test_a_bare_chroot_has_no_sys(checkout: Path, small_root: Path) -> None:
    """As ./demo is run in one with /proc alone: the first jail since the machine was booted."""
    Path(DIRECTORY, "cpuinfo").unlink(missing_ok=True)
    without = 'umount -l -R /sys && exec "$@"'
    words = [f"{checkout}/bin/jail", "-c", f"path={small_root}", "command=/bin/true"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", without, "sh", *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = Path(DIRECTORY, "cpuinfo").read_text().splitlines()
    assert sum(line.startswith("processor") for line in lines) == os.cpu_count()
