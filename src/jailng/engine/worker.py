"""The worker: the one process that carries out plans for a program that has imported jailng.

A program may have threads, and a plan forks, changes directories and joins namespaces, which only a process with one
thread may do. So the program starts this one, by exec, and tells it over a socket what to do (engine/wire.py). Every
request brings a socket of its own, its channel, on which it is answered; so no thread of the program has to sort
answers. What takes its time never keeps the worker from the next request: a command is a pidfd that becomes readable;
hooks, commands of exec.* and the grace of stop.timeout are an errand, run by a child of the worker; a command whose
streams have to be carried, because they are files or a terminal of the host, has an attendant, which does what jexec(8)
does.

Jails that the program has not asked to keep end with it, however it ends: then its end of the socket is closed, and its
pidfd readable even where a child that it has forked still holds the socket.
"""

from __future__ import annotations

import _signal
import posix
import sys
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_DONTWAIT, socket
from select import EPOLLIN, epoll

# What a child needs is loaded before it is born: what it would find once it is in a jail is the jail's.
from jailng.core import attach, create, registry, relay, stdio, waiting  # noqa: F401
from jailng.engine import held, life, modify
from jailng.engine.wire import ELSEWHERE, LARGEST, MOST_DESCRIPTORS, Words, from_memfd, pack, pairs
from jailng.errors import JailError, explain
from jailng.linux import caps, ns
from jailng.linux.libc import buffer, syscall, words
from jailng.params.model import Parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from jailng.core.attach import Command, Entry
    from jailng.core.stdio import Streams

    Kind = Literal["command", "attendant", "start", "errand"]

_SIGKILL, _SIGSTOP, _SIGTSTP = 9, 19, 20
# What a terminal sends to a session and a service manager to all processes. The worker ends when the program has ended.
_IGNORED = (1, 2, 3, 15, 20, 21, 22)  # HUP INT QUIT TERM TSTP TTIN TTOU
_RLIMIT_NOFILE = 7
_BEFORE = ("exec.prepare", "exec.prestart", "exec.created", "exec.start", "command", "exec.poststart")


class Task:
    """A child of the worker, and what is to be done with its raw wait status when it has ended.

    ``channel`` is where to tell of it, -1 where nobody listens.
    """

    __slots__ = ("channel", "ended", "kind", "pid", "pidfd")

    def __init__(self, kind: Kind, pid: int, pidfd: int, channel: int, ended: Callable[[Task, int], None]) -> None:
        self.kind = kind
        self.pid = pid
        self.pidfd = pidfd
        self.channel = channel
        self.ended = ended

    def signal(self, number: int) -> None:
        """Signal it; nothing happens where it has ended or there is no such signal."""
        if self.kind == "attendant" and number == _SIGSTOP:
            number = _SIGTSTP  # which it passes on, and can be continued
        try:
            ns.pidfd_send_signal(self.pidfd, number)
        except OSError:
            pass


