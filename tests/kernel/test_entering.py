"""Root inside attacks what jexec(8) brings in, at every moment of its entry.

JAILNG_ENTRIES says how many entries the attackers get to see, 500 if it is not set; the release is tested with 10000.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import debian as roots
from tests.kernel import hostile, injector
from tests.kernel.conftest import Command
from tests.kernel.stage import Stage
from tests.kernel.test_builder import older

ENTRIES = int(os.environ.get("JAILNG_ENTRIES", "500"))
# At the same time in one jail, as many as there are processors to disturb.
ANGLES = (
    ("descriptors", "memory", "trace"),
    ("listing", "program", "copy"),
    ("copies", "tree", "environment"),
    ("descriptors", "maps", "limits"),
    ("mounts", "network", "arguments"),
)
UNGUARDED = ("limits", "mounts", "network", "arguments")  # everybody may


@pytest.fixture(scope="module")
def hostile_root(request: pytest.FixtureRequest, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the attempts are made; its content is a hostile root's, and no test may rely on it."""
    return hostile.prepare(request, stage, tmp_path_factory)


class Jail:
    """A jail with a hostile root in it."""

    def __init__(self, stage: Stage, checkout: Path, jid: str) -> None:
        self.members = stage.cgroup2 / "jailng" / jid / "members/cgroup.procs"
        self.jexec = str(checkout / "bin/jexec")
        self.started: list[subprocess.Popen[str]] = []

    def enter(self, *argv: str, user: str = "", **options: Any) -> subprocess.Popen[str]:
        """A jexec(8) on its way in. Its environment has a secret. A user is looked up inside."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SECRET": "of the caller"}
        look_up = ["-U", user] if user else []
        given: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **options,
        }
        self.started.append(
            subprocess.Popen([self.jexec, *look_up, "attacked", *argv], text=True, env=environment, **given)
        )
        return self.started[-1]

    def attack(self, angle: str) -> subprocess.Popen[str]:
        """Somebody inside who waits for those that enter."""
        network = str(os.stat("/proc/self/net/dev").st_ino)
        attacker = self.enter(*hostile.program("probes.entering", angle, network), stdin=subprocess.PIPE)
        assert attacker.stdout is not None and attacker.stdout.readline() == "ready\n"
        return attacker

    def processes(self, entry: subprocess.Popen[str] | None = None) -> set[int]:
        """All of the jail's, or those that have come in by that entry, as long as it lives."""
        found = set(map(int, self.members.read_text().split()))
        return {pid for pid in found if _descends(pid, entry.pid)} if entry is not None else found


@pytest.fixture(params=["private", "shared"])
def attacked(
    request: pytest.FixtureRequest, stage: Stage, checkout: Path, jail: Command, hostile_root: Path
) -> Iterator[Jail]:
    """A jail to be attacked from inside."""
    made = jail("-i", "-c", "name=attacked", "persist", f"path={hostile_root}", f"ng.uids={request.param}")
    assert made.returncode == 0, made.stderr
    found = Jail(stage, checkout, made.stdout.strip())
    yield found
    jail("-R", "attacked")
    for process in found.started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1 and pid != ancestor:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
        except OSError:
            return False
    return pid == ancestor


def _ends(process: subprocess.Popen[str], seconds: float = 60) -> bool:
    """Whether it ends by itself in that time."""
    if process.returncode is not None:  # whoever sends a signal looks first
        return True
    pidfd = os.pidfd_open(process.pid)
    try:
        return bool(select.select([pidfd], [], [], seconds)[0])
    finally:
        os.close(pidfd)


def _until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.002)
    return True


