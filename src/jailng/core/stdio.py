"""What a command in a jail gets as its standard streams. Decided here, on the host, before the command is born.

A descriptor is a way back. A file of the host a jailed root truncates or opens anew (/proc/self/fd), into a terminal
it types on the administrator's behalf (TIOCSTI), with a network socket it speaks from the host's own network. So only
what leads to one peer and nowhere else goes in as it is: an anonymous pipe, a connected unix socket. Three streams that
are one terminal become a pty of the jail, /dev/null becomes the jail's own, and for the rest there is a pipe with a
pump on the host (``relay``, which is loaded for these only).
"""

from __future__ import annotations

import _signal
import posix

from jailng.linux import filekind, mount
from jailng.linux.libc import EBADF, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from posix import stat_result

    from jailng.core.passwd import User
    from jailng.core.program import Program
    from jailng.core.pump import Pump, Terminal

_TIOCSCTTY = 0x540E
_AF_UNIX, _SOCK_STREAM, _SOCK_SEQPACKET = 1, 1, 5

_MODES = {0: posix.O_RDONLY, 0o400: posix.O_RDONLY, 0o200: posix.O_WRONLY, 0o600: posix.O_RDWR}
NEWBORN = -1  # for the root of a jail whose tree is being made, and that nobody has entered
ELSEWHERE = -2  # for that of one to which the descriptors are sent (core/nested.py)
_NULL = posix.makedev(1, 3)
_STRICT = mount.RESOLVE_NO_SYMLINKS | mount.RESOLVE_NO_MAGICLINKS


class Streams:
    """The standard streams of one command, between ``prepare`` and the end of ``wait``.

    ``host`` are the caller's descriptors, ``inside`` those that become 0, 1 and 2; ``owned`` says of which the inode is
    ours to give away. ``passed`` are the indices that go in as they are, ``null`` is a null device once it is needed;
    ``later`` are those that the process makes the jail's null device itself, inside.
    """

    __slots__ = ("host", "inside", "later", "null", "owned", "passed", "pumps", "temporary", "terminal")

    def __init__(self, host: tuple[int, int, int]) -> None:
        self.host = host
        self.inside = [-1, -1, -1]
        self.later: list[int] = []
        self.null = -1
        self.owned = [False, False, False]
        self.passed: list[int] = []
        self.pumps: list[Pump] = []
        self.terminal: Terminal | None = None
        self.temporary: list[int] = []

    def close_inside(self) -> None:
        """Once the child is born: close what only it needs, else no end of file would ever travel."""
        while self.temporary:
            posix.close(self.temporary.pop())

    def close(self) -> None:
        """Close all that ``prepare`` opened. The host's descriptors stay."""
        self.close_inside()
        for pump in self.pumps:
            pump.close_pipe()
            if pump.peek >= 0:
                posix.close(pump.peek)
        if self.terminal is not None:
            self.terminal.hang_up()
        self.pumps, self.terminal = [], None

    def descriptors(self) -> list[int]:
        """What the process that will be the command has to inherit."""
        return [fd for fd in self.inside if fd >= 0]

    def install(self, way: Program) -> None:
        """Have a program, which leads a session, make 0, 1 and 2 what was prepared, and the pty its terminal."""
        for index, fd in enumerate(self.inside):
            if index in self.later:
                way.must("close", index)
            elif fd != index:
                way.must("dup3", fd, index, 0)
        if self.terminal is not None:
            way.must("ioctl", 0, _TIOCSCTTY, 0)

    def complete(self, way: Program) -> None:
        """Have a program, in the jail and the first of all to be there, open what was left for ``later``.

        Its /dev is a moment old, so that null is what the builder made, or is not there.
        """
        if self.later:
            path, how = way.text("/dev/null"), way.data(words(posix.O_RDWR | posix.O_NOCTTY, 0, _STRICT))
            way.must("openat2", mount.AT_FDCWD, path, how, 24, label="open /dev/null")  # the lowest that is closed
            for index in self.later[1:]:
                way.must("dup3", self.later[0], index, 0)

    def give_to(self, way: Program, user: User) -> None:
        """Have a program, in the jail and still its root, make the user's what we made: he can open it by name.

        A pty keeps its group.
        """
        for index in (0, 1, 2):
            if user.uid != 0 and self.owned[index]:
                way.must("fchown", index, user.uid, user.gid if self.terminal is None else -1)


def occupy() -> None:
    """Open /dev/null where 0, 1 or 2 is closed. To be called before anything else is opened: it would land there."""
    for fd in (0, 1, 2):
        try:
            posix.fstat(fd)
        except OSError as error:
            if error.errno != EBADF:
                raise
            posix.set_inheritable(posix.open("/dev/null", posix.O_RDWR), True)


def needs_tree(fds: tuple[int, int, int]) -> bool:
    """Whether what a command gets for these takes more of the jail than its null device: a pty."""
    return _is_one_terminal(fds, [_status(fd) for fd in fds])


