"""A command that has a terminal: a pty of its own, the user's out of its reach, and nothing lost between the two."""

from __future__ import annotations

import os
import pty
import random
import select
import signal
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.stdio_host import ENVIRONMENT, OUTER, PATIENCE, Console, held, is_pending, state, stopped_by, until

SIZE = 5_000_000
_ECHO = "echo ready; while read x; do echo got $x; done"


@pytest.fixture
def root(small_root: Path) -> Iterator[str]:
    """The pid of a process that has a root of its own, with /dev/pts."""
    with held(small_root) as pid:
        yield pid


def test_the_terminal_is_the_jails_own(root: str) -> None:
    with Console("--root", root, "sh", "-c", "tty; for n in 0 1 2; do readlink /proc/self/fd/$n; done") as console:
        console.order("start-front")
        assert console.status() == 0
        assert console.rest().split() == [b"/dev/pts/0"] * 4


def test_it_belongs_to_the_jails_root(root: str) -> None:
    script = "stat -c %u:%g:%a $(tty); : <$(tty) && : </dev/tty && echo opened"
    with Console("--root", root, "--base", "70000", "sh", "-c", script) as console:
        console.order("start-front")
        assert console.status() == 0
        assert console.rest().split() == [b"70000:70005:620", b"opened"]


@pytest.mark.parametrize("fault", ["without-devpts", "false-devpts", "used-up"])
def test_where_the_root_has_none_it_is_nobodys(fault: str, small_root: Path) -> None:
    """Whatever the root pretends, the command gets a terminal that is not the host's."""
    with held(small_root, fault) as pid:
        taken = [os.open(f"/proc/{pid}/root/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)] if fault == "used-up" else []
        with Console(
            "--root", pid, "sh", "-c", "readlink /proc/self/fd/0; stty size; : </dev/tty && echo opened"
        ) as console:
            console.order("start-front")
            assert console.status() == 0
            assert console.rest().split() == [b"/0", b"24", b"80", b"opened"]
        for fd in taken:
            os.close(fd)


def test_settings_and_size_are_taken_over(root: str) -> None:
    with Console(
        "--root", root, "sh", "-c", "trap 'stty size; exit' WINCH; stty -a; while :; do read x; done"
    ) as console:
        console.order("start-front")
        assert b"rows 24; columns 80" in console.read_until(b"erase = ^?")
        console.resize(50, 132)
        console.read_until(b"50 132")
        console.status()


def test_it_is_raw_meanwhile_and_as_before_afterwards(root: str) -> None:
    with Console("--root", root, "sh", "-c", _ECHO) as console:
        before = console.settings()
        console.order("start-front")
        console.read_until(b"ready")
        assert console.is_raw()
        console.type(b"a\n")
        console.read_until(b"got a")
        console.type(b"\x04")
        assert console.status() == 0
        assert console.settings() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1])
def test_it_is_as_before_after_a_signal(number: int, root: str) -> None:
    with Console("--root", root, "sh", "-c", "echo ready; exec sleep 1000") as console:
        before = console.settings()
        console.order("start-front")
        console.read_until(b"ready")
        assert console.is_raw()
        console.order(f"kill-{number}")
        assert os.WTERMSIG(console.status()) == number
        assert console.settings() == before


def stopped_command(console: Console) -> int:
    """The pid of a command that tells it and then stops itself."""
    console.order("start-front")
    command = int(console.read_until(b"\n").split()[1])
    until(lambda: state(command) == "T", "the command stops")
    return command


def test_it_is_as_before_when_the_command_was_stopped(root: str) -> None:
    with Console("--root", root, "sh", "-c", "echo pid $$; kill -STOP $$") as console:
        before = console.settings()
        command = stopped_command(console)
        assert console.is_raw()
        console.order(f"kill-{signal.SIGHUP}")
        until(lambda: is_pending(command, signal.SIGHUP), "the signal is passed on")
        console.order(f"kill-{signal.SIGTERM}")
        assert os.WTERMSIG(console.status()) == signal.SIGTERM
        assert console.settings() == before


def test_the_stop_key_gives_the_terminal_of_a_stopped_command_back(root: str) -> None:
    with Console("--root", root, "sh", "-c", "echo pid $$; kill -STOP $$; echo on; exec sleep 1000") as console:
        before = console.settings()
        command = stopped_command(console)
        console.type(b"\x1a")
        assert stopped_by(console.status()) == signal.SIGTSTP
        assert (state(command), console.settings()) == ("T", before)
        console.order("front-continue")
        console.read_until(b"on")
        assert console.is_raw()
        console.order(f"kill-{signal.SIGTERM}")
        assert os.WTERMSIG(console.status()) == signal.SIGTERM
        assert console.settings() == before


def test_a_command_that_stops_itself_of_the_stop_key_stops_us(root: str) -> None:
    """As top(1) does, when it has put the screen in order; on FreeBSD it is jexec(8) that stops."""
    script = "trap 'echo off; kill -STOP $$; echo on' TSTP; echo pid $$; while :; do sleep 0.1; done"
    with Console("--root", root, "sh", "-c", script) as console:
        before = console.settings()
        console.order("start-front")
        command = int(console.read_until(b"\n").split()[1])
        console.type(b"\x1a")
        assert stopped_by(console.status()) == signal.SIGTSTP
        assert (state(command), console.settings()) == ("T", before)
        assert b"off" in console.rest()
        console.order("front-continue")
        console.read_until(b"on")
        console.type(b"\x03")
        assert os.WTERMSIG(console.status()) == signal.SIGINT


