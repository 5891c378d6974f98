"""What a jail is shown of the kernel beyond its own /dev and /proc, where ``mount`` asks for it."""

from __future__ import annotations

import posix

from jailng.core.operation import Operation
from jailng.core.procfs import MASKS
from jailng.core.program import kept
from jailng.core.rootfs import (
    HIDDEN,
    NEW,
    NEW_SYS,
    POINT,
    TREE,
    attach,
    beneath,
    mount,
    new_file_system,
    shown,
)
from jailng.linux import mount as m
from jailng.linux.libc import ENOENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.operation import Slots
    from jailng.core.program import Program

# Directories of a sysfs: of the machine, of all its jails (cgroups), and what steers it.
_MASKED_IN_SYS = b"firmware fs hypervisor kernel module power devices/virtual/dmi devices/virtual/powercap".split()


class MountSys(Operation):
    """A read-only sysfs of the jail's own network namespace, masked where it tells of the machine or of its jails."""

    __slots__ = ("path", "relative")

    def __init__(self, path: str, relative: str) -> None:
        self.path = path
        self.relative = relative

    def inside(self, way: Program, slots: Slots) -> None:
        """A network namespace's sysfs is made by who is in it. The masks are those of ``MountProc``."""
        label = shown("mount", self.path, self.relative.encode("utf-8", "surrogateescape"))
        how = beneath(way, m.O_PATH | posix.O_NOFOLLOW)
        way.must("openat2", kept(TREE), way.text(self.relative), *how, keep=POINT, label=label)
        new_file_system(way, b"sysfs", [], HIDDEN, NEW_SYS)
        attach(way, NEW_SYS, kept(POINT))
        way.must("close", kept(POINT))
        way.must("fchdir", kept(NEW_SYS))
        mount(way, MASKS + b"/none", b"", b"", m.MS_BIND, unless=ENOENT)
        way.each(1, _MASKED_IN_SYS)
        way.must("close", kept(NEW_SYS))

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return f"mount {self.relative}: a sysfs, read-only"


class ShowAgain(Operation):
    """What the jail has of its own, /dev or /proc, in one more place."""

    __slots__ = ("name", "path", "relative")

    def __init__(self, name: str, path: str, relative: str) -> None:
        self.name = name
        self.path = path
        self.relative = relative

    def inside(self, way: Program, slots: Slots) -> None:
        """With all that is mounted on it, masks too."""
        label = shown("mount", self.path, self.relative.encode("utf-8", "surrogateescape"))
        how = beneath(way, m.O_PATH | posix.O_NOFOLLOW)
        way.must("openat2", kept(TREE), way.text(self.relative), *how, keep=POINT, label=label)
        flags = m.OPEN_TREE_CLONE | posix.O_CLOEXEC | m.AT_RECURSIVE
        way.must("open_tree", kept(TREE), way.text(self.name), flags, keep=NEW, label=label)
        attach(way, NEW, kept(POINT))
        way.must("close", kept(NEW))
        way.must("close", kept(POINT))

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return f"mount /{self.name} on {self.relative} too"
