"""Hierarchies of cgroup v1 that are mounted where nobody expects them, or nowhere. cgroups(7)."""

from __future__ import annotations

import posix

from jailng.linux import content
from jailng.linux.mountfd import new_file_system


def find(name: str) -> str | None:
    """A path of the hierarchy of v1 that has the controller; None if there is none. Raises OSError.

    One that is mounted nowhere, which the kernel has nevertheless, is mounted by this process, attached nowhere.
    """
    together = _attached(name)
    if not together:  # to mount a hierarchy for it would take it away from cgroup2
        return None
    mounted = _mounted(name)
    if mounted:
        return mounted
    try:
        tree = new_file_system(b"cgroup", [(one.encode(), None) for one in together])
    except OSError:
        return None  # this is a container
    return f"/proc/self/fd/{tree}"


def _attached(name: str) -> list[str]:
    """The controllers of the hierarchy of v1 that has this one."""
    for line in content.text("/proc/self/cgroup").split("\n"):
        together = line.split(":")[1].split(",") if line else []
        if name in together:
            return together
    return []


def _mounted(name: str) -> str:
    for line in content.text("/proc/self/mountinfo").split("\n"):
        before, _, after = line.partition(" - ")
        words = after.split(" ")
        if words[0] == "cgroup" and name in words[-1].split(","):
            path = before.split(" ")[4]
            if "\\" not in path and posix.access(f"{path}/tasks", posix.W_OK):
                return path
    return ""
