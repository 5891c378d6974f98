"""What happens on a terminal of a jail, as it is seen from outside: one event after the other.

Whichever way a terminal is observed, these are what comes of it; recordings are made of them, and watchers get them.
"""

from __future__ import annotations

import struct
import time

# Kinds.
OUTPUT = "o"  # what the terminal's user was shown: `data`, the bytes that the holder of the master has read
INPUT = "i"  # what was typed: `data`, the bytes that the holder of the master has written
RESIZE = "r"  # the window's size has been set: `data` is COLUMNSxROWS
START = "s"  # a pty has been opened: pid, uid and comm are those of whoever did
WHO = "w"  # what has become known of who is behind a session: `facts`, all that is known by then
END = "x"  # the pty is gone
DROPPED = "d"  # there was no room: `count` events of the jail's, the last of which was at `time`, are missing here
UNRECORDED = "u"  # `count` bytes that were moved in a way in which they could not be copied; `data` says which

Facts = dict[str, "str | int"]

_HEAD = struct.Struct("=QIiIIQIIc16s")
_PAIR = b"\0"


def now() -> int:
    """The time, as events have it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Event:
    """One event.

    ``time`` is in nanoseconds of CLOCK_BOOTTIME. ``terminal`` is the number of the pty, N of /dev/pts/N, in the devpts
    of device number ``dev`` (st_dev); -1 and 0 for an event of the whole jail's, as ``d`` and ``u`` may be. ``pid`` is
    the process (not the thread) as the host counts it, ``uid`` its user id as the host counts it, ``comm`` its name as
    the kernel has it: what a guest has chosen. ``count`` is of DROPPED and UNRECORDED. ``facts`` are of START and WHO,
    with those of these keys that are known: ``user_pid``, ``user_uid`` (ints), ``user_comm``, the first process on the
    slave's side (``user_uid`` alone: whose that is); ``remote``, the address (and port) of the peer of the connection
    that the holder serves, as in ``192.0.2.1:4711`` or ``[2001:db8::1]:4711``; ``by``, what observes the session:
    ``kernel``, or ``relay``.
    """

    __slots__ = ("comm", "count", "data", "dev", "facts", "kind", "pid", "terminal", "time", "uid")

    def __init__(
        self,
        time: int,
        kind: str,
        terminal: int = -1,
        dev: int = 0,
        pid: int = 0,
        uid: int = 0,
        comm: str = "",
        data: bytes = b"",
        count: int = 0,
        facts: Facts | None = None,
    ) -> None:
        self.time = time
        self.kind = kind
        self.terminal = terminal
        self.dev = dev
        self.pid = pid
        self.uid = uid
        self.comm = comm
        self.data = data
        self.count = count
        self.facts: Facts = facts or {}

    @property
    def session(self) -> tuple[int, int]:
        """What tells one terminal from another while both are there: device number of the devpts, and number."""
        return self.dev, self.terminal

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and self.packed() == other.packed()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"<Event {self.kind} pts/{self.terminal} of {self.dev:#x} pid {self.pid} {self.data[:40]!r} {self.count}>"
        )

    def packed(self) -> bytes:
        """The event as one message of a socket."""
        facts = _PAIR.join(
            f"{key}={'i' if isinstance(value, int) else 's'}{value}".encode("utf-8", "surrogateescape")
            for key, value in self.facts.items()
        )
        comm = self.comm.encode("utf-8", "surrogateescape")[:16]
        head = _HEAD.pack(
            self.time, self.dev, self.terminal, self.pid, self.uid, self.count, len(facts), 0, self.kind.encode(), comm
        )
        return head + facts + self.data


def unpacked(message: bytes) -> Event:
    """The event that ``Event.packed`` has made that message of. Raises ValueError for what it has not."""
    if len(message) < _HEAD.size:
        raise ValueError("not an event")
    at, dev, terminal, pid, uid, count, size, _, kind, comm = _HEAD.unpack_from(message)
    body = message[_HEAD.size :]
    facts: Facts = {}
    for pair in body[:size].split(_PAIR) if size else ():
        key, _, value = pair.decode("utf-8", "surrogateescape").partition("=")
        facts[key] = int(value[1:]) if value.startswith("i") else value[1:]
    name = comm.rstrip(b"\0").decode("utf-8", "surrogateescape")
    return Event(at, kind.decode("ascii"), terminal, dev, pid, uid, name, body[size:], count, facts)
