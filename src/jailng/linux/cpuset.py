"""The processors of a cgroup and all that is below it, for good and whatever it asks for: cpuset(7), and cgroup v2.

The controller is in one hierarchy alone: that of v2, where a cgroup of jailng's has it itself, or one of v1, where a
directory beside it has.
"""

from __future__ import annotations

import os

from jailng.linux import cgroup, content, controller, gathering

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
    return _effective(path, "cpus") or online()


def nodes(path: str) -> list[int]:
    """The memory nodes that the cgroup has. Raises OSError."""
    try:
        return _effective(path, "mems") or numbers(content.text(_NODES))
    except FileNotFoundError:
        return [0]  # a kernel without memory nodes tells of none


def online() -> list[int]:
    """The processors that there are. Raises OSError."""
    try:
        return numbers(content.text(_ONLINE))
    except FileNotFoundError:  # no /sys, as in a bare chroot
        lines = [line.partition(" ")[0] for line in content.text("/proc/stat").split("\n") if line.startswith("cpu")]
        return [int(name[3:]) for name in lines if name != "cpu"]


def _effective(path: str, what: str) -> list[int]:
    """What the controller says; nothing where there is none."""
    jail = "/".join(path.split("/")[:2])  # a jail in another has what that one has
    if cgroup.exists(f"{jail}/cpuset.{what}.effective"):
        return numbers(cgroup.read(f"{jail}/cpuset.{what}.effective").decode())
    try:
        return numbers(content.text(f"{controller.existing('cpuset', path)}/cpuset.effective_{what}"))
    except FileNotFoundError:
        return []


def limit(path: str, chosen: list[int]) -> None:
    """Give a cgroup, which is a jail's of the host's, these processors, for what is in it and what will be.

    Raises OSError: EBUSY where the hierarchy's root is not the whole machine's, ENODEV if there is no such controller.
    """
    words = ",".join(map(str, chosen)).encode()
    top = controller.hierarchy("cpuset")
    if top is None:
        raise controller.missing("cpuset")
    if top:
        place = controller.directory("cpuset", path)
        for one in (os.path.dirname(place), place):
            _make(one)
        _write(f"{place}/cpuset.cpus", words)
        gathering.gather(path, place)
        return
    controller.hand_down(path, ["cpuset"])
    cgroup.write(f"{path}/cpuset.cpus", words)


def _make(place: str) -> None:
    """A cgroup of v1 with all that the one above has: without that it would take no process."""
    try:
        os.mkdir(place, 0o755)
    except FileExistsError:
        return
    for name in ("cpuset.cpus", "cpuset.mems"):
        _write(f"{place}/{name}", content.text(f"{os.path.dirname(place)}/{name}").encode())


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
