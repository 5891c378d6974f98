"""Carrying bytes between the host's descriptors and a jail's pipes or pty while a command runs. Loaded only for that.

Every byte passes unchanged. Nothing waits but in poll(2), where a signal is one more event. A descriptor that others
share is not made non-blocking for that, but opened anew where it can be.
"""

from __future__ import annotations

import _signal
import posix
import sys
import time
from errno import EAGAIN, ECONNRESET, EIO, ENOTCONN, EPIPE
from fcntl import F_GETFL, fcntl, ioctl
from select import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, poll

from jailng.core import waiting
from jailng.errors import JailError
from jailng.linux import filekind, pty, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.pump import Pump, Terminal
    from jailng.core.stdio import Streams
    from jailng.core.waiting import Command

_CHUNK = 65536
_FIONREAD = 0x541B
_TROUBLE = POLLERR | POLLHUP | POLLNVAL
# The other side has gone: no failure, for a command that writes to a closed pipe would not speak of one either.
_GONE = (EPIPE, ECONNRESET, ENOTCONN)
# More than a pty's two buffers hold (tty_buffer.c: 640 kB; n_tty.c: 4 kB): all that was written before is among it.
_ALL_THAT_A_PTY_HOLDS = 1 << 20
_SOON = 2.0  # seconds that a command has to stop in: later it is a jailed root's doing
# A shell that brings a running job to the foreground does not tell it, so that in the background we look, in ms.
_LOOK_AGAIN = 250
_MOMENT = 0.2  # seconds for those whom the command has left behind with its output
_NAMES = ("stdin", "stdout", "stderr")
_SEEK_SET, _SEEK_CUR = 0, 1


class _End:
    """One side of a flow, read and written without waiting as far as the kernel lets us; ``polled`` tells when."""

    __slots__ = ("fd", "is_socket", "is_terminal", "opened", "polled")

    def __init__(self, fd: int, ours: bool) -> None:
        """What is ``ours`` is non-blocking already."""
        kind = 0 if ours else filekind.of(posix.fstat(fd))
        self.is_socket = kind == filekind.SOCKET
        self.is_terminal = kind == filekind.CHARACTER and posix.isatty(fd)
        self.opened = _open_anew(fd) if self.is_terminal or kind == filekind.FIFO else -1
        self.fd = self.opened if self.opened >= 0 else fd
        # A fifo hangs up on who had it open when the last writer went, and on nobody who opens it after that.
        self.polled = fd if kind == filekind.FIFO else self.fd

    def read(self, size: int) -> bytes | None:
        """Up to ``size`` bytes; none at the end, None where there is nothing now. Raises OSError."""
        try:
            if self.is_socket:
                data = bytearray(size)
                return bytes(data[: posix.preadv(self.fd, [data], -1, posix.RWF_NOWAIT)])
            return posix.read(self.fd, size)
        except OSError as error:
            if error.errno == EAGAIN:
                return None
            if self.has_gone(error):
                return b""
            raise

    def write(self, data: memoryview) -> int:
        """How many bytes went; 0: not now. Raises OSError."""
        try:
            if self.is_socket:
                return posix.pwritev(self.fd, [data], -1, posix.RWF_NOWAIT)
            return posix.write(self.fd, data)
        except OSError as error:
            if error.errno == EAGAIN:
                return 0
            raise

    def has_gone(self, error: OSError) -> bool:
        """Whether that error means that there is nobody on the other side any more."""
        return error.errno in _GONE or (error.errno == EIO and self.is_terminal)

    def close(self) -> None:
        """Close what was opened anew."""
        if self.opened >= 0:
            posix.close(self.opened)
            self.opened = -1


def _open_anew(fd: int) -> int:
    flags = fcntl(fd, F_GETFL) & posix.O_ACCMODE | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC
    try:
        return posix.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        return -1


