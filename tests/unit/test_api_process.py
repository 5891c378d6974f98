"""run, popen and their asynchronous forms, against a worker that runs commands on the host: as subprocess has it."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import F_DUPFD_CLOEXEC, fcntl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import jailng
from jailng.api import connection
from jailng.api.jail import Jail
from jailng.engine.loop import Task
from jailng.engine.order import Order
from jailng.errors import JailError, Mistakes, UsageError, messages
from tests.unit.fake_worker import FakeWorker

PIPE = subprocess.PIPE
BIG = os.urandom(1 << 20) * 10


@pytest.fixture
def jail(monkeypatch: pytest.MonkeyPatch) -> Iterator[Jail]:
    worker = FakeWorker()
    monkeypatch.setattr(connection, "_worker", worker)
    made = Jail(path="/")
    made._jid, made._identity = 7, "100 200"
    yield made
    worker.end()


@pytest.mark.parametrize(
    "error", [JailError("a", 7), UsageError("b"), Mistakes(["one", "two"]), connection.Died()], ids=repr
)
def test_errors_pass_from_process_to_process(error: JailError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(again), str(again), again.status) == (type(error), str(error), error.status)
        assert messages(again) == messages(error)


@pytest.mark.parametrize("words", [{"encoding": "no-such"}, {"errors": "no-such"}])
def test_an_unknown_encoding_is_told_before_the_command_is_started(
    jail: Jail, tmp_path: Path, words: dict[str, Any]
) -> None:
    before = _open(connection._worker)
    with pytest.raises(LookupError):
        jail.run(sh(f"touch {tmp_path}/started"), capture_output=True, **words)
    with pytest.raises(LookupError):
        asyncio.run(jail.arun(sh(f"touch {tmp_path}/started"), capture_output=True, **words))
    assert _open(connection._worker) == before
    assert not list(tmp_path.iterdir())


def test_a_command_for_a_jail_whose_first_process_is_on_its_way_out() -> None:
    order = Order.__new__(Order)
    gone: Any = SimpleNamespace(jid=9, record=SimpleNamespace(init=f"{1 << 23} 1"))  # pids end below that
    order.jail, order.numbers, order.ours = gone, (-1, -1, -1), []
    with pytest.raises(JailError, match="jail 9 not found"):
        order._streams(0)


def _order() -> tuple[Order, socket.socket, list[int]]:
    """An order whose child has told nothing yet, the program's end of its channel, and what its child is sent."""
    order = Order.__new__(Order)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sent: list[int] = []
    loop: Any = SimpleNamespace(
        signal=lambda _, number: sent.append(number), close=os.close, ignore=lambda _: None, send_off=lambda *_: None
    )
    gone: Any = SimpleNamespace(jid=999999, identity="")
    order.loop, order.jail, order.channel, order._fds = loop, gone, theirs.detach(), []
    order.pending, order.inner = [], -1
    return order, ours, sent


