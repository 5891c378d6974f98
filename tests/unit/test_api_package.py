"""``import jailng``: cheap for the commands, and everything there for programs; what is said to the worker of jails."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import jailng
from jailng.api import connection
from jailng.core.wire import pack
from tests.unit.fake_worker import FakeWorker


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> FakeWorker:
    made = FakeWorker()
    monkeypatch.setattr(connection, "_worker", made)
    return made


def test_the_package_alone_loads_nothing(checkout: Path) -> None:
    program = f"""if True:
        import sys
        sys.path.append({str(checkout / "src")!r})
        before = set(sys.modules)
        import jailng
        print(*set(sys.modules) - before - {{"__future__"}})"""
    done = subprocess.run([sys.executable, "-ISc", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["jailng"]


def test_what_it_hands_out() -> None:
    assert set(jailng.__all__) == {"CompletedProcess", "Jail", "JailError", "jails"} <= set(dir(jailng))
    assert jailng.CompletedProcess is subprocess.CompletedProcess
    assert issubclass(jailng.JailError, Exception)
    assert callable(jailng.jails)
    with pytest.raises(AttributeError, match="no attribute 'Jial'"):
        getattr(jailng, "Jial")  # noqa: B009  # mypy knows as well


def test_start_and_stop(worker: FakeWorker) -> None:
    worker.answers += [pack("ok", 7, "www", "100 200"), pack("ok")]
    with jailng.Jail(path="/", name="www", ip4_addr=["192.0.2.1"]) as jail:
        assert (jail.jid, jail.name, repr(jail)) == (7, "www", "<jailng.Jail 'www' jid=7>")
    worker.end()
    given = ["persist", "true", "path", "/", "name", "www", "ip4.addr", "192.0.2.1"]
    assert worker.heard == [["start", "", "8", *given], ["stop", "", "7", "100 200"]]
    assert worker.acknowledged == [b"heard", b""]


def test_start_and_stop_in_an_event_loop(worker: FakeWorker) -> None:
    async def program() -> None:
        async with jailng.Jail(path="/") as jail:
            await jail.aset(name="other")
            assert jail.name == "other"

    worker.answers += [pack("ok", 7, "7", "100 200"), pack("ok", "other"), pack("ok")]
    asyncio.run(program())
    worker.end()
    assert [words[0] for words in worker.heard] == ["start", "set", "stop"]
    assert worker.heard[1] == ["set", "7", "100 200", "2", "name", "other"]


def test_a_kept_jail_is_not_stopped(worker: FakeWorker) -> None:
    worker.answers += [pack("ok", 7, "7", "100 200"), pack("ok"), pack("ok")]
    with jailng.Jail(path="/", keep=True) as jail:
        pass
    jail.stop()
    jail.remove()
    worker.end()
    assert [words[:2] for words in worker.heard] == [["start", "keep"], ["stop", ""], ["stop", "forced"]]


def test_what_the_worker_refuses(worker: FakeWorker) -> None:
    worker.answers += [pack("error", 1, 'jail "www" already exists')] * 2
    with pytest.raises(jailng.JailError, match=r'^jail "www" already exists$'):
        jailng.Jail(path="/", name="www").start()
    with pytest.raises(jailng.JailError, match=r'^jail "www" already exists$'):
        asyncio.run(jailng.Jail(path="/", name="www").astart())
    worker.end()


def test_a_start_that_is_cancelled_is_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(FakeWorker):
        def send(self, packet: bytes, fds: list[int], flags: int = 0) -> None:
            self.channel = os.dup(fds[0])
            tasks[0].cancel()

    async def program() -> None:
        tasks.append(asyncio.create_task(jailng.Jail(path="/").astart()))
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]

    tasks: list[asyncio.Task[jailng.Jail]] = []
    worker = Slow()
    monkeypatch.setattr(connection, "_worker", worker)
    asyncio.run(program())
    assert os.read(worker.channel, 100) == b""
    os.close(worker.channel)


def test_what_cannot_be_changed_is_refused_here(worker: FakeWorker) -> None:
    worker.answers += [pack("ok", 7, "7", "100 200")]
    jail = jailng.Jail(path="/").start()
    with pytest.raises(jailng.JailError, match="unknown parameter: nonsense"):
        jail.set(nonsense=1)
    worker.end()
    assert len(worker.heard) == 1


def test_a_forked_process_has_no_worker(worker: FakeWorker) -> None:
    disowned: list[bool] = []
    worker.disown = lambda: disowned.append(True)  # type: ignore[attr-defined]
    pid = os.fork()
    if pid == 0:
        os._exit(0 if connection._worker is None and disowned else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert connection._worker is worker  # type: ignore[comparison-overlap]
