"""What of its tree is a guest's own, ``ng.init``: an empty /run, and a cgroup that it may part (core/guest.py)."""

from __future__ import annotations

import posix

from jailng.core.operation import Operation
from jailng.core.program import kept
from jailng.core.rootfs import HIDDEN, TREE, attach, beneath, mount_attributes, new_file_system
from jailng.linux import cgroup
from jailng.linux import mount as m
from jailng.linux.libc import ENOENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.operation import Slots
    from jailng.core.program import Program

_ATTRIBUTES = m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV
# What the builder keeps, by number; those below 1016 are rootfs's and the builder's own.
_SYS, _CGROUP, _RUN, _POINT = range(1016, 1020)
# The guest's own files of its cgroup: with these it moves its processes about in there, and parts what it has been
# given. Those that say how much that is stay the host's.
_DELEGATED = ("", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads")
_MOST_CGROUPS, _DEEPEST = 1024, 32


class MountRun(Operation):
    """A tmpfs of the guest's own in places that are to be empty when it starts."""

    __slots__ = ("base", "places")

    def __init__(self, places: list[tuple[bytes, bytes, bytes, bytes]], base: int) -> None:
        """``places`` are paths below the root, mode, size and files; ``base`` is the first of the jail's uids."""
        self.places = places
        self.base = base

    def inside(self, way: Program, slots: Slots) -> None:
        """Nothing is done where the root has no such directory."""
        owner = b"%d" % self.base
        how = beneath(way, m.O_PATH | posix.O_NOFOLLOW | posix.O_DIRECTORY)
        for path, mode, size, files in self.places:
            options = [(b"source", b"tmpfs"), (b"mode", mode), (b"size", size), (b"nr_inodes", files)]
            options += [(b"uid", owner), (b"gid", owner)]
            label = f"jail_set: openat2 {path.decode()}"
            above = way.here()
            if b"/" in path:  # in one that is a moment old
                way.must(
                    "mkdirat",
                    kept(TREE),
                    way.text(path),
                    0o755,
                    label=f"jail_set: mkdir {path.decode()}",
                    unless=ENOENT,
                )
            found = way.here()
            way.must("openat2", kept(TREE), way.text(path), *how, keep=_POINT, label=label, unless=ENOENT)
            new_file_system(way, b"tmpfs", options, _ATTRIBUTES, _RUN)
            attach(way, _RUN, kept(_POINT))
            way.must("close", kept(_RUN))
            way.must("close", kept(_POINT))
            way.skip(found)
            if found > above:
                way.skip(above)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "mount a tmpfs on " + ", ".join([f"/{path.decode()}" for path, *_ in self.places])


class MountCgroup(Operation):
    """The guest's own cgroup at /sys/fs/cgroup, and nothing else in /sys."""

    __slots__ = ("has_sys",)

    def __init__(self, has_sys: bool) -> None:
        """``has_sys``: a sysfs was asked for, and is there."""
        self.has_sys = has_sys

    def outside(self, way: Program, slots: Slots) -> None:
        """It is a piece of the one tree of cgroup2 that there is, v1 beside it or not."""
        way.fds.append(slots["guest.cgroup"])
        flags = m.OPEN_TREE_CLONE | posix.O_CLOEXEC | m.AT_EMPTY_PATH
        way.must("open_tree", slots["guest.cgroup"], way.text(b""), flags, keep=_CGROUP, label="jail_set: open_tree")
        if not self.has_sys:
            attributes = _ATTRIBUTES | m.MOUNT_ATTR_NOEXEC  # until the directories are made
            options = [(b"source", b"tmpfs"), (b"mode", b"755"), (b"size", b"4k"), (b"nr_inodes", b"8")]
            new_file_system(way, b"tmpfs", options, attributes, _SYS)
            for path in (b"fs", b"fs/cgroup"):
                way.must("mkdirat", kept(_SYS), way.text(path), 0o755, label="jail_set: mkdir")

    def inside(self, way: Program, slots: Slots) -> None:
        """The tmpfs is read-only from the moment that it is seen."""
        attributes = mount_attributes(way, _ATTRIBUTES | m.MOUNT_ATTR_NOEXEC)
        way.must("mount_setattr", kept(_CGROUP), *attributes, label="jail_set: mount_setattr")
        how = beneath(way, m.O_PATH | posix.O_NOFOLLOW | posix.O_DIRECTORY)
        if not self.has_sys:
            way.must("openat2", kept(TREE), way.text(b"sys"), *how, keep=_POINT, label="jail_set: openat2 sys")
            attach(way, _SYS, kept(_POINT))
            way.must("close", kept(_POINT))
        place = way.text(b"sys/fs/cgroup")
        way.must("openat2", kept(TREE), place, *how, keep=_POINT, label="jail_set: openat2 sys/fs/cgroup")
        attach(way, _CGROUP, kept(_POINT))
        way.must("close", kept(_POINT))
        if not self.has_sys:
            way.must("mount_setattr", kept(_SYS), *mount_attributes(way, HIDDEN), label="jail_set: mount_setattr")

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "mount the guest's own cgroup on /sys/fs/cgroup"


class Delegate(Operation):
    """A cgroup that the guest's root parts as he likes, below that of the jail's members, whose limits hold for it.

    He cannot leave it: to move a process takes the right to write to the nearest cgroup above both places.
    """

    __slots__ = ("owner", "path")

    def __init__(self, path: str, owner: int) -> None:
        self.path = path
        self.owner = owner

    def apply(self, slots: Slots) -> None:
        """It goes with the jail's. Raises OSError."""
        above = self.path.rpartition("/")[0]
        cgroup.make(self.path)
        cgroup.write(f"{above}/cgroup.max.descendants", b"%d" % _MOST_CGROUPS)
        cgroup.write(f"{above}/cgroup.max.depth", b"%d" % _DEEPEST)
        for name in _DELEGATED:
            posix.chown(f"{self.path}{name}", self.owner, self.owner, dir_fd=cgroup.unified_root())
        slots["guest.cgroup"] = cgroup.open_directory(self.path)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return f"make cgroup {self.path} and give it to the guest"
