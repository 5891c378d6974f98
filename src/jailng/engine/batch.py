"""Several jails at once: which comes after which, which are at work, and which wait (usr.sbin/jail/state.c, jail.c).

A jail waits for those that it depends on, and when stopped for those that depend on it. Those that wait for nothing
are taken in their order, to start them from the first, to stop them from the last. Each is carried on until it waits
for a process; so jails are made one after the other and their commands run side by side, ``limit`` at most. A jail that
fails takes along those that depend on it, and no others.
"""

from __future__ import annotations

import sys

from jailng.core import registry
from jailng.engine import ahead, beginning, command, ending, life, modify
from jailng.engine.asleep import Asleep
from jailng.engine.dependency import SET, START, STOP
from jailng.errors import JailError, messages
from jailng.linux.libc import buffer, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jailng.core.registry import Record
    from jailng.engine.dependency import Jail
    from jailng.engine.life import Voice, Walk
    from jailng.params.model import Parameters

_ALL = START | SET | STOP
_RLIMIT_NOFILE = 7
_AHEAD = 8  # so many jails die at once
_SPARE = 62  # what is open anyhow, what making a jail takes, and inside.AT_ONCE


def _descriptors() -> int:
    """How many descriptors this process may have open."""
    limit = buffer(16)
    syscall("prlimit64", 0, _RLIMIT_NOFILE, None, limit)
    return int.from_bytes(limit.raw[:8], sys.byteorder)