class Worker:
    """What the worker knows: jails by jid, children by pid, and whom to call for a descriptor that has something."""

    def __init__(self, requests: int, program: int) -> None:
        """``requests`` is its end of the socket, ``program`` a pidfd of the program."""
        self.requests = socket(fileno=requests)
        self.program = program
        self.jails: dict[int, held.Jail] = {}
        self.tasks: dict[int, Task] = {}
        self.over = False
        self._epoll = epoll()
        self._watched: dict[int, Callable[[], None]] = {}
        self._limit = _raise_limit()

    def serve(self) -> None:
        """Until the program has ended; its jails have been removed by then."""
        self._watch(self.requests.fileno(), self._hear)
        self._watch(self.program, self._stop_hearing)
        while not self.over:
            self._turn()
        self._finish()

    def _turn(self) -> None:
        # A descriptor may have been closed, and its number given to another, since epoll saw it: whoever is called then
        # finds nothing, and does nothing.
        for fd, _ in self._epoll.poll():
            ready = self._watched.get(fd)
            if ready is not None:
                ready()

    def _watch(self, fd: int, ready: Callable[[], None]) -> None:
        self._epoll.register(fd, EPOLLIN)
        self._watched[fd] = ready

    def _forget(self, fd: int) -> None:
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _close(self, fd: int) -> None:
        self._forget(fd)
        posix.close(fd)

    def _stop_hearing(self) -> None:
        self.over = True

    # Requests

    def _hear(self) -> None:
        room = CMSG_SPACE(4 * MOST_DESCRIPTORS)
        try:
            packet, beside, _, _ = self.requests.recvmsg(LARGEST, room, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)
        except BlockingIOError:
            return
        data = b"".join([content for _, _, content in beside])
        fds = [int.from_bytes(data[at : at + 4], sys.byteorder) for at in range(0, len(data), 4)]
        if not fds:
            self._stop_hearing()
            return
        channel = fds.pop(0)
        posix.set_blocking(channel, False)
        try:
            request = Words(packet if packet != ELSEWHERE else from_memfd(fds.pop()))
            _VERBS[request.word()](self, request, channel, fds)
        except Exception as error:
            self._refuse(channel, error)
        finally:
            for fd in fds:
                posix.close(fd)

    def _tell(self, channel: int, *said: str | int) -> None:
        try:
            posix.write(channel, pack(*said))
        except OSError:
            pass  # nobody listens any more

    def _answer(self, channel: int, *said: str | int) -> None:
        self._tell(channel, *said)
        self._close(channel)

    def _refuse(self, channel: int, error: BaseException) -> None:
        self._answer(channel, *_complaint(error))

    # Jails

    def _start(self, request: Words, channel: int, _: list[int]) -> None:
        keep = request.word() == "keep"
        params = Parameters()
        for name, text in pairs(request.words()):
            params.add(name, text)
        params.settle()
        life.check_path(params)

        def start() -> str:
            made = life.Life(params, None, held.say_nothing)
            life.start(made)
            return str(made.there.jid)

        def started(jid: str) -> None:
            self._started(int(jid), params, keep, channel)

        self._do(start, started, channel, "start" if any(params.strings(step) for step in _BEFORE) else None)

    def _started(self, jid: int, params: Parameters, keep: bool, channel: int) -> None:
        record = registry.load(jid)
        if record is None or not record.alive():  # it does not persist, and its commands have left nothing running
            if record is not None:
                held.clear_away(record)
            self._answer(channel, "ok", jid, params.text("name") or jid, "")
            return
        try:
            jail = self._hold(held.Jail(record, params, keep))
        except OSError:
            held.stop(jid, record.init, None, True)
            raise
        self._tell(channel, "ok", jid, record.name, record.init)
        # Until the program has said that it heard, it may have given up waiting, and would never remove it.
        self._watch(channel, lambda: self._acknowledged(channel, jail))

    def _acknowledged(self, channel: int, jail: held.Jail) -> None:
        heard = _read(channel)
        if heard is not None:
            self._close(channel)
            if not heard:
                self._remove(jail, True)

    def _stop(self, request: Words, channel: int, _: list[int]) -> None:
        forced = request.word() == "forced"
        jid, identity = request.number(), request.word()
        jail = self.jails.get(jid)
        params = jail.params if jail is not None and jail.identity == identity else None

        def stop() -> str:
            held.stop(jid, identity, params, forced)
            return ""

        def stopped(_: str) -> None:
            if jail is not None and jail.identity == identity:
                self._let_go(jail)
            self._answer(channel, "ok")

        self._do(stop, stopped, channel, "errand" if held.takes_time(jid, params, forced) else None)

    def _set(self, request: Words, channel: int, _: list[int]) -> None:
        jid, identity = request.number(), request.word()
        changes = Parameters()
        for name, text in pairs(request.words()):
            changes.add(name, text)

        def change() -> str:
            record = held.living(jid, identity)
            try:
                modify.modify(record, changes)
            finally:
                record.unlock()
            return record.name

        def changed(name: str) -> None:
            self._answer(channel, "ok", name)

        self._do(change, changed, channel, "errand" if held.is_busy(held.living(jid, identity)) else None)

    def _hold(self, jail: held.Jail) -> held.Jail:
        self.jails[jail.jid] = jail
        self._watch(jail.init, lambda: self._jail_ended(jail))
        return jail

    def _let_go(self, jail: held.Jail) -> None:
        if self.jails.get(jail.jid) is jail:
            del self.jails[jail.jid]
            jail.leave()
            self._close(jail.init)
            jail.reap()

    def _jail_ended(self, jail: held.Jail) -> None:
        """PID 1 has ended: by itself, or because another command has removed the jail."""
        if self.jails.get(jail.jid) is jail:
            self._let_go(jail)
            record = registry.load(jail.jid)
            if record is not None and record.init == jail.identity:
                held.clear_away(record)

    # Work that is done here or by a child

    def _do(self, work: Callable[[], str], done: Callable[[str], None], channel: int, apart: Kind | None) -> None:
        """Do it here, or in a child of the kind ``apart``; then ``done`` with the result, or tell the channel."""
        if apart is None:
            done(work())
            return
        said, say = posix.pipe2(posix.O_CLOEXEC)
        posix.set_blocking(said, False)
        pid, pidfd = ns.clone3()
        if pid == 0:
            try:
                self._be_a_child()
                packet = pack("ok", work())
            except BaseException as error:
                packet = pack(*_complaint(error))
            posix.write(say, packet)
            posix._exit(0)
        posix.close(say)

        def ended(task: Task, status: int) -> None:
            try:
                done(_heard(said, status))
            except Exception as error:
                if task.channel >= 0:
                    self._refuse(task.channel, error)

        self._add(Task(apart, pid, pidfd, channel, ended))

    def _add(self, task: Task) -> None:
        self.tasks[task.pid] = task
        self._watch(task.pidfd, lambda: self._child_ended(task))

    def _child_ended(self, task: Task) -> None:
        if self.tasks.get(task.pid) is not task:
            return
        try:
            pid, status = posix.waitpid(task.pid, posix.WNOHANG)
        except ChildProcessError:
            pid, status = task.pid, _SIGKILL  # it went with its jail: core.undo has reaped it
        if pid:
            del self.tasks[task.pid]
            self._close(task.pidfd)
            task.ended(task, status)

    def _be_a_child(self) -> None:
        for number in _IGNORED:
            _signal.signal(number, _signal.SIG_DFL)
        _, soft, hard = self._limit
        syscall("prlimit64", 0, _RLIMIT_NOFILE, words(soft, hard), None)

    # Commands

    def _run(self, request: Words, channel: int, fds: list[int]) -> None:
        jid, identity = request.number(), request.word()
        user, cwd, group = request.word() or None, request.word() or None, request.number()
        streams = [fds[int(word)] if word else -1 for word in request.words()]
        ours = [int(word) for word in request.words()]
        command = attach.Command(request.words(), dict(pairs(request.words())), user, cwd)
        if posix.geteuid() != 0:
            raise JailError("jail_attach: Operation not permitted")
        jail = self.jails.get(jid)
        if jail is None or jail.identity != identity:
            jail = self._hold(held.Jail(held.living(jid, identity), None, True))
        try:
            entry = jail.enter(self._limit)
            prepared = _prepare(entry, jail, (streams[0], streams[1], streams[2]), ours)
            try:
                task = self._enter(entry, command, prepared, group, channel)
            finally:
                prepared.close()
        except (JailError, OSError):
            jail.leave()
            held.living(jid, identity)  # if the jail has ended, that is the reason
            raise
        self._add(task)
        self._watch(channel, lambda: self._command_heard(task))

    def _enter(self, entry: Entry, command: Command, streams: Streams, group: int, channel: int) -> Task:
        if streams.pumps or streams.terminal is not None:
            child = self._attended(entry, command, streams, group, channel)
            return Task("attendant", *child, channel, self._command_ended)
        task = Task("command", *attach.jail_attach(entry, command, streams), channel, self._command_ended)
        self._tell(channel, "ok", task.pid)
        return task

    def _attended(self, entry: Entry, command: Command, streams: Streams, group: int, channel: int) -> tuple[int, int]:
        """A child that enters, carries the streams, and ends as the command does."""
        worker = posix.getpid()
        pid, pidfd = ns.clone3()
        if pid:
            return pid, pidfd
        try:
            caps.die_with_parent(_SIGKILL)
            self._be_a_child()
            if posix.getppid() != worker:
                posix._exit(1)
            try:
                posix.setpgid(0, group)  # the terminal is ours to read while the program is in front
            except OSError:
                pass  # the program has gone to another session
            inner, inner_fd = attach.jail_attach(entry, command, streams)
            self._tell(channel, "ok", inner)
            waiting.finish(waiting.wait(inner, inner_fd, streams, hand_over=True))
        except BaseException as error:
            self._tell(channel, *_complaint(error))
        finally:
            posix._exit(1)

    def _command_heard(self, task: Task) -> None:
        packet = _read(task.channel)
        if packet:
            task.signal(int(packet))
        elif packet is not None:
            self._close(task.channel)
            task.channel = -1

    def _command_ended(self, task: Task, status: int) -> None:
        if task.channel >= 0:
            self._answer(task.channel, "exit", status)

    # The end

    def _finish(self) -> None:
        for fd in (self.requests.fileno(), self.program):
            self._forget(fd)
        starting = [task for task in self.tasks.values() if task.kind == "start"]
        for task in self.tasks.values():
            if task.kind != "errand":
                task.signal(_SIGKILL)
        self._wait()
        if starting:
            for record in registry.records():
                held.clear_away(record)
        for jail in [*self.jails.values()]:
            if not jail.keep:
                self._remove(jail, False)
        self._wait()

    def _wait(self) -> None:
        while any(task.kind in ("start", "errand") for task in self.tasks.values()):
            self._turn()

    def _remove(self, jail: held.Jail, forced: bool) -> None:
        """Remove a jail of which nobody will hear any more; if its commands fail, without them."""

        def remove() -> str:
            try:
                held.stop(jail.jid, jail.identity, jail.params, forced)
            except (JailError, OSError) as error:
                _lament(jail, error)
                held.stop(jail.jid, jail.identity, jail.params, True)
            return ""

        apart: Kind | None = "errand" if held.takes_time(jail.jid, jail.params, forced) else None
        try:
            self._do(remove, lambda _: self._let_go(jail), -1, apart)
        except (JailError, OSError) as error:
            _lament(jail, error)


