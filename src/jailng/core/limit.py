"""What limits a jail's resources have, ng.limits and rules of rctl(8) together, as far as the kernel keeps them.

What counts all of a jail, with those in it, is a controller of its cgroup; what counts one process is an rlimit
(core/rlimit.py); what counts a namespace or a file system is its own (core/ownlimit.py). The rest, what has to be
watched, is not for here. core/mechanism.py carries them out. docs/decisions/0019-limits.md. Loaded where there are
limits.
"""

from __future__ import annotations

from jailng.core import ownlimit, registry, rlimit, throttle
from jailng.errors import JailError
from jailng.linux import controller
from jailng.params import limit as limits_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from jailng.core.registry import Record
    from jailng.params.limit import Limit
    from jailng.params.model import Parameters

    Amounts = dict[str, int]

_CONTROLLERS = {"memoryuse": "memory", "swapuse": "memory", "maxproc": "pids", "nthr": "pids", "pcpu": "cpu"}
# What the kernel keeps by itself, and by which action.
ENFORCED: dict[str, str] = {
    **dict.fromkeys([*_CONTROLLERS, *rlimit.RESOURCES, *ownlimit.RESOURCES, "disk"], "deny"),
    **dict.fromkeys(throttle.RESOURCES, "throttle"),
}


def of(record: Record) -> list[Limit]:
    """What a jail is held to: its own limits, and the rules of rctl(8) about its name. Raises JailError."""
    return held(with_rules(limits_of.read([record.params.get("ng.limits", "")]), record), record)


def held(limits: list[Limit], record: Record) -> list[Limit]:
    """These, for a jail with ng.lenient as far as this kernel can hold it to them."""
    from jailng.params.model import Parameters

    if record.params.get("ng.lenient") != "true":
        return limits
    return _possible(limits, Parameters.from_texts(record.params))


def _possible(limits: list[Limit], params: Parameters) -> list[Limit]:
    """Those of them that this kernel can hold a jail to."""
    found: list[Limit] = []
    for limit in in_turn(limits):
        try:
            check([*found, limit], params)
            found.append(limit)
        except JailError:
            pass
    return found


def in_turn(limits: list[Limit]) -> list[Limit]:
    """With those last that may need others."""
    return sorted(limits, key=lambda limit: limit.resource == "swapuse")


def with_rules(limits: list[Limit], record: Record) -> list[Limit]:
    """These, and the rules that the jail's record tells of (limits/standing.py)."""
    return [*limits, *limits_of.read([record.rules])]


def check_texts(params: Parameters) -> None:
    """Refuse a jail with these parameters where this kernel cannot limit it so. Raises JailError."""
    try:
        check(limits_of.read(params.strings("ng.limits")), params)
    except JailError as error:
        raise JailError(f"ng.limits: {error}") from None


def check(limits: list[Limit], params: Parameters) -> None:
    """Refuse what this kernel cannot limit, or not so. Raises JailError that names it."""
    amounts = asked(limits)
    for limit in limits:
        if limit.resource == "msgqqueued" and limit.action == "deny":
            raise JailError("msgqqueued: Linux limits the bytes of a queue (msgqsize), and not its messages")
    for resource in amounts:
        name = "io" if resource in throttle.RESOURCES else _CONTROLLERS.get(resource)
        why = ""
        if name is not None and controller.hierarchy(name) is None:
            why = str(controller.missing(name).strerror)
        elif resource in ownlimit.SYSV and params.text("sysvshm") == "inherit":
            why = "the jail has the host's System V IPC (sysvshm=inherit)"
        if why:
            raise JailError(f"{resource}: {why}")
    if amounts.get("disk") == 0:
        raise JailError("disk: 0: to the kernel that is a quota without a limit")
    if amounts.get("pcpu") == 0:
        raise JailError("pcpu: 0: a jail without any processor cannot even be ended")
    for resource in throttle.RESOURCES:
        if amounts.get(resource) == 0:  # which cgroup v1 takes for no limit
            raise JailError(f"{resource}: 0: who waits for a disk for ever cannot even be ended")
    if "swapuse" in amounts and "memoryuse" not in amounts and controller.hierarchy("memory"):
        raise JailError("swapuse: cgroup v1 limits memory and swap together: memoryuse is needed as well")


def usage(record: Record, names: Collection[str] = ()) -> dict[str, int]:
    """How much of every resource a jail uses now, with the jails in it, by the kernel's own counters.

    Bytes, seconds, percent of one processor, and counts; with ``names`` of others than these perhaps nothing. Raises
    JailError where it has ended.
    """
    from jailng.core import consumption

    return consumption.of(record, names)


def asked(limits: Iterable[Limit]) -> Amounts:
    """The least amount of each resource that is asked for."""
    found: Amounts = {}
    for limit in limits:
        if ENFORCED.get(limit.resource) == limit.action:
            found[limit.resource] = min(limit.amount, found.get(limit.resource, limit.amount))
    return found


def amounts_of(record: Record) -> Amounts:
    """What the limits of a jail come to. Raises JailError."""
    return asked(of(record))


def above(record: Record, stop: int = 0) -> list[Amounts]:
    """What the jails above have, up to the one that has the jid ``stop``, which is left out with those above that."""
    found: list[Amounts] = []
    for one in registry.upwards(record):
        if one.jid == stop:
            break
        if one is not record:
            found.append(amounts_of(one))
    return found


def inside(record: Record) -> list[Record]:
    """The jails in it, outer ones first."""
    found = [one for one in registry.below(record.name) if one.alive()]
    return sorted(found, key=lambda one: one.name.count("."))


def least(amounts: Amounts, others: list[Amounts]) -> Amounts:
    """The least of these and others."""
    found = dict(amounts)
    for other in others:
        for name, amount in other.items():
            found[name] = min(amount, found.get(name, amount))
    return found


def entering(record: Record) -> list[tuple[int, int, int]]:
    """The rlimits of a command in a jail: resource, soft, hard. Raises OSError."""
    return rlimit.entering(record, least(amounts_of(record), above(record)))
