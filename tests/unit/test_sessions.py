"""jailctl sessions and replay, on recordings that the recorder has made of made-up events."""

import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from typing import cast as typed

import pytest

from jailng.core.registry import Record
from jailng.ctl import replay, sessions
from jailng.errors import JailError, UsageError
from jailng.observe import cast, store
from jailng.observe.event import DROPPED, END, INPUT, OUTPUT, RESIZE, START, WHO, Event
from jailng.observe.recorder import Recorder

SRC = Path(__file__).resolve().parents[2] / "src"
OUT = b"\x1b]0;root@cell\x07$ cat \xc3\xa9\xff\x00\r\n\x1b[1mtop \x1b[31msecret\x1b[0m\x1b[6n\r\n"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store, "BASE", str(tmp_path))
    monkeypatch.setattr("jailng.core.registry.find", lambda _: None)
    return tmp_path


@pytest.fixture
def record(kept: Path) -> Iterator[Callable[..., Recorder]]:
    made = contextlib.ExitStack()

    def recorder(name: str = "cell") -> Recorder:
        directory = kept / name / "sessions"
        directory.mkdir(parents=True)
        one = SimpleNamespace(name=name, jid=3, boot="0123456789abcdef", init="100 5000", owner=0x70000000)
        return Recorder(typed("Record", one), str(directory))

    with made:
        yield recorder


def events(start: int, terminal: int = 0) -> list[Event]:
    def event(at: float, kind: str, data: bytes = b"", **more: Any) -> Event:
        return Event(start + int(at * 1e9), kind, terminal, 5, 4711, 0x70000000, "sshd", data, **more)

    return [
        event(0, START, facts={"remote": "192.0.2.1:4711", "by": "kernel"}),
        event(0.1, RESIZE, b"100x30"),
        event(0.2, WHO, facts={"user_uid": 0x700003E8, "user_pid": 4712, "user_comm": "sh\x1b[2J"}),
        event(1, OUTPUT, OUT[:20]),
        event(2, INPUT, b"hunter\x7fr2\r"),
        event(3, OUTPUT, OUT[20:]),
        event(3.5, DROPPED, count=2),
    ]


def make(recorder: Recorder, terminal: int = 0, ended: bool = True) -> None:
    start = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for event in events(start, terminal):
        recorder.take(event)
    if ended:
        recorder.take(Event(start + 4 * 10**9, END, terminal, 5))


