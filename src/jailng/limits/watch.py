"""The watching of a jail: a process of the host's, the warden, for rules that no kernel carries out by itself.

It ends with the jail. Nothing depends on it but these rules; where it was killed the next command that comes upon the
jail starts it anew.
"""

from __future__ import annotations

from jailng.core import beside, halt
from jailng.linux import processid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.params.limit import Limit

_SIGHUP, _SIGTERM = 1, 15


def watched(limits: list[Limit]) -> list[Limit]:
    """Those that take a warden."""
    return [one for one in limits if one.action not in ("deny", "throttle")]


def ensure(record: Record, limits: list[Limit]) -> None:
    """See to it that these are watched, and if there are none that nobody watches. Needs the lock.

    Raises JailError, OSError.
    """
    if processid.is_alive(record.warden):
        beside.tell(record.warden, _SIGHUP)  # it looks for itself, and ends where there is nothing for it to do
    elif limits:
        # What tells it to look again waits until it listens, and what ends the unit in which this is until it has left.
        started = beside.start(record, "jailng.limits.warden", blocked=(_SIGHUP, _SIGTERM))
        record.append([f"warden {started}"])
    elif record.warden:
        halt.resume(record)  # it may have been killed while all in the jail stood still for it
        beside.end(record.warden)  # nobody else removes the cgroup that it was in
        record.append(["warden "])
