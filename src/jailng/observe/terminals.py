"""The post for terminals (`ng.watch = tty`, and whoever watches): what happens on them is recorded, and shown live.

The supervisor holds the program of the whole host (observe/shared.py), the jail's ring and the socket for watchers; the
worker empties the ring.
"""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jailng.core import registry
from jailng.errors import JailError, explain
from jailng.limits import syslog
from jailng.linux import cgroup, processid, ringbuffer
from jailng.observe import event, post, posts, ptys, shared, store, watchers
from jailng.observe.budget import Options
from jailng.observe.event import Event
from jailng.observe.recorder import Recorder  # whether or not it is wanted now: docs/decisions/0030-posts.md
from jailng.observe.tracker import Tracker
from jailng.params import watch
from jailng.params.values import visible

if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.observe.post import Duty
    from jailng.observe.watchers import Watcher

_RING = 4 << 20  # bytes
_AT_ONCE = 4096  # records between two looks at everything else
_TICK = 1.0  # seconds
_SOON = 0.02
_GROWING = 5.0  # in which a jail that is made has its terminals
_LETTING_GO = 5.0  # between two looks at which of them are gone
_DEATHS = 2  # of workers at the same record, which is then left out
_LAST = 3.0  # seconds for a relay; one whose user does not read may have more
_PATIENCE = 10.0  # for the first watcher, where nothing is recorded


class Held:
    """What outlives a worker."""

    def __init__(
        self, name: str, found: shared.Shared, jail: int, ring: int, listens: socket.socket, told: memoryview
    ) -> None:
        """``told``: lost records that were told of, where the last worker began to read, how many have died there.

        The last is 1 as soon as there was a worker: what happens from then on is in the ring, whoever reads it.
        ``name`` is that of the recordings' place, which stays where it is when the jail is renamed.
        """
        self.name = name
        self.shared = found
        self.jail = jail
        self.ring = ring
        self.listens = listens
        self.told = told


def hold(record: Record) -> Held:
    """In the supervisor. Raises JailError and OSError."""
    found = shared.attached()
    jail = cgroup.number(record.cgroup)
    ring = ringbuffer.create(_RING)
    found.watch(jail, ring.fd)
    told = memoryview(mmap.mmap(-1, 32)).cast("Q")
    return Held(record.name, found, jail, ring.fd, watchers.listening(record.jid), told)


def work(duty: Duty, held: Held) -> None:
    """In a worker: until the jail has ended, or nobody wants this any more."""
    one = _Work(duty, held)
    one.serve()
    one.close()


