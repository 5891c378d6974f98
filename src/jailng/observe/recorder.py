"""Recording a jail's terminals: events become files, one a session, and what is not recorded is counted.

Nothing that has been seen is kept in memory, but for what is counted: each event is written before the next is looked
at, by one write(2) at the end of the file. Whoever records next finds each file as far as it was written, mends its
last line, notes the gap, and goes on in it (observe/cast.py has the form of a file, observe/budget.py the limits).
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from jailng.errors import JailError
from jailng.observe import budget, cast, session
from jailng.observe.archive import Archive, File
from jailng.observe.event import DROPPED, END, INPUT, OUTPUT, RESIZE, START, UNRECORDED, WHO, Event, Facts, now
from jailng.observe.recording import Recording
from jailng.observe.tally import Tally
from jailng.procs.jails import Jails

if TYPE_CHECKING:
    from jailng.core.registry import Record

_MOST = 8192  # terminals of which each is accounted for
_SECOND = 1_000_000_000
_SIZE = re.compile(rb"(\d{1,5})x(\d{1,5})")
_WIDEST, _TALLEST = 2000, 1000  # who plays it makes room for each place: stty(1) can say 65535 by 65535
_PATIENCE, _MOMENT = 5.0, 0.02  # seconds
_LATE = 10 * _SECOND
_NAMES = 5 * _SECOND  # for which what the jail calls its users is taken to be the same


class Recorder:
    """Who records one jail. What it makes lies in one directory, which is nobody's but root's."""

    def __init__(self, record: Record, directory: str, options: budget.Options | None = None) -> None:
        """Take up what a former one has left. ``directory`` is there. Raises JailError and OSError."""
        self._record = record
        self._options = options or budget.Options()
        self._identity = "-".join([record.boot[:8], *record.init.split(" ")])
        with ExitStack() as opened:
            self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
            opened.callback(os.close, self._directory)
            self._lock = self._locked()
            opened.callback(os.close, self._lock)
            self._tally = Tally(self._directory)
            opened.pop_all()
        self._archive = Archive(self._directory, self._options)
        self._together = budget.together(self._options)
        self._live: dict[tuple[int, int], Recording] = {}
        self._unfinished: list[tuple[Recording, str]] = []  # whose end could not be written yet
        self._jails, self._asked = Jails(), 0
        self._lost = 0  # events of the jail's, of whichever of its sessions
        self._now = now()
        for name in self._archive.names():
            if not self._archive.has_ended(name):
                self._take_up(name)
        self._archive.look()

    def _locked(self) -> int:
        """Be the only one who records this jail, as soon as one that has been killed is gone. Raises JailError."""
        deadline = time.monotonic() + _PATIENCE
        while (lock := session.lock(self._directory, self._identity, make=True)) < 0:
            if time.monotonic() > deadline:
                raise JailError(f"{self._record.name}: the terminals of this jail are being recorded already")
            time.sleep(_MOMENT)
        return lock

    def _take_up(self, name: str) -> None:
        """A file that is there: one to go on in, one to finish, or none of ours."""
        try:
            file = self._archive.take_up(name)
        except FileNotFoundError:
            return
        try:
            found = self._archive.read(file)
        except session.NotBegun:  # if the session is still one it begins again
            self._archive.remove(file)
            return
        except ValueError:  # a broken disk, or somebody has been at it: what there is of it stays
            self._archive.finish(file)
            return
        theirs = str(found.header.own.get("recorder", ""))
        if found.ended or (theirs != self._identity and session.is_recorded(self._directory, theirs)):
            self._archive.finish(file)
            return
        if found.torn:
            if not self._archive.mend(file, found):
                self._archive.finish(file)
                return
            found = self._archive.read(file)
        taken = Recording.resumed(file, found, self._budget(), self._lost)
        if theirs != self._identity:
            self._finish(taken, session.CUT_OFF)
            session.unlock(self._directory, theirs)
            return
        key = (int(found.header.own.get("dev", 0)), int(found.header.own.get("terminal", -1)))
        before = self._live.pop(key, None)
        if before:
            self._finish(before, session.CUT_OFF)
        self._live[key] = taken
        self._archive.append(file, taken.gap())

    @property
    def uprooted(self) -> bool:
        """Whether somebody has removed the directory."""
        return os.fstat(self._directory).st_nlink == 0

    def limit(self, options: budget.Options) -> None:
        """Other limits from now on."""
        if options != self._options:
            self._options = self._archive.options = options
            self._together = budget.together(options)
            for found in self._live.values():
                found.budget, found.full = self._budget(), False

    # Events.

    @property
    def live(self) -> dict[tuple[int, int], int]:
        """The terminals that are being recorded, by ``Event.session``, and the time of what was last seen there."""
        return {key: found.seen for key, found in self._live.items()}

    def take(self, event: Event) -> None:
        """Record an event. What there is no room for is counted. Raises OSError."""
        self._now = max(self._now, event.time)
        if event.kind in (DROPPED, UNRECORDED):
            self._missing(event)
        elif event.kind == START:
            found = self._live.get(event.session)
            if not found or found.start != event.time:  # else it is given once more, after a gap
                self._ended(event)
                self._begin(event)
        elif event.kind == END:
            self._ended(event)
        elif event.kind in (OUTPUT, INPUT, RESIZE, WHO):
            self._of_one(event)
        if not 0 <= self._now - self._tally.written < _SECOND:
            self._tally.write(self._now)

    def tick(self, now: int) -> None:
        """Something like a second has gone by. ``now`` in nanoseconds of CLOCK_BOOTTIME. Raises OSError."""
        self._now = max(self._now, now)
        for key, found in list(self._live.items()):
            if found.file is None:
                if not found.counted and self._now - found.start > _SECOND // 4:
                    self._make(found)
            elif self._archive.is_gone(found.file):
                self._archive.leave(found.file)
                self._live[key] = self._anew(found)
            elif found.kept_back and self._now - found.noted > found.pause:
                self._note(found)
        unfinished, self._unfinished = self._unfinished, []
        for found, state in unfinished:
            self._finish(found, state)
        self._tally.write(self._now)

    def close(self, state: str = session.ENDED) -> None:
        """End all sessions: ``state`` says how. Raises OSError."""
        for found in self._live.values():
            self._finish(found, state)
        self._live.clear()
        self.tick(self._now)
        with suppress(OSError):  # a file system that cannot be written to any more
            session.unlock(self._directory, self._identity)
        self._tally.close()
        os.close(self._lock)
        os.close(self._directory)

    def _missing(self, event: Event) -> None:
        found = self._live.get(event.session)
        if event.kind == DROPPED:
            self._tally.dropped(event.count)
            if found:
                found.dropped(event.count)
            else:
                self._lost += event.count
            return
        why = event.data.decode("ascii", "replace") or "moved unseen"
        self._tally.unrecorded(why, event.count)
        if found:
            found.keep_back(event.time, why, event.count)

    def _of_one(self, event: Event) -> None:
        found = self._live.get(event.session) or self._begin(event)
        if found is None:
            if event.kind in cast.STREAMS:
                self._tally.unrecorded("sessions", len(event.data))
        elif event.kind == WHO:
            self._who(found, event)
        elif event.kind == RESIZE:
            self._resize(found, event)
        else:
            self._data(found, event)

    # One session.

    def _budget(self) -> budget.Budget:
        return budget.Budget(self._options, self._together)

    def _begin(self, event: Event) -> Recording | None:
        if event.terminal < 0 or len(self._live) >= _MOST:
            return None
        made = self._live[event.session] = Recording(self._header(event), self._budget(), self._lost)
        return made

    def _header(self, event: Event) -> cast.Header:
        record = self._record
        # Of a session that was there long before anybody recorded it there is nothing to wait for when it is replayed.
        late = self._now - event.time > _LATE
        start = self._now if late else event.time
        wall = time.time_ns() - now() + start
        own: dict[str, str | int] = {
            "id": os.urandom(4).hex(),
            "jail": record.name,
            "jid": record.jid,
            "terminal": event.terminal,
            "dev": event.dev,
            "pid": event.pid,
            "uid": event.uid,
            "comm": event.comm,
            "base": record.owner,
            "recorder": self._identity,
            "wall": wall,
            "start": start,
            **event.facts,
        }
        if event.kind != START or late:
            own["late"] = 1  # its beginning was not seen
        return cast.Header(timestamp=wall // _SECOND, title=f"{record.name} pts/{event.terminal}", own=own)

    def _anew(self, found: Recording) -> Recording:
        """A session whose file somebody has removed, in another file from now on."""
        start, wall = self._now, time.time_ns()
        own = {**found.header.own, **found.who, "id": os.urandom(4).hex(), "start": start, "wall": wall, "late": 1}
        header = cast.Header(found.header.width, found.header.height, wall // _SECOND, found.header.title, own=own)
        return Recording(header, self._budget(), self._lost)

    def _make(self, found: Recording) -> str:
        """Give a session its file: "", or why it gets none."""
        own = found.header.own
        own.update({**self._user(own), **own})
        file, why = self._archive.create(self._now, found.header.timestamp, str(own["id"]), found.header.line())
        self._tally.removed(self._archive.removed)
        self._archive.removed = 0
        found.file = file
        if file is None and not found.counted:
            found.counted = True
            self._tally.session(why)
        return why

    def _user(self, facts: Facts) -> Facts:
        """The user's name as the jail's own passwd has it, or the number; nothing where it is not known who that is."""
        if not 0 <= self._now - self._asked < _NAMES:
            self._jails, self._asked = Jails(), self._now
        uid = session.user_of(facts)
        name = self._jails.inside_user(self._record.jid, uid) if uid >= 0 else "-"
        return {} if name == "-" else {"user": name}

    def _who(self, found: Recording, event: Event) -> None:
        if found.file is None:
            found.header.own.update(event.facts)
            return
        found.who |= event.facts | self._user(event.facts)
        self._line(found, event, cast.WHO, json.dumps(found.who))

    def _resize(self, found: Recording, event: Event) -> None:
        match = _SIZE.fullmatch(event.data)
        if not match or 0 in (int(match.group(1)), int(match.group(2))):
            return  # no window: nothing that can be played
        width, height = min(int(match.group(1)), _WIDEST), min(int(match.group(2)), _TALLEST)
        found.header.width, found.header.height = width, height
        if found.file is None:
            return
        self._line(found, event, cast.RESIZE, f"{width}x{height}")

    def _line(self, found: Recording, event: Event, code: str, data: str) -> None:
        """A line that is no stream's. Too many of them are left out."""
        file = found.file
        if file is None or not found.budget.take(event.time, len(data)):
            return
        line = cast.line(found.at(event.time), code, data)
        if file.size + len(line) <= self._options.size and not self._archive.room(event.time, len(line), file.size):
            self._archive.append(file, line)

    def _data(self, found: Recording, event: Event) -> None:
        data = found.news(event.time, event.kind, event.data)
        if not data:
            return
        found.catch_up(self._lost)
        why = self._refused(found, event, len(data)) or self._written(found, event, data)
        if not why:
            return
        self._tally.unrecorded(why, len(data))
        stops = not found.stopped
        found.keep_back(event.time, why, len(data), event.kind)
        if found.file and stops and self._archive.append(found.file, found.stops(event.time, why)):
            found.flushed()

    def _refused(self, found: Recording, event: Event, size: int) -> str:
        """Why that many bytes are not recorded; "" if they are."""
        is_typed = event.kind == INPUT
        if (found.full and not is_typed) or (found.file and found.file.size + size > self._most(event)):
            found.full = True
            return "size"
        take = found.budget.take_typed if is_typed else found.budget.take
        if not take(event.time, size):
            return "rate"
        return "" if found.file else self._make(found)

    def _most(self, event: Event) -> int:
        """How large a session's file may become by that: who fills it does not hide what he types then."""
        size = self._options.size
        return size if event.kind == INPUT else size - size // 8

    def _written(self, found: Recording, event: Event, data: bytes) -> str:
        """Write it: "", or why it is not."""
        file = found.file
        assert file is not None
        before = found.held(event.kind)
        lines, size = found.lines(event.time, event.kind, data)
        why = "size" if file.size + len(lines) > self._most(event) else ""
        why = why or self._archive.room(event.time, len(lines), file.size)
        if not why and not self._archive.append(file, lines):
            why = "disk"
        if why:
            found.hold(event.kind, before)
            found.full = why == "size"
        else:
            found.wrote(event.time, event.kind, size)
        return why

    def _note(self, found: Recording) -> None:
        if found.file and self._archive.append(found.file, found.note(self._now)):
            found.noted_down(self._now)

    def _ended(self, event: Event) -> None:
        found = self._live.pop(event.session, None)
        if found:
            self._finish(found, session.ENDED)

    def _finish(self, found: Recording, state: str) -> None:
        found.catch_up(self._lost)
        if found.file is None and self._make(found):
            return
        file: File | None = found.file
        assert file is not None
        if self._archive.append(file, found.end(self._now, state)):
            self._archive.finish(file)
        else:
            self._unfinished.append((found, state))
