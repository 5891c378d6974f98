"""The recorder on events that no kernel has seen: files, limits, gaps, and a kill at every byte."""

import io
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from typing import cast as typed

import pytest

from jailng.core.registry import Record
from jailng.errors import JailError
from jailng.observe import archive, cast, session, tally
from jailng.observe.budget import Options
from jailng.observe.event import DROPPED, END, INPUT, OUTPUT, RESIZE, START, UNRECORDED, WHO, Event
from jailng.observe.recorder import Recorder
from jailng.observe.search import search

SECOND = 1_000_000_000
BOOT = 10**18  # later than any CLOCK_BOOTTIME of a machine that runs a test


def record(init: str = "100 5000") -> Record:
    return typed("Record", SimpleNamespace(name="cell", jid=7, boot="0123456789abcdef", init=init, owner=0x70000000))


def event(at: float, kind: str, data: bytes = b"", terminal: int = 0, **more: Any) -> Event:
    return Event(BOOT + int(at * SECOND), kind, terminal, 5, 4711, 0x70000000, "bash", data, **more)


@pytest.fixture
def recorder(tmp_path: Path) -> Callable[..., Recorder]:
    def made(options: Options | None = None, init: str = "100 5000") -> Recorder:
        return Recorder(record(init), str(tmp_path), options)

    return made


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.suffix == ".cast")


def stream(path: Path, code: str = "o") -> bytes:
    with path.open("rb") as file:
        cast.opened(file)
        return b"".join([data for _, data in cast.pieces(cast.entries(file), code)])


def entries(path: Path) -> list[cast.Entry]:
    with path.open("rb") as file:
        cast.opened(file)
        return list(cast.entries(file))


def summary(path: Path) -> session.Summary:
    fd = os.open(path, os.O_RDONLY)
    try:
        return session.summary(fd)
    finally:
        os.close(fd)


def abandon(recorder: Recorder) -> None:
    """Leave it as a kill does: all its descriptors closed, and nothing else done."""
    found = typed("Any", recorder)
    for file in list(found._archive._open):
        os.close(file.fd)
        file.fd = -1
    for fd in (found._lock, found._directory, found._tally._fd):
        os.close(fd)


