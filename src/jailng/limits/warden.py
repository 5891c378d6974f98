"""The warden's process (limits/watch.py): it looks once a second, and does what the rules say (rctl_enforce()).

A rule acts when what is used comes to exceed its amount, and again only after that was no longer so: ``log`` once, a
signal once for each process, also for those that are born meanwhile.
"""

from __future__ import annotations

import _signal
import posix
import time
from select import POLLIN, poll

from jailng.core import beside, consumption, fresh, halt, index, registry
from jailng.core import limit as kernel
from jailng.errors import JailError, explain
from jailng.limits import database, offender, refusals, standing, syslog, watch
from jailng.limits.rule import of_jail
from jailng.linux import ns, processid
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.params.limit import Limit

_PERIOD = 1.0  # seconds
_PATIENCE = 1.0
_TIMES = ("cputime", "wallclock")  # they are counted in whole seconds, the last of which has passed
_TASKS = ("maxproc", "nthr")  # the kernel has one number for both, and refuses at the smaller
_MOST_LINES = 10  # that a jail can cause in a second: kern.racct.rctl.log_rate_limit


class Watch:
    """A limit that is watched, whether it was told of since it was exceeded, and who has been signalled."""

    __slots__ = ("limit", "signalled", "told")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.told = False
        self.signalled: dict[int, int] = {}  # as for ``halt.send``

    def holds(self, used: int) -> bool:
        """Whether that much is within the limit."""
        return used < self.limit.amount if self.limit.resource in _TIMES else used <= self.limit.amount

    def rest(self) -> None:
        """It holds again."""
        self.told = False
        self.signalled.clear()


class Warden:
    """``init`` is a pidfd of PID 1 of the jail whose ``record`` that is."""

    def __init__(self, record: Record, init: int) -> None:
        self.record = record
        self.init = init
        self.watches: list[Watch] = []
        self._stamp: tuple[int, ...] = ()
        self._failing = False
        self._denied: dict[str, int] = {}
        self._refused: dict[str, refusals.Counted] = {}

    def serve(self, bell: int) -> None:
        """Until the jail has ended, or nothing is to be watched any more. ``bell`` can be read from when it rings."""
        waiter = poll()
        for fd in (self.init, bell):
            waiter.register(fd, POLLIN)
        due = time.monotonic()
        while True:
            self._look_for_rules()
            if not self.watches and self._may_leave():
                return
            self._try_to_look()
            if self.record.params.get("allow.mount") != "true":  # else its root may keep whoever opens /proc waiting
                fresh.freshen(self.record)  # since somebody is here each second
            due = max(due + _PERIOD, time.monotonic())
            ready = [fd for fd, _ in waiter.poll(1000 * max(due - time.monotonic(), 0.0))]
            if self.init in ready:
                return
            if bell in ready:
                posix.read(bell, 4096)

    def _look_for_rules(self) -> None:
        """Those of the jail by its present name, and of its parameter; what is known of one that stays is kept."""
        stamp = _stamp(self.record.jid)
        if stamp == self._stamp:
            return
        record = registry.load(self.record.jid)
        if record is None or record.init != self.record.init:
            self.watches = []
            return
        if not self.record.locked:
            self.record = record
        limits = [*[rule.limit for rule in database.of_jail(record.name)], *standing.own(record)]
        known = {one.limit: one for one in self.watches}
        self.watches = [known.get(one) or Watch(one) for one in dict.fromkeys(watch.watched(limits))]
        self._denied = {}
        for one in limits:
            if one.action == "deny":
                for name in _TASKS if one.resource in _TASKS else (one.resource,):
                    self._denied[name] = min(one.amount, self._denied.get(name, one.amount))
        self._stamp = stamp

    def _may_leave(self) -> bool:
        """Have the record say that nobody watches, so that whoever adds a rule from now on starts another."""
        if not self.record.lock(wait=False):
            return registry.load(self.record.jid) is None
        try:
            self._stamp = ()
            self._look_for_rules()
            if not self.watches and processid.is_own(self.record.warden):
                self.record.append(["warden "])
            return not self.watches
        finally:
            self.record.unlock()

    def _try_to_look(self) -> None:
        """What ends meanwhile cannot be looked at; another reason is told of once."""
        try:
            if self.watches:
                self._look()
            self._failing = False
        except (JailError, OSError) as error:
            if not self._failing and not ns.ends_within(self.init, 0):
                self._failing = True
                syslog.tell(f"jail {visible(self.record.name)}: {visible(explain(error))}")

    def _look(self) -> None:
        used = self._used()
        refused = self._newly_refused()
        lines = 0
        for one in self.watches:
            if one.limit.resource not in used:
                continue
            if one.holds(used[one.limit.resource]) and one.limit.amount > refused.get(one.limit.resource, -1):
                one.rest()
            elif one.limit.action != "log":
                self._signal(one)
            elif not one.told and lines < _MOST_LINES:
                one.told = True
                lines += 1
                self._tell(one)

    def _used(self) -> dict[str, int]:
        """Of what is watched; without that for which the jail's root keeps this process waiting."""
        names = {one.limit.resource for one in self.watches}
        apart = names.intersection(consumption.OWN) if self.record.params.get("allow.mount") == "true" else set()
        found = kernel.usage(self.record, names - apart) if names - apart else {}
        used = {name: found[name] for name in names - apart if name in found}  # disk is there with a quota alone
        if apart:
            used.update(_asked_by_another(self.record, apart))
        return used

    def _newly_refused(self) -> dict[str, int]:
        """The amounts of the jail's ``deny`` beyond which the kernel has refused something since this was asked last.

        Where that is the amount of another rule, too, what is used never exceeds that, and yet somebody has tried.
        """
        before, self._refused = self._refused, {}
        for resource in {one.limit.resource for one in self.watches if one.limit.resource in self._denied}:
            self._refused[resource] = refusals.counted(self.record, resource)
        grown = [name for name, now in self._refused.items() if refusals.have_grown(before.get(name, now), now)]
        return {name: self._denied[name] for name in grown}

    def _tell(self, one: Watch) -> None:
        record = self.record
        found = offender.worst(halt.members(record), one.limit.resource)
        syslog.tell(
            f'rule "{of_jail(visible(record.name), one.limit).text}" matched by pid {found.pid} '
            f"({visible(found.comm)}), uid {found.uid}, jail {visible(record.name)}"
        )

    def _signal(self, one: Watch) -> None:
        """Send it to all who have not had it. They may have children meanwhile, and more than this is quick for.

        So with SIGKILL they stand still, and what they have as children as well. cgroup.kill, which is for that, would
        have the kernel kill whoever is born into the cgroup from another one ever after (Linux 6.14: of a fork into
        a cgroup it compares the count of kills of that with the one where the parent is).
        """
        number = int(getattr(_signal, one.limit.action.upper()))
        if number != _signal.SIGKILL:
            self._send_to_all(one, number)
            return
        with halt.Stopped(self.record):
            self._send_to_all(one, number)

    def _send_to_all(self, one: Watch, number: int) -> None:
        there = set(halt.members(self.record))
        one.signalled = {pid: inode for pid, inode in one.signalled.items() if pid in there}
        halt.send(self.record, number, one.signalled)