def listed(capfd: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, Any]]:
    capfd.readouterr()
    assert sessions.main([*argv, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capfd.readouterr().out)["sessions"]
    return found


def test_a_list(record: Callable[..., Recorder], capfd: pytest.CaptureFixture[str]) -> None:
    recorder = record()
    make(recorder)
    make(recorder, 1, ended=False)
    recorder.tick(0)
    ended, live = listed(capfd)
    assert (ended["state"], live["state"]) == ("ended", "live")
    assert {key: ended[key] for key in ("jail", "jid", "tty", "user", "uid", "from", "in", "out", "dropped")} == {
        "jail": "cell",
        "jid": 3,
        "tty": "pts/0",
        "user": "1000",
        "uid": 1000,
        "from": "192.0.2.1:4711",
        "in": 10,
        "out": len(OUT),
        "dropped": 2,
    }
    assert (ended["duration"], ended["columns"], ended["rows"], ended["pid"]) == (4.0, 100, 30, 4712)
    assert abs(ended["start"] - time.time()) < 600
    assert os.stat(ended["file"]).st_mode & 0o777 == 0o600
    assert sessions.main(["cell"]) == 0
    out = capfd.readouterr().out.splitlines()
    assert out[0].split() == "ID JAIL TTY USER FROM START DURATION IN OUT DROPPED UNRECORDED STATE".split()
    assert out[1].split()[:5] == [ended["id"], "cell", "pts/0", "1000", "192.0.2.1:4711"]
    assert out[-1] == "cell: events dropped: 4"
    recorder.close()
    assert [one["state"] for one in listed(capfd)] == ["ended", "ended"]


def test_who_opens_a_terminal_for_others_is_not_its_user(
    record: Callable[..., Recorder], capfd: pytest.CaptureFixture[str]
) -> None:
    """Where nobody was seen to sit there: an sshd is root's, and what it serves need not be."""
    openers = [(0x70000000, "", -1), (0, "", -1), (0x700003E8, "1000", 1000), (0x70010000, "65536", 65536)]
    recorder = record()
    for terminal, (opener, user, uid) in enumerate(openers):
        for kind, data in ((START, b""), (OUTPUT, b"x"), (END, b"")):
            recorder.take(
                Event(time.clock_gettime_ns(time.CLOCK_BOOTTIME), kind, terminal, 5, 4711, opener, "sshd", data)
            )
        found = {one["tty"]: one for one in listed(capfd)}[f"pts/{terminal}"]
        assert (found["user"], found["uid"]) == (user, uid)
    assert not listed(capfd, "--user", "root")
    facts: dict[str, str | int] = {"user_uid": 0x70000000, "user": "0"}  # there is no passwd(5)
    recorder.take(Event(time.clock_gettime_ns(time.CLOCK_BOOTTIME), START, 9, 5, 4711, 0, "jexec", facts=facts))
    recorder.take(Event(time.clock_gettime_ns(time.CLOCK_BOOTTIME), OUTPUT, 9, 5, 4711, 0, "jexec", b"x"))
    (found,) = listed(capfd, "--user", "root")
    assert (found["tty"], found["uid"]) == ("pts/9", 0)
    recorder.close()


def test_one_whose_recorder_is_gone_is_cut_off(
    record: Callable[..., Recorder], capfd: pytest.CaptureFixture[str], kept: Path
) -> None:
    recorder = record()
    make(recorder, ended=False)
    os.close(typed("Any", recorder)._lock)
    assert [one["state"] for one in listed(capfd)] == ["cut off"]
    typed("Any", recorder)._lock = os.open(kept, os.O_RDONLY)
    recorder.close()


def test_filters(record: Callable[..., Recorder], capfd: pytest.CaptureFixture[str]) -> None:
    first, second = record(), record("other")
    make(first)
    make(second)
    second.take(Event(10**18, START, 5, 5))
    second.close()
    first.close()
    assert {one["jail"] for one in listed(capfd)} == {"cell", "other"}
    assert [one["jail"] for one in listed(capfd, "cell")] == ["cell"]
    assert len(listed(capfd, "other")) == 1
    assert len(listed(capfd, "-a", "other")) == 2
    assert len(listed(capfd, "--user", "1000")) == 2
    assert not listed(capfd, "--user", "root")
    assert len(listed(capfd, "--since", "1h", "cell")) == 1
    assert not listed(capfd, "--since", "2200-01-01 10:00", "cell")


def test_what_is_wrong_is_named(kept: Path) -> None:
    with pytest.raises(JailError, match="cell: no such jail runs, and no session of one is recorded"):
        sessions.main(["cell"])
    for word in ("..", "a/b", ""):
        with pytest.raises(JailError, match="not found"):
            sessions.main([word])
    with pytest.raises(JailError, match="--since: not a time"):
        sessions.main(["--since", "yesterday\x1b"])
    with pytest.raises(JailError, match=r"--regex: .*: "):
        sessions.main(["--regex", "("])
    with pytest.raises(JailError, match="12345678: no such session"):
        replay.main(["12345678"])
    with pytest.raises(JailError, match=r"-s: not a number from 0\.001 to 1e"):
        replay.main(["-s", "nan", "12345678"])
    for argv in ([], ["a", "b"], ["--raw", "--text", "a"], ["-x"]):
        with pytest.raises(UsageError):
            replay.main(argv)
    for argv in (["--typed", "--shown", "--search", "x"], ["--raw"], ["-q"]):
        with pytest.raises(UsageError):
            sessions.main(argv)


def test_the_exact_bytes(record: Callable[..., Recorder], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    recorder = record()
    make(recorder)
    recorder.close()
    assert sessions.main(["--json"]) == 0
    number = json.loads(capfdbinary.readouterr().out)["sessions"][0]["id"]
    for argv, main in (
        (["--raw", number], sessions.main),
        (["--raw", f"cell/{number[:4]}"], sessions.main),
        ([number], replay.main),
        (["-s", "1000", number], replay.main),
        (["--raw", "-i", "0", number], replay.main),
    ):
        assert main(argv) == 0
        assert capfdbinary.readouterr().out == OUT
    assert sessions.main(["--raw", "--typed", number]) == 0
    assert capfdbinary.readouterr().out == b"hunter\x7fr2\r"
    assert replay.main(["--text", number]) == 0
    assert capfdbinary.readouterr().out.decode() == "$ cat é\ufffd\ntop secret\n[4.000 s: dropped: up to 2 events]\n"
    with pytest.raises(JailError, match=r"other/.*: no such session"):
        replay.main([f"other/{number}"])


def test_searches(record: Callable[..., Recorder], capfd: pytest.CaptureFixture[str]) -> None:
    recorder = record()
    make(recorder)
    recorder.close()
    assert sessions.main(["--search", "top secret"]) == 0
    [line] = capfd.readouterr().out.splitlines()
    assert line.endswith(" shown: $ cat é\ufffd\\x0atop secret\\x0a"), line
    assert line.split()[1] == "cell"
    assert sessions.main(["--regex", "hunte.2", "--shown"]) == 1
    assert sessions.main(["-i", "--regex", "HUNTE.2", "--typed", "--json", "cell"]) == 0
    [found] = json.loads(capfd.readouterr().out)["matches"]
    assert (found["stream"], found["text"], found["at"]) == ("typed", "hunter2", 2.0)
    assert sessions.main(["--search", "nowhere", "--json"]) == 1
    assert json.loads(capfd.readouterr().out) == {"matches": []}


# Files that somebody has been at, or a broken disk.

HEADER: dict[str, Any] = {
    "version": 2, "width": 80, "height": 24, "timestamp": 1, "title": "t", "env": {},
    "jailng": {"id": "aabbccdd", "terminal": 0, "uid": 0, "base": 5, "recorder": "r", "wall": 10**18, "start": 5},
}  # fmt: skip
ODD: list[Any] = ["x", -1, 10**30, float("inf"), float("nan"), 1.5, None, [], {"a": 1}, "1" * 5000, "\ud800", -(10**19)]
EVENTS = [[1.0, "o", "seen\n"], [2.0, "C", '{"shown": 5, "unrecorded": {}}'], [3.0, "E", '{"state": "ended"}']]
NAME = "20260101T000000Z-aabbccdd.cast"


def odd_files() -> Iterator[list[Any]]:
    for odd in ODD:
        for key in ("width", "timestamp", "title", "env", "jailng"):
            yield [HEADER | {key: odd}, *EVENTS]
        for key in (*HEADER["jailng"], "user_uid", "user", "remote", "late"):
            yield [HEADER | {"jailng": HEADER["jailng"] | {key: odd}}, *EVENTS]
        for place in range(3):
            for event in EVENTS:
                yield [HEADER, *EVENTS, [*event[:place], odd, *event[place + 1 :]]]
        for key in ("shown", "unrecorded", "who", "state"):
            yield [HEADER, *EVENTS, [4.0, "E", json.dumps({key: odd})]]
        yield [HEADER, *EVENTS, [4.0, "W", json.dumps(odd)], odd]


def test_whatever_a_file_says(kept: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing of it ends a listing, a search, a replay, or the start of the jail that is recorded there next."""
    directory = kept / "cell/sessions"
    directory.mkdir(parents=True)
    path = directory / NAME
    monkeypatch.setattr("jailng.observe.player.Wall.wait", lambda *_: b"")
    one = typed("Record", SimpleNamespace(name="cell", jid=3, boot="0123456789abcdef", init="1 5", owner=5))
    deep = "[" * 100_000
    for number, lines in enumerate([*odd_files(), [HEADER, *EVENTS, deep]]):
        path.write_text("\n".join([line if line is deep else json.dumps(line) for line in lines]) + "\n")
        assert [found["id"] for found in listed(capfd, "-a")] == ["aabbccdd"], number
        assert sessions.main(["-a"]) == 0
        capfd.readouterr()
        assert "seen" in searched(capfd), number
        assert replay.main(["--text", "aabbccdd"]) == 0
        assert "seen\n" in capfd.readouterr().out, number
        assert replay.main(["-i", "0", "-s", "1000000", "aabbccdd"]) == 0
        assert "seen\n" in capfd.readouterr().out, number
        Recorder(one, str(directory)).close()
        assert path.exists(), number


def test_whatever_the_counts_say(kept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = kept / "cell/sessions"
    directory.mkdir(parents=True)
    one = typed("Record", SimpleNamespace(name="cell", jid=3, boot="0123456789abcdef", init="1 5", owner=5))
    for said in ("[" * 4096, '{"sessions": {"disk": [1]}}', '{"sessions": {"disk": 1e999}}', '{"sessions": 1}'):
        (directory / "counts").write_text(said)
        assert listed(capfd) == []
        Recorder(one, str(directory)).close()


def searched(capfd: pytest.CaptureFixture[str]) -> str:
    assert sessions.main(["-a", "--search", "see"]) == 0
    return capfd.readouterr().out


def test_a_damaged_header_is_seen_and_the_rest_is_kept(kept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It was passed over in lists, and the next start of the jail removed the file."""
    directory = kept / "cell/sessions"
    directory.mkdir(parents=True)
    (directory / NAME).write_bytes(b"\0" * 80 + b"\n" + "".join(f"{json.dumps(one)}\n" for one in EVENTS[:1]).encode())
    one = typed("Record", SimpleNamespace(name="cell", jid=3, boot="0123456789abcdef", init="1 5", owner=5))
    Recorder(one, str(directory)).close()
    (found,) = listed(capfd)
    assert (found["id"], found["state"], found["start"], found["tty"]) == ("aabbccdd", "damaged", 1767225600, "")
    assert replay.main(["--text", "aabbccdd"]) == 0
    assert capfd.readouterr().out == "seen\n"
    assert "seen" in searched(capfd)


@pytest.mark.parametrize("kind", ["fifo", "link", "directory"])
def test_no_file(kept: Path, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    directory = kept / "cell/sessions"
    directory.mkdir(parents=True)
    path = directory / NAME
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(directory / "nothing")
    else:
        path.mkdir()
    one = typed("Record", SimpleNamespace(name="cell", jid=3, boot="0123456789abcdef", init="1 5", owner=5))
    Recorder(one, str(directory)).close()
    assert not listed(capfd, "-a")


def test_a_lock_that_is_no_file(kept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = kept / "cell/sessions"
    directory.mkdir(parents=True)
    (directory / NAME).write_text("".join(f"{json.dumps(one)}\n" for one in (HEADER, EVENTS[0])))
    os.mkfifo(directory / "r.lock")
    assert [found["state"] for found in listed(capfd)] == ["cut off"]


# On a terminal.

RUN = "import sys; from jailng.observe import store; from jailng.ctl import replay; store.BASE = sys.argv.pop(1)\n"
RUN += "sys.exit(replay.main(sys.argv[1:]))"


class Terminal:
    """A terminal with a replay in it."""

    def __init__(self, base: Path, *argv: str, controls: bool = True) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        self.modes = termios.tcgetattr(slave)
        environment = {**os.environ, "PYTHONPATH": str(SRC)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(base), *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            preexec_fn=self._own if controls else os.setsid,
        )
        self.slave = slave
        self.seen = b""

    @staticmethod
    def _own() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def until(self, what: bytes) -> bytes:
        while what not in self.seen:
            assert select.select([self.master], [], [], 60)[0], self.seen
            self.seen += os.read(self.master, 65536)
        return self.seen

    def end(self) -> int:
        status = self.process.wait(60)
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 65536)
        assert termios.tcgetattr(self.slave) == self.modes
        os.close(self.slave)
        os.close(self.master)
        return status


@pytest.mark.parametrize("controls", [True, False])
def test_replayed_on_a_terminal(record: Callable[..., Recorder], kept: Path, controls: bool) -> None:
    recorder = record()
    make(recorder)
    recorder.close()
    number = next((kept / "cell/sessions").glob("*.cast")).name[17:25]
    terminal = Terminal(kept, "-s", "1000", number, controls=controls)
    seen = terminal.until(b"events")
    assert terminal.end() == 0
    assert seen.startswith("\x1b[22;0t\x1b]0;root@cell\x07$ cat é\ufffd\r\n".encode())
    assert b"\x1b[23;0t" in seen
    assert b"\x1b[6n" not in seen
    assert b"recorded at 100x30; this terminal is 80x24" in seen
    assert b"4.000 s: dropped: up to 2 events" in seen


@pytest.mark.parametrize("how", ["key", "interrupt", "term"])
def test_left_in_the_middle(record: Callable[..., Recorder], kept: Path, how: str) -> None:
    recorder = record()
    make(recorder)
    recorder.close()
    terminal = Terminal(kept, "-s", "0.001", "-i", "1", next((kept / "cell/sessions").glob("*.cast")).name[17:25])
    # The first is due in a quarter of an hour: it waits when its keys are being read.
    while termios.tcgetattr(terminal.slave) == terminal.modes:
        time.sleep(0.01)
    if how == "term":
        terminal.process.send_signal(signal.SIGTERM)
    else:
        os.write(terminal.master, b"q" if how == "key" else b"\x03")
    assert terminal.end() == {"key": 0, "interrupt": -2, "term": 128 + 15}[how]


def test_left_before_it_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes just when the terminal has been changed."""
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    change = replay._Terminal._change

    def interrupted(terminal: replay._Terminal) -> None:
        change(terminal)
        assert termios.tcgetattr(slave) != before
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(replay._Terminal, "_change", interrupted)
    terminal = replay._Terminal()
    terminal._modes = [(slave, before)]
    with pytest.raises(SystemExit):
        terminal.__enter__()
    assert termios.tcgetattr(slave) == before
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    os.close(slave)
    os.close(master)


@pytest.mark.skipif(shutil.which("asciinema") is None, reason="asciinema is not installed")
def test_another_player_plays_it(record: Callable[..., Recorder], kept: Path) -> None:
    recorder = record()
    make(recorder)
    recorder.close()
    [path] = (kept / "cell/sessions").glob("*.cast")
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(kept), "ASCIINEMA_CONFIG_HOME": str(kept)}
    shown = subprocess.run(
        ["asciinema", "cat", str(path)], env=environment, stdout=subprocess.PIPE, check=True, start_new_session=True
    ).stdout
    assert cast.content(shown.decode()) == OUT
    played = ["asciinema", "play", "-s", "1000", str(path)]
    played_bytes = subprocess.run(
        played, env=environment, stdout=subprocess.PIPE, check=True, start_new_session=True
    ).stdout
    assert cast.content(played_bytes.decode()) == OUT
