"""ng.limits: what the kernel limits bites, the host and a neighbour do not notice, and who enters is let in."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jailng.core import halt, limit, mechanism, registry, rlimit, share
from jailng.engine import inside
from jailng.linux import cgroup, controller
from jailng.params.limit import read
from tests.kernel.conftest import Command
from tests.kernel.stage import Stage

PER_JAIL = "jailng/88"
FULL = "for i in $(seq 40); do sleep 1000 & done >/dev/null 2>&1"
MIB = 1 << 20
# Four that live as long as a fork takes, each the parent of the next, among many whom it takes longer to look at; when
# there is a file they say how many files they may have open.
COMETS = """
import ctypes, os, resource, sys, time
for number in range(600):
    os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}, file_actions=[(os.POSIX_SPAWN_CLOSE, n) for n in (1, 2)])
for number in range(4):
    if os.fork() == 0:
        print("on its way", flush=True)
        while not os.path.exists(sys.argv[1]):
            if ctypes.pythonapi.fork(): os._exit(0)
        print(resource.getrlimit(resource.RLIMIT_NOFILE)[1], flush=True)
        os._exit(0)
"""


class Cell:
    """Jail 88, by name cell."""

    def __init__(self, jail: Command, jexec: Command, jls: Command, stage: Stage, root: Path) -> None:
        self.jail = jail
        self.jexec = jexec
        self.jls = jls
        self.stage = stage
        self.root = root

    def make(self, *words: str) -> None:
        made = self.jail("-c", "jid=88", "name=cell", f"path={self.root}", "persist", *words)
        assert (made.returncode, made.stderr) == (0, "")

    def change(self, limits: str) -> None:
        changed = self.jail("-m", "name=cell", f"ng.limits={limits}")
        assert (changed.returncode, changed.stderr) == (0, "")

    def sh(self, script: str) -> subprocess.CompletedProcess[str]:
        return self.jexec("cell", "sh", "-c", script)

    def says(self, script: str) -> str:
        done = self.sh(script)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def is_entered(self) -> None:
        """By somebody who needs no further process there."""
        done = self.jexec("cell", "echo", "here")
        assert (done.stdout, done.returncode) == ("here\n", 0), done.stderr

    def members(self) -> list[str]:
        return (self.stage.cgroup2 / PER_JAIL / "members/cgroup.procs").read_text().split()

    def counter(self, name: str, v1: str, v2: str) -> str:
        """A file of the jail's cgroup, in the hierarchy that has the controller."""
        return self.file(name, v1, v2).read_text().strip()

    def file(self, name: str, v1: str, v2: str, path: str = PER_JAIL) -> Path:
        top = controller.hierarchy(name)
        return Path(top, path.replace("/members/", "/"), v1) if top else self.stage.cgroup2 / path / v2


@pytest.fixture
def cell(jail: Command, jexec: Command, jls: Command, stage: Stage, small_root: Path) -> Iterator[Cell]:
    yield Cell(jail, jexec, jls, stage, small_root)
    removed = jail("-R", "cell")
    assert removed.returncode == 0 or "not found" in removed.stderr
    for hierarchy in stage.hierarchies:
        assert not os.path.exists(f"{hierarchy.mounted.target}/jailng")


