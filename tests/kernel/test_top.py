"""jailctl top: what jails use, in a pipe and live on a terminal; and the processes of one."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import struct
import subprocess
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jailng.ctl import top
from tests.kernel.conftest import ENVIRONMENT, Command

BUSY = "sh -c 'while true; do true; done' \"$(printf 'x\\033[31m')\" >/dev/null 2>&1 </dev/null &"


@pytest.fixture
def two(jail: Command, jexec: Command, small_root: Path) -> Iterator[None]:
    """One that is busy, and one that is not."""
    for name, jid in (("busy", 81), ("idle", 82)):
        assert jail("-c", f"name={name}", f"jid={jid}", f"path={small_root}", "persist").returncode == 0
    assert jexec("busy", "/bin/busybox", "sh", "-c", BUSY).returncode == 0
    yield
    assert jail("-r", "busy", "idle").returncode == 0


@pytest.mark.usefixtures("two")
def test_in_a_pipe(jailctl: Command) -> None:
    busy: dict[str, Any] = {"cpu": 0}
    idle: dict[str, Any] = {}
    while not busy["cpu"]:  # on a machine with enough to do, it may not have had its turn
        done = jailctl("top", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        rows = {one["name"]: one for one in json.loads(done.stdout)["jails"]}
        busy, idle = rows["busy"], rows["idle"]
        assert idle["cpu"] == 0
    assert (busy["jid"], busy["processes"], idle["processes"]) == (81, 1, 0)
    assert busy["memory"] > 0 and busy["receive"] == 0 and busy["age"] < 600
    done = jailctl("top", "-b", "-n", "2", "-d", "0.1", "-s", "name")
    lines = done.stdout.splitlines()
    heads = [at for at, line in enumerate(lines) if line.startswith("  JID NAME")]
    assert len(heads) == 2 and lines[heads[0]].split()[:5] == ["JID", "NAME", "CPU%", "MEM", "PROCS"]
    assert [line.split()[1] for line in lines[heads[1] + 1 :]] == ["busy", "idle"]
    assert "2 jails" in lines[0]


@pytest.mark.usefixtures("two")
def test_processes_of_a_jail(jailctl: Command) -> None:
    one: dict[str, Any] = {"cpu": 0}
    while not one["cpu"]:
        (one,) = json.loads(jailctl("top", "--json", "busy").stdout)["processes"]
    assert one["user"] in ("root", "0") and "x\x1b[31m" in one["command"]
    done = jailctl("top", "81")
    assert "\x1b" not in done.stdout and "x\\x1b[31m" in done.stdout and "1 processes" in done.stdout


def test_arguments(jailctl: Command) -> None:
    for words in (["-d", "0"], ["-d", "nan"], ["-d", "x"], ["-n", "-1"], ["-n", "x"], ["-s", "x"], ["none"], ["77"]):
        done = jailctl("top", *words)
        assert (done.returncode, done.stdout) == (1, "") and len(done.stderr.splitlines()) == 1, words
    for words in (["-z"], ["a", "b"]):
        assert jailctl("top", *words).stderr.startswith("usage: jailctl top"), words
    for words in (["--json"], ["-b", "--json"]):
        assert jailctl("top", *words).stdout == '{\n  "jails": []\n}\n'


def test_ended_in_its_first_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal was left without echo by a signal that came just when that had been taken from it."""
    master, slave = os.openpty()
    before, ours = termios.tcgetattr(slave), os.dup(0)
    os.dup2(slave, 0)
    change = tty.setcbreak

    def interrupted(fd: int) -> None:
        change(fd)
        raise SystemExit

    monkeypatch.setattr(tty, "setcbreak", interrupted)
    try:
        with pytest.raises(SystemExit), top._keys():
            pass
        assert termios.tcgetattr(slave) == before
    finally:
        os.dup2(ours, 0)
        for fd in (ours, master, slave):
            os.close(fd)


@pytest.mark.usefixtures("two")
def test_live(checkout: Path) -> None:
    """Keys choose the order; q ends it, and gives the terminal back as it was."""
    python = subprocess.run(["/usr/bin/python3", "-c", "import rich"], capture_output=True).returncode
    if python:
        pytest.skip("python3-rich is not installed")
    outer, inner = os.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 60, 0, 0))
    before = termios.tcgetattr(inner)
    process = subprocess.Popen(
        [str(checkout / "bin/jailctl"), "top", "-d", "1000"], stdin=inner, stdout=inner, stderr=inner,
        env={**ENVIRONMENT, "TERM": "xterm"},
    )  # fmt: skip
    said = _until(outer, b"idle", b"")
    os.write(outer, b"n")
    said = _until(outer, b"idle", b"")
    assert said.index(b"busy") < said.index(b"idle")
    os.write(outer, b"r")
    said = _until(outer, b"idle.*busy", b"")  # there may be some of the frame before
    os.write(outer, b"q")
    _until(outer, re.escape(b"\x1b[?1049l"), said)
    assert process.wait(30) == 0
    assert termios.tcgetattr(inner) == before
    os.close(inner)
    os.close(outer)


def _until(fd: int, what: bytes, said: bytes) -> bytes:
    until = time.monotonic() + 120
    while not re.search(what, said, re.DOTALL):
        assert select.select([fd], [], [], until - time.monotonic())[0], said
        said += os.read(fd, 65536)
    return said
