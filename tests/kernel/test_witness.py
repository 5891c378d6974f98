"""What the kernel tells of a jail for its log: programs executed, connections, logins. Root inside has no say in it."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from jailng.core import registry
from jailng.linux import tracing
from jailng.observe import logins, witness
from jailng.observe.executions import Execution
from tests.kernel.conftest import Command
from tests.kernel.debian import LISTENS
from tests.kernel.networks import Namespace
from tests.kernel.stage import own_logs

Entries = list[tuple[str, dict[str, Any]]]
ADDRESS = "198.51.100.30"


class Log:
    """What is told of one jail, in this process."""

    def __init__(self, name: str) -> None:
        record = registry.find(name)
        assert record is not None
        self.held = witness.hold(record)
        self.record = record
        self.source = witness.Witness(record, self.held, witness.KINDS)

    def take(self) -> Entries:
        """What there is by now."""
        found: Entries = []
        while select.select([self.source.fileno()], [], [], 0)[0]:
            found += [(kind, dict(fields)) for kind, fields in self.source.drain()]
            self.source.settle()
        found += [(kind, dict(fields)) for kind, fields in self.source.drain()]
        json.dumps(found)
        return found

    def lost(self) -> int:
        """How much was dropped, by the kernel's own count."""
        counts = [self.held.maps.jails.get(key) for key in witness._cgroups(self.record)]
        return sum(int.from_bytes(count[:8], "little") for count in counts if count)

    def until(self, kind: str, **wanted: object) -> Entries:
        """What there is by when there is such an entry."""
        found: Entries = []
        deadline = time.monotonic() + 20
        while not of(found, kind, **wanted):
            assert time.monotonic() < deadline, f"no {kind} with {wanted} in {found}"
            select.select([self.source.fileno()], [], [], 1)
            found += self.take()
        return found


def of(found: Entries, kind: str, **wanted: object) -> list[dict[str, Any]]:
    """Entries of a kind that have all these."""
    return [entry for name, entry in found if name == kind and wanted.items() <= entry.items()]


@contextmanager
def logged(jail: Command, *parameters: str) -> Iterator[Log]:
    """A jail of these parameters that is told of."""
    made = jail("-c", "name=cell", "persist", *parameters)
    assert made.returncode == 0, made.stderr
    try:
        try:
            log = Log("cell")
        except PermissionError as error:
            pytest.skip(f"this root may not use BPF: {error}")
        yield log
        log.source.close()
        for link in log.held.links:
            os.close(link)
    finally:
        assert jail("-r", "cell").returncode == 0


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


def held(record: registry.Record) -> int:
    """How many a post more holds; let go of again."""
    before = descriptors()
    made = witness.hold(record)
    count = descriptors() - before
    for fd in made.links:
        os.close(fd)
    maps, flows = made.maps, made.connections
    of_all = maps.jails, maps.rings, maps.lineages, maps.scratch
    for one in (*of_all, made.executions, flows.ring, flows.lost, flows.flows):
        one.close()
    assert descriptors() == before
    return count


