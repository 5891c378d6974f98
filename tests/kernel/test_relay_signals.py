"""The process that waits on the host is the command's stand-in: its signals, its end."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jailng.core import stdio, waiting
from jailng.core.interpreter import PYTHON
from tests.kernel.stdio_host import OUTER, Console, is_pending, started, state, stopped_by, until, until_held


@pytest.fixture(params=["waits", "relays"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[object]:
    """A command's standard error, such that something must be relayed or nothing."""
    path = "/dev/null" if request.param == "waits" else tmp_path / "err"
    with open(path, "wb") as file:
        yield file


@pytest.mark.parametrize("status", [0, 1, 7, 127, 255])
def test_the_status_is_the_commands(status: int, output: object) -> None:
    with started("sh", "-c", f"exit {status}", stderr=output) as process:
        assert process.wait() == status


@pytest.mark.parametrize("number", [1, 2, 3, 6, 9, 11, 13, 14, 15, 31, 34, 64])
def test_it_dies_of_what_the_command_died_of(number: int, output: object, tmp_path: Path) -> None:
    def allow_cores() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    code = f"import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.kill(os.getpid(), {number})"
    argv = ["/usr/bin/python3", "-c", f"import signal; signal.signal({number}, 0) if {number} != 9 else 0; {code}"]
    with started(*argv, stderr=output, cwd=tmp_path, preexec_fn=allow_cores) as process:
        _, status = os.waitpid(process.pid, 0)
        process.returncode = 0
    assert os.WTERMSIG(status) == number
    assert not os.WCOREDUMP(status)


@pytest.mark.parametrize("number", [1, 2, 3, 6, 10, 12, 14, 15, 26, 27, 28, 29, 30, 34, 64])
def test_signals_are_passed_on_to_the_command(number: int, output: object) -> None:
    """To it alone, as if it were the process that was signalled."""
    script = (
        f"import os, signal; signal.pthread_sigmask(0, [{number}]); child = os.fork()\n"
        "if child == 0: signal.pthread_sigmask(2, []); os.read(0, 1); os._exit(9)\n"
        f"os.write(1, b'ready'); signal.sigwait([{number}]); os.write(1, b'heard'); os.read(0, 1)\n"
        "os._exit(os.waitstatus_to_exitcode(os.wait()[1]))"
    )
    argv = ["/usr/bin/python3", "-c", script]
    with started(*argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output) as process:
        assert process.output.read(5) == b"ready"
        until_held(process.pid)
        process.send_signal(number)
        assert process.output.read(5) == b"heard"
        process.input.write(b"xx")
        process.input.close()
        assert process.wait() == 9


def test_none_is_lost_at_the_start(output: object) -> None:
    """Whatever moment it comes: the command ends of it, and the status says so."""
    for _ in range(50):
        with started("sleep", "1000", stderr=output) as process:
            process.terminate()
            assert process.wait() == -signal.SIGTERM


def test_an_ignored_signal_is_not_passed_on(output: object) -> None:
    """As after nohup(1)."""

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    argv = ["sh", "-c", "echo ready; exec sleep 1000"]
    with started(*argv, stdout=subprocess.PIPE, stderr=output, preexec_fn=ignore) as process:
        process.output.readline()
        until_held(process.pid)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM


def test_a_stopped_command_cannot_keep_us(output: object) -> None:
    with started("sh", "-c", "echo $$; kill -STOP $$", stdout=subprocess.PIPE, stderr=output) as process:
        command = int(process.output.readline())
        until(lambda: state(command) == "T", "the command stops")
        until_held(process.pid)
        process.terminate()
        until(lambda: is_pending(command, signal.SIGTERM), "the signal is passed on")
        assert process.poll() is None
        process.terminate()
        assert process.wait() == -signal.SIGTERM
        until(lambda: state(command) in "XZ", "the command has gone")


def test_a_command_may_be_signalled_twice(output: object) -> None:
    """The second signal is the last for a stopped one only."""
    script = "trap 'echo heard' INT; echo ready; while :; do read x || :; done"
    argv = ["bash", "-c", script]
    with started(*argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output) as process:
        process.output.readline()
        until_held(process.pid)
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            assert process.output.readline() == b"heard\n"


def test_killing_us_kills_the_command(output: object) -> None:
    with started("sh", "-c", "echo $$; kill -STOP $$", stdout=subprocess.PIPE, stderr=output) as process:
        command = int(process.output.readline())
        process.kill()
        process.wait()
        until(lambda: state(command) in "XZ", "the command has gone")


