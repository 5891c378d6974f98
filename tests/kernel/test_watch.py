"""Terminals of a jail, seen from outside: byte for byte what the user saw, whatever program has opened them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jailng.linux import btf
from jailng.observe import event
from tests.kernel import debian as roots
from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace
from tests.kernel.stage import mount, unmount
from tests.kernel.terminals import Observer, Screen, of, screen, shown, typed

pytestmark = pytest.mark.skipif(not os.path.exists(btf.VMLINUX), reason="a kernel without BTF")
ADDRESS = "198.51.100.40"
SSH = (
    "ssh", "-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
    "-o", "PubkeyAuthentication=no", "-o", "LogLevel=QUIET", f"root@{ADDRESS}",
)  # fmt: skip
Login = Callable[[], Screen]


@pytest.fixture(autouse=True)
def logs(tmp_path: Path) -> Iterator[None]:
    """A place of the test's own for what is recorded."""
    Path("/var/log/jailng").mkdir(mode=0o700, exist_ok=True)
    mount("none", "/var/log/jailng", "tmpfs", 0, "mode=700,size=256m")
    yield
    unmount("/var/log/jailng")


@contextmanager
def watched(jail: Command, *parameters: str) -> Iterator[Observer]:
    made = jail("-c", "name=cell", "persist", "ng.watch=tty", *parameters)
    assert made.returncode == 0, made.stderr
    observer = Observer("cell")
    try:
        yield observer
    finally:
        observer.close()
        gone = jail("-r", "cell")
        assert gone.returncode == 0, gone.stderr


def test_a_shell_of_jexec(small_root: Path, jail: Command, checkout: Path) -> None:
    with watched(jail, f"path={small_root}") as observer:
        with screen(str(checkout / "bin/jexec"), "cell", "sh") as shell:
            shell.until("# ")
            shell.type("stty -echo; echo $((6*7))\n")
            shell.until("42\r\n")
            shell.type("read x; echo got $x; exit\n")
            shell.type("secret\n")
            shell.until("got secret\r\n")
            shell.end()
        events = observer.until_ended()
    assert shown(events) == shell.shown
    assert b"read x; echo got $x; exit\nsecret\n" in typed(events)
    start = of(events, event.START)[0]
    assert (start.terminal, start.comm, start.uid) == (0, "jexec", 0)
    assert of(events, event.RESIZE)[0].data == b"0x0"
    assert not of(events, event.DROPPED) + of(events, event.UNRECORDED)


@contextmanager
def logged_in(observer: Observer, lan: Namespace) -> Iterator[Screen]:
    """Root, over ssh with a password, in whose shell the prompt is ``% ``."""
    with lan.entered():
        made = Screen(*SSH)
    try:
        made.until("password: ")
        made.type("swordfish\n")
        made.until("\r\n")
        made.shown, made._seen = b"", 0  # so far the client had the word
        made.until("# ")
        made.type("exec env -u PS1 PS1='% ' sh\n")
        made.until("\r% ")
        yield made
    finally:
        made.kill()