def prepare(root: int | None, base: int, fds: tuple[int, int, int] = (0, 1, 2), attended: bool = True) -> Streams:
    """Decide what a command gets for the host's ``fds`` and make it; nothing of the host's is changed yet.

    ``root`` is an O_PATH descriptor of the jail's root, whose devpts and null device are used (None: private ones), or
    NEWBORN, where nothing ``needs_tree`` and the jail will have a null device, or ELSEWHERE, where nothing does and
    whoever takes the descriptors will see to the null device;
    ``base`` is the host's number for the jail's uid and gid 0. A number of ``fds`` that is not open means null. Not
    ``attended``, nobody will ``wait``: null then, too, for what there would have to be a pump or a pty. Raises OSError.
    """
    occupy()
    if _signal.getsignal(_signal.SIGCHLD) == _signal.SIG_IGN:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # inherited over exec, and no status would ever be told
    streams = Streams(fds)
    try:
        status = [_status(fd) for fd in fds]
        for index, one in enumerate(status):
            if one is not None and not (attended or _leads_nowhere_else(fds[index], one)):
                status[index] = None
        if _is_one_terminal(fds, status):
            from jailng.core import pump

            pump.give_terminal(streams, root, base)
        else:
            for index in (0, 1, 2):
                _give(streams, index, status, root, base)
        _keep_clear(streams)
    except BaseException:
        streams.close()
        raise
    return streams


def _status(fd: int) -> stat_result | None:
    try:
        return posix.fstat(fd)
    except OSError as error:
        if error.errno != EBADF:
            raise
        return None


def _is_one_terminal(fds: tuple[int, int, int], status: list[stat_result | None]) -> bool:
    for one in status:
        if one is None or filekind.of(one) != filekind.CHARACTER or one.st_rdev == _NULL:
            return False
    if not (posix.isatty(fds[0]) and posix.isatty(fds[1]) and posix.isatty(fds[2])):
        return False
    from jailng.linux import pty

    return pty.device(fds[0]) == pty.device(fds[1]) == pty.device(fds[2])


def _give(streams: Streams, index: int, status: list[stat_result | None], root: int | None, base: int) -> None:
    own = status[index]
    fd = streams.host[index]
    if own is None or (filekind.of(own) == filekind.CHARACTER and own.st_rdev == _NULL):
        if root == NEWBORN:
            streams.later.append(index)
        elif root == ELSEWHERE:
            streams.inside[index] = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
            streams.temporary.append(streams.inside[index])
        else:
            streams.inside[index] = _null_of(streams, root)
    elif _leads_nowhere_else(fd, own):
        streams.inside[index] = _anew(streams, fd, own)
        streams.passed.append(index)
    elif index == 2 and streams.owned[1] and _is_same_file(streams.host, status):
        streams.inside[2] = streams.inside[1]
        streams.owned[2] = True
        streams.pumps[-1].also = fd
    else:
        from jailng.core import pump

        pump.give_pipe(streams, index, base)


def _leads_nowhere_else(fd: int, status: stat_result) -> bool:
    kind = filekind.of(status)
    if kind == filekind.FIFO:  # one with a name can be opened, and has an owner, mode and path of the host's
        return posix.readlink(f"/proc/self/fd/{fd}").startswith("pipe:[")  # a path begins with a slash
    return kind == filekind.SOCKET and _is_connected_unix(fd)


def _anew(streams: Streams, fd: int, status: stat_result) -> int:
    """A pipe opened anew: what fcntl(2) makes of it inside (O_NONBLOCK) is not for all on the host who share ``fd``."""
    if filekind.of(status) != filekind.FIFO:
        return fd
    place = f"/proc/self/fd/{fd}"
    try:
        # The link's mode is the descriptor's (proc_pid_fd(5)); fcntl(2) would be a module more.
        anew = posix.open(place, _MODES[posix.lstat(place).st_mode & 0o600] | posix.O_CLOEXEC)
    except OSError:
        return fd  # another user's, as where this is inside a jail
    streams.temporary.append(anew)
    return anew


def _is_connected_unix(fd: int) -> bool:
    # Any other could be connected anew, in the network namespace that it comes from: the host's.
    from _socket import socket

    view = socket(fileno=fd)
    try:
        if view.family != _AF_UNIX or view.type not in (_SOCK_STREAM, _SOCK_SEQPACKET):
            return False
        view.getpeername()
        return True
    except OSError:
        return False
    finally:
        view.detach()


def _is_same_file(fds: tuple[int, int, int], status: list[stat_result | None]) -> bool:
    one, two = status[1], status[2]
    if one is None or two is None:
        return False
    if posix.isatty(fds[1]) and posix.isatty(fds[2]):
        from jailng.linux import pty

        return pty.device(fds[1]) == pty.device(fds[2])
    return (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)


def _null_of(streams: Streams, root: int | None) -> int:
    if streams.null < 0:
        from jailng.core import null

        streams.null = null.open_for(root)
        streams.temporary.append(streams.null)
    return streams.null


def _keep_clear(streams: Streams) -> None:
    """Move what would be overwritten while 0, 1 and 2 are put in place."""
    for index, fd in enumerate(streams.inside):
        if 0 <= fd < 3 and fd != index:
            streams.inside[index] = posix.dup(fd)
            streams.temporary.append(streams.inside[index])
