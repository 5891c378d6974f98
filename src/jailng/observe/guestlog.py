"""The guest's own lines for the chain: what is sent to its /dev/log, from whom, and what of it found no room.

A line is on record before it is taken from the kernel: killed in between, the next worker finds it in the socket
again, and by the kernel's time stamp that it is on record already.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from jailng.linux import inotify, processid
from jailng.observe.datagram import Receiver
from jailng.observe.entry import shown_time
from jailng.observe.logsocket import ABSENT, OURS, PATH, UNUSABLE, Place
from jailng.observe.passing import Guest
from jailng.params.values import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.registry import Record
    from jailng.observe.chain import Chain, Fields
    from jailng.observe.datagram import Datagram
    from jailng.observe.fdstore import Store

    Ended = Callable[[int], int | None]

_BATCH = 64  # datagrams at once
_UIDS = 65536
_GRACE, _SHORT_GRACE = 0.3, 0.02  # seconds for a syslogd that has taken the name away to bind its own
_PATIENCE, _WHILE = 5, 10.0  # so many times in so many seconds it has the longer of the two
_PAUSE = 0.05  # seconds between two looks at the name
_RETRY = 1.0  # seconds
_LINE = 1024  # bytes; a longer line counts as several
_FLOOD = 5  # times the rate: what is read and counted in a second, before senders have to wait
_WINDOW = 0.1  # seconds
_NS_GET_TGID_IN_PIDNS = 0x8004B709  # Linux 6.11
_COUNTS = struct.Struct("=QQQ")
# Why a line is not on record, by its place among the counts.
_RATE, _DISK, _NOT_PASSED = range(3)
_WHY = ("more lines than rate= allows", "the log could not be written", "the guest's syslogd did not take them")


class Counts:
    """What is missing, by reason, in memory that the supervisor keeps for the next worker.

    ``telling`` is what this worker's chain has been given of it and has perhaps not written yet.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self.telling: tuple[int, ...] = ()

    def add(self, why: int, count: int = 1) -> None:
        """Count some more."""
        counts = list(_COUNTS.unpack_from(self._memory))
        counts[why] += count
        _COUNTS.pack_into(self._memory, 0, *counts)

    def all(self) -> tuple[int, ...]:
        """By reason."""
        return _COUNTS.unpack_from(self._memory)

    def told(self) -> None:
        """That is on record now."""
        for why, count in enumerate(self.telling):
            self.add(why, -count)
        self.telling = ()


