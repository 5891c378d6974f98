"""The limits of a jail's resources, ng.limits, as far as the kernel keeps them: rctl(8) for the subject jail.

What counts all of a jail, with those in it, is a controller of its cgroup; what counts one process is an rlimit
(core/rlimit.py); what counts a namespace or a file system is its own (core/ownlimit.py). The rest, what has to be
watched, is not for here. docs/decisions/0019-limits.md. Loaded where there are limits.
"""

from __future__ import annotations

from jailng.core import halt, ownlimit, registry, rlimit, share, throttle
from jailng.core.operation import Operation
from jailng.errors import JailError
from jailng.linux import cgroup, controller, gathering
from jailng.linux.libc import EBUSY, EINVAL
from jailng.params import limit as limits_of
from jailng.params.model import SYSV
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from jailng.core.operation import Slots
    from jailng.core.registry import Record
    from jailng.params.limit import Limit
    from jailng.params.model import Parameters

    Amounts = dict[str, int]

_PERIOD = 100_000  # microseconds; of these a jail has its part of a processor's time
_NO_LIMIT = 1 << 62
_BUFFERS = 4  # of memoryuse, for buffers of sockets, where these are counted by themselves
_CONTROLLERS = {"memoryuse": "memory", "swapuse": "memory", "maxproc": "pids", "nthr": "pids", "pcpu": "cpu"}
# What the kernel keeps by itself, and by which action.
ENFORCED: dict[str, str] = {
    **dict.fromkeys([*_CONTROLLERS, *rlimit.RESOURCES, *ownlimit.RESOURCES, "disk"], "deny"),
    **dict.fromkeys(throttle.RESOURCES, "throttle"),
}


class SetLimits(Operation):
    """Apply the limits to a jail that is made, and in which nobody is yet."""

    __slots__ = ("lenient", "limits", "record", "refused")

    def __init__(self, record: Record, limits: list[Limit], lenient: bool) -> None:
        self.record = record
        self.limits = limits
        self.lenient = lenient
        self.refused: list[str] = []

    def apply(self, slots: Slots) -> None:
        """Raises JailError with what cannot be limited, if not ``lenient``. All of it goes with the jail."""
        try:
            set_limits(self.record, self.limits, before=[])
        except JailError as error:
            if not self.lenient:
                raise JailError(self._told(error)) from None
            self._apply_each()
        self.record.append(["limited"])

    def _apply_each(self) -> None:
        applied: list[Limit] = []
        for limit in in_turn(self.limits):
            try:
                set_limits(self.record, [*applied, limit], before=applied)
                applied.append(limit)
            except JailError as error:
                self.refused.append(self._told(error))

    def _told(self, error: JailError) -> str:
        if self.record.params.get("ng.limits"):
            return f"ng.limits: {error}"
        return f"rctl(8) has rules for {visible(self.record.name)}: {error}"

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "limit " + " ".join([limit.text for limit in self.limits])

    def warnings(self, noted: list[int]) -> list[str]:
        """What could not be applied."""
        return self.refused


class HoldInner(Operation):
    """Hold a jail in another, in which nobody is yet, to what that may have of what each has for itself."""

    __slots__ = ("record",)

    def __init__(self, record: Record) -> None:
        self.record = record

    def apply(self, slots: Slots) -> None:
        """All of it goes with the jail. Raises JailError, OSError."""
        _join_outer(self.record)
        above = _with({}, _all_above(self.record))
        if any(name in above for name in _OWN):
            _hold(self.record, above)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "limit it as the jail is that it is in"


def of(record: Record) -> list[Limit]:
    """What a jail is held to: its own limits, and the rules of rctl(8) about its name. Raises JailError."""
    return held(with_rules(limits_of.read([record.params.get("ng.limits", "")]), record), record)


def held(limits: list[Limit], record: Record) -> list[Limit]:
    """These, for a jail with ng.lenient as far as this kernel can hold it to them."""
    from jailng.params.model import Parameters

    if record.params.get("ng.lenient") != "true":
        return limits
    return possible(limits, Parameters.from_texts(record.params))


def possible(limits: list[Limit], params: Parameters) -> list[Limit]:
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


def operations(params: Parameters, record: Record) -> list[Operation]:
    """What applies ng.limits, and rules of rctl(8), to a new jail."""
    limits = with_rules(limits_of.read(params.strings("ng.limits")), record)
    made: list[Operation] = [HoldInner(record)] if record.parent else []
    return [*made, SetLimits(record, limits, params.flag("ng.lenient"))] if limits else made


