"""Whether a jail's log is what was written to it, and if not, where the first difference is.

With the verification key each line is checked by itself: its MAC is by a key that only the entry of that number in
that file has. So a line is known wherever it stands, and what lies between two known ones can be said: so many entries
are missing, so many lines are altered, so many are no entries. The end is known by the seal, by what this boot has seen
of the log, and by whatever else the caller knows of it (``Head``).

Without the key only the hashes are checked, which whoever has changed a line can have made anew.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from jailng.errors import JailError
from jailng.observe import entry, ratchet
from jailng.observe.entry import Line
from jailng.observe.report import ALTERED, INSERTED, LOST, MISSING, REMOVED, SEAL, Problem, Report

if TYPE_CHECKING:
    from pathlib import Path

    from jailng.observe.seal import Head, Key, Seal, State

_FAR = 10**7  # entries: further than that nothing is looked for
_NEAR = 64
_MOST = 1000  # problems
_LOST = "lost: not known to have been on the disk when the machine went down"
_TRIES = 6


def verify(folder: Path, seal: Seal, key: Key | None, anchors: list[Head]) -> Report:
    """Check the log in a directory, while it is written to or not.

    Raises OSError, JailError: it is rotated faster than it can be read.
    """
    for _ in range(_TRIES):
        with suppress(_Rotated):
            return Verification(folder, seal, key, anchors).run()
    raise JailError(f"{folder}: files are rotated faster than they can be read: larger ones (size=) are not")


class _Rotated(Exception):
    """A file has gone while it was wanted."""


class _File:
    """One file: its lines, and the keys of its entries as far as they were needed."""

    def __init__(self, folder: int, epoch: int, secret: bytes | None) -> None:
        self.name = entry.file_name(epoch)
        self.epoch = epoch
        self.inode = 0
        self.lines: list[bytes] = []
        self.rest = b""
        self.is_file = True
        try:
            fd = entry.opened(self.name, folder)
        except FileNotFoundError:
            raise _Rotated from None
        except entry.NoFile:
            self.is_file = False
        else:
            with open(fd, "rb") as file:
                self.inode = os.fstat(fd).st_ino
                *self.lines, self.rest = file.read().split(b"\n")
        self._keys = [ratchet.first_of(secret)] if secret is not None else []
        self.base = self._find_base() if secret is not None else None

    def key(self, index: int) -> bytes:
        """The key of the entry that was the file's ``index``-th, from 0."""
        while len(self._keys) <= index:
            self._keys.append(ratchet.after(self._keys[-1]))
        return self._keys[index]

    def _find_base(self) -> int | None:
        """The number of the file's first entry, by the first line that is some entry's; None: no line is."""
        for number, text in enumerate(self.lines[:_NEAR]):
            line = Line(text)
            near = sorted(range(max(number - _NEAR, 0), number + _NEAR), key=lambda index: abs(index - number))
            for index in near if line.whole else ():
                if line.is_by(self.key(index)):
                    return line.number - index
        return None


