"""The broker's process (engine/broker.py): who calls, and a child for each call."""

from __future__ import annotations

import _signal
import posix
import sys
import time
from _socket import MSG_DONTWAIT, SO_PEERCRED, SOL_SOCKET, socket
from select import EPOLLHUP, EPOLLIN, epoll

from jailng import start
from jailng.core import attach, beside, interpreter, registry
from jailng.core.wire import pack
from jailng.engine import behalf
from jailng.errors import JailError
from jailng.linux import cgroup, child, letting, membership, ns, signals
from jailng.linux.libc import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

_SO_PEERPIDFD = 77  # Linux 6.5
_PR_SET_CHILD_SUBREAPER = 36
_SIGCHLD = 17
_SIGKILL, _SIGTERM = 9, 15
_IGNORED = (1, 2, 3, 13, 15)  # HUP INT QUIT PIPE TERM
_MOST = 64  # calls at once
_MOST_OF_OTHERS = 32  # of those that are not root's, so that root gets through
_PATIENCE = 30  # seconds
_UNPACKING = 2.0  # seconds that the package is to be left as it is
_BUSY = "the jail's broker has too many calls at once"


class Call:
    """A call that a child of this process attends to; that is killed when the caller has gone."""

    __slots__ = ("connection", "is_root", "pidfd", "watched")

    def __init__(self, connection: socket, pidfd: int, is_root: bool) -> None:
        self.connection = connection
        self.pidfd = pidfd
        self.is_root = is_root
        self.watched = True

    def end(self, number: int) -> None:
        """Signal whoever attends to it."""
        try:
            if self.pidfd >= 0:
                ns.pidfd_send_signal(self.pidfd, number)
        except OSError:
            pass

    def close(self) -> None:
        """It has been attended to."""
        letting.go(self.connection.close)  # what is in it may not have been read
        posix.close(self.pidfd)
        self.pidfd = -1