@pytest.mark.parametrize("angles", ANGLES, ids=" ".join)
def test_nothing_is_gained(attacked: Jail, angles: tuple[str, ...]) -> None:
    """Never a privilege, a descriptor or a file of the host's, and every entry does what it was to do."""
    attackers = [attacked.attack(angle) for angle in angles]
    wrong: list[object] = []
    for number in range(max(ENTRIES // (2 * len(ANGLES)), 2)):
        entry = attacked.enter("/bin/echo", "in", user="root" if number % 2 else "")
        said, complaint = entry.communicate(timeout=120)
        if (entry.returncode, said, complaint) != (0, "in\n", ""):
            wrong.append((entry.returncode, said, complaint))
    for angle, attacker in zip(angles, attackers, strict=True):
        gained, complaint = attacker.communicate(timeout=120)
        assert not complaint, complaint
        *lines, last = gained.splitlines()
        met, refused = json.loads(last)
        assert not lines, f"{angle}:\n" + "\n".join(lines)
        assert met and (refused or angle in UNGUARDED), f"{angle}: nobody was met"
    assert not wrong, wrong


@pytest.mark.parametrize("what", ["join", "cp", "create", "create, before Linux 6.18"])
def test_others_that_are_born_there_tell_nothing(
    stage: Stage, checkout: Path, jail: Command, jailctl: Command, hostile_root: Path, tmp_path: Path, what: str
) -> None:
    """Of the host's mounts and network: what brings a root of its own, what copies, PID 1 of a jail in the jail."""
    inner = tmp_path / "inner" if what == "join" else hostile_root / "inner"
    roots.small(inner)
    made = jail("-i", "-c", "name=attacked", "persist", f"path={hostile_root}", "children.max=1")
    assert made.returncode == 0, made.stderr
    attacked = Jail(stage, checkout, made.stdout.strip())
    attackers = [attacked.attack(angle) for angle in UNGUARDED[1:]]
    inside = ("name=attacked.in", f"path={inner}", "command=/bin/true")
    try:
        for _ in range(max(ENTRIES // 20, 2)):
            if what == "join":
                done = jailctl("join", "-c", str(inner), "attacked", "/bin/true")
            elif what == "cp":
                done = jailctl("cp", "attacked:/etc/hostname", str(tmp_path / "copy"))
            elif what == "create":
                done = jail("-c", *inside)
            else:
                done = older(checkout, "-c", *inside)
            assert (done.returncode, done.stderr) == (0, "")
        told = [attacker.communicate(timeout=120)[0].splitlines() for attacker in attackers]
    finally:
        jail("-R", "attacked")
        for process in attacked.started:
            process.kill()
            process.communicate()
        shutil.rmtree(inner)
    assert all(json.loads(lines[-1])[0] for lines in told), "nobody was met"
    assert not [line for lines in told for line in lines[:-1]]


def _stopped(attacked: Jail, how: signal.Signals, count: int) -> list[str]:
    """What commands write whose callers were sent a signal while root inside had stopped them, once they go on.

    Not of those that it had only stopped when they ran already.
    """
    attacker = attacked.attack("stop")
    entries: list[subprocess.Popen[str]] = []
    late: set[int] = set()
    for number in range(2000):  # root inside is not always in time, and on a busy machine seldom
        if (stopped := len(entries) - len(late)) == count or (stopped and number > 250):
            break
        entry = attacked.enter("/bin/echo", "in", user="root" if number % 2 else "")
        if not _ends(entry, 0.3):
            # One that is not stopped is slow, and may run it by the time.
            met = attacked.processes(entry)
            if not any(_state(pid) == "T" and _program(pid) != "/bin/echo" for pid in met):
                late.add(entry.pid)
            entry.send_signal(how)
            runs = partial(_has_ended_or_runs, attacked, entry)
            assert _until(runs), f"{how.name} does not end it"
            entry.kill()
            assert _ends(entry)
            entries.append(entry)
    attacker.kill()
    attacker.wait()
    assert _until(partial(_goes, attacked)), "what entered goes on"
    assert len(entries) > len(late), "nobody was stopped"
    written = {entry.pid: entry.communicate()[0] for entry in entries}
    return [written[pid] for pid in written.keys() - late]


def _has_ended_or_runs(attacked: Jail, entry: subprocess.Popen[str]) -> bool:
    return _ends(entry, 0.05) or "/bin/echo" in map(_program, attacked.processes(entry))


def _goes(attacked: Jail) -> bool:
    """Whether all have gone, who are let go on; who stops them may do so for a moment still."""
    for pid in attacked.processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    return not attacked.processes()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_entry_does_not_hold_its_caller(attacked: Jail, how: signal.Signals) -> None:
    """Root inside may stop what enters; whoever waits for it can be got rid of.

    Once the command runs, signals are its own, and pend while it is stopped, as on FreeBSD: all but SIGKILL.
    """
    _stopped(attacked, how, 4)


def test_a_command_whose_caller_has_gone_is_not_run(attacked: Jail) -> None:
    """A command that root inside stops before its exec does not run later, when nobody waits for it any more."""
    assert not any(_stopped(attacked, signal.SIGKILL, 6))


def test_what_enters_holds_nothing_of_the_hosts(attacked: Jail, tmp_path: Path) -> None:
    """From the moment on that root inside can reach it: pipes, and PID 1's pidfd.

    The kernel guards the descriptors of a process that is not dumpable, but not at every moment of its life: a process
    that is killed has lost its memory, and with it that mark, before its files (mended in 2026: ptrace_may_access(),
    task->user_dumpable); one that executes has new memory of the jail's before the old files are closed
    (begin_new_exec(): exec_mmap(), then do_close_on_exec()).
    """
    attacked.attack("stop")
    before = attacked.processes()
    entering: set[int] = set()
    with open(tmp_path / "out", "w") as out:
        # Usually it is one of the first; on a busy machine who attacks seldom has his turn in time.
        for _ in range(2000):
            if not _ends(attacked.enter("/bin/echo", "in", stdout=out), 0.3):
                born = attacked.processes() - before
                entering |= {pid for pid in born if _program(pid) == "jailinit" and _state(pid) == "T"}
            if entering:
                break
    assert entering, "nobody was stopped on the way"
    held = []
    for pid in entering:
        for number in os.listdir(f"/proc/{pid}/fd"):
            link = os.readlink(f"/proc/{pid}/fd/{number}")
            if not link.startswith(("pipe:", "anon_inode:[pidfd]", "pidfd:", "/dev/null")):
                held.append(f"{number} -> {link}")
    assert not held, held


def _state(pid: int) -> str:
    """T for one that is stopped: one that is not may only be slow, and out of reach yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return ""


def _program(pid: int) -> str:
    """The first word of a process's command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()
    except OSError:
        return ""


def test_a_killed_entry_is_told(attacked: Jail) -> None:
    """Root inside may kill what enters: its caller says so and ends, at once."""
    attacked.attack("kill")
    ends = set()
    for _ in range(20):
        entry = attacked.enter("/bin/echo", "in")
        said, complaint = entry.communicate(timeout=120)
        assert "Traceback" not in complaint, complaint
        ends.add((entry.returncode, said))
    assert ends <= {(0, "in\n"), (-signal.SIGKILL, ""), (-signal.SIGKILL, "in\n"), (1, "")}, ends


def test_what_comes_in_with_the_command(attacked: Jail, tmp_path: Path) -> None:
    """No descriptor, variable, signal mask or regular file of the caller's."""
    script = """
import json, os
def link(fd):
    return os.readlink(f"/proc/self/fd/{fd}")
opened = [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]
writable = []
for fd in (0, 1, 2):
    try:
        os.ftruncate(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_NONBLOCK), 0)
        writable.append(fd)
    except OSError:
        pass
with open("/proc/self/status") as file:
    status = dict(line.split(":", 1) for line in file)
print(json.dumps({
    "opened": opened, "links": [link(fd) for fd in (0, 1, 2)], "truncated": writable, "mask": os.umask(0),
    "environment": "SECRET" in os.environ, "ignored": status["SigIgn"].strip(), "blocked": status["SigBlk"].strip(),
}))
"""
    (tmp_path / "in").write_text("input of the host's")
    secret = os.open("/etc", os.O_RDONLY)

    def prepare() -> None:
        os.umask(0o077)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})

    with (
        open(tmp_path / "in", "r+b") as given,
        open(tmp_path / "out", "w+b") as out,
        open(tmp_path / "err", "w+b") as err,
    ):
        entry = attacked.enter(
            *(hostile.PYTHON, "-IS", "-c", script),
            stdin=given,
            stdout=out,
            stderr=err,
            pass_fds=(secret,),
            preexec_fn=prepare,
        )
    assert entry.wait(timeout=60) == 0, Path(tmp_path / "err").read_text()
    os.close(secret)
    found = json.loads((tmp_path / "out").read_text())
    assert found["opened"] == ["0", "1", "2"]
    assert all(link.startswith("pipe:") for link in found["links"]), found["links"]
    assert not found["truncated"]
    assert (tmp_path / "in").read_text() == "input of the host's"
    assert not found["environment"]
    # SIGUSR1 and SIGUSR2; Python itself ignores others.
    assert not int(found["ignored"], 16) >> 9 & 1 and not int(found["blocked"], 16) >> 11 & 1
    assert found["mask"] == 0o022


def test_the_caller_s_priority_stays_outside(attacked: Jail) -> None:
    """Niceness, score and processors are not handed on: those of a daemon that calls may be better than a user's."""
    script = """
import json, os
with open("/proc/self/oom_score_adj") as file:
    print(json.dumps([os.nice(0), os.sched_getscheduler(0), file.read().strip(), len(os.sched_getaffinity(0))]))
"""

    def prepare() -> None:
        os.nice(5)
        os.sched_setaffinity(0, {0})
        Path("/proc/self/oom_score_adj").write_text("300")

    entry = attacked.enter(hostile.PYTHON, "-IS", "-c", script, preexec_fn=prepare)
    said, complaint = entry.communicate(timeout=60)
    assert json.loads(said) == [0, 0, "0", len(os.sched_getaffinity(0))], complaint


@pytest.mark.skipif(not injector.SUPPORTED, reason="the tracer knows the registers of x86_64 only")
def test_the_way_in_waits_for_nobody_s_turn(attacked: Jail) -> None:
    """Where processes inside keep a jail that has little processor time busy, until it executes its program."""
    with injector.injecting() as tracer:
        done = tracer.calls([attacked.jexec, "attacked", "/bin/true"])
    assert done.status == 0, done.err
    texts = [call.text for call in done.calls if call.process != "0"]
    first = [number for number, text in enumerate(texts) if text.startswith("setpriority(0, 0, 0xffffffffffffffec")]
    last = [number for number, text in enumerate(texts) if text.startswith("setpriority(0, 0, 0, ")]
    entered = next(number for number, text in enumerate(texts) if text.startswith("unshare("))
    executed = next(number for number, text in enumerate(texts) if text.startswith("execve('/bin/true'"))
    assert len(first) == len(last) == 1, [text for text in texts if "prio" in text]
    assert first[0] < entered < last[0] < executed, texts


_PREFERS = """
import os
for attempt in (lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(5)), lambda: os.nice(-5)):
    try: attempt(); print("done")
    except PermissionError: print("refused")
"""


def test_limits_by_which_the_caller_prefers_processes_stay_outside(attacked: Jail) -> None:
    def prepare() -> None:
        for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE):
            resource.setrlimit(limit, (30, 30))

    as_nobody = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-IS", "-c", _PREFERS]
    try:
        outside = subprocess.run(as_nobody, preexec_fn=prepare, capture_output=True, text=True, check=True).stdout
    except subprocess.SubprocessError:
        pytest.skip("limits cannot be raised here: no CAP_SYS_RESOURCE")
    said, complaint = attacked.enter(hostile.PYTHON, "-IS", "-c", _PREFERS, preexec_fn=prepare).communicate(timeout=60)
    assert outside.split() == ["done", "done"]
    assert said.split() == ["refused", "refused"], complaint


@pytest.mark.parametrize("what", ["fifo", "huge", "noise", "directory", "endless", "long", "link", "ids"])
def test_a_passwd_that_is_none(attacked: Jail, hostile_root: Path, what: str) -> None:
    """The jail's user database is not believed, not waited for and not followed."""
    passwd = hostile_root / "etc/passwd"
    kept = passwd.rename(hostile_root / "etc/passwd.kept")
    user, why = "root", "no such user"
    try:
        if what == "fifo":
            os.mkfifo(passwd)
        elif what == "huge":
            passwd.touch()
            os.truncate(passwd, 10 << 30)
        elif what == "noise":
            passwd.write_bytes(os.urandom(1 << 19) + b"\nroot")
        elif what == "directory":
            passwd.mkdir()
        elif what == "endless":
            passwd.symlink_to("/dev/zero")
        elif what == "long":
            passwd.write_bytes(b"root:" + b"x" * (1 << 21) + b":0:0::/:/bin/sh\n")
        elif what == "link":
            user = "spy"
            Path(hostile_root.parent / "passwd").write_text("spy:x:0:0::/:/bin/sh\n")
            passwd.symlink_to("../../passwd")
        else:
            passwd.write_text(f"root:x:4294967295:-1::/:/bin/sh\nroot:x:{'9' * 5000}:0::/:/bin/sh\n")
            why = "uid 4294967295: a jail has 0 to 65535"
        entry = attacked.enter("/bin/echo", "in", user=user)
        assert (entry.communicate(timeout=60), entry.returncode) == (("", f"jexec: {user}: {why}\n"), 1)
    finally:
        passwd.rmdir() if what == "directory" else passwd.unlink()
        kept.rename(passwd)


def test_the_host_s_program_is_not_the_jail_s_interpreter(attacked: Jail, hostile_root: Path) -> None:
    """``#!/proc/self/exe`` runs the program of whoever executes it, which cannot be written to (CVE-2019-5736)."""
    script = hostile_root / "usr/bin/evil"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    before = attacked.processes()
    entry = attacked.enter("/usr/bin/evil")
    try:
        if not _ends(entry, 1):
            looker = "import os, sys, glob\nfor exe in glob.glob('/proc/[0-9]*/exe'):\n" + (
                "    for mode in (os.O_WRONLY, os.O_RDWR):\n"
                "        try: os.open(exe, mode); print(exe, mode)\n"
                "        except OSError as error: mode\n"
            )
            looked = attacked.enter(hostile.PYTHON, "-IS", "-c", looker)
            assert looked.communicate(timeout=60)[0] == ""
    finally:
        entry.kill()
        entry.communicate()
        script.unlink()
    assert _until(lambda: attacked.processes() <= before)