def check_texts(params: Parameters) -> None:
    """Refuse a jail with these parameters where this kernel cannot limit it so. Raises JailError."""
    try:
        check(limits_of.read(params.strings("ng.limits")), params)
    except JailError as error:
        raise JailError(f"ng.limits: {error}") from None


def check(limits: list[Limit], params: Parameters) -> None:
    """Refuse what this kernel cannot limit, or not so. Raises JailError that names it."""
    amounts = _amounts(limits)
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
    if amounts.get("pcpu") == 0:
        raise JailError("pcpu: 0: a jail without any processor cannot even be ended")
    for resource in throttle.RESOURCES:
        if amounts.get(resource) == 0:  # which cgroup v1 takes for no limit
            raise JailError(f"{resource}: 0: who waits for a disk for ever cannot even be ended")
    if "swapuse" in amounts and "memoryuse" not in amounts and controller.hierarchy("memory"):
        raise JailError("swapuse: cgroup v1 limits memory and swap together: memoryuse is needed as well")


def set_limits(record: Record, limits: list[Limit], before: list[Limit] | None = None) -> None:
    """Have the kernel keep exactly these limits of a jail that runs, from now on. Needs the jail's lock.

    Those that are not in ``ENFORCED`` are passed over: somebody has to watch them. The caller tells the record of them
    and that it is ``limited`` (``engine.modify.modify`` does all of that); until then it is ``limiting``. ``before`` is
    what held, if the record does not tell it. Raises JailError that names what cannot be limited, or not so far: then
    all is as it was before.
    """
    from jailng.params.model import Parameters

    if before is None:
        before = of(record)
    check(limits, Parameters.from_texts(record.params))
    unsettled = record.limiting
    record.append(["limiting"])
    try:
        _apply(record, _amounts(limits), _amounts(before), unsettled)
    except JailError:
        record.append(["limited"])
        raise
    except OSError as error:
        record.append(["limited"])
        raise JailError(f"{error.strerror}") from None


def lift(record: Record) -> None:
    """Slow nobody in the jail down any more, as it is to end. Nothing is raised."""
    for mechanism in (_set_processors, _set_disks):
        try:
            mechanism(record, {})
        except (JailError, OSError):
            pass  # it has ended, or never had it


def usage(record: Record, names: Collection[str] = ()) -> dict[str, int]:
    """How much of every resource a jail uses now, with the jails in it, by the kernel's own counters.

    Bytes, seconds, percent of one processor, and counts; with ``names`` of others than these perhaps nothing. Raises
    JailError where it has ended.
    """
    from jailng.core import consumption

    return consumption.of(record, names)


def _amounts(limits: Iterable[Limit]) -> Amounts:
    """The least amount of each resource that is asked for."""
    found: Amounts = {}
    for limit in limits:
        if ENFORCED.get(limit.resource) == limit.action:
            found[limit.resource] = min(limit.amount, found.get(limit.resource, limit.amount))
    return found


def _apply(record: Record, amounts: Amounts, before: Amounts, all_of_them: bool) -> None:
    done: list[Callable[[Record, Amounts], None]] = []
    try:
        for resources, mechanism in _MECHANISMS:
            done.append(mechanism)
            if all_of_them or any(amounts.get(one) != before.get(one) for one in resources):
                mechanism(record, amounts)
    except (JailError, OSError):
        for mechanism in reversed(done):
            try:
                mechanism(record, before)
            except (JailError, OSError):
                pass  # it is what has failed
        raise


def place(record: Record, name: str) -> str:
    """The directory of the hierarchy that has the controller, with all in it that is in the jail. Raises OSError."""
    top = controller.hierarchy(name)
    if top is None:
        raise controller.missing(name)
    if not top:
        if name.encode() not in cgroup.read(f"{record.cgroup}/cgroup.controllers").split():
            controller.hand_down(record.cgroup, [name])
        return record.cgroup
    directory = controller.directory(name, record.cgroup)
    if name not in record.controllers.split():  # the directory may be there for that of a jail in it
        record.append([f"controllers {' '.join([*record.controllers.split(), name])}"])
        controller.make(name, record.cgroup)
        _still(record, lambda: gathering.gather(record.cgroup, directory))
    return directory


