"""The post of kind ``log``: it writes what happens in a jail to the jail's chain (``chain``).

The guest's own lines come by its /dev/log (``guestlog``), what the kernel tells by ``witness``.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from jailng.errors import JailError, explain
from jailng.limits import syslog
from jailng.observe import store, witness
from jailng.observe.chain import Chain
from jailng.observe.fdstore import Store
from jailng.observe.guestlog import Counts, GuestLog
from jailng.observe.seal import Seal
from jailng.params import log
from jailng.params.values import visible

if TYPE_CHECKING:
    from pathlib import Path

    from jailng.core.registry import Record
    from jailng.observe.forward import Forwarders
    from jailng.observe.post import Duty

FOLDER = "log"
SEALS = ".seal"  # beside the jails' directories: no jail has such a name
_GUESTS = "syslog"
_RETRY = 1.0  # seconds
_FOREVER = 3600.0


def chain_of(name: str) -> tuple[Path, Seal]:
    """Where the log of the jail of that name is, and what authenticates it. Raises JailError."""
    return store.directory(name, FOLDER), Seal(store.directory(SEALS, name), name)


class Held:
    """What a supervisor holds: the log's socket, what is missing in the log, and what the kernel writes into."""

    def __init__(self, name: str) -> None:
        self.name = name  # of the log, which stays where it is when the jail is renamed
        self.store = Store()
        self.counts = Counts()
        self.witness: witness.Held | None = None


def hold(record: Record) -> Held:
    """In the supervisor. Raises OSError.

    What the kernel tells is heard from the start even where it is not to be logged: it has the pids of processes that
    have ended before their lines are read, and it may be asked for while the jail runs.
    """
    held = Held(record.name)
    wanted = log.read([record.params["ng.log"]])
    if wanted.forwards:
        from jailng.observe import forward  # noqa: F401  # for whichever worker: docs/decisions/0030-posts.md
    try:
        held.witness = witness.hold(record)
    except OSError:
        if _witnessed(wanted):
            raise
    return held


def _witnessed(wanted: log.Log) -> list[str]:
    return [kind for kind in wanted.kinds if kind in witness.KINDS]


def work(duty: Duty, held: Held) -> None:
    """In a worker."""
    Logger(duty, held).serve()


