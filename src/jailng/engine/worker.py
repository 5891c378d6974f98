"""The worker: the one process that carries out plans for a program that has imported jailng.

A program may have threads, and a plan forks, changes directories and joins namespaces, which only a process with one
thread may do. So the program starts this one, by exec, and tells it over a socket what to do (core/wire.py). Every
request brings a socket of its own, its channel, on which it is answered; so no thread of the program has to sort
answers. What takes its time, or could be made to by a jailed root, never keeps the worker from the next request: hooks,
commands of exec.* and the grace of stop.timeout are an errand, run by a child of the worker; how a command enters a
jail, and is not waited for, engine/order.py tells.

Jails that the program has not asked to keep end with it, however it ends: then its end of the socket is closed, and its
pidfd readable even where a child that it has forked still holds the socket.
"""

from __future__ import annotations

import posix
import sys
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_CTRUNC, MSG_DONTWAIT, socket

from jailng.core import create, registry, stdio  # noqa: F401  # an errand finds loaded what it needs
from jailng.core.wire import ELSEWHERE, LARGEST, MOST_DESCRIPTORS, Words, from_memfd, pairs, received
from jailng.engine import beginning, held, inside, life, modify  # noqa: F401  # nor is it to be found anew at the end
from jailng.engine.loop import Loop, complaint, heard, tell
from jailng.engine.order import Order
from jailng.errors import JailError, Mistakes, explain, not_permitted
from jailng.linux import ns, processid
from jailng.params.model import Parameters
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.engine.loop import Kind, Outcome

_SIGKILL = 9
_EMFILE = 24
_BEFORE = ("exec.prepare", "exec.prestart", "exec.created", "exec.start", "command", "exec.poststart")


