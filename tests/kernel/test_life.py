"""A jail's life: when it begins, what is done on the way, and that it lasts as long as a process is left in it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace, ip, run
from tests.kernel.stage import Stage, mount, unmount

LEAVES_ONE_BEHIND = "sleep 1000 >/dev/null 2>&1 </dev/null &"
Members = Callable[[], list[int]]


@pytest.fixture
def members(stage: Stage) -> Members:
    """The pids of all that are in a jail."""

    def found() -> list[int]:
        files = stage.cgroup2.glob("jailng/*/members/cgroup.procs")
        return [int(pid) for path in files for pid in path.read_text().split()]

    return found


def _end(pid: int, number: int = signal.SIGKILL) -> None:
    """Returns when it has ended."""
    pidfd = os.pidfd_open(pid)
    os.kill(pid, number)
    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)


def _comes_true(done: Callable[[], bool]) -> bool:
    """Whether it does. What it asks is the kernel's or another command's state, of which nobody tells."""
    until = time.monotonic() + 60
    while not done():
        if time.monotonic() > until:
            return False
    return True


def _ok(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


# As long as a process is left


def test_command_ends_and_so_does_the_jail(jail: Command, jls: Command, small_root: Path) -> None:
    assert _ok(jail("-c", "name=a", f"path={small_root}", "command=echo", "hello")) == "hello\n"
    assert jls("name").stdout == ""


def test_host_root_leaves_nothing(jail: Command) -> None:
    assert _ok(jail("-c", "path=/", "command=/bin/true")) == ""


def test_daemon_keeps_the_jail(jail: Command, jls: Command, lan: Namespace, small_root: Path, members: Members) -> None:
    """With no command run the host's routes and network know nothing of the jail soon after its end."""
    route = ("ip", "-o", "route", "show", "table", "local", "198.51.100.10")
    create = ("-c", "name=a", f"path={small_root}", "interface=ep0", "ip4.addr=198.51.100.10/24")
    _ok(jail(*create, "command=sh", "-c", LEAVES_ONE_BEHIND))
    assert jls("name").stdout == "a\n"
    assert "jng" in run(*route)
    (daemon,) = members()
    _end(daemon)
    assert _comes_true(lambda: not list(Path("/proc/sys/net/ipv4/conf").glob("jng*")))
    assert "jng" not in run(*route)
    assert _comes_true(lambda: jls("name").stdout == "")
    jail("-c", "path=/", "command=/bin/true")  # any next command takes its record, and its alias


def test_next_daemon_keeps_it(jail: Command, jexec: Command, jls: Command, small_root: Path, members: Members) -> None:
    _ok(jail("-c", "name=a", f"path={small_root}", "command=sh", "-c", LEAVES_ONE_BEHIND))
    (first,) = members()
    _ok(jexec("a", "sh", "-c", LEAVES_ONE_BEHIND))
    (second,) = set(members()) - {first}
    _end(first)
    assert jls("name").stdout == "a\n"
    _end(second)
    assert _comes_true(lambda: jls("name").stdout == "")
    jail("-c", "path=/", "command=/bin/true")


def test_a_command_in_the_background_ends_and_so_does_the_jail_though_nobody_reaps_it(
    unreaped: None, jail: Command, jls: Command, small_root: Path, tmp_path: Path, members: Members
) -> None:
    log = f"exec.consolelog={tmp_path}/log"  # else it has the pipe that is read to its end here
    _ok(jail("-c", "name=a", f"path={small_root}", "exec.start=sleep 1000 &", log))
    (pid,) = members()
    _end(pid)
    assert _comes_true(lambda: jls("-c", "-j", "a").returncode == 1)
    _ok(jail("-c", "name=a", f"path={small_root}", "command=true"))


@pytest.mark.parametrize("hidden", ["noaccess", "invisible"])
def test_whoever_sees_no_process_of_others_sees_the_jail(
    jail: Command, jls: Command, small_root: Path, public: Path, hidden: str
) -> None:
    _ok(jail("-c", "name=a", f"path={small_root}", "command=sh", "-c", LEAVES_ONE_BEHIND))
    mount("proc", "/proc", "proc", 0, f"hidepid={hidden}")
    try:
        listed = run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", f"{public}/bin/jls", "name")
    finally:
        unmount("/proc")
        jail("-R", "a")
    assert listed == "a\n"


