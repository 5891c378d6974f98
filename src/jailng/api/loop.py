"""The same in an asyncio event loop: requests that do not keep it, and commands with asyncio's streams."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter

from jailng.api.command import Command, Pipes
from jailng.api.connection import Channel, Died, heard
from jailng.api.process import CHUNK, Deadline
from jailng.core.wire import LARGEST, Words
from jailng.errors import JailError

# A request is sent again after so many seconds where the socket to the worker is full. The worker empties it between
# any two things that it does, so that this hardly ever happens.
_PAUSE = 0.002


async def ask(packet: bytes, fds: list[int] | None = None) -> Channel:
    """Send a request. Raises JailError where there can be no worker."""
    while True:
        try:
            channel = Channel(packet, fds or (), wait=False)
        except BlockingIOError:
            await asyncio.sleep(_PAUSE)
        else:
            channel.socket.setblocking(False)
            return channel


async def listen(channel: Channel) -> Words:
    """The next thing that the worker says. Raises JailError, which may be what it says."""
    loop = asyncio.get_running_loop()
    try:
        return heard(await loop.sock_recv(channel.socket, LARGEST))
    except ConnectionResetError:
        return heard(await loop.sock_recv(channel.socket, LARGEST))


async def answer(packet: bytes) -> Words:
    """A request with one answer. Raises JailError."""
    channel = await ask(packet)
    try:
        return await listen(channel)
    finally:
        channel.close()


class AsyncProcess:
    """A command that ``Jail.apopen`` has started, with the interface of asyncio.subprocess.Process.

    ``args`` is the command as it was given, ``pid`` its number on the host; ``stdin`` is a StreamWriter, ``stdout`` and
    ``stderr`` are StreamReaders where PIPE was asked for, else None. ``returncode`` is None until it has ended.
    """

    def __init__(self, command: Command, channel: Channel, pid: int) -> None:
        self.args = command.args
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: StreamWriter | None = None
        self.stdout: StreamReader | None = None
        self.stderr: StreamReader | None = None
        self._channel = channel
        self._trouble: JailError | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(channel.socket, self._hear)

    async def connect(self, mine: list[int | None]) -> None:
        """Make streams of our ends of its pipes; those that have been taken over are None afterwards."""
        for index, fd in enumerate(mine):
            if fd is not None:
                mine[index] = None
                if index == 0:
                    self.stdin = await self._writer(fd)
                elif index == 1:
                    self.stdout = await self._reader(fd)
                else:
                    self.stderr = await self._reader(fd)

    async def _writer(self, fd: int) -> StreamWriter:
        pipe = open(fd, "wb", buffering=0)  # noqa: SIM115  # the transport closes it
        protocol = StreamReaderProtocol(StreamReader(loop=self._loop), loop=self._loop)
        transport, _ = await self._loop.connect_write_pipe(lambda: protocol, pipe)
        self._transports.append(transport)
        return StreamWriter(transport, protocol, None, self._loop)

    async def _reader(self, fd: int) -> StreamReader:
        pipe = open(fd, "rb", buffering=0)  # noqa: SIM115  # the transport closes it
        reader = StreamReader(limit=CHUNK, loop=self._loop)
        transport, _ = await self._loop.connect_read_pipe(lambda: StreamReaderProtocol(reader, loop=self._loop), pipe)
        self._transports.append(transport)
        return reader

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: returncode: {self.returncode} args: {self.args!r}>"

    def _hear(self) -> None:
        try:
            words = heard(self._channel.socket.recv(LARGEST))
            self.returncode = os.waitstatus_to_exitcode(words.number())
        except (BlockingIOError, ConnectionResetError):
            return
        except Died as error:
            self._trouble = error
            self.returncode = -signal.SIGKILL  # as the worker ends, so does the command
        except JailError as error:
            self._trouble = error
            return
        self._loop.remove_reader(self._channel.socket)
        self._channel.close()
        if not self._ended.done():
            self._ended.set_result(None)

    async def wait(self) -> int:
        """Wait until it has ended; the ``returncode``.

        Raises JailError where a stream of the program's own could not be read or written.
        """
        await asyncio.shield(self._ended)
        if self._trouble is not None:
            raise self._trouble
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Send the command a signal; nothing happens where it has ended."""
        if self.returncode is None:
            self._channel.say(str(int(sig)))

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL. Processes that it has started remain, as members of the jail."""
        self.send_signal(signal.SIGKILL)

    async def communicate(self, input: bytes | None = None) -> tuple[bytes | None, bytes | None]:
        """Write ``input``, read until both outputs end, and wait; what was read, None for what is no pipe."""
        read: list[list[bytes]] = [[], []]
        await self.exchange(input, read)
        return joined(self.stdout, read[0]), joined(self.stderr, read[1])

    async def exchange(self, input: bytes | None, read: list[list[bytes]]) -> None:
        """``communicate`` into two lists of chunks, which are right also where it is cancelled."""
        await asyncio.gather(_feed(self.stdin, input), _drain(self.stdout, read[0]), _drain(self.stderr, read[1]))
        await self.wait()

    async def end(self) -> None:
        """Kill it, and wait until it has ended; nobody is interested in it any more."""
        self.kill()
        self.close()
        await asyncio.shield(self._ended)

    def close(self) -> None:
        """Close its streams."""
        for transport in self._transports:
            transport.close()


async def start(command: Command, pipes: Pipes) -> AsyncProcess:
    """Start a command; ``pipes`` are closed. If this is cancelled it is killed. Raises JailError."""
    try:
        channel = await ask(command.packet(pipes), pipes.fds)
        try:
            started = await listen(channel)
        except BaseException:
            channel.say(str(int(signal.SIGKILL)))
            channel.close()
            raise
        process = AsyncProcess(command, channel, started.number())
        mine = pipes.take()
    finally:
        pipes.close()
    try:
        await process.connect(mine)
    except BaseException:
        for fd in mine:
            if fd is not None:
                os.close(fd)
        await process.end()
        raise
    return process


async def run(
    command: Command, pipes: Pipes, given: bytes | None, timeout: float | None
) -> tuple[AsyncProcess, list[bytes | None]]:
    """Start a command, exchange, and wait. If that takes longer or is cancelled, it is killed.

    Raises TimeoutExpired, JailError.
    """
    read: list[list[bytes]] = [[], []]
    process: AsyncProcess | None = None

    def output() -> list[bytes | None]:
        streams = (process.stdout, process.stderr) if process is not None else (None, None)
        return [joined(stream, chunks) for stream, chunks in zip(streams, read, strict=True)]

    try:
        async with asyncio.timeout(timeout):
            process = await start(command, pipes)
            await process.exchange(given, read)
    except BaseException as error:
        if process is not None:
            await process.end()
        if isinstance(error, TimeoutError):
            raise Deadline(timeout).expired(command.args, *output()) from None
        raise
    finally:
        if process is not None:
            process.close()
    return process, output()


def joined(stream: StreamReader | None, chunks: list[bytes]) -> bytes | None:
    """What was read of a stream, None where there is no such."""
    return None if stream is None else b"".join(chunks)


async def _feed(stream: StreamWriter | None, data: bytes | None) -> None:
    if stream is not None:
        try:
            if data:
                stream.write(data)
                await stream.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # nobody reads it
        finally:
            stream.close()
        try:
            await stream.wait_closed()
        except (BrokenPipeError, ConnectionResetError):
            pass


async def _drain(stream: StreamReader | None, chunks: list[bytes]) -> None:
    if stream is not None:
        while data := await stream.read(CHUNK):
            chunks.append(data)