class Worker:
    """``jails`` are those that were started here or entered from here, by jid.

    ``unheard`` are those of which the program has yet to say that it heard, by the channel on which it will.
    """

    def __init__(self, requests: int, program: int) -> None:
        """``requests`` is its end of the socket, ``program`` a pidfd of the program."""
        self.loop = Loop()
        self.jails: dict[int, held.Jail] = {}
        self.unheard: dict[int, held.Jail] = {}
        self.inside = ns.is_jailed()
        self.requests = socket(fileno=requests)
        self.program = program
        self.over = False

    def serve(self) -> None:
        """Until the program has ended; its jails have been removed by then."""
        self.loop.watch(self.requests.fileno(), self._hear)
        self.loop.watch(self.program, self._stop_hearing)
        while not self.over:
            self.loop.turn()
        self._finish()

    def _stop_hearing(self) -> None:
        self.over = True

    # Requests

    def _hear(self) -> None:
        room = CMSG_SPACE(4 * MOST_DESCRIPTORS)
        try:
            packet, controls, flags, _ = self.requests.recvmsg(LARGEST, room, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)
        except BlockingIOError:
            return
        fds = received(controls)
        if not packet:
            self._stop_hearing()
            return
        if not fds:  # there is no room here for the channel: it is closed, of which the program hears
            return
        channel = fds.pop(0)
        posix.set_blocking(channel, False)
        try:
            if flags & MSG_CTRUNC:
                raise OSError(_EMFILE, posix.strerror(_EMFILE))
            if self.inside:  # what is done here takes the host's cgroups and namespaces, and no broker would do it
                raise JailError("only on the host: inside a jail there are jail(8) and jexec(8)")
            request = Words(packet if packet != ELSEWHERE else from_memfd(fds.pop()))
            _VERBS[request.word()](self, request, channel, fds)
        except Exception as error:
            self._refuse(channel, error)
        finally:
            for fd in fds:
                posix.close(fd)

    def _answer(self, channel: int, *said: str | int) -> None:
        tell(channel, *said)
        self.loop.close(channel)

    def _refuse(self, channel: int, error: BaseException) -> None:
        self._answer(channel, *complaint(error))

    def _do(
        self, apart: Kind | None, jid: int, channel: int, work: Callable[[], str], done: Callable[[str], None]
    ) -> None:
        """Do it here, or in a child of the kind ``apart``; then ``done`` with the result, or tell of the error."""
        if apart is None:
            done(work())
            return

        def ended(outcome: Outcome) -> None:
            try:
                (result,) = outcome.words()
                done(result)
            except Exception as error:
                if channel >= 0:
                    self._refuse(channel, error)

        self.loop.send_off(apart, jid, lambda: [work()], ended)

    # Jails

    def _start(self, request: Words, channel: int, _: list[int]) -> None:
        for unheard in [*self.unheard]:  # one that was given up before this was asked for is not in its way
            self._acknowledged(unheard)
        keep = request.word() == "keep"
        params = Parameters()
        for name, text in pairs(request.words()):
            params.add(name, text)
        lacking = [name for name in params.strings("depend") if registry.find(name) is None]
        if lacking:
            raise Mistakes([f'depends on nonexistent jail "{visible(name)}"' for name in lacking])
        life.settle(params)
        beginning.check_path(params, life.Voice())

        def start() -> str:
            made = life.Life(params, None, life.Voice())
            beginning.start(made)
            return str(made.there.jid)

        def started(jid: str) -> None:
            self._started(int(jid), params, keep, channel)

        # An errand may be what it waits for, the end of one of that name; and that waits for this process to reap.
        errands = any(task.kind == "errand" for task in self.loop.tasks.values())
        apart: Kind | None = "start" if errands or any(params.strings(step) for step in _BEFORE) else None
        self._do(apart, 0, channel, start, started)

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
        tell(channel, "ok", jid, record.name, record.init)
        # Until the program has said that it heard, it may have given up waiting, and would never remove it.
        self.unheard[channel] = jail
        self.loop.watch(channel, lambda: self._acknowledged(channel))

    def _acknowledged(self, channel: int) -> None:
        said = heard(channel)
        if said is not None:
            jail = self.unheard.pop(channel)
            self.loop.close(channel)
            if not said:
                self._remove(jail, True)

    def _stop(self, request: Words, channel: int, _: list[int]) -> None:
        _check_privilege("jail_remove")
        forced = request.word() == "forced"
        jid, identity = request.number(), request.word()
        jail = self.jails.get(jid)
        if jail is not None and jail.identity != identity:
            jail = None
        params = jail.params if jail is not None else None

        def stop() -> str:
            held.stop(jid, identity, params, forced)
            return ""

        def stopped(_: str) -> None:
            if jail is not None:
                self._let_go(jail)
            self._answer(channel, "ok")

        self._do(self._apart(jid, params, forced), jid, channel, stop, stopped)

    def _apart(self, jid: int, params: Parameters | None, forced: bool) -> Kind | None:
        """Whether to stop a jail is an errand: also where a child of ours is in it, to be reaped meanwhile."""
        entered = any(task.jid == jid for task in self.loop.tasks.values())
        return "errand" if entered or held.takes_time(jid, params, forced) else None

    def _set(self, request: Words, channel: int, _: list[int]) -> None:
        _check_privilege("jail_set")
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

        apart: Kind | None = "errand" if held.is_busy(jid) else None
        self._do(apart, 0, channel, change, lambda name: self._answer(channel, "ok", name))

    def _hold(self, jail: held.Jail) -> held.Jail:
        self.jails[jail.jid] = jail
        self.loop.watch(jail.init, lambda: self._jail_ended(jail))
        return jail

    def _let_go(self, jail: held.Jail) -> None:
        if self.jails.get(jail.jid) is jail:
            del self.jails[jail.jid]
            jail.leave()
            self.loop.close(jail.init)

    def _jail_ended(self, jail: held.Jail) -> None:
        """PID 1 has ended: by itself, or because another command has removed the jail."""
        if self.jails.get(jail.jid) is jail:
            self._let_go(jail)
            try:
                record = registry.load(jail.jid)
            except OSError:  # no descriptor left: the next command clears it away
                return
            if record is not None and record.init == jail.identity:
                held.clear_away(record)

    # Commands

    def _run(self, request: Words, channel: int, fds: list[int]) -> None:
        _check_privilege("jail_attach")
        jid, identity = request.number(), request.word()
        jail = self.jails.get(jid)
        if jail is None or jail.identity != identity:
            jail = self._hold(held.Jail(held.living(jid, identity), None, True))
        order = Order(self.loop, jail, request, channel, [*fds])
        fds.clear()
        order.begin()

    # The end

    def _finish(self) -> None:
        for fd in (self.requests.fileno(), self.program):
            self.loop.ignore(fd)
        starting = [processid.of(task.pid) for task in self.loop.tasks.values() if task.kind == "start"]
        for task in self.loop.tasks.values():
            if task.kind != "errand":
                self.loop.signal(task, _SIGKILL)
        self._wait()
        if starting:
            for record in registry.records():
                held.clear_away(record)
                # One that was up before its starter was killed, and of which nobody has heard.
                if record.starter in starting and record.jid not in self.jails and record.alive():
                    try:
                        self._hold(held.Jail(record, None, False))
                    except OSError:
                        held.stop(record.jid, record.init, None, True)
        for jail in [*self.jails.values()]:
            if not jail.keep:
                self._remove(jail, False)
        self._wait()

    def _wait(self) -> None:
        while any(task.kind in ("start", "errand", "look-up") for task in self.loop.tasks.values()):
            self.loop.turn()

    def _remove(self, jail: held.Jail, forced: bool) -> None:
        """Remove a jail of which nobody will hear any more; if its commands fail, without them."""

        def remove() -> str:
            try:
                held.stop(jail.jid, jail.identity, jail.params, forced)
            except Exception as error:  # also of modules of a package that was upgraded, which do not go with ours
                _lament(jail, error)
                held.stop(jail.jid, jail.identity, jail.params, True)
            return ""

        try:
            apart = self._apart(jail.jid, jail.params, forced)
            self._do(apart, jail.jid, -1, remove, lambda _: self._let_go(jail))
        except Exception as error:  # there are others
            _lament(jail, error)


_VERBS = {"start": Worker._start, "stop": Worker._stop, "set": Worker._set, "run": Worker._run}


def _check_privilege(call: str) -> None:
    if posix.geteuid() != 0:
        raise not_permitted(call)


def _lament(jail: held.Jail, error: Exception) -> None:
    text = visible(f"jailng: {jail.record.name}: {explain(error)}") + "\n"  # which may name what a jail's passwd has
    try:
        posix.write(2, text.encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # nobody listens


def main(requests: int, program: int) -> None:
    """Be the worker. ``requests`` is its end of the socket, ``program`` a pidfd of the program. Does not return."""
    try:
        stdio.occupy()  # a program may have closed its streams, and what it starts is not to have ours for them
        for fd in (requests, program):
            posix.set_inheritable(fd, False)
        Worker(requests, program).serve()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        posix._exit(1)
    posix._exit(0)
