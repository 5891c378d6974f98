"""Which streams of the host go into a jail as they are, and what becomes of the others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from jailng.core import stdio
from jailng.core.stdio import Streams

pytestmark = pytest.mark.skipif(os.getuid() != os.getgid(), reason="a user without a group of the same number")


may_give_away = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a terminal away")


@contextmanager
def prepared(*fds: int) -> Iterator[Streams]:
    root = os.open("/", os.O_PATH)
    streams = stdio.prepare(root, os.getuid(), (fds[0], fds[1], fds[2]))
    try:
        yield streams
    finally:
        streams.close()
        os.close(root)


class Opened(ExitStack):
    """Files that are closed in the end."""

    def keep(self, fd: int) -> int:
        self.callback(os.close, fd)
        return fd

    def pair(self, kind: int) -> int:
        one, two = socket.socketpair(socket.AF_UNIX, kind)
        self.keep(two.detach())
        return self.keep(one.detach())

    def pipe(self) -> int:
        reading, writing = os.pipe()
        self.keep(writing)
        return self.keep(reading)

    def terminal(self) -> int:
        master, slave = os.openpty()
        self.keep(master)
        return self.keep(slave)

    def fifo(self, path: Path) -> int:
        os.mkfifo(path)
        return self.keep(os.open(path, os.O_RDWR))

    def file(self, path: Path) -> int:
        return self.keep(os.open(path, os.O_RDWR | os.O_CREAT))


@pytest.fixture
def opened() -> Iterator[Opened]:
    with Opened() as stack:
        yield stack


@pytest.fixture
def null(opened: Opened) -> int:
    return opened.file(Path("/dev/null"))


Make = Callable[[Opened, Path], int]
PASSED: dict[str, Make] = {
    "pipe": lambda opened, _: opened.pipe(),
    "connected unix stream": lambda opened, _: opened.pair(socket.SOCK_STREAM),
    "connected unix packets": lambda opened, _: opened.pair(socket.SOCK_SEQPACKET),
}
KEPT: dict[str, Make] = {
    "unix datagrams": lambda opened, _: opened.pair(socket.SOCK_DGRAM),
    "unconnected unix": lambda opened, _: opened.keep(socket.socket(socket.AF_UNIX).detach()),
    "tcp": lambda opened, _: opened.keep(socket.socket(socket.AF_INET).detach()),
    "pipe with a name": lambda opened, directory: opened.fifo(directory / "fifo"),
    "file": lambda opened, directory: opened.file(directory / "file"),
    "directory": lambda opened, directory: opened.keep(os.open(directory, os.O_RDONLY)),
    "device": lambda opened, _: opened.file(Path("/dev/zero")),
    "memory": lambda opened, _: opened.keep(os.memfd_create("some")),
    "event": lambda opened, _: opened.keep(os.eventfd(0)),
    "terminal": lambda opened, _: opened.terminal(),
}


@pytest.mark.parametrize("kind", PASSED)
def test_what_leads_to_one_peer_goes_in_as_it_is(kind: str, opened: Opened, null: int, tmp_path: Path) -> None:
    fd = PASSED[kind](opened, tmp_path)
    for fds in ((fd, null, null), (null, fd, null), (null, null, fd)):
        with prepared(*fds) as streams:
            index = fds.index(fd)
            assert os.path.samestat(os.fstat(streams.inside[index]), os.fstat(fd))
            assert (streams.inside[index] == fd) is (kind != "pipe")  # which is opened anew
            assert streams.passed == [index]
            assert not any(streams.owned)
            assert not streams.pumps


@pytest.mark.parametrize("kind", KEPT)
def test_all_else_stays_outside(kind: str, opened: Opened, null: int, tmp_path: Path) -> None:
    fd = KEPT[kind](opened, tmp_path)
    for fds in ((fd, null, null), (null, fd, null), (null, null, fd)):
        with prepared(*fds) as streams:
            index = fds.index(fd)
            assert not os.path.samestat(os.fstat(streams.inside[index]), os.fstat(fd))
            assert os.readlink(f"/proc/self/fd/{streams.inside[index]}").startswith("pipe:")
            assert [pump.index for pump in streams.pumps] == [index]
            assert streams.owned[index]


def test_null_is_opened_anew_and_once(null: int) -> None:
    with prepared(null, null, null) as streams:
        assert len(set(streams.inside)) == 1
        assert streams.inside[0] != null
        assert os.fstat(streams.inside[0]).st_rdev == os.makedev(1, 3)
        assert not streams.pumps
        assert streams.terminal is None


def test_a_number_that_is_not_open_is_null(opened: Opened) -> None:
    fd = opened.pipe()
    with prepared(fd, fd, -1) as streams:
        assert os.fstat(streams.inside[2]).st_rdev == os.makedev(1, 3)


def test_one_file_has_one_pipe(opened: Opened, null: int, tmp_path: Path) -> None:
    one, two, other = (opened.file(tmp_path / name) for name in ("log", "log", "other"))
    with prepared(null, one, two) as streams:
        assert streams.inside[1] == streams.inside[2]
        assert len(streams.pumps) == 1
    with prepared(null, one, other) as streams:
        assert streams.inside[1] != streams.inside[2]
        assert len(streams.pumps) == 2


@may_give_away
def test_one_terminal_is_a_pty_and_two_are_not(opened: Opened) -> None:
    one, two = opened.terminal(), opened.terminal()
    with prepared(one, one, two) as streams:
        assert streams.terminal is None
        assert len(streams.pumps) == 3
    with prepared(one, opened.keep(os.dup(one)), one) as streams:
        assert streams.terminal is not None
        assert not os.path.samestat(os.fstat(streams.inside[0]), os.fstat(one))
        assert os.isatty(streams.inside[0])


@may_give_away
def test_nothing_stays_open(opened: Opened, tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    file, terminal, pipe = opened.file(tmp_path / "file"), opened.terminal(), opened.pipe()
    before = count()
    for fds in ((file, file, terminal), (terminal, terminal, terminal), (pipe, -1, file)):
        with prepared(*fds):
            assert count() > before
        assert count() == before


def test_nothing_is_overwritten_on_the_way_in(opened: Opened) -> None:
    """What is to be 1 may be 0 on the host, and the other way round: only what is above 2 can be put in any place."""
    kept = [opened.keep(os.dup(fd)) for fd in (0, 1)]
    pipe = opened.pipe()
    try:
        for fd in (0, 1):
            os.dup2(pipe, fd)
        with prepared(1, 0, 0) as streams:
            assert min(streams.inside) > 2
            assert all(os.path.samestat(os.fstat(fd), os.fstat(pipe)) for fd in streams.inside)
        for fd in (0, 1):
            os.dup2(opened.pair(socket.SOCK_STREAM), fd)
        with prepared(0, 1, 0) as streams:
            assert streams.inside[:2] == [0, 1]
    finally:
        for fd in (0, 1):
            os.dup2(kept[fd], fd)


def test_unattended_there_is_nothing_to_attend_to(opened: Opened, tmp_path: Path) -> None:
    """A daemon is not to die of a pipe whose pump has gone home."""
    pipe, file, root = opened.pipe(), opened.file(tmp_path / "file"), opened.keep(os.open("/", os.O_PATH))
    for fd in (file, opened.terminal()):
        streams = stdio.prepare(root, os.getuid(), (pipe, fd, fd), attended=False)
        assert os.path.samestat(os.fstat(streams.inside[0]), os.fstat(pipe))
        assert {os.fstat(fd).st_rdev for fd in streams.inside[1:]} == {os.makedev(1, 3)}
        assert not streams.pumps
        streams.close()


def test_closed_streams_are_occupied_before_anything_else_is() -> None:
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from jailng.core import stdio
os.closerange(0, 3)
stdio.occupy()
ok = all(os.path.samestat(os.fstat(fd), os.stat("/dev/null")) and os.get_inheritable(fd) for fd in range(3))
os._exit(0 if ok and os.open("/", os.O_PATH) > 2 else 1)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_status_that_nobody_would_be_told_is_told() -> None:
    """SIGCHLD ignored, which exec hands down, has the kernel throw the status away."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with prepared(-1, -1, -1):
            assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("stream", [subprocess.PIPE, subprocess.DEVNULL])
def test_the_relay_is_loaded_only_to_relay(stream: int) -> None:
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
import posix
from jailng.core import stdio, waiting
streams = stdio.prepare(posix.open("/", 0o10000000), posix.getuid())
posix._exit(len({{"jailng.core.relay", "jailng.linux.pty", "fcntl", "_socket", "os"}} & set(sys.modules)))
"""
    argv = ["/usr/bin/python3", "-IS", "-c", code]
    assert subprocess.run(argv, stdin=stream, stdout=stream, stderr=stream, check=False).returncode == 0
