"""ng.log and jailctl log: what a guest logs, and what the kernel tells of it, kept outside so that tampering shows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from jailng.core import registry
from jailng.linux import ns, processid
from tests.kernel import hostile
from tests.kernel.conftest import ENVIRONMENT, Command
from tests.kernel.stage import own_logs

SECONDS = 120.0  # on a machine that has much else to do
# A syslogd that tells of each line who has sent it, as the kernel inside has it.
SYSLOGD = """
import os, socket, struct, sys
try: os.unlink("/dev/log")
except FileNotFoundError: pass
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind("/dev/log"); os.chmod("/dev/log", 0o666)
s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
print("listens", flush=True)
while True:
    data, [(_, _, credentials)], *_ = s.recvmsg(1 << 16, 64)
    print(*struct.unpack("iii", credentials), data.rpartition(b": ")[2].decode(), flush=True)
"""


@pytest.fixture
def kept() -> Iterator[Path]:
    """Where logs are kept, on a small disk of its own."""
    with own_logs("size=16m") as directory:
        yield directory


@contextmanager
def running(jail: Command, root: Path, *words: str) -> Iterator[registry.Record]:
    """A jail named lg, of which something is logged."""
    done = jail("-c", "name=lg", f"path={root}", "persist", *words)
    assert (done.returncode, done.stderr) == (0, "")
    try:
        record = registry.find("lg")
        assert record is not None
        yield record
    finally:
        jail("-r", "lg")


def eventually(true: Callable[[], object], what: Callable[[], object] = lambda: "") -> None:
    until = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < until, what()
        time.sleep(0.02)


@pytest.fixture
def entries(jailctl: Command) -> Callable[..., list[dict[str, Any]]]:
    """Of a kind, once there are at least so many."""

    def look(kind: str, least: int = 1) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        def there() -> bool:
            done = jailctl("log", "--json", "--kind", kind, "lg")
            assert done.returncode == 0, done.stderr
            found[:] = [json.loads(line) for line in done.stdout.splitlines()]
            return len(found) >= least

        eventually(there, lambda: found)
        return found

    return look


def messages(found: list[dict[str, Any]]) -> list[str]:
    return [str(one["message"]).rpartition(": ")[2] for one in found]


def post(record: registry.Record) -> tuple[int, int]:
    """The pids of the supervisor and the worker."""
    loaded = registry.load(record.jid)
    assert loaded is not None
    supervisor = int(loaded.posts["log"].partition(" ")[0])
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return supervisor, int(children[0]) if children else 0


@contextmanager
def inside(checkout: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs in the jail for as long as this lasts."""
    options = list(words[:2]) if words[0] == "-U" else []
    argv = [str(checkout / "bin/jexec"), *options, "lg", *words[len(options) :]]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT) as made:
        try:
            yield made
        finally:
            made.terminate()
            made.wait()


def another(record: registry.Record, dead: int) -> int:
    """The worker that takes the place of one that was killed."""
    eventually(lambda: post(record)[1] not in (0, dead))
    return post(record)[1]


def test_what_a_guest_logs_is_kept_outside(
    jail: Command, jexec: Command, jailctl: Command, kept: Path, small_root: Path, entries: Callable[..., Any]
) -> None:
    with running(jail, small_root, "ng.log=syslog") as record:
        # What is seen inside is what a syslogd makes.
        seen = jexec("lg", "stat", "-c", "%F %a %U %h", "/dev/log")
        assert seen.stdout == "socket 666 root 1\n"
        script = "logger -p auth.info -t prog one; echo $$; exec logger two"
        done = jexec("lg", "sh", "-c", script)
        as_user = jexec("-U", "alice", "lg", "sh", "-c", "echo $$; exec logger three")
        found = entries("syslog", 3)
        assert messages(found) == ["one", "two", "three"]
        assert [(one["facility"], one["severity"]) for one in found] == [("auth", "info"), *[("user", "notice")] * 2]
        assert [(one["jail"], one["jid"], one["uid"], one["gid"]) for one in found] == [
            *[("lg", record.jid, 0, 0)] * 2,
            ("lg", record.jid, 1001, 1001),
        ]
        assert [str(found[1]["pid"]), str(found[2]["pid"])] == [done.stdout.strip(), as_user.stdout.strip()]
        assert [one["host_uid"] - one["uid"] for one in found] == [record.base] * 3
        # Whatever it is that is logged, no terminal minds it.
        garbage = "printf '<13>x: \\033[31m\\n\\377\\000end' | nc -uU -w1 /dev/log || true"
        assert jexec("lg", "sh", "-c", "logger '\033]0;x\007'; logger -- '-- \u202e'").returncode == 0, garbage
        entries("syslog", 5)
        told = jailctl("log", "lg").stdout
        assert told.splitlines()[-1].isprintable()
        assert "\\x1b]0;x\\x07" in told
        assert jailctl("log", "-n", "1", "--kind", "syslog", "--since", "1h", "lg").stdout.count("\n") == 1
        whole = jailctl("log", "verify", "lg")
        assert (whole.returncode, whole.stderr) == (0, "")
        # Nobody else on the host reads it.
        for path in [kept, *kept.rglob("*")]:
            status = path.lstat()
            assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o700 if path.is_dir() else 0o600), path
    assert [one["jail_ended"] for one in entries("ended")] == [True]
    assert jailctl("log", "verify", "lg").returncode == 0
    # The next jail of that name goes on with the chain.
    with running(jail, small_root, "ng.log=syslog"):
        assert len(entries("started", 2)) == 2
    assert jailctl("log", "verify", "lg").returncode == 0


