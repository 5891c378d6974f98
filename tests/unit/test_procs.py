"""What /proc says, read into processes, sockets and columns; and that what a process has written is not believed."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import tracemalloc
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.core.registry import Record
from jailng.ctl import ifchange, ifconfig, netstat, ps, shim, sockstat
from jailng.errors import JailError, UsageError
from jailng.linux import rtnetlink as rt
from jailng.linux import sockdiag
from jailng.linux.netlink import attribute
from jailng.procs import columns, jails, printed, process, sockets
from jailng.procs.descent import by_descent
from jailng.procs.jails import membership, user_names
from jailng.procs.printed import Heading
from jailng.procs.process import Process
from jailng.procs.sockets import End, Holder, Socket

_NUMBERS = (
    "S 1 42 42 34816 42 4194304 5 0 6 0 700 20 0 0 20 0 3 0 100 4096000 50 18446744073709551615 "
    "1 1 0 0 0 0 0 0 0 0 0 0 17 1"
)
_STATUS = {"Uid": "1001\t1001\t1001\t1001", "Gid": "100\t100\t100\t100", "VmData": "12 kB", "TracerPid": "0"}


def made(
    comm: str = "sh",
    line: bytes = b"sh\0",
    numbers: str = _NUMBERS,
    cgroup: str = "/",
    status: dict[str, str] = _STATUS,
) -> Process:
    stat = f"42 ({comm}) {numbers}".encode("utf-8", "surrogateescape")
    return process.parse(42, stat, status, cgroup, line)


def test_a_process_is_read() -> None:
    found = made(line=b"/bin/sh\0-c\0true\0")
    assert (found.pid, found.comm, found.state, found.parent, found.group, found.session) == (42, "sh", "S", 1, 42, 42)
    assert (found.user, found.system, found.nice, found.threads) == (7.0, 0.2, 0, 3)
    assert (found.virtual, found.resident, found.processor) == (4096000, 50 * process.PAGE, 1)
    assert (found.uid, found.gids[1], found.arguments) == (1001, 100, ("/bin/sh", "-c", "true"))


def test_a_command_line_takes_its_own_size() -> None:
    """A jail has thousands of processes, each with as many words as it likes, and a listing has all of them."""
    line = b"\xff\0" * 8192
    made(line=line)  # what is loaded for it
    tracemalloc.start()
    found = made(line=line)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 2 * len(line)
    assert len(found.arguments) == 8192


def test_a_name_may_hold_what_ends_a_name() -> None:
    """In the hope that it is read as a process of another state, terminal and parent."""
    found = made("x) Z 1 1 1 0 (")
    assert (found.comm, found.state, found.parent) == ("x) Z 1 1 1 0 (", "S", 1)
    assert made("a\nb c").comm == "a\nb c"


@given(st.binary(max_size=15))
def test_any_name_and_line_come_out_printable(name: bytes) -> None:
    comm = name.decode("utf-8", "surrogateescape")
    found = made(comm, name + b"\0" + name)
    assert found.comm == comm
    for text in printed.lines([Heading("A"), Heading("B")], [[found.command, found.comm]]):
        assert text.isprintable()
        text.encode()


@pytest.mark.parametrize(
    ("comm", "line", "shown"),
    [
        ("tcsh", b"-su\0", "-su (tcsh)"),
        ("tcsh", b"-tcsh\0", "-tcsh (tcsh)"),
        ("inetd", b"inetd\0-wW\0-a\0", "inetd -wW -a"),
        ("sshd", b"/usr/sbin/sshd\0-D\0", "/usr/sbin/sshd -D"),
        ("script", b"/usr/bin/perl\0/tmp/script\0", "/usr/bin/perl /tmp/script"),
        ("a-name-as-long-", b"/bin/a-name-as-long-as-that\0", "/bin/a-name-as-long-as-that"),
        ("kthreadd", b"", "[kthreadd]"),
        ("sshd", b"sshd: monkeytest\0\0\0\0\0\0", "sshd: monkeytest (sshd)"),
    ],
)
def test_command(comm: str, line: bytes, shown: str) -> None:
    assert made(comm, line).command == shown
    assert made(comm, line, _NUMBERS.replace("S", "Z", 1)).command == "<defunct>"


def test_json_is_ascii(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ps, "processes", lambda: [made("größe\udcff", cgroup="/jailng/7/members")])
    assert ps.show(ps.parse(["--json", "-o", "comm"], {}), jails.Jails(), None, of_jails=True) == 0
    out = capfd.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"process-information": {"process": [{"command": "größe\\xff"}]}}


@pytest.mark.parametrize("cut", range(0, 100, 7))
def test_what_is_cut_short_is_no_process(cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends while its files are read."""
    whole = {
        "stat": f"42 (sh) {_NUMBERS}".encode(),
        "status": b"Name:\tsh\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n",
        "cgroup": b"0::/\n",
        "cmdline": b"sh\0",
    }
    monkeypatch.setattr(process, "_file", lambda path: whole[path.rpartition("/")[2]])
    assert process.read(42) is not None
    monkeypatch.setattr(process, "_file", lambda path: whole[path.rpartition("/")[2]][:cut])
    assert process.read(42) is None

    def gone(path: str) -> bytes:
        raise ProcessLookupError(3, "No such process", path)

    monkeypatch.setattr(process, "_file", gone)
    assert process.read(42) is None


