"""What rctl(8) shows beside the rules themselves: those that hold for a process, and what a jail uses."""

from __future__ import annotations

import errno
import posix

from jailng.core import limit as kernel
from jailng.core import registry
from jailng.limits import database, standing
from jailng.limits.change import HOST
from jailng.limits.rule import complaint
from jailng.linux import membership, ns
from jailng.params.limit import RESOURCES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.limits.rule import Rule


def applying(rule: Rule) -> list[Rule]:
    """The rules for the process of ``process:PID``, or, which FreeBSD does not tell, for those of ``jail:NAME``.

    Those of the jail that it is in come first, then those of the jails around that one. A jail that does not run has
    those that are there for it. Raises OSError.
    """
    if rule.subject not in ("process", "jail"):
        raise complaint(errno.EOPNOTSUPP if rule.subject else errno.EINVAL)
    if not rule.id:
        raise complaint(errno.EINVAL)
    found: list[Rule] = []
    name = "" if rule.subject == "process" else rule.id
    record = registry.find(name) if name else _jail_of(int(rule.id))
    while record is None and name:
        found += database.of_jail(name)[::-1]
        name = name.rpartition(".")[0]
        record = registry.find(name) if name else None
    for one in registry.upwards(record):
        standing.look_after(one)
        found += standing.rules(one)
    return found


def _jail_of(pid: int) -> Record | None:
    """The jail that a process is in, the innermost. Raises OSError (ESRCH: there is none of that number)."""
    pidfd = ns.pidfd_open(pid)
    try:
        place = membership.of_process(pidfd)
    finally:
        posix.close(pidfd)
    return next((record for record in registry.jails() if record.holds(place)), None)


def usage(rule: Rule) -> dict[str, int]:
    """What a jail uses of each resource, in FreeBSD's order; nothing, where it does not run. Raises OSError."""
    if not rule.id:
        raise complaint(errno.EINVAL)
    if rule.subject != "jail":
        raise complaint(errno.EOPNOTSUPP, "what is counted is what jails use")
    if rule.id == "0":
        raise complaint(errno.EOPNOTSUPP, HOST)
    record = registry.find(rule.id)
    if record is None:
        return {name: 0 for name in RESOURCES if name != "disk"}  # which is counted where there is a quota
    standing.look_after(record)
    used = kernel.usage(record)
    return {name: used[name] for name in RESOURCES if name in used}
