"""jailctl ps and jailctl sockstat with real jails: who is in which, under which name, whatever its processes do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.core.index import FIRST_UID
from tests.kernel.conftest import ENVIRONMENT, Command, Shim, _command

Inside = Callable[..., int]


@pytest.fixture(scope="session")
def jailctl(checkout: Path) -> Command:
    return _command(checkout / "bin/jailctl")


@pytest.fixture
def pair(jail: Command, small_root: Path) -> Iterator[Path]:
    """Two jails, ``one`` and ``two``, in the same root."""
    os.mkfifo(small_root / "tmp/fifo")  # to wait at
    (small_root / "tmp/fifo").chmod(0o666)
    for name in ("one", "two"):
        done = jail("-c", f"name={name}", f"path={small_root}", "persist")
        assert (done.returncode, done.stderr) == (0, "")
    yield small_root
    for name in ("one", "two"):
        jail("-r", name)


@pytest.fixture
def inside(checkout: Path) -> Iterator[Inside]:
    """Runs a script of sh's in a jail; waits until it says "up" and sleeps, and gives the pid on the host."""
    started: list[subprocess.Popen[bytes]] = []

    def execute(jail: str, script: str, *arguments: str, user: str = "root") -> int:
        argv = [f"{checkout}/bin/jexec", "-U", user, jail, "sh", "-c", script, *arguments]
        entered = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT
        )
        started.append(entered)
        assert entered.stdout is not None
        assert entered.stdout.readline() == b"up\n"
        pid = int(Path(f"/proc/{entered.pid}/task/{entered.pid}/children").read_text().split()[-1])
        _until_asleep(pid)
        return pid

    yield execute
    for entered in started:
        entered.kill()
        if entered.stdout is not None:
            entered.stdout.close()
        entered.wait(30)


def _until_asleep(pid: int) -> None:
    while Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "S":
        pass


