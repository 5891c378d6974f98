"""Jails that have no root of their own (``ng.root=none``): each process that joins brings one (core/view.py).

What their PID 1 lives in, and can be reached by /proc/1/root, is an empty tree that nobody can write to, with the
jail's /dev and /proc on it: those that the processes that join get. So what one of them has been given, be it the
host's own /, no other has that has not joined there, but by way of its processes.
"""

from __future__ import annotations

from jailng.core import rootfs
from jailng.core.operation import Operation
from jailng.core.program import kept
from jailng.core.rootfs import TREE, attach, mount_attributes, new_file_system
from jailng.errors import JailError
from jailng.linux import mount as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.operation import Slots
    from jailng.core.program import Program
    from jailng.params.model import Parameters

# As ps(1) on FreeBSD shows a jail: its members, and no init. A jail whose root is its own has there what a machine has.
HIDDEN = (b"1",)
_POINTS = (b"dev", b"proc")
_NOT_WITH = ("mount", "mount.fstab", "ng.quota")


def check(params: Parameters) -> None:
    """Refuse what takes a tree of the jail's. Raises JailError."""
    if "." in params.text("name"):
        raise JailError("ng.root=none: not for a jail in a jail: it is the host's directories that are joined with")
    for name in _NOT_WITH:
        if params[name]:
            raise JailError(f"{name}: not with ng.root=none: the jail has no tree of its own")
    if params.text("ng.init") != "none":
        raise JailError("ng.init: not with ng.root=none: the jail has no tree of its own")


class EmptyTree(Operation):
    """Make the tree: a tmpfs of two empty directories, mounted read-only."""

    __slots__ = ("private",)

    def __init__(self, private: bool) -> None:
        self.private = private

    def outside(self, way: Program, slots: Slots) -> None:
        """It is made while it can be written to."""
        options = [(b"source", b"none"), (b"size", b"4k"), (b"nr_inodes", b"4"), (b"mode", b"755")]
        new_file_system(way, b"tmpfs", options, 0, TREE)
        way.must("mkdirat", kept(TREE), way.text(b""), 0o755, label="jail_set:")
        way.each(1, list(_POINTS))

    def inside(self, way: Program, slots: Slots) -> None:
        """As ``rootfs.AttachTree`` does with a clone."""
        mapped = (m.MOUNT_ATTR_IDMAP, slots["userns"]) if self.private else (0, 0)
        attributes = mount_attributes(way, rootfs.HIDDEN | mapped[0], mapped[1])
        way.must("mount_setattr", kept(TREE), *attributes, label="jail_set: mount_setattr")
        attach(way, TREE, m.AT_FDCWD, b"/")

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "mount an empty tree, read-only: who joins the jail brings a root"
