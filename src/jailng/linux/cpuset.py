"""The processors of a cgroup and all that is below it, for good and whatever it asks for: cpuset(7), and cgroup v2.

The controller is in one hierarchy alone: that of v2, where a cgroup of jailng's has it itself, or one of v1, where a
directory beside it has.
"""

from __future__ import annotations

import os
from errno import EBUSY, ENODEV, ESRCH

from jailng.linux import cgroup

_MOST_PASSES = 1000
_ONLINE = "/sys/devices/system/cpu/online"
_NODES = "/sys/devices/system/node/online"


def numbers(text: str) -> list[int]:
    """The list format of cpuset(7), such as ``0-2,7``. Raises ValueError."""
    found: list[int] = []
    for part in text.strip().split(",") if text.strip() else []:
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def processors(path: str) -> list[int]:
    """Those that the cgroup has. Raises OSError."""
    return _effective(path, "cpus", _ONLINE)


def nodes(path: str) -> list[int]:
    """The memory nodes that the cgroup has. Raises OSError."""
    return _effective(path, "mems", _NODES)


def online() -> list[int]:
    """The processors that there are. Raises OSError."""
    return numbers(_read(_ONLINE))


def _effective(path: str, what: str, everything: str) -> list[int]:
    jail = "/".join(path.split("/")[:2])  # a jail in another has what that one has
    if cgroup.exists(f"{jail}/cpuset.{what}.effective"):
        return numbers(cgroup.read(f"{jail}/cpuset.{what}.effective").decode())
    for place in (f"{cgroup.cpuset(path)}/cpuset.effective_{what}", everything):
        try:
            return numbers(_read(place))
        except FileNotFoundError:
            continue
    return [0]  # a kernel without memory nodes tells of none


def limit(path: str, chosen: list[int]) -> None:
    """Give a cgroup, which is a jail's of the host's, these processors, for what is in it and what will be.

    Raises OSError: EBUSY where the hierarchy's root is not the whole machine's, ENODEV if there is no such controller.
    """
    words = ",".join(map(str, chosen)).encode()
    above = os.path.dirname(cgroup.cpuset(path))
    if os.path.exists(f"{os.path.dirname(above)}/cpuset.cpus"):
        for place in (above, cgroup.cpuset(path)):
            _make(place)
        _write(f"{cgroup.cpuset(path)}/cpuset.cpus", words)
        _gather(path)
        return
    if b"cpuset" not in cgroup.read("cgroup.controllers").split():
        raise OSError(ENODEV, "no controller cpuset in cgroup.controllers")
    for place in ("", *_ancestors(path)):
        _enable(place)
    cgroup.write(f"{path}/cpuset.cpus", words)


def _ancestors(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:length]) + "/" for length in range(1, len(parts))]


def _enable(place: str) -> None:
    """Have the cgroups in one have the controller. In a container's root with processes it would spoil all of them."""
    if b"cpuset" in cgroup.read(f"{place}cgroup.subtree_control").split():
        return
    if cgroup.exists(f"{place}cgroup.type") and cgroup.members(place or "."):
        raise OSError(EBUSY, f"cgroup /{place} has processes of its own")
    cgroup.write(f"{place}cgroup.subtree_control", b"+cpuset")


def _make(place: str) -> None:
    """A cgroup of v1 with all that the one above has: without that it would take no process."""
    try:
        os.mkdir(place, 0o755)
    except FileExistsError:
        return
    for name in ("cpuset.cpus", "cpuset.mems"):
        _write(f"{place}/{name}", _read(f"{os.path.dirname(place)}/{name}").encode())


def _gather(path: str) -> None:
    """Move all that is in a cgroup of v2 to its directory of v1: again and again, since they may fork meanwhile."""
    home = f"{cgroup.cpuset(path)}/cgroup.procs"
    for _ in range(_MOST_PASSES):
        left = _members(path) - {int(pid) for pid in _read(home).split()}
        if not left:
            return
        for pid in left:
            try:
                _write(home, b"%d" % pid)
            except OSError as error:
                if error.errno != ESRCH:  # it has ended
                    raise
    raise OSError(EBUSY, "its processes multiply faster than they are moved")


def _members(path: str) -> set[int]:
    """Who is in a cgroup or below, but for the dead."""
    found: set[int] = set()
    names = [path]
    while names:
        name = names.pop()
        try:
            found.update(cgroup.members(name))
        except FileNotFoundError:
            continue
        names += [f"{name}/{one}" for one in cgroup.directories_in(name)]
    return found


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