class GuestLog:
    """/dev/log of the jail of ``record``, from which lines go to ``chain`` and to the guest's syslogd.

    ``fds`` are what it waits for (poll(2)), ``due`` is when it wants to be asked in any case (time.monotonic()).
    """

    def __init__(
        self, record: Record, chain: Chain, store: Store, counts: Counts, rate: int, again: bool, ended: Ended
    ) -> None:
        """``ended`` knows the pids inside of processes that have ended, if anybody does.

        Raises JailError or OSError: the host cannot have the place of the socket.
        """
        self._ended = ended
        self.rate = rate
        self._record = record
        self._chain = chain
        self._store = store
        self._counts = counts
        self._tokens = float(rate)
        self._filled = self._window = time.monotonic()
        self._read = 0
        self._absent: float | None = None
        self._losses: list[float] = []
        self._told = ""
        self._looked = self._asked = 0.0
        self._records = True
        self._known = {(one.get("time"), one.get("host_pid")) for one in chain.recent("syslog")} if again else set()
        with ExitStack() as opened:
            self._pids = processid.open_namespace(record.init, "pid")
            opened.callback(os.close, self._pids)
            self._place = Place(record)
            opened.callback(self._place.close)
            self._changes = inotify.Watcher()
            opened.callback(self._changes.close)
            self._changes.add(f"/proc/self/fd/{self._place.dev}", inotify.IN_NAMES)
            self._guest = Guest(record.owner)
            opened.callback(self._guest.leave)
            before = [Receiver(socket.socket(fileno=fd)) for fd in store.get()]
            self._receiver = before[0] if before else self._taken()
            self._place.known(self._receiver.socket)
            known = self._known
            for one in before[1:]:
                self._empty(one)
            store.put([self._receiver.socket.fileno()])
            self._known = known
            self._connect()
            opened.callback(store.put, [])
            self._opened = opened.pop_all()  # for ``close``

    def _taken(self, *before: Receiver) -> Receiver:
        """A new socket has the name. The next worker finds it, and those from before as long as they are not empty."""
        old = [one.socket.fileno() for one in before]
        return Receiver(self._place.take(lambda bound: self._store.put([bound.fileno(), *old])))

    def _empty(self, old: Receiver) -> None:
        """Take what is in a socket that no longer has the name, and let go of it. What cannot be written is counted."""
        with old.socket:
            old.retire()
            try:
                while self._take_lines(old):
                    pass
            except OSError:  # which the next flush raises, too
                self._records = False
                while self._take_lines(old):
                    pass

    # When

    @property
    def fds(self) -> list[int]:
        """What can be read from when there is something to do."""
        waits = [self._changes.fd]
        return waits if self._is_flooded() else [*waits, self._receiver.socket.fileno()]

    @property
    def sends(self) -> list[int]:
        """What can be written to when there is something to do."""
        return [self._guest.socket.fileno()] if self._guest.waits and self._guest.socket is not None else []

    @property
    def due(self) -> float:
        """When to ask again."""
        times = [self._looked + _RETRY]
        if self._absent is not None:
            times.append(self._absent)
        if self._is_flooded():
            times.append(self._window + _WINDOW)
        return min(times)

    def _is_flooded(self) -> bool:
        return self._read >= max(_FLOOD * self.rate * _WINDOW, _BATCH)

    # What

    def serve(self, records: bool) -> None:
        """Do what there is to do; never waits. Unless it ``records``, lines are counted and passed on alone.

        Raises OSError where the chain cannot be written to.
        """
        self._records = records
        now = time.monotonic()
        if now >= self._window + _WINDOW:
            self._window, self._read = now, 0
        try:
            self._take_lines(self._receiver)
        finally:
            self._look(now)
            if self._guest.socket is None and now >= self._asked + _RETRY:
                self._connect()
            self._guest.send()

    def tell_of_losses(self) -> None:
        """Put on record what is missing, if anything is. Raises OSError."""
        if self._guest.lost:
            self._counts.add(_NOT_PASSED, self._guest.lost)
            self._guest.lost = 0
        if not self._counts.telling:
            counts = self._counts.all()
            for count, why in zip(counts, _WHY, strict=True):
                if count:
                    of = "passed on" if why == _WHY[_NOT_PASSED] else "syslog"
                    self._chain.append("dropped", {"of": of, "count": count, "why": why})
            self._counts.telling = counts if any(counts) else ()
        if self._counts.telling:
            self._chain.flush()  # if that fails, they are told of when it does not
            self._counts.told()

    def close(self, give_back: bool) -> None:
        """Take what is there still, and let go of the name: for the guest's syslogd, or since there is no guest.

        Raises OSError where the chain cannot be written to; then the rest is counted.
        """
        with self._opened:
            if give_back:
                with suppress(OSError):  # the guest has done something else with it
                    self._place.give_back()
            self._empty(self._receiver)
            self.tell_of_losses()

    def _take_lines(self, receiver: Receiver) -> int:
        """Some lines, as many as are there or as are taken at once; how many."""
        found: list[Datagram] = []
        recorded = False
        try:
            while len(found) < _BATCH:
                datagram = receiver.look()
                if datagram is None:
                    break
                found.append(datagram)
                recorded |= self._put(datagram)
            self._read += sum(map(_lines, found))
            if recorded:
                self._chain.flush()
        finally:  # what has been looked at is on record, waits in the chain for room on the disk, or is counted
            receiver.take(len(found))
            for datagram in found:
                self._guest.pass_on(datagram)
        if self._known and len(found) < _BATCH:
            self._known = set()  # all that was there when this worker began has been seen
        return len(found)

    def _put(self, datagram: Datagram) -> bool:
        """Give it to the chain, or count it; whether the former."""
        if self._known and (shown_time(datagram.stamp), datagram.pid) in self._known:
            return False
        if not self._records or not self._has_room(_lines(datagram)):
            self._counts.add(_RATE if self._records else _DISK)
            return False
        try:
            self._chain.append("syslog", self._fields(datagram))
        except OSError:
            self._counts.add(_DISK)
            raise
        return True

    def _has_room(self, lines: int) -> bool:
        now = time.monotonic()
        self._tokens = min(self._tokens + (now - self._filled) * self.rate, float(self.rate))
        self._filled = now
        if self._tokens < min(lines, self.rate):
            return False
        self._tokens -= lines
        return True

    def _fields(self, datagram: Datagram) -> Fields:
        base = self._record.owner
        uid, gid = datagram.uid - base, datagram.gid - base
        said: Fields = {
            "pid": self._inside(datagram.pid),
            "uid": uid if 0 <= uid < _UIDS else None,
            "gid": gid if 0 <= gid < _UIDS else None,
            "host_pid": datagram.pid,
            "host_uid": datagram.uid,
            "host_gid": datagram.gid,
        }
        comm = _name(datagram.pid) if said["pid"] is not None else ""
        if comm:
            said["comm"] = comm
        return {**said, **datagram.fields(), "time": datagram.stamp}

    def _inside(self, pid: int) -> int | None:
        """The pid as the jail has it; None where the process is none of the jail's, or has ended unknown."""
        try:
            return fcntl.ioctl(self._pids, _NS_GET_TGID_IN_PIDNS, pid)
        except OSError:
            return self._ended(pid)

    # The name

    def _look(self, now: float) -> None:
        """See to the name, which the guest may have taken away or given to something else."""
        if now < self._looked + _PAUSE:
            return
        self._changes.clear()
        self._looked = now
        there = self._place.look()
        if there in (OURS, UNUSABLE):
            self._absent = None
            self._tell("" if there == OURS else "is no socket: what is sent there cannot be seen")
            return
        if there == ABSENT:
            if self._absent is None:
                self._absent = now + self._grace(now)
            if now < self._absent:
                return
        self._absent = None
        before = self._receiver
        try:
            self._receiver = self._taken(before)
        except OSError as error:
            self._store.put([before.socket.fileno()])
            self._tell(f"cannot be served: {visible(error.strerror or str(error))}")
            return
        self._empty(before)
        self._store.put([self._receiver.socket.fileno()])
        self._tell("")
        self._connect()

    def _grace(self, now: float) -> float:
        """How long a syslogd may take to bind the name that it has taken away."""
        self._losses = [loss for loss in self._losses if loss > now - _WHILE] + [now]
        return _GRACE if len(self._losses) <= _PATIENCE else _SHORT_GRACE

    def _tell(self, what: str) -> None:
        """Once, until it is otherwise; and as it is when there is room for it."""
        if what != self._told and self._records:
            self._told = what
            self._chain.append("socket", {"path": PATH, "what": what or "is served again"})
            self._chain.flush()

    def _connect(self) -> None:
        self._asked = time.monotonic()
        try:
            address = self._place.guest()
        except OSError:
            self._guest.drop_waiting()
            return
        try:
            if not self._guest.connect(address):
                self._guest.drop_waiting()
        finally:
            os.close(address)
        self._guest.send()


def _lines(datagram: Datagram) -> int:
    """For how many it counts."""
    return 1 + len(datagram.data) // _LINE


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read(64).rstrip(b"\n").decode("utf-8", "backslashreplace")
    except OSError:
        return ""
