"""Commands that a program runs in a jail: streams, users, signals, threads, event loops, and a hostile root."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import jailng
from jailng.api import connection
from jailng.api.jail import Jail
from jailng.core.interpreter import PYTHON
from tests.kernel.stage import Stage
from tests.kernel.stdio_host import until

PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL
BIG = os.urandom(1 << 20) * 10


@pytest.fixture
def jail(nothing_left_behind: None, small_root: Path) -> Iterator[Jail]:
    with jailng.Jail(path=small_root) as made:
        yield made
    connection.close()


def sh(text: str) -> list[str]:
    return ["sh", "-c", text]


def output(jail: Jail, text: str, **more: Any) -> str:
    return str(jail.run(sh(text), stdin=DEVNULL, stdout=PIPE, text=True, check=True, **more).stdout)


def members(stage: Stage, jail: Jail) -> list[int]:
    return [int(pid) for pid in (stage.cgroup2 / f"jailng/{jail.jid}/members/cgroup.procs").read_text().split()]


def test_big_input_and_output(jail: Jail) -> None:
    done = jail.run(["cat"], input=BIG, capture_output=True, check=True)
    assert (done.stdout == BIG, done.stderr) == (True, b"")
    done = asyncio.run(jail.arun(["cat"], input=BIG, capture_output=True, check=True))
    assert done.stdout == BIG


def test_big_arguments(jail: Jail) -> None:
    word = "x" * 100_000
    assert len(output(jail, "printf %s $A $B", env={"A": word, "B": word})) == 200_000


def test_status_and_signal(jail: Jail) -> None:
    assert jail.run(sh("exit 7")).returncode == 7
    assert jail.run(sh("kill -USR1 $$")).returncode == -signal.SIGUSR1
    with pytest.raises(subprocess.CalledProcessError):
        jail.run(["false"], check=True)


def test_a_command_that_asks_to_be_traced(nothing_left_behind: None) -> None:
    """By its parent, the worker (PTRACE_TRACEME): it goes on, and what is told is how it ends."""
    traced = "import ctypes, os; ctypes.CDLL(None).ptrace(0, 0, None, None); os.kill(os.getpid(), 15)"
    with jailng.Jail(path="/") as made:
        assert made.run([PYTHON, "-IS", "-c", traced]).returncode == -signal.SIGTERM
    connection.close()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"args": ["no-such"]}, "execvp: no-such: No such file or directory"),
        ({"args": ["/etc/passwd"]}, "execvp: /etc/passwd: Permission denied"),
        ({"args": ["true"], "user": "nobody-here"}, "nobody-here: no such user"),
        ({"args": ["true"], "cwd": "/no/such"}, "chdir: /no/such: No such file or directory"),
    ],
)
def test_what_cannot_be_run(jail: Jail, arguments: dict[str, Any], sentence: str) -> None:
    for stdin in (DEVNULL, None):
        with pytest.raises(jailng.JailError) as caught:
            jail.run(**arguments, stdin=stdin)
        assert str(caught.value) == sentence
    with pytest.raises(jailng.JailError) as caught:
        asyncio.run(jail.arun(**arguments))
    assert str(caught.value) == sentence


def test_user_directory_and_environment(jail: Jail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert output(jail, "id -u; pwd; echo $HOME $USER") == "0\n/\n/root root\n"
    assert output(jail, "id -u; id -G; pwd; echo $HOME $USER", user="alice") == "1001\n1001 50\n/\n/tmp alice\n"
    assert output(jail, "id -un; pwd", user=1001, cwd="/var/tmp") == "alice\n/var/tmp\n"
    assert (
        output(jail, "env | sort").split()
        == [
            "HOME=/root",
            "LC_ALL=C.UTF-8",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PWD=/",
            "SHELL=/bin/sh",
            "SHLVL=1",
            "USER=root",
            *([f"TERM={os.environ['TERM']}"] if "TERM" in os.environ else []),
        ]
        or "TERM" in os.environ
    )
    assert "SECRET" not in output(jail, "env")
    assert output(jail, "echo $A", env={"A": "b"}) == "b\n"


def test_a_stream_can_be_opened_by_name(jail: Jail) -> None:
    assert output(jail, "echo hi > /dev/stdout") == "hi\n"
    assert output(jail, "echo hi > /dev/stdout", user="alice") == "hi\n"
    assert output(jail, "echo hi > /proc/self/fd/2", stderr=subprocess.STDOUT) == "hi\n"


def test_the_command_has_its_streams_and_nothing_else(jail: Jail) -> None:
    with open("/etc/passwd"), open("/proc/self/ns/net"):
        assert output(jail, "ls /proc/self/fd") == "0\n1\n2\n3\n"  # 3 is the directory that ls reads


def test_a_file_of_the_host_never_enters(jail: Jail, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_text("line\n" * 1000)
    with source.open() as stdin, target.open("w") as stdout:
        done = jail.run(
            sh("cat; readlink /proc/self/fd/0 >&2; readlink /proc/$$/fd/1 >&2"), stdin=stdin, stdout=stdout, stderr=PIPE
        )
    assert done.returncode == 0
    assert target.read_text() == source.read_text()
    assert all(line.startswith(b"pipe:") for line in done.stderr.splitlines())


def test_a_file_that_cannot_be_written(jail: Jail) -> None:
    with open("/dev/full", "w") as full, pytest.raises(jailng.JailError, match="stdout: No space left on device"):
        jail.run(["echo", "hi"], stdin=DEVNULL, stdout=full)


def test_the_programs_own_streams(checkout: Path, jail: Jail, tmp_path: Path) -> None:
    body = f"import sys; sys.path.append({str(checkout / 'src')!r}); import jailng\n"
    body += f"jail = jailng.Jail.find({jail.jid}); print(jail.run(['cat']).returncode)\n"
    argv = [sys.executable, "-c", body]
    assert subprocess.run(argv, input=b"through\n", stdout=PIPE, check=True).stdout == b"through\n0\n"
    target = tmp_path / "out"
    with target.open("w") as stdout:
        subprocess.run(argv, input=b"through\n", stdout=stdout, check=True)
    assert target.read_text() == "through\n0\n"


def test_a_terminal(checkout: Path, jail: Jail) -> None:
    """The command has a terminal of the jail, as with jexec, and the program's own afterwards as it was."""
    body = f"import sys; sys.path.append({str(checkout / 'src')!r}); import jailng\n"
    body += f"jail = jailng.Jail.find({jail.jid}); done = jail.run(['sh', '-c', 'tty; read a; echo got $a; exit 5'])\n"
    body += "print('status', done.returncode)\n"
    told, tell = os.pipe()
    pid, master = pty.fork()
    if pid == 0:
        os.read(told, 1)
        os.execv(sys.executable, [sys.executable, "-c", body])
    before = termios.tcgetattr(master)
    os.write(tell, b".")
    seen = b""
    try:
        while b"/dev/pts/" not in seen:
            seen += os.read(master, 1000)
        os.write(master, b"word\r")
        while b"status" not in seen or not seen.endswith(b"\n"):
            seen += os.read(master, 1000)
        assert os.waitpid(pid, 0)[1] == 0
        assert termios.tcgetattr(master) == before
    finally:
        for fd in (master, told, tell):
            os.close(fd)
    assert b"got word\r\n" in seen
    assert b"status 5\r\n" in seen


