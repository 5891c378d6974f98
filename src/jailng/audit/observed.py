"""What the host sees of the program that runs the probes: whose it is, what bounds it, and who reaches its files."""

from __future__ import annotations

import os
from pathlib import Path

from jailng.core import reach

_LONGEST = 1 << 16  # bytes of a command line: a process may call all of its address space that (PR_SET_MM_MAP)


def of(mark: str) -> dict[str, str]:
    """The facts of the process that has that word on its command line; none where there is no such process."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read(_LONGEST).split(b"\0")
                if words[:2] == [b"/bin/sh", b"-c"] and mark.encode() in words:
                    return _facts(Path("/proc", name))
            except OSError:
                continue
    return {}


def _facts(process: Path) -> dict[str, str]:
    first = (process / "uid_map").read_text().split()
    cgroups = [line.split(":", 2) for line in (process / "cgroup").read_text().splitlines()]
    longest = max((path for _, _, path in cgroups), key=len)
    return {
        "base": first[1] if first[1:2] != ["0"] else "",
        "cgroup": longest if len(longest) > 1 else "",
        "processes": _limit(cgroups),
        "reach": _reach(process),
    }


def _limit(cgroups: list[list[str]]) -> str:
    """The smallest pids.max of a process's cgroups and those above them; "" where none can be looked at."""
    found = [limit for _, names, path in cgroups for limit in _limits(names.split(","), path)]
    numbers = [int(limit) for limit in found if limit.isdigit()]
    return str(min(numbers)) if numbers else "max" if found else ""


def _limits(names: list[str], path: str) -> list[str]:
    for line in Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape").split("\n")[:-1]:
        before, after = line.split(" - ")
        kind, _, options = after.split(" ", 2)
        if (kind == "cgroup2" and names == [""]) or (
            kind == "cgroup" and "pids" in names and "pids" in options.split(",")
        ):
            here = Path(before.split()[4] + path)
            files = [directory / "pids.max" for directory in (here, *here.parents)]
            limits = [file.read_text().strip() for file in files if file.is_file()]
            return limits or ["max"] if kind == "cgroup" or limits else []
    return []


def _reach(process: Path) -> str:
    """Whether other users of the host can reach a file in its root: open, closed, or "" where that is not known."""
    root = os.open(process / "root", os.O_PATH | os.O_DIRECTORY)
    try:
        here, top = os.fstat(root), os.stat("/")
        if (here.st_dev, here.st_ino) == (top.st_dev, top.st_ino):
            return "open"
        if os.readlink(process / "ns/mnt") != os.readlink("/proc/self/ns/mnt"):
            return ""
        return "open" if reach.reachable(root, os.readlink(process / "root")) else "closed"
    finally:
        os.close(root)
