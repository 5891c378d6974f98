"""By what the kernel holds a jail to its limits: controllers of cgroups, rlimits, and what a jail has for itself.

core/limit.py says which limits these are. What is asked for of each resource is an amount; each mechanism is given the
amounts of all, and one that fails leaves all as it was. Loaded where limits are set.
"""

from __future__ import annotations

from jailng.core import halt, limit, ownlimit, rlimit, share, throttle
from jailng.core.operation import Operation
from jailng.errors import JailError
from jailng.linux import cgroup, controller, gathering
from jailng.linux.libc import EBUSY, EINVAL
from jailng.params import limit as limits_of
from jailng.params.model import SYSV
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jailng.core.limit import Amounts
    from jailng.core.operation import Slots
    from jailng.core.registry import Record
    from jailng.params.limit import Limit
    from jailng.params.model import Parameters

_PERIOD = 100_000  # microseconds; of these a jail has its part of a processor's time
_NO_LIMIT = 1 << 62
_BUFFERS = 4  # of memoryuse, for buffers of sockets, where these are counted by themselves


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
        for one in limit.in_turn(self.limits):
            try:
                set_limits(self.record, [*applied, one], before=applied)
                applied.append(one)
            except JailError as error:
                self.refused.append(self._told(error))

    def _told(self, error: JailError) -> str:
        if self.record.params.get("ng.limits"):
            return f"ng.limits: {error}"
        return f"rctl(8) has rules for {visible(self.record.name)}: {error}"

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "limit " + " ".join([one.text for one in self.limits])

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
        above = limit.least({}, limit.above(self.record))
        if any(name in above for name in _OWN):
            _hold(self.record, above)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "limit it as the jail is that it is in"


def operations(params: Parameters, record: Record) -> list[Operation]:
    """What applies ng.limits, and rules of rctl(8), to a new jail."""
    limits = limit.with_rules(limits_of.read(params.strings("ng.limits")), record)
    made: list[Operation] = [HoldInner(record)] if record.parent else []
    return [*made, SetLimits(record, limits, params.flag("ng.lenient"))] if limits else made


def set_limits(record: Record, limits: list[Limit], before: list[Limit] | None = None) -> None:
    """Have the kernel keep exactly these limits of a jail that runs, from now on. Needs the jail's lock.

    Those that are not in ``ENFORCED`` are passed over: somebody has to watch them. The caller tells the record of them
    and that it is ``limited`` (``engine.modify.modify`` does all of that); until then it is ``limiting``. ``before`` is
    what held, if the record does not tell it. Raises JailError that names what cannot be limited, or not so far: then
    all is as it was before.
    """
    from jailng.params.model import Parameters

    if before is None:
        before = limit.of(record)
    limit.check(limits, Parameters.from_texts(record.params))
    unsettled = record.limiting
    record.append(["limiting"])
    try:
        _apply(record, limit.asked(limits), limit.asked(before), unsettled)
    except OSError as error:
        record.append(["limited"])
        raise JailError(f"{error.strerror}") from None
    except BaseException:  # ^C, too
        record.append(["limited"])
        raise


def lift(record: Record) -> None:
    """Slow nobody in the jail down any more, as it is to end. Nothing is raised."""
    for mechanism in (_set_processors, _set_disks):
        try:
            mechanism(record, {})
        except (JailError, OSError):
            pass  # it has ended, or never had it


def permit_ipc(record: Record, params: Parameters) -> None:
    """Have a jail that runs, and those in it, make what System V IPC ``params`` let it. Raises JailError or OSError."""
    texts = {name: params.text(name) for name in SYSV}
    amounts = limit.asked(limit.with_rules(limits_of.read(params.strings("ng.limits")), record))
    above = limit.above(record)
    ownlimit.permit(record, limit.least(amounts, above), texts)
    for one in limit.inside(record):
        held = limit.least(limit.amounts_of(one), [amounts, *limit.above(one, record.jid), *above])
        ownlimit.permit(one, held, _less(one.params, texts))


def _less(params: Mapping[str, str], above: Mapping[str, str]) -> dict[str, str]:
    return {name: "disable" if above[name] == "disable" else params.get(name, "disable") for name in SYSV}


def _apply(record: Record, amounts: Amounts, before: Amounts, all_of_them: bool) -> None:
    done: list[Callable[[Record, Amounts], None]] = []
    try:
        for resources, mechanism in _MECHANISMS:
            done.append(mechanism)
            if all_of_them or any(amounts.get(one) != before.get(one) for one in resources):
                mechanism(record, amounts)
    except BaseException:
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
        steps, swapping = [("memoryuse", f"{here}/memory.max", _number(memory))], f"{here}/memory.swap.max"
        if cgroup.exists(swapping):
            steps.append(("swapuse", swapping, _number(swap)))
            allowed = cgroup.read(swapping).strip()
            if allowed != b"max" and swap > int(allowed):
                steps.reverse()  # whom there is no memory for any more is to be swapped, not killed
        elif "swapuse" in amounts:
            raise JailError("swapuse: this kernel counts no swap (CONFIG_SWAP, swapaccount=1)")
        for step in steps:
            with _Squeezed(here, memory if step[0] == "memoryuse" else _NO_LIMIT):
                _write(*step)
        return
    both = f"{here}/memory.memsw.limit_in_bytes"
    if cgroup.exists(both):
        cgroup.write(both, b"-1")  # it is never below the other
    elif "swapuse" in amounts:
        raise JailError("swapuse: this kernel counts no swap (CONFIG_SWAP, swapaccount=1)")
    _write("memoryuse", f"{here}/memory.limit_in_bytes", _number(memory, b"-1"))
    if "swapuse" in amounts:
        _write("swapuse", both, _number(min(memory + swap, _NO_LIMIT), b"-1"))


class _Squeezed:
    """With what is in use given back to the kernel, as far as it can be, down to an amount: for memory.max of cgroup2.

    To have a jail fit into that the kernel would kill its processes. Raises JailError, as v1 does, where more is needed
    still. Where this is killed in the middle the jail is slowed down until its limits are set again.
    """

    __slots__ = ("_amount", "_place")

    def __init__(self, place: str, amount: int) -> None:
        self._place = place
        self._amount = amount

    def __enter__(self) -> None:
        used = f"{self._place}/memory.current"
        if self._amount >= _NO_LIMIT or int(cgroup.read(used)) <= self._amount:
            return
        try:
            cgroup.write(f"{self._place}/memory.high", b"%d" % self._amount)  # it holds until the limit does
            if int(cgroup.read(used)) > self._amount:
                raise JailError("memoryuse: more is in use")
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        cgroup.write(f"{self._place}/memory.high", b"max")


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
    inner = [(one, limit.amounts_of(one).get("pcpu", _NO_LIMIT)) for one in limit.inside(record)]
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
    above = limit.above(record)
    _hold(record, limit.least(amounts, above))
    for one in limit.inside(record):
        _hold(one, limit.least(limit.amounts_of(one), [amounts, *limit.above(one, record.jid), *above]))


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


def _limits_above(record: Record, name: str, stop: int = 0) -> list[int]:
    return [amounts[name] for amounts in limit.above(record, stop) if name in amounts]


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