def test_threads(jail: Jail) -> None:
    found: dict[int, str] = {}

    def work(number: int) -> None:
        for _ in range(5):
            found[number] = jail.run(["cat"], input=f"{number}", capture_output=True, text=True).stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {number: str(number) for number in range(20)}


def test_gather(jail: Jail) -> None:
    async def program() -> list[bytes]:
        calls = [jail.arun(["cat"], input=b"%d" % number, capture_output=True) for number in range(100)]
        return [done.stdout for done in await asyncio.gather(*calls)]

    assert asyncio.run(program()) == [b"%d" % number for number in range(100)]


def test_threads_and_a_loop_at_once(jail: Jail) -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend(jail.run(["true"]).returncode for _ in range(20)))
    thread.start()

    async def program() -> None:
        await asyncio.gather(*[jail.arun(["true"], stdin=DEVNULL) for _ in range(20)])

    asyncio.run(program())
    thread.join(60)
    assert found == [0] * 20


def test_timeouts(jail: Jail, stage: Stage) -> None:
    command = sh("echo part; exec sleep 1000")

    def seen(run: Callable[[float], object]) -> subprocess.TimeoutExpired:
        """What is told when the command has had the time to say something, which takes longer on a slow machine."""
        for seconds in (0.3, 3):
            with pytest.raises(subprocess.TimeoutExpired) as caught:
                run(seconds)
            assert caught.value.timeout == seconds
            if caught.value.output:
                return caught.value
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            run(30)
        return caught.value

    assert seen(lambda seconds: jail.run(command, timeout=seconds, stdout=PIPE)).output == b"part\n"
    told = seen(lambda seconds: asyncio.run(jail.arun(command, timeout=seconds, capture_output=True)))
    assert (told.output, told.stderr) == (b"part\n", b"")
    with pytest.raises(subprocess.TimeoutExpired):
        jail.run(command, timeout=0.3)  # with an attendant
    until(lambda: not members(stage, jail), "nobody is left")


