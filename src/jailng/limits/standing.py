"""What limits a jail that runs: its own, ng.limits, and the rules of rctl(8) about its name.

Its record has the rules that were carried out, and whoever holds a jail to its limits asks that (core/limit.py, for
what the kernel keeps). The rest is watched (limits/watch.py).
"""

from __future__ import annotations

from jailng.core import fresh
from jailng.limits import database
from jailng.linux import processid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.limits.rule import Rule
    from jailng.params.limit import Limit


def own(record: Record) -> list[Limit]:
    """Those of the jail's own parameter. Raises JailError."""
    from jailng.params.limit import read

    return read([record.params.get("ng.limits", "")])


def rules(record: Record) -> list[Rule]:
    """All that count for the jail, the newest first as FreeBSD lists them; its own come last. Raises OSError."""
    from jailng.limits.rule import of_jail

    return [*database.of_jail(record.name)[::-1], *[of_jail(record.name, one) for one in own(record)[::-1]]]


def note(record: Record) -> None:
    """Have the record of a jail that is about to be made say which rules there are for it."""
    found = texts(record.name)
    if found != record.rules:
        record.append([f"rules {found}"])


def begin(record: Record) -> None:
    """Catch up with what was changed while the jail, which is there now, was made, and have it watched.

    Whoever changes rules waits for the lock of a jail that is there, and leaves one that is not to this. Needs the
    jail's lock. Raises JailError, OSError.
    """
    if texts(record.name) != record.rules:
        settle(record)
    else:
        if record.rules:  # its /proc was made by its own limits
            fresh.resize(record)
        watched(record)


def settle(record: Record) -> None:
    """Have the rules that there are now be what is done. Needs the jail's lock. Raises JailError, OSError."""
    rename(record, record.name)
    watched(record)


def rename(record: Record, name: str) -> None:
    """Hold the jail to the rules about ``name``, which it is about to have. Needs its lock. Raises JailError, OSError.

    All is as it was before then. Whoever is killed before the record has the name leaves what ``look_after`` mends.
    """
    from jailng.core import limit, mechanism
    from jailng.params.limit import read

    now = texts(name)
    if now != record.rules or record.limiting:
        mechanism.set_limits(record, limit.held([*own(record), *read([now])], record))
        record.append([f"rules {now}", "limited"])
        fresh.resize(record)


def watched(record: Record) -> None:
    """See to it that what is to be watched is. Needs the jail's lock. Raises JailError, OSError."""
    from jailng.limits import watch

    watch.ensure(record, watch.watched([rule.limit for rule in rules(record)]))


def look_after(record: Record) -> None:
    """Do it where a command was killed before it was done, or the warden was; not while another is at work there."""
    from jailng.limits import watch

    done = texts(record.name) == record.rules and not record.limiting
    limits = watch.watched([rule.limit for rule in rules(record)])
    if done and (processid.is_alive(record.warden) or not (limits or record.warden)):
        return
    if record.lock(wait=False):
        try:
            if record.alive():
                settle(record)
        finally:
            record.unlock()


def texts(name: str) -> str:
    """The rules about that name, as ``Record.rules`` has them. Raises OSError."""
    return ",".join([rule.limit.text for rule in database.of_jail(name)])