def test_processes_that_vanish_between_the_listing_and_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "pids", lambda: [os.getpid(), 4194304])  # beyond pid_max
    assert [found.pid for found in process.processes()] == [os.getpid()]


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("/", (0, False)),
        ("/jailng/7/members", (7, False)),
        ("/jailng/7/members/deeper", (7, False)),
        ("/jailng/7/init", (7, True)),
        ("/jailng/7", (0, False)),
        ("/jailng/7/membership", (0, False)),
        ("/user.slice/jailng/7/members", (0, False)),  # anybody's
        ("/../jailng/7/members", (0, False)),  # of another root
        ("/jailng/7777777/members", (0, False)),
        ("", (0, False)),
    ],
)
def test_membership_is_the_cgroup(cgroup: str, expected: tuple[int, bool]) -> None:
    assert membership(cgroup) == expected


def test_stat_has_freebsds_flags_in_their_order() -> None:
    foreground = made(cgroup="/jailng/7/members")
    assert columns.state(foreground) == "Ss+J"
    assert columns.state(made()) == "Ss+"
    assert columns.state(made(numbers=_NUMBERS.replace("34816", "0").replace(" 42 42 ", " 42 41 "))) == "S"
    assert columns.state(made(numbers=_NUMBERS.replace("20 0 3", "20 5 3"))) == "SNs+"
    assert columns.state(made(numbers=_NUMBERS.replace("20 0 3", "20 -5 3"))) == "S<s+"
    assert columns.state(made(status={**_STATUS, "TracerPid": "1"}, numbers=_NUMBERS.replace("S", "t", 1))) == "TXs+"


def test_times() -> None:
    assert [columns.minutes(seconds) for seconds in (0, 0.14, 59.999, 6000)] == [
        "0:00.00",
        "0:00.14",
        "1:00.00",
        "100:00.00",
    ]
    assert [columns.elapsed(s) for s in (5, 65, 3600, 90061)] == ["00:05", "01:05", "01:00:00", "1-01:01:01"]
    now = 1_000_000_000.0
    assert re.fullmatch("[ 1][0-9]:[0-9]{2}[AP]M", columns.started(now - 60, now))
    assert re.fullmatch("[A-Z][a-z]{2}[01][0-9][AP]M", columns.started(now - 3 * 86400, now))
    assert re.fullmatch("[ 123][0-9][A-Z][a-z]{2}[0-9]{2}", columns.started(now - 30 * 86400, now))


def test_terminals_have_linuxs_names() -> None:
    assert process.terminal_name(os.makedev(136, 9)) == "pts/9"
    assert process.terminal_name(0) == ""
    known = jails.Jails()
    assert columns.column("tt").cell(made(numbers=_NUMBERS.replace("34816", "0")), known) == "?? "
    assert columns.column("tt").cell(made(), known) == "0 "
    assert columns.column("tty").cell(made(), known) == "pts/0"
    assert [columns.short_terminal(os.makedev(*known)) for known in ((136, 9), (4, 1), (5, 1))] == ["9", "1", "console"]