def test_popen(jail: Jail, stage: Stage) -> None:
    with jail.popen(sh("read a; echo $a; exec sleep 1000"), stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdin and process.stdout
        process.stdin.write("hi\n")
        assert process.stdout.readline() == "hi\n"
        assert process.poll() is None
        assert members(stage, jail) == [process.pid]
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM


@pytest.mark.parametrize("stdout", [DEVNULL, None])
def test_stopping_and_continuing(jail: Jail, stdout: int | None) -> None:
    process = jail.popen(
        sh("trap 'exit 9' USR1; echo ready >&2; while :; do sleep 0.01; done"), stdout=stdout, stderr=PIPE
    )
    assert process.stderr and process.stderr.readline() == b"ready\n"
    process.send_signal(signal.SIGSTOP)
    while "T" not in Path(f"/proc/{process.pid}/stat").read_text().split()[2]:
        pass
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGCONT)
    assert process.wait(30) == 9
    process.stderr.close()


def test_streams_of_an_event_loop(jail: Jail) -> None:
    async def program() -> None:
        process = await jail.apopen(["cat"], stdin=PIPE, stdout=PIPE)
        assert process.stdin and process.stdout
        process.stdin.write(b"one\n")
        assert await process.stdout.readline() == b"one\n"
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        process.close()

    asyncio.run(program())


def test_what_a_command_leaves_behind_stays(jail: Jail, stage: Stage) -> None:
    assert output(jail, "sleep 1000 > /dev/null & echo left") == "left\n"
    assert len(members(stage, jail)) == 1


def test_the_worker_keeps_nothing_open(jail: Jail) -> None:
    worker = connection._worker
    assert worker is not None
    fds = Path(f"/proc/{worker.process.pid}/fd")

    def use() -> list[str]:
        jail.run(["cat"], input=b"x", capture_output=True)
        jail.run(["true"], stdin=DEVNULL, user="alice")
        jail.run(["true"])
        for wrong in (
            {"args": ["no-such"]},
            {"args": ["true"], "user": "nobody-here"},
            {"args": ["true"], "cwd": "/no"},
        ):
            for stdin in (DEVNULL, None):
                with pytest.raises(jailng.JailError):
                    jail.run(**wrong, stdin=stdin)
        jail.popen(["true"], stdin=PIPE).communicate()
        with jailng.Jail(path="/", exec_created="true"):
            pass
        with pytest.raises(jailng.JailError):
            jailng.Jail(path="/", exec_created="false").start()
        jail.set(host_hostname="new")  # when that is answered, all that was asked for before has been done
        until = time.monotonic() + 60
        found: list[str] = []
        while True:
            with suppress(FileNotFoundError):
                found = sorted(os.readlink(fd).rstrip("[]0123456789") for fd in fds.iterdir())
            # The channel of an answer is closed a moment after it.
            if found.count("socket:") == 1 or time.monotonic() > until:
                return found

    use()
    assert use() == use()


@pytest.mark.parametrize("stderr", [DEVNULL, None])
@pytest.mark.parametrize("user", [None, "alice"])
def test_a_root_that_stops_whoever_enters_stops_nobody_else(
    jail: Jail, stage: Stage, small_root: Path, user: str | None, stderr: int | None
) -> None:
    attack = sh("echo ready; while :; do kill -STOP -1; done")
    attacker = jail.popen(attack, stdout=PIPE, stderr=DEVNULL, stdin=DEVNULL)
    assert attacker.stdout and attacker.stdout.readline() == b"ready\n"
    stopped = tries = 0
    with jailng.Jail(path=small_root) as other:
        while stopped < 3:
            with pytest.raises(subprocess.TimeoutExpired) as caught:
                jail.run(["sleep", "1000"], stdin=DEVNULL, stdout=PIPE, stderr=stderr, timeout=0.05, user=user)
            stopped += caught.value.output is None  # it had not even been started
            assert other.run(["echo", "hi"], capture_output=True, stdin=DEVNULL, timeout=60).stdout == b"hi\n"
            tries += 1
            assert tries < 500
    attacker.kill()
    attacker.communicate()
    until(lambda: not members(stage, jail), "who had not been started is killed, too")


def test_commands_in_a_debian(nothing_left_behind: None, debian: Path) -> None:
    with jailng.Jail(path=debian, host_hostname="cell") as jail:
        assert jail.run(["id", "-un"], user="daemon", capture_output=True, text=True, check=True).stdout == "daemon\n"
        assert jail.run(["hostname"], capture_output=True, text=True, check=True).stdout == "cell\n"
        listed = jail.run(["ps", "-e", "-o", "comm="], stdout=PIPE, stdin=DEVNULL, text=True, check=True).stdout.split()
        assert "python3" not in listed
    connection.close()


def test_select_is_enough_to_wait(jail: Jail) -> None:
    process = jail.popen(["cat"], stdin=PIPE, stdout=PIPE)
    assert process.stdin and process.stdout
    process.stdin.close()
    select.select([process.stdout], [], [], 30)
    assert process.stdout.read() == b""
    assert process.wait(30) == 0
    process.stdout.close()
