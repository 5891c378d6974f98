"""One session while it is recorded: which lines its file gets next, and what has been kept back."""

from __future__ import annotations

from jailng.observe import cast, session
from jailng.observe.archive import File
from jailng.observe.budget import Budget
from jailng.observe.cast import Counts, Header, Stream
from jailng.observe.event import Facts

_REASONS = {
    "rate": "faster than the limit",
    "size": "larger than the limit of a session",
    "total": "the limit of the jail is reached",
    "sessions": "too many sessions",
    "disk": "the disk is full",
}
# Nanoseconds after which it is noted once more what is being kept back; each time twice as long.
_PAUSE, _LONGEST_PAUSE = 1_000_000_000, 600_000_000_000


class Recording:
    """One session. Times are in nanoseconds of CLOCK_BOOTTIME.

    ``file`` is None until it has one; ``counted``: whether it is counted as one that has none; ``full``: whether
    the file is as large as it may become, and ends here. ``noted``: when it was last written down what has been kept
    back; ``pause``: how long after that it is to be again. ``who``: what has become known since the header was written.
    """

    __slots__ = (
        "_back",
        "_dropped",
        "_end",
        "_lacking",
        "_last",
        "_partial",
        "_seen",
        "_since",
        "_streams",
        "_written",
        "budget",
        "counted",
        "counts",
        "file",
        "full",
        "header",
        "noted",
        "pause",
        "start",
        "who",
    )

    def __init__(self, header: Header, budget: Budget, seen: int = 0) -> None:
        """``seen``: how many events of the jail's had been dropped before."""
        self.header = header
        self.budget = budget
        self.start = int(header.own.get("start", 0))
        self.counts = Counts()
        self.file: File | None = None
        self.noted = -1
        self.pause = _PAUSE
        self.counted = self.full = False
        self.who: Facts = {}
        self._streams = {code: Stream() for code in cast.STREAMS}
        self._last = 0
        self._written = 0  # of the file, when it last had a line of counts
        self._back: dict[str, int] = {}
        self._since = 0
        self._lacking: set[str] = set()  # streams of which that was
        self._end = b""
        self._dropped = 0
        self._seen = seen
        self._partial: dict[str, tuple[int, int]] = {}

    def at(self, time: int) -> int:
        """Nanoseconds since the start of the session, never less than before."""
        self._last = max(self._last, time - self.start)
        return self._last

    # What is not there.

    @property
    def kept_back(self) -> bool:
        """Whether there is something of which the file does not say yet that it is missing."""
        return bool(self._back or self._dropped)

    @property
    def stopped(self) -> bool:
        """Whether bytes are being kept back."""
        return bool(self._back)

    def keep_back(self, time: int, why: str, size: int, code: str = "") -> None:
        """Count what is not recorded, of a stream if that is known."""
        if not self._back:
            self._since = self.at(time)
        self._lacking.add(code)
        for reasons in (self._back, self.counts.unrecorded):
            reasons[why] = reasons.get(why, 0) + size

    def dropped(self, count: int) -> None:
        """Count events that the kernel had no room for."""
        self._dropped += count
        self.counts.dropped += count

    def catch_up(self, lost: int) -> None:
        """``lost`` events of the jail's have been dropped by now, and it is not known which sessions' they were."""
        if lost != self._seen:
            self.dropped(lost - self._seen)
            self._seen = lost

    # Lines.

    def stops(self, time: int, why: str) -> bytes:
        """The lines with which recording stops for a while; ``flushed`` is to be called when they are written."""
        now = self.at(time)
        return self._flush(now) + self._marked(now, f"recording stops: {_REASONS.get(why, why)}")

    def note(self, time: int) -> bytes:
        """The lines that say what has been kept back; once they are written ``noted_down`` is to be called."""
        now = self.at(time)
        parts = []
        if self._back:
            why = ", ".join(f"{size} bytes: {_REASONS.get(why, why)}" for why, size in self._back.items())
            parts.append(f"not recorded since {self._since / 1e9:.3f} s: {why}")
        if self._dropped:
            parts.append(f"dropped: up to {self._dropped} events")
        return self._marked(now, "; ".join(parts)) if parts else b""

    def _is_told(self, code: str) -> bool:
        """Whether it is noted before more of a stream what has been kept back.

        Not before what is typed on a terminal that floods: there would be a note, and another stop, for each key.
        """
        return self.kept_back and not (code == cast.INPUT and self._lacking == {cast.OUTPUT})

    def noted_down(self, time: int) -> None:
        """What ``note`` said is in the file."""
        self._back.clear()
        self._lacking.clear()
        self._dropped = 0
        if time - self.noted > 2 * _LONGEST_PAUSE:
            self.pause = _PAUSE
        self.pause = min(2 * self.pause, _LONGEST_PAUSE)
        self.noted = time
        self._written = self.file.size if self.file else 0

    def _marked(self, now: int, label: str) -> bytes:
        return cast.line(now, cast.MARKER, label) + cast.line(now, cast.COUNTS, self.counts.json(who=self.who))

    def _flush(self, now: int) -> bytes:
        held = {code: stream.held for code, stream in self._streams.items()}
        return b"".join([cast.line(now, code, cast.text(rest)) for code, rest in held.items() if rest])

    def flushed(self) -> None:
        """The first bytes of a character are in the file, as what they are: the rest of it does not come."""
        for code, stream in self._streams.items():
            session.count(self.counts, code, len(stream.held))
            self._streams[code] = Stream()

    def lines(self, time: int, code: str, data: bytes) -> tuple[bytes, int]:
        """The lines for bytes of a stream, and how many bytes they have of it more than those before.

        If they are not written ``hold`` has to be given what ``held`` was before.
        """
        now = self.at(time)
        made = [self.note(time) if self._is_told(code) else b""]
        if not made[0] and self.file and self.file.size - self._written >= session.EVERY:
            made.append(cast.line(now, cast.COUNTS, self.counts.json(who=self.who)))
            self._written = self.file.size
        stream = self._streams[code]
        before = len(stream.held)
        text = stream.add(data)
        held = stream.held
        if text:
            made.append(cast.line(now, code, text))
        if held:
            made.append(cast.line(now, cast.PENDING, code + cast.text(held)))
        return b"".join(made), before + len(data) - len(held)

    def held(self, code: str) -> bytes:
        """The first bytes of a character."""
        return self._streams[code].held

    def hold(self, code: str, held: bytes) -> None:
        """Go back to where these were held."""
        self._streams[code] = Stream(held)

    def wrote(self, time: int, code: str, size: int) -> None:
        """What ``lines`` has made is in the file."""
        session.count(self.counts, code, size)
        if self._is_told(code):
            self.noted_down(time)

    def end(self, time: int, state: str) -> bytes:
        """The last lines."""
        if not self._end:
            now = self.at(time)
            self._end = self._flush(now) + self.note(time)
            self.flushed()
            self._end += cast.line(now, cast.END, self.counts.json(who=self.who, state=state))
        return self._end

    @property
    def seen(self) -> int:
        """When the last of what was seen happened, in nanoseconds of CLOCK_BOOTTIME."""
        return self.start + self._last

    # After a gap.

    @classmethod
    def resumed(cls, file: File, found: session.Summary, budget: Budget, seen: int = 0) -> Recording:
        """The session of a file that another recorder has begun, and which ends with a whole line."""
        made = cls(found.header, budget, seen)
        made.file = file
        made.counts = found.counts
        made.who = found.who
        made.full = "size" in found.counts.unrecorded
        made._last = found.last
        made._streams = {code: Stream(found.held.get(code, b"")) for code in cast.STREAMS}
        made._partial = {code: (made.start + time, size) for code, (time, size) in found.latest.items()}
        return made

    def news(self, time: int, code: str, data: bytes) -> bytes:
        """What of an event is not in the file: after a gap the last that was written may be given once more."""
        begun, done = self._partial.pop(code, (-1, 0))
        return data[done:] if begun == time else data

    def gap(self) -> bytes:
        """The lines that say that here one recorder has ended and another goes on."""
        self.counts.gaps += 1
        return self._marked(self._last, "gap: the recorder was killed; what happened before the next may be missing")
