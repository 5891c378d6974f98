"""pgrep, pkill and killall with -j: in which jail a process is, and all else as the host's own has it. service -j."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kernel.conftest import Command, Shim

Started = Callable[..., int]
WANTED = f"wanted{os.getpid()}"  # which no other run of these tests has on the same host


@pytest.fixture
def jails(jail: Command, small_root: Path) -> Iterator[dict[str, str]]:
    """Two jails, by name: their jids. One of them is called as nobody should be."""
    names = ["cell", 'it"s $(odd) \\x1b; rm'.replace(" ", "_")]
    jids = {}
    for name in names:
        made = jail("-i", "-c", f"name={name}", f"path={small_root}", "persist")
        assert (made.returncode, made.stderr) == (0, "")
        jids[name] = made.stdout.strip()
    yield jids
    for name in names:
        jail("-r", name)


@pytest.fixture
def started(checkout: Path) -> Iterator[Started]:
    """Starts a process of that name, in a jail or on the host, that lives until it is told; its pid on the host."""
    running: list[tuple[subprocess.Popen[bytes], int]] = []

    def start(name: str, jail: str = "") -> int:
        # A name by prctl(2), which may hold anything: sh writes it to its own /proc.
        script = 'printf %s "$0" > /proc/$$/comm; echo up; read word'
        argv = ["sh", "-c", script, name]
        if jail:
            argv = [str(checkout / "bin/jexec"), jail, *argv]
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        pid = int(children[-1]) if jail else child.pid
        running.append((child, os.pidfd_open(pid)))
        return pid

    yield start
    for child, pidfd in running:
        if not select.select([pidfd], [], [], 0)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        child.communicate()


def lives(pid: int) -> bool:
    return (
        "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2] if Path(f"/proc/{pid}").exists() else False
    )


def pids(done: subprocess.CompletedProcess[str]) -> list[int]:
    assert done.stderr == ""
    return [int(word) for word in done.stdout.split()]


def test_pgrep_says_who_is_where(shim: Shim, jails: dict[str, str], started: Started) -> None:
    odd = next(name for name in jails if name != "cell")
    here, one, two, other = (
        started(WANTED),
        started(WANTED, "cell"),
        started(WANTED, odd),
        started("other", "cell"),
    )
    assert pids(shim("pgrep", "-j", "none", WANTED)) == [here]
    assert pids(shim("pgrep", "-j", "any", WANTED)) == sorted([one, two])
    assert pids(shim("pgrep", "-j", "0", WANTED)) == sorted([one, two])
    assert pids(shim("pgrep", "-j", "cell", WANTED)) == [one]
    assert pids(shim("pgrep", "-j", odd, WANTED)) == [two]
    assert pids(shim("pgrep", "-j", jails[odd], WANTED)) == [two]
    assert pids(shim("pgrep", "-j", f"{jails['cell']},{odd}", WANTED)) == sorted([one, two])
    assert pids(shim("pgrep", "-j", "cell", "-j", odd, WANTED)) == sorted([one, two])
    assert pids(shim("pgrep", "-j", "none,cell", WANTED)) == sorted([here, one])
    assert pids(shim("pgrep", "-j", "cell")) == sorted([one, other])
    others = pids(shim("pgrep", "-j", "cell", "-v", WANTED))  # who is in another jail, or in none, or called otherwise
    assert {here, two, other} <= set(others)
    assert not {one, os.getpid()} & set(others)
    assert pids(shim("pgrep", "-j", "cell", "-n")) == [other]
    assert pids(shim("pgrep", "-j", "cell", "-o")) == [one]
    assert pids(shim("pgrep", WANTED, "-j", "cell", "-x")) == [one]
    assert pids(shim("pgrep", "-j", "cell", WANTED, "other")) == sorted([one, other])  # FreeBSD's takes several
    assert pids(shim("pgrep", "-j", "any", "-P", str(os.getpid()))) == []
    assert pids(shim("pgrep", "-j", "none", "-P", str(os.getpid()), "-f", WANTED)) == [here]


def test_what_stands_for_a_jails_process_is_not_of_the_host(
    shim: Shim, jails: dict[str, str], started: Started
) -> None:
    """On FreeBSD jexec becomes it. Killed as a process of the host's, it would take the jail's with it."""
    pid = started(WANTED, "cell")
    assert pids(shim("pgrep", "-f", "-j", "none", WANTED)) == []
    assert pids(shim("pgrep", "-f", "-j", "any", WANTED)) == [pid]
    done = shim("pkill", "-f", "-j", "none", WANTED)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 1)
    assert lives(pid)


def test_pgrep_by_the_users_of_a_jail(shim: Shim, jails: dict[str, str], started: Started) -> None:
    """To the host they have other numbers."""
    here, one = started(WANTED), started(WANTED, "cell")
    for letter in ("-u", "-U", "-G"):
        for user in ("root", "0", "0,33", str(os.stat(f"/proc/{one}").st_uid)):
            assert pids(shim("pgrep", "-j", "cell", letter, user, WANTED)) == [one]
        assert pids(shim("pgrep", "-j", "none,any", letter, "root", WANTED)) == sorted([here, one])
        assert pids(shim("pgrep", "-j", "none", letter, "0", WANTED)) == [here]
        for user in ("33", "70000"):
            assert shim("pgrep", "-j", "any", letter, user, WANTED).returncode == 1
    assert shim("pgrep", "-j", "cell", "-u", "nobody-at-all", "x").stderr == "pgrep: invalid user name: nobody-at-all\n"


def test_pgrep_lists_as_the_hosts_own(shim: Shim, started: Started, jails: dict[str, str]) -> None:
    """Where all that match are the host's, -j none is as without it."""
    started(WANTED)
    started(WANTED)
    for words in (
        "-l",
        "-a",
        "-c",
        "-d,",
        "-d , -l",
        "-n",
        "-o",
        "-lx",
        "--count",
        "--delimiter=:",
        "-la",
        "-i",
    ):
        ours, real = [shim("pgrep", *jail, *words.split(" "), WANTED) for jail in (("-j", "none"), ())]
        assert (ours.stdout, ours.stderr, ours.returncode) == (real.stdout, real.stderr, real.returncode), words
        assert ours.stdout
    quiet = shim("pgrep", "-q", "-j", "none", WANTED)
    assert (quiet.stdout, quiet.stderr, quiet.returncode) == ("", "", 0)
    assert shim("pgrep", "-q", "-j", "cell", WANTED).returncode == 1
    assert (shim("pgrep", "-c", "-j", "cell", WANTED).stdout, shim("pgrep", "-cj", "cell", "x").returncode) == (
        "0\n",
        1,
    )