class _Work:
    def __init__(self, duty: Duty, held: Held) -> None:
        self.duty = duty
        self.held = held
        self.ring = ringbuffer.Ring(held.ring, _RING)
        self.watchers = watchers.Watchers(held.listens)
        self.tracker = Tracker(held.shared, held.jail, duty.record.cgroup, held.told, self._tell)
        self.recorder: Recorder | None = None
        self.wanted = True
        self.begun = self._let_go_at = time.monotonic()
        self.ticked = 0.0
        self._failing = ""  # why nothing can be recorded
        self._missed = 0  # events since then

    def serve(self) -> None:
        duty, tracker = self.duty, self.tracker
        self._refresh()
        dev = tracker.know(duty.record.init_pid, own=True)
        if dev is not None:
            tracker.take_up(dev, self._going_on())
        self._take_in_below(self._going_on())
        self.held.told[3] = 1
        duty.ready()
        if duty.again:
            self._pass_over()
            while self._read():
                pass
            tracker.end_gone()
        while True:
            soon = self.watchers.flush(event.now()) or self._is_growing()
            pause = min([_TICK, *tracker.due(), *([_SOON] if soon else [])])
            more = self._read()
            ready = post.readable(
                self.ring.fd,
                tracker.notify.fd,
                duty.init,
                duty.bell,
                *self.watchers.fds(),
                seconds=0 if more else pause,
            )
            if duty.bell in ready:
                self._refresh()
            if tracker.notify.fd in ready:
                while self._read():
                    pass
                tracker.look_at_ends()
            for watcher, words in self.watchers.hear(ready):
                self._answer(watcher, words)
            tracker.look()
            self._tick()
            self._let_go()
            if duty.init in ready:
                self._hear_out()
                tracker.end_all()
                return
            if self._may_leave():
                return

    def _hear_out(self) -> None:
        """The jail has ended: its relays on the host have yet to read what its terminals still held."""
        deadline = time.monotonic() + _LAST
        while True:
            while self._read():
                pass
            self.tracker.end_gone()
            left = deadline - time.monotonic()
            if not self.tracker.sessions or left <= 0:
                return
            if self.tracker.notify.fd in post.readable(self.ring.fd, self.tracker.notify.fd, seconds=left):
                while self._read():
                    pass
                self.tracker.look_at_ends()

    def _going_on(self) -> set[tuple[int, int]]:
        """The terminals of which a former worker has recorded the beginning."""
        if self.recorder is None or not self.duty.again:
            return set()
        found = self.recorder.live
        if self.held.told[3]:
            return set(found)
        # Nothing has told this post of the terminals that were closed, and of those that bear their numbers now.
        return {key for key, seen in found.items() if not self.tracker.is_later(key, seen)}

    def _is_growing(self) -> bool:
        """Whether a jail is being made in this one: its terminals are this one's as soon as it has a devpts."""
        now = time.monotonic()
        if now - self.tracker.grown > _GROWING:
            return False
        self._take_in_below()
        return True

    def _take_in_below(self, going_on: Iterable[tuple[int, int]] = ()) -> None:
        """The terminals of the jails in this one, but for those that have a post of their own."""
        for jid in registry.jids_below(self.duty.record.name):
            record = registry.load(jid)
            if record is not None and not processid.is_alive(record.posts.get("tty", "")):
                self._take_in(record, going_on)

    def _let_go(self) -> None:
        """Of the terminals of jails in this one that have ended."""
        now = time.monotonic()
        if len(self.tracker.devs) < 2 or now - self._let_go_at < _LETTING_GO:
            return
        self._let_go_at = now
        below = [record.init_pid for record in registry.below(self.duty.record.name) if record.alive()]
        self.tracker.let_go([ptys.present(pid)[0] for pid in below])

    def _take_in(self, record: Record | None, going_on: Iterable[tuple[int, int]] = ()) -> None:
        if record is None or not record.alive():
            return
        known = set(self.tracker.devs)
        dev = self.tracker.know(record.init_pid)
        if dev is not None and dev not in known:
            self.tracker.take_up(dev, going_on)

    def _read(self) -> bool:
        """Empty the ring, or much of it; whether there is more."""
        for record in self.ring.read(_AT_ONCE):
            self.tracker.take(record)
        self.tracker.settle()
        return self.ring.waiting > 0

    def _pass_over(self) -> None:
        """Leave out, and count, a record at which one worker after the other has died."""
        told, at = self.held.told, self.ring.position
        told[1], told[2] = at, told[2] + 1 if at == told[1] and self.ring.waiting else 0
        if told[2] >= _DEATHS and self.ring.skip():
            told[2] = 0
            self._tell(Event(event.now(), event.DROPPED, count=1))

    def _tell(self, one: Event) -> None:
        if self.recorder is not None:
            self.recorder.take(one)
        elif self._failing:
            self._missed += 1
        self.watchers.tell(one)

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self.ticked < _TICK:
            return
        self.ticked = now
        if self.recorder is not None:
            self.recorder.tick(event.now())
            if self.recorder.uprooted:  # somebody has removed all that is kept
                self.recorder.close()
                self.recorder = None
                self._refresh()
        elif self._failing:
            self._refresh()

    def _refresh(self) -> None:
        """Record, or do not, as the jail's parameters say."""
        self.wanted = self.duty.refresh()
        asked = watch.of(self.duty.record.params, "tty") if self.wanted else None
        if asked is not None:
            try:
                self._record(Options(**asked.options))
            except (JailError, OSError) as error:
                if self.duty.awaited:
                    raise
                self._fail(explain(error))
            return
        self._failing = ""
        if self.recorder is not None and not self.duty.ended():
            self.recorder.close("stopped")
            self.recorder = None
            self.begun = -_PATIENCE  # a first watcher is not awaited: there may be a post of an outer jail's

    def _record(self, options: Options) -> None:
        """Record within these limits."""
        if self.recorder is not None:
            self.recorder.limit(options)
            return
        directory = store.directory(self.held.name, "sessions")
        self.recorder = Recorder(self.duty.record, str(directory), options)
        if self._missed:
            self.recorder.take(Event(event.now(), event.DROPPED, count=self._missed))
        self._failing, self._missed = "", 0
        for session in self.tracker.sessions.values():
            self.recorder.take(session.start)

    def _fail(self, why: str) -> None:
        """Those who watch go on, and it is tried again."""
        if not self._failing:
            syslog.tell(f"jail {visible(self.duty.record.name)}: tty: {visible(why)}")
        self._failing = why

    def _may_leave(self) -> bool:
        """Whether nobody wants to know anything."""
        if self.wanted or self.watchers.all:
            return False
        if not (self.duty.ending or self.watchers.had_any or time.monotonic() - self.begun > _PATIENCE):
            return False
        # Who asks for recordings has written so in the record before it comes by (client.keep).
        self._refresh()
        return not self.wanted

    def _answer(self, watcher: Watcher, words: dict[str, Any]) -> None:
        key = words.get("watch")
        wants = (int(key[0]), int(key[1])) if isinstance(key, list) and len(key) == 2 else None
        if "typed" in words and wants is not None:
            with suppress(ValueError, OSError):
                typed = bytes.fromhex(str(words["typed"]))
                pid = _peer(watcher)
                self._tell(Event(event.now(), event.INPUT, wants[1], wants[0], pid, 0, "watch", typed))
        else:
            if isinstance(words.get("made"), int):
                self._take_in(registry.load(words["made"]))
            watcher.want(wants, key is not False)

    def close(self) -> None:
        """Finish what has been recorded, and take away what would outlive this post."""
        if self.recorder is not None:
            self.recorder.close()
        self.watchers.close()
        self.tracker.close()
        with suppress(OSError):
            os.unlink(watchers.place(self.duty.record.jid))
        self.held.shared.leave(self.held.jail)
        if not self.duty.ended():
            posts.left(self.duty.record)  # from now on it is seen by that of the jail that it is in


def _peer(watcher: Watcher) -> int:
    return int.from_bytes(watcher.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
