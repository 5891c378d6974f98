"""The cgroup of a jail, and what each has by it, whatever is said of limits: so many processes, and its equal share.

Each jail is a group of its own for the kernel's scheduler, and with cgroup2 for its disks, of the same weight as the
others. Without a limit of processes a jail could use up all that the machine has; memory is accounted for, so that a
limit that is set later counts what is there by then (docs/decisions/0019-limits.md).
"""

from __future__ import annotations

import posix

from jailng.core.operation import Operation
from jailng.errors import JailError
from jailng.linux import cgroup, controller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from jailng.core.operation import Slots

_PART = 8
_MOST = 2048  # what can be killed and removed within a second
_ALL = "jailng"  # the directory of all jails
_WEIGHT, _HEAVIEST = 1024, 1 << 18  # cpu.shares of a process, and the most that a group may have
_WEIGHT2, _HEAVIEST2 = 100, 10000  # the same of cpu.weight, in cgroup2
_HOSTS = "/proc/1/cgroup"  # where the host has its processes, but for those of which it is told otherwise
_OF_INIT = 8  # PID 1 forks nothing, but whoever traces it may have it do so
_WITHOUT = {"pids": "limits the jail's processes (maxproc)", "cpu": "gives the jail its share"}
UNLIMITED = 1 << 22  # PID_MAX_LIMIT of the kernel: no machine has more processes


def usual() -> int:
    """How many processes, threads counted, a jail may have where ng.limits does not say it."""
    return min(_number("pid_max") // _PART, _number("threads-max") // _PART, _MOST)


def _number(name: str) -> int:
    fd = posix.open(f"/proc/sys/kernel/{name}", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return int(posix.read(fd, 32))
    finally:
        posix.close(fd)


def beside() -> list[str]:
    """The controllers of v1 in whose hierarchies a jail has a directory from its start."""
    return [name for name in controller.WANTED if controller.hierarchy(name)]


class MakeCgroup(Operation):
    """The jail's cgroup2 directory, with a leaf for its members and one for PID 1.

    Every process is born into its leaf: moving one costs an RCU grace period, 12 ms and more.
    """

    __slots__ = ("home", "init", "path")

    def __init__(self, path: str, home: str, init: str = "") -> None:
        """``home`` is the leaf of the members; beside it are jails in this one.

        ``init`` is that of a PID 1 which is the guest's, and one of the members.
        """
        self.path = path
        self.home = home
        self.init = init

    def undo_lines(self) -> list[str]:
        """Killing the cgroup is how a jail ends."""
        return [f"cgroup {self.path}"]

    def apply(self, slots: Slots) -> None:
        """Raises OSError."""
        cgroup.make(f"{self.path}/init")
        cgroup.make(self.home)
        if self.init:
            cgroup.make(self.init)
        slots["init.home"] = cgroup.open_directory(self.init or f"{self.path}/init")

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return f"make cgroup {self.path}"


class Allot(Operation):
    """The controllers of the jail's cgroup, and how many processes it may have.

    ``home`` is the leaf of its members; ``most`` of ``UNLIMITED`` or above is no limit. ``apart``: there may be jails
    in it. It goes with the cgroup.
    """

    __slots__ = ("apart", "home", "lenient", "most", "path", "refused")

    def __init__(self, path: str, home: str, most: int, lenient: bool, apart: bool = False) -> None:
        self.apart = apart
        self.path = path
        self.home = home
        self.most = most
        self.lenient = lenient
        self.refused = ""

    def apply(self, slots: Slots) -> None:
        """Raises JailError with what cannot be limited here, if not ``lenient``."""
        given = [name for name in controller.WANTED if controller.hierarchy(name) is not None]
        lacking = [name for name in controller.NEEDED if name not in given]
        if lacking:
            self._refuse(controller.missing(lacking[0]), lacking)
        try:
            below = [name for name in given if self._has_below(name)]
            if below:
                self._hand_down(below)
            if "pids" in given:
                limit_processes(self.path, self.most)
        except OSError as error:
            self._refuse(error, controller.NEEDED)

    def _refuse(self, error: OSError, lacking: Sequence[str]) -> None:
        self.refused = f"{error.strerror}: nothing {', or '.join([_WITHOUT[name] for name in lacking])}"
        if not self.lenient:
            raise JailError(f"ng.limits: {self.refused}: ng.lenient starts it all the same") from None

    def _has_below(self, name: str) -> bool:
        """Whether it is cgroup2 that has the controller; in v1 the directory is made."""
        found = controller.hierarchy(name)
        if found:
            if name == "cpu":
                _weigh(found)
            controller.make(name, f"{self.path}/{controller.OWN}" if self.apart and name == "cpu" else self.path)
        return found == ""

    def _hand_down(self, names: list[str]) -> None:
        if b"io" in controller.offered():
            names.append("io")
        there = cgroup.read(f"{self.path}/cgroup.controllers").split()
        if not all(name.encode() in there for name in names):
            controller.enable("", names)
            if "cpu" in names:
                _weigh_unified()
            controller.hand_down(self.path, names)
        nested = self.home != f"{self.path}/members"
        controller.enable(self.path, names if nested else [name for name in names if name == "pids"])
        if nested:  # for those that are to be made in it, beside its own members
            controller.enable(f"{self.path}/members", names)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        most = "any number of" if self.most >= UNLIMITED else str(self.most)
        return f"limit it to {most} processes, and to its share of the processors"

    def warnings(self, noted: list[int]) -> list[str]:
        """What could not be done."""
        return [f"ng.limits: {self.refused}"] if self.refused else []


def _weigh(top: str) -> None:
    """Give all jails together the weight of one process on each processor: the kernel parts a group's among these.

    In v1 the host's processes may stand beside the group, each with a weight of its own. Who made the group may have
    been killed before it had the weight. Raises OSError.
    """
    shares = f"{top}/{_ALL}/cpu.shares"
    try:
        if cgroup.read(shares) != b"%d\n" % _WEIGHT:  # what a group has from the kernel
            return
    except FileNotFoundError:
        controller.make("cpu", _ALL)
    cgroup.write(shares, b"%d" % min(_WEIGHT * (posix.cpu_count() or 1), _HEAVIEST))


def _weigh_unified() -> None:
    """The same in cgroup2, where the host's processes are in its root: systemd has groups for these, of equal weight.

    Before the group hands anything down: who comes next does it where this is killed. Raises OSError.
    """
    fd = posix.open(_HOSTS, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        beside = b"0::/\n" in posix.read(fd, 4096)
    finally:
        posix.close(fd)
    if beside:
        cgroup.write(f"{_ALL}/cpu.weight", b"%d" % min(_WEIGHT2 * (posix.cpu_count() or 1), _HEAVIEST2))


def limit_processes(path: str, most: int) -> None:
    """Let a jail have so many processes. Raises OSError."""
    text = b"max" if most >= UNLIMITED else b"%d" % most
    if controller.hierarchy("pids"):
        limit = text if text == b"max" else b"%d" % (most + 1)  # PID 1 is in there, too
        cgroup.write(f"{controller.directory('pids', path)}/pids.max", limit)
        return
    cgroup.write(f"{path}/members/pids.max", text)
    cgroup.write(f"{path}/init/pids.max", b"%d" % _OF_INIT)
