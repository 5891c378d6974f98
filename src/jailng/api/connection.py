"""The program's worker, and requests to it.

There is one for each process that uses jailng. It is started by the first request, serves all threads and event loops,
and ends when the program does, with the jails that are not kept. A process forked from the program starts another.
"""

from __future__ import annotations

import atexit
import os
import select
import socket
import subprocess
import threading
from collections.abc import Sequence
from fcntl import F_DUPFD_CLOEXEC, fcntl

from jailng.core.interpreter import PYTHON, command
from jailng.core.wire import ELSEWHERE, LARGEST, Words, as_memfd, failure
from jailng.errors import JailError


class Died(JailError):
    """The worker has ended before the program."""

    def __init__(self) -> None:
        super().__init__("the process that serves this program's jails has died")

    def __reduce__(self) -> tuple[type[Died], tuple[()]]:
        """A pickle calls with what this was called with."""
        return type(self), ()


class Worker:
    """The process, and our end of the socket to it."""

    def __init__(self) -> None:
        """Start it. Raises JailError where that cannot be done."""
        ours, theirs = _pair()
        self.socket = ours
        # Numbers above 2: in a program that has closed its own streams they would be taken for the worker's.
        program = os.pidfd_open(os.getpid())
        fds = [fcntl(fd, F_DUPFD_CLOEXEC, 3) for fd in (theirs.fileno(), program)]
        theirs.close()
        os.close(program)
        try:
            # In the program's session, so that a child of the worker can be in front of the program's terminal; in a
            # process group of its own, so that what kills the program's group spares what clears up after it.
            self.process = subprocess.Popen(
                command("jailng.engine.worker", *fds),
                stdin=subprocess.DEVNULL,
                cwd="/",
                pass_fds=fds,
                process_group=0,
            )
        except OSError as error:
            self.socket.close()
            raise JailError(f"{PYTHON}: {error.strerror}") from error
        finally:
            for fd in fds:
                os.close(fd)

    def send(self, packet: bytes, fds: Sequence[int], flags: int = 0) -> None:
        """Send a request. Raises BrokenPipeError where the worker has ended, BlockingIOError with MSG_DONTWAIT."""
        if len(packet) <= LARGEST:
            socket.send_fds(self.socket, [packet], fds, flags)
            return
        memfd = as_memfd(packet)
        try:
            socket.send_fds(self.socket, [ELSEWHERE], [*fds, memfd], flags)
        finally:
            os.close(memfd)

    def end(self) -> None:
        """Let it remove the program's jails, and wait until it has."""
        self.socket.close()
        self.process.wait()

    def disown(self) -> None:
        """It is the worker of the process that this one was forked from: close what was inherited."""
        self.socket.close()
        self.process.returncode = 0  # it is no child of ours, and Popen is not to look for it


_worker: Worker | None = None
_lock = threading.Lock()


def _current() -> Worker:
    global _worker
    with _lock:
        if _worker is None:
            _worker = Worker()
        return _worker


def _lose(worker: Worker) -> None:
    """It has died: the next request starts another."""
    global _worker
    with _lock:
        if _worker is worker:
            _worker = None
            worker.end()


def close() -> None:
    """End the worker, and with it the jails that are not kept. The next request starts another."""
    global _worker
    with _lock:
        worker, _worker = _worker, None
    if worker is not None:
        worker.end()


def _forked() -> None:
    global _worker, _lock
    _lock = threading.Lock()
    if _worker is not None:
        _worker.disown()
        _worker = None


os.register_at_fork(after_in_child=_forked)
atexit.register(close)


class Channel:
    """The caller's end of a request: what the worker has to say of it arrives here, packet by packet."""

    def __init__(self, packet: bytes, fds: Sequence[int] = (), wait: bool = True) -> None:
        """Send the request. ``fds`` are lent to the worker.

        Raises JailError where there can be no worker, BlockingIOError where it cannot be sent at once and not ``wait``.
        """
        flags = 0 if wait else socket.MSG_DONTWAIT
        self.socket, theirs = _pair()
        try:
            with theirs:
                _send(packet, [theirs.fileno(), *fds], flags)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hear no more of it."""
        self.socket.close()

    def say(self, word: str) -> None:
        """Say something to the worker about the request; nothing happens where it no longer listens."""
        try:
            self.socket.send(word.encode())
        except OSError:
            pass

    def listen(self, seconds: float | None = None) -> Words | None:
        """The next thing that the worker says, None if it has said nothing in that time.

        Raises JailError, which may be what the worker has said.
        """
        if seconds is not None and not _is_readable(self.socket, seconds):
            return None
        try:
            return heard(self.socket.recv(LARGEST))
        except ConnectionResetError:  # it has closed its end without reading all; what it said before is still there
            return heard(self.socket.recv(LARGEST))


def heard(packet: bytes) -> Words:
    """What the worker has said. Raises JailError where that is an error, or where it has died."""
    if not packet:
        raise Died
    words = Words(packet)
    if words.word() == "error":
        raise failure(words)
    return words


def ask(packet: bytes) -> Words:
    """A request with one answer. Raises JailError."""
    channel = Channel(packet)
    try:
        answer = channel.listen()
        assert answer is not None
        return answer
    finally:
        channel.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    """A socketpair, with numbers above 2: in a program that has closed its streams somebody might write to those."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if min(ours.fileno(), theirs.fileno()) > 2:
        return ours, theirs
    with ours, theirs:
        fds = [fcntl(end.fileno(), F_DUPFD_CLOEXEC, 3) for end in (ours, theirs)]
        first, second = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd) for fd in fds]
        return first, second


def _send(packet: bytes, fds: list[int], flags: int) -> None:
    for _ in range(2):
        worker = _current()
        try:
            worker.send(packet, fds, flags)
            return
        except (BrokenPipeError, ConnectionResetError):
            _lose(worker)
    raise Died


def _is_readable(end: socket.socket, seconds: float) -> bool:
    waiter = select.poll()
    waiter.register(end, select.POLLIN)
    return bool(waiter.poll(max(seconds, 0) * 1000))
