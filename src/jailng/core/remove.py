"""jail_remove(2), and the end of a jail's temporary persistence."""

from __future__ import annotations

import posix

from jailng.core import undo
from jailng.linux import cgroup, cgroupend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record


def jail_remove(record: Record, keep: tuple[str, ...] = undo.AROUND) -> None:
    """Kill every process of the jail and let go of all that it had, but for the kinds in ``keep``: as jail_set gave it.

    A jail that another command has removed meanwhile, or that has ended, counts as removed. Raises JailError where
    something could not be undone.
    """
    if record.locked or _take(record):
        undo.walk(record, keep)


def _take(record: Record) -> bool:
    """Lock the jail again, now: calls of its root's that are being attended to end, for it can keep them waiting."""
    if record.broker and not record.remote:
        init = record.init
        if record.lock(wait=False):
            if record.init == init:
                return True
            record.unlock()
            return False
        try:
            cgroup.write(f"{record.cgroup}/broker/cgroup.kill", b"1")
        except OSError:
            pass  # it has ended
    return record.lock_again()


def kill(record: Record) -> bool:
    """Have the jail's processes begin to die, for a ``jail_remove`` that comes later; whether they do.

    Until then it is, for others, a jail that has ended by itself. Raises OSError.
    """
    init = record.init
    if record.remote or not record.lock(wait=False):
        return False
    try:
        if record.init != init or not record.alive():
            return False
        undo.let_die(record)
        cgroup.write(f"{record.cgroup}/cgroup.kill", b"1")
        return True
    finally:
        record.unlock()


def set_persist(record: Record, persist: bool) -> None:
    """Let the jail outlive its last process, or no longer: one that has none then ends at once. Needs the lock."""
    if record.remote:
        return  # the broker has seen to it, as soon as it was told that the jail is up
    events = cgroup.open_file(f"{record.cgroup}/members/cgroup.events", posix.O_RDONLY)
    try:
        cgroup.set_persist(events, persist)
        ends = not persist and not cgroup.tells_of_processes(events)
    finally:
        posix.close(events)
    if ends:
        # PID 1 takes as long to die as the walk does to come to it. Below members nobody is; who enters now dies, too.
        cgroupend.kill(record.cgroup, undo.NO_MEMBERS)
        undo.walk(record)