def test_a_command_that_is_given_up_when_its_user_has_just_been_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up has ended, and the worker does not know of that yet: the command ran, and nobody waited for it."""
    order, program, sent = _order()
    monkeypatch.setattr(Order, "_enter", lambda *_: pytest.fail("it enters"))
    order.task = Task("look-up", 999999, 0, lambda _: None)
    with program:
        program.send(b"9")
        order._heard()
        outcome: Any = SimpleNamespace(words=lambda: ["alice", "1", "1", "/", "/bin/sh", "1"])
        order._looked_up(outcome)
        assert program.recv(100).startswith(b"error")
    assert (sent, order.channel) == ([9], -1)


def test_a_command_that_is_given_up_when_its_attendant_has_just_started_it() -> None:
    """An attendant that was killed then left it in the jail."""
    order, program, sent = _order()
    order.task = Task("attendant", 999999, 0, lambda _: None)
    command = subprocess.Popen(["/bin/sleep", "1000"])
    inner = os.pidfd_open(command.pid)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with program, ours, theirs:
        program.send(b"9")
        order._heard()
        socket.send_fds(ours, [b"born"], [inner])
        order._born(theirs)
        assert command.wait(30) == -signal.SIGKILL
        order._let_go()
        order._stop_telling()
    os.close(inner)
    assert sent == []


def sh(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


def _open(worker: object) -> set[str]:
    assert isinstance(worker, FakeWorker)
    worker.end()
    return set(os.listdir("/proc/self/fd"))


# What run does with each of these is what subprocess.run does.
CALLS: dict[str, dict[str, Any]] = {
    "status": {"args": sh("exit 3")},
    "signal": {"args": sh("kill -TERM $$")},
    "a word": {"args": "/bin/true"},
    "a path": {"args": [Path("/bin/echo"), b"bytes"], "capture_output": True},
    "capture": {"args": sh("echo out; echo err >&2"), "capture_output": True},
    "one output": {"args": sh("echo out; echo err >&2"), "stdout": PIPE, "stderr": subprocess.STDOUT},
    "only stderr": {"args": sh("echo err >&2"), "stdout": subprocess.DEVNULL, "stderr": PIPE},
    "input": {"args": ["/bin/cat"], "input": b"some\r\nbytes", "capture_output": True},
    "no input": {"args": ["/bin/cat"], "input": b"", "capture_output": True},
    "text": {"args": ["/bin/cat"], "input": "Grüße\r\nwer\rda\n", "capture_output": True, "text": True},
    "encoding": {"args": ["/bin/cat"], "input": "Grüße", "capture_output": True, "encoding": "latin-1"},
    "errors": {"args": ["printf", "\\377"], "capture_output": True, "encoding": "utf-8", "errors": "replace"},
    "nobody reads": {"args": ["/bin/true"], "input": BIG},
    "both ways": {"args": ["/bin/cat"], "input": BIG, "capture_output": True},
    "env": {"args": ["/usr/bin/env"], "env": {"A": "b c"}, "capture_output": True},
    "cwd": {"args": ["/bin/pwd"], "cwd": "/usr", "capture_output": True},
}


@pytest.mark.parametrize("name", CALLS)
def test_run_is_as_with_subprocess(jail: Jail, name: str) -> None:
    ours, theirs = jail.run(**CALLS[name]), subprocess.run(**CALLS[name])
    assert isinstance(ours, jailng.CompletedProcess)
    assert vars(ours) == vars(theirs)


@pytest.mark.parametrize("name", CALLS)
def test_arun_is_as_with_subprocess(jail: Jail, name: str) -> None:
    ours, theirs = asyncio.run(jail.arun(**CALLS[name])), subprocess.run(**CALLS[name])
    assert vars(ours) == vars(theirs)


def test_check(jail: Jail) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        jail.run(sh("echo out; echo err >&2; exit 3"), capture_output=True, check=True)
    error = caught.value
    assert (error.returncode, error.stdout, error.stderr) == (3, b"out\n", b"err\n")
    assert error.cmd == sh("echo out; echo err >&2; exit 3")
    with pytest.raises(subprocess.CalledProcessError):
        asyncio.run(jail.arun(["/bin/false"], check=True))
    assert jail.run(["/bin/true"], check=True).returncode == 0


def _expired(call: Callable[[float], object], told: bytes) -> subprocess.TimeoutExpired:
    """What the call raises when its time is up, which is given more where the command has not told it all by then."""
    for seconds in (0.5, 5.0):
        error = _expires(call, seconds)
        if (error.output or b"") + (error.stderr or b"") == told:
            return error
    return _expires(call, 30.0)


def _expires(call: Callable[[float], object], seconds: float) -> subprocess.TimeoutExpired:
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        call(seconds)
    assert caught.value.timeout == seconds
    return caught.value


def test_timeout_kills_and_tells_what_was_read(jail: Jail) -> None:
    command = sh("echo part; echo err >&2; exec sleep 1000")
    error = _expired(lambda seconds: jail.run(command, timeout=seconds, capture_output=True), b"part\nerr\n")
    assert (error.cmd, error.output, error.stderr) == (command, b"part\n", b"err\n")


def test_timeout_in_an_event_loop(jail: Jail) -> None:
    command = sh("echo part; exec sleep 1000")
    error = _expired(lambda seconds: asyncio.run(jail.arun(command, timeout=seconds, stdout=PIPE)), b"part\n")
    assert (error.output, error.stderr) == (b"part\n", None)


def test_timeout_where_a_child_of_the_command_keeps_the_pipe(jail: Jail) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        jail.run(sh("sleep 2 & echo $!"), timeout=0.3, stdout=PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        asyncio.run(jail.arun(sh("sleep 2 & echo $!"), timeout=0.3, stdout=PIPE))


def test_cancelling_kills(jail: Jail) -> None:
    async def program() -> int:
        process = await jail.apopen(["/bin/sleep", "1000"])
        task = asyncio.create_task(jail.arun(sh("echo ready; exec sleep 1000"), stdout=PIPE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        process.kill()
        return await process.wait()

    assert asyncio.run(program()) == -signal.SIGKILL


def test_an_exception_kills(jail: Jail) -> None:
    with pytest.raises(UnicodeDecodeError):
        jail.run(sh("printf '\\377'"), capture_output=True, encoding="utf-8")
    with pytest.raises(TypeError):
        jail.run(["/bin/sleep", "1000"], input="text where bytes are wanted")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"input": b"", "stdin": PIPE}, "stdin and input"),
        ({"capture_output": True, "stdout": PIPE}, "capture_output"),
        ({"args": []}, "at least one word"),
        ({"args": ["a\0b"]}, "null byte"),
        ({"env": {"A=B": ""}}, "environment variable"),
        ({"stdin": subprocess.STDOUT}, "not a stream"),
    ],
)
def test_what_cannot_be(jail: Jail, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        jail.run(**{"args": ["/bin/true"], **arguments})
    with pytest.raises(ValueError, match=said):
        asyncio.run(jail.arun(**{"args": ["/bin/true"], **arguments}))


def test_what_cannot_be_executed(jail: Jail) -> None:
    asyncio.run(asyncio.sleep(0))
    before = _open(connection._worker)
    with pytest.raises(jailng.JailError, match=r"^execvp: /no/such: No such file or directory$"):
        jail.run(["/no/such"], capture_output=True, input=b"")
    with pytest.raises(jailng.JailError, match=r"^execvp: /no/such: No such file or directory$"):
        asyncio.run(jail.arun(["/no/such"], capture_output=True, input=b""))
    assert _open(connection._worker) == before


def test_nothing_stays_open(jail: Jail) -> None:
    async def many() -> None:
        await asyncio.gather(*[jail.arun(["/bin/cat"], input=b"x", capture_output=True) for _ in range(20)])

    asyncio.run(many())
    before = _open(connection._worker)
    for _ in range(5):
        jail.run(["/bin/cat"], input=b"x", capture_output=True)
        asyncio.run(many())
    jail.popen(["/bin/true"], stdin=PIPE, stdout=PIPE, stderr=PIPE).communicate()
    assert _open(connection._worker) == before


def test_popen(jail: Jail) -> None:
    with jail.popen(sh("read line; echo got $line; exit 4"), stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.poll() is None
        assert process.pid > 0
        assert process.stdin and process.stdout and not process.stderr
        process.stdin.write("a line\n")
        assert process.stdout.readline() == "got a line\n"
        assert process.wait() == 4
        process.kill()
    assert process.returncode == process.poll() == process.wait() == 4
    assert process.stdin.closed and process.stdout.closed


def test_popen_signals(jail: Jail) -> None:
    for send, number in (("kill", signal.SIGKILL), ("terminate", signal.SIGTERM)):
        process = jail.popen(["/bin/sleep", "1000"])
        getattr(process, send)()
        assert process.wait() == -number
    process = jail.popen(["/bin/sleep", "1000"])
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == -signal.SIGUSR1


def test_whoever_interrupts_does_not_wait_for_the_command(jail: Jail) -> None:
    process = jail.popen(["/bin/sleep", "1000"], stdout=PIPE)
    with pytest.raises(KeyboardInterrupt), process:
        raise KeyboardInterrupt
    assert process.poll() is None and process.stdout and process.stdout.closed
    process.kill()
    assert process.wait(30) == -signal.SIGKILL


def test_wait_with_a_timeout(jail: Jail) -> None:
    process = jail.popen(["/bin/sleep", "1000"])
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait(30) == -signal.SIGKILL


def test_communicate_goes_on_where_it_stopped(jail: Jail) -> None:
    process = jail.popen(sh("cat; echo part; read x; echo rest"), stdin=PIPE, stdout=PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(b"in", 0)
    assert process.communicate() == (b"inpart\nrest\n", None)


def test_threads_may_wait_for_one_command(jail: Jail) -> None:
    process = jail.popen(["/bin/cat"], stdin=PIPE)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(process.wait())) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert process.poll() is None
    assert process.stdin
    process.stdin.close()
    for thread in threads:
        thread.join(30)
    assert found == [0] * 4


def test_many_threads(jail: Jail) -> None:
    found: dict[int, str] = {}

    def work(number: int) -> None:
        found[number] = jail.run(["/bin/echo", str(number)], stdout=PIPE, text=True).stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {number: f"{number}\n" for number in range(20)}


def test_a_command_that_is_forgotten_goes_on(jail: Jail, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    jail.popen(sh(f"echo here > {fifo}"))
    assert fifo.read_text() == "here\n"


def test_streams_of_the_event_loop(jail: Jail) -> None:
    async def program() -> None:
        process = await jail.apopen(sh("read a; echo $a; read b; echo $b >&2"), stdin=PIPE, stdout=PIPE, stderr=PIPE)
        before = process.returncode
        assert process.stdin and process.stdout and process.stderr and before is None
        process.stdin.write(b"one\n")
        assert await process.stdout.readline() == b"one\n"
        assert await process.communicate(b"two\n") == (b"", b"two\n")
        assert process.returncode == 0
        assert await process.wait() == 0
        process.kill()

    asyncio.run(program())


def test_the_environment_says_nothing_of_the_host(jail: Jail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("LANG", "C.UTF-8")
    printed = jail.run(["/usr/bin/env"], stdout=PIPE, text=True).stdout
    assert "SECRET" not in printed
    assert "LANG=C.UTF-8" in printed


@contextmanager
def _without_streams() -> Iterator[None]:
    kept = [fcntl(fd, F_DUPFD_CLOEXEC, 100) for fd in (0, 1, 2)]
    os.closerange(0, 3)
    try:
        yield
    finally:
        worker: object = connection._worker
        if isinstance(worker, FakeWorker):
            worker.end()  # it has some of the numbers
        for fd, copy in enumerate(kept):
            os.dup2(copy, fd)
            os.close(copy)


def test_a_program_without_standard_streams(jail: Jail) -> None:
    with _without_streams():
        done = jail.run(sh("cat; echo x"))
    assert done.returncode == 0


def test_a_start_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(FakeWorker):
        def send(self, packet: bytes, fds: list[int], flags: int = 0) -> None:
            self.kept = os.dup(fds[0])

    worker = Deaf()
    monkeypatch.setattr(connection, "_worker", worker)
    made = Jail(path="/")
    made._jid, made._identity = 7, "100 200"
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        made.run(["/bin/true"], timeout=0.05)
    assert os.read(worker.kept, 100) == b"9"
    assert time.monotonic() - started < 30
    os.close(worker.kept)


def test_an_interrupt_while_it_starts_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(FakeWorker):
        def send(self, packet: bytes, fds: list[int], flags: int = 0) -> None:
            self.kept = os.dup(fds[0])

    def interrupted(channel: connection.Channel, seconds: float | None = None) -> None:
        raise KeyboardInterrupt

    worker = Deaf()
    monkeypatch.setattr(connection, "_worker", worker)
    monkeypatch.setattr(connection.Channel, "listen", interrupted)
    made = Jail(path="/")
    made._jid, made._identity = 7, "100 200"
    for call in (made.run, made.popen):
        with pytest.raises(KeyboardInterrupt):
            call(["/bin/sleep", "1000"])
        assert os.read(worker.kept, 100) == b"9"
        os.close(worker.kept)


def test_what_is_no_stream_of_the_program(jail: Jail, tmp_path: Path) -> None:
    """Where it has closed them, files and sockets of its own may have their numbers."""
    (tmp_path / "secret").write_text("secret")
    with _without_streams():
        assert os.open(tmp_path / "secret", os.O_RDWR) == 0
        done = jail.run(sh("cat; echo x >&2"), stdout=PIPE)
        os.close(0)
        both = jail.run(["/bin/cat"], input=b"x", timeout=30)
    assert (done.returncode, done.stdout, both.returncode) == (0, b"", 0)
    assert (tmp_path / "secret").read_text() == "secret"


def test_sockets_to_the_worker_have_no_number_of_a_stream() -> None:
    with _without_streams():
        ours, theirs = connection._pair()
        numbers = [ours.fileno(), theirs.fileno()]
        with ours, theirs:
            ours.send(b"x")
            received = theirs.recv(10)
    assert received == b"x"
    assert min(numbers) > 2


def test_input_that_has_been_closed(jail: Jail) -> None:
    process = jail.popen(["/bin/cat"], stdin=PIPE, stdout=PIPE)
    assert process.stdin
    process.stdin.write(b"x")
    process.stdin.close()
    assert process.communicate() == (b"x", None)


@pytest.mark.parametrize("text", [None, True])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_was_read_behind_a_line_is_communicated(jail: Jail, stream: str, text: bool | None) -> None:
    """The file object reads as much as there is."""
    command = sh(f"exec 3>&{1 if stream == 'stdout' else 2}; printf 'one\ntwo\nthree\n' >&3")
    found = []
    starts: list[Any] = [jail.popen, subprocess.Popen]
    for start in starts:
        process = start(command, text=text, **{stream: PIPE})
        process.wait()
        found.append((getattr(process, stream).readline(), process.communicate(), process.returncode))
    assert found[0] == found[1]
    assert len(found[0][1][stream == "stderr"]) == len("two\nthree\n")


@pytest.mark.parametrize("seconds", [2**31 // 1000, 1e7, 1e9, 1e12, float("inf")])
def test_a_time_that_does_not_end(jail: Jail, seconds: float) -> None:
    assert jail.run(["/bin/echo", "x"], timeout=seconds, stdout=PIPE).stdout == b"x\n"
    process = jail.popen(["/bin/true"])
    assert process.wait(seconds) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"), [({"user": ""}, ": no such user"), ({"cwd": ""}, "chdir: : No such file or directory")]
)
def test_a_name_that_is_empty_is_not_root_and_not_its_directory(
    jail: Jail, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(JailError, match=f"^{sentence}$"):
        jail.run(["/bin/true"], **arguments)
    with pytest.raises(JailError, match=f"^{sentence}$"):
        asyncio.run(jail.arun(["/bin/true"], **arguments))


def test_a_worker_that_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(FakeWorker):
        def send(self, packet: bytes, fds: list[int], flags: int = 0) -> None:
            pass

    monkeypatch.setattr(connection, "_worker", Dying())
    made = Jail(path="/")
    made._jid, made._identity = 7, "100 200"
    with pytest.raises(jailng.JailError, match="has died"):
        made.run(["/bin/true"])
    with pytest.raises(jailng.JailError, match="has died"):
        asyncio.run(made.arun(["/bin/true"]))
