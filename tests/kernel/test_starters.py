"""What a command, and what it starts beside a jail, inherit: signals, descriptors, limits, priority."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.linux import processid
from tests.kernel.conftest import ENVIRONMENT, Command
from tests.kernel.stage import Stage
from tests.kernel.stdio_host import until
from tests.kernel.test_vnet import wire

__all__ = ["wire"]

Run = Callable[..., "subprocess.CompletedProcess[str]"]

_BESIDE = ("ng.limits=maxproc:log=300", "children.max=1", "ng.watch=tty")


@pytest.fixture
def run(checkout: Path, small_root: Path, jail: Command) -> Iterator[Run]:
    """Runs a command of jailng's, given how its process is prepared; the jail ``cell``, jid 7, ends with the test."""

    def started(prepare: Callable[[], None], name: str, *words: str) -> subprocess.CompletedProcess[str]:
        if name == "jail":
            words = ("-c", "jid=7", "name=cell", f"path={small_root}", "persist", *words)
        argv = [str(checkout / "bin" / name), *words]
        return subprocess.run(
            argv, preexec_fn=prepare, close_fds=False, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
        )

    yield started
    jail("-qr", "cell")


def _quiet(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def _load() -> registry.Record:
    record = registry.load(7)
    assert record is not None
    return record


@pytest.mark.parametrize(
    "word", ["exec.start=echo in", "exec.prestart=echo in", "exec.jail_user=0", "ng.limits=maxproc:log=300"]
)
def test_a_caller_that_waits_for_no_child(run: Run, word: str) -> None:
    """SIGCHLD ignored, as by a daemon, outlives exec: no child of such a process leaves a status to be waited for."""

    def prepare() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    said = _quiet(run(prepare, "jail", word))
    assert said.split() == (["in"] if "echo" in word else [])
    assert _quiet(run(prepare, "jexec", "-U", "root", "cell", "echo", "inside")) == "inside\n"
    assert _quiet(run(prepare, "rctl", "-a", "jail:cell:openfiles:deny=100", "jail:cell:maxproc:log=5")) == ""
    _quiet(run(prepare, "jailctl", "cp", "/etc/hostname", "cell:/"))
    assert _quiet(run(prepare, "rctl", "-r", "jail:cell")) == ""


def test_what_is_open_above_a_lowered_limit(run: Run, wire: str) -> None:
    """A lock of the shell's by number 90, say, and ulimit -n 80: what looks after a jail is there all the same."""
    hears, tells = os.pipe()

    def prepare() -> None:
        os.dup2(tells, 90, inheritable=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))

    _quiet(run(prepare, "jail", *_BESIDE, "vnet", f"vnet.interface={wire}", "exec.start=true"))
    record = _load()
    for which in (record.warden, record.broker, record.posts.get("tty", ""), record.keeper):
        assert processid.is_alive(which)
    os.close(tells)
    assert os.read(hears, 1) == b"", "somebody holds what the starter had"
    os.close(hears)


def test_the_broker_of_sockets_above_a_lowered_limit(run: Run, wire: str) -> None:
    subprocess.run(["ip", "address", "add", "192.0.2.1/24", "dev", wire], check=True)

    def prepare() -> None:
        os.dup2(1, 90, inheritable=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
        resource.setrlimit(resource.RLIMIT_CPU, (30, resource.getrlimit(resource.RLIMIT_CPU)[1]))

    _quiet(run(prepare, "jail", "ng.stack=shared", "ip4.addr=192.0.2.7", "exec.start=true"))
    assert processid.is_alive(_load().sockets)
    soft, hard = resource.prlimit(int(_load().sockets.partition(" ")[0]), resource.RLIMIT_CPU)
    assert soft == hard, "it would be killed in the middle of the jail's life"


def test_what_looks_after_a_jail_is_not_as_its_starter_was(run: Run) -> None:
    """A limit of files would end its log, one of processor time itself; and it is no more to be killed than another."""

    def prepare() -> None:
        for which in (resource.RLIMIT_FSIZE, resource.RLIMIT_CPU):
            resource.setrlimit(which, (30 << 20, resource.getrlimit(which)[1]))
        os.nice(5)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        os.umask(0o777)
        Path("/proc/self/oom_score_adj").write_text("300")
        for number in (signal.SIGUSR2, signal.SIGCHLD, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)

    _quiet(run(prepare, "jail", *_BESIDE))
    record = _load()
    masks = {record.warden: "0022", record.broker: "0022", record.posts["tty"]: "0077"}
    for which, mask in masks.items():
        pid = int(which.partition(" ")[0])
        limits = which != record.broker  # who makes jails has the limits for these
        until(lambda pid=pid, limits=limits: _has_shed(pid, limits), "it has let go of them")  # type: ignore[misc]
        status = _status(pid)
        assert status["Umask"] == mask
        assert not int(status["SigIgn"], 16) & (1 << signal.SIGUSR2 - 1 | 1 << signal.SIGALRM - 1)


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: text.strip() for name, _, text in [line.partition(":") for line in lines]}


def _has_shed(pid: int, limits: bool) -> bool:
    """Whether it has let go of what it was started with, which is its first act; its mask, by then, is not the last."""
    found = [resource.prlimit(pid, limit) for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CPU) if limits]
    return (
        _status(pid)["Umask"] != "0777"
        and Path(f"/proc/{pid}/oom_score_adj").read_text() == "0\n"
        and os.sched_getaffinity(pid) == _every_processor()
        and all(soft == hard for soft, hard in found)
    )


def _every_processor() -> set[int]:
    """Those that a process can have here: taskset(1) may have left this one fewer."""
    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        return os.sched_getaffinity(0)
    finally:
        os.sched_setaffinity(0, mine)


def test_the_end_of_the_unit_in_which_a_jail_was_made(run: Run, stage: Stage) -> None:
    """systemd sends SIGTERM to whatever the command of a unit leaves in its cgroup, and SIGKILL a minute later."""
    unit = stage.cgroup2 / "unit"
    unit.mkdir()
    members = unit / "cgroup.procs"
    with (unit / "cgroup.events").open() as events, select.epoll() as waiter:
        waiter.register(events, select.EPOLLPRI)

        def join() -> None:
            members.write_text("0")

        _quiet(run(join, "jail", "ng.limits=maxproc:log=300", "children.max=1"))
        for pid in members.read_text().split():
            os.kill(int(pid), signal.SIGTERM)
        until = time.monotonic() + 60
        while "populated 1" in (unit / "cgroup.events").read_text() and time.monotonic() < until:
            waiter.poll(1)
    unit.rmdir()
    for which in (_load().warden, _load().broker):
        assert processid.is_alive(which)
    warden = os.pidfd_open(int(_load().warden.partition(" ")[0]))
    while not select.select([warden], [], [], 0.1)[0] and time.monotonic() < until:
        signal.pidfd_send_signal(warden, signal.SIGTERM)  # which ends it once it has left the unit
    os.close(warden)
    assert not processid.is_alive(_load().warden)