def _join_outer(record: Record) -> None:
    """Have PID 1 of a jail in another be throttled with that: in v1 it was born where its maker is. Raises OSError."""
    if controller.hierarchy("io"):
        there = [found for path in controller.outwards(record.cgroup) if (found := controller.existing("io", path))]
        if there:
            gathering.gather(record.cgroup, there[0])


def _still(record: Record, work: Callable[[], None]) -> None:
    """Do what is to be done to each that is in the jail: who does nothing but fork and end would be missed."""
    if not cgroup.populated(f"{record.cgroup}/members"):
        work()
        return
    with halt.Halted(record):
        work()


def _set_processes(record: Record, amounts: Amounts) -> None:
    given = [amounts[name] for name in ("maxproc", "nthr") if name in amounts]
    place(record, "pids")
    share.limit_processes(record.cgroup, min(given) if given else share.usual())


def _set_memory(record: Record, amounts: Amounts) -> None:
    here = place(record, "memory")
    memory, swap = amounts.get("memoryuse", _NO_LIMIT), amounts.get("swapuse", _NO_LIMIT)
    if not controller.hierarchy("memory"):
        _write("memoryuse", f"{here}/memory.max", _number(memory))
        if cgroup.exists(f"{here}/memory.swap.max"):
            _write("swapuse", f"{here}/memory.swap.max", _number(swap))
        elif "swapuse" in amounts:
            raise JailError("swapuse: this kernel counts no swap (CONFIG_SWAP, swapaccount=1)")
        return
    both = f"{here}/memory.memsw.limit_in_bytes"
    if cgroup.exists(both):
        cgroup.write(both, b"-1")  # it is never below the other
    elif "swapuse" in amounts:
        raise JailError("swapuse: this kernel counts no swap (CONFIG_SWAP, swapaccount=1)")
    _write("memoryuse", f"{here}/memory.limit_in_bytes", _number(memory, b"-1"))
    if "swapuse" in amounts:
        _write("swapuse", both, _number(min(memory + swap, _NO_LIMIT), b"-1"))