def test_persist_survives_its_last_process(jail: Command, jls: Command, small_root: Path, members: Members) -> None:
    _ok(jail("-c", "name=a", f"path={small_root}", "persist", "command=sh", "-c", LEAVES_ONE_BEHIND))
    (daemon,) = members()
    _end(daemon)
    assert jls("name").stdout == "a\n"
    _ok(jail("-r", "a"))


def test_nopersist_ends_an_empty_jail_at_once(jail: Command, jls: Command, small_root: Path) -> None:
    _ok(jail("-c", "name=a", f"path={small_root}", "persist"))
    _ok(jail("-m", "name=a", "nopersist"))
    assert jls("name").stdout == ""


def test_nopersist_of_one_that_is_lived_in(jail: Command, jls: Command, small_root: Path, members: Members) -> None:
    _ok(jail("-c", "name=a", f"path={small_root}", "persist", "command=sh", "-c", LEAVES_ONE_BEHIND))
    _ok(jail("-m", "name=a", "nopersist"))
    assert jls("name", "persist").stdout == "a false\n"
    (daemon,) = members()
    _end(daemon)
    assert _comes_true(lambda: jls("name").stdout == "")
    jail("-c", "path=/", "command=/bin/true")


def test_persist_while_it_is_lived_in(jail: Command, jls: Command, small_root: Path, members: Members) -> None:
    _ok(jail("-c", "name=a", f"path={small_root}", "command=sh", "-c", LEAVES_ONE_BEHIND))
    _ok(jail("-m", "name=a", "persist"))
    (daemon,) = members()
    _end(daemon)
    assert jls("name", "persist").stdout == "a true\n"
    _ok(jail("-r", "a"))


def test_name_is_free_when_it_has_ended_by_itself(
    jail: Command, jls: Command, small_root: Path, members: Members
) -> None:
    create = ("-c", "name=a", "jid=7", f"path={small_root}", "command=sh", "-c", LEAVES_ONE_BEHIND)
    _ok(jail(*create))
    _end(*members())
    assert _comes_true(lambda: jls("name").stdout == "")
    _ok(jail(*create))
    _ok(jail("-r", "a"))


# jail -m


def test_modify(jail: Command, jls: Command, jexec: Command, small_root: Path) -> None:
    _ok(jail("-c", "name=a", f"path={small_root}", "host.hostname=one", "meta=x", "persist"))
    _ok(jail("-m", "name=a", "host.hostname=two", "meta=y z", "allow.raw_sockets"))
    shown = jls("-j", "a", "-nq", "host.hostname", "meta", "allow.raw_sockets").stdout
    inside = jexec("a", "hostname").stdout
    _ok(jail("-r", "a"))
    assert shown == 'host.hostname=two meta="y z" allow.raw_sockets\n'
    assert inside == "two\n"


def test_hostname_reaches_who_is_there(jail: Command, small_root: Path, members: Members) -> None:
    loop = "while read line; do hostname; done </tmp/ask >/tmp/said &"
    os.mkfifo(small_root / "tmp/ask")
    os.mkfifo(small_root / "tmp/said")
    for name in ("ask", "said"):
        (small_root / "tmp" / name).chmod(0o666)
    create = ("-c", "name=a", f"path={small_root}", "host.hostname=one")
    _ok(jail(*create, "command=sh", "-c", f"exec >/dev/null 2>&1; {loop}"))
    with open(small_root / "tmp/ask", "w") as ask, open(small_root / "tmp/said") as said:
        ask.write("\n")
        ask.flush()
        assert said.readline() == "one\n"
        _ok(jail("-m", "name=a", "host.hostname=two"))
        ask.write("\n")
        ask.flush()
        assert said.readline() == "two\n"
        _ok(jail("-r", "a"))


