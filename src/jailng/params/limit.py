"""A limit of ng.limits: a rule of rctl(8) without its subject, which is the jail.

    RESOURCE:ACTION=AMOUNT[/PER]

Names, and what goes with what, are those of rctl(8) and sys/kern/kern_rctl.c of FreeBSD 15; ``disk`` is ours. An amount
may end in a unit (expand_number(3)), and is kept without.
"""

from __future__ import annotations

from jailng.errors import JailError
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# What an amount counts, what may be done beside log and a signal, and the meaning. ``deny`` refuses what would go
# beyond it, ``throttle`` slows down.
RESOURCES: dict[str, tuple[str, str, str]] = {
    "cputime": ("seconds", "", "processor time"),
    "datasize": ("bytes", "deny", "data size"),
    "stacksize": ("bytes", "deny", "stack size"),
    "coredumpsize": ("bytes", "deny", "core dump size"),
    "memoryuse": ("bytes", "deny", "memory in use"),
    "memorylocked": ("bytes", "deny", "locked memory"),
    "maxproc": ("count", "deny", "processes"),
    "openfiles": ("count", "deny", "open files"),
    "vmemoryuse": ("bytes", "deny", "address space"),
    "pseudoterminals": ("count", "deny", "pseudo-terminals"),
    "swapuse": ("bytes", "deny", "swap in use"),
    "nthr": ("count", "deny", "threads"),
    "msgqqueued": ("count", "deny", "queued System V messages"),
    "msgqsize": ("bytes", "deny", "size of System V message queues"),
    "nmsgq": ("count", "deny", "System V message queues"),
    "nsem": ("count", "deny", "System V semaphores"),
    "nsemop": ("count", "deny", "System V semaphores changed by one semop(2)"),
    "nshm": ("count", "deny", "System V shared memory segments"),
    "shmsize": ("bytes", "deny", "System V shared memory"),
    "wallclock": ("seconds", "", "time since the start"),
    "pcpu": ("percent", "deny", "processors in use, of one of them"),
    "readbps": ("bytes", "throttle", "bytes read from disks in a second"),
    "writebps": ("bytes", "throttle", "bytes written to disks in a second"),
    "readiops": ("count", "throttle", "reads from disks in a second"),
    "writeiops": ("count", "throttle", "writes to disks in a second"),
    "disk": ("bytes", "deny", "disk space"),
}
# The signals that rctl(8) may send, and those of them that Linux does not have.
SIGNALS = (
    "sighup sigint sigquit sigill sigtrap sigabrt sigfpe sigkill sigbus sigsegv sigsys sigpipe sigalrm sigterm sigurg "
    "sigstop sigtstp sigchld sigttin sigttou sigio sigxcpu sigxfsz sigvtalrm sigprof sigwinch sigusr1 sigusr2"
).split()
_FOREIGN_SIGNALS = ("sigemt", "siginfo", "sigthr")
ACTIONS = ("deny", "log", "devctl", "throttle", *SIGNALS, *_FOREIGN_SIGNALS)
SUBJECTS = ("process", "user", "loginclass", "jail")
# Where Linux counts by process alone (setrlimit(2)), a limit may be one of each process.
OF_PROCESSES = ("datasize", "stacksize", "coredumpsize", "memorylocked", "openfiles", "vmemoryuse")
_MILLIONTHS = ("cputime", "wallclock", "pcpu")  # FreeBSD's kernel counts these so
_MOST = 2**63 - 1
_UNITS = {unit: 1 << shift for unit, shift in zip("bkmgtpe", range(0, 70, 10), strict=True)}


