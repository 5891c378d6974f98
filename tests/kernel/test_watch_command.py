"""jailctl watch and the shim: keys and options as FreeBSD's, and a post that is there as long as somebody watches."""

from __future__ import annotations

import json
import os
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.linux import btf
from tests.kernel.conftest import Command, Shim
from tests.kernel.terminals import Screen, screen

pytestmark = pytest.mark.skipif(not os.path.exists(btf.VMLINUX), reason="a kernel without BTF")


@pytest.fixture
def shell(small_root: Path, jail: Command, checkout: Path) -> Iterator[Screen]:
    """A shell on pts/0 of a jail that nobody watches."""
    made = jail("-c", "name=cell", "persist", f"path={small_root}")
    assert made.returncode == 0, made.stderr
    with screen(str(checkout / "bin/jexec"), "cell", "sh", env={"ENV": "/etc/none"}) as shell:
        shell.until("# ")
        shell.type("PS1='% '\n")
        shell.until("\r\n% ")
        yield shell
    assert jail("-r", "cell").returncode == 0


def test_watching(shell: Screen, checkout: Path) -> None:
    with screen(str(checkout / "bin/jailctl"), "watch", "-t", "cell", "/dev/pts/0") as watch:
        before = termios.tcgetattr(watch.fd)
        watch.until("-----\r\nTime: .*\r\nLogging Started.\r\n-----")
        assert termios.tcgetattr(watch.fd) != before
        shell.type("echo $((6*7))\n")
        assert shell.until("echo.*\r\n% ")[-20:] == watch.until("echo.*\r\n% ")[-20:]
        watch.type("discarded\x18")
        watch.until("Snoop device change by user request.\r\nJAIL .*cell pts/0 0 .*Enter device name .*:")
        assert termios.tcgetattr(watch.fd) == before
        watch.type("0\n")
        watch.until("Logging Started.\r\n-----")
        shell.type("echo $((7*7))\n")
        watch.until("\r\n49\r\n% ")
        watch.type("\x07")
        watch.until("Logging Exited.")
        assert watch.end() == 0
    shell.type("echo -$((8*8))-\n")
    assert b"discarded" not in shell.until("-64-")


def test_asking_and_the_end_of_a_terminal(shell: Screen, checkout: Path) -> None:
    with screen(str(checkout / "bin/jailctl"), "watch", "cell") as watch:
        watch.until("Snoop started.\r\nJAIL .*cell pts/0 0 .*Enter device name:")
        watch.type("pts/0\n")
        shell.type("echo $((6*7))\n")
        shell.until("42")
        with screen(str(checkout / "bin/jailctl"), "watch", "-nt", "cell", "0") as other:
            other.until("Logging Started.")
            shell.type("exit\n")
            shell.end()
            assert other.end() == 0
        watch.until("Snoop stopped due to tty close. Reconnecting.\r\n")
        watch.type("9\n")
        watch.until("fatal: bad device name")
        assert watch.end() == 65 << 8


def test_typing_into_it(shell: Screen, checkout: Path) -> None:
    with screen(str(checkout / "bin/jailctl"), "watch", "-W", "cell", "0") as watch:
        watch.type("echo $((6*7))\r")
        shell.until("echo .*\r\n42\r\n% ")
        watch.until("\r\n42\r\n% ")
        watch.type("echo ready; cat\r")
        shell.until("\r\nready\r\n")
        watch.type("twice\r")
        shell.until("twice\r\ntwice\r\n")
        watch.type("\x03")
        shell.until("\\^C\r\n% ")
        watch.type("\x07")
        assert watch.end() == 0


def test_what_is_watched_makes_the_terminal_do_nothing_but_draw(shell: Screen, checkout: Path) -> None:
    """Neither answer nor write to the clipboard, unless it is to have all; and it is left as it was."""
    said = r"a\033[6nb\033]52;c;cm0=\007c\302\2336nd\233e\033[1mf\303\266g"
    jailctl = str(checkout / "bin/jailctl")
    with (
        screen(jailctl, "watch", "-t", "cell", "0") as watch,
        screen(jailctl, "watch", "-t", "--raw", "cell", "0") as raw,
    ):
        for one in (watch, raw):
            one.until("Logging Started.\r\n-+\r\n")
        shell.type(f"printf '{said}'; echo\n")
        assert raw.until("f\xc3\xb6g\r\n".encode("latin-1").decode())
        watch.until("abcd\ufffde\x1b\\[1mf\xf6g\r\n")
        assert b"\x1b[6n" in raw.shown and b"\x1b]52" in raw.shown
        assert not [one for one in (b"\x1b[6n", b"\x1b]52", b"\xc2\x9b", b"\x9b") if one in watch.shown]
        for one in (watch, raw):
            one.type("\x07")
            assert one.end() == 0
        assert b"\x1b[m\x1b(B" in watch.shown


def test_words(shell: Screen, jailctl: Command, shim: Shim, tmp_path: Path) -> None:
    listed = json.loads(jailctl("watch", "--json", "cell").stdout)["terminals"]
    assert [(one["jail"], one["tty"], one["user"], one["command"], one["by"]) for one in listed] == [
        ("cell", "pts/0", "0", "sh", "jexec")
    ]
    for words, status, said in (
        (["watch"], 64, "usage: jailctl watch"),
        (["watch", "-z", "cell"], 64, "usage: jailctl watch"),
        (["watch", "none"], 1, 'jailctl: jail "none" not found'),
        (["watch", "cell"], 65, "jailctl: fatal: no device name given"),
        (["watch", "cell", "pts/7"], 65, "jailctl: fatal: bad device name"),
        (["watch", "cell", "../../x"], 65, "jailctl: fatal: bad device name"),
    ):
        done = jailctl(*words)
        assert (done.returncode, done.stderr.startswith(said)) == (status, True), (words, done)
    other = tmp_path / "other"
    other.mkdir()
    (other / "watch").write_text('#!/bin/sh\necho real "$@"\n')
    (other / "watch").chmod(0o755)
    for command in ("-n 1 ls", "ls -l", "-d -t -- ps ax", "date"):
        done = shim("watch", *command.split(), path=f"{other}:/usr/bin:/bin")
        assert done.stdout == f"real {command}\n", done
    done = shim("watch", "pts/7", path=f"{other}:/usr/bin:/bin")
    assert (done.returncode, done.stderr) == (65, "watch: fatal: bad device name\n")


def test_by_the_shim_and_into_a_pipe(shell: Screen, checkout: Path) -> None:
    watch = subprocess.Popen([checkout / "shims/watch", "pts/0"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert watch.stdout is not None
    seen = b""
    while b"42" not in seen:
        assert watch.poll() is None
        shell.type("echo $((6*7))\n")
        shell.until("42\r\n% ")
        os.set_blocking(watch.stdout.fileno(), False)
        try:
            seen += os.read(watch.stdout.fileno(), 65536)
        except BlockingIOError:
            pass
    os.set_blocking(watch.stdout.fileno(), True)
    shell.type("exit\n")
    shell.end()
    assert seen + watch.stdout.read() and watch.wait() == 0
    watch.stdout.close()