def test_over_ssh(debian_terminals: Path, tmp_path: Path, jail: Command, jexec: Command, lan: Namespace) -> None:
    """A password typed, vim, top, a change of the window, script, screen, su, and a megabyte of output."""
    root = roots.copy(debian_terminals, tmp_path / "debian")
    with watched(jail, f"path={root}", f"ip4.addr={ADDRESS}", "interface=ep0", "mount.devfs") as observer:
        made = jexec(
            "cell", "/bin/sh", "-c",
            "echo root:swordfish | chpasswd; useradd -m -s /bin/sh bob; echo bob:secret | chpasswd;"
            " echo PermitRootLogin yes >>/etc/ssh/sshd_config; mkdir -p /run/sshd /run/screen; chmod 1777 /run/screen;"
            f" /usr/sbin/sshd; {roots.LISTENS}",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        with logged_in(observer, lan) as user:
            user.type("vim.tiny /tmp/new\n")
            user.until("~")
            user.type("ione\x1b:wq\n")
            user.until("% ")
            user.resize(101, 33)
            user.type("stty size; cat /tmp/new\n")
            user.until("33 101\r\none\r\n% ")
            user.type("top\n")
            user.until("PID USER")
            user.type("q")
            user.until("% ")
            user.type("script -q /dev/null\n")
            user.until("# ")
            user.type("echo in script; exit\n")
            user.until("in script\r\n.*% ")
            user.type("screen -s /bin/sh\n")
            user.until("[#%] ")
            user.type("echo in $STY | tr a-z A-Z; exit\n")
            user.until("IN .*screen is terminating.*% ")
            user.type("su - bob\n")
            user.until("[$] ")
            user.type("tty; id -un; exit\n")
            user.until("/dev/pts/0\r\nbob\r\n.*% ")
            user.type("dd if=/dev/urandom bs=1000000 count=1 2>/dev/null | base64; echo done\n")
            user.until("\r\ndone\r\n% ")
            user.type("exit\n")
            user.end()
        events = observer.until_ended()
        client = user.shown
    assert len(client) > 1_350_000
    assert shown(events) == client
    assert typed(events).startswith(b"exec env") and b"su - bob\n" in typed(events)
    assert b"swordfish" not in typed(events)  # sshd has asked for it by another way than the terminal
    assert b"101x33" in [one.data for one in of(events, event.RESIZE, 0)]
    assert b"in script" in shown(events, 1) and b"in $STY" in shown(events, 1)
    starts = of(events, event.START)
    assert [one.terminal for one in starts if one.comm.startswith("sshd")] == [0]
    assert {one.comm for one in starts} >= {"script", "screen"}
    remote = str(starts[0].facts["remote"])
    assert re.fullmatch(r"198\.51\.100\.2:\d+", remote)
    assert any(one.facts.get("user_comm") == "sh" for one in of(events, event.WHO, 0))
    assert not of(events, event.DROPPED) + of(events, event.UNRECORDED)


MASTERS = (Path(__file__).parent / "probes/masters.py").read_text()


def test_ptys_of_roots_own(debian_terminals: Path, jail: Command, jexec: Command) -> None:
    """Every way to move what passes through a pty: it is seen, or counted as what was not."""
    with watched(jail, f"path={debian_terminals}", "mount.devfs") as observer:
        for way in ("vectors", "high", "shared", "passed", "packets", "again"):
            made = jexec("cell", "python3", "-c", MASTERS, way)
            assert made.returncode == 0, made.stderr
            said = json.loads(made.stdout)
            events = observer.until_ended(said["number"])
            assert shown(events, said["number"]).hex() == said["read"], way
            assert typed(events, said["number"]).hex() == said["written"], way
            assert not of(events, event.DROPPED) + of(events, event.UNRECORDED), way
            if way == "again":
                assert typed(events, said["other"]) == b"into the other"
            observer.forget()
        made = jexec("cell", "python3", "-c", MASTERS, "spliced")
        said = json.loads(made.stdout)
        events = observer.until_ended(said["number"])
        missing = [(one.data, one.count) for one in of(events, event.UNRECORDED, said["number"])]
        counted = [(b"splice", one) for one in said["spliced"]] + [(b"sendfile", one) for one in said["sent"]]
        both = shown(events, said["number"]), typed(events, said["number"])
        assert (missing, both) in ((counted, (b"", b"")), ([], (b"x" * 1000 + b"w" * 300, b"y" * 500 + b"z" * 700)))
        observer.forget()
        made = jexec("cell", "python3", "-c", MASTERS, "large")
        said = json.loads(made.stdout)
        observer.until_ended(said["number"])

        def is_accounted_for(events: list[event.Event]) -> bool:
            unseen = sum(one.count for one in of(events, event.UNRECORDED))
            return len(typed(events, said["number"])) + unseen == said["wrote"] or bool(of(events, event.DROPPED))

        observer.until(is_accounted_for)