def test_a_jails_passwd_is_read_with_care() -> None:
    text = "root:x:0:0:r:/:/bin/sh\ntoor:x:0:0:r:/:/bin/sh\nm:x:1001:1:::\nbad\n:x:5:5:::\nx:x:-1:1:::\ny:x:٣:1:::\n"
    lines = [line.split(":") for line in f"{text}{'l' * 99}:x:9:9:::\n".split("\n")]
    assert user_names(lines) == {0: "root", 1001: "m", 9: "l" * 32}


def test_a_jails_users_pass_for_no_other_column() -> None:
    """Of `jailctl ps -u`, where the pid is two columns on; nor for the uid of another, nor for nobody."""
    names = ["x 1 1", "0", "-", "a\tb", "a\u2028b", "12a", "+nis", "é"]
    lines = [[name, "x", str(uid), "0", "", "/", "/bin/sh"] for uid, name in enumerate(names)]
    assert user_names(lines) == {5: "12a", 6: "+nis", 7: "é"}


def test_what_does_not_fit_into_a_line_of_a_terminal_is_in_no_other() -> None:
    """Where a process could write another process's: a Chinese character takes two places."""
    headings = [Heading("PID", left=False), Heading("COMMAND")]
    for text in ("漢" * 50 + "7 init", "a" * 50, "é漢" * 50, "漢" * 3):
        row = printed.lines(headings, [["1", text]], 20)[1]
        assert sum([2 if char == "漢" else 1 for char in row]) in (20, 19, 10)
        assert f"  1 {text}".startswith(row)


def test_what_does_not_fit_goes_on_in_its_column() -> None:
    """In the first columns of the lines below stands nothing that anybody inside has written."""
    headings = [Heading("PID", left=False), Heading("COMMAND")]
    for text in ("x" * 40, "漢" * 25, "é漢" * 20, ""):
        _, first, *below = printed.lines(headings, [["1", text]], 30, folded=True)
        assert first.startswith("  1 ")
        assert "".join([line[4:] for line in (first, *below)]) == text
        assert all(line.startswith("    ") for line in below)
        assert all(sum([2 if char == "漢" else 1 for char in line]) <= 30 for line in (first, *below))
    assert [len(line) for line in printed.lines(headings, [["1" * 40, "x" * 40]], 30, folded=True)] == [30, 30]


def test_columns_are_as_wide_as_they_must_be() -> None:
    headings = [Heading("USER"), Heading("PID", left=False), Heading("COMMAND")]
    rows = [["root", "1", "init"], ["monkeytest", "12345", "a long one\x1b[31m"]]
    assert printed.lines(headings, rows) == [
        "USER         PID COMMAND",
        "root           1 init",
        "monkeytest 12345 a long one\\x1b[31m",
    ]
    assert {len(line) for line in printed.lines(headings, rows, width=20)} == {20}
    assert printed.lines(headings, [], titles=False) == []


# ps


@pytest.mark.parametrize(
    "words", ["aux", "-aux", "ax", "-ax", "-a -u -x", "-A", "auxww", "-ax -o pid,comm", "-p1", "1 2"]
)
def test_ps_understands(words: str) -> None:
    assert ps.parse(words.split(), ps._FORMATS).columns


@pytest.mark.parametrize(
    "words", ["-ef", "auxf", "-e", "--forest", "-o", "-o nonsense", "-p x", "-p", "aux root", "-u root"]
)
def test_ps_leaves_the_rest_to_others(words: str) -> None:
    with pytest.raises(UsageError):
        ps.parse(words.split(), ps._FORMATS)


