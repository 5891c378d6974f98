"""The post that keeps a jail's packets: ng.watch=packets (observe/post.py).

The supervisor holds the rings, and a page in which a worker says, after each write, how far it has got: in its file,
and in each ring. So the next worker cuts what was half written, and goes on with the very next packet.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from jailng.errors import JailError, explain
from jailng.limits import syslog
from jailng.linux import packet
from jailng.observe import packetfiles, pcapng, store, taps
from jailng.observe.packetfilter import Wanted
from jailng.observe.progress import Progress
from jailng.params import watch
from jailng.params.values import visible

if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.linux.packet import Frame
    from jailng.observe.post import Duty
    from jailng.observe.taps import Source, Tap

KIND = "packets"
_SNAPLEN = 262144  # that all interfaces have in a file, whatever is kept: libpcap reads no file in which they differ
_SECOND = 1.0
_PRIORITY = -20
_DRAINED = 1  # times that there has to be nothing in any ring, after the jail has ended
_BUFFERS = 1020  # in one write


class Held:
    """What outlives a worker."""

    def __init__(self, name: str, wanted: Wanted, sources: dict[Tap, Source], missed: list[str]) -> None:
        self.name = name
        self.wanted = wanted
        self.sources = sources
        self.missed = missed
        self.progress = Progress()


def hold(record: Record) -> Held:
    """Begin to take the packets of a jail. Raises JailError, OSError."""
    asked = _asked(record)
    wanted = Wanted(asked.filter, asked.options["snaplen"])
    store.directory(record.name, KIND)
    sources, missed = taps.open_all(record, wanted.program, wanted.snaplen)
    return Held(record.name, wanted, sources, missed)


def check(record: Record) -> None:
    """Refuse a filter that is none. Raises JailError."""
    asked = _asked(record)
    Wanted(asked.filter, asked.options["snaplen"])


def _asked(record: Record) -> watch.Watch:
    return watch.of(record.params, KIND) or watch.parse(KIND)


def work(duty: Duty, held: Held) -> None:
    """Write down what is in the rings until the jail has ended, or its packets are no longer wanted."""
    # What the jail sends is not to keep from being run whoever has to write it down before the ring is full.
    with suppress(PermissionError):  # root of a container without CAP_SYS_NICE
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    Capture(duty, held).run()


class Line:
    """A tap at work: its ``number`` in every section, and what was counted in the present one."""

    __slots__ = ("counts", "gone", "number", "skip", "source", "tap")

    def __init__(self, number: int, tap: Tap, source: Source) -> None:
        self.number = number
        self.tap = tap
        self.source = source
        self.gone = 0.0  # when it was found that nothing more will come
        self.skip = 0  # packets of what is ready that are written already
        self.counts = pcapng.Counts()


class Capture:
    """A worker."""

    def __init__(self, duty: Duty, held: Held) -> None:
        self.duty = duty
        self.held = held
        self.wanted = held.wanted
        self.lines = [Line(number, *one) for number, one in enumerate(held.sources.items())]
        self._open_lines = self.lines.copy()  # there may be something to read
        if duty.again:
            # What the worker before this one went by: another filter than the supervisor knows of, perhaps.
            asked = _asked(duty.record)
            self.wanted = Wanted(asked.filter, asked.options["snaplen"])
        options = _asked(duty.record).options
        directory = store.directory(held.name, KIND)
        sizes = options["size"], options["files"], options["seconds"]
        self.files = packetfiles.Files(directory, *sizes, self)
        self._introduced = 0  # lines that the section has told of
        self._trouble = ""  # why nothing can be written
        self._lost = 0  # since then
        self._again = 0.0
        self._poll = select.poll()

    def _choose(self, wanted: Wanted) -> None:
        for line in self._open_lines:
            if isinstance(line.source, packet.Ring) and not line.gone:
                line.source.keep(wanted.program)

    # Sections

    def begin(self, comment: str) -> bytes:
        """The blocks at the beginning of a section (packetfiles.Sections)."""
        for line in self.lines:
            line.counts.received = line.counts.lost  # that is what no section has told of: packets it has none yet
        if self._lost:
            comment = self._loss() + (f"; {comment}" if comment else "")
        self._introduced = 0
        blocks = pcapng.section(comment) + self._introductions()
        self._introduced = len(self.lines)
        return blocks

    def finish(self) -> bytes:
        """The blocks at its end."""
        self._count()
        return self._introductions() + self._statistics()

    def finished(self) -> None:
        """They are written."""
        for line in self.lines:
            line.counts = pcapng.Counts()
        # Those that are gone, of which there may be any number, are none of the next section's.
        held = len(self.held.sources)
        self.lines[held:] = [line for line in self.lines[held:] if not line.gone or line in self._open_lines]
        for number, line in enumerate(self.lines):
            line.number = number
        self._note()

    def _introductions(self) -> bytes:
        """Of the lines that the section has not told of yet."""
        return b"".join(
            [
                pcapng.interface(
                    line.tap.name, _SNAPLEN, f"jail {self.held.name}: {line.tap.description}", self.wanted.expression
                )
                for line in self.lines[self._introduced :]
            ]
        )

    def _statistics(self, comment: str = "") -> bytes:
        now = time.time_ns()
        return b"".join([pcapng.statistics(line.number, now, line.counts, comment) for line in self.lines])

    def _count(self) -> int:
        """Ask the kernel what it has dropped; how many packets."""
        found = 0
        for line in self._open_lines:
            drops = line.source.drops()
            line.counts.received += drops
            line.counts.dropped += drops
            found += drops
        return found

    def _loss(self) -> str:
        return f"{self._lost} packets were not written: {self._trouble}"

    # The worker's life

    def run(self) -> None:
        """Until the jail has ended, or its packets are no longer wanted."""
        self._open()
        for fd in (self.duty.init, self.duty.bell):
            self._poll.register(fd, select.POLLIN)
        for line in self.lines:
            self._poll.register(line.source, select.POLLIN)
        self._adapt()
        if self.duty.again:
            self._choose(self.wanted)
        self.duty.ready()
        due = time.monotonic()
        while True:
            found = dict(self._poll.poll(1000 * _SECOND))
            self._take_all(found)
            if self.duty.bell in found and not self._heed():
                break
            if self.duty.init in found:
                break
            if time.monotonic() - due >= _SECOND:
                due = time.monotonic()
                self._look_round()
        self._drain()

    def _open(self) -> None:
        noted = self.held.progress.noted()
        comment, name, offset = "; ".join(self.held.missed), "", -1
        if noted is not None:
            name, offset = str(noted[0]), int(str(noted[1]))
            self._resume(noted[2])
            comment = "the process that wrote this has died; another goes on where it was"
        elif self.duty.again:
            comment = "before this nobody took packets for a while: who did was killed, or told to end"
        try:
            self.files.open(comment, name, offset)
        except OSError as error:
            if self.duty.awaited:
                raise JailError(f"{self.files.directory}: {error.strerror}") from None
            self._fail(error)
        self._note()

    def _resume(self, noted: object) -> None:
        assert isinstance(noted, list)
        for line, (sequence, skip, received, dropped, unwritten) in zip(self.lines, noted, strict=True):
            line.source.resume(sequence)
            line.skip = skip
            line.counts = pcapng.Counts(received, dropped, unwritten)
        self._introduced = len(self.lines)

    def _note(self) -> None:
        noted = [
            [line.source.sequence, line.skip, line.counts.received, line.counts.dropped, line.counts.unwritten]
            for line in self.lines[: len(self.held.sources)]
        ]
        self.held.progress.note([self.files.name, self.files.offset, noted])

    def _heed(self) -> bool:
        """What the bell is for; whether to go on."""
        if not self.duty.refresh():
            return False
        asked = _asked(self.duty.record)
        options = asked.options
        self.files.limit(options["size"], options["files"], options["seconds"])
        if (asked.filter, options["snaplen"]) != (self.wanted.expression, self.wanted.snaplen):
            try:
                self._change(Wanted(asked.filter, options["snaplen"]))
            except (JailError, OSError) as error:
                self._tell(explain(error))
        self._adapt()
        return True

    def _change(self, wanted: Wanted) -> None:
        self._choose(wanted)
        self._take_all({})
        self.wanted = wanted
        self._rotate("another filter from here on")

    def _adapt(self) -> None:
        """Take packets of interfaces, too, that the jail has got meanwhile, and of none that the host has again."""
        try:
            for line in self.lines:
                if not line.gone and (line.source.gone() or taps.lapsed(self.duty.record, line.tap)):
                    self._leave(line)
            found = taps.survey(self.duty.record)
        except (JailError, OSError):
            return  # it is about to end
        known = [line.tap for line in self.lines if not line.gone]
        for tap in found:
            if tap not in known and tap.name != "lo":
                try:
                    source = taps.open_tap(self.duty.record, tap, self.wanted.program, self.wanted.snaplen)
                except (JailError, OSError) as error:
                    self._tell(explain(error))
                    continue
                self.lines.append(Line(len(self.lines), tap, source))
                self._open_lines.append(self.lines[-1])
                self._write([], 0, self.lines[-1])
                self._poll.register(source, select.POLLIN)

    def _leave(self, line: Line) -> None:
        line.gone = time.monotonic()
        line.source.stop()
        while line.source.ready():
            self._take(line)
        self._poll.unregister(line.source)

    def _look_round(self) -> None:
        drops = self._count()
        self._let_go()
        if drops:
            self._write([self._statistics(f"{drops} packets found no room in the ring")], 0, self.lines[0])
        elif self._trouble and self._lost:
            self._write([], 0, self.lines[0])
        if self.files.removed:
            self._rotate("the file before this has been removed while it was written")
        elif self.files.due:
            self._rotate()

    def _let_go(self) -> None:
        """Of the memory for what has come from interfaces that are gone; the supervisor keeps that of its own."""
        for line in self._open_lines[len(self.held.sources) :]:
            if line.gone and time.monotonic() > line.gone + _SECOND:
                self._open_lines.remove(line)
                line.source.close()
                del line.source

    def _drain(self) -> None:
        """What the jail has sent before its end is handed over a moment later."""
        quiet = 0
        while quiet < _DRAINED:
            time.sleep(1.5 * packet.PATIENCE / 1000)
            quiet = 0 if self._take_all({}) else quiet + 1
        if self._trouble and self._lost:
            self._again = 0.0
            self._write([], 0, self.lines[0])
        try:
            self.files.close()
        except OSError as error:
            self._tell(f"{self._lost} packets and the last counts: {error.strerror}")

    def _take_all(self, found: dict[int, int]) -> bool:
        """Deal with all that is ready; whether there was anything. ``found`` is what poll(2) said."""
        some = False
        for line in self._open_lines:
            while line.source.ready():
                some = True
                self._take(line)
            unwell = found.get(line.source.fileno(), 0) & (select.POLLERR | select.POLLHUP)
            if unwell and not line.gone and line.source.gone():
                self._leave(line)
        return some

    # Packets

    def _take(self, line: Line) -> None:
        """Write down what is ready in one ring, a block of it."""
        buffers: list[bytes | memoryview] = []
        size = count = 0
        chosen = not isinstance(line.source, packet.Ring) and bool(self.wanted.expression)
        number = -1
        for number, frame in enumerate(line.source.frames()):
            if number < line.skip or (chosen and not self.wanted.takes(frame)):
                continue
            head, tail = self._around(line, frame)
            wide = len(head) + len(frame.data) + len(tail)
            if buffers and (size + wide > self.files.room or len(buffers) >= _BUFFERS):
                self._write(buffers, count, line)
                line.skip = number
                buffers, size, count = [], 0, 0
                self._note()
            if wide > self.files.room and not self._trouble:
                self._rotate()
                head, tail = self._around(line, frame)  # it may have another number there
            buffers += (head, frame.data, tail)
            size += wide
            count += 1
        if buffers:
            self._write(buffers, count, line)
        end = line.source.end
        line.skip = 0
        line.source.sequence = end
        self._note()
        line.source.give_back()

    def _around(self, line: Line, frame: Frame) -> tuple[bytes, bytes]:
        return pcapng.around(line.number, frame.time, len(frame.data), frame.length, line.tap.direction(frame))

    def _write(self, buffers: list[bytes | memoryview], count: int, line: Line) -> None:
        """Write blocks, ``count`` of which are packets; where there is no room for them they are counted."""
        if not self._trouble or time.monotonic() >= self._again:
            try:
                self.files.begin()
                told = [self._statistics(self._loss())] if self._trouble else []
                self.files.write([self._introductions(), *told, *buffers])
            except OSError as error:
                self._fail(error)
            else:
                line.counts.received += count
                self._introduced = len(self.lines)
                self._trouble, self._lost = "", 0
                return
        line.counts.received += count
        line.counts.unwritten += count
        self._lost += count

    def _fail(self, error: OSError) -> None:
        if not self._trouble:
            self._tell(f"packets are not written: {error.strerror}")
        self._trouble = error.strerror or str(error)
        self._again = time.monotonic() + _SECOND

    def _rotate(self, comment: str = "") -> None:
        try:
            self.files.rotate(comment)
        except OSError as error:
            self._fail(error)
        self._note()

    def _tell(self, why: str) -> None:
        syslog.tell(f"jail {visible(self.duty.record.name)}: {KIND}: {visible(why)}")
