"""Programs for jailinit: every kind of call, and what is said of one that fails."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jailng.core import jailinit, program
from jailng.core.program import Program, kept
from jailng.errors import UNREACHED, JailError
from jailng.linux import cgroup, cgroupend
from jailng.linux.libc import words
from tests.kernel.stage import Stage


@pytest.fixture
def leaf(stage: Stage) -> Iterator[int]:
    """A cgroup to be born into."""
    cgroup.make("jailng/program")
    fd = cgroup.open_directory("jailng/program")
    yield fd
    os.close(fd)
    cgroupend.remove("jailng/program", ())


def _finish(made: Program) -> int:
    running = program.start(made, jailinit.detached())
    running.forked()
    running.arrived()
    return os.waitstatus_to_exitcode(os.waitpid(running.pid, 0)[1])


def test_it_forks_keeps_results_and_executes(leaf: int, tmp_path: Path) -> None:
    made = Program()
    made.fork(0, leaf)
    made.may("chdir", made.text("/no/such/directory"))
    made.must("openat", -100, made.text(str(tmp_path / "out")), os.O_CREAT | os.O_WRONLY, 0o600, keep=2)
    made.must("write", kept(2), made.text("kept"), 4)
    made.must("dup3", kept(2), 1, 0)
    made.expect(0, "chdir", made.text("/"))
    made.execute(
        ["sh", "-c", 'echo " $0 $A $(pwd) $(ls /proc/self/fd | wc -w)"; exit 7', "zero"], {"A": "b", "PATH": "/bin"}
    )
    assert _finish(made) == 7
    assert (tmp_path / "out").read_text() == "kept zero b / 4\n"


def test_it_is_a_child_of_the_caller_in_the_cgroup(leaf: int) -> None:
    made = Program()
    made.fork(0, leaf)
    made.execute(["/bin/sleep", "60"], {"PATH": "/bin"})
    running = program.start(made, jailinit.detached())
    running.forked()
    running.arrived()
    status = Path(f"/proc/{running.pid}/status").read_text()
    assert f"PPid:\t{os.getpid()}\n" in status
    assert running.pid in cgroup.members("jailng/program")
    os.kill(running.pid, 9)
    os.waitpid(running.pid, 0)


@pytest.mark.parametrize(
    ("argv", "path", "sentence"),
    [
        (["no-such-program"], "/bin:/usr/bin", "execvp: no-such-program: No such file or directory"),
        (["/etc/passwd"], "/bin", "execvp: /etc/passwd: Permission denied"),
        (["passwd"], "/etc:/nowhere", "execvp: passwd: Permission denied"),
        ([""], "/bin", "execvp: : No such file or directory"),
        (["/bin/sh/x"], "/bin", "execvp: /bin/sh/x: Not a directory"),
    ],
)
def test_what_cannot_be_executed_is_said_as_execvp_says_it(
    leaf: int, argv: list[str], path: str, sentence: str
) -> None:
    made = Program()
    made.fork(0, leaf)
    made.execute(argv, {"PATH": path})
    with pytest.raises(JailError) as raised:
        _finish(made)
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    "failing",
    [
        lambda made: made.must("chdir", made.text("/no"), label="chdir /no"),
        lambda made: made.must("setns", 0, 0x20000000, label="jail_attach"),
    ],
    ids=["after", "before"],
)
@pytest.mark.parametrize("forked", [True, False])
def test_a_call_that_fails_is_named(leaf: int, failing: Callable[[Program], None], forked: bool) -> None:
    made = Program()
    if forked:
        made.fork(0, leaf)
    failing(made)
    if not forked:
        made.fork(0, leaf)
    made.execute(["/bin/true"], {"PATH": "/bin"})
    with pytest.raises(JailError, match=r"^(chdir /no: No such file or directory|jail_attach: Invalid argument)$"):
        _finish(made)


def test_what_is_not_as_expected_ends_without_a_word(leaf: int) -> None:
    made = Program()
    made.fork(0, leaf)
    made.expect(1, "chdir", made.text("/"))
    made.execute(["/bin/true"], {"PATH": "/bin"})
    assert _finish(made) == 127


def test_descriptors_of_ours_stay_closed_on_exec(leaf: int) -> None:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    made = Program()
    made.fds.append(reading)
    made.fork(0, leaf)
    made.execute(["/bin/true"], {"PATH": "/bin"})
    assert _finish(made) == 0
    assert not os.get_inheritable(reading)
    assert not os.get_inheritable(leaf)
    os.close(reading)
    os.close(writing)


def _end(made: Program) -> tuple[list[int], int]:
    """A program that does not fork: what it noted, and its exit status."""
    running = program.start(made, jailinit.path())
    running.arrived()
    return running.noted, os.waitstatus_to_exitcode(os.waitpid(running.pid, 0)[1])


def test_it_passes_over_what_it_may_and_what_belongs_to_that(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    made = Program()
    absent = made.here()
    made.must("openat", -100, made.text("/no/such/file"), os.O_RDONLY, 0, keep=9, unless=errno.ENOENT)
    made.must("fchdir", kept(9))
    made.skip(absent)
    made.must("mkdirat", -100, made.text(out), 0o700)
    made.must("openat", -100, made.text(out), os.O_DIRECTORY, 0, keep=9)
    made.must("mkdirat", kept(9), made.text(""), 0o700)
    made.each(1, [b"a", b"b", b"c"])
    noted = made.here()
    made.note("mkdirat", kept(9), made.text("b"), 0o700)
    made.must("mkdirat", kept(9), made.text("not made"), 0o700)
    made.skip(noted)
    made.may("fchdir", kept(8))
    made.end()
    assert _end(made) == ([noted], 0)
    assert sorted(os.listdir(out)) == ["a", "b", "c"]


def test_rows_of_calls_are_each_called_by_the_first_of_their_values(tmp_path: Path) -> None:
    def two(rows: list[tuple[int | bytes, ...]]) -> Program:
        made = Program()
        made.must("chdir", made.text(str(tmp_path)))
        made.must("mkdirat", -100, made.text(""), 0, label="make")
        made.must("symlinkat", made.text(""), -100, made.text(""), label="link")
        made.rows(2, (1, 2, 6, 8), rows)
        made.end()
        return made

    assert _end(two([])) == ([], 0)
    assert _end(two([(b"a", 0o700, b"x", b"c"), (b"b", 0o750, b"yy", b"d")])) == ([], 0)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c", "d"]
    assert [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in "ab"] == [0o700, 0o750]
    assert [os.readlink(tmp_path / name) for name in "cd"] == ["x", "yy"]
    with pytest.raises(JailError, match=r"^link e: File exists$"):
        _end(two([(b"e", 0o700, b"x", b"d"), (b"f", 0o700, b"x", b"g")]))
    with pytest.raises(JailError, match=r"^make a: File exists$"):
        _end(two([(b"h", 0o700, b"x", b"i"), (b"a", 0o700, b"x", b"j")]))


@pytest.mark.parametrize("sentence", ["", "there is none"])
def test_another_failure_than_the_one_passed_over_is_named(sentence: str) -> None:
    made = Program()
    call = made.here()
    made.must("chdir", made.text(""), label="chdir", unless=errno.EACCES)
    made.each(0, [b"/", b"/no/such/directory"])
    made.end()
    if sentence:
        made.instead[call + 1, errno.ENOENT] = sentence
    with pytest.raises(JailError) as raised:
        _end(made)
    assert str(raised.value) == (sentence or "chdir /no/such/directory: No such file or directory")


@pytest.mark.parametrize("arrival, kind", [(0, ""), (1, ""), (2, UNREACHED)])
def test_what_fails_on_the_way_is_another_failure(arrival: int, kind: str) -> None:
    made = Program()
    made.must("chdir", made.text("/"))
    made.must("chdir", made.text("/no/such/directory"))
    made.end()
    made.arrival = arrival
    with pytest.raises(JailError, match=r"^chdir: No such file or directory$") as raised:
        _end(made)
    assert (raised.value.kind, raised.value.errno) == (kind, errno.ENOENT)


def test_who_dies_on_the_way_has_not_come_there(leaf: int) -> None:
    made = Program()
    made.expect(1, "chdir", made.text("/"))  # ends it without a word, before it has forked
    made.fork(0, leaf)
    made.end()
    with pytest.raises(JailError, match=r"^jailinit died$") as raised:
        _finish(made)
    assert raised.value.kind == UNREACHED


def test_what_failed_is_no_descriptor_afterwards() -> None:
    made = Program()
    made.may("openat", -100, made.text("/no/such/file"), os.O_RDONLY, 0, keep=4)
    made.must("fchdir", kept(4), label="fchdir")
    made.end()
    with pytest.raises(JailError, match=r"^fchdir: Bad file descriptor$"):
        _end(made)


def test_whoever_forks_in_its_turn_may_be_the_first_to_tell() -> None:
    """Its parent has not come to telling of it, on a machine that has much to do."""
    done = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            os._exit(127)  # as jailinit does that has told of what it has forked
        done.append(child)
    said, say = os.pipe()
    way = Program()
    way.forks = [3, 5]
    for call, forked in ((5, 4711), (3, done[1])):
        os.write(say, words(~call, forked))
    os.close(say)
    assert program.Running(done[0], said, way).forked() == 4711
    os.close(said)


def test_a_program_that_cannot_be_read_ends_it() -> None:
    """Not by a signal: under a tracer, a PID 1 whom the kernel sends one would go on for ever."""
    for stdin in (subprocess.DEVNULL, subprocess.PIPE):  # that has no memory to map, and that has no length
        done = subprocess.run([jailinit.path(), program.RUN, "0"], stdin=stdin, timeout=60)
        assert done.returncode == 127


def test_nothing_is_carried_out_of_another_release() -> None:
    """Whose process lives through an upgrade would have jailinit read as numbers what it lays down as places."""
    way = Program()
    way.must("exit_group", 7)
    for word, status in ((program.RUN, 7), ("run", 127)):
        file = program.lay_out(way, 2)
        done = subprocess.run([jailinit.path(), word, str(file)], pass_fds=[file], timeout=60)
        os.close(file)
        assert done.returncode == status