@pytest.mark.parametrize(
    ("words", "complaint", "status"),
    [
        ("pgrep -j nowhere x", "pgrep: Invalid jail ID or name `nowhere'\n", 2),
        ("pkill -j no\x1bwhere x", "pkill: Invalid jail ID or name `no\\x1bwhere'\n", 2),
        ("pgrep -j -3 x", "pgrep: Negative jail ID `-3'\n", 2),
        ("pgrep -j any -n -o x", "pgrep: Options -n and -o are mutually exclusive\n", 3),
        ("pgrep -j any -v -n x", "pgrep: -v and -n exclude each other\n", 2),
        ("pgrep -j 999999 x", "", 1),
        ("pgrep -j any -G nogroup-at-all x", "pgrep: invalid group name: nogroup-at-all\n", 2),
        ("pkill -j any -G nogroup-at-all x", "pkill: invalid group name: nogroup-at-all\n", 2),
        ("pkill -j any --signal NONE x", 'pkill: Unknown signal "NONE".\n', 2),
        ("killall -j nowhere", 'killall: jail "nowhere" not found\n', 1),
        ("killall -j 999999", "killall: jail_attach(999999): Invalid argument\n", 1),
        ("killall -j", "killall: must specify jail\n", 1),
        ("killall -j cell nothing", "No matching processes were found\n", 1),
        ("killall -j cell -q nothing", "", 1),
        ("killall -j cell -u nobody-there", "killall: user nobody-there does not exist\n", 1),
        ("killall -j cell -m (", "killall: (: illegal regexp\n", 1),
    ],
)
def test_complaints(shim: Shim, jails: dict[str, str], words: str, complaint: str, status: int) -> None:
    done = shim(*words.split(" "))
    assert (done.stdout, done.stderr, done.returncode) == ("", complaint, status)


def test_usages(shim: Shim, jails: dict[str, str]) -> None:
    for words in (("-j", "any,", "x"), ("-j", "", "x"), ("-jany", "-M", "x"), ("-j",)):
        done = shim("pgrep", *words)
        assert (done.stdout, done.returncode) == ("", 2), words
        assert "usage: pgrep -j jail" in done.stderr
    wrong = shim("killall", "-NONE", "-j", "cell")
    assert wrong.stderr.startswith("killall: unknown signal NONE; valid signals:\nHUP INT QUIT ")
    assert wrong.returncode == 1


