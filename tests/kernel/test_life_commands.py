"""The commands on a jail's way, on the host and inside: order, environment, and what becomes of a failure."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.faults import STRIDE
from tests.kernel.leftovers import indexed
from tests.kernel.stage import Stage

LEAVES_ONE_BEHIND = "sleep 1000 >/dev/null 2>&1 </dev/null &"
STARTING = ("exec.prepare", "exec.prestart", "exec.created", "exec.start", "exec.poststart")
STOPPING = ("exec.prestop", "exec.stop", "exec.poststop", "exec.release")
_INSIDE = ("exec.start", "exec.stop")
ON_THE_HOST = "/bin:/usr/bin:/sbin:/usr/sbin:/usr/local/bin:/usr/local/sbin"


def _ok(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


@pytest.fixture
def log(small_root: Path) -> Path:
    """A file that commands on the host and inside can append to."""
    made = small_root / "tmp/log"
    made.touch()
    made.chmod(0o666)
    return made


def _hooks(log: Path) -> list[str]:
    """For each step two commands that write its name, numbered, into the log."""
    return [
        f"{step}=echo {step} {number} >>{'/tmp/log' if step in _INSIDE else log}"
        for step in (*STOPPING, *reversed(STARTING))  # their order in the call is not the one in which they run
        for number in (1, 2)
    ]


def test_order(jail: Command, small_root: Path, log: Path) -> None:
    _ok(
        jail(
            "-c", "name=a", f"path={small_root}", "persist", *_hooks(log), "command=sh", "-c", "echo command >>/tmp/log"
        )
    )
    started = log.read_text().splitlines()
    expected = [f"{step} {number}" for step in STARTING for number in (1, 2)]
    expected.insert(expected.index("exec.poststart 1"), "command")
    _ok(jail("-r", "a"))
    # Of a jail that no file tells of, jail -r knows no commands.
    assert (started, log.read_text().splitlines()[len(started) :]) == (expected, [])


@pytest.mark.parametrize("step", STARTING)
def test_failure_undoes(jail: Command, jls: Command, small_root: Path, log: Path, step: str) -> None:
    """What comes after it is not run, nor anything of stopping; the fixture sees to it that nothing is left."""
    hooks = [hook for hook in _hooks(log) if not hook.startswith(step)]
    done = jail("-c", "name=a", f"path={small_root}", "persist", *hooks, f"{step}=false")
    assert (done.stdout, done.stderr, done.returncode) == ("", "jail: false: failed\n", 1)
    before = STARTING[: STARTING.index(step)]
    assert log.read_text().splitlines() == [f"{name} {number}" for name in before for number in (1, 2)]
    assert jls("name").stdout == ""


def test_second_command_is_not_run_after_the_first_failed(jail: Command, small_root: Path, log: Path) -> None:
    done = jail("-c", f"path={small_root}", "exec.start=false", "exec.start=echo x >>/tmp/log")
    assert (done.stderr, done.returncode, log.read_text()) == ("jail: false: failed\n", 1, "")


def test_failed_start_ends_the_daemons_of_the_commands_before(jail: Command, small_root: Path) -> None:
    done = jail("-c", f"path={small_root}", f"exec.start={LEAVES_ONE_BEHIND}", "exec.start=false")
    assert (done.stderr, done.returncode) == ("jail: false: failed\n", 1)


def test_words_without_shell(jail: Command, small_root: Path) -> None:
    assert _ok(jail("-c", f"path={small_root}", "exec.start=echo  a   b=c")) == "a b=c\n"
    assert _ok(jail("-c", f"path={small_root}", 'exec.start=echo "a   b" | cat')) == "a   b\n"
    assert _ok(jail("-c", f"path={small_root}", "command=echo", "$HOME", "a   b")) == "$HOME a   b\n"


def test_timeout(jail: Command, small_root: Path) -> None:
    done = jail("-c", f"path={small_root}", "exec.timeout=1", "exec.start=sleep 1000", "persist")
    assert (done.stdout, done.stderr, done.returncode) == ("", "jail: sleep 1000: timed out\n", 1)


def test_timeout_on_the_host(jail: Command, small_root: Path, stage: Stage) -> None:
    """As on FreeBSD the command is not killed, only forgotten."""
    before = set(stage.processes())
    done = jail(
        "-c", f"path={small_root}", "exec.timeout=1", "exec.prestart=exec sleep 1000 >/dev/null 2>&1", "persist"
    )
    forgotten = set(stage.processes()) - before
    for pid in forgotten:
        os.kill(pid, signal.SIGKILL)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.endswith(": timed out\n")
    assert forgotten


def test_timeout_of_none(jail: Command, small_root: Path) -> None:
    assert _ok(jail("-c", f"path={small_root}", "exec.timeout=0", "exec.start=echo x")) == "x\n"


def test_console_log(jail: Command, small_root: Path, tmp_path: Path, stage: Stage) -> None:
    """It is appended to, and no process of the jail holds it."""
    log = tmp_path / "console"
    log.write_text("before\n")
    create = ("-c", "name=a", f"path={small_root}", f"exec.consolelog={log}", "exec.prestart=true")
    said = _ok(jail(*create, "exec.start=echo out", "exec.start=echo err >&2", "exec.start=sleep 1000 &", "persist"))
    held = []
    for path in stage.cgroup2.glob("jailng/*/members/cgroup.procs"):
        for pid in path.read_text().split():
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):  # the shell that becomes sleep(1) has closed it
                    held.append(os.readlink(entry))
    _ok(jail("-r", "a"))
    assert said == ""
    assert log.read_text() == "before\nout\nerr\n"
    assert str(log) not in held


def test_console_log_cannot_be_opened(jail: Command, small_root: Path, tmp_path: Path) -> None:
    done = jail("-c", f"path={small_root}", f"exec.consolelog={tmp_path}", "exec.start=true")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("jail: ")


Env = Callable[..., dict[str, str]]


@pytest.fixture
def environment(checkout: Path, small_root: Path) -> Env:
    """What a command inside is given when the caller has that environment."""

    def found(*given: str, step: str = "exec.start", path: str = "/usr/bin:/bin") -> dict[str, str]:
        caller = {"PATH": path, "TERM": "vt100", "SECRET": "x", "LANG": "C.UTF-8", "HOME": "/h", "USER": "u"}
        argv = [
            str(checkout / "bin/jail"),
            "-c",
            "jid=7",
            "name=a",
            f"path={small_root}",
            *given,
            f"{step}=env",
            "persist",
        ]
        done = subprocess.run(argv, capture_output=True, text=True, env=caller)
        gone = subprocess.run([argv[0], "-r", "a"], capture_output=True, text=True)
        assert (done.stderr, gone.stderr) == ("", "")
        return dict(line.split("=", 1) for line in done.stdout.splitlines())

    return found


def test_environment_inside(environment: Env, small_root: Path) -> None:
    found = environment()
    names = {"JID": "7", "JNAME": "a", "JPATH": str(small_root)}
    assert found.items() >= {**names, "TERM": "vt100", "LANG": "C.UTF-8", "HOME": "/root", "USER": "root"}.items()
    assert "SECRET" not in found


def test_environment_inside_clean(environment: Env) -> None:
    found = environment("exec.clean")
    assert found == {"TERM": "vt100", "PATH": "/bin:/usr/bin", "HOME": "/root", "USER": "root", "SHELL": "/bin/sh"}


def test_environment_inside_whole(environment: Env) -> None:
    found = environment("exec.noclean")
    assert found.items() >= {"SECRET": "x", "JID": "7", "JNAME": "a"}.items()


def test_environment_on_the_host(environment: Env, small_root: Path) -> None:
    found = environment(step="exec.poststart")
    assert found.items() >= {"SECRET": "x", "JID": "7", "JNAME": "a", "JPATH": str(small_root)}.items()


@pytest.mark.parametrize(("given", "found"), [({}, []), ({"LC_CTYPE": "C.UTF-8"}, ["LC_CTYPE=C.UTF-8"] * 3)])
def test_the_locale_of_a_caller_without_one(
    checkout: Path, small_root: Path, jail: Command, given: dict[str, str], found: list[str]
) -> None:
    """As cron and service managers are: Python gives itself an LC_CTYPE, and would give it to what it starts."""
    say = "env | grep LC_; true"
    argv = [str(checkout / "bin/jail"), "-c", "name=a", f"path={small_root}", "persist"]
    argv += [f"exec.created={say}", f"exec.start={say}"]
    caller = {"PATH": "/usr/bin:/bin", **given}
    made = subprocess.run(argv, capture_output=True, text=True, env=caller)
    inside = [str(checkout / "bin/jexec"), "a", "sh", "-c", say]
    entered = subprocess.run(inside, capture_output=True, text=True, env=caller)
    assert _ok(jail("-r", "a")) == ""
    assert (made.stderr, entered.stderr) == ("", "")
    assert (made.stdout + entered.stdout).split() == found


def test_environment_on_the_host_clean(environment: Env) -> None:
    """What the caller is by uid, and not what its environment says: get_user_info in command.c."""
    found = environment("exec.clean", step="exec.created")
    root = pwd.getpwuid(0)
    user = {"HOME": root.pw_dir, "USER": root.pw_name, "SHELL": root.pw_shell}
    assert found == {"TERM": "vt100", "PATH": ON_THE_HOST, **user}


def test_freebsds_commands_are_found_on_the_host_by_whose_caller_has_them(checkout: Path, environment: Env) -> None:
    """Most jails with vnet of the wild have exec.clean, and ``ifconfig epair0 create`` in exec.prestart."""
    path = f"/nowhere:{checkout}/shims:/usr/bin:/bin"
    assert environment("exec.clean", step="exec.created", path=path)["PATH"] == f"{checkout}/shims:{ON_THE_HOST}"
    assert environment("exec.clean", path=path)["PATH"] == "/bin:/usr/bin"


def test_system_user(jail: Command, small_root: Path) -> None:
    said = _ok(jail("-c", f"path={small_root}", "exec.system_user=bin", "exec.prestart=id -un", "command=id", "-u"))
    assert said == "bin\n0\n"


def test_jail_user(jail: Command, small_root: Path) -> None:
    said = _ok(jail("-c", f"path={small_root}", "exec.jail_user=alice", "exec.prestart=id -u", "command=id", "-u"))
    assert said == "0\n1001\n"


# Stopping


def _stubborn(small_root: Path, trap: str) -> str:
    """A daemon that does something of its own at SIGTERM, and the command line that returns when it is ready to."""
    os.mkfifo(small_root / "tmp/ready", 0o666)
    (small_root / "tmp/ready").chmod(0o666)
    script = small_root / "tmp/daemon"
    script.write_text(f"trap '{trap}' TERM\n: >/tmp/ready\nwhile :; do sleep 1000 & wait; done\n")
    return "sh /tmp/daemon >/dev/null 2>&1 </dev/null & read line </tmp/ready; true"


def test_stop_lets_them_end(jail: Command, small_root: Path, log: Path) -> None:
    start = _stubborn(small_root, "echo bye >>/tmp/log; exit")
    _ok(jail("-c", "name=a", f"path={small_root}", "command=sh", "-c", start))
    said = _ok(jail("-v", "-r", "a")).splitlines()
    assert log.read_text() == "bye\n"
    assert said[0].startswith("a: sent SIGTERM to: ")
    assert said[-1] == "a: removed"


@pytest.mark.skipif(STRIDE > 1, reason="takes the 10 s that stop.timeout is by default: JAILNG_TEST_THOROUGH=1")
def test_stop_does_not_wait_for_ever(jail: Command, small_root: Path) -> None:
    start = _stubborn(small_root, "")
    _ok(jail("-c", "name=a", f"path={small_root}", "command=sh", "-c", start))
    assert _ok(jail("-r", "a", timeout=60)) == ""


def test_forced_removal(jail: Command, small_root: Path, log: Path) -> None:
    start = _stubborn(small_root, "echo bye >>/tmp/log")
    _ok(jail("-c", "name=a", f"path={small_root}", "command=sh", "-c", start))
    _ok(jail("-R", "a"))
    assert log.read_text() == ""


# Several at once


def test_twenty_at_once(checkout: Path, jail: Command, jls: Command, small_root: Path) -> None:
    """Each gets a jid, a name and a range of uids of its own."""
    argv = [str(checkout / "bin/jail"), "-i", "-c", f"path={small_root}", "persist"]
    started = [
        subprocess.Popen([*argv, f"name=j{number}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(20)
    ]
    said = [process.communicate(timeout=180) for process in started]
    shown = [line.split() for line in jls("jid", "name").stdout.splitlines()]
    index = [line.split("\t") for line in indexed()]
    _ok(jail("-q", "-r", "*"))
    assert [err for _, err in said] == [""] * 20
    assert sorted(jid for jid, _ in shown) == sorted(out.strip() for out, _ in said)
    assert {name for _, name in shown} == {f"j{number}" for number in range(20)}
    assert len({slot for _, slot, _, _ in index}) == len(index) == 20


def test_one_name_for_ten(checkout: Path, jail: Command, jls: Command, small_root: Path) -> None:
    """One gets it; the others hear so."""
    argv = [str(checkout / "bin/jail"), "-c", "name=a", f"path={small_root}", "persist"]
    started = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) for _ in range(10)]
    errors = sorted(process.communicate(timeout=180)[1] for process in started)
    assert jls("name").stdout == "a\n"
    _ok(jail("-r", "a"))
    assert errors[0] == ""
    assert set(errors[1:]) <= {'jail: "a" already exists\n', 'jail: jail "a" already exists\n'}


def test_removed_by_five_at_once(checkout: Path, jail: Command, jls: Command, small_root: Path) -> None:
    _ok(jail("-c", "name=a", f"path={small_root}", "persist"))
    argv = [str(checkout / "bin/jail"), "-r", "a"]
    started = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) for _ in range(5)]
    errors = sorted(process.communicate(timeout=180)[1] for process in started)
    # As on FreeBSD, one that came while the jail was there finds it removed, which is what it wanted.
    assert "" in errors
    assert set(errors) <= {"", 'jail: "a" not found\n'}