def rows(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    assert (done.stderr, done.returncode) == ("", 0)
    return [line.split() for line in done.stdout.splitlines()]


def jid(name: str) -> int:
    record = registry.find(name)
    assert record is not None
    return record.jid


def test_ps_says_which_jail_and_who_there(jailctl: Command, pair: Path, inside: Inside) -> None:
    mine = inside("one", "echo up; exec sleep 1000", user="alice")
    other = inside("two", "echo up; exec sleep 1000")
    listed = rows(jailctl("ps"))
    assert listed[0] == "JID PID TT STAT TIME COMMAND".split()
    assert sorted(row[:2] for row in listed[1:]) == sorted(
        [[str(jid("one")), str(mine)], [str(jid("two")), str(other)]]
    )
    base = FIRST_UID
    full = rows(jailctl("ps", "-u", "-J", "one,two"))
    assert full[0] == "USER INSIDE JID PID %CPU %MEM VSZ RSS TT STAT STARTED TIME COMMAND".split()
    assert {row[1]: (int(row[0]) - base) % 65536 for row in full[1:]} == {"alice": 1001, "root": 0}
    assert [row[3] for row in rows(jailctl("ps", "-uJ", "one"))[1:]] == [str(mine)]
    assert [row[3] for row in rows(jailctl("ps", "-u", "-J", str(jid("two"))))[1:]] == [str(other)]
    hosts = rows(jailctl("ps", "-J", "", "-o", "jid,jail,inside,pid"))[1:]
    assert {tuple(row[:3]) for row in hosts} == {("0", "-", "-")}
    assert str(os.getpid()) in {row[3] for row in hosts}
    assert not {str(mine), str(other)} & {row[3] for row in hosts}


def test_pid_1_is_no_member(jailctl: Command, pair: Path) -> None:
    record = registry.find("one")
    assert record is not None
    empty = jailctl("ps", "-J", "one", "-o", "pid")
    assert (empty.stdout.split(), empty.stderr, empty.returncode) == (["PID"], "", 1)
    assert rows(jailctl("ps", "-J", "one", "--init", "-o", "pid,jail"))[1:] == [[str(record.init_pid), "one"]]


def test_membership_is_not_the_pid_namespace(jailctl: Command, pair: Path) -> None:
    """A process of the host's that has gone into a jail's namespaces is not in the jail."""
    record = registry.find("one")
    assert record is not None
    argv = ["nsenter", f"--target={record.init_pid}", "--pid", "--net", "sleep", "1000"]
    entered = subprocess.Popen(argv)
    try:
        while not (children := Path(f"/proc/{entered.pid}/task/{entered.pid}/children").read_text().split()):
            pass
        _until_asleep(int(children[0]))
        stat = "SN" if os.nice(0) > 0 else "S"  # and no J
        assert rows(jailctl("ps", "-p", children[0], "-o", "jid,stat"))[1:] == [["0", stat]]
    finally:
        entered.kill()
        os.kill(int(children[0]), 9)
        entered.wait()


def test_what_a_process_calls_itself_does_not_reach_the_terminal(
    jailctl: Command, pair: Path, inside: Inside, checkout: Path
) -> None:
    """Escapes, newlines that would make a line of their own, and a name that looks like the rest of its file."""
    script = "printf ') Z 1\\n\\033[31m' >/proc/self/comm; echo up; read word <>/tmp/fifo"
    pid = inside(
        "one", script, "\x1b]0;owned\x07", "a\nroot 1 0.0 evil", b"\xff\x9b".decode("utf-8", "surrogateescape")
    )
    for command in ([f"{checkout}/bin/jailctl", "ps", "aux"], [f"{checkout}/shims/ps", "aux"]):
        done = subprocess.run(command, capture_output=True, env=ENVIRONMENT)
        assert done.returncode == 0
        text = done.stdout.decode()  # strictly
        assert all(line.isprintable() for line in text.split("\n"))
        where = text.split("\n", 1)[0].split().index("PID")
        (line,) = [line for line in text.split("\n") if line.split()[where : where + 1] == [str(pid)]]
        assert "\\x1b]0;owned\\x07 a\\x0aroot 1 0.0 evil \\xff\\x9b () Z 1\\x0a\\x1b[31m)" in line
    (known,) = json.loads(jailctl("ps", "-p", str(pid), "-o", "comm,state", "--libxo", "json").stdout)[
        "process-information"
    ]["process"]
    assert known == {"command": ") Z 1\\x0a\\x1b[31m", "state": "SsJ"}


@pytest.mark.parametrize("name", [r"\nUid:\t0\t0\t0\t0", r"\nUid:\t", r"x) Z 0 0 0 0", r"\n0::/", r")"])
def test_no_process_hides_behind_its_name(jailctl: Command, pair: Path, inside: Inside, name: str) -> None:
    pid = inside("one", f"printf '{name}' >/proc/self/comm; echo up; read word <>/tmp/fifo", user="alice")
    listed = rows(jailctl("ps", "-J", "one", "-o", "pid,jail,inside,state"))[1:]
    assert listed == [[str(pid), "one", "alice", "SsJ"]]


def test_passwd_of_an_enemy(jailctl: Command, pair: Path, inside: Inside) -> None:
    """Links to the host's, a pipe that nobody writes to, a directory, escapes: a number where there is no name."""
    pid = inside("one", "echo up; exec sleep 1000", user="alice")
    passwd = pair / "etc/passwd"

    def name() -> str:
        return rows(jailctl("ps", "-p", str(pid), "-o", "inside="))[0][0]

    assert name() == "alice"
    passwd.unlink()
    assert name() == "1001"
    (pair / "etc/real").write_text("linked:x:1001:1001:::\n")
    passwd.symlink_to("real")
    assert name() == "1001"
    passwd.unlink()
    os.mkfifo(passwd)
    assert name() == "1001"
    passwd.unlink()
    passwd.mkdir()
    assert name() == "1001"
    passwd.rmdir()
    passwd.write_text("x\x1b[31m:x:1001:1001:::\n")
    assert name() == "x\\x1b[31m"
    (pair / "etc").rename(pair / "etc2")
    (pair / "etc").symlink_to("etc2")
    assert name() == "1001"


def test_a_thousand_processes(jailctl: Command, pair: Path, inside: Inside) -> None:
    inside("one", "n=0; while [ $n -lt 1000 ]; do sleep 1000 </dev/null & n=$((n+1)); done; echo up; wait")
    listed: list[list[str]] = []
    for _ in range(100):  # the last of them may still be the shell's copies
        listed = rows(jailctl("ps", "-J", "one", "-o", "jail,stat,command"))[1:]
        if listed.count(["one", "SJ", "sleep", "1000"]) == 1000:
            break
    assert [row for row in listed if row[2:] == ["sleep", "1000"]] == [["one", "SJ", "sleep", "1000"]] * 1000
    assert len(listed) == 1001


def test_processes_that_vanish_meanwhile(jailctl: Command, pair: Path, inside: Inside) -> None:
    pid = inside("one", "echo up; while :; do /bin/busybox true & /bin/busybox true | /bin/busybox true; done 2>&-")
    for _ in range(10):
        listed = rows(jailctl("ps", "-J", "one", "-o", "pid,ppid,stat,rss,inside,command"))
        assert str(pid) in {row[0] for row in listed}
        assert rows(jailctl("sockstat", "-4"))[0][0] == "JID"


def test_sockstat_says_which_jail(jailctl: Command, jail: Command, pair: Path, inside: Inside) -> None:
    """A jail with the host's addresses, one without any, and a process of the host's."""
    shared = jail("-c", "name=three", f"path={pair}", "ip4=inherit", "persist", "exec.start=httpd -p 127.0.0.1:8021")
    assert (shared.stderr, shared.returncode) == ("", 0)
    try:
        with socket.create_server(("127.0.0.1", 8022)) as mine:
            assert mine.getsockname()
            listed = rows(jailctl("sockstat", "-4l", "-p", "8021,8022"))
            assert listed[0] == "JID USER COMMAND PID FD PROTO LOCAL ADDRESS FOREIGN ADDRESS".split()
            assert sorted([row[0], row[3], *row[5:]] for row in listed[1:]) == sorted(
                [
                    [
                        str(jid("three")),
                        rows(jailctl("ps", "-J", "three", "-o", "pid="))[0][0],
                        "tcp4",
                        "127.0.0.1:8021",
                        "*:*",
                    ],
                    ["0", str(os.getpid()), "tcp4", "127.0.0.1:8022", "*:*"],
                ]
            )
        assert [row[6] for row in rows(jailctl("sockstat", "-4", "-j", "three"))[1:]] == ["127.0.0.1:8021"]
        assert rows(jailctl("sockstat", "-4", "-j", "one"))[1:] == []
    finally:
        jail("-r", "three")
    assert jailctl("sockstat", "-j", "three").stderr == 'jailctl: jail "three" not found\n'


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("ps -J nowhere", 'jailctl: jail "nowhere" not found'),
        ("ps -J 77", "jailctl: jail 77 not found"),
        ("ps -U nobody-at-all", "jailctl: No such user: nobody-at-all"),
        ("ps -o nonsense", "jailctl ps: nonsense: keyword not found"),
        ("ps --libxo xml", "jailctl: --libxo xml: not honoured, only json is"),
        ("sockstat -p x", "jailctl: syntax error in port range: x"),
        ("sockstat -P sctp", "jailctl: sctp: not honoured, only tcp and udp are"),
    ],
)
def test_complaints(jailctl: Command, words: str, complaint: str) -> None:
    done = jailctl(*words.split())
    assert (done.stdout, done.stderr, done.returncode) == ("", complaint + "\n", 1)