@pytest.fixture
def neighbour(jail: Command, jexec: Command, small_root: Path) -> Iterator[Callable[[str], str]]:
    made = jail("-c", "jid=89", "name=neighbour", f"path={small_root}", "persist")
    assert made.returncode == 0, made.stderr

    def says(script: str) -> str:
        done = jexec("neighbour", "sh", "-c", script)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    yield says
    assert jail("-r", "neighbour").returncode == 0


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    """A counter of the kernel's that nobody tells of."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_processes(cell: Cell, neighbour: Callable[[str], str]) -> None:
    cell.make("ng.limits=maxproc:deny=10")
    assert cell.sh(FULL).returncode != 0
    assert len(cell.members()) == 9  # and the shell that began them
    assert cell.sh("sleep 1 & wait").returncode != 0
    cell.is_entered()
    assert neighbour("(sleep 0; sleep 0) | cat; echo well") == "well"
    cell.change("maxproc:deny=12")
    assert cell.sh(FULL).returncode != 0
    assert len(cell.members()) == 11
    cell.change("nthr:deny=5")  # those that are there stay
    assert len(cell.members()) == 11
    assert cell.sh("sleep 1 & wait").returncode != 0
    cell.is_entered()
    cell.change("")
    assert cell.counter("pids", "pids.max", "members/pids.max") == _of_processes(share.usual())
    cell.change(f"maxproc:deny={share.UNLIMITED}")
    assert cell.counter("pids", "pids.max", "members/pids.max") == "max"
    assert cell.jls("-j", "cell", "ng.limits").stdout == f"maxproc:deny={share.UNLIMITED}\n"


def _of_processes(most: int) -> str:
    """In v1 PID 1 is in the same directory."""
    return str(most + 1 if controller.hierarchy("pids") else most)


def test_a_bomb_of_processes(cell: Cell, neighbour: Callable[[str], str]) -> None:
    cell.make("ng.limits=maxproc:deny=300")
    cell.sh("bomb() { while :; do sleep 1000 | bomb & done; }; bomb >/dev/null 2>&1 &")
    until(lambda: len(cell.members()) > 250)
    assert neighbour("sleep 0; echo well") == "well"
    cell.is_entered()


def test_every_jail_has_a_limit_and_a_share(cell: Cell) -> None:
    cell.make()
    assert 64 <= share.usual() <= 2048
    assert cell.counter("pids", "pids.max", "members/pids.max") == _of_processes(share.usual())
    assert cell.counter("cpu", "cpu.shares", "cpu.weight") in ("1024", "100")
    together = cell.file("cpu", "cpu.shares", "cpu.weight", "jailng").read_text().strip()
    assert together == (str(1024 * (os.cpu_count() or 1)) if controller.hierarchy("cpu") else "100")
    pid = cell.says("sleep 1000 >/dev/null 2>&1 & exec cat /proc/self/cgroup")
    assert all(line.endswith(":/") for line in pid.splitlines())
    (member,) = cell.members()
    found = Path(f"/proc/{member}/cgroup").read_text()
    for name in controller.WANTED:
        if controller.hierarchy(name):
            assert f":{controller.V1[name]}:/{PER_JAIL}\n" in found
    init = (cell.stage.cgroup2 / PER_JAIL / "init/cgroup.procs").read_text().strip()
    assert Path(f"/proc/{init}/cgroup").read_text().replace("/init\n", "/members\n") == found


def test_memory(cell: Cell, neighbour: Callable[[str], str]) -> None:
    of_others = cell.stage.processes().keys()
    cell.make("ng.limits=memoryuse:deny=48M")
    take = "dd if=/dev/zero of=/dev/null bs=%dM count=1 2>/dev/null"
    assert cell.sh(take % 16).returncode == 0
    assert cell.sh(take % 96).returncode in (-9, 137)
    cell.sh("while :; do tail /dev/zero; done >/dev/null 2>&1 &")  # takes all there is, is killed, and again
    kills = cell.file("memory", "memory.oom_control", "memory.events")
    until(lambda: "oom_kill 0" not in kills.read_text().splitlines())
    cell.is_entered()
    assert neighbour(take % 96 + "; echo well") == "well"
    cell.jexec("cell", "kill", "-9", "-1")
    cell.change("memoryuse:deny=160M")
    assert cell.sh(take % 96).returncode == 0
    cell.change("memoryuse:deny=48M")
    assert cell.sh(take % 96).returncode in (-9, 137)
    # What stays when processes are killed does not keep anybody from entering.
    assert "No space left" in cell.sh("dd if=/dev/zero of=/dev/shm/x bs=1M").stderr
    assert cell.says("wc -c </dev/shm/x") == str(24 * MIB)
    cell.is_entered()
    assert of_others <= cell.stage.processes().keys()  # none of these was taken
    refused = cell.jail("-m", "name=cell", "ng.limits=memoryuse:deny=48M,shmsize:deny=1M")
    assert refused.stderr == "jail: ng.limits: shmsize: more is in use, in /dev/shm\n"
    assert cell.jls("-j", "cell", "ng.limits").stdout == f"memoryuse:deny={48 * MIB}\n"


def test_processors(cell: Cell) -> None:
    cell.make("ng.limits=pcpu:deny=20")
    cell.sh("while :; do :; done >/dev/null 2>&1 &")
    cell.change("pcpu:deny=1")  # a busy machine may not give it a fifth of a processor
    stat = cell.file("cpu", "cpu.stat", "cpu.stat")
    until(lambda: "nr_throttled 0" not in stat.read_text().splitlines(), 120)
    cell.change("pcpu:deny=20")
    assert limit.usage(_record())["pcpu"] < 60
    cell.is_entered()
    cell.change("pcpu:deny=150")
    assert cell.counter("cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "150000"
    cell.change("")
    assert cell.counter("cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] in ("-1", "max")


def test_what_each_process_may_have(cell: Cell) -> None:
    cell.make(
        "ng.limits=openfiles:deny=20,datasize:deny=64M,stacksize:deny=4M/process,vmemoryuse:deny=256M,"
        "memorylocked:deny=64K,coredumpsize:deny=1M"
    )
    told = cell.says("ulimit -Hn; ulimit -Hd; ulimit -Hs; ulimit -Hv; ulimit -Hl; ulimit -Hc")
    assert told.split() == ["20", "65536", "4096", "262144", "0", "0"]
    files = 'for i in $(seq 3 30); do eval "exec $i</dev/null" || exit 1; done'
    assert cell.sh(files).returncode != 0
    cell.sh("sleep 1000 >/dev/null 2>&1 &")
    (pid,) = cell.members()
    cell.change("openfiles:deny=10")
    assert "Max open files            10                   10 " in Path(f"/proc/{pid}/limits").read_text()
    cell.change("openfiles:deny=100")
    assert cell.sh(files).returncode == 0
    assert "Max open files            10 " in Path(f"/proc/{pid}/limits").read_text()  # it is not given more


def test_all_stand_still_meanwhile(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    cell.make()
    cell.sh("sleep 1000 >/dev/null 2>&1 &")
    seen = []

    def frozen(record: registry.Record) -> bytes:
        return cgroup.read(f"{record.cgroup}/members/cgroup.freeze")

    monkeypatch.setattr(rlimit, "lower", lambda record, amounts: seen.append(frozen(record)))
    record = registry.find("cell")
    assert record is not None and record.lock()
    try:
        mechanism.set_limits(record, read(["openfiles:deny=50"]))
    finally:
        record.unlock()
    assert (seen, frozen(record)) == ([b"1\n"], b"0\n")


def test_who_forks_and_ends_all_the_time_is_not_missed(jail: Command, checkout: Path, tmp_path: Path) -> None:
    assert jail("-c", "name=cell", "path=/", "persist").returncode == 0
    words = [f"{checkout}/bin/jexec", "cell", "/usr/bin/python3", "-ISc", COMETS, f"{tmp_path}/enough"]
    comets = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert comets.stdout is not None
        assert [comets.stdout.readline() for _ in range(4)] == ["on its way\n"] * 4
        for most in range(100, 90, -1):
            assert jail("-m", "name=cell", f"ng.limits=openfiles:deny={most}").returncode == 0
        (tmp_path / "enough").touch()
        assert comets.communicate(timeout=60)[0].split() == ["91"] * 4
    finally:
        jail("-r", "cell")


def test_what_is_its_own(cell: Cell) -> None:
    cell.make(
        "ng.limits=pseudoterminals:deny=2,shmsize:deny=2M,nshm:deny=3,nsem:deny=40,nsemop:deny=5,msgqsize:deny=4K,"
        "nmsgq:deny=6"
    )
    open_three = "exec 3<>/dev/ptmx && exec 4<>/dev/ptmx && echo two && exec 5<>/dev/ptmx"
    done = cell.sh(open_three)
    assert done.stdout == "two\n" and done.returncode != 0
    values = "cd /proc/sys; cat kernel/shmmax kernel/shmall kernel/shmmni kernel/sem kernel/msgmnb kernel/msgmni"
    told = cell.says(f"{values} fs/mqueue/queues_max").split()
    assert told == [str(2 * MIB), "512", "3", "32000", "40", "5", "32000", "4096", "6", "6"]
    assert cell.sh("dd if=/dev/zero of=/dev/shm/x bs=1M").returncode != 0
    assert cell.says("wc -c </dev/shm/x; rm /dev/shm/x") == str(2 * MIB)
    assert Path("/proc/sys/kernel/msgmni").read_text() != "6\n"
    cell.change("pseudoterminals:deny=3")
    assert cell.sh(open_three).returncode == 0
    assert cell.says(values).split()[2:4] == ["4096", "32000"]
    assert ",size=524288k," in cell.says("grep /dev/shm /proc/mounts")


def test_none_at_all_is_lifted_again(cell: Cell) -> None:
    """As what sysvshm=disable shuts while the jail runs looks, and is not."""
    values = "cd /proc/sys/kernel; echo $(cat shmmni sem msgmni)"
    cell.make("sysvshm=new", "sysvsem=new", "sysvmsg=new")
    before = cell.says(values)
    cell.change("nshm:deny=0,nmsgq:deny=0,nsem:deny=0")
    assert cell.says(values) == "0 32000 0 500 32000 0"
    cell.change("")
    assert cell.says(values) == before
    changed = cell.jail("-m", "name=cell", "sysvshm=disable", "ng.limits=nmsgq:deny=7")
    assert (changed.returncode, changed.stderr) == (0, "")
    assert cell.says(values).split()[0] == "0"
    cell.change("nmsgq:deny=8")
    assert cell.says(values).split()[::5] == ["0", "8"]
    changed = cell.jail("-m", "name=cell", "sysvshm=new", "ng.limits=nshm:deny=3")
    assert (changed.returncode, changed.stderr) == (0, "")
    assert cell.says(values).split()[0] == "3"


@pytest.mark.parametrize("uids", ["private", "shared"])
def test_no_terminal_at_all(cell: Cell, uids: str) -> None:
    """devpts(5) takes 0 for no limit. With the host's uids root inside may open what nobody may, once."""
    open_one, open_two = "exec 3<>/dev/ptmx", "exec 3<>/dev/ptmx && exec 4<>/dev/ptmx"
    cell.make("ng.limits=pseudoterminals:deny=0", f"ng.uids={uids}")
    assert cell.sh(open_one if uids == "private" else open_two).returncode != 0
    assert cell.jexec("-U", "alice", "cell", "sh", "-c", open_one).returncode != 0
    cell.change("")
    assert cell.jexec("-U", "alice", "cell", "sh", "-c", open_two).returncode == 0
    cell.change("pseudoterminals:deny=0")
    assert cell.jexec("-U", "alice", "cell", "sh", "-c", open_one).returncode != 0