def test_output_that_nobody_takes_can_be_given_up(tmp_path: Path) -> None:
    """The command has ended, its output waits for a reader: one signal is enough."""
    os.mkfifo(tmp_path / "out")
    reading = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(tmp_path / "out", os.O_WRONLY)
    code = "import os; os.write(1, bytes(65536)); os.write(2, b'%d\\n' % os.getpid()); os.write(1, bytes(65536))"
    argv = ["/usr/bin/python3", "-c", code]
    with started(*argv, stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        command = int(process.complaints.readline())
        until(lambda: state(command) in "XZ", "the command has gone")
        process.terminate()
        assert process.wait() == -signal.SIGTERM
    os.close(reading)


def test_a_key_reaches_the_whole_group() -> None:
    """What the terminal sends to a job, the command's children get, too."""
    script = "trap : INT; sh -c 'echo ready; exec sleep 1000'; echo over"
    with Console("sh", "-c", script, redirect="2>/dev/null") as console:
        console.order("start-front")
        console.read_until(b"ready")
        assert not console.is_raw()
        until_held(console.job())
        console.type(b"\x03")
        console.read_until(b"over")
        assert console.status() == 0


def test_a_job_that_the_user_stops_is_stopped() -> None:
    script = "echo $$; while read x; do echo got $x; done"
    with Console("sh", "-c", script, redirect="2>/dev/null") as console:
        console.order("start-front")
        command = int(console.read_until(b"\n"))
        console.type(b"\x1a")
        assert stopped_by(console.status()) == signal.SIGTSTP
        until(lambda: state(command) == "T", "the command stops")
        console.order("front-continue")
        console.type(b"on\n")
        console.read_until(b"got on")
        console.type(b"\x04")
        assert console.status() == 0


def test_a_background_job_leaves_the_terminal_alone() -> None:
    """It is not stopped because there is something to read, and reads it once it is in front."""
    script = "echo ready; read x; echo got $x"
    with Console("sh", "-c", script, redirect="2>/dev/null") as console:
        console.type(b"typed\n")
        console.order("start")
        console.read_until(b"ready")
        console.order("front")
        console.read_until(b"got typed")
        assert console.status() == 0


def test_pid_one_ends_with_the_status_of_a_shell() -> None:
    """Signals that it sends itself do not reach PID 1 of a namespace."""
    argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *OUTER, "sh", "-c", "kill -TERM $$"]
    assert subprocess.run(argv, stderr=subprocess.DEVNULL).returncode == 128 + signal.SIGTERM


_TRACED = """
import ctypes, os, signal, sys
signal.signal(signal.SIGUSR1, lambda number, frame: print("heard", flush=True))
ctypes.CDLL(None).ptrace(0, 0, None, None)
os.kill(os.getpid(), signal.SIGUSR1)
os.execv(sys.executable, [sys.executable, "-IS", "-c", "import sys; print('executed', flush=True); sys.exit(3)"])
"""


def test_a_command_that_asks_to_be_traced_goes_on(output: object) -> None:
    """By its parent, PTRACE_TRACEME: that is the stand-in, which is told of each signal and each exec as of an end."""
    with started(PYTHON, "-IS", "-c", _TRACED, stdout=subprocess.PIPE, stderr=output) as process:
        said, _ = process.communicate()
    assert (said.split(), process.returncode) == ([b"heard", b"executed"], 3)


_TRACED_THREAD = """
import ctypes, os, threading, time
thread = threading.Thread(target=lambda: ctypes.CDLL(None).ptrace(0, 0, None, None))
thread.start(); thread.join()
try:
    while open(f"/proc/self/task/{thread.native_id}/stat").read().rpartition(")")[2].split()[0] != "Z": time.sleep(0.01)
except OSError: pass  # it has been reaped
os._exit(3)
"""


def test_a_thread_that_asks_to_be_traced_and_ends(output: object) -> None:
    """It has not until the stand-in has reaped it, nor has the command, nor the jail."""
    with started(PYTHON, "-IS", "-c", _TRACED_THREAD, stderr=output) as process:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 3


def test_a_thread_that_ends_while_the_stand_in_has_not_begun_to_wait() -> None:
    """SIGCHLD that comes then is lost."""
    code = f"{_TRACED_THREAD.replace('os._exit(3)', '')}print('ended', flush=True); time.sleep(0.2); os._exit(3)"
    with subprocess.Popen([PYTHON, "-IS", "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ended\n"
        signal.alarm(60)  # which is passed on, and so seen to
        begun = time.monotonic()
        status = waiting.wait(process.pid, os.pidfd_open(process.pid), stdio.Streams((0, 1, 2)))
        signal.alarm(0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 3 and time.monotonic() - begun < 50


# A child that traces its parent, and does not wait for it; it ends with its input.
_HELD = """
import ctypes, os, signal, sys
told, tell = os.pipe()
if os.fork() == 0:
    assert ctypes.CDLL(None).ptrace(0x4206, os.getppid(), None, None) == 0  # PTRACE_SEIZE
    os.write(tell, b".")
    os._exit(len(os.read(0, 1)))
os.read(told, 1)
print("held", flush=True)
if sys.argv[1] == "stopped": os.kill(os.getpid(), signal.SIGUSR1)
os._exit(3)
"""


@pytest.mark.parametrize("what", ["stopped", "ended"])
def test_who_is_traced_inside_keeps_nobody_waiting(output: object, what: str) -> None:
    """Its parent is told neither that it has stopped nor that it has ended: the second signal ends the wait."""
    with started(
        PYTHON, "-IS", "-c", _HELD, what, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output
    ) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
            process.send_signal(signal.SIGTERM)
            # Else the two are one. It may end of the first.
            until(lambda: process.poll() is not None or not is_pending(process.pid, signal.SIGTERM), "it is taken")
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == -signal.SIGTERM
            process.stdin.close()
        finally:
            process.kill()
