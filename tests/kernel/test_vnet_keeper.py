"""A lent interface comes back when the jail ends by itself, and nobody gives a command."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jailng.core import interpreter, registry
from jailng.linux import processid
from tests.kernel.conftest import ENVIRONMENT, Command, Shim
from tests.kernel.stage import Stage
from tests.kernel.stdio_host import until
from tests.kernel.test_vnet import interfaces, load, look, make, wire

__all__ = ["make", "wire"]

_LEFT = "exec.start=/bin/sh -c 'cat /go >/dev/null 2>&1 &'"


class Keeper:
    """The keeper of a jail, by pidfd: ``ends`` waits for it."""

    def __init__(self, jid: int = 7) -> None:
        self.pid = int(load(jid).keeper.partition(" ")[0])
        self.pidfd = os.pidfd_open(self.pid)

    def ends(self) -> None:
        assert select.select([self.pidfd], [], [], 20)[0], "the keeper waits"
        os.close(self.pidfd)


@pytest.fixture
def go(small_root: Path) -> Path:
    """A fifo inside: who reads it waits until somebody has opened and closed it."""
    path = small_root / "go"
    os.mkfifo(path)
    path.chmod(0o666)
    return path


def leaf(stage: Stage, name: str) -> list[int]:
    return [int(pid) for pid in (stage.cgroup2 / f"jailng/7/{name}/cgroup.procs").read_text().split()]


@pytest.mark.parametrize("how", ["exits", "init", "members", "both"])
def test_comes_back_by_itself(how: str, stage: Stage, wire: str, make: Command, go: Path) -> None:
    before = look(wire)
    made = make("jid=7", f"vnet.interface={wire}", _LEFT)
    assert (made.stderr, made.returncode) == ("", 0)
    assert wire not in interfaces()
    keeper = Keeper()
    if how == "exits":
        os.close(os.open(go, os.O_WRONLY))
    else:
        names = {"both": ("init", "members")}.get(how, (how,))
        for pid in [pid for name in names for pid in leaf(stage, name)]:
            with suppress(ProcessLookupError):  # the members die with the init
                os.kill(pid, signal.SIGKILL)
    keeper.ends()
    assert look(wire) == before
    assert registry.load(7) is None
    assert not (stage.cgroup2 / "jailng").exists()
    assert not Path("/run/jailng/net/7").exists()


@pytest.mark.parametrize("words", [("exec.start=/bin/sh -c 'echo up; cat /go'", "persist"), ("command=cat", "/go")])
def test_jail_was_killed_that_starts_it(words: tuple[str, ...], wire: str, checkout: Path, go: Path) -> None:
    before = look(wire)
    argv = [str(checkout / "bin/jail"), "-c", "jid=7", f"path={go.parent}", "vnet", f"vnet.interface={wire}"]
    starter = subprocess.Popen([*argv, *words], stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    writing = os.open(go, os.O_WRONLY)  # it is there now
    keeper = Keeper()
    starter.kill()
    starter.wait()
    keeper.ends()
    os.close(writing)
    assert look(wire) == before
    assert registry.load(7) is None


def test_jail_has_ended_that_started_it(stage: Stage, wire: str, make: Command, jail: Command) -> None:
    """With whoever has started it a jail ends only until it is up, and of that the keeper is told."""
    assert make("jid=7", f"vnet.interface={wire}", "persist").returncode == 0
    assert os.getxattr(stage.cgroup2 / "jailng/7/broker/cgroup.events", "user.jailng.up") == b"1"
    keeper = Keeper()
    assert not select.select([keeper.pidfd], [], [], 0)[0]
    assert wire not in interfaces()
    assert jail("-r", "v").returncode == 0
    keeper.ends()


def test_one_lent_later(wire: str, make: Command, go: Path, shim: Shim) -> None:
    before = look(wire)
    assert make("jid=7", _LEFT).returncode == 0
    assert load(7).keeper == ""
    assert shim("ifconfig", wire, "vnet", "v").stderr == ""
    keeper = Keeper()
    os.close(os.open(go, os.O_WRONLY))
    keeper.ends()
    assert look(wire) == before


def test_where_it_was_killed_the_next_command_does_it(wire: str, make: Command, go: Path, jail: Command) -> None:
    before = look(wire)
    assert make("jid=7", f"vnet.interface={wire}", _LEFT).returncode == 0
    keeper, init = Keeper(), os.pidfd_open(load(7).init_pid)
    os.kill(keeper.pid, signal.SIGKILL)
    keeper.ends()
    os.close(os.open(go, os.O_WRONLY))
    assert select.select([init], [], [], 60)[0]
    os.close(init)
    assert wire not in interfaces()
    assert jail("-r", "v").returncode == 1
    assert look(wire) == before


def test_commands_while_it_is_at_work(wire: str, make: Command, go: Path, jail: Command) -> None:
    """They wait for it, and find what they would have found without it."""
    before = look(wire)
    for _ in range(5):
        made = make("jid=7", f"vnet.interface={wire}", _LEFT)
        assert (made.stderr, made.returncode) == ("", 0)
        init = os.pidfd_open(load(7).init_pid)
        os.close(os.open(go, os.O_WRONLY))
        assert select.select([init], [], [], 60)[0]
        os.close(init)
    done = jail("-C", "v")
    assert done.returncode in (0, 1)
    assert "at work" not in done.stderr
    jail("-r", "v")
    assert look(wire) == before


def test_what_was_made_around_the_jail_stays(wire: str, make: Command, go: Path, jail: Command, tmp_path: Path) -> None:
    """As on FreeBSD: until jail -C, or here the next command that comes upon it."""
    (go.parent / "here").mkdir()
    mounted = f"mount=none {go.parent}/here tmpfs rw 0 0"
    assert make("jid=7", f"vnet.interface={wire}", mounted, _LEFT).returncode == 0
    keeper = Keeper()
    os.close(os.open(go, os.O_WRONLY))
    keeper.ends()
    assert wire in interfaces()
    assert os.path.ismount(go.parent / "here")
    jail("-r", "v")
    assert not os.path.ismount(go.parent / "here")


def test_another_of_its_jid_is_left_alone(wire: str, make: Command, go: Path, jail: Command) -> None:
    """Of a jail that is there, and of one that has ended: the record is another's, or the jail lives."""
    assert make("jid=7", f"vnet.interface={wire}", _LEFT).returncode == 0
    old = load(7).init
    assert jail("-r", "v").returncode == 0
    assert make("jid=7", f"vnet.interface={wire}", _LEFT).returncode == 0
    keeper = Keeper()
    os.kill(keeper.pid, signal.SIGKILL)
    keeper.ends()
    be_keeper(old)
    be_keeper(load(7).init)
    assert load(7).alive()
    init = os.pidfd_open(load(7).init_pid)
    os.close(os.open(go, os.O_WRONLY))
    assert select.select([init], [], [], 60)[0]
    os.close(init)
    be_keeper(old)
    assert wire not in interfaces()
    be_keeper(load(7).init)
    assert wire in interfaces()