class Broker:
    """``record`` is the jail's, ``init`` a pidfd of its PID 1."""

    def __init__(self, listening: socket, record: Record, init: int) -> None:
        self.listening = listening
        self.record = record
        self.init = init
        self.owner = record.owner
        self.calls: dict[int, Call] = {}  # by pid
        self._epoll = epoll()
        self._gone: list[tuple[float, Call]] = []  # calls whose caller has gone, and until when they may take
        self._package = _package()

    def serve(self) -> None:
        """Until the jail has ended."""
        syscall("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for number in _IGNORED:
            _signal.signal(number, _signal.SIG_IGN)
        _signal.signal(_SIGCHLD, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, (_SIGCHLD,))
        deaths = signals.signalfd([_SIGCHLD])
        for fd in (self.listening.fileno(), self.init, deaths):
            self._epoll.register(fd, EPOLLIN)
        while True:
            ready = dict(self._epoll.poll(_PATIENCE if self._gone else -1))
            if self.init in ready:
                return
            for fd, events in ready.items():
                if events & EPOLLHUP:
                    self._hang_up(fd)
            if deaths in ready:
                signals.read(deaths)
                self._reap()
            if self.listening.fileno() in ready:  # last: what is accepted may have the number of what was closed
                if not self.calls:
                    self._follow_the_package()
                self._accept()
            self._insist()

    def _follow_the_package(self) -> None:
        """Begin anew as that which is installed by now: what a call takes of it would not go with what is loaded."""
        found = _package()
        if not found or found == self._package or time.time() - max(found) < _UNPACKING:
            return
        self._package = found
        posix.set_inheritable(self.listening.fileno(), True)
        try:
            argv = interpreter.command("jailng.engine.brokerage", self.listening.fileno(), self.record.jid)
            posix.execve(interpreter.PYTHON, argv, {})
        except OSError:
            posix.set_inheritable(self.listening.fileno(), False)  # it goes on as it is

    def _accept(self) -> None:
        try:
            fd, _ = self.listening._accept()  # type: ignore[attr-defined]  # accept4(2), close-on-exec
        except OSError:
            return  # the caller has gone already, or there is no descriptor left for it
        connection = socket(fileno=fd)
        try:
            is_root = self._identify(connection)
            others = sum([not call.is_root for call in self.calls.values()])
            if len(self.calls) >= _MOST or (others >= _MOST_OF_OTHERS and not is_root):
                connection.send(pack("error", 1, _BUSY), MSG_DONTWAIT)
                raise JailError(_BUSY)
            self._epoll.register(fd, EPOLLHUP)
            pid, pidfd = child.clone3()  # unless the jail has as many processes as it may
        except (JailError, OSError):
            letting.go(connection.close)
            return
        if pid == 0:
            self._attend(connection, is_root)
        self.calls[pid] = Call(connection, pidfd, is_root)

    def _identify(self, connection: socket) -> bool:
        """Whether the jail's root is at the other end, as the kernel has it. Raises JailError: it is no member."""
        uid = int.from_bytes(connection.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)[4:8], sys.byteorder)
        peer = int.from_bytes(connection.getsockopt(SOL_SOCKET, _SO_PEERPIDFD, 4), sys.byteorder)
        try:
            place = membership.of_process(peer)
        finally:
            posix.close(peer)
        if not self.record.holds(place):
            raise JailError("the caller is not in the jail")
        return uid == self.owner

    def _attend(self, connection: socket, is_root: bool) -> None:
        """The child's whole life; it never returns."""
        try:
            child.die_with_parent(_SIGKILL)
            for number in _IGNORED:
                _signal.signal(number, _signal.SIG_DFL)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            registry.forked()
            self.listening.close()
            for call in self.calls.values():
                call.close()
            self._epoll.close()
            behalf.attend(connection, self.record.jid, self.owner, is_root)
        finally:
            posix._exit(0)

    def _hang_up(self, fd: int) -> None:
        """The caller has gone: whoever attends to the call ends, at once or when nothing is half-made any more."""
        for call in self.calls.values():
            if call.connection.fileno() == fd:
                self._forget(call)
                call.end(_SIGTERM)
                self._gone.append((time.monotonic() + _PATIENCE, call))

    def _insist(self) -> None:
        """Kill those who have had time enough."""
        now = time.monotonic()
        for _, call in [gone for gone in self._gone if gone[0] <= now]:
            call.end(_SIGKILL)
        self._gone = [gone for gone in self._gone if gone[0] > now and gone[1].pidfd >= 0]

    def _reap(self) -> None:
        for pid, _ in child.reaped():
            call = self.calls.pop(pid, None)
            if call is not None:
                self._forget(call)
                call.close()

    def _forget(self, call: Call) -> None:
        """Hear no more of its caller's: a child may have the connection open for a moment longer than this process."""
        if call.watched:
            self._epoll.unregister(call.connection.fileno())
            call.watched = False


def _package() -> list[float]:
    """When modules have been put in the place of others."""
    try:
        return [posix.stat(f"{start.ROOT}/jailng/{part}").st_mtime for part in ("core", "engine")]
    except OSError:
        return []


def _be_slow(record: Record) -> None:
    """Where the jail is (ng.slice), so that it is no faster by what it asks for."""
    if attach.slice_of(record):
        from jailng.core import timeslice

        timeslice.take(record)


def main(listening: int, jid: int) -> None:
    """Be the broker of that jail, on a socket that listens. Does not return."""
    try:
        beside.shed(limits=False)
        posix.set_inheritable(listening, False)
        record = registry.load(jid)
        if record is not None:
            init = attach.open_init(record)
            cgroup.write(f"{record.cgroup}/broker/cgroup.procs", b"0")
            _be_slow(registry.load(jid) or record)
            Broker(socket(fileno=listening), record, init).serve()
    except (JailError, OSError):
        pass  # the jail has ended meanwhile
    posix._exit(0)
