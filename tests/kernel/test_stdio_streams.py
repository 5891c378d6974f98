"""What a command finds at 0, 1 and 2, and what happens to its bytes, its end of file and its status on the way."""

from __future__ import annotations

import json
import os
import pty
import random
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.stdio_host import ENVIRONMENT, OUTER, PATIENCE, held, read_all, started, state, until

BASE = 0x70000000
SIZE = 5_000_000

# What a process sees of its standard streams, written as JSON to the file that argv names.
FACTS = """
import json, os, sys
def fact(fd):
    link, status = os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd)
    return {"link": link, "file": [status.st_dev, status.st_ino], "device": status.st_rdev}
with open(sys.argv[1], "w") as file:
    json.dump([fact(fd) for fd in range(3)], file)
"""


@pytest.fixture(scope="module")
def noise() -> bytes:
    return random.Random(7).randbytes(SIZE)


@contextmanager
def _opened(kind: str, directory: Path) -> Iterator[int]:
    """A descriptor of the host's."""
    others: list[int] = []
    if kind == "terminal":
        master, fd = pty.openpty()
        others.append(master)
    elif kind == "fifo":
        os.mkfifo(directory / "fifo")
        fd = os.open(directory / "fifo", os.O_RDWR)
    elif kind == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as server:
            fd = socket.create_connection(server.getsockname()).detach()
            others.append(server.accept()[0].detach())
    else:
        paths = {"file": directory / "file", "zero": Path("/dev/zero"), "null": Path("/dev/null")}
        fd = os.open(paths[kind], os.O_RDWR | os.O_CREAT)
    try:
        yield fd
    finally:
        for open_fd in (fd, *others):
            os.close(open_fd)


def test_a_pipe_is_opened_anew(tmp_path: Path) -> None:
    """Whoever writes there next is not told to try again later, whatever was made of it inside."""
    argv = ["/usr/bin/python3", "-IS", "-c", "import os\nfor fd in (0, 1, 2): os.set_blocking(fd, False)"]
    ends = [os.pipe(), os.pipe()]
    with started(*argv, stdin=ends[0][0], stdout=ends[1][1], stderr=ends[1][1]) as process:
        assert process.wait() == 0
    assert os.get_blocking(ends[0][0]) and os.get_blocking(ends[1][1])
    for fd in (*ends[0], *ends[1]):
        os.close(fd)


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("kind", ["terminal", "fifo", "tcp", "file", "zero", "null"])
def test_a_descriptor_of_the_host_never_goes_in(kind: str, index: int, tmp_path: Path) -> None:
    argv = ["/usr/bin/python3", "-IS", "-c", FACTS, str(tmp_path / "facts")]
    with _opened(kind, tmp_path) as fd:
        names = ("stdin", "stdout", "stderr")
        streams = {name: fd if at == index else subprocess.PIPE for at, name in enumerate(names)}
        with started(*argv, **streams) as process:
            if index != 0:
                process.input.close()
            process.wait()
        own = os.fstat(fd)
        found = json.loads((tmp_path / "facts").read_text())
        assert found[index]["file"] != [own.st_dev, own.st_ino]
        if kind == "null":
            assert found[index]["device"] == own.st_rdev
        else:
            assert found[index]["link"].startswith("pipe:")


def test_pipes_and_streams_go_in_as_they_are(tmp_path: Path) -> None:
    argv = ["/usr/bin/python3", "-IS", "-c", FACTS, str(tmp_path / "facts")]
    reading, writing = os.pipe()
    one, two = socket.socketpair()
    with one, two:
        with started(*argv, stdin=reading, stdout=one, stderr=writing) as process:
            assert process.wait() == 0
        found = json.loads((tmp_path / "facts").read_text())
        for fact, fd in zip(found, (reading, one.fileno(), writing), strict=True):
            status = os.fstat(fd)
            assert fact["file"] == [status.st_dev, status.st_ino]
    os.close(reading)
    os.close(writing)