def test_allow_reaches_new_processes(jail: Command, jexec: Command, small_root: Path, members: Members) -> None:
    """CAP_NET_RAW (13) is in the bounding set of those only who come in afterwards."""

    def may(status: str) -> bool:
        (line,) = [line for line in status.splitlines() if line.startswith("CapBnd:")]
        return bool(int(line.split()[1], 16) >> 13 & 1)

    _ok(jail("-c", "name=a", f"path={small_root}", "command=sh", "-c", LEAVES_ONE_BEHIND))
    (before,) = members()
    _ok(jail("-m", "name=a", "allow.raw_sockets"))
    new = may(jexec("a", "cat", "/proc/self/status").stdout)
    old = may(Path(f"/proc/{before}/status").read_text())
    _ok(jail("-m", "name=a", "allow.noraw_sockets"))
    again = may(jexec("a", "cat", "/proc/self/status").stdout)
    _ok(jail("-r", "a"))
    assert (old, new, again) == (False, True, False)


def test_rename(jail: Command, jls: Command, jexec: Command, small_root: Path) -> None:
    _ok(jail("-c", "name=a", "jid=7", f"path={small_root}", "persist"))
    _ok(jail("-m", "jid=7", "name=b"))
    assert jls("jid", "name").stdout == "7 b\n"
    assert _ok(jexec("b", "echo", "hello")) == "hello\n"
    assert jexec("a", "true").returncode == 1
    _ok(jail("-c", "name=a", f"path={small_root}", "persist"))
    assert _ok(jail("-r", "a", "b")) == "b: removed\na: removed\n"


def test_create_or_modify(jail: Command, jls: Command, small_root: Path) -> None:
    for meta in ("first", "second"):
        _ok(jail("-cm", "name=a", f"path={small_root}", f"meta={meta}", "persist"))
        assert jls("-j", "a", "meta").stdout == f"{meta}\n"
    _ok(jail("-r", "a"))


def test_restart(jail: Command, jls: Command, small_root: Path) -> None:
    _ok(jail("-c", "name=a", f"path={small_root}", "persist"))
    first = jls("jid").stdout
    _ok(jail("-rc", "name=a", f"path={small_root}", "persist"))
    second = jls("jid").stdout
    _ok(jail("-r", "a"))
    assert first != second


# jids, and what the options print


def test_jids_are_not_reused_at_once(jail: Command, small_root: Path) -> None:
    jids = [int(_ok(jail("-i", "-c", f"path={small_root}", "command=true"))) for _ in range(3)]
    assert jids == [jids[0], jids[0] + 1, jids[0] + 2]


def test_jids_go_round(jail: Command, small_root: Path) -> None:
    """After the last comes the first that is free."""
    last = Path("/run/jailng/last")
    before = last.read_text() if last.exists() else "0     \n"
    _ok(jail("-c", "jid=1", f"path={small_root}", "persist"))
    last.write_text("999998\n")
    jids = [_ok(jail("-i", "-c", f"path={small_root}", "command=true")) for _ in range(2)]
    last.write_text(before)
    _ok(jail("-r", "1"))
    assert jids == ["999999\n", "2\n"]


def test_jid_of_choice(jail: Command, jls: Command, small_root: Path) -> None:
    assert _ok(jail("-i", "-c", "jid=4711", f"path={small_root}", "persist")) == "4711\n"
    assert jls("jid", "name").stdout == "4711 4711\n"
    assert _ok(jail("-r", "4711")) == ""


def test_jid_file(jail: Command, small_root: Path, tmp_path: Path) -> None:
    _ok(jail("-J", f"{tmp_path}/jid", "-c", "jid=7", "name=a", f"path={small_root}", "persist"))
    _ok(jail("-r", "a"))
    words = (tmp_path / "jid").read_text().rstrip("\n").split("\t")
    assert words[0] == "jid=7"
    assert {"name=a", f"path={small_root}"} <= set(words)


def test_jid_file_of_the_old_form(jail: Command, small_root: Path, tmp_path: Path) -> None:
    _ok(jail("-J", f"{tmp_path}/jid", str(small_root), "host", "", "echo", "-n", "x y"))
    assert (tmp_path / "jid").read_text().split("\t")[1:] == [str(small_root), "host", "", 'echo -n "x y"\n']