def _asked_by_another(record: Record, names: set[str]) -> dict[str, int]:
    """What is used, found out by a child that may be kept waiting; nothing, if it is."""
    hears, tells = posix.pipe()
    child = posix.fork()
    if child == 0:
        try:
            used = kernel.usage(record, names)
            posix.write(tells, " ".join([f"{name}={used[name]}" for name in names]).encode())
        finally:
            posix._exit(0)
    posix.close(tells)
    waiter = poll()
    waiter.register(hears, POLLIN)
    try:
        answer = posix.read(hears, 4096).decode() if waiter.poll(1000 * _PATIENCE) else ""
    finally:
        posix.close(hears)
        posix.kill(child, _signal.SIGKILL)  # it is not reaped before: nobody else has its number
        posix.waitpid(child, 0)
    pairs = [word.partition("=") for word in answer.split()]
    return {name: int(amount) for name, _, amount in pairs}


def _stamp(jid: int) -> tuple[int, ...]:
    """What differs when the rules, or what the jail's record says, may have changed."""
    found: list[int] = []
    for path in (index.RULES, f"{index.DIRECTORY}/jails/{jid}"):
        try:
            status = posix.stat(path)
            found += [status.st_ino, status.st_size, status.st_mtime_ns]
        except FileNotFoundError:
            found.append(0)
    return tuple(found)


def main(jid: int, pid: int, inode: int) -> None:
    """Watch the jail of that jid, if it still is the one whose PID 1 this is. Does not return."""
    hears, bell = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
    _signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
    _signal.signal(_signal.SIGHUP, lambda *_: None)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, (_signal.SIGTERM,))
    try:
        beside.shed()
        record = beside.named(jid, lambda record: record.warden)
        if record is not None and record.init == f"{pid} {inode}":
            init = ns.pidfd_open(pid)
            if posix.fstat(init).st_ino == inode:
                syslog.open_kernel()  # from the cgroups of jails no device can be opened
                before = beside.enter()
                _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)  # one that has come was for its starter's unit
                _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
                _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
                halt.resume(record)  # the last one may have been killed before it could
                Warden(record, init).serve(hears)
                beside.leave(before)
    except ProcessLookupError:
        pass  # the jail has ended meanwhile
    except Exception as error:  # nobody else would ever hear of it
        syslog.tell(f"jail {jid} is no longer watched: {visible(explain(error))}")
    posix._exit(0)