def test_ps_formats() -> None:
    def titles(words: str) -> str:
        return " ".join(title.strip() for title, _ in ps.parse(words.split(), ps._FORMATS).columns)

    assert titles("aux") == "USER PID %CPU %MEM VSZ RSS TT STAT STARTED TIME COMMAND"
    assert titles("ax") == "PID TT STAT TIME COMMAND"
    assert titles("ax -O jid,jail") == "PID JID JAIL TT STAT TIME COMMAND"
    assert titles("-o pid,user=WHO") == "PID WHO"
    assert [title for title, _ in ps.parse(["-o", "pid="], ps._FORMATS).columns] == [""]
    assert ps.parse(["a", "-o", "pid,stat,lstart,pcpu,pmem,args"], ps._FORMATS).everybody


def test_ps_by_descent(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def family(*pairs: tuple[int, int]) -> list[Process]:
        return [replace(made(), pid=pid, parent=parent) for pid, parent in pairs]

    def told(*pairs: tuple[int, int]) -> list[tuple[int, str]]:
        return [(known.pid, front) for known, front in by_descent(family(*pairs))]

    # The parent of 8 is not shown; the last one's parent comes behind it.
    assert told((1, 0), (2, 1), (3, 2), (4, 1), (5, 2), (6, 3), (7, 4), (8, 77), (9, 10), (10, 6)) == [
        (1, ""), (2, "- "), (3, "|-- "), (6, "| `-- "), (10, "|   `-- "), (9, "|     `-- "), (5, "`-- "),
        (4, "- "), (7, "`-- "), (8, ""),
    ]  # fmt: skip
    assert told((5, 6), (6, 5), (7, 7)) == [(5, ""), (6, "- "), (7, "")]  # pids that were taken anew meanwhile
    many = told(*[(pid, pid - 1) for pid in range(1, 20000)])
    assert [pid for pid, _ in many] == list(range(1, 20000))
    assert max(len(front) for _, front in many) < 140  # and not as many as there are generations

    monkeypatch.setattr(ps, "processes", lambda: iter(family((1, 0), (2, 1), (3, 2))))

    def shown(words: str) -> list[str]:
        assert ps.shim(words.split()) == 0
        return [line.rstrip() for line in capfd.readouterr().out.splitlines()[1:]]

    assert shown("-axd -o pid,command") == ["  1 sh", "  2 - sh", "  3 `-- sh"]
    assert shown("-axdc -o pid,comm") == shown("axd -o pid,ucomm") == shown("axd -o pid,command")
    assert shown("axd -o command,ppid") == ["sh         0", "sh         1", "sh         2"]  # in the last column alone
    assert shown("axd -o args") == ["sh", "sh", "sh"]


def test_every_keyword_prints_something() -> None:
    found, known = process.read(os.getpid()), jails.Jails()
    assert found is not None
    for name in columns.keywords():
        assert columns.column(name).cell(found, known)
    with pytest.raises(JailError, match="nonsense: keyword not found"):
        columns.column("nonsense")


# sockets

_TCP = b"""\
   0: 020AA8C0:0015 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 8792954 1 0 100 0 0 10 0
   1: 020AA8C0:0015 2100000A:C350 01 00000005:00000007 00:00000000 00000000     0        0 77 1 0 100 0 0 10 0
   2: 020AA8C0:0015 2100000A:C351 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0
 cut short
"""
_TCP6 = b"""\
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 5 1 0
   1: 0000000000000000FFFF0000020AA8C0:0016 0000000000000000FFFF00002100000A:C350 08 0:0 00:0 0 0 0 6 1 0
   2: 00000000000000000000000001000000:0019 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 7 1 0
"""
_UNIX = b"""\
0000000000000000: 00000002 00000000 00010000 0001 01 11 /run/log
0000000000000000: 00000003 00000000 00000000 0001 03 12
0000000000000000: 00000002 00000000 00000000 0002 01 13 @abstract name
0000000000000000: 00000002 00000000 00000000 0005 01 14 /tmp/x\x1b]0;y
something else
"""


def test_internet_sockets_are_read() -> None:
    listener, connected, waiting = sockets.inet(_TCP, "tcp", "4", 3)
    cell = End("192.168.10.2", 21)
    assert listener == Socket("tcp", "4", 8792954, 3, cell, End(), "LISTEN", accepting=True)
    assert connected == Socket("tcp", "4", 77, 3, cell, End("10.0.0.33", 50000), "ESTABLISHED", 7, 5)
    assert (waiting.inode, waiting.state) == (0, "TIME_WAIT")
    six = sockets.inet(_TCP6, "tcp", "6", 0)
    assert [found.version for found in six] == ["6", "4", "6"]
    assert [found.local for found in six] == [End("", 22), End("192.168.10.2", 22), End("::1", 25)]
    assert six[1].state == "CLOSE_WAIT"
    both = sockets.inet(_TCP6, "tcp", "6", 0, {5})
    assert [found.version for found in both] == ["46", "4", "6"]
    assert [[found.is_of(frozenset(one)) for found in both] for one in (("4",), ("6", ""), ("",))] == [
        [True, True, False], [True, False, True], [False] * 3,
    ]  # fmt: skip
    assert Socket("stream", "", 11, 0).is_of(frozenset(("4", "")))


def test_sockets_of_the_unix_domain_as_sock_diag_has_them() -> None:
    def answer(kind: int, state: int, inode: int, name: bytes) -> Socket:
        body = struct.pack("BBBxIII", 1, kind, state, inode, 0, 0) + (attribute(0, name) if name else b"")
        return sockets._diagnosed(sockdiag.Unix.read(body), 3)

    assert answer(1, 10, 7, b"/run/x\ny\0") == Socket("stream", "", 7, 3, path="/run/x\ny", accepting=True)
    assert answer(2, 7, 8, b"\0a\0\xff\0") == Socket("dgram", "", 8, 3, path="@a@\udcff@")
    assert answer(5, 1, 9, b"") == Socket("seqpac", "", 9, 3, connected=True)


def test_sockets_of_the_unix_domain_are_read() -> None:
    found = sockets.unix_domain(_UNIX, 0)
    assert [(known.protocol, known.inode, known.accepting, known.connected) for known in found] == [
        ("stream", 11, True, False), ("stream", 12, False, True), ("dgram", 13, False, False),
        ("seqpac", 14, False, False),
    ]  # fmt: skip
    assert [known.path for known in found] == ["/run/log", "", "@abstract name", "/tmp/x\x1b]0;y"]


def test_a_socket_of_no_address_is_at_the_jails_only_one() -> None:
    record = Record(7)
    record.params = {"ip4.addr": "192.0.2.1", "ip6.addr": "2001:db8::1,2001:db8::2"}
    assert sockets._addresses(record) == {"4": "192.0.2.1"}
    assert sockets._addresses(None) == {}


def test_a_jail_cannot_invent_sockets_of_others() -> None:
    """The path of a socket may hold a newline, and then what looks like a line of the table."""
    forged = b"0: 00000002 00000000 00010000 0001 01 20 /tmp/x\n0: 00000002 00000000 00010000 0001 01 11 /run/dbus\n"
    forged += b"0: 00000002 00000000 00010000 0001 01 99 /run/other\n"
    listed = [*sockets.unix_domain(_UNIX, 0), *sockets.unix_domain(forged, 7)]
    other, host, own = Holder(made(), 8, 3), Holder(made(), 0, 4), Holder(made(), 7, 5)
    told = list(sockets.believed(listed, {11: [host, own], 99: [other], 20: [own]}))
    assert [(found.path, who) for found, who in told if found.inode in (11, 99, 20)] == [
        ("/run/log", [host, own]), ("/tmp/x", [own]), ("/run/other", []),
    ]  # fmt: skip
    nobodys = [replace(listed[0], inode=0)] * 2
    assert [found for found, _ in sockets.believed(nobodys, {})] == nobodys


def test_of_a_jails_descriptors_so_many_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have as many as it likes, shared by thousands of processes."""
    monkeypatch.setattr(process, "pids", lambda: [os.getpid()] * 3)
    monkeypatch.setattr(sockets, "DESCRIPTORS", 40)
    with ExitStack() as stack:
        made = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(30)]
        inodes = {os.fstat(one.fileno()).st_ino for one in made}
        for jid in (0, 7):
            monkeypatch.setattr(sockets, "membership", lambda _, jid=jid: (jid, False))
            beyond: set[int] = set()
            held = sockets.holders(beyond)
            if jid == 0:
                assert sum(len(held[inode]) for inode in inodes) == 90
            else:  # of all that this process has
                assert sum(map(len, held.values())) <= 40
            assert beyond == ({jid} if jid else set())
    assert len(process.descriptors(os.getpid(), 3)) == 3
    assert process.descriptors(4_194_304) == []


def test_netstat_prints_the_articles_lines() -> None:
    found = sockets.inet(_TCP, "tcp", "4", 3) + sockets.inet(_TCP6, "tcp", "6", 0) + sockets.unix_domain(_UNIX, 0)
    lines = netstat.table(found, netstat.parse(["-an"]))
    assert lines[:5] == [
        "Active Internet connections (including servers)",
        "Proto Recv-Q Send-Q  Local Address          Foreign Address        (state)",
        "tcp4       0      0  192.168.10.2.21        *.*                    LISTEN",
        "tcp4       7      5  192.168.10.2.21        10.0.0.33.50000        ESTABLISHED",
        "tcp4       0      0  192.168.10.2.21        10.0.0.33.50001        TIME_WAIT",
    ]
    assert lines[8:11] == [
        "Active UNIX domain sockets",
        " Address Type   Recv-Q Send-Q    Inode     Conn     Refs  Nextref Addr",
        "       b stream      0      0        0        0        0        0 /run/log",
    ]
    assert lines[-1].endswith(" /tmp/x\\x1b]0;y")
    assert not [line for line in netstat.table(found, netstat.parse(["-n"])) if "LISTEN" in line]


def test_netstat_has_a_line_of_the_terminals_for_each(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is longer would go on where the next row begins, and look like one."""
    found = Socket("stream", "", 9, 3, path="/" + "x" * 90 + "tcp4       0      0  192.0.2.1.22  *.*  LISTEN")
    monkeypatch.setattr(netstat, "sockets", lambda jails, unix: [found])
    monkeypatch.setattr("jailng.ctl.listing.shown_width", lambda: 79)
    for word, longest in (("-an", 79), ("-anW", 200)):
        assert netstat.answer([word], None) == 0
        lines = capfd.readouterr().out.splitlines()
        assert (max(map(len, lines)) <= 79) is (longest == 79) and len(lines) == 3


def test_a_programs_name_is_one_word_of_sockstats() -> None:
    """Behind it stands the pid, which somebody may go by."""
    holder = Holder(replace(made(), comm="a 1 3 b\n", uids=(7, 7, 7, 7)), 3, 4)
    row = sockstat._row(Socket("stream", "", 9, 3, path="/x"), holder, sockstat.parse(["-n"]))
    assert " ".join(row).split()[:4] == ["7", "a\\x201\\x203\\x20b", "42", "4"]


@pytest.mark.parametrize("words", ["", "-a", "-anp", "-tulpn", "-an -p icmp", "-an -f atalk", "-an x"])
def test_netstat_leaves_the_rest_to_others(words: str) -> None:
    with pytest.raises(UsageError):
        netstat.parse(words.split())


def test_sockstat_selects() -> None:
    found = sockets.inet(_TCP, "tcp", "4", 3) + sockets.inet(_TCP6, "tcp", "6", 0) + sockets.unix_domain(_UNIX, 0)

    def count(words: str) -> int:
        return sum(sockstat.wanted(known, sockstat.parse(words.split())) for known in found)

    assert [count(words) for words in ("", "-4", "-6", "-u", "-l", "-c", "-4l", "-46c")] == [10, 4, 2, 4, 6, 4, 1, 3]
    assert [count(words) for words in ("-p 22 -4", "-p 20-22 -46", "-P udp", "-P tcp", "-6L")] == [1, 5, 0, 6, 1]


@pytest.mark.parametrize("words", ["-p x", "-p 5-", "-p 70000", "-p 9-1", "-P sctp", "-p -"])
def test_sockstat_refuses(words: str) -> None:
    if words == "-p 5-":
        assert max(sockstat.parse(words.split()).ports) == 65535
        return
    with pytest.raises(JailError):
        sockstat.parse(words.split())


# ifconfig, sysctl, and what is behind a shim


def test_ifconfig_describes_as_the_article_does() -> None:
    body = struct.pack("BxHiII", 0, 1, 4, 0x11043, 0)
    mac = bytes.fromhex("005004cc3ecc")
    body += attribute(3, b"ep0\0") + attribute(4, struct.pack("I", 1500)) + attribute(1, mac)
    address = rt.Address(4, bytes([10, 0, 0, 75]), 24, bytes([192, 70, 106, 255]))
    alias = rt.Address(4, bytes([192, 168, 10, 2]), 24, bytes([192, 168, 10, 255]))
    assert ifconfig.describe(rt.Interface(body), [address, alias]) == [
        "ep0: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> mtu 1500",
        "\tinet 10.0.0.75 netmask 0xffffff00 broadcast 192.70.106.255",
        "\tinet 192.168.10.2 netmask 0xffffff00 broadcast 192.168.10.255",
        "\tether 00:50:04:cc:3e:cc",
    ]


@given(st.integers(0, 32))
def test_netmasks(prefix: int) -> None:
    mask = (0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF
    for text in (f"{mask:#010x}", f"0X{mask:x}", ".".join(str(byte) for byte in mask.to_bytes(4, "big"))):
        (change,) = ifchange.parse(["alias", "192.0.2.1", "netmask", text])
        assert isinstance(change, ifchange.Change)
        assert change.prefix == prefix


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ("create", [("create", "")]),
        ("create vlan 10 vlandev em0 up", [("create", ""), ("vlan", "10"), ("vlandev", "em0"), ("up", "")]),
        ("addm epair0a addm em0 up", [("addm", "epair0a"), ("addm", "em0"), ("up", "")]),
        ("name jail0", [("name", "jail0")]),
        ("create mtu 1400 ether 2:0:0:0:0:1", [("create", ""), ("mtu", "1400"), ("ether", "2:0:0:0:0:1")]),
        ("vnet www", [("vnet", "www")]),
    ],
)
def test_words_of_ifconfig(words: str, steps: list[tuple[str, str]]) -> None:
    assert ifchange.parse(words.split()) == steps


