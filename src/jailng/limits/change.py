"""Rules added and removed (rctl_rule_add(), rctl_rule_remove()), and at once carried out in the jails that run."""

from __future__ import annotations

import errno

from jailng.core import limit as kernel
from jailng.core import registry
from jailng.errors import JailError
from jailng.limits import database, standing
from jailng.limits.rule import complaint
from jailng.params.limit import RESOURCES, unsupported
from jailng.params.model import Parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.limits.rule import Rule

# Why rules are about jails alone.
_SUBJECTS = {
    "process": "a process is limited by setrlimit(2): see prlimit(1)",
    "user": "Linux counts by cgroup, and those are the init system's: see systemd.resource-control(5), limits.conf(5)",
    "loginclass": "Linux has no login classes",
}


HOST = "jail 0 is the host, and it is jails that are limited, and what they use that is counted"


def add(rule: Rule) -> None:
    """Add a rule; where the jail runs it counts at once. Raises JailError, OSError; nothing has changed then."""
    rule.per = rule.per or rule.subject
    if not rule.whole:
        raise complaint(errno.EINVAL)
    _check(rule)
    before = database.change(lambda rules: database.with_rule(rules, rule))
    try:
        _carry_out(rule.id)
    except (JailError, OSError):
        replaced = [other for other in before if rule.replaces(other)]
        database.change(lambda rules: [*[other for other in rules if other.text != rule.text], *replaced])
        try:
            _carry_out(rule.id)
        except (JailError, OSError):
            pass  # what it says is what has been said
        raise


def _check(rule: Rule) -> None:
    limit = rule.limit
    more = RESOURCES[limit.resource][1]
    if limit.action in ("deny", "throttle") and limit.action != more:
        raise complaint(errno.EOPNOTSUPP)
    why = _SUBJECTS.get(rule.subject) or (HOST if rule.id == "0" else "") or unsupported(limit)
    if limit.action == more and not why:
        try:
            _check_kernel(rule)
        except JailError as error:
            why = str(error)
    if why:
        raise complaint(errno.EOPNOTSUPP, why)


def _check_kernel(rule: Rule) -> None:
    """With what else there is for the jail, since one limit may need another. Raises JailError."""
    limits, record = [other.limit for other in database.of_jail(rule.id)], registry.find(rule.id)
    if record is None:
        kernel.check([*limits, rule.limit], Parameters())
    else:
        there = kernel.held([*limits, *standing.own(record)], record)
        kernel.check([*there, rule.limit], Parameters.from_texts(record.params))


def remove(rule: Rule) -> None:
    """Remove the rules that it matches, as a filter.

    Raises JailError, OSError (ESRCH: there are none); the rules of the jails where that failed are there as before.
    """
    gone = list(filter(rule.matches, database.read()))
    if not gone:
        raise complaint(errno.ESRCH)
    database.change(lambda rules: [other for other in rules if not rule.matches(other)])
    failed: Exception | None = None
    for name in dict.fromkeys([one.id for one in gone]):
        try:
            _carry_out(name)
        except (JailError, OSError) as error:
            failed = failed or error
            _put_back([one for one in gone if one.id == name])
    if failed:
        raise failed


def _put_back(gone: list[Rule]) -> None:
    """Rules of one jail that cannot be done without: what is listed is what holds."""
    database.change(lambda rules: [*rules, *gone])
    try:
        _carry_out(gone[0].id)
    except (JailError, OSError):
        pass  # what it says is what has been said


def _carry_out(name: str) -> None:
    """Have the jail of that name, if there is one, be held to what counts now.

    One that is being made looks for itself once it is there, and until then commands of its own may run.
    """
    record = registry.remains(name)
    if record is None or record.name != name or not record.created:
        return
    # One that has been removed is locked as long as its exec.poststop runs, of which this command may be one.
    if not record.alive() or not record.lock_again():
        return
    try:
        if record.alive() and record.name == name:
            standing.settle(record)
    finally:
        record.unlock()
