"""The controllers of a jail's cgroup, wherever a v1, hybrid or v2 host has them. cgroups(7).

A controller is in one hierarchy alone. Where that is cgroup2, the jail's own directory has it, once the directories
above hand it down; where it is one of v1, a directory there stands beside the one in cgroup2, and who is born into that
has to join it. Either is above the root of the jail's cgroup namespace.
"""

from __future__ import annotations

import posix

from jailng.linux import cgroup
from jailng.linux.libc import EBUSY, ENODEV, exists

# By their names in cgroup2, what the hierarchy of v1 is called.
V1 = {"pids": "pids", "cpu": "cpu", "memory": "memory", "io": "blkio", "cpuset": "cpuset"}
# What every jail has from its start: limits that are set later then count what was there before. Without the first two
# a jail could starve the host.
NEEDED = ("pids", "cpu")
WANTED = ("pids", "cpu", "memory")
LATER = ("io", "cpuset")  # what a jail of v1 has when it is asked for
OWN = "own"
BUFFERS = "memory.kmem.tcp"  # of v1: those of sockets of TCP and UDP, which it does not count as memory
# By the custom of cgroups(7); the second is for whoever has a /sys of its own.
_TOPS = ("/sys/fs/cgroup", "/proc/1/root/sys/fs/cgroup")
_found: dict[str, str | None] = {}
_offered: list[bytes] = []


def hierarchy(name: str) -> str | None:
    """Where the v1 hierarchy of a controller is mounted, "" if cgroup2 has the controller, None if neither does.

    One that is mounted nowhere is mounted by this process, attached nowhere, and held for its life.
    """
    if name not in _found:
        _found[name] = _look_for(name)
    return _found[name]


def usual(name: str) -> str:
    """The same, as far as custom tells it. Raises OSError."""
    for top in _TOPS:
        try:
            if exists(f"{top}/{V1[name]}/tasks"):
                return f"{top}/{V1[name]}"
        except PermissionError:
            pass  # the machine's is not shown to this root
    return ""


def _look_for(name: str) -> str | None:
    found = usual(name)
    if found:
        return found
    if name.encode() in offered():
        return ""
    from jailng.linux import hierarchies

    return hierarchies.find(V1[name])


def offered() -> list[bytes]:
    """The controllers that the root of cgroup2, as it is seen from here, can hand down. Raises OSError."""
    if not _offered:
        _offered.extend([b"", *cgroup.read("cgroup.controllers").split()])
    return _offered


def directory(name: str, path: str) -> str:
    """The directory for the cgroup2 path of a jail in the v1 hierarchy of a controller that is there."""
    return below(name, hierarchy(name) or "", path)


def below(name: str, top: str, path: str) -> str:
    """The same, in the hierarchy at ``top``. A jail in another has the processors of that one."""
    if name == "cpuset":
        return f"{top}/{'/'.join(path.split('/')[:2])}"
    return f"{top}/{path.replace('/members/', '/')}"


def own(path: str) -> str:
    """The directory in v1's hierarchy of cpu for a jail's own processes, if there may be jails in it.

    Beside a jail in it each of them would have the share that this has with all that are in there.
    """
    return f"{directory('cpu', path)}/{OWN}"


def outwards(path: str) -> list[str]:
    """The cgroup2 path of a jail, and those of the jails that it is in, the outermost last."""
    parts = path.split("/members/")
    return ["/members/".join(parts[:length]) for length in range(len(parts), 0, -1)]


def held(directory: str) -> int:
    """The descriptor that a path leads by, of a hierarchy that this process has mounted; -1: by none."""
    number = directory.removeprefix("/proc/self/fd/").partition("/")[0]
    return int(number) if number and number.isdigit() else -1


def top(name: str) -> str:
    """Where the hierarchy is, as custom has it or this process has found it; "" where there is none. Raises OSError."""
    found = _found.get(name)
    return usual(name) if found is None else found


def existing(name: str, path: str) -> str:
    """That directory, if there is one, where custom has the hierarchy or this process has looked for it; or ""."""
    place = top(name)
    made = below(name, place, path)
    return made if place and exists(made) else ""


def read(name: str, path: str, file: str, old_file: str) -> bytes:
    """A file of a controller's for the cgroup2 path of a jail, by its name in v2 and in v1.

    Nothing, where there is none. Raises OSError.
    """
    place = existing(name, path)
    try:
        return cgroup.read(f"{place}/{old_file}" if place else f"{path}/{file}")
    except FileNotFoundError:
        return b""


def make(name: str, path: str) -> str:
    """Make that directory, and those above it; its path. Raises OSError."""
    made = directory(name, path)
    before = posix.umask(0o022)  # whatever that of the caller is
    try:
        _make(made)
    finally:
        posix.umask(before)
    return made


def _make(path: str) -> None:
    try:
        posix.mkdir(path, 0o755)
    except FileExistsError:
        pass
    except FileNotFoundError:
        _make(path.rpartition("/")[0])
        _make(path)  # whoever removes the last one in there may have taken it away again


def hand_down(path: str, names: list[str]) -> None:
    """Have the jail's cgroup2 directory ``path`` have these controllers, which cgroup2 has.

    Raises OSError: EBUSY where a directory above has processes of its own, as a container's root has.
    """
    above = path.split("/")[:-1]
    for length in range(len(above) + 1):
        enable("/".join(above[:length]), names)


def enable(path: str, names: list[str]) -> None:
    """Have the cgroups right below a directory of cgroup2, "" for the root, have these controllers.

    Raises OSError, as ``hand_down``. In a container's root with processes it would spoil all that are there.
    """
    control = f"{path}/cgroup.subtree_control".lstrip("/")
    there = cgroup.read(control).split()
    missing = [name for name in names if name.encode() not in there]
    if not missing:
        return
    if cgroup.exists(f"{path}/cgroup.type".lstrip("/")) and cgroup.members(path or "."):
        raise OSError(EBUSY, f"cgroup /{path} has processes of its own")
    cgroup.write(control, " ".join([f"+{name}" for name in missing]).encode())


def missing(name: str) -> OSError:
    """To be raised for a controller that is nowhere."""
    return OSError(ENODEV, f"this kernel hands out no cgroup controller {name}")