def test_a_session(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    made = recorder()
    made.take(event(0, START, facts={"remote": "192.0.2.1:4711"}))
    made.take(event(0.1, RESIZE, b"132x43"))
    made.take(event(0.5, OUTPUT, b"$ \xc3"))
    made.take(event(0.6, INPUT, b"l"))
    made.take(event(0.7, OUTPUT, b"\xa9 \xff\0"))
    made.take(event(0.8, RESIZE, b"80x24"))
    made.take(event(0.9, WHO, facts={"user_uid": 0x700003E8, "user_comm": "sh"}))
    made.take(event(2, END))
    [path] = files(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stream(path) == b"$ \xc3\xa9 \xff\0"
    assert stream(path, "i") == b"l"
    found = summary(path)
    assert (found.header.width, found.header.height) == (132, 43)
    assert found.header.own["remote"] == "192.0.2.1:4711"
    assert found.header.own["pid"] == 4711
    assert [each.data for each in entries(path) if each.code == "r"] == ["80x24"]
    assert found.who == {"user_uid": 0x700003E8, "user_comm": "sh"}
    assert (found.ended, found.counts.shown, found.counts.typed) == ("ended", 7, 1)
    assert found.last == 2 * SECOND
    made.close()
    assert sorted(os.listdir(tmp_path)) == [path.name, tally.FILE]


def test_what_has_ended_is_not_read_again(
    recorder: Callable[..., Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where thousands of sessions are kept the next jail of that name starts as soon as the first."""
    made = recorder()
    for number in range(3):
        made.take(event(number, START, terminal=number))
        made.take(event(number, OUTPUT, b'"E", ', terminal=number))
    made.take(event(4, END, terminal=0))
    made.take(event(5, END, terminal=1))
    abandon(made)
    read: list[int] = []
    was = session.summary

    def counted(fd: int) -> session.Summary:
        read.append(fd)
        return was(fd)

    monkeypatch.setattr(session, "summary", counted)
    recorder(init="200 6000").close()
    assert len(read) == 1
    assert sorted(summary(path).ended for path in files(tmp_path)) == ["cut off", "ended", "ended"]


def test_sessions_on_one_terminal_and_on_two(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    made = recorder()
    for number in range(3):
        made.take(event(number, START, terminal=number // 2))
        made.take(event(number, OUTPUT, b"%d" % number, terminal=number // 2))
    made.take(event(4, OUTPUT, b"not begun", terminal=9))
    made.close("jail ended")
    assert sorted(stream(path) for path in files(tmp_path)) == [b"0", b"1", b"2", b"not begun"]
    assert [summary(path).header.own.get("late", 0) for path in files(tmp_path)].count(1) == 1
    assert {summary(path).ended for path in files(tmp_path)} == {"ended", "jail ended"}


def test_only_one_records_a_jail(recorder: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    first = recorder()
    monkeypatch.setattr("jailng.observe.recorder._PATIENCE", 0)
    with pytest.raises(JailError, match="cell: the terminals of this jail are being recorded already"):
        recorder()
    recorder(init="200 6000").close()
    first.close()


def scene() -> list[Event]:
    return [
        event(0, START),
        event(0.1, OUTPUT, "é€".encode()[:4]),
        event(0.2, INPUT, b"\x1b[A\0\xff"),
        event(0.3, OUTPUT, "é€".encode()[4:] + b'\\u00e9"\r\n'),
        event(0.4, OUTPUT, "😀".encode()[:3]),
    ]


def cut_off(recorder: Callable[..., Recorder], tmp_path: Path) -> Path:
    """The file of the scene, whose recorder was killed after it."""
    made = recorder()
    for one in scene():
        made.take(one)
    abandon(made)
    [path] = files(tmp_path)
    return path


SHOWN = b"".join([one.data for one in scene() if one.kind == OUTPUT])


def test_killed_at_every_byte(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    """Whatever was written before is kept, the next recorder goes on in the file, and the file is one in the end."""
    path = cut_off(recorder, tmp_path)
    content = path.read_bytes()
    header = content.index(b"\n") + 1
    for cut in range(header, len(content) + 1):
        path.write_bytes(content[:cut])
        before, typed_before = stream(path), stream(path, "i")
        assert SHOWN.startswith(before)
        again = recorder()
        assert stream(path) == before, cut
        again.take(event(5, OUTPUT, b"more"))
        again.take(event(6, END))
        again.close()
        assert stream(path) == before + b"more", cut
        assert stream(path, "i") == typed_before
        found = summary(path)
        assert (found.ended, found.counts.gaps) == ("ended", 1)
        assert (found.counts.shown, found.counts.typed) == (len(before) + 4, len(typed_before))
        assert [each.data.startswith("gap: ") for each in entries(path) if each.code == "m"] == [True]
        times = [each.time for each in entries(path)]
        assert times == sorted(times)


def test_events_given_again_after_a_kill_are_not_there_twice(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    path = cut_off(recorder, tmp_path)
    content = path.read_bytes()
    header = content.index(b"\n") + 1
    for cut in range(header, len(content) + 1):
        path.write_bytes(content[:cut])
        latest = round(max([each.time for each in entries(path)], default=0), 3)
        again = recorder()
        for one in scene()[1:]:
            if one.time >= BOOT + int(latest * SECOND):
                again.take(one)
        again.take(event(6, END))
        again.close()
        assert stream(path) == SHOWN, cut
        assert stream(path, "i") == b"\x1b[A\0\xff", cut


def test_killed_in_the_header(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    path = cut_off(recorder, tmp_path)
    path.write_bytes(path.read_bytes()[:40])
    again = recorder()
    assert not files(tmp_path)
    again.take(event(5, OUTPUT, b"more"))
    again.close()
    [path] = files(tmp_path)
    assert (stream(path), summary(path).header.own["late"]) == (b"more", 1)


def test_what_a_former_jail_has_left_is_cut_off(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    cut_off(recorder, tmp_path)
    other = recorder(init="200 6000")
    other.take(event(5, OUTPUT, b"of another jail"))
    other.close()
    first, second = files(tmp_path)
    states = {summary(path).ended: stream(path) for path in (first, second)}
    assert states == {"cut off": SHOWN, "ended": b"of another jail"}
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".lock")]


def test_a_machine_that_has_lost_its_power(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    """Some file systems have zeros where a file's end was not on the disk yet: that keeps no jail from its start."""
    path = cut_off(recorder, tmp_path)
    content = path.read_bytes()
    for cut in range(content.index(b"\n") + 1, len(content)):
        path.write_bytes(content[:cut].ljust(len(content), b"\0"))
        before = stream(path)
        assert SHOWN.startswith(before)
        with path.open("rb") as file:
            cast.opened(file)
            assert not list(search(file, re.compile("nowhere"), "io"))
        recorder(init=f"{cut} 7000").close()
        assert (stream(path), summary(path).ended) == (before, "cut off"), cut


def test_the_size_of_a_session(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    made = recorder(Options(size=20000))
    for number in range(100):
        made.take(event(number, OUTPUT, b"x" * 1000))
    made.take(event(101, INPUT, b"y" * 1000))
    made.take(event(102, OUTPUT, b"z"))
    made.tick(BOOT + 103 * SECOND)
    abandon(made)
    made = recorder(Options(size=20000))
    made.take(event(104, OUTPUT, b"z"))
    made.close()
    [path] = files(tmp_path)
    found = summary(path)
    assert 15000 < path.stat().st_size < 20000 + 2000
    assert (found.counts.shown + found.counts.unrecorded["size"], found.counts.typed) == (100_002, 1000)
    assert len(stream(path)) == found.counts.shown
    assert "larger than the limit" in next(each.data for each in entries(path) if each.code == "m")
    fd = os.open(tmp_path, os.O_RDONLY)
    assert tally.read(fd)["unrecorded"] == found.counts.unrecorded
    os.close(fd)


def test_the_rate(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    """A flood is recorded at half the rate; who types beside it is recorded whole; and then all is well again."""
    made = recorder(Options(rate=100_000))
    for number in range(10_000):
        for terminal in range(4):
            made.take(event(number / 100, OUTPUT, b"x" * 4000, terminal))
        if not number % 10:
            made.take(event(number / 100, INPUT, b"who", 7))
    made.take(event(200, OUTPUT, b"quiet"))
    made.close()
    paths = files(tmp_path)
    [quiet] = [path for path in paths if summary(path).header.own["terminal"] == 7]
    assert stream(quiet, "i") == b"who" * 1000
    assert not summary(quiet).counts.unrecorded
    recorded = 0
    for path in paths:
        found = summary(path)
        if path != quiet:
            recorded += found.counts.shown
            assert found.counts.shown + found.counts.unrecorded["rate"] in (40_000_000, 40_000_005)
            marks = [each.data for each in entries(path) if each.code == "m"]
            assert 2 <= len(marks) < 400
            assert any("not recorded since" in mark for mark in marks)
    assert recorded < 100_000 * (100 + 17) + 4 * 4096 * 117
    assert any(stream(path).endswith(b"quiet") for path in paths)


def test_what_is_typed_beside_one_s_own_flood(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    """Who has a program fill the terminal does not hide by that what he types."""
    made = recorder(Options(rate=4096, size=1 << 20))
    made.take(event(0, START))
    typed = b""
    for number in range(200):
        made.take(event(number / 100, OUTPUT, b"x" * 4096))
        typed += b"%d" % (number % 10)
        made.take(event(number / 100, INPUT, b"%d" % (number % 10)))
    made.take(event(3, END))
    made.close()
    [path] = files(tmp_path)
    assert stream(path, "i") == typed
    found = summary(path)
    assert found.counts.typed == len(typed)
    assert found.counts.shown == len(stream(path))
    assert found.counts.shown + found.counts.unrecorded["rate"] == 200 * 4096
    # What cannot be recorded is told of as if nothing had been typed.
    assert len([one for one in entries(path) if one.code == "m"]) < 10
    times = [one.time for one in entries(path)]
    assert times == sorted(times)


def test_what_is_typed_when_the_file_is_full_of_what_was_shown(
    recorder: Callable[..., Recorder], tmp_path: Path
) -> None:
    made = recorder(Options(size=1 << 20))
    made.take(event(0, START))
    for number in range(500):
        made.take(event(number, OUTPUT, b"x" * 4096))
    for number in range(500, 600):
        made.take(event(number, INPUT, b"id\r"))
        made.take(event(number + 0.1, OUTPUT, b"uid=0"))
    made.take(event(700, END))
    made.close()
    [path] = files(tmp_path)
    assert stream(path, "i") == b"id\r" * 100
    assert 7 << 16 < len(stream(path)) < 7 << 17
    assert summary(path).counts.unrecorded == {"size": 500 * 4096 + 500 - len(stream(path))}


def test_the_total(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    made = recorder(Options(total=200_000))
    for terminal in range(4):
        for number in range(100):
            made.take(event(number + terminal / 10, OUTPUT, b"x" * 1000, terminal))
    made.close()
    paths = files(tmp_path)
    assert sum(path.stat().st_size for path in paths) < 200_000 + 4 * 1000
    for path in paths:
        found = summary(path)
        assert found.counts.shown + found.counts.unrecorded.get("total", 0) == 100_000
    # Room again, made by the administrator: recording goes on.
    again = recorder(Options(total=200_000), init="200 6000")
    again.take(event(200, OUTPUT, b"none" * 10000))
    for path in paths:
        path.unlink()
    again.take(event(220, OUTPUT, b"again"))
    again.close()
    assert stream(files(tmp_path)[0]) == b"again"


@pytest.mark.parametrize("oldest", [0, 1])
def test_the_number_of_sessions(recorder: Callable[..., Recorder], tmp_path: Path, oldest: int) -> None:
    made = recorder(Options(sessions=5, oldest=oldest))
    for number in range(20):
        made.take(event(number, START))
        made.take(event(number, OUTPUT, b"%d" % number))
        made.take(event(number, END))
    made.close()
    kept = {stream(path) for path in files(tmp_path)}
    assert len(kept) == 5
    fd = os.open(tmp_path, os.O_RDONLY)
    counts = tally.read(fd)
    os.close(fd)
    if oldest:
        assert counts["files"] == {"removed": 15}
        assert b"19" in kept
    else:
        assert kept == {b"%d" % number for number in range(5)}
        assert counts["sessions"] == {"sessions": 15}
        assert counts["unrecorded"] == {"sessions": 5 * 1 + 10 * 2}


def test_a_flood_of_sessions_is_counted(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    made = recorder()
    for number in range(3000):
        made.take(event(number / 100, START))
        made.take(event(number / 100, OUTPUT, b"x"))
        made.take(event(number / 100, END))
    made.close()
    assert 1000 <= len(files(tmp_path)) <= 1000 + 60 + 1
    fd = os.open(tmp_path, os.O_RDONLY)
    assert tally.read(fd)["sessions"]["sessions"] == 3000 - len(files(tmp_path))
    os.close(fd)


def test_thousands_of_terminals_do_not_take_a_descriptor_each(
    recorder: Callable[..., Recorder], tmp_path: Path
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    made = recorder()
    for turn in range(3):
        for terminal in range(1000):
            made.take(event(terminal + turn / 10, OUTPUT, b"%d" % turn, terminal))
    assert len(os.listdir("/proc/self/fd")) < before + 70
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert {stream(path) for path in files(tmp_path)} == {b"012"}
    assert len(files(tmp_path)) == 1000


class FullDisk:
    """os.write as a disk has it that fills up: part of a line, then nothing; ``stubborn``: nor can that be removed."""

    def __init__(self, room: int, stubborn: bool) -> None:
        self.room = room
        self.stubborn = stubborn

    def write(self, fd: int, data: bytes) -> int:
        written = os.write(fd, data[: max(0, self.room)]) if self.room > 0 else 0
        if not written:
            raise OSError(28, "No space left on device")
        self.room -= written
        return written

    def ftruncate(self, fd: int, size: int) -> None:
        if self.stubborn and self.room <= 0:
            raise OSError(28, "No space left on device")
        os.ftruncate(fd, size)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("room", [1, 300, 700, 705, 900, 1500])
def test_a_full_disk(
    recorder: Callable[..., Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, stubborn: bool
) -> None:
    made = recorder()
    disk = FullDisk(room, stubborn)
    monkeypatch.setattr(archive, "os", disk)
    made.take(event(0, START))
    for number in range(20):
        made.take(event(number, OUTPUT, b"%03d\xe2" % number))
    disk.room = 1 << 20
    made.take(event(30, OUTPUT, b"again"))
    made.close()
    [path] = files(tmp_path)
    found = summary(path)
    assert not found.torn
    assert stream(path).endswith(b"again")
    recorded = len(stream(path))
    assert recorded == found.counts.shown
    assert found.counts.unrecorded.get("disk", 0) + recorded == 85
    fd = os.open(tmp_path, os.O_RDONLY)
    assert tally.read(fd)["unrecorded"]["disk"] == 85 - recorded
    os.close(fd)


def test_what_the_kernel_lost(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    made = recorder()
    made.take(event(0, OUTPUT, b"a"))
    made.take(Event(BOOT + SECOND, DROPPED, count=7))
    made.take(event(2, OUTPUT, b"b"))
    made.take(event(2.5, DROPPED, count=2))
    made.take(event(3, UNRECORDED, b"splice", count=5000))
    made.take(event(4, OUTPUT, b"c"))
    made.take(event(5, OUTPUT, b"later", 1))
    made.close()
    first, second = files(tmp_path)
    found = {summary(path).header.own["terminal"]: summary(path).counts for path in (first, second)}
    assert (found[0].dropped, found[0].unrecorded, found[0].shown) == (9, {"splice": 5000}, 3)
    assert (found[1].dropped, found[1].unrecorded) == (0, {})
    fd = os.open(tmp_path, os.O_RDONLY)
    counts = tally.read(fd)
    os.close(fd)
    assert counts["events"] == {"dropped": 9}
    assert counts["unrecorded"] == {"splice": 5000}


def test_a_tick_makes_the_file_of_one_that_is_silent(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    made = recorder()
    made.take(event(0, START))
    assert not files(tmp_path)
    made.tick(BOOT + SECOND)
    assert len(files(tmp_path)) == 1
    made.close()


def test_a_long_session_is_summed_up_from_its_end(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    made = recorder()
    for number in range(3000):
        made.take(event(number, OUTPUT, b"y" * 500))
        if number == 1500:
            made.take(event(number, WHO, facts={"user_uid": 0x700003E8}))
    [path] = files(tmp_path)
    found = summary(path)
    assert (found.ended, found.counts.shown, found.last) == ("", 1_500_000, 2999 * SECOND)
    assert found.who == {"user_uid": 0x700003E8}
    assert len([each for each in entries(path) if each.code == cast.COUNTS]) >= 3
    made.close()
    assert io.BytesIO(path.read_bytes()).readlines()[-1].startswith(b'[2999.000000000, "E", ')


def test_other_limits_while_it_records(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    made = recorder(Options(size=4096))
    made.take(event(0, OUTPUT, b"x" * 5000))
    made.take(event(1, RESIZE, b"0x0"))
    made.limit(Options())
    made.take(event(2, OUTPUT, b"y" * 5000))
    made.close()
    [path] = files(tmp_path)
    assert stream(path) == b"y" * 5000
    assert summary(path).counts.unrecorded == {"size": 5000}
    assert (summary(path).header.width, summary(path).header.height) == (80, 24)


def test_a_window_that_nobody_has(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    """Who plays a recording makes room for each place of it, and whoever is inside says how large it is."""
    made = recorder()
    made.take(event(0, START))
    made.take(event(0.1, RESIZE, b"65535x65535"))
    made.take(event(1, OUTPUT, b"x"))
    made.take(event(2, RESIZE, b"132x65535"))
    made.close()
    [path] = files(tmp_path)
    assert (summary(path).header.width, summary(path).header.height) == (2000, 1000)
    assert [each.data for each in entries(path) if each.code == "r"] == ["132x1000"]


def test_one_that_was_there_long_before(recorder: Callable[..., Recorder], tmp_path: Path) -> None:
    made = recorder()
    made.tick(BOOT + 5000 * SECOND)
    made.take(event(0, START))
    made.take(event(5001, OUTPUT, b"x"))
    made.close("stopped")
    [path] = files(tmp_path)
    assert [each.time for each in entries(path) if each.code == "o"] == [1.0]
    assert (summary(path).header.own["late"], summary(path).ended) == (1, "stopped")
