"""What a command in a jail is made of before it is started: words, streams, and whether the streams are text."""

from __future__ import annotations

import codecs
import errno
import io
import locale
import os
from collections.abc import Mapping, Sequence
from subprocess import DEVNULL, PIPE, STDOUT
from typing import IO, Any

from jailng.api.given import Argument, text_of
from jailng.core.wire import pack
from jailng.engine.command import harmless
from jailng.errors import JailError

Arguments = Argument | Sequence[Argument]
Stream = int | IO[Any] | None


class Command:
    """What is to run in which jail, as whom and where. ``args`` is the command as it was given."""

    def __init__(
        self,
        jail: tuple[int, str],
        args: Arguments,
        env: Mapping[str, str] | None,
        cwd: Argument | None,
        user: str | int | None,
    ) -> None:
        """``jail`` is its jid and the identity of its PID 1.

        Raises ValueError: no words, no name of a variable; JailError: no name of a user, or of a directory.
        """
        self.args = args
        words = [args] if isinstance(args, (str, bytes, os.PathLike)) else args
        self._argv = [text_of(word) for word in words]
        if not self._argv:
            raise ValueError("a command has at least one word")
        # The program's own environment says much of the host, so only what says how to show text is handed on.
        variables = harmless(dict(os.environ)) if env is None else env
        self._env = [text_of(word) for pair in variables.items() for word in pair]
        if any(not name or "=" in name for name in self._env[::2]):
            raise ValueError("illegal environment variable name")
        self._user = "" if user is None else str(user)
        if user is not None and not self._user:
            raise JailError(": no such user")  # and none is root
        self._cwd = "" if cwd is None else text_of(cwd)
        if cwd is not None and not self._cwd:
            raise JailError(f"chdir: : {os.strerror(errno.ENOENT)}")
        self._jail = jail

    def packet(self, pipes: Pipes) -> bytes:
        """The request for the worker. Raises ValueError: a word with a NUL in it."""
        front = (*self._jail, self._user, self._cwd, os.getpgrp())
        return pack("run", *front, pipes.numbers, pipes.ours, self._argv, self._env)


class Text:
    """Whether streams are text, and in which encoding."""

    def __init__(self, wanted: bool | None, encoding: str | None, errors: str | None) -> None:
        """Raises LookupError where Python knows no such encoding, or no such way with errors."""
        self.wanted = bool(wanted or encoding or errors)
        self._encoding = encoding if encoding and encoding != "locale" else locale.getpreferredencoding(False)
        self._errors = errors or "strict"
        if self.wanted:
            codecs.lookup(self._encoding)
            codecs.lookup_error(self._errors)

    def open(self, fd: int, mode: str) -> IO[Any]:
        """A file object for the pipe; ``mode`` is r or w. Text that is written is handed on at the end of each line."""
        raw = open(fd, mode + "b")  # noqa: SIM115  # it is the caller's
        if not self.wanted:
            return raw
        return io.TextIOWrapper(raw, self._encoding, self._errors, line_buffering=mode == "w")

    def encode(self, given: Any) -> bytes:
        """The bytes of an ``input``. Raises TypeError where it is text and streams are not, or the other way."""
        if self.wanted:
            if not isinstance(given, str):
                raise TypeError(f"input of text streams is a str, not {type(given).__name__}")
            return given.encode(self._encoding, self._errors)
        return bytes(memoryview(given))

    def decode(self, data: bytes) -> Any:
        """What was read; in text the ends of lines are made Python's."""
        if not self.wanted:
            return data
        return data.decode(self._encoding, self._errors).replace("\r\n", "\n").replace("\r", "\n")


class Pipes:
    """The three streams of a command: what is lent to the worker, and our ends of pipes.

    ``numbers`` say which of ``fds`` is which stream, "" for the null device; ``ours`` are the streams that have a pipe.
    """

    def __init__(self, stdin: Stream, stdout: Stream, stderr: Stream) -> None:
        """Raises OSError, or ValueError for what is no stream."""
        self.fds: list[int] = []
        self.numbers: list[str] = []
        self.ours: list[str] = []
        self._mine: list[int | None] = [None, None, None]
        self._theirs: list[int] = []
        try:
            for index, wanted in enumerate((stdin, stdout, stderr)):
                self._add(index, wanted)
        except BaseException:
            self.close()
            raise

    def _add(self, index: int, wanted: Stream) -> None:
        if wanted == PIPE:
            reading, writing = os.pipe2(os.O_CLOEXEC)
            theirs, self._mine[index] = (reading, writing) if index == 0 else (writing, reading)
            self._theirs.append(theirs)
            self.ours.append(str(index))
            self._lend(theirs)
        elif wanted == DEVNULL:
            self.numbers.append("")
        elif wanted == STDOUT and index == 2:
            self.numbers.append(self.numbers[1])
        elif wanted is None:
            self._lend_own(index)
        else:
            self._lend(wanted if isinstance(wanted, int) else wanted.fileno())

    def _lend_own(self, fd: int) -> None:
        """The stream of the program itself, if it has that.

        As for subprocess.Popen no other is one than what would survive exec: where a program has closed 0, 1 or 2, a
        file or socket of its own may be there, or of ours, down to the one by which the worker is told what to do.
        """
        try:
            is_stream = os.get_inheritable(fd)
        except OSError:
            is_stream = False
        if is_stream:
            self._lend(fd)
        else:
            self.numbers.append("")

    def _lend(self, fd: int) -> None:
        if fd < 0:
            raise ValueError(f"not a stream: {fd}")
        os.fstat(fd)
        self.numbers.append(str(len(self.fds)))
        self.fds.append(fd)

    def take(self) -> list[int | None]:
        """Our ends, which are the caller's to close from now on."""
        mine, self._mine = self._mine, [None, None, None]
        return mine

    def close(self) -> None:
        """Close what was opened here and not taken; the command has its own."""
        for fd in [*self._theirs, *self.take()]:
            if fd is not None:
                os.close(fd)
        self._theirs.clear()