def test_a_log_whose_key_nobody_got_is_none(jailctl: Command, checkout: Path, kept: Path) -> None:
    argv = [str(checkout / "bin/jailctl"), "log", "key", "--setup", "lg"]
    for _ in range(2):
        with open("/dev/full", "w") as full:
            done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        assert (done.returncode, done.stderr) == (1, "jailctl: log: No space left on device\n")
    made = jailctl("log", "key", "--setup", "lg")
    assert (made.returncode, made.stderr) == (0, "")
    assert jailctl("log", "verify", "--key", made.stdout.strip(), "lg").returncode == 0


def test_whatever_is_done_to_it_is_found(
    jail: Command,
    jexec: Command,
    jailctl: Command,
    checkout: Path,
    kept: Path,
    small_root: Path,
    tmp_path: Path,
    entries: Callable[..., Any],
) -> None:
    with running(jail, small_root, "ng.log=syslog,size=4k,keep=3"):
        assert jexec("lg", "sh", "-c", "for i in $(seq 60); do logger $i; done").returncode == 0
        eventually(lambda: messages(entries("syslog", 0))[-1:] == ["60"])
        whole = json.loads(jailctl("log", "verify", "--json", "lg").stdout)
        assert (whole["status"], len(whole["files"]), whole["problems"]) == ("whole", 3, [])
        old = tmp_path / "old"
        shutil.copytree(kept, old)
        key = jailctl("log", "key", "lg").stdout
        assert jexec("lg", "logger", "afterwards").returncode == 0
        eventually(lambda: messages(entries("syslog", 0))[-1:] == ["afterwards"])
    files = sorted((kept / "lg/log").iterdir())
    content = files[1].read_bytes()
    files[1].write_bytes(content.replace(b'"message":"root: ', b'"message":"toor: ', 1))
    number = next(at for at, line in enumerate(content.splitlines(), 1) if b'"message":"root: ' in line)
    done = jailctl("log", "verify", "lg")
    assert done.returncode == 1
    assert f"{files[1].name}:{number}: entry " in done.stdout.splitlines()[0]
    files[1].write_bytes(b"".join(content.splitlines(keepends=True)[:-1]))
    assert "removed here" in jailctl("log", "verify", "lg").stdout
    files[1].write_bytes(content)
    # All of it put back as it was, the seal and the key with it.
    assert jailctl("log", "verify", "lg").returncode == 0
    head = jailctl("log", "verify", "lg").stdout.splitlines()[-1].rpartition(" ")[2]
    shutil.rmtree(kept / "lg")
    shutil.rmtree(kept / ".seal")
    shutil.copytree(old, kept, dirs_exist_ok=True)
    done = jailctl("log", "verify", "lg")
    assert (done.returncode, "removed from the end" in done.stdout) == (1, True)
    Path("/run/jailng/logs/lg").unlink()
    assert jailctl("log", "verify", "lg").returncode == 0
    done = jailctl("log", "verify", "--head", head, "lg")
    assert (done.returncode, "removed from the end" in done.stdout) == (1, True)
    # Without a key nobody can tell.
    (tmp_path / "key").write_text(key)
    assert jailctl("log", "key", "--take", "lg").stdout == key
    assert jailctl("log", "verify", "lg").returncode == 2
    assert jailctl("log", "verify", "--key", str(tmp_path / "key"), "lg").returncode == 0
    assert jailctl("log", "verify", "--key", "-", "lg", stdin=key).returncode == 0
    assert jailctl("log", "key", "lg").returncode == 1
    # 1 says that it was altered, and nothing else.
    assert jailctl("log", "verify", "--key", "/dev/zero", "lg").returncode == 2
    assert jailctl("log", "verify", "").returncode == 2
    argv = [str(checkout / "bin/jailctl"), "log", "verify", "--key", str(tmp_path / "key"), "lg"]
    with open("/dev/full", "w") as full:
        assert subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, check=False).returncode == 2