_FORGER = """
import socket, sys, time
made = []
for number in range(64):
    made.append(socket.socket(socket.AF_UNIX))
    name = f"{number}\\n0000000000000000: 00000002 00000000 00010000 0001 01 {sys.argv[1 + number % 2]} /forged"
    made[-1].bind("\\0" + name)
    made[-1].listen()
print("up", flush=True)
time.sleep(1000)
"""


def test_a_name_is_no_line_about_other_sockets(
    jailctl: Command, jail: Command, shim: Shim, checkout: Path, tmp_path: Path
) -> None:
    """In /proc/net/unix it looks like one; and a jail with the host's network has its names in the host's."""
    assert jail("-c", "name=forger", "path=/", "ip4=inherit", "ip6=inherit", "persist").returncode == 0
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / "genuine"))
            listening.listen()
            inode = os.fstat(listening.fileno()).st_ino
            argv = [f"{checkout}/bin/jexec", "forger", "/usr/bin/python3", "-c", _FORGER, str(inode), "4294967290"]
            with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as forger:
                assert forger.stdout is not None
                assert forger.stdout.readline() == "up\n"
                told = jailctl("sockstat", "-u").stdout.splitlines()
                netstat = shim("netstat", "-an").stdout.splitlines()
                forger.kill()
        for lines in (told, netstat):
            assert [line.split()[-1] for line in lines].count(str(tmp_path / "genuine")) == 1
            assert not [line for line in lines if line.endswith("/forged") and "\\x0a" not in line]
            assert len([line for line in lines if line.endswith("/forged")]) == 64
    finally:
        assert jail("-r", "forger").returncode == 0


@pytest.mark.parametrize("words", ["ps -e", "ps aux root", "sockstat -z", "sockstat 4"])
def test_usage(jailctl: Command, words: str) -> None:
    done = jailctl(*words.split())
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith(f"usage: jailctl {words.split()[0]} ")
