"""Events of a jail's terminals, made of what the program in the kernel has put into the jail's ring."""

from __future__ import annotations

import os
import struct
import sys
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from jailng.linux import cgroup, gathering, inotify
from jailng.observe import event, ptys, ringrecord
from jailng.observe.event import Event, Facts
from jailng.observe.shared import Shared, user_device

_WINSIZE = struct.Struct("=4H")
_KINDS = {ringrecord.OUTPUT: event.OUTPUT, ringrecord.INPUT: event.INPUT}
# Seconds after its start at which it is looked who sits at a terminal: a login is root's until it is somebody's.
_LOOKS = (0.05, 0.5, 2.0, 10.0, 60.0)
_SMALL, _TOGETHER = 2048, 4096  # bytes
_QUESTIONS = 32  # a second, of whose connection it is
_BETWEEN = 0.25  # seconds between two looks, each of which reads all of a jail's /proc
_WATCHED = inotify.IN_DELETE | inotify.IN_CREATE


@dataclass
class Session:
    """A terminal that is open."""

    dev: int
    number: int
    begin: float  # of time.monotonic()
    start: Event
    looks: int = 0
    facts: Facts = field(default_factory=dict)
    shown: bool = False  # whether there has been output: whoever serves it has given it to its user before
    entered: bool = False  # whether a line has been typed since the last look: there may be somebody else by now

    def at(self) -> float | None:
        """When somebody is to look, by time.monotonic(); None: not."""
        if self.entered:
            return self.begin
        return self.begin + _LOOKS[self.looks] if self.looks < len(_LOOKS) else None


