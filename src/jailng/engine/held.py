"""A jail as a process holds it that lives longer than one command: by its jid and the identity of its PID 1.

A jid alone could be another jail's by the time it is used. What is held is held by descriptor, and the record is read
afresh for everything that is done.
"""

from __future__ import annotations

import posix

from jailng.core import attach, privileges, registry, undo
from jailng.core.index import DIRECTORY, hold
from jailng.engine import ending, life
from jailng.errors import JailError, NotFound
from jailng.linux import cgroup, ns
from jailng.linux.libc import exists
from jailng.params.model import Parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.attach import Entry
    from jailng.core.registry import Record

_AFTER = ("exec.prestop", "exec.stop", "exec.poststop", "exec.release")


class Jail:
    """A running jail: ``init`` is a pidfd of its PID 1, ``keep`` whether it is to outlive its holder.

    ``params`` are what it was started with, hooks included, if that was here; else None.
    """

    __slots__ = ("_entry", "_seen", "identity", "init", "jid", "keep", "params", "record")

    def __init__(self, record: Record, params: Parameters | None, keep: bool) -> None:
        """Raises OSError where it has ended."""
        self.jid = record.jid
        self.identity = record.init
        self.init = ns.pidfd_open(record.init_pid)
        self.keep = keep
        self.params = params
        self.record = record
        self._entry: Entry | None = None
        self._seen = (0, 0)

    def enter(self, limit: tuple[int, int, int]) -> Entry:
        """The way in. What it confines to is computed again when a command has changed the jail.

        ``limit`` is a resource limit, as a confinement has them, that is set besides. Raises JailError: not found.
        """
        try:
            status = posix.stat(f"{DIRECTORY}/jails/{self.jid}")
        except FileNotFoundError:
            raise not_found(self.jid) from None
        seen = (status.st_ino, status.st_size)
        if self._entry is None or self._seen != seen:
            self.leave()
            self.record = living(self.jid, self.identity)
            confinement = privileges.confine(Parameters.from_texts(self.record.params), self.record.joined)
            confinement.rlimits = [*confinement.rlimits, limit]
            self._entry, self._seen = attach.Entry(self.record, confinement), seen
        return self._entry

    def leave(self) -> None:
        """Let go of the way in; the next ``enter`` makes another."""
        if self._entry is not None:
            self._entry.close()
            self._entry = None


def not_found(jid: int) -> JailError:
    """What is said of a jail that is no more."""
    return JailError(f"jail {jid} not found")


def living(jid: int, identity: str) -> Record:
    """The record of that very jail. Raises JailError: not found."""
    record = registry.load(jid)
    if record is None or record.init != identity or not record.alive():
        raise not_found(jid)
    return record


def stop(jid: int, identity: str, params: Parameters | None, forced: bool) -> None:
    """Remove the jail, as ``jail -r`` or, ``forced``, ``jail -R`` does. One that has ended by itself is cleared away.

    Raises JailError: a command failed, or something could not be undone.
    """
    record = registry.load(jid)
    if record is None or record.init != identity:
        return
    try:
        params = params or Parameters.from_texts(record.params, known=forced)
        ending.stop(life.Life(params, record, life.Voice()), forced)
    except FileNotFoundError:
        pass  # another command was faster
    except NotFound:
        record.unlock()  # it has ended, or another command has removed it while this one waited for the lock
        clear_away(record)
    finally:
        record.unlock()


def clear_away(record: Record) -> None:
    """What ``core.undo`` does for a jail that has ended; what cannot be done now is left to the next command."""
    try:
        undo.recover(record)
    except (JailError, OSError):
        pass


def takes_time(jid: int, params: Parameters | None, forced: bool) -> bool:
    """Whether to stop the jail is to wait for others: hooks, another command, processes.

    Also where these are not given any time: the jail's PID 1 waits until each has been reaped by whoever has to.
    """
    if is_busy(jid) or cgroup.populated(f"{registry.Record(jid).cgroup}/members"):
        return True
    if forced:
        return False
    if params is None:
        record = registry.load(jid)
        params = Parameters.from_texts(record.params) if record is not None else Parameters()
    return any(params.strings(step) for step in _AFTER)


def is_busy(jid: int) -> bool:
    """Whether another process has the jail's lock."""
    if not exists(f"{DIRECTORY}/jails/{jid}"):
        return False
    try:
        posix.close(hold(jid, wait=False))
    except BlockingIOError:
        return True
    return False