def test_what_is_turned_off_and_on_leaves_nothing_open(
    jail: Command, jexec: Command, kept: Path, small_root: Path, entries: Callable[..., Any]
) -> None:
    with running(jail, small_root, "ng.log=syslog,exec") as record:
        first: list[list[str]] = []
        now: list[list[str]] = []

        def all_is_closed() -> bool:  # but for what is tried once more every now and then: the collector
            now[:] = [sorted(descriptors(pid)) for pid in post(record)]
            return all(len(one) <= len(before) for one, before in zip(now, first, strict=True))

        for number in range(6):
            assert jail("-m", "name=lg", "ng.log=exec").returncode == 0
            eventually(lambda: jexec("lg", "test", "-e", "/dev/log").returncode == 1)
            words = f"ng.log=syslog,exec,rate={100 + number}", "ng.log=forward tcp://127.0.0.1:9"
            assert jail("-m", "name=lg", *words).returncode == 0
            eventually(lambda: jexec("lg", "test", "-S", "/dev/log").returncode == 0)
            assert jexec("lg", "logger", "there").returncode == 0  # which it is, too, where nobody hears
            entries("syslog", number + 1)
            first = first or [sorted(descriptors(pid)) for pid in post(record)]
        eventually(all_is_closed, lambda: (first, now))


def test_a_change_that_fails_leaves_it_logged(kept: Path, jail: Command, small_root: Path) -> None:
    """It was not until the next command came upon the jail."""
    with running(jail, small_root, "ng.log=syslog") as record:
        done = jail("-m", "name=lg", "ng.log=", "ng.watch=packets filter (((")
        assert done.returncode == 1
        changed = registry.load(record.jid)
        assert changed is not None
        assert changed.params["ng.log"] == "syslog"
        assert processid.is_alive(changed.posts["log"])


def test_a_jail_that_mounts_has_no_socket_of_the_host_s(
    kept: Path, jail: Command, jexec: Command, small_root: Path
) -> None:
    why = "ng.log: syslog: not with allow.mount: the jail's mounts are its own then"
    for kinds in ("syslog", "all"):
        refused = jail("-c", "name=lg", f"path={small_root}", "persist", "allow.mount", f"ng.log={kinds}")
        assert (refused.returncode, refused.stderr) == (1, f"jail: {why}\n")
    with running(jail, small_root, "allow.mount", "ng.log=exec"):
        assert jail("-m", "name=lg", "ng.log=syslog").stderr == f"jail: {why}\n"
        assert jexec("lg", "test", "-e", "/dev/log").returncode == 1


