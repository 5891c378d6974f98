"""observe/capture.py: whatever write fails, what is kept can be read, and what is not is counted there."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jailng.limits import syslog
from jailng.linux.packet import Frame
from jailng.observe import packetfiles, pcapng, store, taps
from jailng.observe.capture import Capture, Held
from jailng.observe.packetfilter import Wanted
from jailng.observe.pcapng import Packet, Reader
from jailng.observe.taps import Tap

CALLS = ("writev", "write", "open", "rename", "ftruncate", "unlink")  # of os that change something of a file
HOST, LENT = Tap("jng7", "eth0, at the host's end", "jng7"), Tap("epair0a", "epair0b, at the host's end", "epair0a")
SIZE = 100


class Source:
    """A tap's packets, which a test puts in."""

    def __init__(self) -> None:
        self.waiting: list[Frame] = []
        self.sequence = self.taken = self.end = 0
        self._bell = os.pipe2(os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._bell[0]

    def close(self) -> None:
        for fd in self._bell:
            os.close(fd)

    def ready(self) -> bool:
        return bool(self.waiting)

    def frames(self) -> Iterator[Frame]:
        yield from self.waiting
        self.end = self.taken + len(self.waiting)

    def give_back(self) -> None:
        self.resume(self.end)

    def resume(self, sequence: int) -> None:
        del self.waiting[: sequence - self.taken]
        self.sequence = self.taken = sequence

    def drops(self) -> int:
        return 0

    def gone(self) -> bool:
        return False


class Killed(BaseException):
    """The process ends here."""


class Stage:
    """A jail's packets on their way to a directory.

    From the call of the number ``first`` on, from 0, so ``many`` fail; of a write half is done. ``written``: the number
    of the last that has written something, from 1. The worker ``dies`` at the call of that number, from 1, in the
    middle of it or ``afterwards``.
    """

    def __init__(
        self,
        directory: Path,
        patched: pytest.MonkeyPatch,
        first: int,
        many: int,
        dies: int = 0,
        afterwards: bool = False,
    ) -> None:
        self.directory = directory
        self.dies, self.afterwards, self.dead = dies, afterwards, False
        self.first, self.many, self.calls, self.written = first, many, 0, 0
        self.sent = 0
        self.taps = {HOST: Source()}
        self.now = 0.0
        patched.setattr(store, "directory", lambda *_: directory)
        patched.setattr(taps, "survey", lambda _: list(self.taps))
        patched.setattr(taps, "lapsed", lambda *_: False)
        patched.setattr(taps, "open_tap", lambda _, tap, *__: self.taps[tap])
        patched.setattr(syslog, "tell", lambda _: None)
        patched.setattr(time, "monotonic", lambda: self.now)
        date = time.gmtime
        patched.setattr(time, "gmtime", lambda: date(self.now))
        patched.setattr(time, "sleep", lambda _: None)
        for name in CALLS:
            patched.setattr(os, name, self._failing(name, getattr(os, name)))
        self.held = Held("web", Wanted("", 96), cast("Any", dict(self.taps)), [])

    def _failing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **more)
            if self.dead:
                raise Killed
            self.calls += 1
            if self.calls == self.dies:
                self.dead = True
                if self.afterwards:
                    real(*args, **more)
                elif name == "writev":
                    real(args[0], [b"".join(args[1])[:10]])
                raise Killed
            if not self.first < self.calls <= self.first + self.many:
                self.written = self.calls if name == "writev" else self.written
                return real(*args, **more)
            if name == "writev" and (half := b"".join(args[1])[: sum(map(len, args[1])) // 2]):
                return real(args[0], [half])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return call

    def worker(self, again: bool = False) -> Capture:
        record = SimpleNamespace(name="web", params={"ng.watch": "packets size=1M files=4"})
        made = Capture(cast("Any", SimpleNamespace(record=record, again=again, awaited=False)), self.held)
        made._open()
        return made

    def send(self, tap: Tap, count: int) -> None:
        for _ in range(count):
            self.sent += 1
            data = self.sent.to_bytes(8, "big") + bytes(SIZE - 8)
            self.taps[tap].waiting.append(Frame(self.sent, SIZE, 0, data))

    def another(self, dead: Capture | None) -> Capture:
        """The worker that follows."""
        if dead is not None and dead.files._fd >= 0:
            os.close(dead.files._fd)
        self.now += 2
        self.dead = False
        return self.worker(again=True)

    def live(self) -> None:
        """As many workers as it takes, and files."""
        worker: Capture | None = None
        steps: list[Callable[[Capture], object]] = [self._take] * 6
        steps[3] = lambda one: one._rotate("another file")
        for step in (*steps, Capture._drain):
            self.send(HOST, 3)
            while True:
                try:
                    worker = worker or self.worker()
                    step(worker)
                    break
                except Killed:
                    worker = self.another(worker)

    def _take(self, worker: Capture) -> None:
        worker._take_all({})
        self.now += 2
        worker._look_round()

    def play(self) -> None:
        """A worker, another after its death, which a new interface is lent to, and another file."""
        one = self.worker()
        for _ in range(2):
            self.send(HOST, 3)
            one._take_all({})
        self.send(HOST, 2)
        two = self.another(one)
        two._take_all({})
        self.taps[LENT] = Source()
        two._adapt()
        for _ in range(3):
            self.send(LENT, 2)
            self.send(HOST, 1)
            two._take_all({})
            self.now += 2
            two._look_round()
        two._rotate("another file")
        self.send(LENT, 2)
        self.send(HOST, 2)
        two._take_all({})
        two._look_round()
        two._drain()


def found(directory: Path) -> tuple[list[int], int]:
    """The numbers of the packets that are kept, and how many the files say that they lack."""
    numbers = []
    lost = 0
    for path in packetfiles.stored(directory):
        with open(path, "rb") as file:
            reader = Reader(file)
            for one in reader:
                if isinstance(one, Packet):
                    numbers.append(int.from_bytes(one.data[:8], "big"))
                    assert one.interface.name in (HOST.name, LENT.name)
            assert reader.offset == path.stat().st_size, f"{path} is torn"
        lost += packetfiles.look(path).lost
    return numbers, lost


def test_a_file_is_written_to_for_so_long_from_its_first_packet_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A jail that is quiet makes no files without end, of which the budget of bytes would bear a million."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    head = pcapng.section() + pcapng.interface("jng7", 96)
    sections = SimpleNamespace(begin=lambda _: head, finish=lambda: b"", finished=lambda: None)
    files = packetfiles.Files(tmp_path, 1 << 20, 4, 10, cast("Any", sections))
    files.open("")

    def due() -> bool:
        return files.due

    for _ in range(2):
        now[0] += 1000
        assert not due()
        files.write([pcapng.packet(0, 1, b"x" * 60, 60)])
        now[0] += 9
        files.write([pcapng.packet(0, 1, b"x" * 60, 60)])
        assert not due()
        now[0] += 1
        assert due()
        files.rotate()
    files.close()
    assert len(packetfiles.stored(tmp_path)) == 3


def test_a_file_whose_end_takes_long_to_find_is_not_gone_on_with(tmp_path: Path) -> None:
    """The start of a jail waits for it: of one of 5 GB it had not been found when the start was given up."""
    head = pcapng.section() + pcapng.interface("jng7", 96)
    sections = SimpleNamespace(begin=lambda _: head, finish=lambda: b"", finished=lambda: None)
    last = tmp_path / "00000001-20261129T120000Z.pcapng"
    last.write_bytes(head)
    os.truncate(last, 129 << 20)
    for _ in range(2):  # the new one is
        files = packetfiles.Files(tmp_path, 50 << 30, 10, 0, cast("Any", sections))
        files.open("")
        files.close()
    assert [path.stat().st_size for path in packetfiles.stored(tmp_path)] == [129 << 20, 2 * len(head)]


@pytest.mark.parametrize("many", [1, 2, 3, 8])
def test_any_write_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    first = 0
    while True:
        directory = tmp_path / f"{first}"
        directory.mkdir()
        with monkeypatch.context() as patched:
            stage = Stage(directory, patched, first, many)
            stage.play()
        for source in stage.taps.values():
            source.close()
        kept, lost = found(directory)
        assert kept == sorted(set(kept), key=kept.index), first
        assert len(kept) + lost <= stage.sent
        if stage.written > first + many:  # the last counts, as well
            assert len(kept) + lost == stage.sent, (first, kept, lost)
        for command in (["tcpdump", "-nr"], ["tshark", "-r"]):
            if first % 8 == 0 and shutil.which(command[0]):
                for path in packetfiles.stored(directory):
                    done = subprocess.run([*command, str(path)], capture_output=True, text=True)
                    assert done.returncode == 0, (first, done.stderr)
        if first >= stage.calls:
            break
        first += 1
    assert (len(kept), lost) == (stage.sent, 0)
    assert first > 15


@pytest.mark.parametrize("afterwards", [False, True])
@pytest.mark.parametrize("many", [0, 3])
def test_killed_at_any_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int, afterwards: bool) -> None:
    """Each packet is there once, or counted once, those that a full disk had no room for before among them."""
    dies = 1
    while True:
        directory = tmp_path / f"{dies}"
        directory.mkdir()
        with monkeypatch.context() as patched:
            stage = Stage(directory, patched, 4, many, dies, afterwards)
            stage.live()
        for source in stage.taps.values():
            source.close()
        kept, lost = found(directory)
        assert kept == sorted(set(kept)), dies
        assert len(kept) + lost == stage.sent, (dies, kept, lost)
        if dies > stage.calls:
            break
        dies += 1
    assert dies > 8
