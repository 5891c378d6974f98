"""Recordings of a jail's terminals: the bytes that its user saw, gaps where the recorder was killed, a full disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from jailng.core import registry
from jailng.linux import btf, ns
from jailng.observe import store
from tests.kernel.conftest import Command
from tests.kernel.debian import LISTENS
from tests.kernel.networks import Namespace
from tests.kernel.stage import mount, unmount
from tests.kernel.terminals import PATIENCE, Screen, screen

pytestmark = pytest.mark.skipif(not os.path.exists(btf.VMLINUX), reason="a kernel without BTF")
ROOM = 8 << 20


@pytest.fixture(autouse=True)
def logs() -> Iterator[Path]:
    """A place of the test's own for what is recorded, and not a large one."""
    Path(store.BASE).mkdir(mode=0o700, parents=True, exist_ok=True)
    mount("none", store.BASE, "tmpfs", 0, f"mode=700,size={ROOM}")
    yield Path(store.BASE)
    unmount(store.BASE)


@contextmanager
def recorded(jail: Command, *parameters: str) -> Iterator[None]:
    made = jail("-c", "name=cell", "persist", *parameters)
    assert made.returncode == 0, made.stderr
    try:
        yield
    finally:
        gone = jail("-r", "cell")
        assert gone.returncode == 0, gone.stderr