def test_as_many_as_there_can_be(cell: Cell) -> None:
    cell.make("ng.limits=pseudoterminals:deny=1G")
    assert ",max=1024 " not in cell.says("grep /dev/pts /proc/mounts")


def test_of_memory_a_part_is_left_to_processes(cell: Cell) -> None:
    cell.make("sysvshm=new", "ng.limits=memoryuse:deny=64M")
    assert cell.says("cat /proc/sys/kernel/shmall") == str((8 << 20) // 4096)
    assert ",size=32768k," in cell.says("grep /dev/shm /proc/mounts")


def test_a_guest_that_has_filled_its_run_lives(cell: Cell) -> None:
    """Of a fifth of the machine's memory it has what its limit leaves."""
    for name in ("sbin", "etc", "run"):
        (cell.root / name).mkdir(exist_ok=True)
    (cell.root / "sbin/init").symlink_to("/bin/busybox")
    (cell.root / "etc/inittab").write_text("::respawn:/bin/busybox sleep 1000\n")
    cell.make("ng.init=sysv", "ng.limits=memoryuse:deny=64M")
    size = "grep -o ' /run .*size=[0-9]*k' /proc/mounts | cut -d= -f2"
    assert cell.says(size) == "8192k"
    assert "No space left" in cell.sh("dd if=/dev/zero of=/run/x bs=64k").stderr
    cell.is_entered()
    refused = cell.jail("-m", "name=cell", "ng.limits=memoryuse:deny=32M")
    assert refused.stderr == "jail: ng.limits: memoryuse: more is in use, in /run\n"
    cell.change("")
    assert int(cell.says(size).rstrip("k")) > 8192


def test_a_change_that_fails_leaves_all_as_it_was(cell: Cell) -> None:
    cell.make("sysvshm=new", "ng.limits=maxproc:deny=9", "ng.slice=5")
    told = "echo $(cat /proc/sys/kernel/shmmni)"
    before = cell.says(told)
    words = ("ng.limits=maxproc:deny=3,openfiles:deny=50", "ng.slice=20", "sysvshm=disable", "ng.quota=1G")
    refused = cell.jail("-m", "name=cell", *words)
    assert (refused.returncode, refused.stderr.startswith("jail: ng.quota: ")) == (1, True)
    assert cell.counter("pids", "pids.max", "members/pids.max") == _of_processes(9)
    assert cell.says(told) == before
    assert not _record().limiting


def _write_what_is_read(cell: Cell) -> None:
    """/file, half a megabyte that is on the disk; skips where no disk can be limited."""
    if controller.hierarchy("io") is None:
        pytest.skip("the stage has not the controller io")
    with (cell.root / "file").open("wb") as file:
        file.write(os.urandom(MIB // 2))
        file.flush()
        os.fsync(file.fileno())


def test_disks(cell: Cell) -> None:
    _write_what_is_read(cell)
    cell.make("ng.limits=readbps:throttle=1M,writeiops:throttle=50")
    began = time.monotonic()
    assert cell.sh("dd if=/file of=/dev/null bs=64k iflag=direct 2>/dev/null").returncode == 0
    assert time.monotonic() - began > 0.2  # half a second, but for what a slice lets pass
    limits = cell.counter("io", "blkio.throttle.read_bps_device", "io.max")
    assert str(MIB) in limits
    cell.is_entered()
    cell.change("readbps:throttle=1G")
    assert str(MIB << 10) in cell.counter("io", "blkio.throttle.read_bps_device", "io.max")
    cell.change("readiops:throttle=4G")  # more than the kernel counts to
    assert cell.counter("io", "blkio.throttle.read_iops_device", "io.max") == ""
    cell.change("")
    assert cell.counter("io", "blkio.throttle.read_bps_device", "io.max") == ""
    assert cell.counter("io", "blkio.throttle.write_iops_device", "io.max") == ""


def test_who_waits_for_a_disk_is_let_die(cell: Cell) -> None:
    """SIGTERM ends him, but not before the disk has answered: it took stop.timeout, and SIGKILL."""
    _write_what_is_read(cell)
    cell.make("ng.limits=readbps:throttle=1000")
    cell.sh("dd if=/file of=/dev/null bs=64k iflag=direct >/dev/null 2>&1 &")
    (waiting,) = cell.members()
    until(lambda: Path(f"/proc/{waiting}/stat").read_text().rpartition(") ")[2].startswith("D"))
    assert not inside.all_are_dying(_record())  # while one is there that may live on, the limit holds
    os.kill(int(waiting), signal.SIGTERM)
    assert inside.all_are_dying(_record())
    conf = cell.root.parent / "jail.conf"
    conf.write_text(f'cell {{ path = "{cell.root}"; stop.timeout = 1000; }}\n')
    assert cell.jail("-f", str(conf), "-r", "cell", timeout=300).returncode == 0


def test_disks_of_jails_in_it(cell: Cell, jail: Command, jexec: Command) -> None:
    """Whether they were made before the limit or after it, and have one of their own, or had one before the outer."""
    if controller.hierarchy("io") is None:
        pytest.skip("the stage has not the controller io")
    cell.make("children.max=3")
    for name in ("before", "own", "after"):
        if name == "after":
            cell.sh("sleep 1000 >/dev/null 2>&1 &")
            cell.change("readbps:throttle=1M")
        words = ["ng.limits=readbps:throttle=1G"] if name == "own" else []
        made = jail("-c", f"name=cell.{name}", f"path={cell.root}", "persist", *words)
        assert (made.returncode, made.stderr) == (0, "")
    for name in ("cell", "cell.before", "cell.own", "cell.after"):
        assert jexec(name, "sh", "-c", "sleep 1000 >/dev/null 2>&1 &").returncode == 0
        record = _record(name)
        for pid in [*cgroup.members(record.members), *([] if name == "cell" else [record.init_pid])]:
            assert f"/{PER_JAIL}" in _cgroup_of(pid, "blkio" if controller.hierarchy("io") else ""), name
    assert cell.jail("-r", "cell.own").returncode == 0


def _cgroup_of(pid: int, name: str) -> str:
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    return next(path for _, names, path in lines if name in names.split(","))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            "ng.limits=msgqqueued:deny=5",
            "msgqqueued: Linux limits the bytes of a queue (msgqsize), and not its messages",
        ),
        ("ng.limits=pcpu:deny=0", "pcpu: 0: a jail without any processor cannot even be ended"),
        ("ng.limits=disk:deny=0", "disk: 0: to the kernel that is a quota without a limit"),
        (
            "sysvshm=inherit sysvsem=inherit sysvmsg=inherit ng.limits=nshm:deny=5",
            "nshm: the jail has the host's System V IPC (sysvshm=inherit)",
        ),
    ],
)
def test_what_cannot_be_limited_is_refused_by_name(cell: Cell, words: str, why: str) -> None:
    refused = cell.jail("-c", "jid=88", "name=cell", f"path={cell.root}", "persist", *words.split(" "))
    assert (refused.stdout, refused.returncode) == ("", 1)
    assert refused.stderr.endswith(f"ng.limits: {why}\n")
    assert refused.stderr.count("\n") == 1
    assert not (cell.stage.cgroup2 / "jailng").exists()