def test_the_stop_key_stops_a_command_that_leaves_it_to_the_terminal(root: str) -> None:
    with Console("--root", root, "sh", "-c", "echo pid $$; exec sleep 1000") as console:
        before = console.settings()
        console.order("start-front")
        command = int(console.read_until(b"\n").split()[1])
        console.type(b"\x1a")
        assert stopped_by(console.status()) == signal.SIGTSTP
        assert (state(command), console.settings()) == ("T", before)
        console.order("front-continue")
        until(lambda: state(command) == "S", "it goes on")
        console.type(b"\x03")
        assert os.WTERMSIG(console.status()) == signal.SIGINT


def test_the_stop_key_is_the_commands_that_wants_it(root: str) -> None:
    script = "trap 'echo heard' TSTP; echo ready; while :; do sleep 0.1; done"
    with Console("--root", root, "sh", "-c", script) as console:
        console.order("start-front")
        console.read_until(b"ready")
        console.type(b"\x1a")
        console.read_until(b"heard")
        console.type(b"\x03")
        assert os.WTERMSIG(console.status()) == signal.SIGINT


def test_a_stop_key_of_the_commands_choice_stops_nobody(root: str) -> None:
    """Else Enter would leave who types to the shell out here, which took what follows for its own."""
    script = "stty susp '^M' -icrnl; echo pid $$; exec sleep 1000"
    with Console("--root", root, "sh", "-c", script) as console:
        console.order("start-front")
        command = int(console.read_until(b"\n").split()[1])
        until(lambda: b"sleep" in Path(f"/proc/{command}/cmdline").read_bytes(), "it is executed")
        console.type(b"x\ry")
        console.read_until(b"y")
        assert state(command) != "T"
        console.type(b"\x03")
        assert os.WTERMSIG(console.status()) == signal.SIGINT


def test_a_stop_long_after_the_stop_key_stops_nobody(root: str) -> None:
    script = "trap : TSTP; echo pid $$; while :; do read line && echo had $line; done"
    with Console("--root", root, "sh", "-c", script) as console:
        console.order("start-front")
        command = int(console.read_until(b"\n").split()[1])
        console.type(b"\x1a")
        console.read_until(b"^Z")
        console.type(b"one\n")
        console.read_until(b"had one")
        time.sleep(2)
        os.kill(command, signal.SIGSTOP)
        until(lambda: state(command) == "T", "it is stopped")
        os.kill(command, signal.SIGCONT)
        console.type(b"two\n")
        console.read_until(b"had two")
        console.type(b"\x03")
        assert os.WTERMSIG(console.status()) == signal.SIGINT


@pytest.mark.parametrize("trap", ["", "trap 'kill -STOP $$; echo on' TSTP; "])
def test_the_stop_key_does_nothing_where_nobody_could_continue(root: str, trap: str) -> None:
    """By ``ssh -t`` or in a window of its own, where no shell has it as a job, it would be the end of the terminal."""
    pid, master = pty.fork()
    if pid == 0:
        script = f"{trap}echo ready; while :; do sleep 0.1; done"
        os.execve(OUTER[0], [*OUTER, "--root", root, "sh", "-c", script], ENVIRONMENT)
    try:
        for key, word in (
            (b"\x1a", b"ready"),
            (b"\x1a", b"on" if trap else b"^Z"),
            (b"\x03", b"on" if trap else b"^Z"),
        ):
            seen = b""
            while word not in seen:
                seen += os.read(master, 1000)
            os.write(master, key)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGINT
    finally:
        os.close(master)


def test_keys_act_on_the_inside(root: str) -> None:
    """^Z stops a job of the shell in there and ^C ends it, and neither the one who waits out here."""
    job = b"sh -c 'echo run\"\"ning; exec sleep 1000'\n"
    with Console("--root", root, "sh", "-i") as console:
        console.order("start-front")
        console.type(job)
        console.read_until(b"running")
        console.type(b"\x1a")
        console.read_until(b"Stopped")
        console.type(b"kill -KILL %1; " + job)
        console.read_until(b"running")
        console.type(b"\x03")
        console.type(b"echo sta''tus $?\n")
        console.read_until(b"status 130")
        console.type(b"exit 3\n" * 2)  # the first says no more than that there are jobs, if one is not quite dead
        assert os.waitstatus_to_exitcode(console.status()) == 3


def test_interrupting_the_command_is_how_it_ends(root: str) -> None:
    with Console("--root", root, "sh", "-c", "echo ready; exec sleep 1000") as console:
        console.order("start-front")
        console.read_until(b"ready")
        console.type(b"\x03")
        assert os.WTERMSIG(console.status()) == signal.SIGINT


