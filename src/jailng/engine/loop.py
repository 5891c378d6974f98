"""The worker's waiting: for descriptors that something comes from, and for children that end.

The worker is the reaper of all that its children leave behind. A process whose parent is outside a jail holds up the
end of the jail's PID 1 until it is reaped; and a container's PID 1, to whom orphans would go, may reap late or never.
"""

from __future__ import annotations

import _signal
import posix
import sys
from select import EPOLLIN, epoll

from jailng.core import wire
from jailng.core.wire import LARGEST, Words, failure, pack
from jailng.errors import JailError, explain
from jailng.linux import child, signals
from jailng.linux.libc import buffer, syscall, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    Kind = Literal["command", "attendant", "start", "errand", "look-up"]

_SIGTERM, _SIGCHLD = 15, 17
# What a terminal sends to a session and a service manager to all processes. The worker ends when the program has ended.
_IGNORED = (1, 2, 3, 15, 20, 21, 22)  # HUP INT QUIT TERM TSTP TTIN TTOU
_RLIMIT_NOFILE = 7
_PR_SET_CHILD_SUBREAPER = 36


class Task:
    """A child, and what is to be done with its raw wait status when it has ended.

    ``jid`` is the jail that it has to do with, 0 for one that is not there yet.
    """

    __slots__ = ("ended", "jid", "kind", "pid")

    def __init__(self, kind: Kind, jid: int, pid: int, ended: Callable[[int], None]) -> None:
        self.kind = kind
        self.jid = jid
        self.pid = pid
        self.ended = ended


class Loop:
    """What is waited for. ``limit`` is the resource limit that this process has raised for itself, as it was before."""

    __slots__ = ("_called", "_deaths", "_epoll", "limit", "tasks")

    def __init__(self) -> None:
        """To be made once in a process. Raises OSError."""
        _signal.signal(_SIGCHLD, _signal.SIG_DFL)  # inherited over exec, and no status would ever be told
        _signal.pthread_sigmask(_signal.SIG_SETMASK, (_SIGCHLD,))
        for number in _IGNORED:
            _signal.signal(number, _signal.SIG_IGN)
        syscall("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.limit = _raise_limit()
        self.tasks: dict[int, Task] = {}
        self._epoll = epoll()
        self._called: dict[int, Callable[[], None]] = {}
        self._deaths = signals.signalfd([_SIGCHLD])
        posix.set_blocking(self._deaths, False)
        self.watch(self._deaths, self._reap)

    def turn(self) -> None:
        """Wait until something is there, and call whom it concerns."""
        # A descriptor may have been closed, and its number given to another, since epoll saw it: not even a false
        # alarm, for a pidfd is not looked at again.
        for fd, call in [(fd, self._called.get(fd)) for fd, _ in self._epoll.poll()]:
            if call is not None and self._called.get(fd) is call:
                call()

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        """Have it called when the descriptor has something, which may be a false alarm."""
        self._epoll.register(fd, EPOLLIN)
        self._called[fd] = call

    def ignore(self, fd: int) -> None:
        """Watch it no longer, if it was watched."""
        if self._called.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self, fd: int) -> None:
        """Close a descriptor, watched or not."""
        self.ignore(fd)
        posix.close(fd)

    def signal(self, task: Task, number: int) -> None:
        """Signal a child; nothing happens where there is no such signal."""
        if task.kind == "look-up":
            number = _SIGTERM  # for it has a child in the jail, and is to take that along
        try:
            posix.kill(task.pid, number)  # it has not been reaped, or it would not be among the tasks
        except OSError:
            pass

    def send_off(self, kind: Kind, jid: int, work: Callable[[], list[str]], done: Callable[[Outcome], None]) -> Task:
        """Have a child do some work; ``done`` is called when it has ended. Raises OSError."""
        said, say = posix.pipe2(posix.O_CLOEXEC)
        posix.set_blocking(said, False)
        try:
            pid, pidfd = child.clone3()
        except OSError:  # no process is left: this one lives on, and is asked again
            posix.close(said)
            posix.close(say)
            raise
        if pid == 0:
            try:
                self.be_a_child()
                packet = pack("ok", work())
            except BaseException as error:
                packet = pack(*complaint(error))
            posix.write(say, packet)
            posix._exit(0)
        posix.close(say)
        posix.close(pidfd)
        task = Task(kind, jid, pid, lambda status: done(Outcome(said, status)))
        self.tasks[pid] = task
        return task

    def be_a_child(self) -> None:
        """In a child: have the signals and limits that a command expects."""
        for number in _IGNORED:
            _signal.signal(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        _, soft, hard = self.limit
        syscall("prlimit64", 0, _RLIMIT_NOFILE, words(soft, hard), None)

    def _reap(self) -> None:
        try:
            signals.read(self._deaths)
        except BlockingIOError:
            return
        for pid, status in child.reaped():
            task = self.tasks.pop(pid, None)
            if task is not None:
                task.ended(status)


class Outcome:
    """What a child has said at the end of its work."""

    __slots__ = ("_said", "_status")

    def __init__(self, said: int, status: int) -> None:
        self._said = said
        self._status = status

    def words(self) -> list[str]:
        """Its result. To be asked once. Raises JailError with what it has met."""
        try:
            heard = Words(posix.read(self._said, LARGEST) or pack("none"))
        except BlockingIOError:
            heard = Words(pack("none"))
        finally:
            posix.close(self._said)
        how = heard.word()
        if how == "error":
            raise failure(heard)
        if how == "none":
            raise JailError(f"the worker's child ended with status {self._status}")
        return heard.words()


def heard(channel: int) -> bytes | None:
    """What the program has said on a channel, nothing at its end; None where it was a false alarm."""
    try:
        return posix.read(channel, LARGEST)
    except BlockingIOError:
        return None
    except ConnectionResetError:  # it has closed its end without reading all; what it said before is still there
        return posix.read(channel, LARGEST)


def tell(channel: int, *said: str | int) -> None:
    """Say something on a channel, -1 for none."""
    try:
        posix.write(channel, pack(*said))
    except OSError:
        pass  # nobody listens any more


def complaint(error: BaseException) -> tuple[str | int, ...]:
    """An error as the words of a packet."""
    return "error", error.status if isinstance(error, JailError) else 1, explain(error), *wire.complaint(error)


def _raise_limit() -> tuple[int, int, int]:
    """Let this process have as many descriptors as it may; what the limit was, as confinement has such."""
    old = buffer(16)
    syscall("prlimit64", 0, _RLIMIT_NOFILE, None, old)
    soft, hard = [int.from_bytes(old.raw[at : at + 8], sys.byteorder) for at in (0, 8)]
    syscall("prlimit64", 0, _RLIMIT_NOFILE, words(hard, hard), None)
    return _RLIMIT_NOFILE, soft, hard