def test_quiet(jail: Command, small_root: Path) -> None:
    for name in ("a", "b"):
        _ok(jail("-q", "-c", f"name={name}", f"path={small_root}", "persist"))
    assert _ok(jail("-q", "-r", "a", "b")) == ""


def test_verbose(jail: Command, small_root: Path) -> None:
    create = ("-v", "-c", "jid=7", "name=a", f"path={small_root}", "exec.prestart=true", "exec.start=true")
    start = _ok(jail(*create, "persist")).splitlines()
    stop = _ok(jail("-v", "-r", "a")).splitlines()
    assert start[0] == "run command: true"
    assert start[1].startswith("jail_set(JAIL_CREATE) ")
    assert start[2:] == ["created", "run command in jail: true"]
    assert stop == ["a: removed"]


def test_verbose_of_one_that_does_not_persist(jail: Command, small_root: Path) -> None:
    said = _ok(jail("-v", "-c", "jid=7", f"path={small_root}", "command=true")).splitlines()
    assert said[-1] == "jail_set(JAIL_UPDATE) jid=7 nopersist"


def test_remove_all(jail: Command, jls: Command, small_root: Path) -> None:
    for name in ("a", "b"):
        _ok(jail("-c", f"name={name}", f"path={small_root}", "persist"))
    assert _ok(jail("-r", "*")) == "b: removed\na: removed\n"
    assert jls("name").stdout == ""
    assert _ok(jail("-r", "*")) == ""


# The article's form


@pytest.mark.parametrize(
    ("given", "inside"),
    [
        ("198.51.100.10", ["198.51.100.10"]),
        ("198.51.100.10,2001:db8:1::10,198.51.100.11", ["198.51.100.10", "198.51.100.11", "2001:db8:1::10"]),
    ],
)
def test_old_form(jail: Command, lan: Namespace, small_root: Path, given: str, inside: list[str]) -> None:
    for address in ("198.51.100.10/24", "198.51.100.11/24", "2001:db8:1::10/64"):
        ip(f"address add {address} dev ep0 {'nodad' if ':' in address else ''}")
    show = "hostname; ip -o address | sed 's/.*inet6* //; s,/.*,,' | grep -v -e ^127 -e ^::1 -e ^fe80"
    said = _ok(jail(str(small_root), "www.example.org", given, "/bin/sh", "-c", show)).split()
    assert said == ["www.example.org", *inside]


def test_old_form_without_address(jail: Command, small_root: Path) -> None:
    show = "ip -o address | grep -v -e ' 127' -e ' ::1/'; id -u"
    assert _ok(jail(str(small_root), "host", "", "/bin/sh", "-c", show)) == "0\n"


def test_old_form_with_name(jail: Command, jls: Command, jexec: Command, small_root: Path) -> None:
    _ok(jail("-n", "a", str(small_root), "host", "", "/bin/sh", "-c", LEAVES_ONE_BEHIND))
    assert jls("name", "host.hostname").stdout == "a host\n"
    _ok(jail("-r", "a"))


def test_old_form_wants_everything(jail: Command, small_root: Path) -> None:
    for words in ((str(small_root), "host", ""), ("relative", "host", "", "true"), (), ("a",)):
        done = jail(*words)
        assert done.returncode == 1
        assert done.stderr.startswith("usage: jail ")


def test_user_of_the_jail(jail: Command, jexec: Command, small_root: Path) -> None:
    show = ("/bin/sh", "-c", "id -u; id -g; id -G; echo $HOME $USER $SHELL")
    said = _ok(jail("-U", "alice", str(small_root), "host", "", *show))
    assert said == "1001\n1001\n1001 50\n/tmp alice /bin/sh\n"


def test_user_of_the_host(jail: Command, small_root: Path) -> None:
    """bin is in every Debian's passwd, with uid 2, and not in the jail's."""
    said = _ok(jail("-u", "bin", str(small_root), "host", "", "/bin/sh", "-c", "id -u; id -g"))
    assert said == "2\n2\n"
