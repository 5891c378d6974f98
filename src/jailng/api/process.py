"""A command in a jail as a program sees it, with the interface of subprocess.Popen."""

from __future__ import annotations

import os
import selectors
import signal
import threading
import time
from subprocess import TimeoutExpired
from types import TracebackType
from typing import IO, Any, Self

from jailng.api.command import Command, Pipes, Text
from jailng.api.connection import Channel, Died
from jailng.errors import JailError

CHUNK = 65536
_FOR_EVER = 2**31 // 1000  # seconds, 24 days: more milliseconds than poll(2) takes
_MOMENT = 0.25  # seconds


class Deadline:
    """Some seconds from now, or no end."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._until = None if seconds is None or seconds > _FOR_EVER else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds that are left, not less than 0; None for no end."""
        return None if self._until is None else max(self._until - time.monotonic(), 0)

    def expired(self, args: Any, output: bytes | None = None, stderr: bytes | None = None) -> TimeoutExpired:
        """The exception for a command that took longer."""
        return TimeoutExpired(args, self.seconds or 0.0, output, stderr)


class Process:
    """A command that ``Jail.popen`` has started.

    ``args`` is the command as it was given, ``pid`` its number on the host; ``stdin``, ``stdout`` and ``stderr`` are
    file objects where PIPE was asked for, else None. ``returncode`` is None until ``poll``, ``wait`` or ``communicate``
    has found that it has ended; then it is the exit status, or the negative number of the signal that ended it.

    As a context manager it closes the streams and waits; left by KeyboardInterrupt, only a moment. A command whose
    Process is forgotten goes on.
    """

    def __init__(self, command: Command, pipes: Pipes, text: Text, deadline: Deadline | None = None) -> None:
        """Start it; ``pipes`` are closed. Raises JailError: not found, cannot be executed, no such user.

        Raises TimeoutExpired where it is not running by then.
        """
        self.args = command.args
        self.returncode: int | None = None
        self._text = text
        self._hearing = threading.Lock()
        self._trouble: JailError | None = None
        self._input: memoryview | None = None
        self._output: dict[IO[Any], list[bytes]] = {}
        try:
            self._channel = Channel(command.packet(pipes), pipes.fds)
            self.pid = self._started(deadline or Deadline(None))
            mine = pipes.take()
        finally:
            pipes.close()
        self.stdin, self.stdout, self.stderr = [
            None if fd is None else text.open(fd, "r" if index else "w") for index, fd in enumerate(mine)
        ]

    def _started(self, deadline: Deadline) -> int:
        try:
            answer = self._channel.listen(deadline.left())
            if answer is None:
                raise deadline.expired(self.args)
            return answer.number()
        except BaseException:  # KeyboardInterrupt, too: nobody will have the command
            self._channel.say(str(int(signal.SIGKILL)))
            self._channel.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_streams()
        if kind is KeyboardInterrupt:  # as subprocess has it: whoever has had enough is not to wait for the command
            self._await(Deadline(_MOMENT))
        else:
            self.wait()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: returncode: {self.returncode} args: {self.args!r}>"

    def __del__(self) -> None:
        channel = getattr(self, "_channel", None)
        if channel is not None:
            channel.close()

    def poll(self) -> int | None:
        """``returncode``, looked for."""
        if self.returncode is None and self._hearing.acquire(blocking=False):
            try:
                self._hear(Deadline(0))
            finally:
                self._hearing.release()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; the ``returncode``. ``timeout`` is in seconds.

        Raises TimeoutExpired; JailError where a stream of the program's own could not be read or written.
        """
        deadline = Deadline(timeout)
        self._await(deadline)
        return self._ended(deadline)

    def _await(self, deadline: Deadline) -> None:
        left = deadline.left()
        if self.returncode is None and self._hearing.acquire(timeout=-1 if left is None else left):
            try:
                self._hear(deadline)
            finally:
                self._hearing.release()

    def _hear(self, deadline: Deadline) -> None:
        """Listen for the end of the command; the caller has the lock."""
        while self.returncode is None:
            try:
                words = self._channel.listen(deadline.left())
            except Died as error:
                self._trouble = error
                self.returncode = -signal.SIGKILL  # as the worker ends, so does the command
            except JailError as error:
                self._trouble = error
            else:
                if words is None:
                    return
                self.returncode = os.waitstatus_to_exitcode(words.number())
        self._channel.close()

    def _ended(self, deadline: Deadline, *read: bytes | None) -> int:
        if self.returncode is None:
            raise deadline.expired(self.args, *read)
        if self._trouble is not None:
            raise self._trouble
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Send the command a signal; nothing happens where it has ended."""
        if self.poll() is None:
            self._channel.say(str(int(sig)))

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL. Processes that it has started remain, as members of the jail."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Write ``input``, read until both outputs end, and wait; what was read, None for what is no pipe.

        Raises TimeoutExpired after ``timeout`` seconds, with the bytes read so far; a second call takes up from there.
        """
        return self.exchange(input, Deadline(timeout))

    def exchange(self, input: Any, deadline: Deadline) -> tuple[Any, Any]:
        """``communicate`` with a deadline."""
        alone = self._alone(deadline)
        if alone is not None:
            read = alone.read()
            _close(alone)
            self._await(deadline)
            self._ended(deadline)
            return (read, None) if alone is self.stdout else (None, read)
        self._begin(input)
        complete = self._carry(deadline)
        if complete:
            self._await(deadline)
        read = [self._read(stream) for stream in (self.stdout, self.stderr)]
        if not complete:
            raise deadline.expired(self.args, *read)
        self._ended(deadline, *read)
        return self._decoded(read[0]), self._decoded(read[1])

    def _alone(self, deadline: Deadline) -> IO[Any] | None:
        """The output that is the only pipe, and is read to its end whenever that is: then what its file object has read
        already, behind a line that the caller took from it, counts too, as with subprocess.
        """
        pipes = [stream for stream in (self.stdin, self.stdout, self.stderr) if stream is not None]
        begun = bool(self._output) or deadline.left() is not None
        return None if begun or len(pipes) != 1 or pipes[0] is self.stdin else pipes[0]

    def _begin(self, given: Any) -> None:
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                self._output.setdefault(stream, [])
        if self.stdin is None or self.stdin.closed or self._input is not None:
            return
        try:
            self.stdin.flush()
        except BrokenPipeError:
            pass
        self._input = memoryview(self._text.encode(given) if given else b"")
        os.set_blocking(self.stdin.fileno(), False)

    def _carry(self, deadline: Deadline) -> bool:
        """Write and read until there is nothing left to do, or the deadline has come: then False."""
        with selectors.PollSelector() as selector:
            if self.stdin is not None and not self.stdin.closed:
                selector.register(self.stdin, selectors.EVENT_WRITE)
            for stream in self._output:
                if not stream.closed:
                    selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(deadline.left())
                if not ready:
                    return False
                for key, _ in ready:
                    ended = self._write(key.fd) if key.fileobj is self.stdin else self._fill(key.fileobj, key.fd)
                    if ended:
                        selector.unregister(key.fileobj)
                        _close(key.fileobj)
        return True

    def _write(self, fd: int) -> bool:
        """Write some of the input; whether that was all, or nobody reads it."""
        assert self._input is not None
        try:
            self._input = self._input[os.write(fd, self._input[:CHUNK]) :] if self._input else self._input
        except BlockingIOError:
            return False
        except BrokenPipeError:
            return True
        return not self._input

    def _fill(self, stream: Any, fd: int) -> bool:
        """Read some of an output; whether it has ended."""
        data = os.read(fd, CHUNK)
        self._output[stream].append(data)
        return not data

    def _read(self, stream: IO[Any] | None) -> bytes | None:
        return None if stream is None else b"".join(self._output[stream])

    def _decoded(self, data: bytes | None) -> Any:
        return None if data is None else self._text.decode(data)

    def _close_streams(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                _close(stream)


def _close(stream: Any) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        pass  # what was still to be written has no reader
