"""import jailng with real jails: their life, whose they are, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import jailng
from jailng.api import connection
from jailng.core.interpreter import PYTHON
from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace
from tests.kernel.stage import Stage


@pytest.fixture(autouse=True)
def worker_ends(nothing_left_behind: None) -> Iterator[None]:
    yield
    connection.close()


def test_an_error_has_the_number_of_what_has_failed(small_root: Path) -> None:
    """It was 0 of whatever the worker met."""
    with jailng.Jail(name="one", path=small_root, persist=True) as one:
        with pytest.raises(jailng.JailError, match="already exists") as refused:
            jailng.Jail(name="one", path=small_root, persist=True).start()
        assert refused.value.errno == errno.EEXIST
        # In a child of the worker, too.
        with pytest.raises(jailng.JailError, match="already exists") as refused:
            jailng.Jail({"exec.prestart": "true"}, name="one", path=small_root, persist=True).start()
        assert refused.value.errno == errno.EEXIST
        with pytest.raises(jailng.JailError, match="already exists") as refused:
            one.start()
        assert refused.value.errno == errno.EEXIST


class Program:
    """A program of its own that uses jailng: it runs until it is told to go on or is killed."""

    def __init__(self, checkout: Path, body: str) -> None:
        front = f"import sys; sys.path.append({str(checkout / 'src')!r}); import jailng, os\n"
        pipe = subprocess.PIPE
        self.child = subprocess.Popen([sys.executable, "-Wignore", "-c", front + body], stdin=pipe, stdout=pipe)
        assert self.child.stdout
        self.said = self.child.stdout.readline().decode().strip()

    def kill(self) -> None:
        self.child.kill()
        self._gone()

    def go_on(self) -> int:
        assert self.child.stdin
        self.child.stdin.close()
        return self._gone()

    def _gone(self) -> int:
        # The worker has our stdout too: that it ends says that the worker has.
        assert self.child.stdout and self.child.stdin
        assert self.child.stdout.read() == b""
        self.child.stdout.close()
        self.child.stdin.close()
        return self.child.wait()


def lives(jail: jailng.Jail) -> bool:
    return jail.alive  # which mypy takes for constant


def members(stage: Stage, jid: int) -> list[int]:
    return [int(pid) for pid in (stage.cgroup2 / f"jailng/{jid}/members/cgroup.procs").read_text().split()]


def test_a_jail_as_a_context_manager(small_root: Path, jls: Command) -> None:
    with jailng.Jail(path=small_root, name="cell", host_hostname="cell.example", allow_raw_sockets=True) as jail:
        assert lives(jail)
        assert [found.jid for found in jailng.jails()] == [jail.jid]
        assert jls("-j", "cell", "jid", "host.hostname", "allow.raw_sockets", "persist").stdout.split() == [
            str(jail.jid),
            "cell.example",
            "true",
            "true",
        ]
        assert jail.parameters.text("host.hostname") == "cell.example"
        assert jail.run(["hostname"], capture_output=True, text=True, check=True).stdout == "cell.example\n"
        assert repr(jail) == f"<jailng.Jail 'cell' jid={jail.jid}>"
    assert not lives(jail)
    assert jailng.jails() == []
    jail.stop()
    with pytest.raises(jailng.JailError, match=f"^jail {jail.jid} not found$"):
        jail.run(["true"])
    with pytest.raises(jailng.JailError, match=f"^jail {jail.jid} not found$"):
        print(jail.parameters)


def test_a_jail_can_be_started_again(small_root: Path) -> None:
    jail = jailng.Jail(path=small_root, name="cell")
    with jail:
        first = jail.jid
        with pytest.raises(jailng.JailError, match="already exists"):
            jail.start()
    with jail:
        assert jail.jid > first
        assert jail.run(["true"]).returncode == 0


def test_an_exception_stops_it(small_root: Path) -> None:
    with pytest.raises(ZeroDivisionError), jailng.Jail(path=small_root) as jail:
        print(1 / 0)
    assert not lives(jail)


def test_an_event_loop(small_root: Path) -> None:
    async def one(number: int) -> str:
        async with jailng.Jail(path=small_root, host_hostname=f"h{number}") as jail:
            done = await jail.arun(["hostname"], capture_output=True, text=True)
            return str(done.stdout).strip()

    async def program() -> list[str]:
        return await asyncio.gather(*[one(number) for number in range(10)])

    assert asyncio.run(program()) == [f"h{number}" for number in range(10)]


def test_a_start_that_is_cancelled_and_another(small_root: Path) -> None:
    """The second found the first, which nobody had any more."""

    async def program() -> None:
        for _ in range(5):
            given_up = asyncio.create_task(jailng.Jail(path=small_root, name="again").astart())
            await asyncio.sleep(0)
            given_up.cancel()
            with suppress(asyncio.CancelledError):
                await given_up
            async with jailng.Jail(path=small_root, name="again") as jail:
                assert jail.alive

    asyncio.run(program())


def test_changes(small_root: Path, jail: Command) -> None:
    with jailng.Jail(path=small_root, name="one") as mine:
        mine.set(name="two", host_hostname="new")
        assert mine.name == "two"
        assert mine.run(["hostname"], capture_output=True, text=True).stdout == "new\n"
        with pytest.raises(jailng.JailError, match=r"^path cannot be changed after creation$"):
            mine.set(path="/elsewhere")
        # What another command changes holds for the next process too.
        assert mine.run(["ping", "-c1", "127.0.0.1"], capture_output=True).returncode
        probe = ["sh", "-c", "grep CapBnd /proc/self/status"]
        before = mine.run(probe, capture_output=True).stdout
        assert jail("-m", "name=two", "allow.raw_sockets").returncode == 0
        assert jail("-m", f"jid={mine.jid}", "name=again").returncode == 0
        assert (mine.name, repr(mine)) == ("again", f"<jailng.Jail 'again' jid={mine.jid}>")
        assert mine.run(probe, capture_output=True).stdout != before
        asyncio.run(mine.aset({"host.hostname": "third"}))
        assert mine.run(["hostname"], capture_output=True, text=True).stdout == "third\n"


def test_find(small_root: Path, jail: Command) -> None:
    assert jail("-c", "name=other", f"path={small_root}", "persist").returncode == 0
    with jailng.Jail.find("other") as found:
        assert found.keep
        assert found.run(["echo", "hi"], capture_output=True).stdout == b"hi\n"
    assert jailng.Jail.find(found.jid).alive
    found.stop()
    assert not lives(found)
    with pytest.raises(jailng.JailError, match=r'^jail "other" not found$'):
        jailng.Jail.find("other")
    with pytest.raises(jailng.JailError, match=f"^jail {found.jid} not found$"):
        jailng.Jail.find(found.jid)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"path": "relative"}, "path relative: not an absolute pathname"),
        ({"path": "/no/such"}, "/no/such: No such file or directory"),
        ({"path": "/etc/passwd"}, "Not a directory"),
        ({"path": "/", "persist": False}, "new jail must persist or attach"),
        ({"path": "/", "depend": ["no-such"]}, 'depends on nonexistent jail "no-such"'),
    ],
)
def test_what_cannot_be_started(parameters: dict[str, object], sentence: str) -> None:
    with pytest.raises(jailng.JailError, match=sentence):
        jailng.Jail(parameters).start()
    with pytest.raises(jailng.JailError, match=sentence):
        asyncio.run(jailng.Jail(parameters).astart())


def test_a_name_that_is_taken(small_root: Path) -> None:
    other = jailng.Jail(path=small_root, name="cell")
    with (
        jailng.Jail(path=small_root, name="cell"),
        pytest.raises(jailng.JailError, match=r'^jail "cell" already exists$'),
    ):
        other.start()


def test_hooks_run_in_order_and_do_not_keep_others(small_root: Path, tmp_path: Path) -> None:
    log, fifo = tmp_path / "log", tmp_path / "fifo"
    os.mkfifo(fifo)
    steps = {
        step: f"echo {step} >> {log}"
        for step in ("exec.prestart", "exec.created", "exec.poststart", "exec.prestop", "exec.poststop", "exec.release")
    }
    slow = jailng.Jail({**steps, "exec.prepare": f"cat {fifo}"}, path=small_root, exec_start="touch /tmp/started")
    thread = threading.Thread(target=slow.start)
    thread.start()
    writer = os.open(fifo, os.O_WRONLY)  # it is in exec.prepare now
    with jailng.Jail(path=small_root) as other:
        assert other.run(["true"]).returncode == 0
    os.close(writer)
    thread.join(30)
    assert lives(slow)
    assert (small_root / "tmp/started").exists()
    slow.stop()
    assert log.read_text().split() == list(steps)


def test_a_hook_that_fails(small_root: Path) -> None:
    with pytest.raises(jailng.JailError, match=r"^false: failed$"):
        jailng.Jail(path=small_root, exec_created="false").start()
    jail = jailng.Jail(path=small_root, exec_prestop="false").start()
    with pytest.raises(jailng.JailError, match=r"^false: failed$"):
        jail.stop()
    assert lives(jail)
    jail.remove()
    assert not lives(jail)


def test_a_jail_that_ends_by_itself(small_root: Path, stage: Stage) -> None:
    jail = jailng.Jail(path=small_root, persist=False, exec_start="sleep 1000 &").start()
    init = os.pidfd_open(int(jail._identity.split()[0]))
    (sleeping,) = members(stage, jail.jid)
    assert lives(jail)
    os.kill(sleeping, signal.SIGKILL)
    select.select([init], [], [])
    os.close(init)
    assert not lives(jail)
    jail.stop()
    other = jailng.Jail(path=small_root, persist=False, exec_start="true").start()
    assert not lives(other)
    other.stop()


def test_processes_are_asked_before_they_are_killed(small_root: Path) -> None:
    with jailng.Jail(path=small_root) as jail:
        polite = jail.popen(
            ["sh", "-c", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 1; done"], stdout=-1
        )
        assert polite.stdout and polite.stdout.readline() == b"ready\n"
    assert polite.communicate() == (b"bye\n", None)
    assert polite.returncode == 3
    with jailng.Jail(path=small_root, stop_timeout=0) as jail:
        killed = jail.popen(["sleep", "1000"])
    assert killed.wait() == -signal.SIGKILL
    for remove in (jail.remove, lambda: asyncio.run(jail.aremove())):
        jail.start()
        killed = jail.popen(["sleep", "1000"])
        remove()
        assert killed.wait() == -signal.SIGKILL


def test_a_slow_stop_keeps_nobody(small_root: Path) -> None:
    jail = jailng.Jail(path=small_root, stop_timeout=1000).start()
    stubborn = jail.popen(["sh", "-c", "trap '' TERM; echo ready; read x"], stdin=-1, stdout=-1)
    assert stubborn.stdout and stubborn.stdout.readline() == b"ready\n"
    threads = [threading.Thread(target=stop) for stop in (jail.stop, jail.stop)]
    for thread in threads:
        thread.start()
    with jailng.Jail(path=small_root) as other:
        assert other.run(["true"]).returncode == 0
    stubborn.kill()
    stubborn.communicate()
    for thread in threads:
        thread.join(30)
    assert not lives(jail)


START = (
    "jail = jailng.Jail(path='/', name='cell').start(); jail.popen(['sleep', '1000']); print(jail.jid, flush=True)\n"
)


@pytest.mark.parametrize("end", ["sys.stdin.read()", "sys.stdin.read(); os._exit(3)", "sys.stdin.read(); 1/0"])
def test_jails_end_with_the_program(checkout: Path, end: str) -> None:
    program = Program(checkout, START + end)
    assert jailng.Jail.find("cell").jid == int(program.said)
    program.child.stderr = None
    program.go_on()
    assert jailng.jails() == []


def test_jails_end_with_a_program_that_is_killed(checkout: Path) -> None:
    program = Program(checkout, START + "sys.stdin.read()")
    assert jailng.Jail.find("cell").jid == int(program.said)
    program.kill()
    assert jailng.jails() == []


def test_jails_end_with_the_program_though_a_child_of_it_lives(checkout: Path) -> None:
    """One that was forked without Python's knowledge has the socket still."""
    fork = "import ctypes\nif ctypes.CDLL(None).fork() == 0: os.close(1); os.read(0, 1); os._exit(0)\n"
    program = Program(checkout, START.replace("print", fork + "print") + "sys.stdin.read()")
    program.child.kill()
    assert program.child.stdout and program.child.stdin
    assert program.child.stdout.read() == b""
    assert jailng.jails() == []
    program.go_on()


