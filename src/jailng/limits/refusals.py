"""How often the kernel has refused a jail more of a resource than it may have: what its cgroup counts. cgroups(7)."""

from __future__ import annotations

from jailng.core import registry
from jailng.linux import controller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

Counted = tuple[int, int]
NONE = (0, 0)
# Of memory only what ended in a process being killed for it counts: a cache that has no more room is no refusal.
_PIDS = ("maxproc", "nthr")
_MEMORY = "memoryuse"


def counted(record: Record, resource: str) -> Counted:
    """Since the jail was started: what was refused in it and the jails in it, and what for its own limit.

    Both grow where this jail's limit was met. cgroup2 tells that by one number. v1 counts a refusal where whoever
    asked is, whichever limit it was. Of what is not counted, or of a jail that has ended, none.
    """
    if resource not in (*_PIDS, _MEMORY):
        return NONE
    try:
        if controller.hierarchy("pids" if resource in _PIDS else "memory"):
            return _processes(record) if resource in _PIDS else _memory(record)
        if resource in _PIDS:
            found = _number("pids", f"{record.cgroup}/members", "pids.events.local", "max")
        else:
            found = _number("memory", record.cgroup, "memory.events.local", "oom")
    except OSError:
        return NONE
    return found, found


def have_grown(before: Counted, now: Counted) -> bool:
    """Whether something was refused for the jail's own limit."""
    return now[0] > before[0] and now[1] > before[1]


def _processes(record: Record) -> Counted:
    """v1 does not tell whose limit it was; one that the jail has never come up to it was not."""
    refused = sum([_number("pids", path, "pids.events", "max") for path in _all(record)])
    most = controller.read("pids", record.cgroup, "", "pids.max").strip()
    peak = controller.read("pids", record.cgroup, "", "pids.peak").strip()  # Linux 6.1
    return refused, refused if not peak or (most.isdigit() and int(peak) >= int(most)) else 0


def _memory(record: Record) -> Counted:
    killed = sum([_number("memory", path, "memory.oom_control", "oom_kill") for path in _all(record)])
    return killed, int(controller.read("memory", record.cgroup, "", "memory.failcnt") or 0)


def _all(record: Record) -> list[str]:
    return [record.cgroup, *[one.cgroup for one in registry.below(record.name)]]


def _number(name: str, path: str, file: str, word: str) -> int:
    """The number behind the word in a file, which has the same name in v1 where v1 is asked."""
    lines = controller.read(name, path, file, file).split(b"\n")
    return next((int(line.split()[1]) for line in lines if line.startswith(word.encode() + b" ")), 0)