def test_addresses_among_the_words_of_ifconfig() -> None:
    four, up, six = ifchange.parse("inet 192.0.2.1/24 up inet6 2001:db8::1 prefixlen 48 alias".split())
    assert four == ifchange.Change(bytes([192, 0, 2, 1]), 24, bytes([192, 0, 2, 255]), remove=False, replace=True)
    assert up == ("up", "")
    assert six == ifchange.Change(b"\x20\x01\x0d\xb8" + bytes(11) + b"\1", 48, b"", remove=False)
    (gone,) = ifchange.parse("inet6 2001:db8::1/64 delete".split())
    assert isinstance(gone, ifchange.Change)
    assert gone.remove


@pytest.mark.parametrize("words", ["mtu 1400", "hw ether 02:00:00:00:00:01", "192.0.2.1", "192.0.2.1 up", "addm", "-x"])
def test_what_is_the_hosts_own_ifconfigs(words: str) -> None:
    with pytest.raises(UsageError):
        ifchange.parse(words.split())


def test_behind_a_shim(tmp_path: Path) -> None:
    for name in ("shims", "more", "real", "notx"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ps").write_text("")
        (tmp_path / name / "ps").chmod(0o644 if name == "notx" else 0o755)
    (tmp_path / "same").symlink_to("shims")
    script = str(tmp_path / "shims/ps")

    def after(*names: str) -> str | None:
        found = shim.behind(script, ":".join(str(tmp_path / name) for name in names))
        return found and str(Path(found).parent.name)

    assert after("shims", "real") == "real"
    assert after("more", "shims", "real") == "real"  # "more" comes before, and may be what called us
    assert after("shims", "same", "notx", "nowhere", "real") == "real"
    assert after("real") == "real"
    assert after("shims", "same") is None