def test_pkill_kills_in_the_jail_alone(shim: Shim, jails: dict[str, str], started: Started) -> None:
    here, one, other = started("wanted"), started("wanted", "cell"), started("other", "cell")
    with ExitStack() as held:
        ends = os.pidfd_open(one)
        held.callback(os.close, ends)
        listed = shim("pkill", "-0", "-l", "-j", "cell", "wanted")
        assert (listed.stdout, listed.stderr, listed.returncode) == (f"kill -0 {one}\n", "", 0)
        handled = shim("pkill", "-0", "-H", "-j", "cell", "wanted")  # which is no signal that one could catch
        assert (handled.stdout, handled.stderr, handled.returncode) == ("", "", 1)
        asked = shim("pkill", "-I", "-j", "cell", "wanted", stdin="n\n")
        assert (asked.stdout, asked.returncode) == (f"kill {one} wanted? ", 0)
        assert not select.select([ends], [], [], 0)[0]
        done = shim("pkill", "-e", "-KILL", "-j", "cell", "wanted")
        assert (done.stdout, done.stderr, done.returncode) == (f"wanted killed (pid {one})\n", "", 0)
        assert select.select([ends], [], [], 30)[0]
    assert lives(here)
    assert lives(other)
    assert shim("pkill", "-j", "cell", "wanted").returncode == 1
    nobody = shim("pkill", "-l", "-j", "cell", "wanted")
    assert (nobody.stderr, nobody.returncode) == ("No matching processes belonging to you were found\n", 1)


def test_killall(shim: Shim, jails: dict[str, str], started: Started, small_root: Path) -> None:
    odd = next(name for name in jails if name != "cell")
    here, one, other, elsewhere = (
        started("wanted"),
        started("wanted", "cell"),
        started("other", "cell"),
        started("wanted", odd),
    )
    shown = shim("killall", "-s", "-j", "cell", "wanted")
    assert (shown.stdout, shown.stderr, shown.returncode) == (f"kill -TERM {one}\n", "", 0)
    assert sorted(shim("killall", "-s", "-9", "-j", "cell").stdout.splitlines()) == sorted(
        [f"kill -KILL {one}", f"kill -KILL {other}"]
    )
    assert shim("killall", "-s", "-m", "-j", "cell", "^oth").stdout == f"kill -TERM {other}\n"
    assert shim("killall", "-s", "-j", "cell", "-c", "other").stdout == f"kill -TERM {other}\n"
    assert shim("killall", "-s", "-j", "cell", "-u", "0", "wanted").stdout == f"kill -TERM {one}\n"
    assert shim("killall", "-s", "-j", "cell", "-u", "1001", "wanted").returncode == 1
    (small_root / "etc/passwd").write_text("boss:x:0:0:boss:/:/bin/sh\n")
    assert shim("killall", "-s", "-j", "cell", "-u", "boss", "wanted").stdout == f"kill -TERM {one}\n"
    pidfds = [os.pidfd_open(pid) for pid in (one, other)]
    done = shim("killall", f"-j{jails['cell']}", "-v", "-SIGKILL")
    assert (sorted(done.stdout.split()[2::3]), done.stderr, done.returncode) == (sorted([str(one), str(other)]), "", 0)
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], 30)[0]
        os.close(pidfd)
    assert lives(here)
    assert lives(elsewhere)


def test_names_that_the_kernel_cuts(shim: Shim, jails: dict[str, str], started: Started) -> None:
    one, other = started("longish-daemon-1", "cell"), started("longish-daemon-2", "cell")
    assert shim("killall", "-s", "-j", "cell", "longish-daemon-1").stdout == f"kill -TERM {one}\n"
    assert shim("killall", "-s", "-j", "cell", "longish-daemon-2").stdout == f"kill -TERM {other}\n"
    assert shim("killall", "-s", "-j", "cell", "longish-daemon-3").returncode == 1


def test_a_hostile_name_is_shown_with_escapes(shim: Shim, jails: dict[str, str], started: Started) -> None:
    """One that a listing would take for another process, or a terminal for an order."""
    name = "x\n1 init\x1b[2J"
    pid = started(name, "cell")
    assert shim("pgrep", "-l", "-j", "cell").stdout == f"{pid} x\\x0a1 init\\x1b[2J\n"
    assert pids(shim("pgrep", "-j", "cell")) == [pid]
    assert pids(shim("pgrep", "-j", "cell", "^1")) == []
    assert shim("pgrep", "-a", "-j", "cell").stdout.count("\n") == 1
    assert (
        shim("killall", "-d", "-j", "cell").stdout.splitlines()[1].startswith("sig:15, cmd:x\\x0a1 init\\x1b[2J, pid:")
    )
    assert shim("pkill", "-e", "-0", "-j", "cell").stdout == f"x\\x0a1 init\\x1b[2J killed (pid {pid})\n"