class Sessions:
    """What jailctl(8) says of them."""

    def __init__(self, jailctl: Command, checkout: Path) -> None:
        self._jailctl = jailctl
        self._checkout = checkout

    def all(self) -> list[dict[str, Any]]:
        done = self._jailctl("sessions", "-a", "--json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["sessions"]
        return found

    def until(self, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """As soon as they are: events reach the record in their own time."""
        deadline = time.monotonic() + PATIENCE
        while not enough(found := self.all()):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found

    def ended(self, number: int = 1) -> list[dict[str, Any]]:
        return self.until(lambda found: [one["state"] for one in found].count("ended") >= number)

    def seen(self, what: bytes) -> None:
        """When it is in the record of a session."""
        self.until(lambda found: any(what in self.bytes(one["id"]) for one in found))

    def bytes(self, number: str, *options: str) -> bytes:
        command = [str(self._checkout / "bin/jailctl"), "sessions", "--raw", *options, number]
        return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


@pytest.fixture
def sessions(jailctl: Command, checkout: Path) -> Sessions:
    return Sessions(jailctl, checkout)


@contextmanager
def shell(checkout: Path) -> Iterator[Screen]:
    with screen(str(checkout / "bin/jexec"), "cell", "sh") as made:
        made.until("# ")
        yield made


def post() -> int:
    """The pid of the post's supervisor."""
    record = registry.find("cell")
    assert record is not None
    return int(record.posts["tty"].split()[0])


def worker() -> int:
    """The pid of its worker."""
    found = Path(f"/proc/{post()}/task/{post()}/children").read_text().split()
    return int(found[0]) if found else 0


def _kill(pid: int) -> None:
    """Have it be dead; a worker is with its supervisor."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            assert ns.ends_within(pidfd, PATIENCE)
        finally:
            os.close(pidfd)


def test_what_was_seen_and_typed(
    small_root: Path, jail: Command, jailctl: Command, checkout: Path, sessions: Sessions, logs: Path
) -> None:
    with recorded(jail, f"path={small_root}", "ng.watch=tty"):
        with shell(checkout) as one:
            one.type("printf 'caf\\303\\251 \\377\\000\\033[1mbold\\033[m %s\\n' x; seq 3000; echo d''one\n")
            one.until("done")
            assert [found["state"] for found in sessions.until(lambda found: bool(found))] == ["live"]
            one.type("stty -echo; read word; exit\n")
            one.type("hunter2\n")
            one.end()
        [found] = sessions.ended()
        assert sessions.bytes(found["id"]) == one.shown
        assert b"\xff\0\x1b[1mbold" in one.shown
        assert sessions.bytes(found["id"], "--typed").endswith(b"hunter2\n")
        assert {key: found[key] for key in ("jail", "tty", "user", "out", "dropped", "unrecorded", "whole")} == {
            "jail": "cell",
            "tty": "pts/0",
            "user": "root",
            "out": len(one.shown),
            "dropped": 0,
            "unrecorded": 0,
            "whole": True,
        }
        replayed = subprocess.run([checkout / "bin/jailctl", "replay", found["id"]], stdout=subprocess.PIPE, check=True)
        assert replayed.stdout == one.shown
        assert jailctl("sessions", "--search", "hunter2").stdout.count(" typed: ") == 1
        assert " shown: " in jailctl("sessions", "--search", "bold x").stdout
        for directory, _, names in os.walk(logs):
            assert os.stat(directory).st_mode & 0o777 == 0o700
            assert {os.stat(f"{directory}/{name}").st_mode & 0o777 for name in names} <= {0o600}
        with shell(checkout) as live:
            sessions.until(lambda found: "live" in [one["state"] for one in found])
            live.type("while :; do echo on and on; done\n")
            live.until("(on and on\r\n){99}")
            reader = threading.Thread(target=live.end)
            reader.start()
            # A shell at a terminal does not heed SIGTERM.
            assert jail("-R", "cell").returncode == 0
            reader.join()
        last = sessions.ended(2)
        assert [one["state"] for one in last] == ["ended", "ended"]
        # What jexec(8) had yet to show when the jail was gone is there, too.
        assert sessions.bytes(last[1]["id"]) == live.shown
        jail("-c", "name=cell", "persist", f"path={small_root}")


def test_the_recorder_killed(small_root: Path, jail: Command, checkout: Path, sessions: Sessions) -> None:
    """Its worker, and then the whole of it: the shell does not notice, and one file has all that was seen."""
    with recorded(jail, f"path={small_root}", "ng.watch=tty"):
        with shell(checkout) as one:
            one.type("echo be''fore\n")
            one.until("before")
            sessions.seen(b"before\r\n")
            first = worker()
            os.kill(first, signal.SIGKILL)
            one.type("echo mean''while\n")
            one.until("meanwhile")
            sessions.seen(b"meanwhile\r\n")
            [found] = sessions.until(lambda found: found[0]["gaps"] == 1)
            assert worker() != first
            assert found["state"] == "live"
            supervisor = post()
            _kill(supervisor)
            one.type("echo un''seen\n")
            one.until("unseen")
            assert jail("-m", "name=cell", "children.max=0").returncode == 0
            deadline = time.monotonic() + PATIENCE
            while post() == supervisor or not worker():
                assert time.monotonic() < deadline
            sessions.until(lambda found: found[0]["gaps"] == 2)
            one.type("echo af''ter; exit\n")
            one.end()
        [found] = sessions.ended()
        content = sessions.bytes(found["id"])
        assert re.search(rb"before.*meanwhile.*after", content, re.DOTALL)
        assert one.shown.startswith(content[: content.index(b"meanwhile")])
        text = Path(found["file"]).read_text()
        assert text.count("gap: ") == 2


def test_another_terminal_of_the_same_number(jail: Command, checkout: Path, sessions: Sessions) -> None:
    """Nobody was there to see that one was closed and another opened: they are not one session."""
    script = "script -qc sh /dev/null\n"
    with recorded(jail, "path=/", "ng.watch=tty"), shell(checkout) as one:
        one.type(script)
        one.until("# ")
        one.type("echo fi''rst; tty\n")
        one.until("first\r\n/dev/pts/1\r\n# ")
        sessions.seen(b"/dev/pts/1\r\n# ")
        for pid in (post(), worker()):
            _kill(pid)
        one.type("exit\n")
        one.until("# ")
        one.type(script)
        one.until("# ")
        assert jail("-m", "name=cell", "children.max=0").returncode == 0
        one.type("echo sec''ond; tty\n")
        one.until("second\r\n/dev/pts/1\r\n# ")
        one.type("exit\n")
        one.until("# ")
        one.type("exit\n")
        one.end()
        of_two = [found for found in sessions.ended(3) if found["tty"] == "pts/1"]
        first, second = (sessions.bytes(found["id"]) for found in of_two)
        assert b"first" in first and b"second" in second and b"second" not in first
        [outer] = [found for found in sessions.all() if found["tty"] == "pts/0"]
        assert outer["gaps"] == 1


@contextmanager
def no_worker() -> Iterator[None]:
    """The worker is killed, and there is another afterwards."""
    supervisor, dead = post(), worker()
    pidfd = os.pidfd_open(dead)
    os.kill(supervisor, signal.SIGSTOP)
    try:
        os.kill(dead, signal.SIGKILL)
        assert ns.ends_within(pidfd, PATIENCE)
        yield
    finally:
        os.close(pidfd)
        os.kill(supervisor, signal.SIGCONT)
    deadline = time.monotonic() + PATIENCE
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    while children.read_text().split() in ([], [str(dead)]):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_jail_that_is_renamed_goes_on_where_it_began(
    small_root: Path, jail: Command, checkout: Path, sessions: Sessions, logs: Path
) -> None:
    with recorded(jail, f"path={small_root}", "ng.watch=tty"), shell(checkout) as typist:
        typist.type("echo be''fore\n")
        sessions.seen(b"before\r\n")
        record = registry.find("cell")
        assert record is not None
        with no_worker():
            assert jail("-m", f"jid={record.jid}", "name=other").returncode == 0
        typist.type("echo af''ter\n")
        sessions.seen(b"after\r\n")
        assert jail("-m", f"jid={record.jid}", "name=cell").returncode == 0
        assert [path.name for path in logs.iterdir()] == ["cell"]
        assert [(one["state"], one["gaps"]) for one in sessions.all()] == [("live", 1)]


def test_a_disk_that_cannot_be_written_to(
    small_root: Path, jail: Command, jailctl: Command, checkout: Path, sessions: Sessions
) -> None:
    """Whoever watches goes on; what is recorded goes on when it can; and the post leaves nothing behind."""
    with recorded(jail, f"path={small_root}", "ng.watch=tty"), shell(checkout) as typist:
        typist.type("echo be''fore\n")
        sessions.seen(b"before\r\n")
        with no_worker():  # what is open to be written keeps a file system from that
            _remount("ro")
        with screen(str(checkout / "bin/jailctl"), "watch", "-t", "cell", "0") as watch:
            watch.until("Logging Started.")
            typist.type("echo un''seen\n")
            watch.until("unseen\r\n")
        _remount("rw")
        sessions.until(lambda found: len(found) == 2)
        typist.type("echo af''ter\n")
        sessions.seen(b"after\r\n")
        told = json.loads(jailctl("sessions", "--json").stdout)["missing"]["cell"]
        assert told["events"]["dropped"] > 0


def _remount(how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", store.BASE], check=True)


def test_what_somebody_removes_is_begun_anew(
    small_root: Path, jail: Command, checkout: Path, sessions: Sessions, logs: Path
) -> None:
    """As the log and the files of packets are: one recording, and the directory of all."""
    with recorded(jail, f"path={small_root}", "ng.watch=tty"), shell(checkout) as typist:
        for word in ("first", "second", "third"):
            [found] = sessions.until(lambda found: len(found) == 1)
            typist.type(f"echo {word[:1]}''{word[1:]}\n")
            sessions.seen(f"{word}\r\n".encode())
            if word == "first":
                os.unlink(found["file"])
            elif word == "second":
                assert found["whole"] is False
                (logs / "cell").rename(logs / "removed")
                while (logs / "removed").exists():  # until its post sees that, another recording may be begun in it
                    shutil.rmtree(logs / "removed", ignore_errors=True)


def test_limits_and_a_full_disk(
    small_root: Path, jail: Command, checkout: Path, sessions: Sessions, logs: Path
) -> None:
    with recorded(jail, f"path={small_root}", "ng.watch=tty size=300k"):
        with shell(checkout) as one:
            one.type("head -c 1000000 /dev/zero | tr '\\0' x; echo d''one; exit\n")
            one.end()
        [found] = sessions.ended()
        content = sessions.bytes(found["id"])
        assert 250_000 < len(content) < 300 << 10
        assert one.shown.startswith(content)
        assert found["reasons"] == {"size": len(one.shown) - len(content)}
        # Somebody fills the disk, and makes room again.
        with shell(checkout) as two:
            sessions.until(lambda found: len(found) == 2 and found[1]["out"] > 0)
            subprocess.run(["dd", "if=/dev/zero", f"of={logs}/filler", "bs=64k"], stderr=subprocess.DEVNULL)
            two.type("head -c 100000 /dev/zero | tr '\\0' y; echo f''ull\n")
            two.until("full")
            counts = logs / "cell/sessions/counts"
            deadline = time.monotonic() + PATIENCE
            while json.loads(counts.read_text()).get("unrecorded", {}).get("disk", 0) < 90_000:
                assert time.monotonic() < deadline, counts.read_text()
            (logs / "filler").unlink()
            # It looks again within a second.
            two.type("while read -r x; do echo $x; done\n")
            while b"again" not in sessions.bytes(sessions.all()[1]["id"]):
                assert time.monotonic() < deadline
                two.type("again\n")
                two.until("again")
            two.type("\x04exit\n")
            two.end()
        found = sessions.ended(2)[1]
        assert found["reasons"]["disk"] >= 90_000
        assert found["out"] + found["reasons"]["disk"] >= len(two.shown)
        assert "the disk is full" in Path(found["file"]).read_text()


@pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed")
def test_an_ssh_login(
    debian_copy: Path, jail: Command, jexec: Command, lan: Namespace, sessions: Sessions, checkout: Path, tmp_path: Path
) -> None:
    parameters = (f"path={debian_copy}", "interface=ep0", "ip4.addr=198.51.100.9", "ng.watch=tty")
    with recorded(jail, *parameters):
        script = "useradd -m alice; echo alice:toor | chpasswd; mkdir -p /run/sshd; /usr/sbin/sshd -oUseDNS=no"
        script += f"; {LISTENS}"
        begun = jexec("cell", "sh", "-c", script)
        assert begun.returncode == 0, begun.stderr
        known = ("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path}/known", "-F", "none")
        with screen("ssh", "-tt", *known, "-o", "LogLevel=ERROR", "alice@198.51.100.9") as one:
            one.until("assword: ")
            one.type("toor\n")
            one.until("[$] ")
            one.resize(100, 30)
            # What is typed may overtake the size of the window.
            one.type("until [ \"$(stty size)\" = '30 100' ]; do :; done; echo re''sized\r")
            one.until("resized")
            one.type("script -q -c 'echo in''side' /dev/null; head -c 750000 /dev/urandom | base64; echo d''one\r")
            one.until("done")
            # Who it is becomes known a little later.
            sessions.until(lambda found: "alice" in [each["user"] for each in found])
            one.type("exit\r")
            one.end()
        found = sessions.ended(2)
        [login] = [each for each in found if each["out"] > 1_000_000]
        content = sessions.bytes(login["id"])
        assert content in one.shown
        assert login["from"].startswith("198.51.100.1:")
        told = [line for line in Path(login["file"]).read_text().splitlines() if '"W"' in line]
        assert (login["user"], login["unrecorded"], login["dropped"]) == ("alice", 0, 0), told
        assert [each["out"] for each in found if each is not login] == [len("inside\r\n")]


@contextmanager
def upgraded(checkout: Path, place: Path, jail: Command, *parameters: str) -> Iterator[None]:
    """A jail whose posts are of a package that has other modules by now, none of which goes with theirs."""
    for part in ("bin", "jailinit", "src"):
        # What others compile meanwhile has another name first.
        shutil.copytree(checkout / part, place / part, symlinks=True, ignore=shutil.ignore_patterns("*.pyc.*"))
    words = [str(place / "bin/jail"), "-c", "name=cell", "persist", *parameters]
    made = subprocess.run(words, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    try:
        for module in (place / "src/jailng").rglob("*.py"):
            module.write_text("raise ImportError('another')\n")
        yield
    finally:
        gone = jail("-r", "cell")
        assert gone.returncode == 0, gone.stderr


def _worker_of(kind: str) -> int:
    record = registry.find("cell")
    assert record is not None
    supervisor = int(record.posts[kind].split()[0])
    return int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text())


def _until_logged(jailctl: Command, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while what not in jailctl("log", "--json", "cell").stdout:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_workers_after_an_upgrade(
    small_root: Path, checkout: Path, tmp_path: Path, jail: Command, jailctl: Command, sessions: Sessions
) -> None:
    """The next one has its modules from the supervisor, not from the package."""
    parameters = (f"path={small_root}", "ng.watch=tty", "ng.log=syslog,forward tcp://127.0.0.1:9")
    with upgraded(checkout, tmp_path / "installed", jail, *parameters):
        for kind in ("tty", "log"):
            os.kill(_worker_of(kind), signal.SIGKILL)
        with shell(checkout) as one:
            one.type("echo aft''er; exit\n")
            one.end()
        sessions.seen(b"after")
        _until_logged(jailctl, '"again":true')


def test_forwarded_after_an_upgrade(
    small_root: Path, checkout: Path, tmp_path: Path, jail: Command, jailctl: Command
) -> None:
    """What a post has not loaded it cannot have any more; it says so, and logs on."""
    with upgraded(checkout, tmp_path / "installed", jail, f"path={small_root}", "ng.log=syslog"):
        worker = _worker_of("log")
        assert jail("-m", "name=cell", "ng.log=syslog,forward tcp://127.0.0.1:9").returncode == 0
        _until_logged(jailctl, '"kind":"refused"')
        assert _worker_of("log") == worker