def _set_processors(record: Record, amounts: Amounts) -> None:
    """In v1 none may have more than the one above it, and so those in it are first given less, or then more."""
    percent = amounts.get("pcpu", _NO_LIMIT)
    here = place(record, "cpu")
    if not controller.hierarchy("cpu"):
        quota = b"max" if percent >= _NO_LIMIT else b"%d" % (percent * _PERIOD // 100)
        _write("pcpu", f"{here}/cpu.max", b"%s %d" % (quota, _PERIOD))
        return
    above = _limits_above(record, "pcpu")
    least = min([percent, *above])
    inner = [(one, _limits_of(one).get("pcpu", _NO_LIMIT)) for one in _inside(record)]
    for one, own in reversed(inner):
        _write_quota(one, _NO_LIMIT if own >= _NO_LIMIT else min(1, own))
    _write_quota(record, _NO_LIMIT if percent >= _NO_LIMIT else least)
    for one, own in inner:
        _write_quota(one, _NO_LIMIT if own >= _NO_LIMIT else min(own, least, *_limits_above(one, "pcpu", record.jid)))


def _write_quota(record: Record, percent: int) -> None:
    place = controller.directory("cpu", record.cgroup)
    if cgroup.exists(place):
        cgroup.write(f"{place}/cpu.cfs_period_us", b"%d" % _PERIOD)
        quota = b"-1" if percent >= _NO_LIMIT else b"%d" % (percent * _PERIOD // 100)
        _write("pcpu", f"{place}/cpu.cfs_quota_us", quota)


def _set_disks(record: Record, amounts: Amounts) -> None:
    wanted = {name: amounts[name] for name in throttle.RESOURCES if name in amounts}
    if not wanted and controller.hierarchy("io") and not controller.existing("io", record.cgroup):
        return  # it never had any
    here = place(record, "io")
    if wanted and controller.hierarchy("io"):
        _still(record, lambda: gathering.gather(record.cgroup, here))
    throttle.apply(record, here, wanted)


def _set_room(record: Record, amounts: Amounts) -> None:
    from jailng.core import quota

    quota.hold(record, amounts.get("disk", 0))


def _set_rlimits(record: Record, amounts: Amounts) -> None:
    """Of those inside, nested ones too: what an outer one has lowered is lowered there."""
    _still(record, lambda: rlimit.lower(record, amounts))


def _set_own(record: Record, amounts: Amounts) -> None:
    above = _all_above(record)
    _hold(record, _with(amounts, above))
    for one in _inside(record):
        _hold(one, _with(_limits_of(one), [amounts, *_all_above(one, record.jid), *above]))


def _hold(record: Record, amounts: Amounts) -> None:
    """Hold a jail to the least of what it, and those that it is in, may have of what each has for itself."""
    ownlimit.apply(record, amounts)
    _limit_buffers(record, amounts)


def _limit_buffers(record: Record, amounts: Amounts) -> None:
    """Of the sockets of TCP and UDP, which cgroup v1 counts apart, and only in a cgroup that has a limit of its own."""
    place = controller.existing("memory", record.cgroup) if controller.hierarchy("memory") else ""
    file = f"{place}/{controller.BUFFERS}.limit_in_bytes"
    if not place or not cgroup.exists(file):
        return
    memory = amounts.get("memoryuse", _NO_LIMIT)
    if memory < _NO_LIMIT or int(cgroup.read(file)) < _NO_LIMIT:  # else they would be counted for nothing
        _write("memoryuse", file, _number(memory if memory >= _NO_LIMIT else memory // _BUFFERS, b"-1"))


def permit_ipc(record: Record, params: Parameters) -> None:
    """Have a jail that runs, and those in it, make what System V IPC ``params`` let it. Raises JailError or OSError."""
    texts = {name: params.text(name) for name in SYSV}
    amounts, above = _amounts(with_rules(limits_of.read(params.strings("ng.limits")), record)), _all_above(record)
    ownlimit.permit(record, _with(amounts, above), texts)
    for one in _inside(record):
        held = _with(_limits_of(one), [amounts, *_all_above(one, record.jid), *above])
        ownlimit.permit(one, held, _less(one.params, texts))


def _less(params: Mapping[str, str], above: Mapping[str, str]) -> dict[str, str]:
    return {name: "disable" if above[name] == "disable" else params.get(name, "disable") for name in SYSV}


def _with(amounts: Amounts, others: list[Amounts]) -> Amounts:
    """The least of these and others."""
    found = dict(amounts)
    for other in others:
        for name, amount in other.items():
            found[name] = min(amount, found.get(name, amount))
    return found


def entering(record: Record) -> list[tuple[int, int, int]]:
    """The rlimits of a command in a jail: resource, soft, hard. Raises OSError."""
    return rlimit.entering(record, _with(_limits_of(record), _all_above(record)))


def _limits_of(record: Record) -> Amounts:
    return _amounts(of(record))


def _all_above(record: Record, stop: int = 0) -> list[Amounts]:
    """What the jails above have, up to the one that has the jid ``stop``, which is left out with those above that."""
    found: list[Amounts] = []
    for one in registry.upwards(record):
        if one.jid == stop:
            break
        if one is not record:
            found.append(_limits_of(one))
    return found


def _limits_above(record: Record, name: str, stop: int = 0) -> list[int]:
    return [amounts[name] for amounts in _all_above(record, stop) if name in amounts]


def _inside(record: Record) -> list[Record]:
    """The jails in it, outer ones first."""
    found = [one for one in registry.below(record.name) if one.alive()]
    return sorted(found, key=lambda one: one.name.count("."))


def _number(amount: int, without: bytes = b"max") -> bytes:
    return without if amount >= _NO_LIMIT else b"%d" % amount


def _write(resource: str, path: str, text: bytes) -> None:
    try:
        cgroup.write(path, text)
    except OSError as error:
        why = {EBUSY: "more is in use", EINVAL: "not an amount that the kernel takes"}
        raise JailError(f"{resource}: {why.get(error.errno or 0, error.strerror)}") from None


_OWN = ("memoryuse", *ownlimit.RESOURCES)
_MECHANISMS: list[tuple[tuple[str, ...], Callable[[Record, Amounts], None]]] = [
    (("maxproc", "nthr"), _set_processes),
    (("memoryuse", "swapuse"), _set_memory),
    (("pcpu",), _set_processors),
    (tuple(throttle.RESOURCES), _set_disks),
    (_OWN, _set_own),
    (tuple(rlimit.RESOURCES), _set_rlimits),
    (("disk",), _set_room),
]