def test_who_may_not_signal(shim: Shim, jails: dict[str, str], started: Started, public: Path) -> None:
    pid = started("wanted", "cell")
    bare = "PATH=/usr/bin:/bin exec setpriv --reuid=65534 --regid=65534 --clear-groups --"

    def nobody(words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", "-c", f"{bare} {public}/shims/{words}"], capture_output=True, text=True)

    assert nobody("pgrep -j cell wanted").stdout == f"{pid}\n"
    done = nobody("pkill -j cell wanted")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr == f"pkill: signalling pid {pid}: Operation not permitted\n"
    done = nobody("killall -j cell wanted")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr == f"killall: jail_attach({jails['cell']}): Operation not permitted\n"


def test_a_thousand_processes_that_come_and_go(shim: Shim, jails: dict[str, str], checkout: Path) -> None:
    """None is left, none is complained of, and nothing else is hit."""
    script = "for i in $(seq 1000); do sleep 1000 & done; echo; while :; do (:); done"
    churning = subprocess.Popen([checkout / "bin/jexec", "cell", "sh", "-c", script], stdout=subprocess.PIPE)
    assert churning.stdout is not None
    churning.stdout.readline()
    try:
        found = shim("pgrep", "-c", "-j", "cell", "-x", "sleep")
        for _ in range(100):  # some have been born, and are the shell still
            if found.stdout == "1000\n":
                break
            found = shim("pgrep", "-c", "-j", "cell", "-x", "sleep")
        assert (found.stdout, found.stderr) == ("1000\n", "")
        done = shim("pkill", "-KILL", "-j", "cell", "-x", "sleep")
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
        done = shim("pkill", "-KILL", "-j", "cell")
        assert (done.stderr, done.returncode) == ("", 0)
    finally:
        churning.kill()
        churning.communicate()


def test_service_runs_the_jails_own(shim: Shim, jails: dict[str, str], small_root: Path) -> None:
    (small_root / "usr/sbin").mkdir(parents=True, exist_ok=True)
    program = small_root / "usr/sbin/service"
    program.write_text('#!/bin/sh\necho "$# $*"; echo "$HOME" >&2; exit 7\n')
    program.chmod(0o755)
    for words, seen in (
        (("-j", "cell", "sshd", "restart"), "2 sshd restart"),
        (("-v", "-j", jails["cell"], "sshd", "one word"), "3 -v sshd one word"),
        (("-jcell", "-e"), "1 -e"),
        (("-vRrj", "cell"), "3 -r -R -v"),
        (("-j", "cell", "sshd", "-j", "x"), "3 sshd -j x"),
    ):
        done = shim("service", *words)
        assert (done.stdout, done.stderr, done.returncode) == (f"{seen}\n", "/root\n", 7), words
    none = shim("service", "-j", "cell", "-l")
    assert (none.stdout, none.stderr, none.returncode) == ("", "", 0)
    scripts = small_root / "etc/init.d"
    scripts.mkdir(parents=True)
    for name, mode in (("cron", 0o755), ("README", 0o644)):
        (scripts / name).touch()
        (scripts / name).chmod(mode)
    assert shim("service", "-v", "-j", "cell", "-l").stdout == "From /etc/init.d:\ncron\n"
    missing = shim("service", "-j", "nowhere", "sshd", "start")
    assert (missing.stdout, missing.stderr, missing.returncode) == ("", 'jexec: jail "nowhere" not found\n', 1)
    assert shim("service", "-j", "-n", "sshd", "start").stderr == 'jexec: jail "-n" not found\n'


def test_service_tells_which_scripts_start_with_the_machine(shim: Shim, etc: Path) -> None:
    """The jails' is one of them where jail_enable says so, as Salt asks."""
    for level, names in (("rcS.d", ("S02udev", "S01kmod")), ("rc2.d", ("S01ssh", "S01jail", "K01cron"))):
        shutil.rmtree(etc / level, ignore_errors=True)
        (etc / level).mkdir()
        for name in names:
            (etc / level / name).symlink_to(f"../init.d/{name[3:]}")
    for enable, also in (("NO", []), ("YES", ["/etc/init.d/jail"])):
        (etc / "default/jail").write_text(f"jail_enable={enable}\n")
        done = shim("service", "-e")
        assert (done.stderr, done.returncode) == ("", 0)
        assert done.stdout.split() == ["/etc/init.d/kmod", "/etc/init.d/udev", *also, "/etc/init.d/ssh"]
