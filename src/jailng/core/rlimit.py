"""Limits that the kernel keeps for each process: setrlimit(2). FreeBSD adds up what the jail's processes have."""

from __future__ import annotations

from jailng.core import registry
from jailng.linux import gathering
from jailng.linux.libc import ESRCH, buffer, syscall, words
from jailng.linux.visit import AsUser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

RESOURCES = {
    "datasize": 2, "stacksize": 3, "coredumpsize": 4, "openfiles": 7, "memorylocked": 8, "vmemoryuse": 9,
}  # fmt: skip
# In a jail no cores are written, whatever their size (core/confinement.py).
_COUNTED = [name for name in RESOURCES if name != "coredumpsize"]
_MOST_PASSES = 1000


def entering(record: Record, amounts: dict[str, int]) -> list[tuple[int, int, int]]:
    """The limits of a process that enters: resource, soft, hard. None is above what this process has itself."""
    locks = record.params.get("allow.mlock") == "true"  # else it may lock nothing anyhow
    names = [name for name in _COUNTED if name in amounts and (locks or name != "memorylocked")]
    return [(RESOURCES[name], *_least(0, name, amounts[name])) for name in names]


def lower(record: Record, amounts: dict[str, int]) -> None:
    """Take what is above these amounts from all that are in a jail. They are not given more. Raises OSError."""
    wanted = {name: amounts[name] for name in _COUNTED if name in amounts}
    if not wanted:
        return
    with AsUser(_outermost(record)):  # who owns its user namespace may, and root needs CAP_SYS_RESOURCE
        for _ in range(_MOST_PASSES):  # they may fork meanwhile
            pids = gathering.members(f"{record.cgroup}/members")
            lowered = [_lower(pid, name, amount) for pid in pids for name, amount in wanted.items()]
            if True not in lowered:
                return


def _outermost(record: Record) -> int:
    *_, outermost = registry.upwards(record)
    return outermost.base


def _lower(pid: int, name: str, amount: int) -> bool:
    """Whether anything had to be taken from it."""
    try:
        soft, hard = _least(pid, name, amount)
        if (soft, hard) == _now(pid, name):
            return False
        syscall("prlimit64", pid, RESOURCES[name], words(soft, hard), None)
    except OSError as error:
        if error.errno == ESRCH:  # it has ended
            return False
        raise
    return True


def _least(pid: int, name: str, amount: int) -> tuple[int, int]:
    soft, hard = _now(pid, name)
    hard = min(hard, amount)
    return min(soft, hard), hard


def _now(pid: int, name: str) -> tuple[int, int]:
    """Of a process, or with 0 of this one."""
    found = buffer(16)
    syscall("prlimit64", pid, RESOURCES[name], None, found)
    return tuple([int.from_bytes(found.raw[at : at + 8], "little") for at in (0, 8)])  # type: ignore[return-value]
