"""jail -r and -R of a jail in which something is still under way, by whoever started it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.linux import processid
from tests.kernel.conftest import Command
from tests.kernel.stdio_host import read_all

_FOREVER = "sleep 1000"
# A member that is deaf to SIGTERM, while the command that is waited for is not.
_DEAF = "trap '' TERM; sleep 1000 & trap - TERM; echo ready; exec sleep 1000"


@pytest.fixture
def start(checkout: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A command of the checkout's, in the background; what it writes goes to pipes unless it is told otherwise."""
    with ExitStack() as stack:

        def begin(*argv: str, **streams: int) -> subprocess.Popen[str]:
            given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
            path = str(checkout / "bin" / argv[0])
            made = stack.enter_context(subprocess.Popen([path, *argv[1:]], text=True, **given))  # type: ignore[call-overload]
            stack.callback(made.kill)
            return made  # type: ignore[no-any-return]

        yield begin


def _ready(made: subprocess.Popen[str]) -> None:
    assert made.stdout is not None
    assert made.stdout.readline() == "ready\n"


def test_to_enter_one_that_was_killed(
    start: Callable[..., subprocess.Popen[str]],
    jail: Command,
    jexec: Command,
    small_root: Path,
) -> None:
    """Its PID 1 is dead, and may not end before somebody outside has reaped what he has in there."""
    assert jail("-c", "name=cell", f"path={small_root}", "persist").returncode == 0
    entered = start("jexec", "cell", "/bin/sh", "-c", f"echo ready; exec {_FOREVER}")
    _ready(entered)
    record = registry.find("cell")
    assert record is not None and not processid.is_ending(record.init)
    entered.send_signal(signal.SIGSTOP)
    assert os.waitid(os.P_PID, entered.pid, os.WSTOPPED) is not None
    os.kill(record.init_pid, signal.SIGKILL)
    assert processid.is_ending(record.init)  # at once
    done = jexec("cell", "/bin/true")
    assert (done.stderr, done.returncode) == ('jexec: jail "cell" not found\n', 1)
    assert processid.is_alive(record.init)
    entered.send_signal(signal.SIGCONT)
    assert entered.wait(timeout=30) == -signal.SIGKILL
    assert processid.ends(record.init, 30)
    assert processid.is_ending(record.init)
    jail("-r", "*")


@pytest.mark.parametrize("flag", ["-r", "-R"])
@pytest.mark.parametrize("streams", ["nothing", "pipe", "file", "terminal"])
def test_the_command_that_a_jail_was_made_for(
    start: Callable[..., subprocess.Popen[str]],
    jail: Command,
    jls: Command,
    small_root: Path,
    tmp_path: Path,
    flag: str,
    streams: str,
) -> None:
    argv = ("jail", "-c", "name=cell", f"path={small_root}", "command=/bin/sh", "-c", f"echo ready; exec {_FOREVER}")
    master, slave = pty.openpty()
    if streams == "terminal":
        made = start(*argv, stdin=slave, stdout=slave, stderr=slave)
        assert read_all(master, 5) == b"ready"
    elif streams == "file":
        with (tmp_path / "input").open("w+") as given, (tmp_path / "output").open("w+") as kept:
            made = start(*argv, stdin=given.fileno(), stderr=kept.fileno())
            _ready(made)
    else:
        made = start(*argv, **({"stdin": subprocess.PIPE} if streams == "pipe" else {}))
        _ready(made)
    removed = jail(flag, "cell", timeout=30)
    assert (removed.returncode, removed.stderr) == (0, "")
    assert made.wait(timeout=30) == 1
    number = int(signal.SIGTERM if flag == "-r" else signal.SIGKILL)
    if streams in ("nothing", "pipe"):
        assert made.stderr is not None
        assert made.stderr.read().endswith(f"{_FOREVER}: exited on signal {number}\n")
    os.close(master)
    os.close(slave)
    assert jls("-c", "-j", "cell").returncode == 1


def test_one_that_does_not_heed_sigterm(
    start: Callable[..., subprocess.Popen[str]], jail: Command, small_root: Path
) -> None:
    made = start("jail", "-c", "name=cell", f"path={small_root}", "command=/bin/sh", "-c", _DEAF)
    _ready(made)
    removed = jail("-R", "cell", timeout=30)
    assert (removed.returncode, removed.stderr) == (0, "")
    assert made.wait(timeout=30) == 1


