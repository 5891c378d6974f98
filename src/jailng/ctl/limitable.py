"""Whether what jails use can be limited (``ng.limits``, rctl(8)): the controllers, and swap."""

from __future__ import annotations

from collections.abc import Iterator

from jailng.ctl.diagnosis import Finding, Jails
from jailng.linux import cgroup, controller
from jailng.linux.libc import exists

# What is refused without, for a controller that not every jail takes.
_RESOURCES = {
    "memory": "memoryuse and swapuse",
    "io": "readbps, writebps, readiops and writeiops",
    "cpuset": "cpuset(1) of a jail",
}


def check(_: Jails) -> Iterator[Finding]:
    """What of it this host cannot, as it is. Raises OSError."""
    below: list[str] = []
    for name in controller.V1:
        place = controller.hierarchy(name)
        if place is None:
            yield _missing(name)
        elif not place and name in controller.WANTED:
            below.append(name)
    if below:
        yield from _not_handed_down(below)
    memory = controller.hierarchy("memory")
    if memory and not exists(f"{memory}/memory.memsw.limit_in_bytes"):
        what = "this kernel counts no swap: swapuse is refused"
        yield Finding(f"{what}; it needs CONFIG_SWAP, and swapaccount=1 on its command line", wrong=False)


def _missing(name: str) -> Finding:
    what = controller.missing(name).strerror
    if name in controller.NEEDED:
        return Finding(f"{what}: a jail takes ng.lenient, and can starve the host")
    return Finding(f"{what}: refused is {_RESOURCES[name]}", wrong=False)


def _not_handed_down(names: list[str]) -> Iterator[Finding]:
    """A root of cgroup2 with processes, as a container has, hands none down that it has not handed down already."""
    there = cgroup.read("cgroup.subtree_control").split()
    missing = [name for name in names if name.encode() not in there]
    if missing and cgroup.exists("cgroup.type") and cgroup.members("."):
        what = "the root of cgroup2 here has processes of its own, which belong in a cgroup below it"
        yield Finding(f"{what}: it hands down no {' and '.join(missing)}; a jail takes ng.lenient")
