"""jailng.Jail: a jail that a program starts, uses and stops, or finds."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from subprocess import PIPE, CalledProcessError, CompletedProcess
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from jailng.api import connection, given
from jailng.api.command import Arguments, Command, Pipes, Stream, Text
from jailng.api.given import Argument
from jailng.api.process import Deadline, Process
from jailng.core import get, registry
from jailng.core.wire import Words, pack
from jailng.errors import JailError
from jailng.params.model import Parameters

if TYPE_CHECKING:
    from jailng.api.loop import AsyncProcess
    from jailng.core.registry import Record


class Jail:
    """A jail of this program, or one that ``Jail.find`` has found.

    ::

        with jailng.Jail(path="/jails/www", ip4_addr=["192.0.2.7"], host_hostname="www") as jail:
            jail.run(["/usr/bin/id"], check=True)

    Keywords are the parameters of jail(8), with ``_`` for ``.``; a mapping with jail(8)'s own names may come first.
    Values are bool, int, str, path or address, and of lists any number of these; None is as if the parameter were not
    given. A jail persists unless ``persist=False``.

    As a context manager, also an asynchronous one, it is started, and stopped at the end. A jail that is not stopped
    goes when the program ends, however it ends; with ``keep`` it outlives both. Threads and event loops may share it.

    Raises JailError in jail(8)'s words for parameters that no jail can have.
    """

    def __init__(
        self, parameters: Mapping[str, object] | None = None, /, *, keep: bool = False, **more: object
    ) -> None:
        self._given = {"persist": ["true"], **given.resolve(parameters or {}, more)}
        self._name = given.check(self._given).text("name")
        self._jid = 0
        self._identity = ""
        self._keep = keep
        self._program = 0  # the process that has started it

    @classmethod
    def find(cls, jail: str | int) -> Self:
        """The running jail of that name or jid, whoever started it. ``with`` leaves it running.

        Raises JailError: not found.
        """
        record = get.find(registry, str(jail))
        assert isinstance(record, registry.Record)
        return cls._of(record)

    @classmethod
    def _of(cls, record: Record) -> Self:
        made = cls.__new__(cls)
        made._given = {name: [text] for name, text in record.params.items()}
        made._name, made._jid, made._identity, made._keep = record.name, record.jid, record.init, True
        made._program = 0
        return made

    # What it is

    @property
    def jid(self) -> int:
        """Its number. Raises JailError before it has been started."""
        if not self._jid:
            raise JailError("the jail has not been started")
        return self._jid

    @property
    def name(self) -> str:
        """Its name now, which is the jid where none was given; "" before it has been started then."""
        record = self._record() if self._jid else None
        return self._name if record is None else record.name

    @property
    def keep(self) -> bool:
        """Whether it outlives the program and ``with``."""
        return self._keep

    @property
    def alive(self) -> bool:
        """Whether it is running, by what /run says; never waits."""
        return self._jid != 0 and self._record() is not None

    @property
    def parameters(self) -> Parameters:
        """What the running jail has, changes by other commands included. Raises JailError: not found."""
        record = self._record()
        if record is None:
            raise JailError(f"jail {self.jid} not found", errno=errno.ENOENT)
        return Parameters.from_texts(record.params)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<jailng.Jail{name} jid={self._jid}>" if self._jid else f"<jailng.Jail{name} not started>"

    def _record(self) -> Record | None:
        record = registry.load(self._jid)
        return record if record is not None and record.init == self._identity and record.alive() else None

    # Its life

    def start(self) -> Self:
        """Start it, as ``jail -c`` does, commands of exec.* included; returns itself.

        Raises JailError with what jail(8) would say; nothing is left half-made then.
        """
        channel = connection.Channel(self._to_start())
        try:
            answer = channel.listen()
            assert answer is not None
            self._started(answer)
            channel.say("heard")
        finally:
            channel.close()
        return self

    async def astart(self) -> Self:
        """``start`` in an event loop. If it is cancelled there will be no jail."""
        from jailng.api import loop

        channel = await loop.ask(self._to_start())
        try:
            self._started(await loop.listen(channel))
            channel.say("heard")
        finally:
            channel.close()
        return self

    def _to_start(self) -> bytes:
        if self._identity and self.alive:
            raise JailError(f"jail {self._jid} already exists", errno=errno.EEXIST)
        return pack("start", "keep" if self._keep else "", given.flat(self._given))

    def _started(self, answer: Words) -> None:
        self._jid, self._name, self._identity = answer.number(), answer.word(), answer.word()
        self._program = os.getpid()

    def _is_to_end(self) -> bool:
        """Whether the end of ``with`` is its end: not in a process that was forked from the program meanwhile."""
        return not self._keep and self._program == os.getpid()

    def stop(self) -> None:
        """Stop it as ``jail -r`` does: exec.prestop, exec.stop, SIGTERM, stop.timeout, removal, exec.poststop and
        exec.release. Nothing happens where it has ended by itself. Raises JailError: not started; a command failed.
        """
        connection.ask(self._to_stop(""))

    def remove(self) -> None:
        """Remove it at once, as ``jail -R`` does, without commands and without a word to its processes."""
        connection.ask(self._to_stop("forced"))

    async def astop(self) -> None:
        """``stop`` in an event loop. If that is cancelled it is stopped all the same."""
        from jailng.api import loop

        await loop.answer(self._to_stop(""))

    async def aremove(self) -> None:
        """``remove`` in an event loop."""
        from jailng.api import loop

        await loop.answer(self._to_stop("forced"))

    def _to_stop(self, how: str) -> bytes:
        return pack("stop", how, self.jid, self._identity)

    def set(self, parameters: Mapping[str, object] | None = None, /, **more: object) -> None:
        """Change parameters while it runs, as ``jail -m`` does.

        Raises JailError for one that cannot be changed, and nothing has changed then.
        """
        self._changed(connection.ask(self._to_change(parameters, more)))

    async def aset(self, parameters: Mapping[str, object] | None = None, /, **more: object) -> None:
        """``set`` in an event loop."""
        from jailng.api import loop

        self._changed(await loop.answer(self._to_change(parameters, more)))

    def _to_change(self, parameters: Mapping[str, object] | None, more: Mapping[str, object]) -> bytes:
        changes = given.resolve(parameters or {}, more)
        given.parse(changes)
        return pack("set", self.jid, self._identity, given.flat(changes))

    def _changed(self, answer: Words) -> None:
        self._name = answer.word()

    def __enter__(self) -> Self:
        return self if self._keep and self._jid else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_to_end():
            self.stop()

    async def __aenter__(self) -> Self:
        return self if self._keep and self._jid else await self.astart()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_to_end():
            await self.astop()

    # Commands in it

    def popen(
        self,
        args: Arguments,
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        env: Mapping[str, str] | None = None,
        cwd: Argument | None = None,
        user: str | int | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
    ) -> Process:
        """Start a command in the jail, as subprocess.Popen starts one on the host.

        ``user`` is a name or number of the jail's passwd (None: root, without looking), ``cwd`` a directory in the jail
        (None: its root), ``env`` the environment (None: of the program's own what says how to show text, no more).
        PATH, HOME, SHELL and USER are added where they are missing. ``stdin``, ``stdout`` and ``stderr`` are as with
        Popen; a file or terminal of the host never enters the jail, what is in it is copied (docs/python.md).

        Raises JailError: not found, no such user, ``execvp: CMD: No such file or directory``.
        """
        return self._popen(args, stdin, stdout, stderr, env, cwd, user, Text(text, encoding, errors), Deadline(None))

    def _popen(
        self,
        args: Arguments,
        stdin: Stream,
        stdout: Stream,
        stderr: Stream,
        env: Mapping[str, str] | None,
        cwd: Argument | None,
        user: str | int | None,
        text: Text,
        deadline: Deadline,
    ) -> Process:
        command = Command((self.jid, self._identity), args, env, cwd, user)
        return Process(command, Pipes(stdin, stdout, stderr), text, deadline)

    def run(
        self,
        args: Arguments,
        *,
        input: Any = None,
        capture_output: bool = False,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        timeout: float | None = None,
        check: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: Argument | None = None,
        user: str | int | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
    ) -> CompletedProcess[Any]:
        """Run a command in the jail and wait for it, as subprocess.run does on the host; the rest is as with ``popen``.

        ``timeout`` is in seconds, its start included. Raises CalledProcessError with ``check``, TimeoutExpired (the
        command has been killed), JailError.
        """
        stdin, stdout, stderr = _streams(input, capture_output, stdin, stdout, stderr)
        deadline = Deadline(timeout)
        process = self._popen(args, stdin, stdout, stderr, env, cwd, user, Text(text, encoding, errors), deadline)
        with process:
            try:
                out, err = process.exchange(input, deadline)
            except BaseException:
                process.kill()
                raise
        return completed(process, out, err, check)

    async def apopen(
        self,
        args: Arguments,
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        env: Mapping[str, str] | None = None,
        cwd: Argument | None = None,
        user: str | int | None = None,
    ) -> AsyncProcess:
        """``popen`` in an event loop, with streams of bytes as asyncio.create_subprocess_exec has them."""
        from jailng.api import loop

        command = Command((self.jid, self._identity), args, env, cwd, user)
        return await loop.start(command, Pipes(stdin, stdout, stderr))

    async def arun(
        self,
        args: Arguments,
        *,
        input: Any = None,
        capture_output: bool = False,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        timeout: float | None = None,
        check: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: Argument | None = None,
        user: str | int | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
    ) -> CompletedProcess[Any]:
        """``run`` in an event loop. If it is cancelled the command is killed."""
        from jailng.api import loop

        stdin, stdout, stderr = _streams(input, capture_output, stdin, stdout, stderr)
        command = Command((self.jid, self._identity), args, env, cwd, user)
        shown = Text(text, encoding, errors)
        given_input = None if input is None else shown.encode(input)
        process, read = await loop.run(command, Pipes(stdin, stdout, stderr), given_input, timeout)
        out, err = [None if data is None else shown.decode(data) for data in read]
        return completed(process, out, err, check)


def jails() -> list[Jail]:
    """The running jails by ascending jid, whoever started them."""
    return [Jail._of(record) for record in registry.jails()]


def completed(process: Process | AsyncProcess, out: Any, err: Any, check: bool) -> CompletedProcess[Any]:
    """The result of a command that has ended. Raises CalledProcessError with ``check``."""
    assert process.returncode is not None
    if check and process.returncode:
        raise CalledProcessError(process.returncode, process.args, output=out, stderr=err)
    return CompletedProcess(process.args, process.returncode, out, err)


def _streams(
    input: Any, capture_output: bool, stdin: Stream, stdout: Stream, stderr: Stream
) -> tuple[Stream, Stream, Stream]:
    if input is not None:
        if stdin is not None:
            raise ValueError("stdin and input may not both be used")
        stdin = PIPE
    if capture_output:
        if stdout is not None or stderr is not None:
            raise ValueError("stdout and stderr may not be used with capture_output")
        stdout = stderr = PIPE
    return stdin, stdout, stderr