def test_exec_start_with_something_in_the_background(
    start: Callable[..., subprocess.Popen[str]], jail: Command, small_root: Path
) -> None:
    """The starter does not reap what it does not wait for, and waits for the lock of whoever removes the jail."""
    steps = (f"exec.start={_FOREVER} &", f"exec.start=/bin/sh -c 'echo ready; exec {_FOREVER}'")
    made = start("jail", "-c", "name=cell", f"path={small_root}", "persist", *steps)
    _ready(made)
    removed = jail("-R", "cell", timeout=30)
    assert (removed.returncode, removed.stderr) == (0, "")
    assert made.wait(timeout=30) == 1


def test_a_hook_on_the_host(
    start: Callable[..., subprocess.Popen[str]], jail: Command, small_root: Path, tmp_path: Path
) -> None:
    """The jail is removed while exec.poststart runs: then there is none to be made permanent."""
    os.mkfifo(tmp_path / "go")
    hook = f"exec.poststart=echo ready; read line <{tmp_path}/go"
    made = start("jail", "-c", "name=cell", f"path={small_root}", "persist", hook)
    _ready(made)
    assert jail("-R", "cell", timeout=30).returncode == 0
    (tmp_path / "go").write_text("\n")
    _, complaint = made.communicate(timeout=30)
    assert made.returncode == 1
    assert complaint.startswith("jail: jail ") and complaint.endswith(" not found\n")


def test_the_next_jail_of_that_jid_is_left_alone(
    start: Callable[..., subprocess.Popen[str]], jail: Command, jls: Command, small_root: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "go")
    hook = f"exec.poststart=echo ready; read line <{tmp_path}/go; exit 1"
    made = start("jail", "-c", "jid=77", f"path={small_root}", "persist", hook)
    _ready(made)
    assert jail("-R", "77", timeout=30).returncode == 0
    assert jail("-c", "jid=77", "name=other", f"path={small_root}", "persist").returncode == 0
    (tmp_path / "go").write_text("\n")
    assert made.wait(timeout=30) == 1
    assert jls("-j", "77", "name").stdout == "other\n"
    assert jail("-R", "77").returncode == 0


@pytest.mark.parametrize(("flag", "more"), [("-r", []), ("-R", []), ("-r", ["mount=/usr/bin HERE/var/tmp nullfs ro"])])
def test_a_jexec_that_is_stopped(
    start: Callable[..., subprocess.Popen[str]], jail: Command, small_root: Path, flag: str, more: list[str]
) -> None:
    """Its command is dead and not reaped, which keeps PID 1 of a dead pid namespace from ending; not so the jail.

    What was mounted for it is undone when its cgroup is gone.
    """
    more = [word.replace("HERE", str(small_root)) for word in more]
    assert jail("-c", "name=cell", f"path={small_root}", "persist", *more).returncode == 0
    entered = start("jexec", "cell", "/bin/sh", "-c", f"echo ready; exec {_FOREVER}")
    _ready(entered)
    entered.send_signal(signal.SIGSTOP)
    assert os.waitid(os.P_PID, entered.pid, os.WSTOPPED) is not None
    removed = jail(flag, "cell", timeout=30)
    assert (removed.returncode, removed.stderr) == (0, "")
    assert jail("-c", "name=cell", f"path={small_root}", "command=/bin/true").returncode == 0
    entered.send_signal(signal.SIGCONT)
    assert entered.wait(timeout=30) == -(signal.SIGTERM if flag == "-r" else signal.SIGKILL)


@pytest.mark.parametrize("words", [("-R", "a"), ("-R", "*")], ids=["by name", "all"])
@pytest.mark.parametrize("line", ["ng.later=1", "securelevel=none"])
def test_a_jail_of_another_release(
    jail: Command, jls: Command, small_root: Path, words: tuple[str, ...], line: str
) -> None:
    """What this one cannot read of it is no use to who only removes it; else it would be there until the host's end."""
    assert jail("-c", "name=a", "jid=7", f"path={small_root}", "persist").returncode == 0
    with open("/run/jailng/jails/7", "a") as record:
        record.write(f"param {line}\n")
    assert jail("-m", "name=a", "host.hostname=x").returncode == 1
    assert jail("-r", "a").returncode == 1
    gone = jail(*words)
    assert (gone.returncode, gone.stderr, jls("name").stdout) == (0, "", "")