class Batch:
    """Jails by their names, and what to tell of them.

    ``voice`` makes a jail's voice; ``complain`` is told of a jail and why it has failed, ``started`` of each that has
    been started, ``created`` of its record as soon as there is one. ``limit`` is how many commands may run at once, 0
    for any number. ``quiet``: nothing is said of jails that are skipped (-q). ``forced``: jails are removed without
    their commands (-R). ``afterwards``: jails that run are left alone (-C). Where there is a ``plan``, it is told what
    would be done, and nothing is. ``failed`` is true once anything has.
    """

    def __init__(
        self,
        jails: dict[str, Jail],
        voice: Callable[[Jail], Voice],
        limit: int,
        complain: Callable[[Jail, str], None],
    ) -> None:
        self.jails = jails
        self.voice = voice
        self.limit = limit
        self.complain = complain
        self.created: Callable[[Record], None] | None = None
        self.started: Callable[[Jail, Record], None] | None = None
        self.plan: Callable[[Jail, list[str]], None] | None = None
        self.quiet = self.forced = self.afterwards = self.failed = False
        self._ready: list[Jail] = []
        self._turns: list[Jail] = []  # those whose next command has to wait for another's end
        self._asleep = Asleep()
        self._wanted = 0  # jails
        self._most = _descriptors() - _SPARE

    # What is to be done

    def fail(self, jail: Jail, text: str) -> None:
        """Have a jail fail, and say why."""
        self.complain(jail, text)
        jail.failed = self.failed = True

    def spoil(self, jail: Jail, text: str) -> None:
        """Say what is wrong with a jail as it is defined: it fails where something is to be done with it."""
        self.complain(jail, text)
        jail.failed = True

    def _skip(self, jail: Jail) -> None:
        """Have a jail fail because another has; of one that nobody asked for nothing is said."""
        if not (jail.drawn or jail.failed or self.quiet) and jail.work:
            self.complain(jail, "skipped")
        jail.failed = True
        self.failed = self.failed or jail.work != 0
        if jail.waiting == "open":  # there is nothing left that it could wait for
            self._make_ready(jail)

    def want(
        self, jails: Iterable[Jail], work: int, clean: bool = False, wild: bool = False, everything: bool = False
    ) -> None:
        """Have this done to these. If it is ``everything`` there is, each waits from the first for those before it."""
        for jail in jails:
            self._wanted += not jail.work
            jail.work, jail.clean, jail.wild = work, clean, wild
        for jail in jails:
            jail.count()
            if jail.open and everything and not jail.failed:
                jail.waiting = "open"
            else:
                self._make_ready(jail)

    def _make_ready(self, jail: Jail) -> None:
        if jail.waiting != "ready":
            jail.waiting = "ready"
            self._ready.append(jail)

    def run(self) -> None:
        """Do it all."""
        self._foresee_restarts()
        try:
            while (found := self._next()) is not None:
                jail, timed_out = found
                if jail.walk is not None:
                    self._go_on(jail, timed_out)
                else:
                    self._begin(jail)
        finally:
            # In what another has begun there may be what this one has: a mount, or the jail itself.
            for jail in reversed(self.jails.values()):
                if jail.walk is not None:
                    self._abandon(jail, jail.walk)

    def _foresee_restarts(self) -> None:
        """Decide of -mr and -cmr what is a restart: then those go first that depend on such a jail, else they go last.

        FreeBSD decides when a jail has its turn, and one that then waits for those that wait for it is never done.
        """
        for jail in self.jails.values():
            if jail.work in (SET | STOP, _ALL) and not jail.failed:
                try:
                    self._decide(jail, self._look_up(jail))
                except (JailError, OSError):
                    self._make_ready(jail)  # to meet that again, and be told of it, without waiting for others
                if jail.stops:
                    self._make_ready(jail)

    def _abandon(self, jail: Jail, walk: Walk) -> None:
        try:
            walk.close()
        except (JailError, OSError) as error:
            for text in messages(error):
                self.fail(jail, text)

    def _next(self) -> tuple[Jail, bool] | None:
        """The next jail that can do something: its command has ended, it has its turn, or it is ready."""
        woken = self._asleep.wake(bool((self._ready and not self._is_full()) or (self._turns and self._has_room())))
        if woken is not None:
            return woken
        if self._turns and self._has_room():
            return self._turns.pop(0), False
        if not self._ready:
            return None
        at = 0
        if self._ready[0].stops:  # what was asked for last is stopped first
            at = len(self._ready) - 1
            while not self._ready[at].stops:
                at -= 1
        jail = self._ready.pop(at)
        jail.waiting = ""
        return jail, False

    def _has_room(self) -> bool:
        return (not self.limit or self._asleep.commands < self.limit) and not self._is_full()

    def _is_full(self) -> bool:
        """Whether another jail at work could take more descriptors than there are.

        Who waits for its turn may have its record open and locked; who waits for a command has that and the command's
        pipe.
        """
        taken = self._asleep.descriptors + 3 * len(self._asleep) + 2 * len(self._turns)
        return len(self._asleep) > 0 and taken > self._most

    # One jail's way

    def _begin(self, jail: Jail) -> None:
        """A jail is ready to have its next thing done (the main loop of jail.c)."""
        if jail.failed:
            self.failed = True
            self._done(jail)
            return
        try:
            params = self._look_up(jail)
            self._decide(jail, params)
            _WORK[jail.work](self, jail, params)
        except (JailError, OSError) as error:
            self._fell(jail, error)

    def _look_up(self, jail: Jail) -> Parameters:
        """Its parameters, and its record if it runs. Raises JailError, OSError."""
        if jail.params is None:
            jail.params = jail.read(jail.work == STOP)
        if not jail.sought:
            jail.sought = True
            jail.record = jail.record or self._running_jail(jail.params)
        return jail.params

    def _fell(self, jail: Jail, error: Exception) -> None:
        jail.walk = None
        jail.failed = self.failed = True
        for text in messages(error):
            self.complain(jail, text)
        self._done(jail)

    @staticmethod
    def _running_jail(params: Parameters) -> Record | None:
        wanted = str(params.number("jid")) if params.number("jid") else params.text("name")
        return registry.find(wanted) if wanted else None

    def _decide(self, jail: Jail, params: Parameters) -> None:
        """Combinations of -c, -m and -r come to one of these by whether the jail runs."""
        there = jail.record is not None
        if jail.record is not None and jail.work & SET:
            life.spell_path(params, jail.record)
        if jail.work == START | SET:
            jail.work = SET if there else START
        elif jail.work in (SET | STOP, _ALL):
            if not there and jail.work != _ALL and not jail.clean:
                raise JailError(f'"{jail.name}" not found')
            restart = jail.record is not None and self._running_with(jail.record).restarts(params)
            jail.work = START | STOP if restart else SET if there else START
            if restart:
                jail.count()

    @staticmethod
    def _running_with(record: Record, known: bool = False) -> Parameters:
        from jailng.params.model import Parameters

        return Parameters.from_texts(record.params, known)

    def _start(self, jail: Jail, params: Parameters) -> None:
        if jail.record is not None and not (jail.drawn or jail.wild):
            raise JailError(f'"{jail.name}" already exists')
        if self._has_to_wait(jail):
            return
        if jail.record is not None:
            if self.started is not None:
                self.started(jail, jail.record)
            self._done(jail)
            return
        life.settle(params, self.voice(jail))
        if self.plan is not None:
            from jailng.engine import plan

            self.plan(jail, plan.creation(params, self.voice(jail)))
            self._done(jail)
            return
        way = self._life(jail, params)
        self._set_out(jail, self._cleaned_first(jail, way) if jail.clean else beginning.starting(way))

    def _cleaned_first(self, jail: Jail, way: life.Life) -> Walk:
        way.record = registry.remains(jail.name)
        yield from ending.cleaning(way)
        way.record = None
        yield from beginning.starting(way)

    def _set(self, jail: Jail, params: Parameters) -> None:
        if jail.record is None and not jail.drawn:
            raise JailError(f'"{jail.name}" not found')
        if self._has_to_wait(jail):
            return
        if jail.record is not None and not jail.drawn:
            if self.plan is not None:
                from jailng.engine import plan

                self.plan(jail, plan.change(jail.record, params))
            else:
                modify.update(jail.record, params, self.voice(jail))
        self._done(jail)

    def _stop(self, jail: Jail, params: Parameters) -> None:
        if self._has_to_wait(jail):
            return
        if jail.record is not None and self.afterwards:
            if not (jail.drawn or jail.wild):
                raise JailError("still running")
            self._done(jail)
            return
        if jail.record is not None and jail.wild and not (jail.killed or jail.record.alive()):
            jail.record = None  # it has ended since it was found to run
        if self.plan is not None and (jail.record is not None or jail.clean):
            from jailng.engine import plan

            gone = jail.record is None
            there = registry.remains(jail.name) if gone else jail.record
            self.plan(jail, plan.removal(there, params, gone, self.forced))
            self._stopped(jail)
            return
        way = self._life(jail, params)
        if jail.record is not None:
            way.running = self._running_with(jail.record, self.forced)
            way.killed, jail.killed = jail.killed, False
            ahead.kill((other for other in self._ready[: -_AHEAD - 1 : -1] if other.stops), self.forced)
            walk = ending.removing(way) if self.forced else ending.stopping(way)
        elif jail.clean:
            way.record = registry.remains(jail.name)
            walk = ending.cleaning(way)
        else:
            if self.plan is None:
                ending.clear_away(jail.name)  # what it may have left when it ended by itself
            if not (jail.drawn or jail.wild):
                if not self.quiet:
                    self.complain(jail, f'"{jail.name}" not found')
                jail.failed = self.failed = True
            self._stopped(jail)
            return
        self._set_out(jail, walk)

    def _life(self, jail: Jail, params: Parameters) -> life.Life:
        way = life.Life(params, jail.record, self.voice(jail))
        way.crowded = self._wanted > 1
        way.strings = True

        def created(record: Record) -> None:
            jail.record = record
            if self.created is not None:
                self.created(record)
            self._done(jail, light=True)

        def removed() -> None:
            if jail.stops:
                jail.record = None
                self._done(jail, light=True)

        way.created, way.removed = created, removed
        return way

    def _set_out(self, jail: Jail, walk: Walk) -> None:
        """Begin with a jail, when there is room for a command: what needs none waits for it as well (next_command)."""

        def in_turn() -> Walk:
            yield command.TURN
            yield from walk

        jail.walk = in_turn()
        self._go_on(jail, None)

    def _go_on(self, jail: Jail, timed_out: bool | None) -> None:
        """Carry a jail on until it waits. ``timed_out`` is how it last waited; None: it has not yet begun.

        Whose command has ended has the first turn, so that with a ``limit`` of 1 one jail is done after the other.
        """
        assert jail.walk is not None
        begun = timed_out is not None
        try:
            wait = next(jail.walk) if timed_out is None else jail.walk.send(timed_out)
            while wait is command.TURN and (begun or not self._turns) and self._has_room():
                wait = jail.walk.send(False)
        except StopIteration:
            self._ended(jail)
        except (JailError, OSError) as error:
            self._fell(jail, error)
        else:
            if wait is command.TURN:
                self._turns.append(jail)
            else:
                self._asleep.add(jail, wait)

    def _ended(self, jail: Jail) -> None:
        jail.walk = None
        if jail.stops:
            self._stopped(jail)
            return
        if self.started is not None and jail.record is not None:
            self.started(jail, jail.record)
        self._done(jail)

    def _stopped(self, jail: Jail) -> None:
        self._done(jail)
        jail.record = None
        if jail.work & START and not jail.failed:  # a restart
            jail.work, jail.clean, jail.params = START, False, None
            jail.count()
            self._make_ready(jail)

    # Waiting for others

    def _has_to_wait(self, jail: Jail) -> bool:
        """Whether others have to be done first; these are then asked to, if nobody has yet (dep_check in state.c)."""
        if jail.open == 0:
            return False
        left = 0
        for edge in jail.edges():
            if edge.met & jail.way:
                continue
            other = edge.later if jail.stops else edge.earlier
            met = other.record is None if jail.stops else other.record is not None and not other.stops
            if other.failed:
                if not (jail.stops and other.sought and met):
                    self._skip(jail)
                continue
            self._draw(jail, other)
            if not (edge.light and other.sought and met):
                left += 1
        if jail.failed:
            self._done(jail)
            return True
        if left:
            jail.waiting = "open"
        return left > 0

    def _draw(self, jail: Jail, other: Jail) -> None:
        """Have the other do what this one's work asks of it, unless it has more to do already."""
        self._reconsider(jail, other)
        if bin(other.work).count("1") > 1:
            return
        begins = other.work == 0
        again = begins
        if begins:
            other.drawn = True
        if jail.work == START:
            other.work |= START
        elif jail.work == SET:
            if begins:
                other.work |= SET
            elif other.work & STOP:
                other.work |= START
        else:
            again = again or not other.work & STOP
            other.work |= STOP
            if other.work & SET:
                other.work ^= START | SET
        if again:
            other.count()
        if begins:
            self._wanted += 1
        # What it has waited for is not what it waits for now; and if it was done, it has more to do.
        if begins or (again and (other.waiting == "open" or other.over)):
            other.over = False
            self._make_ready(other)

    @staticmethod
    def _reconsider(jail: Jail, other: Jail) -> None:
        """Let the other be drawn once more, where what it was drawn into is not the last word."""
        if other.work == START | SET and jail.stops:
            other.work = START  # which comes to a restart
        elif other.over and other.work == STOP and jail.work == START:  # it was stopped for another's sake
            other.work, other.over, other.params = 0, False, None

    def _done(self, jail: Jail, light: bool = False) -> None:
        """Let those go on that waited for it (dep_done in state.c); ``light``: who only needs it there, or gone."""
        way = jail.way
        failed = jail.failed and not (jail.drawn and jail.work == SET)
        self._let_go_on(jail, way, failed, light)
        jail.over = not light
        if not failed:
            self._take_back(jail, way)
        if jail.failed and jail.work == START | STOP:  # it will not come to its start
            self._let_go_on(jail, START, failed, light)
        elif jail.failed and not jail.stops:  # nor, if it runs, to its end
            self._let_go_on(jail, STOP, jail.record is not None or not jail.sought, light)

    @staticmethod
    def _take_back(jail: Jail, way: int) -> None:
        """It runs, or does not, though it may have been stopped, or started, before: whoever waits waits for more."""
        for edge in jail.before if way == STOP else jail.after:
            other = edge.later if way == STOP else edge.earlier
            if edge.met & (START | STOP) & ~way and (way == STOP or jail.record is not None):
                edge.met &= way
                if other.way != way:
                    other.count()

    def _let_go_on(self, jail: Jail, way: int, failed: bool, light: bool) -> None:
        for edge in jail.after if way == STOP else jail.before:
            if edge.met & way or (light and not edge.light):
                continue
            if not failed:
                edge.met |= way
            other = edge.earlier if way == STOP else edge.later
            if other.way != way:  # it goes the other way first, and will see to this edge when it has its turn
                continue
            if failed:
                self._skip(other)
            other.open -= 1
            if other.open == 0 and other.waiting == "open":
                self._make_ready(other)


_WORK = {START: Batch._start, SET: Batch._set, STOP: Batch._stop, START | STOP: Batch._stop}
