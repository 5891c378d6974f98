"""jail(8), jls(8) and jexec(8) inside a jail: what on FreeBSD is asked of the kernel, asked of the jail's broker.

What it is asked are jail_set, jail_get, jail_attach and jail_remove. All else, configuration and hooks and terminals,
is this process's own business, with its own powers.
"""

from __future__ import annotations

import posix
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_DONTWAIT,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    socket,
)
from fcntl import F_GETFL, F_SETFL, F_SETOWN, fcntl

from jailng.core import own, registry, stdio, waiting
from jailng.core.wire import ELSEWHERE, Words, beside, failure, from_memfd, pack, received
from jailng.errors import JailError, not_permitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.attach import Command
    from jailng.core.passwd import User
    from jailng.params.model import Parameters

NAME = "broker"
SOCKET = f"{own.DIRECTORY}/{NAME}"
VERSION = "1"  # of what is said: the commands in a jail may be of another release than the host's
LARGEST = 1 << 17  # bytes of a call
MOST = 4  # descriptors
_F_SETSIG = 10
_SIGCHLD = 17


class Connection:
    """A call to the broker."""

    __slots__ = ("socket",)

    def __init__(self, called: str) -> None:
        """``called`` is the system call of FreeBSD that this stands for. Raises JailError: it is not permitted."""
        self.socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        try:
            self.socket.connect(SOCKET)
        except OSError:
            self.socket.close()
            raise not_permitted(called) from None

    def say(self, *said: str | int | list[str], fds: tuple[int, ...] = ()) -> None:
        """Tell the broker. Raises JailError."""
        try:
            self.socket.sendmsg([pack(*said)], beside(*fds))
        except OSError as error:
            raise JailError(f"the jail's broker: {error.strerror}") from None

    def hear(self, wait: bool = True) -> tuple[Words, list[int]] | None:
        """What the broker says, and the descriptors that come with it; None if not ``wait`` and there is nothing.

        Raises JailError with what it complains of, or where it has died.
        """
        flags = MSG_CMSG_CLOEXEC | (0 if wait else MSG_DONTWAIT)
        try:
            packet, controls, _, _ = self.socket.recvmsg(LARGEST, CMSG_SPACE(4 * MOST), flags)
        except BlockingIOError:
            return None
        except OSError as error:
            raise JailError(f"the jail's broker: {error.strerror}") from None
        fds = received(controls)
        if packet == ELSEWHERE:
            packet = from_memfd(fds.pop())
        if not packet:
            raise JailError("the jail's broker has died")
        said = Words(packet)
        if said.word() == "error":
            raise failure(said)
        return said, fds

    def answer(self) -> tuple[Words, list[int]]:
        """As ``hear``, and waits."""
        heard = self.hear()
        assert heard is not None
        return heard

    def close(self) -> None:
        """Hear no more of it; what was begun for this call, the broker ends."""
        self.socket.close()


def _ask(called: str, *said: str | int | list[str]) -> Words:
    connection = Connection(called)
    try:
        connection.say(VERSION, *said)
        return connection.answer()[0]
    finally:
        connection.close()


class Remote(registry.Record):
    """A jail in this one: what the broker tells of it. Nothing is locked here, the broker does that for each call."""

    __slots__ = ("making",)

    remote = True

    def __init__(self, jid: int) -> None:
        super().__init__(jid)
        self.making: Connection | None = None

    def alive(self) -> bool:
        """Whether it runs."""
        return self.jid != 0 and find(str(self.jid)) is not None

    def lock(self, wait: bool = True) -> bool:
        """Whether it runs."""
        return self.alive()

    lock_again = alive

    def unlock(self) -> None:
        """Nothing."""

    def append(self, lines: list[str]) -> None:
        """That it has been started is for the broker to know, which removes it if this process ends before."""
        if "up" in lines and self.making is not None:
            self.making.say("up")
            self.making.answer()
            self.making.close()
            self.making = None
        self.read("".join([line + "\n" for line in lines]))


def reserve(params: Parameters) -> Remote:
    """A jail that is not yet there. Raises JailError: it is not permitted."""
    if posix.geteuid() != 0:
        raise not_permitted("jail_set")
    Connection("jail_set").close()
    made = Remote(params.number("jid"))
    made.read("".join([f"param {line}\n" for line in params.to_lines()]))
    return made


def make(record: registry.Record, params: Parameters) -> list[str]:
    """jail_set(2) with JAIL_CREATE, for a jail that was reserved. What -v should tell of. Raises JailError."""
    assert isinstance(record, Remote)
    own = [f"{name}={str(params.flag(name)).lower()}" for name in ("mount.devfs", "mount.fdescfs", "mount.procfs")]
    record.making = Connection("jail_set")
    record.making.say(VERSION, "set", [*params.assignments(), *own])
    said, _ = record.making.answer()
    record.jid = said.number()
    params.identify(record.jid)
    record.read(f"param name={said.word()}\ninit 1 1\ncreated\n")
    return said.words()