class _Flow:
    """Bytes on their way from one end to the other, one chunk at most.

    ``left`` is how many may still be read now that the command has ended; None before that. ``on_move``, if there is
    one, is told what has got through.
    """

    __slots__ = ("ended", "error", "held", "inward", "left", "on_end", "on_move", "paused", "sink", "source", "watched")

    def __init__(self, source: _End, sink: _End, inward: bool, on_end: Callable[[], None], watched: bool) -> None:
        """``on_end`` is told when nothing more will come; ``watched``: that nobody reads any more is such a case."""
        self.source = source
        self.sink = sink
        self.inward = inward
        self.on_end = on_end
        self.watched = watched
        self.held = memoryview(b"")
        self.left: int | None = None
        self.paused = self.ended = False
        self.error: OSError | None = None
        self.on_move: Callable[[bytes], None] | None = None

    def wishes(self) -> list[tuple[int, int]]:
        """What to ask poll(2) for."""
        if self.ended:
            return []
        if self.held:
            return [(self.sink.polled, POLLOUT)]
        source = [] if self.paused else [(self.source.polled, POLLIN)]
        return [*source, (self.sink.polled, 0)] if self.watched else source

    def step(self, ready: dict[int, int]) -> None:
        """Move what can be moved now, if poll(2) answered one of the wishes."""
        if self.watched and ready.get(self.sink.polled, 0) & POLLERR:
            self.end()
        for fd, events in self.wishes():
            if ready.get(fd, 0) & (events | _TROUBLE):
                self._move()
                return

    def finish(self, left: int) -> None:
        """Bring to its place what is held and what can be read at once, ``left`` bytes at most, and end."""
        self.left = left
        self._move()

    def catch_up(self) -> None:
        """Move what can be moved at once, but no more than a pty holds: whoever else writes does not keep us."""
        for _ in range(_ALL_THAT_A_PTY_HOLDS // _CHUNK):
            if not self._move():
                return

    def _move(self) -> bool:
        """Whether anything went on its way."""
        written = 0
        try:
            while not self.ended:
                if not self.held:
                    self._fill()
                written = self.sink.write(self.held) if self.held else 0
                if self.on_move is not None and written:
                    self.on_move(bytes(self.held[:written]))
                self.held = self.held[written:]
                if self.left is None or not written:
                    break
        except OSError as error:
            if not self.sink.has_gone(error):
                self.error = error
            self.end()
        return written > 0

    def _fill(self) -> None:
        if self.source.is_terminal and not pty.in_foreground(self.source.fd):
            self.paused = True  # SIGTTIN would stop us and so the command, which perhaps does not want to read at all
            return
        size = _CHUNK if self.left is None else min(_CHUNK, self.left)
        data = self.source.read(size) if size else b""
        if data:
            self.held = memoryview(data)
            if self.left is not None:
                self.left -= len(data)
        elif data is not None or self.left is not None:
            self.end()

    def end(self) -> None:
        """Nothing more will come."""
        if not self.ended:
            self.ended = True
            self.held = memoryview(b"")
            self.on_end()

    def close(self) -> None:
        """Let go of both ends."""
        self.source.close()
        self.sink.close()


class _Screen:
    """The caller's terminal, in raw mode while this process is in its foreground; ``saved`` is how it was then."""

    __slots__ = ("fd", "saved", "terminal")

    def __init__(self, fd: int, terminal: Terminal) -> None:
        self.fd = fd
        self.terminal = terminal
        self.saved: bytes | None = None

    def enter(self) -> bool:
        """Take the terminal over and have the pty follow its size; no where another job is in front."""
        try:
            if not pty.in_foreground(self.fd):
                self.saved = None
                return False
            if self.saved is None:
                self.saved = pty.attributes(self.fd)
            pty.set_attributes(self.fd, pty.raw(self.saved))
            if self.terminal.master >= 0:
                self.terminal.come_to_front(self.saved)
                pty.copy_size(self.fd, self.terminal.master)
        except OSError:
            pass  # hung up: reading will tell
        return True

    def leave(self) -> None:
        """Give the terminal back as it was."""
        if self.saved is not None:
            try:
                if pty.in_foreground(self.fd):
                    pty.set_attributes(self.fd, self.saved)
            except OSError:
                pass
            self.saved = None


class _Relay:
    """``asked``: until when a stop is what somebody has asked for, who has typed ^Z."""

    __slots__ = ("asked", "command", "flows", "screen")

    def __init__(self, command: Command, flows: list[_Flow], screen: _Screen | None) -> None:
        self.command = command
        self.flows = flows
        self.screen = screen
        self.asked = 0.0
        if screen is not None:
            flows[0].on_move = self._typed

    def run(self) -> None:
        """Until the command has ended and what it wrote is delivered, or a signal forbids to wait for that."""
        self._look()
        while not self.command.reap():
            self._turn()
        self.flows = [flow for flow in self.flows if not flow.inward]
        if self.screen is None:
            self._linger()
        for flow in self.flows:
            if not flow.ended:
                flow.finish(_ALL_THAT_A_PTY_HOLDS if self.screen else _readable(flow.source.fd))
        while not all(flow.ended for flow in self.flows):
            self._turn()

    def _linger(self) -> None:
        """Give what the command has left behind a moment to say what it has to: ``sh -c 'echo a & echo b'``."""
        until = time.monotonic() + _MOMENT
        while not all(flow.ended for flow in self.flows) and (left := until - time.monotonic()) > 0:
            self._turn(1000 * left)

    def _turn(self, pause: float | None = None) -> None:
        asked = {self.command.events: POLLIN}
        for flow in self.flows:
            for fd, events in flow.wishes():
                asked[fd] = asked.get(fd, 0) | events
            if flow.paused and not flow.ended:
                pause = _LOOK_AGAIN
        poller = poll()
        for fd, events in asked.items():
            poller.register(fd, events)
        ready = dict(poller.poll(pause))
        if not ready:
            self._look()
        for flow in self.flows:
            flow.step(ready)
        if ready.get(self.command.events, 0):
            for number, code in signals.read(self.command.events):
                self._hear(number, code)

    def _look(self) -> None:
        """Read again from a terminal that is ours again."""
        front = self.screen is None or self.screen.enter()
        for flow in self.flows:
            flow.paused = flow.inward and not front

    def _hear(self, number: int, code: int) -> None:
        if waiting.ends(number) and self.command.reap():
            self.command.give_up(number)
            for flow in self.flows:
                flow.end()
        elif self.screen is None:
            self.command.hear(number, code)
        elif number == _signal.SIGTSTP:
            self.screen.leave()
            waiting.stop_here()
        elif number == _signal.SIGCHLD:
            self.command.hear(number, code)
            self._see_to_stop(self.screen)
        elif number == _signal.SIGHUP and code == signals.SI_KERNEL and self.screen.terminal.master < 0:
            pass  # the terminal has hung up, so the pty has, and the kernel has told whoever is in there
        elif number != _signal.SIGWINCH:
            self.command.pass_on(number, code)
        if number in (_signal.SIGCONT, _signal.SIGTSTP, _signal.SIGWINCH):
            self._look()

    def _typed(self, data: bytes) -> None:
        """Have ^Z stop a command that leaves that to the terminal. A job of a shell's in there is none of ours."""
        screen = self.screen
        assert screen is not None
        try:
            master = screen.terminal.master
            if master < 0 or screen.saved is None or not pty.stops(master, data, screen.saved):
                return
            if posix.tcgetpgrp(master) != self.command.pid:
                return
            self.asked = time.monotonic() + _SOON
            if not signals.is_minded(self.command.pid, _signal.SIGTSTP):
                self.command.stop()
        except OSError:
            return  # it has hung up, or ended
        self._see_to_stop(screen)

    def _see_to_stop(self, screen: _Screen) -> None:
        """If the command stops because of ^Z so does our job, for whoever continues both. If nobody can, ^Z is nothing.

        A command that stops without being asked to stops nobody else: a jailed root could keep the host's programs so.
        """
        if time.monotonic() > self.asked or self.command.reap() or not self.command.is_stopped():
            return
        self.asked = 0.0
        for flow in self.flows:
            if not flow.inward:
                flow.catch_up()  # with which the command has put the screen in order
        screen.leave()
        waiting.stop_here(job=True)
        self.command.go_on()
        self._look()


def carry(command: Command, streams: Streams, hand_over: bool) -> None:
    """Carry the streams until the command has ended; its status is known then. Signals are blocked by the caller.

    Raises JailError where something could not be read or written.
    """
    screen = None
    flows: list[_Flow] = []
    try:
        if streams.terminal is not None:
            flows = _terminal_flows(streams.terminal, streams.host)
            screen = _Screen(flows[0].source.fd, streams.terminal)
        else:
            flows = [_pump_flow(pump, hand_over) for pump in streams.pumps]
        _Relay(command, flows, screen).run()
        for flow, pump in zip(flows, streams.pumps, strict=False):
            if pump.peek >= 0 and flow.error is None:
                _give_back(flow, pump)
    finally:
        if screen is not None:
            screen.leave()
        for flow in flows:
            flow.close()
    for flow, pump in zip(flows, streams.pumps, strict=False):
        if flow.error is not None and flow.error.errno:
            raise JailError(f"{_NAMES[pump.index]}: {posix.strerror(flow.error.errno)}")


def _terminal_flows(terminal: Terminal, host: tuple[int, int, int]) -> list[_Flow]:
    flows: list[_Flow] = []

    def hang_up() -> None:
        terminal.hang_up()
        for flow in flows:
            flow.end()

    keyboard, display, master = _End(host[0], False), _End(host[1], False), _End(terminal.master, True)
    flows.append(_Flow(keyboard, master, True, hang_up, False))
    flows.append(_Flow(master, display, False, hang_up, False))
    return flows


def _pump_flow(pump: Pump, hand_over: bool) -> _Flow:
    outside, inside = _End(pump.stream, False), _End(pump.pipe, True)
    inward = pump.index == 0

    def let_go() -> None:
        pump.close_pipe()
        if hand_over and pump.peek < 0:
            outside.close()
            waiting.give_up([fd for fd in (pump.stream, pump.also) if fd not in (-1, 2)])

    source, sink = (outside, inside) if inward else (inside, outside)
    return _Flow(source, sink, inward, let_go, inward and pump.peek < 0)


def _readable(fd: int) -> int:
    return int.from_bytes(ioctl(fd, _FIONREAD, bytes(4)), sys.byteorder)


def _give_back(flow: _Flow, pump: Pump) -> None:
    """Leave the file where the command stopped reading, for whoever reads on: `{ jexec a head -1; cat; } < file`.

    And not before where it was: root inside can write into its own standard input, and has no say over what was read
    of the file before.
    """
    unread = len(flow.held) + _readable(pump.peek)
    if unread:
        posix.lseek(pump.stream, max(posix.lseek(pump.stream, 0, _SEEK_CUR) - unread, pump.begin), _SEEK_SET)