class Verification:
    """One look at a log."""

    def __init__(self, folder: Path, seal: Seal, key: Key | None, anchors: list[Head]) -> None:
        self.report = Report()
        self._key = key
        head = seal.head()  # what is older is read first: then nothing of it can be missing but by removal
        self._anchors = [*anchors, *([head] if head is not None else [])]
        self._state = seal.state()
        self._seal = str(seal.directory / "state")
        self._folder = folder
        self._hashes: dict[int, str] = {}
        self._asked = {anchor.entries - 1 for anchor in self._anchors}
        self._required = 0
        self._unsynced: dict[int, tuple[int, int]] = {}  # by epoch before which they were: entries that may be lost
        self._halves: dict[tuple[str, int], bytes] = {}  # by file and line: lines without an end
        self._opened: object = None  # the epoch of the last file of which the first entry is there
        self._prev: str | None = None
        self._run: list[tuple[_File, int]] = []  # lines that are no entries, since the last that is one
        self._file: _File | None = None
        self._before: _File | None = None
        self._settled: _File | None = None

    def run(self) -> Report:
        """Look at all of it."""
        report = self.report
        state = self._state
        report.authentic = self._key is not None
        report.chain = self._key.chain if self._key is not None else state.chain if state is not None else ""
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._check_first([])
            self._check_end(None)
            self._excuse()
            return report
        try:
            epochs = self._near(entry.epochs(folder))
            report.files = [entry.file_name(epoch) for epoch in epochs]
            secret, at = (self._key.secret if self._key is not None else None), 0
            for number, epoch in enumerate(epochs):
                if secret is not None:
                    secret, at = ratchet.later_epoch(secret, epoch - at), epoch
                file = _File(folder, epoch, secret)
                if number == 0:
                    report.first = file.base or 0
                    report.entries = report.first
                if not file.is_file:
                    self._tell(ALTERED, file.name, 0, -1, 1, "it is no file, but something else of that name")
                self._check_between(file)
                is_last = number + 1 == len(epochs)
                if secret is None:
                    self._follow_hashes(file, is_last)
                else:
                    self._check(file)
                    if is_last:
                        self._finish(file)
                self._before = file
            self._check_first(epochs)
            self._check_end(self._before)
        finally:
            os.close(folder)
        self._excuse()
        return report

    def _tell(self, what: str, file: str, line: int, number: int, count: int, why: str) -> None:
        if len(self.report.problems) < _MOST:
            self.report.problems.append(Problem(what, file, line, number, count, why))

    # Files

    def _near(self, epochs: list[int]) -> list[int]:
        """Without those that no log comes to, whose keys would take for ever."""
        for epoch in epochs:
            if epoch > _FAR:
                self._tell(INSERTED, entry.file_name(epoch), 0, -1, 1, "inserted: no file of the log")
        return [epoch for epoch in epochs if epoch <= _FAR]

    @staticmethod
    def _missing(first: int, last: int) -> Problem:
        names = entry.file_name(first), entry.file_name(last)
        told = f"the file is missing{'' if first == last else f', and all to {names[1]}'}"
        return Problem(MISSING, names[0], 0, -1, last - first + 1, told)

    def _check_between(self, file: _File) -> None:
        before = self._before
        if before is not None and before.epoch + 1 < file.epoch:
            self.report.problems.append(self._missing(before.epoch + 1, file.epoch - 1))
            self._prev = None

    def _check_first(self, epochs: list[int]) -> None:
        """What rotation has removed is on record: the oldest file that has to be there."""
        state = self._state
        required = self._required
        if state is not None and self._opened != state.epoch:
            required = max(required, state.first)
        found = epochs[0] if epochs else (state.epoch + 1 if state is not None else 0)
        if required < found:
            self.report.problems.insert(0, self._missing(required, found - 1))

    # With the key

    def _check(self, file: _File) -> None:
        index = 0
        self._file = file
        for number, text in enumerate(file.lines):
            line = Line(text)
            found = self._place(file, line, index)
            if found is None:
                self._run.append((file, number))
            elif found < index:
                told = f"entry {line.number} is here a second time"
                self._tell(INSERTED, file.name, number + 1, line.number, 1, told)
            else:
                here = found - index
                if file is not self._settled:
                    self._settle(line.number - self.report.entries - here, self._before, None)
                    self._settled = file
                self._settle(here, file, number)
                if self._prev not in (None, line.prev):
                    self._tell(
                        ALTERED, file.name, number + 1, line.number, 1, "its hash of the line before is not that"
                    )
                index = found + 1
                self._accept(text, line, index == 1)
        if file.rest:
            self._run.append((file, len(file.lines)))
            self._halves[file.name, len(file.lines) + 1] = file.rest

    def _place(self, file: _File, line: Line, index: int) -> int | None:
        """Which of the file's entries the line is; ``index`` is the one that is to come. None: it is none."""
        if not line.whole:
            return None
        if line.is_by(file.key(index)):
            return index
        if file.base is None:
            return None
        state = self._state
        place = line.number - file.base
        most = max(index + len(file.lines), min(state.seq - file.base, _FAR) if state is not None else 0)
        return place if 0 <= place <= most and place != index and line.is_by(file.key(place)) else None

    def _accept(self, text: bytes, line: Line, opens: bool) -> None:
        self._prev = entry.digest(text)
        self.report.entries, self.report.prev = line.number + 1, self._prev
        if line.number in self._asked:
            self._hashes[line.number] = self._prev
        if opens:
            said = entry.fields(text)
            first, self._opened = said.get("first"), said.get("epoch")
            unsynced = said.get(entry.UNSYNCED)
            if isinstance(unsynced, int) and isinstance(self._opened, int):
                self._unsynced[self._opened] = unsynced, line.number
            self._required = max(self._required, first if isinstance(first, int) else 0)

    def _settle(self, gap: int, file: _File | None, number: int | None) -> None:
        """Some lines are no entries, and as many or more or fewer entries are not there, before line ``number``.

        None: at the end of the file, which is another than the one that is looked at; lines of that one are left alone.
        """
        run, self._run = self._run, []
        if number is None:
            self._run = [one for one in run if one[0] is self._file]
            run = [one for one in run if one[0] is not self._file]
        first = self.report.entries
        altered = max(min(len(run), gap), 0)
        for at, (place, line) in enumerate(run[:altered]):
            self._tell(ALTERED, place.name, line + 1, first + at, 1, f"entry {first + at} is altered")
        if len(run) > altered:
            place, line = run[altered]
            count = len(run) - altered
            told = "the line is no entry" if count == 1 else f"{count} lines are no entries"
            self._tell(INSERTED, place.name, line + 1, -1, count, f"inserted: {told}")
        if gap > len(run) and file is not None:
            missing = _entries(first + altered, first + gap - 1)
            line = len(file.lines) if number is None else number
            self._tell(REMOVED, file.name, line + 1, first + altered, gap - altered, f"{missing} removed here")
        if run or gap:
            self._prev = None
        self.report.entries += max(gap, 0)

    def _finish(self, file: _File) -> None:
        """The end of the last file: nothing that is sealed is missing, and only what is not may be half a line."""
        state, report = self._state, self.report
        is_sealed = state is not None and state.epoch == file.epoch
        gap = max(state.seq - report.entries, 0) if state is not None and is_sealed else 0
        if state is not None and state.epoch <= file.epoch and (not gap or state.unsynced):
            if len(self._run) == 1 and file.rest and _begins(file.rest, report.entries):
                self._run = []
                told = "half a line, which its writer has not finished"
                report.notes.append(f"{file.name}:{len(file.lines) + 1}: {told}")
            if report.entries > state.seq:
                told = "are not sealed yet: a writer is at work, or was killed"
                report.notes.append(f"{report.entries - state.seq} entries {told}")
        self._settle(gap, file, len(file.lines))

    # Without it

    def _follow_hashes(self, file: _File, is_last: bool) -> None:
        for number, text in enumerate(file.lines):
            line = Line(text)
            if not line.whole:
                self._tell(ALTERED, file.name, number + 1, -1, 1, "the line is no entry")
                self._prev = None
                continue
            if self._prev is not None and line.number != self.report.entries:
                if line.number > self.report.entries:
                    told = f"{_entries(self.report.entries, line.number - 1)} removed here"
                else:
                    told = f"entry {line.number} is out of its place"
                count = max(line.number - self.report.entries, 1)
                self._tell(REMOVED, file.name, number + 1, self.report.entries, count, told)
            elif self._prev not in (None, line.prev):
                before = line.number - 1
                self._tell(
                    ALTERED, file.name, number or 1, before, 1, f"entry {before} is not what the next one has of it"
                )
            if number == 0 and self._prev is None and not self.report.entries:
                self.report.first = line.number
            self._accept(text, line, number == 0)
        if file.rest:
            if is_last:
                self.report.notes.append(f"{file.name}:{len(file.lines) + 1}: half a line")
            else:
                self._tell(ALTERED, file.name, len(file.lines) + 1, -1, 1, "the line is no entry")

    # The end

    def _excuse(self) -> None:
        """Tell what may have been lost with the power, or removed while the machine was down, from what was removed."""
        state, problems = self._state, self.report.problems
        if state is not None and state.unsynced:
            self._unsynced[state.epoch + 1] = state.synced, state.seq
        for epoch, (first, end) in self._unsynced.items():
            there = [
                one for one in problems if self._is_gone(one) and one.entry < end and one.entry + one.count > first
            ]
            if not there or any(one.entry < first or one.entry + one.count > end for one in there):
                continue
            for place, one in enumerate(problems):
                if one in there:
                    why = f"{_entries(one.entry, one.entry + one.count - 1)} {_LOST}"
                elif one.what == MISSING and int(one.file.partition(".")[0]) + one.count == epoch:
                    why = f"{one.why}, {_LOST}"
                else:
                    continue
                problems[place] = replace(one, what=LOST, why=why)

    def _is_gone(self, one: Problem) -> bool:
        """Whether it is of entries that are not there, or of one of which the end is not."""
        half = self._halves.get((one.file, one.line), b"")
        return one.what == REMOVED or (one.what == ALTERED and bool(half) and _begins(half, one.entry))

    def _check_end(self, last: _File | None) -> None:
        state, report = self._state, self.report
        if state is None:
            why = "the seal is missing, or is none: where the log ends is not known"
            self._tell(SEAL, self._seal, 0, -1, 0, why)
        else:
            self._check_seal(state, last)
        for anchor in self._anchors:
            if anchor.chain and report.chain and anchor.chain != report.chain:
                self._tell(SEAL, self._seal, 0, -1, 0, f"another log has been here: {anchor.chain}, not {report.chain}")
            elif anchor.entries > report.entries:
                self._cut(last, anchor.entries, "an older state has been put back")
            elif anchor.entries <= report.first:
                report.notes.append(f"entry {anchor.entries - 1} is older than what is kept")
            elif self._hashes.get(anchor.entries - 1, anchor.prev) != anchor.prev:
                why = f"entry {anchor.entries - 1} is another than the one that was known"
                self._tell(ALTERED, last.name if last is not None else "", 0, anchor.entries - 1, 1, why)
        if self._key is not None and self._key.entries > report.entries:
            self._cut(last, self._key.entries, "there were more when the key was shown")

    def _cut(self, last: _File | None, entries: int, why: str) -> None:
        first = self.report.entries
        told = [one for one in self.report.problems if one.what == REMOVED and one.entry + one.count >= entries]
        if not told:
            name, line = (last.name, len(last.lines) + 1) if last is not None else (str(self._folder), 0)
            text = f"{_entries(first, entries - 1)} removed from the end: {why}"
            self._tell(REMOVED, name, line, first, entries - first, text)

    def _check_seal(self, state: State, last: _File | None) -> None:
        report = self.report
        if last is not None and last.epoch < state.epoch:
            self.report.problems.append(self._missing(last.epoch + 1, state.epoch))
        if state.seq > report.entries:
            self._cut(last, state.seq, "the seal has more")
        if self._key is None:
            return
        if state.chain != self._key.chain:
            self._tell(SEAL, self._seal, 0, -1, 0, f"the seal is of another log: {state.chain}")
            return
        later = ratchet.later_epoch(self._key.secret, state.epoch + 1) if state.epoch < _FAR else b""
        if later != state.later or not self._fits(state, last):
            self._tell(SEAL, self._seal, 0, -1, 0, "the seal was changed: its keys are not the log's")
        elif last is not None and state.epoch == last.epoch and state.inode != last.inode:
            report.notes.append(f"{last.name} is a copy: it is not the file that was written to")

    def _fits(self, state: State, last: _File | None) -> bool:
        """Whether the seal's key is that of the entry after as many as it says."""
        if last is None or last.epoch != state.epoch or last.base is None:
            return True  # it cannot be said
        index = state.seq - last.base
        return 0 <= index <= max(_FAR, len(last.lines)) and last.key(index) == state.key


def _begins(half: bytes, number: int) -> bool:
    """Whether that may be the beginning of the entry of that number."""
    start = b'{"seq":%d,' % number
    half = half.rstrip(b"\0")  # as some file systems leave it where the power was cut
    return half.startswith(start) or start.startswith(half)


def _entries(first: int, last: int) -> str:
    return f"entry {first}" if first == last else f"entries {first} to {last}"