def jails() -> list[registry.Record]:
    """The jails in this one, by ascending jid; none where it may have none."""
    try:
        said = _ask("jail_get", "get", "")
    except JailError:
        return []
    return _records(said)


def find(text: str) -> registry.Record | None:
    """The jail of that jid or name in this one."""
    try:
        said = _ask("jail_get", "get", text)
    except JailError:
        return None
    return next(iter(_records(said)), None)


def _records(said: Words) -> list[registry.Record]:
    found: list[registry.Record] = []
    flat = said.words()
    for jid, lines in zip(flat[::2], flat[1::2], strict=True):
        record = Remote(int(jid))
        record.read(lines)
        found.append(record)
    return found


def update(record: registry.Record, changes: Parameters) -> None:
    """jail_set(2) with JAIL_UPDATE. Raises JailError."""
    said = _ask("jail_set", "update", record.jid, changes.assignments())
    record.read(f"param name={said.word()}\n")


def jail_remove(record: registry.Record) -> None:
    """jail_remove(2). One that is not there any more counts as removed. Raises JailError."""
    _ask("jail_remove", "remove", record.jid)


def lend(record: registry.Record, interface: str) -> None:
    """SIOCSIFVNET: take an interface of this jail's to one in it. Raises JailError."""
    _ask("SIOCSIFVNET", "lend", record.jid, interface)


def members(record: registry.Record) -> list[int]:
    """The pids in a jail, as this jail numbers them."""
    return [int(pid) for pid in _ask("jail_get", "members", record.jid).words()]


class _Attached(waiting.Command):
    """A command whose parent is the broker's: it tells how that ended."""

    __slots__ = ("connection",)

    connection: Connection

    def reap(self) -> bool:
        """Whether the command has ended."""
        if self.status is None:
            heard = self.connection.hear(wait=False)
            if heard is not None:
                self.status = heard[0].number()
        return self.status is not None

    def is_stopped(self) -> bool:
        """Whether somebody has stopped it."""
        file = posix.open(f"/proc/self/fdinfo/{self.pidfd}", posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            text = posix.read(file, 4096)
        finally:
            posix.close(file)
        pid = text.partition(b"Pid:\t")[2].partition(b"\n")[0].decode()
        try:
            file = posix.open(f"/proc/{pid}/stat", posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:
            return False
        try:
            return posix.read(file, 4096).rpartition(b") ")[2][:1] in (b"T", b"t")
        finally:
            posix.close(file)


def attach(record: registry.Record, wanted: Command, fds: tuple[int, int, int], hand_over: bool) -> int:
    """jail_attach(2): run a command in the jail, relay, wait; the raw wait status. Raises JailError."""
    terminal = not wanted.background and stdio.needs_tree(fds)
    streams = stdio.Streams(fds) if terminal else stdio.prepare(stdio.ELSEWHERE, 0, fds, not wanted.background)
    connection = Connection("jail_attach")
    try:
        given = fds if terminal else tuple(streams.inside)
        owned = "".join([str(int(one)) for one in streams.owned])
        connection.say(VERSION, "attach", record.jid, owned, int(terminal), *_told(wanted), fds=given)
        _, held = connection.answer()
        if wanted.background:
            streams.close()
            return 0
        pidfd = held.pop(0)
        if terminal:
            from jailng.core import pump

            streams.terminal = pump.Terminal(*held)
        return _wait(connection, pidfd, streams, hand_over)
    except BaseException:
        streams.close()
        raise
    finally:
        connection.close()


def _wait(connection: Connection, pidfd: int, streams: stdio.Streams, hand_over: bool) -> int:
    # The kernel is to tell of what arrives as it tells of a child's end, which is what is waited for.
    fd = connection.socket.fileno()
    fcntl(fd, _F_SETSIG, _SIGCHLD)
    fcntl(fd, F_SETOWN, posix.getpid())
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | posix.O_ASYNC)

    def command(pid: int, pidfd: int, held: list[int], relayed: bool) -> waiting.Command:
        made = _Attached(pid, pidfd, held, relayed)
        made.connection = connection
        return made

    try:
        return waiting.wait(-1, pidfd, streams, hand_over, command_of=command)
    finally:
        posix.close(pidfd)


def _told(wanted: Command) -> list[str | int | list[str]]:
    """A command in words, as ``engine.behalf`` takes them."""
    user = wanted.user
    if user is None:
        who = ["none"]
    elif isinstance(user, str):
        who = ["named", user]
    else:
        who = ["known", *_fields(user)]
    environment, added = [[f"{key}={value}" for key, value in one.items()] for one in (wanted.env, wanted.added)]
    cwd = [] if wanted.cwd is None else [wanted.cwd]
    return [wanted.argv, environment, who, cwd, int(wanted.login), int(wanted.background), wanted.label, added]


def _fields(user: User) -> list[str]:
    groups = ",".join([str(gid) for gid in user.groups])
    return [user.name, str(user.uid), str(user.gid), groups, user.home, user.shell]