@pytest.mark.parametrize("hook", ["exec_created", "exec_poststart"])  # before the jail is up, and when it is
def test_a_program_that_is_killed_while_it_starts_a_jail(checkout: Path, tmp_path: Path, hook: str) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    body = (
        "import threading\n"
        f"jail = jailng.Jail(path='/', name='cell', {hook}='cat {fifo}')\n"
        "threading.Thread(target=jail.start, daemon=True).start()\n"
        f"open('{fifo}', 'w').write(''); print(flush=True); sys.stdin.read()"
    )
    program = Program(checkout, body.replace(".write('')", ".fileno(); kept = open(0)"))
    program.kill()
    assert jailng.jails() == []


_FINISHED = """
import os, socket, time
from types import SimpleNamespace
from jailng.core import registry
from jailng.engine import worker
here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
made = worker.Worker(here.detach(), os.pidfd_open(os.getpid()))
starter = registry.find("cell").starter
worker.processid = SimpleNamespace(of=lambda pid: starter)
made.loop.send_off("start", 0, lambda: [time.sleep(1000)], lambda outcome: None)
made._finish()
"""


def test_a_jail_that_was_up_when_its_starter_was_killed(checkout: Path, jail: Command, small_root: Path) -> None:
    """As if the worker's child had made it, and had been killed before it could tell."""
    assert jail("-c", "name=cell", f"path={small_root}", "persist").returncode == 0
    argv = ["/usr/bin/python3", "-c", _FINISHED]
    done = subprocess.run(argv, env={"PYTHONPATH": f"{checkout}/src"}, timeout=120, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert jailng.jails() == []


def test_a_kept_jail_outlives_the_program(checkout: Path) -> None:
    body = START.replace("name='cell'", "name='cell', keep=True")
    program = Program(checkout, body + "sys.stdin.read()")
    program.kill()
    kept = jailng.Jail.find("cell")
    assert kept.jid == int(program.said)
    kept.stop()


def test_hooks_run_though_the_program_was_killed(checkout: Path, tmp_path: Path) -> None:
    hooks = f"exec_prestop='false', exec_poststop='touch {tmp_path}/never'"
    other = f"exec_stop='touch /tmp/stopped', exec_release='touch {tmp_path}/released'"
    body = (
        f"one = jailng.Jail(path='/', {hooks}).start(); two = jailng.Jail(path='/', {other}).start()\n"
        "sys.stderr.close(); print(flush=True); sys.stdin.read()"
    )
    Program(checkout, body).kill()
    assert (tmp_path / "released").exists()
    assert not (tmp_path / "never").exists()
    assert jailng.jails() == []
    Path("/tmp/stopped").unlink()


def test_jails_end_though_the_package_was_upgraded(
    checkout: Path, small_root: Path, tmp_path: Path, jls: Command
) -> None:
    """What the worker has not loaded need not go with what it has; what cannot be run for that is left out."""
    # What others compile meanwhile has another name first.
    shutil.copytree(checkout / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.pyc.*"))
    (tmp_path / "jailinit").symlink_to(checkout / "jailinit")
    start = "jailng.Jail(path={!r}, name={!r}, **{!r}).start(); "
    jails = [start.format(str(small_root), "a", {"exec_poststop": "true"}), start.format(str(small_root), "b", {})]
    program = Program(tmp_path, f"{''.join(jails)}print('up', flush=True); sys.stdin.read()")
    assert program.said == "up"
    assert jls("name").stdout.split() == ["a", "b"]
    for module in (tmp_path / "src/jailng").rglob("*.py"):
        module.write_text("raise ImportError('another')\n")
    program.go_on()
    assert jls("name").stdout == ""


def test_jails_end_though_nobody_reads_what_is_said_of_it(checkout: Path) -> None:
    body = "r, w = os.pipe(); os.dup2(w, 2); os.close(w); os.close(r)\n"
    body += "jails = [jailng.Jail(path='/', exec_prestop='false').start() for _ in range(2)]; print(flush=True)\n"
    assert Program(checkout, body + "sys.stdin.read()").go_on() == 0
    assert jailng.jails() == []


def test_what_a_jails_passwd_says_steers_no_terminal(checkout: Path, small_root: Path) -> None:
    """The end of a program tells of commands of exec.stop that fail, and why may be a home directory's name."""
    (small_root / "etc/passwd").write_text("bob:x:1:1::/\x1b]0;title\x07:/bin/sh\n")
    body = f"import sys; sys.path.append({str(checkout / 'src')!r}); import jailng\n"
    body += f"jailng.Jail(path={str(small_root)!r}, exec_clean=True, exec_jail_user='bob', exec_stop='true').start()"
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "chdir /\\x1b]0;title\\x07: No such file" in done.stderr, done


def test_a_program_that_has_closed_its_streams(checkout: Path, small_root: Path, tmp_path: Path) -> None:
    """What is opened next has their numbers, and is none of its streams: least of all the socket to the worker."""
    body = f"import sys; sys.path.append({str(checkout / 'src')!r}); import os; os.closerange(0, 3); import jailng\n"
    body += f"jail = jailng.Jail(path={str(small_root)!r}, name='cell', exec_created='readlink /proc/self/fd/1 >&2')\n"
    body += f"with jail, open({str(tmp_path / 'said')!r}, 'w') as said:\n"
    body += "    links = 'links=$(for n in 0 1 2; do readlink /proc/$$/fd/$n; done); cat; echo $links > /tmp/links'\n"
    body += "    done = jail.run(['sh', '-c', links], input=b'x', timeout=120)\n"
    body += "    got = jail.run(['cat'], input=b'x', capture_output=True, timeout=120).stdout\n"
    body += "    print(done.returncode, got, jail.alive, file=said)\n"
    subprocess.run([sys.executable, "-c", body], check=True, timeout=180)
    assert (tmp_path / "said").read_text() == "0 b'x' True\n"
    first, *others = (small_root / "tmp/links").read_text().split()
    assert (first[:5], others) == ("pipe:", ["/dev/null", "/dev/null"])


_FULL = """
import os, resource, socket
from types import SimpleNamespace
from jailng.core.wire import Words, pack
from jailng.engine import worker
here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
made = worker.Worker(here.detach(), os.pidfd_open(os.getpid()))
before = resource.getrlimit(resource.RLIMIT_NOFILE)

def ask(more):
    # The answer to a request, where there is room for so many descriptors.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        socket.send_fds(there, [pack("stop", "", 7, "1 2")], [theirs.fileno(), 0, 0])
        highest = theirs.fileno()
        theirs.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + more, before[1]))
        made._hear()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        return ours.recv(100).decode().replace(chr(0), " ")

said = [ask(0), ask(1), ask(50)]
assert said == ["", "error 1 Too many open files 0 24 ", "ok"], said
made.jails[7] = SimpleNamespace(jid=7, identity="1 2", init=os.dup(0), leave=lambda: None)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
made._jail_ended(made.jails[7])
assert not made.jails
assert not made.over
"""


def test_a_worker_without_room_for_a_request_goes_on(checkout: Path) -> None:
    """It took that for the end of the program, and removed its jails."""
    argv = ["/usr/bin/python3", "-c", _FULL]
    done = subprocess.run(argv, env={"PYTHONPATH": f"{checkout}/src"}, timeout=120, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_two_programs(checkout: Path) -> None:
    body = "jails = [jailng.Jail(path='/').start() for _ in range(3)]; print(*[j.jid for j in jails], flush=True)\n"
    programs = [Program(checkout, body + "sys.stdin.read()") for _ in range(2)]
    assert len({jid for program in programs for jid in program.said.split()}) == len(jailng.jails()) == 6
    programs[0].kill()
    assert [jail.jid for jail in jailng.jails()] == [int(jid) for jid in programs[1].said.split()]
    assert programs[1].go_on() == 0


def test_a_forked_program_has_a_worker_of_its_own(small_root: Path) -> None:
    with jailng.Jail(path=small_root) as jail:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                done = jail.run(["echo", "hi"], capture_output=True)
                with jailng.Jail(path=small_root) as own:
                    status = 0 if done.stdout == b"hi\n" and own.alive else 1
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert jail.run(["true"]).returncode == 0


def test_a_forked_program_that_leaves_with(small_root: Path) -> None:
    """The jail is its parent's: as where one is forked for each piece of work, and ends by sys.exit."""

    def leave(jail: jailng.Jail) -> None:
        jail.__exit__(None, None, None)

    def leave_in_a_loop(jail: jailng.Jail) -> None:
        asyncio.run(jail.__aexit__(None, None, None))

    for use in (leave, leave_in_a_loop):
        with jailng.Jail(path=small_root) as jail:
            pid = os.fork()
            if pid == 0:
                try:
                    use(jail)
                finally:
                    os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            assert lives(jail)
        assert not lives(jail)


def test_inside_a_jail(checkout: Path, jail: Command, jexec: Command) -> None:
    """One was made in it, of which the worker then could not take care: it stayed when the program had ended."""
    assert jail("-c", "name=outer", "path=/", "children.max=2", "persist").returncode == 0
    body = f"import sys; sys.path.append({str(checkout / 'src')!r}); import jailng\n"
    body += "try: jailng.Jail(path='/', name='inner').start()\nexcept jailng.JailError as error: print(error)\n"
    done = jexec("outer", PYTHON, "-c", body)
    said = "only on the host: inside a jail there are jail(8) and jexec(8)\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    assert [one.name for one in jailng.jails()] == ["outer"]
    assert jail("-r", "outer").returncode == 0


def test_a_worker_that_is_killed(small_root: Path) -> None:
    jail = jailng.Jail(path=small_root).start()
    command = jail.popen(["sleep", "1000"])
    worker = connection._worker
    assert worker is not None
    worker.process.kill()
    with pytest.raises(jailng.JailError, match="has died"):
        command.wait()
    assert command.returncode == -signal.SIGKILL
    assert jail.run(["true"]).returncode == 0
    jail.stop()


def test_someone_who_is_not_root(public: Path, small_root: Path) -> None:
    def run(body: str) -> subprocess.CompletedProcess[str]:
        front = f"import sys; sys.path.append({str(public / 'src')!r}); import jailng\n"
        argv = ["/usr/bin/python3", "-c", front + body]
        return subprocess.run(argv, capture_output=True, text=True, user=65534, group=65534, extra_groups=[])

    with jailng.Jail(path=small_root, name="cell"):
        for use, what in (
            ("jailng.Jail(path='/').start()", "jail_set"),
            ("jailng.Jail.find('cell').run('true')", "jail_attach"),
            ("jailng.Jail.find('cell').stop()", "jail_remove"),
            ("jailng.Jail.find('cell').set(name='other')", "jail_set"),
        ):
            done = run(use)
            assert done.stderr.splitlines()[-1] == f"jailng.errors.JailError: {what}: Operation not permitted"
        assert run("assert jailng.jails()[0].name == 'cell' and jailng.Jail.find('cell').alive").returncode == 0


def test_two_hundred_address_jails(small_root: Path, lan: Namespace) -> None:
    jails = [jailng.Jail(path=small_root, ip4_addr=[f"ep0|198.51.100.{number + 20}"]) for number in range(200)]
    for jail in jails:
        jail.start()
    assert len(jailng.jails()) == 200
    shown = jails[-1].run(["ip", "-4", "-o", "address"], capture_output=True, text=True, check=True).stdout
    assert "198.51.100.219" in shown
    for jail in jails:
        jail.remove()
    assert jailng.jails() == []