_VERBS = {"start": Worker._start, "stop": Worker._stop, "set": Worker._set, "run": Worker._run}


def _read(channel: int) -> bytes | None:
    """What the program has said on it, nothing at its end; None where it was a false alarm."""
    try:
        return posix.read(channel, LARGEST)
    except BlockingIOError:
        return None
    except ConnectionResetError:  # it has closed its end without reading all; what it said before is still there
        return posix.read(channel, LARGEST)


def _complaint(error: BaseException) -> tuple[str, int, str]:
    return "error", error.status if isinstance(error, JailError) else 1, explain(error)


def _heard(said: int, status: int) -> str:
    """What a child has said at the end of its errand. Raises the error that it has met."""
    try:
        answer = Words(posix.read(said, LARGEST) or b"error\x001\0")
    except BlockingIOError:
        answer = Words(b"error\x001\0")
    finally:
        posix.close(said)
    if answer.word() == "ok":
        return answer.word()
    code = answer.number()
    raise JailError(answer.word() or f"the worker's child ended with status {status}", code)


def _prepare(entry: Entry, jail: held.Jail, fds: tuple[int, int, int], ours: list[int]) -> Streams:
    """The command's streams; ``ours`` are those for which the program has made a pipe, which is given to the jail."""
    root = attach.open_tree_of(jail.record)
    try:
        streams = stdio.prepare(root, entry.base, fds)
    finally:
        posix.close(root)
    for index in ours:
        posix.fchown(streams.inside[index], entry.base, entry.base)
        streams.owned[index] = True
    return streams


def _lament(jail: held.Jail, error: Exception) -> None:
    text = f"jailng: {jail.record.name}: {explain(error)}\n"
    posix.write(2, text.encode("utf-8", "backslashreplace"))


def _raise_limit() -> tuple[int, int, int]:
    """Let this process have as many descriptors as it may. Returns what the limit was, for those that it starts."""
    old = buffer(16)
    syscall("prlimit64", 0, _RLIMIT_NOFILE, None, old)
    soft, hard = [int.from_bytes(old.raw[at : at + 8], sys.byteorder) for at in (0, 8)]
    syscall("prlimit64", 0, _RLIMIT_NOFILE, words(hard, hard), None)
    return _RLIMIT_NOFILE, soft, hard


def main(requests: int, program: int) -> None:
    """Be the worker. ``requests`` is its end of the socket, ``program`` a pidfd of the program. Does not return."""
    try:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # inherited over exec, and no status would ever be told
        for number in _IGNORED:
            _signal.signal(number, _signal.SIG_IGN)
        for fd in (requests, program):
            posix.set_inheritable(fd, False)
        Worker(requests, program).serve()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        posix._exit(1)
    posix._exit(0)
