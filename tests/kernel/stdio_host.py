"""The test's side of ``stdio_outer.py``: a command, its terminal, and the shell that it is a job of."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

OUTER = ["/usr/bin/python3", "-IS", str(Path(__file__).with_name("stdio_outer.py"))]
# LINES and COLUMNS, which a test runner may have, are more to busybox than the terminal is.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": "dumb"}
# Seconds that anything may take; what is waited for is an event.
PATIENCE = 20.0
_SIGTIMEDWAIT = {"x86_64": "128 ", "aarch64": "137 "}[os.uname().machine]


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what the kernel tells nobody."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.001)


def state(pid: int) -> str:
    """A process's state, a letter as in ps(1); X where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def is_pending(pid: int, number: int) -> bool:
    """Whether that signal waits for the process."""
    return bool((_signals(pid, "SigPnd") | _signals(pid, "ShdPnd")) >> number - 1 & 1)


def until_held(pid: int) -> None:
    """Wait until the outer process holds signals: before that they end it, and the command with it."""

    def listens() -> bool:  # SigBlk would not do: posix_spawn(3) blocks all for a moment
        if Path(f"/proc/{pid}/syscall").read_text().startswith(_SIGTIMEDWAIT):
            return True
        with suppress(FileNotFoundError):  # one that was closed meanwhile
            return any("signalfd" in os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())
        return False

    until(listens, "signals are held")


def _signals(pid: int, which: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith(f"{which}:"))


def read_all(fd: int, size: int) -> bytes:
    """Exactly so many bytes, or all until the end."""
    found = b""
    while len(found) < size and (data := os.read(fd, size - len(found))):
        found += data
    return found


@contextmanager
def held(root: Path, *faults: str) -> Iterator[str]:
    """The pid of a process that has ``root``, furnished with a /dev, for its own."""
    argv = [*OUTER, "--hold", str(root), *faults]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield str(process.pid)


class Outer(subprocess.Popen[bytes]):
    """The outer process; of the pipes at its streams those that the test asked for are there."""

    @property
    def input(self) -> IO[bytes]:
        """Where to write what it reads."""
        assert self.stdin is not None
        return self.stdin

    @property
    def output(self) -> IO[bytes]:
        """Where to read what it writes."""
        assert self.stdout is not None
        return self.stdout

    @property
    def complaints(self) -> IO[bytes]:
        """Where to read what it complains of."""
        assert self.stderr is not None
        return self.stderr


@contextmanager
def started(*arguments: str, **options: Any) -> Iterator[Outer]:
    """The outer process with the command that it runs, started as subprocess does; killed if it has not ended."""
    with Outer([*OUTER, *arguments], **options) as process:
        try:
            yield process
        finally:
            process.kill()


class Console:
    """A terminal of 24 by 80 that a shell has, and in it the outer process as a job that ``order`` starts."""

    def __init__(self, *arguments: str, redirect: str = "") -> None:
        """``redirect`` is what a shell says behind the command."""
        self.master, slave = pty.openpty()
        self.resize(24, 80)
        self.orders, theirs = socket.socketpair()
        command = [*OUTER, *arguments]
        if redirect:
            command = ["/bin/sh", "-c", f'exec "$@" {redirect}', "sh", *command]
        self.process = subprocess.Popen(
            [*OUTER, "--shell", str(theirs.fileno()), *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            env=ENVIRONMENT,
        )
        os.close(slave)
        theirs.close()
        self.orders.settimeout(PATIENCE)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.orders.close()
        self.hang_up()
        self.process.kill()
        self.process.wait()

    def job(self) -> int:
        """The pid of the outer process."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children)

    def order(self, word: str) -> None:
        """Tell the shell what to do with its job."""
        self.orders.sendall(word.encode() + b"\n")

    def status(self) -> int:
        """Wait for the job to stop or to end: the raw wait status."""
        word = b""
        while not word.endswith(b"\n"):
            data = self.orders.recv(1)
            assert data, "the shell has ended"
            word += data
        return int(word)

    def type(self, text: bytes) -> None:
        """What the user types."""
        os.write(self.master, text)

    def read_until(self, text: bytes) -> bytes:
        """What is on the screen until ``text`` comes."""
        seen = b""
        end = time.monotonic() + PATIENCE
        while text not in seen:
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {text!r} on the screen, but {seen!r}"
            try:
                seen += os.read(self.master, 65536)
            except OSError:
                raise AssertionError(f"hung up before {text!r}: {seen!r}") from None
        return seen

    def rest(self) -> bytes:
        """What else is on the screen now."""
        seen = b""
        with suppress(OSError):
            while select.select([self.master], [], [], 0)[0] and (data := os.read(self.master, 65536)):
                seen += data
        return seen

    def resize(self, rows: int, columns: int) -> None:
        """What happens when a window is drawn larger."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def hang_up(self) -> None:
        """The user has closed the window."""
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def settings(self) -> list[object]:
        """The terminal's termios, of which a pty's master shows the slave's."""
        return termios.tcgetattr(self.master)

    def is_raw(self) -> bool:
        """Whether every key goes through as it is."""
        lflag = termios.tcgetattr(self.master)[3]
        return not lflag & (termios.ICANON | termios.ISIG | termios.ECHO)


def stopped_by(status: int) -> signal.Signals:
    """Which signal a raw wait status says has stopped the process."""
    assert os.WIFSTOPPED(status)
    return signal.Signals(os.WSTOPSIG(status))