def be_keeper(init: str, jid: int = 7) -> None:
    """What a keeper does that was started for the jail of that PID 1 and has seen its end."""
    argv = interpreter.command("jailng.core.keeper", jid, *map(int, init.split()))
    keeper = subprocess.Popen(["sh", "-c", 'read go; exec "$@"', "sh", *argv], env={}, stdin=subprocess.PIPE)
    with open(f"/run/jailng/jails/{jid}", "a") as record:
        record.write(f"keeper {processid.of(keeper.pid)}\n")
    keeper.communicate(b"\n")


@pytest.fixture
def kept(wire: str, make: Command, go: Path) -> Iterator[Keeper]:
    assert make("jid=7", f"vnet.interface={wire}", "persist").returncode == 0
    keeper = Keeper()
    yield keeper


def test_what_it_holds(stage: Stage, kept: Keeper, jail: Command) -> None:
    """Pidfds and two files of cgroups, in a session of its own; nothing of the caller's, nothing of the jail's."""

    def held() -> list[str]:
        """It may be about to close what it was born with."""
        found = []
        for fd in os.listdir(f"/proc/{kept.pid}/fd"):
            with suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/{kept.pid}/fd/{fd}").rpartition("/")[2])
        return sorted(name for name in found if "pidfd" not in name)

    until(lambda: held() == ["cgroup.events", "cgroup.procs"], "it holds nothing else")
    assert os.getsid(kept.pid) == kept.pid
    assert os.readlink(f"/proc/{kept.pid}/cwd") == "/"
    for kind in ("mnt", "net", "pid", "user", "uts", "ipc"):
        assert os.readlink(f"/proc/{kept.pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
    status = Path(f"/proc/{kept.pid}/status").read_text()
    assert int(status.partition("RssAnon:")[2].split()[0]) < 100
    assert jail("-r", "v").returncode == 0
    kept.ends()