class Logger:
    """A worker, and what it has open."""

    def __init__(self, duty: Duty, held: Held) -> None:
        self.duty = duty
        self.held = held
        record = duty.record
        self.wanted = log.read([record.params["ng.log"]])
        self.name = held.name
        folder, self.seal = chain_of(self.name)
        common = {"jail": record.name, "jid": record.jid}
        self.chain = Chain(folder, self.seal, common, self.wanted.limits["size"], self.wanted.limits["keep"])
        self.forwarders: Forwarders | None = None
        self.chain.key = None  # where it is kept is the seal's business
        self.guest: GuestLog | None = None
        self.witness: witness.Witness | None = None
        self._failing = ""
        self._retry = 0.0

    def serve(self) -> None:
        """Until the jail has ended, or nothing of it is to be logged any more."""
        self.chain.append("started", {"again": self.duty.again, "kinds": self.wanted.kinds})
        self._follow(self.duty.again)
        if not self.duty.again:  # else it goes on as the one before it did when the disk was full
            self.chain.flush()
        self._attempt()
        self.duty.ready()
        wanted = True
        while wanted:
            ready = self._wait()
            if self.duty.bell in ready:
                wanted = self._refresh()
            if self.duty.init in ready:
                break
            self._attempt()
            if self.forwarders is not None:
                self.forwarders.revive()
        self._end(wanted)

    def _wait(self) -> list[int]:
        waiter = select.poll()
        for fd in (self.duty.init, self.duty.bell, *(self.forwarders.fds if self.forwarders is not None else ())):
            waiter.register(fd, select.POLLIN)
        due = time.monotonic() + _FOREVER
        if self._failing:
            due = self._retry
        elif self.witness is not None:
            waiter.register(self.witness.fileno(), select.POLLIN)
        if not self.chain.synced:
            due = min(due, time.monotonic() + _RETRY)
        if self.guest is not None:
            for fd in self.guest.fds:
                waiter.register(fd, select.POLLIN)
            for fd in self.guest.sends:
                waiter.register(fd, select.POLLOUT)
            due = min(due, self.guest.due)
        return [fd for fd, _ in waiter.poll(1000 * max(due - time.monotonic(), 0.0))]

    def _attempt(self) -> None:
        """Do what there is to do; where the log cannot be written, what is missing is counted until it can."""
        try:
            if self._failing and time.monotonic() >= self._retry:
                self.chain.flush()
                self._failing = ""
            if self.guest is not None:
                self.guest.serve(not self._failing)
            if not self._failing:
                self._drain()
                if self.guest is not None and time.monotonic() >= self._retry:
                    self._retry = time.monotonic() + _RETRY
                    self.guest.tell_of_losses()
                self.chain.flush()
        except OSError as error:
            if not self._failing:
                syslog.tell(f"jail {visible(self.duty.record.name)}: log: {visible(explain(error))}")
            self._failing = explain(error)
            self._retry = time.monotonic() + _RETRY

    def _drain(self) -> None:
        if self.witness is not None:
            for kind, fields in self.witness.drain():
                self.chain.append(kind, fields)
            self.chain.flush()
            self.witness.settle()

    def _ended(self, pid: int) -> int | None:
        """The pid inside of a process that has ended: what the kernel tells of it is older than its last line."""
        if self.witness is None or self._failing:
            return None
        try:
            self._drain()
        except OSError:
            pass  # the disk is full: whoever asks will find that out
        return self.witness.inside(pid)

    def _refresh(self) -> bool:
        """The record has changed; whether there still is something to do."""
        if not self.duty.refresh():
            return False
        self.wanted = log.read([self.duty.record.params["ng.log"]])
        self.chain.common["jail"] = self.duty.record.name
        self.chain.size, self.chain.keep = self.wanted.limits["size"], self.wanted.limits["keep"]
        try:
            self._follow(False)
        except (JailError, OSError) as error:
            self._refuse(error)
        return True

    def _refuse(self, error: Exception) -> None:
        syslog.tell(f"jail {visible(self.duty.record.name)}: log: {visible(explain(error))}")
        self.chain.append("refused", {"why": explain(error)})

    def _follow(self, again: bool) -> None:
        """Have open what is wanted. Raises JailError, OSError."""
        self._follow_collectors()
        self._follow_kernel()
        if _GUESTS not in self.wanted.kinds:
            guest, self.guest = self.guest, None
            if guest is not None:
                guest.close(True)
        elif self.guest is None:
            rate = self.wanted.limits["rate"]
            held = self.held
            self.guest = GuestLog(self.duty.record, self.chain, held.store, held.counts, rate, again, ended=self._ended)
        else:
            self.guest.rate = self.wanted.limits["rate"]

    def _follow_collectors(self) -> None:
        """Raises JailError: a file that TLS needs is none."""
        if self.forwarders is None and self.wanted.forwards:
            try:
                from jailng.observe.forward import Forwarders  # with it come ssl and socket's other half
            except ImportError as error:  # the package is another by now; all else goes on
                self._refuse(error)
                return
            self.forwarders = Forwarders(self.chain.directory, self.seal.directory, self.name)
        if self.forwarders is not None:
            self.forwarders.follow(self.wanted.forwards)

    def _follow_kernel(self) -> None:
        """Raises OSError: the kernel does not tell what is wanted."""
        kinds = _witnessed(self.wanted)
        if self.witness is not None:
            self.witness.kinds = kinds
            return
        if self.held.witness is None and kinds:
            self.held.witness = witness.hold(self.duty.record)
        if self.held.witness is not None:
            self.witness = witness.Witness(self.duty.record, self.held.witness, kinds)

    def _end(self, jail_has_ended: bool) -> None:
        """Finish what there is."""
        if self.guest is not None:
            self.guest.close(not jail_has_ended)
        self._drain()
        if self.witness is not None:
            while self.witness.waits and self.duty.ended():  # of a jail that goes on there may always be more
                self._drain()
            self.witness.close()
        self.chain.append("ended", {"jail_ended": self.duty.ended()})
        self.chain.close()
        if self.forwarders is not None:
            self.forwarders.finish()