class Tracker:
    """Which terminals of a jail are open, and what happens on them; ``tell`` is given every event."""

    def __init__(self, shared: Shared, jail: int, path: str, told: memoryview, tell: Callable[[Event], None]) -> None:
        """``jail``: the id of its cgroup, ``path``. ``told``: how many lost records have been told of, in memory that
        outlives this process.
        """
        self.shared = shared
        self.jail = jail
        self.path = path
        self.told = told
        self.tell = tell
        self.sessions: dict[tuple[int, int], Session] = {}
        self.notify = inotify.Watcher()
        self.devs: dict[int, int] = {}  # st_dev of a devpts: a descriptor of it
        self._own = -1  # the jail's, among them
        self._watches: dict[int, int] = {}  # of inotify: st_dev
        self._cgroup = self.notify.add(f"/proc/self/fd/{cgroup.unified_root()}/{path}/members", inotify.IN_CREATE)
        self.grown = 0.0  # of time.monotonic(): when a jail was last made in this one
        self._held: Event | None = None
        self._look_at = 0.0
        self._questions, self._asked = float(_QUESTIONS), time.monotonic()

    def know(self, pid: int, own: bool = False) -> int | None:
        """Take in the devpts that a process has at /dev/pts; its device number, None: it has none.

        ``own``: it is the jail's, and not that of one in it.
        """
        devpts = ptys.directory(pid)
        if devpts < 0:
            return None
        dev = os.fstat(devpts).st_dev
        if own:
            self._own = dev
        if dev in self.devs:
            os.close(devpts)
            self.shared.claim(dev, self.jail, own)  # a post of that jail's own may have had it meanwhile
            return dev
        self.devs[dev] = devpts
        self._watches[self.notify.add(f"/proc/self/fd/{devpts}", _WATCHED)] = dev
        self.shared.claim(dev, self.jail, own)
        return dev

    def let_go(self, seen: Collection[int]) -> None:
        """Of the devpts, but for the jail's own and those that are ``seen`` in jails, that have no terminal left.

        A descriptor keeps one in the kernel, and of all that are claimed there the machine has room for so many.
        """
        kept = {self._own, *seen, *[dev for dev, _ in self.sessions]}
        for dev in set(self.devs) - kept:
            os.close(self.devs.pop(dev))
            self.shared.release(dev, self.jail)
        self._watches = {watch: dev for watch, dev in self._watches.items() if dev in self.devs}

    def take_up(self, dev: int, going_on: Iterable[tuple[int, int]] = ()) -> None:
        """The terminals that are open already: they begin now, but for those that are going on."""
        present = ptys.numbers(self.devs[dev])
        # Of one that is gone the ring may still have something; ``end_gone`` ends it after that.
        for key in going_on:
            if key[0] == dev and key[1] not in present:
                self._begin(Event(event.now(), event.START, key[1], dev), goes_on=True)
        if not present:
            return
        openers = ptys.openers(dev)
        for pid in {one.pid for one in openers.values()}:
            if ptys.is_hosts(pid):  # of a jail's the program knows, and it has room for so many
                self.shared.follow(pid)
        for number in present:
            who = openers.get(number)
            begun = Event(event.now(), event.START, number, dev, who.pid if who else 0, who.uid if who else 0)
            begun.comm = who.comm if who else ""
            self._begin(begun, (dev, number) in going_on)

    def is_later(self, key: tuple[int, int], seen: int) -> bool:
        """Whether a terminal may be another than that which had its number at a time, of CLOCK_BOOTTIME.

        Its ctime is when it was opened, or was last given a mode or an owner, and nobody inside can set it back.
        """
        try:
            found = os.stat(str(key[1]), dir_fd=self.devs[key[0]], follow_symlinks=False)
        except (KeyError, OSError):
            return False
        return found.st_ctime_ns > time.time_ns() - (event.now() - seen)

    def take(self, record: bytes) -> None:
        """One record of the ring."""
        head = ringrecord.HEAD
        at, who, dev, index, kind, size, code, uid, count, lost, comm = head.unpack_from(record)
        if lost > self.told[0]:
            self.flush()
            self._lost(lost, at)
        pid = who >> 32
        name = comm.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        made = Event(at, "", index, user_device(dev), pid, uid, name)
        if kind == ringrecord.START:
            self.flush()
            made.kind = event.START
            self._begin(made)
            return
        if made.session not in self.sessions:
            self.flush()
            self._begin(Event(at, event.START, index, made.dev, pid, uid, name))
        if kind in _KINDS:
            made.kind = _KINDS[kind]
            made.data = record[head.size : head.size + size]
            if code & ringrecord.PACKET and kind == ringrecord.OUTPUT:
                made.data = made.data[1:]
            if not made.data:
                return
            if made.kind == event.OUTPUT:
                self._tell_owner(self.sessions[made.session])
                self.sessions[made.session].shown = True
            elif b"\r" in made.data or b"\n" in made.data:
                self.sessions[made.session].entered = True
        elif kind == ringrecord.RESIZE:
            rows, columns, _, _ = _WINSIZE.unpack(count.to_bytes(8, sys.byteorder))
            made.kind = event.RESIZE
            self._tell_owner(self.sessions[made.session])
            made.data = b"%dx%d" % (columns, rows)
        else:
            made.kind = event.UNRECORDED
            made.count = count
            made.data = ringrecord.REASONS[code].encode()
        self._tell(made)

    def _tell(self, made: Event) -> None:
        """Bytes that came in small pieces, as the kernel's pty driver has them, are told of together."""
        held = self._held
        if held is not None:
            alike = (held.kind, held.session, held.pid) == (made.kind, made.session, made.pid)
            if alike and len(held.data) + len(made.data) <= _TOGETHER:
                held.data += made.data
                return
            self.flush()
        if made.kind in (event.OUTPUT, event.INPUT) and len(made.data) < _SMALL:
            self._held = made
        else:
            self.tell(made)

    def flush(self) -> None:
        """Tell of what is held back."""
        held, self._held = self._held, None
        if held is not None:
            self.tell(held)

    def settle(self) -> None:
        """After the ring has been read, to its end or to where there is much else to do: what is lost."""
        self.flush()
        lost, _ = self.shared.lost(self.jail)
        if lost > self.told[0]:
            self._lost(lost, event.now())

    def look_at_ends(self) -> None:
        """What inotify says: end the terminals that are there no more. The ring has been read before."""
        changed, overflown = self.notify.read()
        if any(watch == self._cgroup and name.isdecimal() for watch, name, _ in changed):
            self.grown = time.monotonic()
        known = self._watches
        gone = [(known[watch], name) for watch, name, mask in changed if mask & inotify.IN_DELETE and watch in known]
        for dev, name in dict.fromkeys(gone):
            if name.isdecimal() and (dev, int(name)) in self.sessions and not self._is_there(dev, int(name)):
                self.end(dev, int(name))
        if overflown:
            self.end_gone()

    def end_gone(self) -> None:
        """End all terminals that are there no more. The ring has been read before."""
        for dev, number in list(self.sessions):
            if dev in self.devs and not self._is_there(dev, number):
                self.end(dev, number)

    def end(self, dev: int, number: int, at: int = 0) -> None:
        """A terminal is gone."""
        found = self.sessions.pop((dev, number))
        start = found.start
        self.tell(Event(at or event.now(), event.END, number, dev, start.pid, start.uid, start.comm))
        if not any(other.start.pid == start.pid for other in self.sessions.values()) and not _lives(start.pid):
            self.shared.forget(start.pid)

    def end_all(self) -> None:
        """The jail has ended."""
        for dev, number in list(self.sessions):
            self.end(dev, number)

    # Who is behind a session.

    def due(self) -> list[float]:
        """In how many seconds somebody has to be looked at, if there is somebody."""
        waiting = [at for one in self.sessions.values() if (at := one.at()) is not None]
        return [max(min(waiting), self._look_at) - time.monotonic()] if waiting else []

    def look(self) -> None:
        """Look, if it is time to, who sits at the terminals."""
        now = time.monotonic()
        if now < self._look_at:
            return
        due = [one for one in self.sessions.values() if (at := one.at()) is not None and at <= now]
        if not due:
            return
        pids = gathering.members(self.path)
        found: dict[int, dict[int, ptys.Process]] = {}
        for one in due:
            if one.dev not in found:
                found[one.dev] = ptys.users(pids, one.dev)
            one.entered = False
            while one.looks < len(_LOOKS) and one.begin + _LOOKS[one.looks] <= now:
                one.looks += 1
            self._know(one, found[one.dev].get(one.number))
        self._look_at = time.monotonic() + max(_BETWEEN, 4 * (time.monotonic() - now))

    def _know(self, session: Session, user: ptys.Process | None) -> None:
        peer = str(session.facts.get("remote", "")) or self._remote(session.start.pid)
        facts = {**session.facts, **ptys.facts(user, peer, "kernel")}
        if facts != session.facts:
            session.facts = facts
            self._who(session)

    def _tell_owner(self, session: Session) -> None:
        """Tell whose the terminal is: a command by ssh(1) is over before it can be seen who sits there."""
        if session.shown or "user_pid" in session.facts:
            return
        try:
            owner = os.stat(str(session.number), dir_fd=self.devs[session.dev], follow_symlinks=False).st_uid
        except (KeyError, OSError):
            return
        if session.facts.get("user_uid") != owner:
            session.facts["user_uid"] = owner
            self._who(session)

    def _who(self, session: Session) -> None:
        start, facts = session.start, dict(session.facts)
        who = event.WHO, session.number, session.dev, start.pid, start.uid, start.comm
        self.tell(Event(event.now(), *who, facts=facts))

    def _remote(self, pid: int) -> str:
        """The peer of the connection that a process serves, unless too many are asked for: a loop that opens ptys."""
        now = time.monotonic()
        self._questions = min(_QUESTIONS, self._questions + _QUESTIONS * (now - self._asked))
        self._asked = now
        if self._questions < 1 or not pid:
            return ""
        self._questions -= 1
        others = [one.facts for one in self.sessions.values() if one.start.pid == pid]
        return ptys.remote(pid, [str(facts["remote"]) for facts in others if "remote" in facts])

    def _begin(self, start: Event, goes_on: bool = False) -> None:
        key = start.session
        if key in self.sessions:
            self.end(*key, start.time)
        if start.dev not in self.devs and start.pid:
            self.know(start.pid)
        start.facts = ptys.facts(None, self._remote(start.pid), "kernel")
        self.sessions[key] = Session(start.dev, start.terminal, time.monotonic(), start, 0, dict(start.facts))
        if not goes_on:
            self.tell(start)

    def _is_there(self, dev: int, number: int) -> bool:
        try:
            os.stat(str(number), dir_fd=self.devs[dev])
        except OSError:
            return False
        return True

    def _lost(self, lost: int, at: int) -> None:
        self.tell(Event(at, event.DROPPED, count=lost - self.told[0]))
        self.told[0] = lost

    def close(self) -> None:
        """Let go of the devpts."""
        self.notify.close()
        for fd in self.devs.values():
            with suppress(OSError):
                os.close(fd)


def _lives(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