def no_room(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_cannot_be_taken_over_is_let_go_of(
    jail: Command, small_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what an earlier post has left the last part is gone; or the jail's own part cannot be had."""
    with logged(jail, f"path={small_root}") as log:
        state = Path(witness._STATE)
        there = state.read_text()
        gone = " ".join([*there.split()[:9], str((1 << 31) - 1)])
        taken = held(log.record)
        state.write_text(gone)
        assert held(log.record) == taken
        assert state.read_text() not in (there, gone)
        monkeypatch.setattr(tracing, "load", no_room)
        before = descriptors()
        for text in (there, gone):
            state.write_text(text)
            with pytest.raises(OSError, match="No space"):
                witness.hold(log.record)
            assert descriptors() == before


_CONNECTIONS = """
import socket
here = ("127.0.0.1", 4444)
listener = socket.socket()
listener.bind(here)
listener.listen()
one = socket.create_connection(here)
other, _ = listener.accept()
one.sendall(bytes(1000))
one.shutdown(socket.SHUT_WR)
while other.recv(4096):
    pass
other.close()
one.recv(1)
one.close()
try:
    socket.create_connection(("127.0.0.1", 4445))
except OSError:
    pass
for _ in range(3):
    last = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(3):
        last.sendto(b"x", ("127.0.0.1", 5353))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 5354))
"""
_HIDDEN = """
import os
body = open("/bin/true", "rb").read()
fd = os.memfd_create("x")
os.write(fd, body)
if os.fork() == 0:
    os.execve(fd, ["[kworker/0:1]"], {})
os.wait()
gone = os.open("/tmp/gone", os.O_RDWR | os.O_CREAT, 0o700)
os.write(gone, body)
os.close(gone)
gone = os.open("/tmp/gone", os.O_RDONLY)
os.unlink("/tmp/gone")
if os.fork() == 0:
    os.execve(gone, [b"a\\nb\\x1b[2J\\xff"], {})
os.wait()
if os.fork() == 0:
    os.execv("/bin/true", ["true", "x" * 100000])
os.wait()
if os.fork() == 0:  # away from all that could tell whose it is
    os.setsid()
    if os.fork() == 0:
        os.execv("/bin/true", ["orphan"])
    os._exit(0)
os.wait()
"""


def test_what_is_executed_and_connected(jail: Command, jexec: Command, debian_python: Path) -> None:
    with logged(
        jail, f"path={debian_python}", "ip4.addr=127.0.0.1", f"mount=tmpfs {debian_python}/tmp tmpfs rw 0 0"
    ) as log:
        script = "printf '#!/bin/sh\\n:\\n' >/tmp/s; chmod 755 /tmp/s; cd /tmp; ./s 1 2; ln -s /bin/true t; ./t"
        assert jexec("cell", "/bin/sh", "-c", script).returncode == 0
        assert jexec("-U", "nobody", "cell", "/bin/sh", "-c", "exec /usr/bin/id").returncode == 0
        found = log.until("exec", path="/usr/bin/id")
        shell = of(found, "exec", entered=True)[0]
        assert shell["argv"] == ["/bin/sh", "-c", script]
        assert (shell["path"], shell["name"]) == ("/usr/bin/dash", "/bin/sh")
        assert (shell["uid"], shell["sid"]) == (0, shell["pid"])
        assert shell["host_uid"] == log.record.base
        scripted = of(found, "exec", script="./s")[0]
        assert scripted["argv"] == ["/bin/sh", "./s", "1", "2"]
        assert scripted["ppid"] == shell["pid"] and scripted["session"] == shell["session"]
        assert of(found, "exec", name="./t", path="/usr/bin/true")
        # Neither is a long name a script's: of what interprets it less is kept than of the name.
        named = "/bin/" + "./" * 200 + "true"
        assert jexec("cell", named).returncode == 0
        (plain,) = of(log.until("exec", argv=[named]), "exec", argv=[named])
        assert (plain["path"], plain["name"], "script" in plain) == ("/usr/bin/true", named, False)
        assert of(found, "exec", path="/usr/bin/id")[0]["uid"] == 65534
        first, second = of(found, "login", how="host")
        assert first["login"] == shell["login"] != second["login"] and second["uid"] == 65534
        assert of(found, "logout", login=first["login"], status=0)

        assert jexec("cell", "/usr/bin/python3", "-c", _HIDDEN).returncode == 0
        found = log.until("exec", argv=["orphan"])
        hidden = of(found, "exec", memfd=True)[0]
        assert (hidden["path"], hidden["argv"]) == ("memfd:x", ["[kworker/0:1]"])
        deleted = of(found, "exec", deleted=True)[0]
        assert (deleted["path"], deleted["argv"]) == ("/tmp/gone", ["a\nb\x1b[2J\udcff"])
        long = next(entry for entry in of(found, "exec") if "argv_bytes" in entry)
        assert long["argv_bytes"] == 100006 and len(long["argv"][1]) == 4096 - 5
        orphan = of(found, "exec", argv=["orphan"])[0]
        assert orphan["login"] == of(found, "login")[0]["login"]

        assert jexec("cell", "/usr/bin/python3", "-c", _CONNECTIONS).returncode == 0
        found = log.until("connect", remote="127.0.0.1:5354")
        asked = of(found, "connect", remote="127.0.0.1:4444")[0]
        assert (asked["comm"], asked["uid"], asked["protocol"]) == ("python3", 0, "tcp")
        assert of(found, "listening", local="127.0.0.1:4444")
        assert of(found, "connected", connection=asked["connection"])[0]["host_pid"] == asked["host_pid"]
        accepted = of(found, "accepted", local="127.0.0.1:4444")[0]
        closed = of(found, "closed", connection=accepted["connection"])[0]
        assert closed["direction"] == "in" and closed["received"] >= 1000
        assert of(found, "failed", remote="127.0.0.1:4445")
        assert len(of(found, "connect", protocol="udp", remote="127.0.0.1:5353")) == 3


def test_a_flood_is_counted_to_the_last(jail: Command, jexec: Command, small_root: Path) -> None:
    with logged(jail, f"path={small_root}") as log:
        many = 'i=0; while [ $i -lt 60 ]; do /bin/busybox true "$1" "$1" "$1"; i=$((i+1)); done'
        rounds = 0
        while not log.lost():  # nobody reads meanwhile
            done = jexec("cell", "/bin/sh", "-c", many, "x", "y" * 100000)
            assert done.returncode == 0, done.stderr
            rounds += 1
        found = log.take()
        executed = len(of(found, "exec"))
        dropped = sum(entry["count"] for entry in of(found, "dropped", of="exec"))
        ended = len(of(found, "logout"))
        assert dropped > 0
        assert executed + dropped + ended == rounds * 62
        assert not of(log.take(), "dropped")


@pytest.fixture
def sshd(debian_copy: Path, jail: Command, jexec: Command, lan: Namespace) -> Iterator[tuple[Log, Callable[..., str]]]:
    """A jail with an sshd in it that is told of, and a client on the LAN."""
    with logged(jail, f"path={debian_copy}", f"ip4.addr={ADDRESS}", "interface=ep0", "mount.devfs") as log:
        made = jexec(
            "cell", "/bin/sh", "-c",
            "echo root:root | chpasswd; useradd -m -s /bin/sh bob; echo PermitRootLogin yes >>/etc/ssh/sshd_config;"
            f" mkdir -p /run/sshd; /usr/sbin/sshd; {LISTENS}",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        askpass = debian_copy.parent / "askpass"
        askpass.write_text("#!/bin/sh\necho root\n")
        askpass.chmod(0o700)
        common = ["-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                  "-o", "NumberOfPasswordPrompts=1", "-o", "LogLevel=ERROR"]  # fmt: skip
        env = {"PATH": os.environ["PATH"], "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "HOME": "/"}

        def ssh(*words: str, stdin: str = "") -> str:
            with lan.entered():
                done = subprocess.run(
                    ["ssh", *common, *words], input=stdin, capture_output=True, text=True, env=env, timeout=60
                )
            assert done.returncode == 0, done.stderr
            return done.stdout

        log.take()
        yield log, ssh


def test_logins(sshd: tuple[Log, Callable[..., str]], jexec: Command) -> None:
    """sshd was started by somebody who had come in from the host, and what comes over it is somebody else."""
    log, ssh = sshd
    assert ssh(f"root@{ADDRESS}", "id -un") == "root\n"
    found = log.until("logout")
    login = of(found, "login")[0]
    assert len(of(found, "login")) == 1
    assert (login["how"], login["uid"], login["remote"].rpartition(":")[0]) == ("network", 0, "198.51.100.2")
    assert of(found, "exec", path="/usr/bin/id", login=login["login"])
    accepted = of(found, "accepted")[0]
    assert (accepted["remote"], accepted["local"]) == (login["remote"], f"{ADDRESS}:22")

    script = "script -qc 'id -un' /dev/null; su - bob -c 'id -un; exec sleep 0'"
    ssh("-tt", f"root@{ADDRESS}", script)
    found = log.until("logout")
    login = of(found, "login")[0]
    assert len(of(found, "login")) == 1
    assert login["tty"] == "pts0"
    assert {entry["login"] for entry in of(found, "exec", path="/usr/bin/id")} == {login["login"]}
    assert of(found, "session", tty="pts1", login=login["login"])
    became = of(found, "user", uid_before=0)[0]
    assert became["uid"] > 0 and became["login"] == login["login"]
    assert of(found, "exec", path="/usr/bin/sleep", uid=became["uid"], login=login["login"])

    fifo = (
        "mkfifo -m 666 /tmp/ran; echo '@reboot nobody id -un >/tmp/ran' >/etc/cron.d/job; rm -f /run/crond.reboot; cron"
    )
    assert jexec("cell", "/bin/sh", "-c", f"{fifo}; cat /tmp/ran").stdout == "nobody\n"
    found = log.until("logout")
    assert [entry["how"] for entry in of(found, "login")] == ["host"]


def test_one_process_that_serves_many(jail: Command, jexec: Command, small_root: Path, lan: Namespace) -> None:
    """Each has come in by a connection of his own, of all that busybox's telnetd has."""
    words = ("interface=ep0", "ip4.addr=198.51.100.30/24")
    with logged(jail, f"path={small_root}", *words) as log, ExitStack() as clients:
        assert jexec("cell", "/bin/busybox", "telnetd", "-p", "23", "-l", "/bin/sh").returncode == 0
        for number in range(3):
            with lan.entered():
                client = clients.enter_context(socket.create_connection(("198.51.100.30", 23), 20))
            host, port = client.getsockname()
            found = log.until("login", how="network")
            (came,) = of(found, "login", how="network")
            assert came["remote"] == f"{host}:{port}", number


def test_others_sessions_take_nobody_s_login_away(
    jail: Command, jexec: Command, small_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more sessions than there is room for those are forgotten that have ended."""
    monkeypatch.setattr(logins, "_MOST", 20)
    with logged(jail, f"path={small_root}") as log:
        many = "i=0; while [ $i -lt 40 ]; do busybox setsid busybox true; i=$((i+1)); done"
        assert (
            jexec("cell", "sh", "-c", f"{many}; busybox true last; busybox setsid busybox true apart").returncode == 0
        )
        found = log.take()
        (login,) = of(found, "login")
        for word in ("last", "apart"):
            assert of(found, "exec", argv=["busybox", "true", word])[0].get("login") == login["session"]
        assert of(found, "logout", session=login["session"])
        assert len(log.source._logins._sessions) <= 20


@pytest.fixture
def kept() -> Iterator[Path]:
    """Where logs are kept."""
    with own_logs() as directory:
        yield directory


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_readers_that_are_killed_lose_nothing(
    jail: Command, jexec: Command, jailctl: Command, checkout: Path, small_root: Path, kept: Path
) -> None:
    made = jail("-c", "name=cell", f"path={small_root}", "persist", "ng.log=exec,logins")
    assert made.returncode == 0, made.stderr
    killed: list[int] = []
    try:
        record = registry.find("cell")
        assert record is not None
        post = int(record.posts["log"].split()[0])
        for number in range(3):
            loop = f"for i in $(seq 40); do /bin/busybox echo {number}-$i >/dev/null; done"
            with subprocess.Popen([str(checkout / "bin/jexec"), "cell", "sh", "-c", loop]) as running:
                for child in _children(post):
                    with suppress(ProcessLookupError):  # one that was killed before
                        os.kill(child, signal.SIGKILL)
                        killed.append(child)
                assert running.wait() == 0
        ends = os.pidfd_open(post)
    finally:
        assert jail("-r", "cell").returncode == 0
    assert select.select([ends], [], [], 60)[0]  # it has written down all
    os.close(ends)
    done = jailctl("log", "--json", "--kind", "exec", "cell")
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    said = [entry["argv"][2] for entry in entries if entry["argv"][1:2] == ["echo"]]
    assert killed
    assert {*said} == {f"{number}-{i}" for number in range(3) for i in range(1, 41)}
    assert jailctl("log", "verify", "cell").returncode == 0


def test_a_jail_that_ends_before_its_reader_has_caught_up(
    jail: Command, jexec: Command, jailctl: Command, small_root: Path, kept: Path
) -> None:
    """All that the kernel holds then is read, however much that is."""
    made = jail("-c", "name=cell", f"path={small_root}", "persist", "ng.log=exec")
    assert made.returncode == 0, made.stderr
    many = witness._MOST + 500
    try:
        record = registry.find("cell")
        assert record is not None
        post = int(record.posts["log"].split()[0])
        (reader,) = _children(post)
        ends, ended = os.pidfd_open(post), os.pidfd_open(record.init_pid)
        os.kill(reader, signal.SIGSTOP)
        try:
            loop = f"i=0; while [ $i -lt {many} ]; do /bin/busybox true; i=$((i+1)); done"
            assert jexec("cell", "sh", "-c", loop).returncode == 0
            os.kill(record.init_pid, signal.SIGKILL)
            assert select.select([ended], [], [], 60)[0]
        finally:
            os.kill(reader, signal.SIGCONT)
        assert select.select([ends], [], [], 60)[0]
        os.close(ends)
        os.close(ended)
    finally:
        jail("-r", "cell")
    done = jailctl("log", "--json", "--kind", "exec,dropped", "cell")
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    executed = [entry for entry in entries if entry["kind"] == "exec" and entry["argv"][1:] == ["true"]]
    dropped = sum([entry["count"] for entry in entries if entry["kind"] == "dropped"])
    assert len(executed) + dropped == many


@pytest.mark.parametrize(
    "parameters", [("ng.uids=shared", "ip4=inherit"), ("ng.stack=shared", f"ip4.addr={ADDRESS}"), ("vnet",)], ids=str
)
def test_in_every_kind_of_jail(
    jail: Command, jexec: Command, small_root: Path, lan: Namespace, parameters: tuple[str, ...]
) -> None:
    """Whoever's uids and network the jail has; and a jail in it is its own to answer for."""
    with logged(jail, f"path={small_root}", "interface=ep0", *parameters) as log:
        jexec("cell", "nc", "-w", "5", "127.0.0.1", "9")
        found = log.until("failed")
        executed = of(found, "exec", argv=["nc", "-w", "5", "127.0.0.1", "9"])[0]
        asked = of(found, "connect", protocol="tcp")[0]
        assert (executed["uid"], asked["uid"], asked["host_pid"]) == (0, 0, executed["host_pid"])
        assert executed["host_uid"] == log.record.owner
        failed = of(found, "failed")[0]
        assert (failed["connection"], failed["remote"].rpartition(":")[2]) == (asked["connection"], "9")


_HEARING = """
import socket
one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
one.settimeout(20)
one.bind(("2001:db8:1::30", 5353))
print("ready", flush=True)
for _ in range(3):
    one.recv(100)
"""
_HOP_BY_HOP, _DESTINATION = 54, 59  # IPV6_HOPOPTS, IPV6_DSTOPTS


def test_what_stands_behind_headers_of_extension(
    jail: Command, checkout: Path, debian_python: Path, lan: Namespace
) -> None:
    """Who puts some before a datagram is not without protocol and ports for that, and hides no other flow."""
    words = ("interface=ep0", "ip6.addr=2001:db8:1::30/64")
    with logged(jail, f"path={debian_python}", *words) as log:
        argv = [str(checkout / "bin/jexec"), "cell", "/usr/bin/python3", "-c", _HEARING]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as hearing:
            assert hearing.stdout is not None
            assert hearing.stdout.readline() == "ready\n"
            options = bytes([0, 0, 1, 4, 0, 0, 0, 0])  # of which the first byte is the kernel's to say
            longer = bytes([0, 1, 0x1E, 12, *bytes(12)])  # RFC 4727: passed over by who does not know it
            for port, kinds in ((1001, ()), (1002, ((_DESTINATION, longer),)), (1003, (_HOP_BY_HOP, _DESTINATION))):
                with lan.datagrams("2001:db8:1::2", port) as sender:
                    for kind in kinds:
                        name, value = kind if isinstance(kind, tuple) else (kind, options)
                        sender.setsockopt(socket.IPPROTO_IPV6, name, value)
                    sender.sendto(b"x", ("2001:db8:1::30", 5353))
        found = log.until("flow", remote="[2001:db8:1::2]:1003")
        flows = [(entry["protocol"], entry["remote"], entry["local"]) for entry in of(found, "flow")]
        assert flows == [("udp", f"[2001:db8:1::2]:{port}", "[2001:db8:1::30]:5353") for port in (1001, 1002, 1003)]


_LIGHT = """
import socket
for port in (6001, 6002):
    hears = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)
    hears.bind(("127.0.0.1", port))
    sends = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)
    sends.bind(("127.0.0.1", port + 1000))
    sends.sendto(b"x", ("127.0.0.1", port))
    hears.recv(1)
"""


def test_flows_of_udp_lite_are_told_apart(jail: Command, jexec: Command, debian_python: Path) -> None:
    with logged(jail, f"path={debian_python}", "ip4.addr=127.0.0.1") as log:
        done = jexec("cell", "/usr/bin/python3", "-c", _LIGHT)
        if "EPROTONOSUPPORT" in done.stderr or "not supported" in done.stderr:
            pytest.skip("a kernel without UDP-Lite")
        assert (done.returncode, done.stderr) == (0, "")
        assert jexec("cell", "/bin/true").returncode == 0
        found = log.until("exec", name="/bin/true")
        told = [(entry["direction"], entry["remote"], entry["local"]) for entry in of(found, "flow")]
        assert told == [("in", f"127.0.0.1:{port + 1000}", f"127.0.0.1:{port}") for port in (6001, 6002)]
        asked = of(found, "connect", protocol="udplite")
        assert [entry["remote"] for entry in asked] == ["127.0.0.1:6001", "127.0.0.1:6002"]


_LATER_PART = """
import socket, struct
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
here = socket.inet_aton("127.0.0.1")
raw.sendto(struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 7, 100, 64, 17, 0, here, here) + bytes(8), ("127.0.0.1", 0))
"""


def test_a_later_part_of_a_packet_is_told_of_without_ports(jail: Command, jexec: Command, debian_python: Path) -> None:
    """Of which a raw socket need not send the first."""
    with logged(jail, f"path={debian_python}", "ip4.addr=127.0.0.1", "allow.raw_sockets") as log:
        done = jexec("cell", "/usr/bin/python3", "-c", _LATER_PART)
        assert (done.returncode, done.stderr) == (0, "")
        assert jexec("cell", "/bin/true").returncode == 0
        told = of(log.until("exec", name="/bin/true"), "flow", direction="out")
        assert [(entry["protocol"], entry["remote"]) for entry in told] == [("udp", "127.0.0.1")]


def test_a_jail_in_a_jail(jail: Command, jexec: Command, small_root: Path) -> None:
    with logged(jail, f"path={small_root}", "children.max=1") as log:
        made = jail("-c", "name=cell.inner", f"path={small_root}", "persist")
        assert made.returncode == 0, made.stderr
        assert jexec("cell.inner", "true").returncode == 0
        assert of(log.until("exec", argv=["true"]), "exec", argv=["true"])[0]["entered"]


_MANY = """
import socket
last = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in range(1, 8001):
    last.sendto(b"x", ("127.0.0.1", port))
"""


def test_a_flood_of_connections_is_counted_too(jail: Command, jexec: Command, debian_python: Path) -> None:
    with logged(jail, f"path={debian_python}", "ip4.addr=127.0.0.1") as log:
        done = jexec("cell", "/usr/bin/python3", "-c", _MANY)
        assert done.returncode == 0, done.stderr
        found = log.take()
        dropped = sum(entry["count"] for entry in of(found, "dropped", of="connection"))
        assert dropped > 0
        assert len(of(found, "connect")) + dropped == 8000
        assert of(found, "exec", argv=["/usr/bin/python3", "-c", _MANY])  # in a ring of its own


def test_a_record_that_nobody_can_read_is_counted(
    small_root: Path, jail: Command, jexec: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reader(Execution):
        def __init__(self, content: bytes, base: int) -> None:
            super().__init__(content, base)
            if "bad" in self.argv:
                raise ValueError("what is this?")

    monkeypatch.setattr(witness, "Execution", Reader)
    with logged(jail, f"path={small_root}") as log:
        for word in ("one", "bad", "two"):
            assert jexec("cell", "/bin/busybox", "echo", word).returncode == 0
        found = log.until("exec", argv=["/bin/busybox", "echo", "two"])
        assert [entry["argv"][-1] for entry in of(found, "exec")] == ["one", "two"]
        assert of(found, "dropped") == [{"of": "record", "count": 1, "why": "not understood"}]
