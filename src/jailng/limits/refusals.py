"""How often the kernel has refused a jail more of a resource: what its cgroup counts of that. cgroups(7)."""

from __future__ import annotations

from jailng.linux import controller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

# By resource: the controller, its file in v2 and in v1, and the word before the number there. Of memory only what ended
# in a process being killed for it counts: a cache that has no more room is no refusal.
_COUNTED = {
    "maxproc": ("pids", "pids.events", "pids.events", b"max"),
    "nthr": ("pids", "pids.events", "pids.events", b"max"),
    "memoryuse": ("memory", "memory.events", "memory.oom_control", b"oom_kill"),
}


def counted(record: Record, resource: str) -> int:
    """Since the jail was started, with the jails in it; 0 of what is not counted."""
    if resource not in _COUNTED:
        return 0
    name, file, old_file, word = _COUNTED[resource]
    try:
        text = controller.read(name, record.cgroup, file, old_file)
    except OSError:
        return 0  # the jail has ended
    return next((int(line.split()[1]) for line in text.split(b"\n") if line.startswith(word + b" ")), 0)