def descriptors(pid: int) -> list[str]:
    """What a process has open, without the numbers of inodes."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}").partition(":[")[0])
    return found


def heard(syslogd: subprocess.Popen[str], word: str) -> list[str]:
    """The line with that word, once the syslogd has told of it: pid, uid, gid, word."""
    assert syslogd.stdout is not None
    for line in syslogd.stdout:
        if line.split()[-1] == word:
            return line.split()
    raise AssertionError(f"{word} was not heard")


def test_the_guest_s_own_syslogd_hears_it_all(
    jail: Command, jexec: Command, kept: Path, debian_python: Path, checkout: Path, entries: Callable[..., Any]
) -> None:
    """From whom it is, too; when it is started again; and when nobody logs it outside any more."""
    count = [0]

    def both_hear() -> bool:
        count[0] += 1
        word = f"probe{count[0]}"
        assert jexec("lg", "logger", word).returncode == 0
        heard(syslogd, word)
        return word in messages(entries("syslog", 0))

    with running(jail, debian_python, "ng.log=syslog", "ng.lenient"):
        for turn in ("first", "second"):  # the second takes away the name that the host has
            with inside(checkout, "python3", "-c", SYSLOGD) as syslogd:
                assert syslogd.stdout is not None
                assert syslogd.stdout.readline() == "listens\n"
                eventually(both_hear)
                pid = jexec("lg", "sh", "-c", f"echo $$; exec logger {turn}").stdout.strip()
                told = heard(syslogd, turn)
                assert told in ([pid, "0", "0", turn], ["0", "0", "0", turn])  # that process may have ended
                assert [str(one["pid"]) for one in entries("syslog") if one["message"] == f"root: {turn}"] == [pid]
        # One that lives is named as what it is.
        with inside(checkout, "python3", "-c", SYSLOGD) as syslogd:
            assert syslogd.stdout is not None
            assert syslogd.stdout.readline() == "listens\n"
            eventually(both_hear)
            living = "import os, syslog, time; syslog.syslog('living'); print(os.getpid(), flush=True); time.sleep(60)"
            with inside(checkout, "-U", "nobody", "python3", "-c", living) as speaker:
                assert speaker.stdout is not None
                pid = speaker.stdout.readline().strip()
                assert heard(syslogd, "living") == [pid, "65534", "65534", "living"]
            eventually(lambda: "living" in messages(entries("syslog", 0)))
            before = len(entries("syslog"))
            assert jail("-m", "name=lg", "ng.log=").returncode == 0
            assert jexec("lg", "logger", "alone").returncode == 0
            heard(syslogd, "alone")
            assert len(entries("syslog")) == before
            assert jail("-m", "name=lg", "ng.log=syslog").returncode == 0
            assert both_hear()


def _start_syslogd(jexec: Command, file: Path, entries: Callable[..., Any]) -> None:
    """busybox's, and wait until it hears what the host's socket gets."""
    assert jexec("lg", "syslogd").returncode == 0

    def both_hear() -> bool:
        word = f"probe{time.monotonic_ns()}"
        assert jexec("lg", "logger", word).returncode == 0
        eventually(lambda: file.exists() and word in file.read_text())
        return word in messages(entries("syslog", 0))

    eventually(both_hear)


def test_busybox_s_syslogd_writes_its_file_as_ever(
    jail: Command, jexec: Command, kept: Path, small_root: Path, entries: Callable[..., Any]
) -> None:
    (small_root / "var/log").mkdir()
    file = small_root / "var/log/messages"
    with running(jail, small_root, "ng.log=syslog"):
        _start_syslogd(jexec, file, entries)
        assert jexec("lg", "logger", "-t", "prog", "hello").returncode == 0
        eventually(lambda: "prog: hello" in file.read_text())
        assert "user.notice prog: hello" in file.read_text()
        assert messages(entries("syslog"))[-1] == "hello"


def test_what_root_inside_makes_of_the_socket(
    jail: Command, jexec: Command, jailctl: Command, kept: Path, small_root: Path, entries: Callable[..., Any]
) -> None:
    with running(jail, small_root, "ng.log=syslog"):
        for command in ("mkdir /dev/log", "mkfifo /dev/log", "touch /dev/log"):
            assert jexec("lg", "sh", "-c", f"rm -rf /dev/log; {command}").returncode == 0
            eventually(lambda: entries("socket")[-1]["what"] == "is no socket: what is sent there cannot be seen")
            assert jexec("lg", "rm", "-rf", "/dev/log").returncode == 0
            eventually(lambda: entries("socket")[-1]["what"] == "is served again")
        for command in ("ln -s /etc/passwd /dev/log", "ln -s log /dev/log", "ln -s /proc/1/root/x /dev/log", "true"):
            assert jexec("lg", "sh", "-c", f"rm -f /dev/log; {command}").returncode == 0
            eventually(lambda: jexec("lg", "test", "-S", "/dev/log", "-a", "!", "-h", "/dev/log").returncode == 0)
            eventually(lambda: jexec("lg", "logger", "there").returncode == 0)
        assert set(messages(entries("syslog", 4))) == {"there"}
        # It may keep the host from it altogether; then that is said.
        assert jexec("lg", "sh", "-c", "chmod 555 /dev; rm /dev/log").returncode == 0
        eventually(lambda: entries("socket")[-1]["what"].startswith("cannot be served: "))
        assert jailctl("log", "verify", "lg").returncode == 0


STICKS = """
import os
def sticks(to):
    full, *ends = filled()
    to.sendmsg([b"<13>stuck"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", full.fileno()))])
    let_go(full)
    return ends
"""


@contextmanager
def sticking(jail: Command, checkout: Path, script: str) -> Iterator[Callable[[], str]]:
    """A program in a jail with a log, which may send descriptors that stick; what it says next."""
    argv = (hostile.PYTHON, "-c", hostile.LINGERING + STICKS + script)
    with running(jail, Path("/"), "ng.log=syslog,exec", "ip4=inherit"), inside(checkout, *argv) as made:
        assert made.stdout is not None
        yield made.stdout.readline


def test_a_descriptor_that_does_not_let_itself_be_closed(
    jail: Command, jexec: Command, kept: Path, checkout: Path, entries: Callable[..., Any]
) -> None:
    """Beside a line for the log, it kept the host from all that came after."""
    script = """
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.connect("/dev/log")
held = [sticks(log) for _ in range(3)]
print("sent", flush=True)
time.sleep(600)
"""
    with sticking(jail, checkout, script) as said:
        assert said() == "sent\n"
        assert jexec("lg", "logger", "after").returncode == 0
        assert messages(entries("syslog", 4)) == [*["stuck"] * 3, "after"]


def test_a_descriptor_that_the_guest_s_syslogd_sends_back(
    jail: Command, jexec: Command, kept: Path, checkout: Path, entries: Callable[..., Any]
) -> None:
    """By a stream, in which nobody reads."""
    script = """
try: os.unlink("/dev/log")
except FileNotFoundError: pass
listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listening.bind("/dev/log")
listening.listen()
held = []
print("listens", flush=True)
for _ in range(3):
    connection, _ = listening.accept()
    held.append(sticks(connection))
    connection.close()
    print("sent", flush=True)
time.sleep(600)
"""
    with sticking(jail, checkout, script) as said:
        assert said() == "listens\n"
        for _ in range(3):
            eventually(lambda: jexec("lg", "logger", "line").returncode == 0)
            assert said() == "sent\n"
        eventually(lambda: jexec("lg", "logger", "after").returncode == 0)
        eventually(lambda: "after" in messages(entries("syslog")))


@pytest.mark.parametrize("link", ["log", "/dev/other"])
def test_the_host_is_no_syslogd_of_the_guest_s(
    jail: Command, jexec: Command, kept: Path, small_root: Path, entries: Callable[..., Any], link: str
) -> None:
    """Root inside says so by a link, or by another name of the socket: a line goes round no more than once."""
    serves = "test -S /dev/log -a ! -h /dev/log"
    with running(jail, small_root, "ng.log=syslog"):
        assert jexec("lg", "ln", "-sf", link, "/dev/log").returncode == 0
        eventually(lambda: jexec("lg", "sh", "-c", serves).returncode == 0)
        assert jexec("lg", "ln", "-f", "/dev/log", "/dev/other").returncode == 0
        # It asks once a second for the guest's syslogd.
        for word in "123":
            time.sleep(1)
            assert jexec("lg", "logger", word).returncode == 0
        time.sleep(0.5)
        assert messages(entries("syslog", 3)) == ["1", "2", "3"]


def test_a_socket_of_the_host_s_is_connected_to_as_the_jail_s_root(
    jail: Command, jexec: Command, kept: Path, small_root: Path, tmp_path: Path
) -> None:
    """One that is mounted in the jail, and knows whom it serves by his uid: root inside says that it is its syslogd."""
    (tmp_path / "sockets").mkdir()
    (small_root / "mnt").mkdir()
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(tmp_path / "sockets/service"))
        os.chmod(tmp_path / "sockets/service", 0o666)
        service.listen()
        service.settimeout(SECONDS)
        mounted = f"mount={tmp_path}/sockets {small_root}/mnt nullfs rw 0 0"
        with running(jail, small_root, "ng.log=syslog", mounted) as record:
            assert jexec("lg", "ln", "-sf", "/mnt/service", "/dev/log").returncode == 0
            eventually(lambda: jexec("lg", "test", "-S", "/dev/log", "-a", "!", "-h", "/dev/log").returncode == 0)
            eventually(lambda: jexec("lg", "logger", "to whom?").returncode == 0)
            connection, _ = service.accept()
            with connection:
                told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                assert struct.unpack("=iII", told)[1:] == (record.owner, record.owner)
                connection.settimeout(SECONDS)
                assert jexec("lg", "logger", "and now?").returncode == 0
                while b"now?" not in (said := connection.recvmsg(1 << 16, 64))[0]:
                    pass
                assert struct.unpack("=iII", said[1][0][2])[1:] == (record.owner, record.owner)


def test_a_flood_is_counted(
    jail: Command, jexec: Command, jailctl: Command, kept: Path, debian_python: Path, entries: Callable[..., Any]
) -> None:
    flood = """
import array, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect("/dev/log")
fds = array.array("i", [0, 1, 2])
for number in range(3000):
    s.send(b"<13>flood: %d" % number)
s.sendmsg([b"<13>fds: x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
s.send(b"<13>long: " + b"x" * 100000)
s.send(b"")
s.send(b"\\xff\\x00<>\\n" * 10)
"""
    with running(jail, debian_python, "ng.log=syslog,rate=200", "ng.lenient") as record:
        worker = post(record)[1]
        open_before = len(os.listdir(f"/proc/{worker}/fd"))
        assert jexec("lg", "python3", "-c", flood).returncode == 0

        def count() -> int:
            dropped = sum([int(one["count"]) for one in entries("dropped", 0) if one["of"] == "syslog"])
            return dropped + len(entries("syslog"))

        eventually(lambda: count() >= 3004, count)
        assert count() == 3004
        assert entries("dropped")[0]["why"] == "more lines than rate= allows"
        assert len(os.listdir(f"/proc/{worker}/fd")) <= open_before + 1
        assert post(record)[1] == worker
        assert jexec("lg", "logger", "x" * 70000).returncode in (0, 1)  # as logger(1) likes it
        assert jailctl("log", "verify", "lg").returncode == 0


def test_long_lines_count_as_several(
    jail: Command, jexec: Command, kept: Path, debian_python: Path, entries: Callable[..., Any]
) -> None:
    """A few hundred would else make all of the log anew."""
    many = """
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect("/dev/log")
for number in range(50): s.send(b"\\xff" * 60000)
"""
    with running(jail, debian_python, "ng.log=syslog,rate=100", "ng.lenient"):
        assert jexec("lg", "python3", "-c", many).returncode == 0
        eventually(lambda: sum(one["count"] for one in entries("dropped", 0)) + len(entries("syslog")) == 50)
        assert 0 < len(entries("syslog")) < 25


def test_killed_it_goes_on_and_nothing_is_lost(
    jail: Command, jexec: Command, jailctl: Command, jls: Command, kept: Path, small_root: Path, checkout: Path,
    entries: Callable[..., Any],
) -> None:  # fmt: skip
    (small_root / "var/log").mkdir()
    file = small_root / "var/log/messages"
    with running(jail, small_root, "ng.log=syslog") as record:
        _start_syslogd(jexec, file, entries)
        already = len(entries("syslog"))
        supervisor, worker = post(record)
        with inside(checkout, "sh", "-c", "for i in $(seq 150); do logger $i; done; echo done; sleep 100") as busy:
            for number in range(3):
                entries("syslog", already + 1 + 40 * number)
                os.kill(worker, signal.SIGKILL)
                worker = another(record, worker)
                entries("started", 2 + number)
            assert busy.stdout is not None
            assert busy.stdout.readline() == "done\n"
            found = entries("syslog", already + 150)
            assert messages(found)[already:] == [str(number) for number in range(1, 151)]
        assert post(record)[0] == supervisor
        eventually(lambda: [one["again"] for one in entries("started")] == [False, True, True, True])
        assert len(entries("resumed")) == 3
        # Both, or the one with which the other dies: the next command that comes upon the jail starts them anew, and
        # the guest's syslogd is found again.
        for number, many in enumerate((2, 1), 1):
            supervisor, worker = post(record)
            pidfds = [os.pidfd_open(pid) for pid in (supervisor, worker)]
            for pid in (supervisor, worker)[:many]:
                with suppress(ProcessLookupError):  # the worker dies with the supervisor
                    os.kill(pid, signal.SIGKILL)
            for pidfd in pidfds:
                assert ns.ends_within(pidfd, SECONDS)
                os.close(pidfd)
            eventually(lambda before=supervisor: jexec("lg", "true").returncode == 0 and post(record)[0] != before)  # type: ignore[misc]
            assert len(entries("started", 4 + number)) == 4 + number
            assert jexec("lg", "logger", f"again{number}").returncode == 0
            assert messages(entries("syslog", already + 150 + number))[-1] == f"again{number}"
            eventually(lambda word=f"again{number}": word in file.read_text())  # type: ignore[misc]
        assert jailctl("log", "verify", "lg").returncode == 0


def test_the_next_worker_goes_by_what_was_changed(
    jail: Command, kept: Path, small_root: Path, entries: Callable[..., Any]
) -> None:

    def started() -> int:
        return sum(path.read_bytes().count(b'"kind":"started"') for path in kept.glob("*/log/*"))

    with running(jail, small_root, "ng.log=syslog") as record:
        for times, name in enumerate(("lg2", "lg"), 2):
            _, worker = post(record)
            assert jail("-m", f"jid={record.jid}", f"name={name}").returncode == 0
            os.kill(worker, signal.SIGKILL)
            another(record, worker)
            eventually(lambda times=times: started() == times)  # type: ignore[misc]
        assert [one["jail"] for one in entries("started", 3)] == ["lg", "lg2", "lg"]


def fill() -> Path:
    """Leave no room at all; the file to remove then."""
    filler = Path("/var/log/filler")
    for size in (1 << 16, 512):
        with suppress(OSError), open(filler, "ab", 0) as file:
            while file.write(bytes(size)):
                pass
    return filler


def test_no_longer_logged_while_the_disk_is_full(
    jail: Command, jexec: Command, kept: Path, small_root: Path, entries: Callable[..., Any]
) -> None:
    """What waited in the socket is counted, all of it, and that is told when it is logged again."""
    Path("/proc/sys/net/unix/max_dgram_qlen").write_text("512")  # as many hosts have it
    with running(jail, small_root, "ng.log=syslog,exec") as record:
        _, worker = post(record)
        assert jexec("lg", "logger", "before").returncode == 0
        entries("syslog")
        os.kill(worker, signal.SIGSTOP)
        assert jexec("lg", "sh", "-c", "for i in $(seq 200); do logger $i; done").returncode == 0
        filler = fill()
        assert jail("-m", "name=lg", "ng.log=exec").returncode == 0
        os.kill(worker, signal.SIGCONT)
        eventually(lambda: jexec("lg", "test", "-e", "/dev/log").returncode == 1)
        filler.unlink()
        assert jail("-m", "name=lg", "ng.log=syslog,exec").returncode == 0

        def count() -> int:
            dropped = [int(one["count"]) for one in entries("dropped", 0) if one["of"] == "syslog"]
            return len(entries("syslog")) + sum(dropped)

        eventually(lambda: count() >= 201, count)
        assert count() == 201
        assert post(record)[1] == worker


def test_killed_while_the_disk_is_full(
    jail: Command, jexec: Command, jailctl: Command, kept: Path, small_root: Path, entries: Callable[..., Any]
) -> None:
    """The next worker serves the guest all the same: nobody inside waits for room outside."""
    with running(jail, small_root, "ng.log=syslog") as record:
        _, worker = post(record)
        filler = fill()
        lines = "for i in $(seq 60); do logger $i$(printf %0200d); done"
        assert jexec("lg", "sh", "-c", lines).returncode == 0  # what room the last file has is used up
        os.kill(worker, signal.SIGKILL)
        another(record, worker)
        assert jexec("lg", "sh", "-c", lines, timeout=SECONDS / 2).returncode == 0
        filler.unlink()
        eventually(lambda: sum([one["count"] for one in entries("dropped", 0)]) + len(entries("syslog", 0)) >= 60)
        assert len(entries("resumed")) == 1
        assert jailctl("log", "verify", "lg").returncode == 0


def test_what_is_made_of_the_socket_while_the_disk_is_full_takes_no_memory(
    jail: Command, jexec: Command, kept: Path, small_root: Path, entries: Callable[..., Any]
) -> None:
    """Who fills the disk inside can go on for days; in the end it is told how it is then."""
    with running(jail, small_root, "ng.log=syslog"):
        filler = fill()
        lines = "for i in $(seq 60); do logger $i$(printf %0200d); done"
        assert jexec("lg", "sh", "-c", lines).returncode == 0  # what room the last file has is used up
        turn = "rm -f /dev/log; touch /dev/log; sleep 0.2; rm -f /dev/log; until [ -S /dev/log ]; do sleep 0.05; done"
        done = jexec("lg", "sh", "-c", f"for i in $(seq 8); do {turn}; done; rm -f /dev/log; touch /dev/log; sleep 0.2")
        assert done.returncode == 0
        filler.unlink()
        said = "is no socket: what is sent there cannot be seen"
        eventually(lambda: entries("socket")[-1]["what"] == said)
        assert len(told := [one["what"] for one in entries("socket")]) <= 2, told


def test_a_full_disk_is_told_of_and_harms_nobody(
    jail: Command, jexec: Command, jailctl: Command, kept: Path, small_root: Path, entries: Callable[..., Any]
) -> None:
    with running(jail, small_root, "ng.log=syslog"):
        for times in range(1, 7):  # on a busy machine all may still wait in the socket when there is room again
            filler = fill()
            assert jexec("lg", "sh", "-c", "for i in $(seq 60); do logger $i$(printf %0200d); done").returncode == 0
            time.sleep(0.05 * 3**times)
            filler.unlink()

            def accounted(sent: int = 60 * times) -> object:
                return sum([one["count"] for one in entries("dropped", 0)]) + len(entries("syslog", 0)) == sent

            eventually(accounted, lambda: jailctl("log", "lg").stdout)
            if entries("dropped", 0):
                break
        assert entries("dropped", 0)[0]["why"] == "the log could not be written"
        assert jexec("lg", "logger", "room").returncode == 0
        eventually(lambda: messages(entries("syslog"))[-1] == "room")
        assert jailctl("log", "verify", "lg").returncode == 0


class Collector:
    """Takes what is sent to it, frame by frame."""

    def __init__(self, port: int = 0, certificate: Path | None = None) -> None:
        self.listening = socket.create_server(("127.0.0.1", port))
        self.port = self.listening.getsockname()[1]
        self.frames: list[bytes] = []
        self._tls = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        self._connection: socket.socket | None = None
        self._rest = b""
        self.listening.settimeout(0.05)

    def take(self) -> list[bytes]:
        """All that has come so far."""
        try:
            if self._connection is None:
                self._connection, _ = self.listening.accept()
                self._connection.settimeout(SECONDS)
                if self._tls is not None:
                    self._connection = self._tls.wrap_socket(self._connection, server_side=True)
                self._rest = b""
            self._connection.settimeout(0.05)
            self._rest += self._connection.recv(1 << 16)
        except TimeoutError:
            pass
        except OSError:  # who has called does not trust it
            self._connection = None
        while b" " in self._rest:
            length, _, rest = self._rest.partition(b" ")
            if len(rest) < int(length):
                break
            self.frames.append(rest[: int(length)])
            self._rest = rest[int(length) :]
        return self.frames

    def has(self, word: str) -> bool:
        return any(word.encode() in frame for frame in self.take())

    def close(self) -> None:
        for one in (self._connection, self.listening):
            if one is not None:
                one.close()


def _certificate(directory: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl(1) is not here")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    both = directory / "both.pem"
    files = ["-keyout", str(directory / "key.pem"), "-out", str(directory / "ca.pem")]
    subprocess.run(["openssl", *words.split(), *files], check=True, capture_output=True)
    both.write_bytes((directory / "key.pem").read_bytes() + (directory / "ca.pem").read_bytes())
    return both


def test_a_collector_gets_all_of_it(
    jail: Command, jexec: Command, kept: Path, small_root: Path, tmp_path: Path, entries: Callable[..., Any]
) -> None:
    """Though it was away meanwhile; and one that is not who it should be gets nothing."""
    certificate = _certificate(tmp_path)
    plain, secure, stranger = Collector(), Collector(0, certificate), Collector(0, certificate)
    words = [
        f"ng.log=forward tcp://127.0.0.1:{plain.port}",
        f"ng.log=forward tls://localhost:{secure.port} ca={tmp_path}/ca.pem",
        f"ng.log=forward tls://127.0.0.1:{stranger.port} ca={tmp_path}/ca.pem",  # not the name that it is certified for
    ]
    refused = jail("-c", "name=lg", f"path={small_root}", "persist", "ng.log=all", f"{words[1]}.not")
    assert (refused.returncode, "No such file or directory" in refused.stderr) == (1, True)
    with running(jail, small_root, "ng.log=syslog", *words):
        assert jexec("lg", "logger", 'quoted "] \\ x').returncode == 0
        eventually(lambda: plain.has("quoted") and secure.has("quoted"), lambda: plain.frames)
        refused = jail("-m", "name=lg", "ng.log=syslog", f"{words[1]}.not")
        assert (refused.returncode, "No such file or directory" in refused.stderr) == (1, True)
        port = plain.port
        plain.close()
        assert jexec("lg", "logger", "meanwhile").returncode == 0
        eventually(lambda: secure.has("meanwhile"))
        plain = Collector(port)
        eventually(lambda: plain.has("meanwhile"))
        assert len([frame for frame in secure.take() if b"meanwhile" in frame]) == 1
        stranger.take()
        assert stranger.frames == []
    eventually(lambda: plain.has("ended") and secure.has("ended"))
    numbers = [int(frame.partition(b'seq="')[2].partition(b'"')[0]) for frame in secure.frames]
    assert numbers == list(range(len(numbers)))
    for collector in (plain, secure, stranger):
        collector.close()


def test_a_collector_gets_what_comes_after_somebody_has_removed_the_log(
    jail: Command, jexec: Command, kept: Path, small_root: Path
) -> None:
    collector = Collector()
    with running(jail, small_root, "ng.log=syslog", f"ng.log=forward tcp://127.0.0.1:{collector.port}"):
        assert jexec("lg", "logger", "before").returncode == 0
        eventually(lambda: collector.has("before"))
        folder = kept / "lg/log"
        shutil.rmtree(folder)
        assert jexec("lg", "logger", "lost").returncode == 0
        eventually(folder.exists)
        assert jexec("lg", "logger", "after").returncode == 0
        eventually(lambda: collector.has("after"), lambda: collector.frames[-3:])
    collector.close()
