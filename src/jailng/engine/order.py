"""A command that a program has ordered from its worker, from the request to the status with which it ends.

On its way in a command is never waited for: a jailed root can stop it there. If its streams have to be carried, because
they are files or a terminal of the host, it has an attendant: a child of the worker that does what jexec(8) does.
"""

from __future__ import annotations

import _signal
import posix
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_DONTWAIT,
    SOCK_SEQPACKET,
    socket,
    socketpair,
)

from jailng.core import attach, lookup, passwd, relay, stdio, waiting  # noqa: F401  # an attendant has use for relay
from jailng.core.wire import Words, beside, pairs, received
from jailng.engine import held
from jailng.engine.loop import Task, complaint, heard, tell
from jailng.errors import JailError
from jailng.linux import child, ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.attach import Entry
    from jailng.core.passwd import User
    from jailng.core.program import Running
    from jailng.core.stdio import Streams
    from jailng.engine.loop import Kind, Loop, Outcome

_SIGKILL, _SIGTERM = 9, 15


class Order:
    """A command on its way: what is to run in which jail, with what for streams, and where to tell of it.

    ``numbers`` are the descriptors of the three streams, -1 for the null device; ``ours`` the streams for which the
    program has made a pipe; ``group`` the program's process group. ``channel`` is -1 once nobody listens. ``task`` is
    the child that is at it now, ``inner`` a pidfd of the command where an attendant has started it, and ``running`` is
    there until the command has been executed. ``pending`` are signals for a command that is not there yet.
    """

    __slots__ = (
        "_fds", "channel", "command", "group", "inner", "jail", "loop", "numbers", "ours", "pending", "running", "task",
    )  # fmt: skip

    def __init__(self, loop: Loop, jail: held.Jail, request: Words, channel: int, fds: list[int]) -> None:
        """Read it from a request. ``fds`` are those that came beside it, and are closed when the command has them."""
        user, cwd, self.group = request.word() or None, request.word() or None, request.number()
        first, second, third = [fds[int(word)] if word else -1 for word in request.words()]
        self.numbers = (first, second, third)
        self.ours = [int(word) for word in request.words()]
        self.command = attach.Command(request.words(), dict(pairs(request.words())), user, cwd)
        self.loop = loop
        self.jail = jail
        self.channel = channel
        self.task: Task | None = None
        self.inner = -1
        self.running: Running | None = None
        self.pending: list[int] = []
        self._fds = fds

    def begin(self) -> None:
        """Set about it. Errors are told on the channel."""
        self.loop.watch(self.channel, self._heard)
        if isinstance(self.command.user, str):
            self._look_up(self.command.user)
        else:
            self._enter(None)

    # What the program says, and what it is told

    def _heard(self) -> None:
        """The program has a signal for the command, or will hear no more of it."""
        packet = heard(self.channel) if self.channel >= 0 else None
        if packet and self.task is not None:
            self._signal(self.task, int(packet))
        elif packet == b"":
            self._stop_telling()

    def _signal(self, task: Task, number: int) -> None:
        if self.inner < 0:
            # A look-up may be over, and an attendant have a command, of which this process has not heard yet.
            if task.kind in ("look-up", "attendant"):
                self.pending.append(number)
            if task.kind != "attendant":
                self.loop.signal(task, number)
            return
        self._signal_inner(number)

    def _signal_inner(self, number: int) -> None:
        try:
            ns.pidfd_send_signal(self.inner, number)
        except OSError:
            pass  # it has ended, or there is no such signal

    def _stop_telling(self) -> None:
        channel, self.channel = self.channel, -1
        if channel >= 0:
            self.loop.close(channel)

    def _fail(self, error: Exception) -> None:
        self._close()
        try:
            held.living(self.jail.jid, self.jail.identity)
        except JailError as ended:
            error = ended  # of which all else is a consequence
        tell(self.channel, *complaint(error))
        self._stop_telling()

    def _close(self) -> None:
        while self._fds:
            posix.close(self._fds.pop())

    # Its way in

    def _look_up(self, name: str) -> None:
        def find() -> list[str]:
            _signal.signal(_SIGTERM, _give_up)
            user = lookup.find(self.jail.enter(self.loop.limit), name)
            return [user.name, str(user.uid), str(user.gid), user.home, user.shell, *[str(gid) for gid in user.groups]]

        try:
            self.task = self.loop.send_off("look-up", self.jail.jid, find, self._looked_up)
        except OSError as error:
            self._fail(error)

    def _looked_up(self, outcome: Outcome) -> None:
        self.task = None
        try:
            name, uid, gid, home, shell, *groups = outcome.words()
            user = passwd.User(name, int(uid), int(gid), [int(group) for group in groups], home, shell)
            if self.pending:
                _give_up()
        except (JailError, OSError) as error:
            self._fail(error)
        else:
            self._enter(user)

    def _enter(self, user: User | None) -> None:
        try:
            entry = self.jail.enter(self.loop.limit)
            streams = self._streams(entry.base)
            try:
                if streams.pumps or streams.terminal is not None:
                    self._attend(entry, user, streams)
                else:
                    self._go_in(attach.begin(entry, self.command, user, streams))
            finally:
                streams.close()
        except (JailError, OSError) as error:
            self._fail(error)
        self._close()

    def _streams(self, base: int) -> Streams:
        try:
            root = attach.open_tree_of(self.jail.record)
        except (FileNotFoundError, ProcessLookupError):  # PID 1 is on its way out, though it is still there
            raise held.not_found(self.jail.jid) from None
        try:
            streams = stdio.prepare(root, base, self.numbers)
        finally:
            posix.close(root)
        for index in self.ours:  # the jail may open by name what was made for it
            posix.fchown(streams.inside[index], base, base)
            streams.owned[index] = True
        return streams

    def _go_in(self, running: Running) -> None:
        self.running = running
        self._expect("command", running.pid)
        posix.set_blocking(running.said, False)
        self.loop.watch(running.said, self._arrived)

    def _arrived(self) -> None:
        running = self.running
        if running is None:
            return
        self.loop.ignore(running.said)
        try:
            failed = running.complaint()
        except BlockingIOError:  # a false alarm
            self.loop.watch(running.said, self._arrived)
            return
        self.running = None
        if failed:
            self._fail(JailError(failed))
        else:
            tell(self.channel, "ok", running.pid)

    # Its attendant

    def _attend(self, entry: Entry, user: User | None, streams: Streams) -> None:
        """Have a child enter, carry the streams, and end as the command does.

        If that were killed on the way in, it could leave a process in the jail that a jailed root has stopped. So it
        sends a pidfd of the command as soon as that is born, and from then on it is the command that gets the signals.
        """
        worker = posix.getpid()
        born, say = socketpair(AF_UNIX, SOCK_SEQPACKET)
        pid, pidfd = child.clone3()
        if pid == 0:
            self._be_the_attendant(worker, say, entry, user, streams)
        posix.close(pidfd)
        say.close()
        self._expect("attendant", pid)
        self.loop.watch(born.fileno(), lambda: self._born(born))

    def _be_the_attendant(self, worker: int, say: socket, entry: Entry, user: User | None, streams: Streams) -> None:
        try:
            child.die_with_parent(_SIGKILL)
            self.loop.be_a_child()
            if posix.getppid() != worker:
                posix._exit(1)
            try:
                posix.setpgid(0, self.group)  # the terminal is ours to read while the program is in front
            except OSError:
                pass  # the program has gone to another session
            running = attach.begin(entry, self.command, user, streams)
            inner = ns.pidfd_open(running.pid)
            say.sendmsg([b"born"], beside(inner))
            running.arrived()
            tell(self.channel, "ok", running.pid)
            waiting.finish(waiting.wait(running.pid, inner, streams, hand_over=True))
        except BaseException as error:
            tell(self.channel, *complaint(error))
        finally:
            posix._exit(1)

    def _born(self, end: socket) -> None:
        """The attendant has sent a pidfd of the command, or has ended."""
        try:
            _, controls, _, _ = end.recvmsg(16, CMSG_SPACE(4), MSG_CMSG_CLOEXEC | MSG_DONTWAIT)
        except BlockingIOError:
            return
        for inner in received(controls):
            self.inner = inner
            for number in self.pending:
                self._signal_inner(number)
            if self.task is None:
                self._let_go()
        self.loop.ignore(end.fileno())
        end.close()

    def _let_go(self) -> None:
        inner, self.inner = self.inner, -1
        if inner >= 0:
            posix.close(inner)

    # Its end

    def _expect(self, kind: Kind, pid: int) -> None:
        self.task = Task(kind, self.jail.jid, pid, self._ended)
        self.loop.tasks[pid] = self.task

    def _ended(self, status: int) -> None:
        self._arrived()  # it may have ended on its way in
        self.task = None
        self._let_go()
        tell(self.channel, "exit", status)
        self._stop_telling()


def _give_up(*_: object) -> None:
    raise JailError("nobody waits for it any more")
