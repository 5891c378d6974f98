"""jail, jls and jexec for a jail that may have jails in it and whose root has no such commands: a read-only mount.

It has the host's own Python with what that needs, so the root may be of any make, and speaks the broker's language as
the host does. The commands are links to it in the root, which stay there (docs/decisions/0011-commands-inside.md).
"""

from __future__ import annotations

import posix

from jailng.core import own, rootfs
from jailng.core.operation import Operation
from jailng.core.program import kept
from jailng.linux import mount as m
from jailng.linux import mountfd
from jailng.linux.libc import ENOENT, SHORTAGES, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.operation import Slots
    from jailng.core.program import Program

NAME = "commands"
PLACE = f"{own.DIRECTORY}/{NAME}"
COMMANDS = ("jail", "jls", "jexec")
_DIRECTORIES = (b"usr/sbin", b"usr/bin", b"sbin", b"bin")
_FLAGS = m.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
_ATTRIBUTES = m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV


def is_wanted(path: str) -> bool:
    """Whether a root has no jail(8) of its own. Nothing is followed that lies in there.

    Raises OSError where there is no telling.
    """
    try:
        root = posix.open(path, _FLAGS)
    except OSError as error:
        _pass_over(error)
        return False
    try:
        return not any(_has_own(root, directory) for directory in _DIRECTORIES)
    finally:
        posix.close(root)


def _has_own(root: int, directory: bytes) -> bool:
    try:
        fd = mountfd.openat2(root, directory, _FLAGS, m.BENEATH)
    except OSError as error:
        _pass_over(error)
        return False
    try:
        if posix.readlink("jail", dir_fd=fd).startswith(PLACE + "/"):
            return False
    except FileNotFoundError:
        return False
    except OSError as error:
        _pass_over(error)  # it is no link
    finally:
        posix.close(fd)
    return True


def _pass_over(error: OSError) -> None:
    """What is wrong with the tree is its root's affair; what this process is short of is not."""
    if error.errno in SHORTAGES:
        raise error


class MountKit(Operation):
    """Mount the commands, with all that they need, below the jail's /dev."""

    __slots__ = ("kit",)

    def __init__(self, kit: str) -> None:
        """``kit`` is the directory on the host."""
        self.kit = kit

    def outside(self, way: Program, slots: Slots) -> None:
        """It is cloned before the builder leaves the host's tree."""
        label = f"jail_set: open_tree {self.kit}"
        flags = m.OPEN_TREE_CLONE | posix.O_CLOEXEC
        way.must("open_tree", m.AT_FDCWD, way.text(self.kit), flags, keep=rootfs.KIT, label=label)
        attr = words(_ATTRIBUTES, 0, m.MS_PRIVATE, 0)
        way.must("mount_setattr", kept(rootfs.KIT), way.text(b""), m.AT_EMPTY_PATH, way.data(attr), len(attr))
        way.must("mkdirat", kept(rootfs.DEV), way.text(f"{own.DIRECTORY[5:]}/{NAME}"), 0o755)

    def inside(self, way: Program, slots: Slots) -> None:
        """Nothing is done where the root has no /dev."""
        found = way.here()
        how = rootfs.beneath(way, m.O_PATH | posix.O_NOFOLLOW)
        where = way.text(PLACE[1:])
        way.must("openat2", kept(rootfs.TREE), where, *how, keep=rootfs.POINT, label=f"openat2 {PLACE}", unless=ENOENT)
        rootfs.attach(way, rootfs.KIT, kept(rootfs.POINT))
        way.must("close", kept(rootfs.POINT))
        way.skip(found)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return f"mount {self.kit} on {PLACE}"


class LinkCommands(Operation):
    """Have links to the commands in a directory of the root where commands are."""

    __slots__ = ()

    def apply(self, slots: Slots) -> None:
        """A root in which nothing can be made goes without: the commands can be named by their path. Raises OSError."""
        for directory in _DIRECTORIES:
            try:
                fd = mountfd.openat2(slots["root"], directory, _FLAGS, m.BENEATH)
            except OSError as error:
                _pass_over(error)
                continue
            for command in COMMANDS:
                try:
                    posix.symlink(f"{PLACE}/{command}", command, dir_fd=fd)
                except OSError:
                    pass
            posix.close(fd)
            return

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return f"link {', '.join(COMMANDS)} to {PLACE}"
