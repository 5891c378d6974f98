"""Terminals on which a test types and sees, and what is observed of a jail's meanwhile."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from jailng.core import registry
from jailng.observe import client
from jailng.observe.event import END, INPUT, OUTPUT, Event

PATIENCE = 60.0  # seconds; a loaded machine has them


class Screen:
    """A program on a terminal of its own."""

    def __init__(self, *argv: str, env: dict[str, str] | None = None, enter: Callable[[], None] | None = None) -> None:
        """``enter`` is called in the child before it becomes the program."""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                if enter is not None:
                    enter()
                os.execvpe(argv[0], argv, {"TERM": "vt100", "HOME": "/", "PATH": os.environ["PATH"], **(env or {})})
            finally:
                os._exit(127)
        self.shown = b""
        self.status: int | None = None

    def type(self, text: str) -> None:
        """Type it."""
        os.write(self.fd, text.encode())

    def until(self, pattern: str) -> bytes:
        """What is shown, from what the last call has returned to the pattern, and with it."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern.encode(), self.shown[self._seen :], re.DOTALL)):
            assert self._more(deadline), f"{pattern} is not in {self.shown[self._seen :]!r}"
        begin, self._seen = self._seen, self._seen + found.end()
        return self.shown[begin : self._seen]

    _seen = 0

    def end(self) -> int:
        """See all there is until the program has ended; its wait status."""
        deadline = time.monotonic() + PATIENCE
        while self._more(deadline):
            pass
        if self.status is None:
            assert self.is_over(deadline), f"it goes on after {self.shown[-300:]!r}"
            _, self.status = os.waitpid(self.pid, 0)
            os.close(self.fd)
        return self.status

    def is_over(self, deadline: float) -> bool:
        """Whether the program has ended by then, in time.monotonic()."""
        pidfd = os.pidfd_open(self.pid)
        try:
            return bool(select.select([pidfd], [], [], max(deadline - time.monotonic(), 0))[0])
        finally:
            os.close(pidfd)

    def resize(self, columns: int, rows: int) -> None:
        """Change the window."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            _, self.status = os.waitpid(self.pid, 0)
            os.close(self.fd)

    def _more(self, deadline: float) -> bool:
        if self.status is not None or not select.select([self.fd], [], [], max(deadline - time.monotonic(), 0))[0]:
            return False
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:
            return False
        self.shown += data
        return bool(data)


@contextmanager
def screen(*argv: str, **options: object) -> Iterator[Screen]:
    """A program on a terminal, killed at the end."""
    made = Screen(*argv, **options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.kill()


class Observer:
    """What is told of all terminals of a jail that is watched, as it comes: nothing is missed for not being read."""

    def __init__(self, name: str) -> None:
        record = registry.find(name)
        assert record is not None
        self.watching = client.connect(record)
        self.watching.watch_all()
        self.events: list[Event] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while (one := self.watching.read()) is not None:
            with self._news:
                self.events.append(one)
                self._news.notify()

    def until(self, enough: Callable[[list[Event]], bool]) -> list[Event]:
        """All events, by when they are enough."""
        with self._news:
            done = self._news.wait_for(lambda: enough(self.events), PATIENCE)
            assert done, [one for one in self.events if one.kind not in "oi"] + self.events[-20:]
            return list(self.events)

    def until_ended(self, number: int = 0) -> list[Event]:
        """All events, by when a terminal of that number is gone."""
        return self.until(lambda events: any(one.kind == END and one.terminal == number for one in events[-3000:]))

    def forget(self) -> None:
        """Begin anew."""
        with self._news:
            self.events = []

    def close(self) -> None:
        """Watch no more, if it does."""
        with suppress(OSError):
            self.watching.connection.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self.watching.close()


def shown(events: Sequence[Event], number: int = 0) -> bytes:
    """What has been shown on a terminal."""
    return b"".join(one.data for one in events if one.kind == OUTPUT and one.terminal == number)


def typed(events: Sequence[Event], number: int = 0) -> bytes:
    """What has been typed there."""
    return b"".join(one.data for one in events if one.kind == INPUT and one.terminal == number)


def of(events: Sequence[Event], kind: str, number: int | None = None) -> list[Event]:
    """Those of a kind."""
    return [one for one in events if one.kind == kind and number in (None, one.terminal)]