class Limit:
    """``amount`` is in bytes, seconds, percent of one processor, or a count; ``per`` is jail, or process."""

    __slots__ = ("action", "amount", "per", "resource")

    def __init__(self, resource: str, action: str, amount: int, per: str = "jail") -> None:
        self.resource = resource
        self.action = action
        self.amount = amount
        self.per = per

    @property
    def text(self) -> str:
        """All of it in one form, as FreeBSD's kernel writes it."""
        return f"{self.resource}:{self.action}={self.amount}{'' if self.per == 'jail' else f'/{self.per}'}"

    def replaces(self, other: Limit) -> bool:
        """Whether the other goes when this is added: of ``deny`` there is one amount (rctl_rule_add())."""
        same = (self.resource, self.action, self.per) == (other.resource, other.action, other.per)
        return same and (self.action == "deny" or self.amount == other.amount)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Limit) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"<Limit {self.text}>"


def read(texts: Iterable[str]) -> list[Limit]:
    """The limits of a list whose elements may be lists themselves, without those that later ones replace.

    Raises JailError.
    """
    found: list[Limit] = []
    for text in texts:
        for one in text.split(","):
            if one.strip():
                limit = parse(one.strip())
                found = [other for other in found if not limit.replaces(other)] + [limit]
    return found


def parse(text: str) -> Limit:
    """Read ``memoryuse:deny=512M``. Raises JailError with the limit in it."""
    resource, colon, rest = text.partition(":")
    action, equals, rest = rest.partition("=")
    digits, slash, per = rest.partition("/")
    if not (colon and equals):
        raise _wrong(text, "not RESOURCE:ACTION=AMOUNT")
    resource, action, per = resource.lower(), action.lower(), per.lower() if slash else "jail"
    if resource not in RESOURCES:
        raise _wrong(text, f'no such resource: "{visible(resource)}"')
    if action not in ACTIONS:
        raise _wrong(text, f'no such action: "{visible(action)}"')
    if per not in SUBJECTS:
        raise _wrong(text, f'not jail or process: "{visible(per)}"')
    amount = expand(digits)
    if amount is None or amount > most(resource):
        raise _wrong(text, f'not an amount: "{visible(digits)}"')
    limit = Limit(resource, action, amount, per)
    why = unsupported(limit)
    if why:
        raise _wrong(text, why)
    return limit


def most(resource: str) -> int:
    """The largest amount of a resource: FreeBSD's kernel has 63 bits, and counts some in millionths."""
    return _MOST // 10**6 if resource in _MILLIONTHS else _MOST


def unsupported(limit: Limit) -> str:
    """Why no Linux honours such a limit, whatever its amount; "" where some do."""
    _, more, _ = RESOURCES[limit.resource]
    if limit.action in ("deny", "throttle") and limit.action != more:
        return f"{limit.resource} cannot be limited by {limit.action}{f', but by {more}' if more else ''}"
    if limit.action == "devctl":
        return "devctl: Linux has no devd(8) to tell"
    if limit.action in _FOREIGN_SIGNALS:
        return f"{limit.action}: Linux has no such signal"
    if limit.per in ("user", "loginclass"):
        return f"per {limit.per}: nothing on Linux counts by user within a jail"
    if limit.per == "process" and (limit.resource not in OF_PROCESSES or limit.action != "deny"):
        return f"{limit.resource}:{limit.action} is for the whole jail: not per process"
    return ""


def expand(text: str) -> int | None:
    """An amount with or without a unit of 1024 (expand_number(3)): ``512M``, ``1gb``, ``0x10``, ``+1``. None: none."""
    number = text.lower().lstrip(" \t\n\v\f\r")
    sign = number[:1] if number[:1] in ("+", "-") else ""
    number = number[len(sign) :]
    base = 10
    if number.startswith("0x"):
        base, number = 16, number[2:]
    elif number.startswith("0"):
        base = 8
    rest = number.lstrip("0123456789abcdef"[:base])
    digits = number[: len(number) - len(rest)]
    unit, tail = rest[:1], rest[1:]
    if not digits or len(digits) > 22 or (unit and unit not in _UNITS) or tail not in ("", "b") or unit + tail == "bb":
        return None
    found = int(digits, base) * _UNITS.get(unit, 1)
    return found if found < 2**64 and not (sign == "-" and found) else None


def _wrong(text: str, why: str) -> JailError:
    return JailError(f'ng.limits: "{visible(text)}": {why}')