def test_lenience(cell: Cell) -> None:
    """What can be limited is."""
    words = (
        "persist",
        "ng.lenient",
        "ng.limits=maxproc:deny=7,swapuse:deny=0,msgqqueued:deny=5,nshm:deny=3,memoryuse:deny=64M",
    )
    made = cell.jail("-c", "jid=88", "name=cell", f"path={cell.root}", *words)
    assert made.returncode == 0
    assert (
        made.stderr
        == "jail: ng.limits: msgqqueued: Linux limits the bytes of a queue (msgqsize), and not its messages\n"
    )
    assert cell.counter("pids", "pids.max", "members/pids.max") == _of_processes(7)
    assert cell.says("cat /proc/sys/kernel/shmmni") == "3"


def test_swap(cell: Cell) -> None:
    v1 = bool(controller.hierarchy("memory"))
    refused = cell.jail("-c", "jid=88", "name=cell", f"path={cell.root}", "persist", "ng.limits=swapuse:deny=16M")
    if v1:
        assert refused.stderr.endswith(
            "swapuse: cgroup v1 limits memory and swap together: memoryuse is needed as well\n"
        )
        cell.make("ng.limits=memoryuse:deny=64M,swapuse:deny=16M")
    both = cell.counter("memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
    assert both == str((80 if v1 else 16) * MIB)
    cell.change("memoryuse:deny=128M,swapuse:deny=0")
    assert cell.counter("memory", "memory.memsw.limit_in_bytes", "memory.swap.max") == str((128 if v1 else 0) * MIB)


def test_a_jail_in_it_has_no_more(cell: Cell, jail: Command, jexec: Command) -> None:
    cell.make("children.max=2", "ng.limits=maxproc:deny=12,pcpu:deny=50,openfiles:deny=30,nshm:deny=3")
    made = jail(
        "-c", "name=cell.inner", "jid=90", f"path={cell.root}", "persist",
        "ng.limits=maxproc:deny=100,pcpu:deny=100,openfiles:deny=100,nshm:deny=10",
    )  # fmt: skip
    assert (made.returncode, made.stderr) == (0, "")
    inner = cell.stage.cgroup2 / f"{PER_JAIL}/members/90/members/cgroup.procs"
    assert jexec("cell.inner", "sh", "-c", FULL).returncode != 0
    assert 9 <= len(inner.read_text().split()) <= 12
    assert cell.sh("sleep 1 & wait").returncode != 0
    entered = jexec("cell.inner", "sh", "-c", "ulimit -Hn; read n </proc/sys/kernel/shmmni; echo $n")
    assert entered.stdout.split() == ["30", "3"]
    changed = jail("-m", "name=cell.inner", "ng.limits=maxproc:deny=2,pcpu:deny=45")
    assert (changed.returncode, changed.stderr) == (0, "")
    cell.change("maxproc:deny=100,pcpu:deny=40")
    assert jexec("cell.inner", "sh", "-c", "sleep 1 & wait").returncode != 0
    assert cell.sh("sleep 0 & wait").returncode == 0
    # Who has just ended may be counted still.
    until(lambda: limit.usage(_record())["maxproc"] == len(inner.read_text().split()))
    assert jail("-r", "cell.inner").returncode == 0


def test_beside_a_jail_in_it_its_own_have_one_share(cell: Cell, jail: Command) -> None:
    """With v1 each of them had as much as that jail: beside fifty that were busy nobody could enter or remove it."""
    cell.make("children.max=1")
    start = "exec.start=/bin/busybox sleep 1000 >/dev/null 2>&1 &"
    inner = jail("-c", "jid=90", "name=cell.in", f"path={cell.root}", start)
    assert (inner.returncode, inner.stderr) == (0, "")
    cell.sh("sleep 1000 >/dev/null 2>&1 &")
    groups = []
    for leaf in ("own", "90/members"):
        (pid,) = (cell.stage.cgroup2 / PER_JAIL / "members" / leaf / "cgroup.procs").read_text().split()
        paths = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
        groups.append(paths["cpu" if controller.hierarchy("cpu") else ""])
    assert groups[0].endswith("/own")
    assert groups[1].startswith(f"{groups[0].removesuffix('own')}90")
    cell.jexec("cell", "kill", "-9", "-1")


def test_what_is_its_own_in_jails_in_it(cell: Cell, jail: Command, jexec: Command) -> None:
    """Each has that for itself, with or without limits of its own, and however deep it lies."""
    cell.make("children.max=3", "ng.limits=nshm:deny=3,shmsize:deny=1M,pseudoterminals:deny=2")
    told = "cat /proc/sys/kernel/shmmni; grep -o 'shm.*size=[0-9]*k' /proc/mounts; grep -o ',max=[0-9]*' /proc/mounts"
    expected = cell.says(told)
    for name, words in (("cell.inner", ["children.max=1"]), ("cell.inner.most", ["ng.limits=openfiles:deny=99"])):
        made = jail("-c", f"name={name}", f"path={cell.root}", "persist", *words)
        assert (made.returncode, made.stderr) == (0, "")
        assert jexec(name, "sh", "-c", told).stdout.strip() == expected
    changed = jail("-m", "name=cell.inner", "ng.limits=nsem:deny=7")
    assert (changed.returncode, changed.stderr) == (0, "")
    assert jexec("cell.inner.most", "sh", "-c", told).stdout.strip() == expected
    assert jexec("cell.inner.most", "cat", "/proc/sys/kernel/sem").stdout.split()[1] == "7"


def test_a_jail_that_is_full_is_given_a_jail(cell: Cell, jail: Command, jexec: Command) -> None:
    cell.make("children.max=2", "ng.limits=maxproc:deny=1")
    for name, most in (("cell.inner", 1), ("cell.inner.most", 0)):
        made = jail("-c", f"name={name}", f"path={cell.root}", "persist", f"children.max={most}")
        assert (made.returncode, made.stderr) == (0, "")
        cell.sh("exec sleep 1000 >/dev/null 2>&1 &")
        assert jexec(name, "sh", "-c", "sleep 0 & wait").returncode != 0
        seen = jexec(name, "cat", "/proc/self/cgroup").stdout.splitlines()
        assert seen and all(line.endswith(":/") for line in seen)
        record = _record(name)
        assert cgroup.members(f"{record.cgroup}/init") == [record.init_pid]
    assert jail("-r", "cell").returncode == 0


def test_a_jail_that_is_full_is_entered_by_any_number(cell: Cell, jail: Command, jexec: Command) -> None:
    """Whom cgroup2 lets not be born among the members is born beside PID 1, of which there may not be many either."""
    cell.make("children.max=1", "ng.limits=maxproc:deny=2")
    assert jail("-c", "name=cell.inner", f"path={cell.root}", "persist").returncode == 0
    cell.sh("exec sleep 1000 >/dev/null 2>&1 &")
    most = cell.stage.cgroup2 / PER_JAIL / "init/pids.max"
    if most.exists():  # as it is while others enter, or whoever traces PID 1 has it fork
        most.write_text("1")
    for name in ("cell", "cell.inner"):
        assert jexec(name, "echo", "here").stdout == "here\n"
        done = jexec("-U", "alice", name, "id", "-un")
        assert (done.stdout, done.stderr) == ("alice\n", "")
        seen = jexec(name, "cat", "/proc/self/cgroup").stdout.splitlines()
        assert seen and all(line.endswith(":/") for line in seen)


def test_usage(cell: Cell, neighbour: Callable[[str], str]) -> None:
    cell.make("sysvmsg=new", "sysvsem=new", "sysvshm=new", "ng.limits=memoryuse:deny=64M")
    cell.sh("dd if=/dev/zero of=/dev/shm/x bs=1M count=4 2>/dev/null")
    cell.sh("exec 3<>/dev/ptmx; sleep 1000 >/dev/null 2>&1 & until pidof sleep; do :; done")
    until(lambda: limit.usage(_record())["maxproc"] == 1)  # who has just ended may be counted still
    used = limit.usage(_record())
    assert set(used) | {"disk"} == set(_resources())
    assert (used["maxproc"], used["nthr"], used["pseudoterminals"]) == (1, 1, 1)
    assert used["shmsize"] == 4 * MIB <= used["memoryuse"] <= 64 * MIB
    assert used["openfiles"] == 4
    assert used["vmemoryuse"] > used["stacksize"] > 0
    assert used["wallclock"] < 60 and used["cputime"] < 60
    assert limit.usage(_record("neighbour"))["maxproc"] == 0


def test_what_goes_through_pipes_is_no_use_of_disks(cell: Cell) -> None:
    cell.make()
    cell.sh("{ while :; do echo x; done | cat; } >/dev/null 2>&1 &")
    used = limit.usage(_record())
    assert (used["readiops"], used["writeiops"]) == (0, 0)


def _resources() -> list[str]:
    from jailng.params.limit import RESOURCES

    return list(RESOURCES)


def _record(name: str = "cell") -> registry.Record:
    found = registry.find(name)
    assert found is not None
    return found


def test_from_the_library(cell: Cell) -> None:
    """As rctl(8) has it: all of a list, what is to be watched with it."""
    cell.make()
    record = _record()
    assert record.lock()
    try:
        mechanism.set_limits(record, read(["maxproc:deny=7,cputime:sigkill=100,memoryuse:log=1M"]))
        assert cell.counter("pids", "pids.max", "members/pids.max") == _of_processes(7)
        mechanism.set_limits(record, [])
        record.append(["limited"])
    finally:
        record.unlock()
    assert limit.ENFORCED["maxproc"] == "deny"
    assert "cputime" not in limit.ENFORCED


def test_who_is_interrupted_while_it_halts_a_jail_leaves_it_as_it_was(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell.make("exec.start=/bin/busybox sleep 1000 >/dev/null 2>&1 &")
    freeze = halt.freeze

    def interrupted(record: registry.Record) -> None:
        freeze(record)
        monkeypatch.undo()  # what is undone then no other signal interrupts
        raise KeyboardInterrupt(2)

    record = _record()
    assert record.lock()
    monkeypatch.setattr(halt, "freeze", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            mechanism.set_limits(record, read(["maxproc:deny=7,openfiles:deny=100"]))
    finally:
        record.unlock()
    assert (cell.stage.cgroup2 / PER_JAIL / "members/cgroup.freeze").read_text() == "0\n"
    assert cell.counter("pids", "pids.max", "members/pids.max") == _of_processes(share.usual())
    assert (_record().limiting, _record().halted) == (False, "")
    cell.is_entered()


def test_the_plan_shows_them(cell: Cell) -> None:
    shown = cell.jail("--plan", "-c", "name=cell", f"path={cell.root}", "persist", "ng.limits=memoryuse:deny=1M")
    assert f"limit memoryuse:deny={MIB}\n" in shown.stdout
    assert f"limit it to {share.usual()} processes, and to its share of the processors\n" in shown.stdout
