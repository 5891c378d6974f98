"""Streams that stay on the host: a pipe with a pump, or a pty, which ``core.relay`` carries."""

from __future__ import annotations

import posix

from jailng.linux import pty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.stdio import Streams


class Pump:
    """A stream of which the jail has the one end of a pipe; ``pipe`` is ours, ``stream`` the host's descriptor.

    ``index`` is 0, 1 or 2. ``also`` is the host's descriptor 2 where it is the same file as 1 and shares the pipe, and
    ``peek`` the reading end of a pipe for 0, kept to see what the command has left unread; -1 where there is none.
    ``begin`` is where the file was then.
    """

    __slots__ = ("also", "begin", "index", "peek", "pipe", "stream")

    def __init__(self, index: int, pipe: int, stream: int, peek: int, begin: int) -> None:
        self.index = index
        self.pipe = pipe
        self.stream = stream
        self.peek = peek
        self.begin = begin
        self.also = -1

    def close_pipe(self) -> None:
        """Let the jail see that this stream has ended."""
        if self.pipe >= 0:
            posix.close(self.pipe)
            self.pipe = -1


class Terminal:
    """A pty of the jail. Both ends stay open on the host, so that its hanging up is ours to decide.

    ``provisional`` are settings from a terminal that another job was using then, a shell's for editing lines.
    """

    __slots__ = ("master", "provisional", "slave")

    def __init__(self, master: int, slave: int) -> None:
        self.master = master
        self.slave = slave
        self.provisional = b""

    def look_like(self, model: int) -> None:
        """Have the settings and the size of the terminal ``model``. Raises OSError."""
        pty.set_attributes(self.slave, pty.attributes(model))
        pty.copy_size(model, self.master)
        if not pty.in_foreground(model):
            self.provisional = pty.attributes(self.slave)

    def come_to_front(self, settings: bytes) -> None:
        """Have these, if it has had provisional ones until now, and nobody inside has others. Raises OSError."""
        if self.provisional and pty.attributes(self.slave) == self.provisional:
            pty.set_attributes(self.slave, settings)
        self.provisional = b""

    def hang_up(self) -> None:
        """Close both ends: the kernel hangs up on whoever has the terminal inside."""
        if self.master >= 0:
            posix.close(self.master)
            posix.close(self.slave)
            self.master = self.slave = -1


def give_terminal(streams: Streams, root: int | None, base: int) -> None:
    """The three streams are one terminal: they become a pty of the jail. Raises OSError."""
    streams.terminal = Terminal(*pty.open_pair(root, base))
    streams.terminal.look_like(streams.host[0])
    streams.inside = [streams.terminal.slave] * 3
    streams.owned = [True, True, True]


def give_pipe(streams: Streams, index: int, base: int) -> None:
    """A stream that cannot go in as it is: a pipe, with a pump on the host. Raises OSError."""
    reading, writing = posix.pipe2(posix.O_CLOEXEC)
    theirs, ours = (writing, reading) if index else (reading, writing)
    fd = streams.host[index]
    begin = _position(fd) if index == 0 else -1
    peek = theirs if begin >= 0 else -1
    if peek < 0:
        streams.temporary.append(theirs)
    streams.pumps.append(Pump(index, ours, fd, peek, begin))
    posix.set_blocking(ours, False)
    posix.fchown(theirs, base, base)  # else nobody inside could open /dev/stdout
    streams.inside[index] = theirs
    streams.owned[index] = True


def _position(fd: int) -> int:
    """Where a file is, -1 for what has no places."""
    try:
        return posix.lseek(fd, 0, 1)
    except OSError:
        return -1