def test_stopping_gives_the_terminal_back(root: str) -> None:
    with Console("--root", root, "sh", "-c", _ECHO) as console:
        before = console.settings()
        console.order("start-front")
        console.read_until(b"ready")
        for word in (b"one", b"two"):
            console.order(f"kill-{signal.SIGTSTP}")
            assert stopped_by(console.status()) == signal.SIGTSTP
            assert console.settings() == before
            console.resize(30, 100)
            console.order("front-continue")
            console.type(word + b"\n")
            console.read_until(b"got " + word)
            assert console.is_raw()
        console.type(b"stty size\n\x04")
        assert console.status() == 0


def test_a_job_in_the_background_runs_on(root: str) -> None:
    """It writes, and neither reads nor sets the terminal before it is in front."""
    with Console("--root", root, "sh", "-c", _ECHO) as console:
        before = console.settings()
        console.type(b"typed\n")
        console.order("start")
        console.read_until(b"ready")
        assert console.settings() == before
        console.order("front")
        console.read_until(b"got typed")
        assert console.is_raw()
        console.type(b"\x04")
        assert console.status() == 0
        assert console.settings() == before


def test_a_job_that_comes_to_the_front_has_the_settings_of_then(root: str) -> None:
    """A shell has others while it waits for a line, and a job in the background begins during that."""
    with Console("--root", root, "sh", "-c", "echo ready; cat; stty raw; stty -a") as console:
        before, edited = termios.tcgetattr(console.master), termios.tcgetattr(console.master)
        edited[0] &= ~termios.ICRNL
        edited[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(console.master, termios.TCSANOW, edited)
        console.order("start")
        console.read_until(b"ready")
        termios.tcsetattr(console.master, termios.TCSANOW, before)
        console.order("front")
        until(console.is_raw, "the job is in front")
        console.type(b"typed\r")
        console.read_until(b"typed\r\ntyped\r\n")
        console.order(f"kill-{signal.SIGTSTP}")
        assert stopped_by(console.status()) == signal.SIGTSTP
        console.order("front-continue")
        until(console.is_raw, "the job is in front again")
        console.type(b"\x04")
        console.read_until(b"-icanon")  # what the command has set since, it keeps
        assert console.status() == 0


def test_a_terminal_that_hangs_up_hangs_up_inside(root: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "told")
    told = os.open(tmp_path / "told", os.O_RDONLY | os.O_NONBLOCK)
    script = f"trap 'echo hung up >{tmp_path}/told; exit' HUP; echo ready; while :; do read x; done"
    with Console("sh", "-c", script) as console:
        console.order("start-front")
        console.read_until(b"ready")
        console.hang_up()
        assert select.select([told], [], [], PATIENCE)[0]
        assert os.read(told, 100).startswith(b"hung up\n")
    os.close(told)


def test_every_byte_passes_both_ways() -> None:
    noise = random.Random(7).randbytes(SIZE)
    with Console("sh", "-c", "stty raw -echo; echo ready; cat") as console:
        console.order("start-front")
        console.read_until(b"ready\n")
        os.set_blocking(console.master, False)
        rest, seen = memoryview(noise), bytearray()
        end = time.monotonic() + 3 * PATIENCE
        while len(seen) < SIZE:
            assert time.monotonic() < end, f"{len(seen)} bytes came back"
            reading, writing, _ = select.select([console.master], [console.master] if rest else [], [], PATIENCE)
            if reading:
                seen += os.read(console.master, 65536)
                end = time.monotonic() + 3 * PATIENCE
            if writing:
                rest = rest[os.write(console.master, rest[:4096]) :]
    assert bytes(seen) == noise


def test_all_output_is_there_when_the_command_has_ended(root: str) -> None:
    for _ in range(10):
        with Console("--root", root, "sh", "-c", "seq 1 3000; kill -KILL $$") as console:
            console.order("start-front")
            assert console.read_until(b"\n3000\r\n").split() == [b"%d" % n for n in range(1, 3001)]
            assert os.WTERMSIG(console.status()) == signal.SIGKILL


def test_what_stays_behind_does_not_keep_us(root: str) -> None:
    with Console("--root", root, "sh", "-c", "trap '' HUP; yes & echo pid $!; trap - HUP") as console:
        console.order("start-front")
        os.set_blocking(console.master, False)
        seen = b""
        console.orders.settimeout(0)
        while True:
            select.select([console.master, console.orders.fileno()], [], [], PATIENCE)
            seen += console.rest()
            try:
                assert console.status() == 0
                break
            except BlockingIOError:
                continue
        assert b"pid " in seen


def test_one_stream_of_the_terminal_alone_is_not_the_terminal(root: str) -> None:
    """`jexec a ls | less`: keys are the terminal's business then, and its end of file is the command's."""
    script = "readlink /proc/self/fd/0 /proc/self/fd/2 | cut -d: -f1; test -t 0 || echo none >&2; cat"
    with Console("--root", root, "sh", "-c", script, redirect="| cat") as console:
        before = console.settings()
        console.order("start-front")
        console.read_until(b"none")
        assert console.settings() == before
        console.type(b"typed\n\x04")
        assert console.status() == 0
        assert console.rest().split().count(b"typed") == 2