def test_the_null_device_is_the_roots_own(small_root: Path) -> None:
    with held(small_root) as pid:
        done = subprocess.run(
            [*OUTER, "--root", pid, "stat", "-c", "%D:%i", "/dev/null", "/proc/self/fd/0", "-L"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            env=ENVIRONMENT,  # the root has all in /bin, which is in no service's PATH
        )
    named, given = done.stdout.split()
    assert named == given


def test_a_false_null_device_is_not_written_to(small_root: Path) -> None:
    with held(small_root, "false-null") as pid:
        script = "echo secret; stat -L -c '%t:%T' /proc/self/fd/3 3>&1 >&2; stat -c %s /dev/null >&2"
        argv = [*OUTER, "--root", pid, "sh", "-c", script]
        done = subprocess.run(
            argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT
        )
    assert done.stderr.split() == ["1:3", "0"]


def test_a_dev_that_leads_elsewhere_is_not_followed(small_root: Path) -> None:
    """What /proc/PID/root shows is the jail's to change while we look."""
    with held(small_root) as pid:
        root = Path(f"/proc/{pid}/root")
        (root / "false/pts").mkdir(parents=True)
        (root / "false/null").write_text("")
        (root / "dev/null").unlink()
        (root / "dev/null").symlink_to("/false/null")
        done = subprocess.run(
            [*OUTER, "--root", pid, "stat", "-L", "-c", "%t:%T", "/proc/self/fd/0"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            env=ENVIRONMENT,
        )
    assert done.stdout.strip() == "1:3"


@pytest.mark.parametrize("way", ["pipe", "socket", "file", "fifo", "tcp"])
def test_every_byte_passes(way: str, noise: bytes, tmp_path: Path) -> None:
    """There and back through cat: what goes in and what comes out is the same, and the end of file travels."""
    given, taken = _road(way, tmp_path)
    with started("--hand-over", "cat", stdin=given[0], stdout=taken[1]) as process:
        os.close(given[0])
        os.close(taken[1])
        sender = threading.Thread(target=_send, args=(given[1], noise))
        sender.start()
        received = b"" if taken[0] < 0 else read_all(taken[0], SIZE + 1)
        assert process.wait() == 0
        sender.join()
    if taken[0] < 0:
        received = (tmp_path / "out").read_bytes()
    else:
        os.close(taken[0])
    assert received == noise


def test_a_fifo_whose_writer_has_gone_already_ends(tmp_path: Path) -> None:
    """As in `generate > fifo & jexec cell cat < fifo`, where the writer is the faster one."""
    given, taken = _road("fifo", tmp_path)
    os.write(given[1], b"all")
    os.close(given[1])
    with started("--hand-over", "cat", stdin=given[0], stdout=taken[1]) as process:
        os.close(given[0])
        os.close(taken[1])
        assert process.wait(PATIENCE) == 0
    assert read_all(taken[0], 100) == b"all"
    os.close(taken[0])


def _send(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest and fd >= 0:
        rest = rest[os.write(fd, rest) :]
    if fd >= 0:
        os.close(fd)


def _road(way: str, directory: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """(command's input, where to write to it), (where to read its output, the output)."""
    if way == "pipe":
        return os.pipe(), os.pipe()
    if way == "socket":
        one, two = socket.socketpair(), socket.socketpair()
        return (one[0].detach(), one[1].detach()), (two[0].detach(), two[1].detach())
    if way == "file":
        (directory / "in").write_bytes(random.Random(7).randbytes(SIZE))
        return (os.open(directory / "in", os.O_RDONLY), -1), (-1, os.open(directory / "out", os.O_WRONLY | os.O_CREAT))
    if way == "fifo":
        ends = []
        for name in ("in", "out"):
            os.mkfifo(directory / name)
            reading = os.open(directory / name, os.O_RDONLY | os.O_NONBLOCK)
            ends.append((reading, os.open(directory / name, os.O_WRONLY)))
            os.set_blocking(reading, True)
        return ends[0], ends[1]
    pairs = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as server:
            near = socket.create_connection(server.getsockname())
            pairs.append((server.accept()[0].detach(), near.detach()))
    return pairs[0], pairs[1]


def test_a_connection_stays_for_who_else_has_it() -> None:
    """As inetd(8) has it 0 and 1 are one socket, which a script goes on to use when the command has ended."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far = server.accept()[0]
    with near, far:
        for number in (b"1", b"2"):
            with started("--hand-over", "head", "-c1", stdin=far, stdout=far):
                near.sendall(number)
                assert near.recv(100) == number
        near.sendall(b"more")
        near.shutdown(socket.SHUT_WR)
        far.sendall(b"bye")
        assert (near.recv(100), far.recv(100)) == (b"bye", b"more")
        with started("--hand-over", "cat", stdin=far, stdout=far):
            far.close()
            assert near.recv(100) == b""  # once nobody has it any more


@pytest.mark.parametrize("way", ["pipe", "fifo"])
def test_what_the_command_closes_is_closed(way: str, tmp_path: Path) -> None:
    """Its output ends for the reader, and its input for the writer, while it lives on."""
    given, taken = _road(way, tmp_path)
    script = "exec <&- >&-; kill -STOP $$"
    with started("--hand-over", "sh", "-c", script, stdin=given[0], stdout=taken[1]) as process:
        os.close(given[0])
        os.close(taken[1])
        assert os.read(taken[0], 1) == b""
        until(lambda: _is_broken(given[1]), "the writer's pipe breaks")
        assert process.poll() is None
    os.close(given[1])
    os.close(taken[0])


def _is_broken(fd: int) -> bool:
    try:
        os.write(fd, b"x")
    except BrokenPipeError:
        return True
    return False


def test_without_hand_over_the_streams_stay() -> None:
    """jail(8) goes on to run other commands with them."""
    code = """
import os
from tests.kernel import stdio_outer
from jailng.core import stdio, waiting
for number in range(2):
    streams = stdio.prepare(None, 0)
    pid, pidfd = stdio_outer.start(streams, ["printf", str(number)])
    assert waiting.wait(pid, pidfd, streams, hand_over=number == 1) == 0
os.write(1, b"unheard")
"""
    top = Path(__file__).parents[2]
    environment = {"PYTHONPATH": f"{top / 'src'}:{top}", "PATH": "/usr/bin:/bin"}
    argv = ["/usr/bin/python3", "-c", code]
    assert subprocess.run(argv, stdout=subprocess.PIPE, env=environment, check=True).stdout == b"01"


@pytest.mark.parametrize(("closed", "null"), [("<&-", {0}), (">&-", {1}), ("2>&-", {2}), ("<&- >&- 2>&-", {0, 1, 2})])
def test_what_the_caller_has_closed_is_null_inside(
    checkout: Path, jail: Command, small_root: Path, closed: str, null: set[int]
) -> None:
    """And nothing that the command itself opens lands there, which jailinit or the jail would then have."""
    script = 'said=$(for fd in 0 1 2; do readlink /proc/$$/fd/$fd; done); echo "$said" > /said'
    caller = ["sh", "-c", f'"$@" {closed}', "sh", str(checkout / "bin/jail")]
    made = [*caller, "-c", "name=cell", f"path={small_root}", "persist", f"exec.start={script}"]
    once = [*caller, "-c", f"path={small_root}", "command=sh", "-c", script]
    enter = [*caller[:-1], str(checkout / "bin/jexec"), "cell", "sh", "-c", script]
    for argv in (made, once, enter):
        done = subprocess.run(argv, stdin=subprocess.PIPE, capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0), argv
        said = (small_root / "said").read_text().split()
        (small_root / "said").unlink()
        assert {fd for fd, line in enumerate(said) if line == "/dev/null"} == null, argv
    assert jail("-r", "cell").returncode == 0


def test_streams_change_places() -> None:
    argv = [*OUTER, "--fds", "1,0,0", "sh", "-c", "cat; echo on"]
    reading, writing = os.pipe()
    given, give = os.pipe()
    with subprocess.Popen(argv, stdin=writing, stdout=given) as process:
        os.write(give, b"through")
        for fd in (writing, given, give):
            os.close(fd)
        assert read_all(reading, 100) == b"throughon\n"
        assert process.wait() == 0
    os.close(reading)


def test_an_unattended_command_writes_to_nowhere(tmp_path: Path) -> None:
    """A pipe without its pump would be the end of it."""
    ends = []
    for name in ("go", "told"):
        os.mkfifo(tmp_path / name)
        ends.append(os.open(tmp_path / name, os.O_RDWR))
    script = "read x <go; echo on && echo alive >told"
    argv = ["--unattended", "sh", "-c", script]
    with open(tmp_path / "out", "wb") as file, started(*argv, stdout=file, cwd=tmp_path) as process:
        assert process.wait() == 0
    os.write(ends[0], b"go\n")
    assert select.select([ends[1]], [], [], PATIENCE)[0]
    assert os.read(ends[1], 100) == b"alive\n"
    assert (tmp_path / "out").read_bytes() == b""
    for fd in ends:
        os.close(fd)


def test_a_file_is_written_where_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 100)
    with open(path, "r+b", buffering=0) as file:
        file.write(b"before\n")
        subprocess.run([*OUTER, "echo", "during"], stdout=file, check=True)
        file.write(b"after\n")
    assert path.read_bytes() == b"before\nduring\nafter\n" + b"x" * (100 - 20)


def test_a_file_open_for_appending_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    argv = ["sh", "-c", "echo one; read x; echo two"]
    with (
        open(path, "ab", buffering=0) as file,
        open(path, "ab", buffering=0) as other,
        started(*argv, stdin=subprocess.PIPE, stdout=file) as process,
    ):
        until(lambda: path.read_bytes() == b"one\n", "the first line")
        other.write(b"between\n")
        process.communicate(b"\n")
    assert path.read_bytes() == b"one\nbetween\ntwo\n"


def test_output_and_complaints_keep_their_order(tmp_path: Path) -> None:
    code = "import os\nfor n in range(5000): os.write(n % 2 + 1, b'%d\\n' % n)"
    with open(tmp_path / "log", "wb") as file:
        subprocess.run([*OUTER, "/usr/bin/python3", "-c", code], stdout=file, stderr=file, check=True)
    assert (tmp_path / "log").read_text().split() == [str(n) for n in range(5000)]


def test_input_that_was_not_read_is_left_to_the_next(tmp_path: Path, noise: bytes) -> None:
    """As in `{ jexec a head -1; cat; } < file`."""
    (tmp_path / "in").write_bytes(noise)
    with open(tmp_path / "in", "rb", buffering=0) as file:
        for size in (10, 100_000):
            argv = [*OUTER, "dd", f"bs={size}", "count=1", "iflag=fullblock"]
            done = subprocess.run(argv, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
            assert len(done.stdout) == size
        assert file.tell() == 100_010
        assert subprocess.run([*OUTER, "cat"], stdin=file, stdout=subprocess.PIPE).stdout == noise[100_010:]
        assert file.tell() == SIZE


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_nothing_that_was_written_is_lost(kind: str, tmp_path: Path) -> None:
    """However soon the command ends after it wrote."""
    code = "import os; os.write(1, bytes(60000)); os.kill(os.getpid(), 9)"
    argv = [*OUTER, "/usr/bin/python3", "-IS", "-c", code]
    for _ in range(20):
        with open(tmp_path / "out", "w+b") as file:
            done = subprocess.run(argv, stdout=file if kind == "file" else subprocess.PIPE)
            assert done.returncode == -signal.SIGKILL
            assert (os.fstat(file.fileno()).st_size if kind == "file" else len(done.stdout)) == 60000


def test_what_is_left_behind_may_say_what_it_has_to(tmp_path: Path) -> None:
    """`sh -c 'echo a & echo b'` of which the second was faster: half the time the first was lost."""
    code = (
        "import os, time\n"
        "parent = os.getpid()\n"
        "if os.fork() == 0:\n"
        "    while os.getppid() == parent: time.sleep(0.001)\n"
        "    time.sleep(0.05)\n"
        "    os.write(1, b'late')\n"
    )
    with open(tmp_path / "out", "w+b") as file:
        argv = [*OUTER, "--moment", "60", "/usr/bin/python3", "-IS", "-c", code]
        assert subprocess.run(argv, stdout=file).returncode == 0
    assert (tmp_path / "out").read_bytes() == b"late"


def test_a_daemon_that_keeps_the_streams_is_not_waited_for(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w+b") as file:
        script = "sleep 1000 & echo $!"
        with started("sh", "-c", script, stdin=file, stdout=file, stderr=file) as process:
            assert process.wait() == 0
        daemon = int((tmp_path / "out").read_text())
        assert state(daemon) not in "XZ"
        os.kill(daemon, signal.SIGKILL)
        until(lambda: state(daemon) in "XZ", "the daemon ends")


def test_output_that_cannot_be_written_is_told() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*OUTER, "echo", "lost"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "outer: stdout: No space left on device\n"


def test_input_that_cannot_be_read_is_told() -> None:
    with open("/proc/self/mem", "rb") as unreadable:
        done = subprocess.run([*OUTER, "cat"], stdin=unreadable, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "outer: stdin: Input/output error\n"


def test_a_reader_that_has_gone_ends_the_writer(tmp_path: Path) -> None:
    _, taken = _road("fifo", tmp_path)
    with started("yes", stdout=taken[1]) as process:
        os.close(taken[1])
        os.read(taken[0], 10)
        os.close(taken[0])
        assert process.wait() == -signal.SIGPIPE


def test_a_pipe_that_we_made_belongs_to_the_jail(tmp_path: Path) -> None:
    """Else `echo > /dev/stdout` fails in there, and with it every log that is configured so."""
    with open(tmp_path / "out", "wb") as file:
        script = "echo one > /proc/self/fd/1; echo two > /proc/self/fd/2; cat /proc/self/fd/0"
        argv = [*OUTER, "--base", str(BASE), "sh", "-c", script]
        with open(tmp_path / "in", "w+") as given:
            given.write("three\n")
            given.seek(0)
            subprocess.run(argv, stdin=given, stdout=file, stderr=file, check=True)
        status = os.fstat(file.fileno())
    assert (tmp_path / "out").read_text() == "one\ntwo\nthree\n"
    assert (status.st_uid, status.st_gid) == (0, 0)


@pytest.mark.parametrize("amount", [3, 30, 60_000])
def test_what_is_written_into_standard_input_takes_the_file_no_further_back(tmp_path: Path, amount: int) -> None:
    """Else root inside would have the host's shell, whose script that is, obey once more what it has read before."""
    (tmp_path / "in").write_text("before\nafter\n")
    with open(tmp_path / "in", "rb", buffering=0) as given:
        given.seek(7)
        script = f"head -c {amount} /dev/zero > /proc/self/fd/0"
        argv = [*OUTER, "--base", str(BASE), "sh", "-c", script]
        done = subprocess.run(argv, stdin=given, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        assert given.tell() >= 7


def test_a_pipe_that_we_made_belongs_to_the_user(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file:
        argv = [*OUTER, "--user", "1001", "sh", "-c", "echo one > /proc/self/fd/1; id -u"]
        subprocess.run(argv, stdout=file, check=True)
    assert (tmp_path / "out").read_text() == "one\n1001\n"


def test_a_pipe_that_we_did_not_make_stays_whose_it_is() -> None:
    reading, writing = os.pipe()
    subprocess.run([*OUTER, "--base", str(BASE), "true"], stdin=reading, stdout=writing, stderr=writing, check=True)
    assert os.fstat(reading).st_uid == 0
    os.close(reading)
    os.close(writing)
