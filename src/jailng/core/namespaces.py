"""The mount and time namespaces of a jail: what PID 1 does to have them, and what it does in the first."""

from __future__ import annotations

import posix
import time

from jailng.core.procfs import MASKS
from jailng.core.program import kept
from jailng.linux import mount, ns
from jailng.linux.libc import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.program import Program

_OPEN = posix.O_RDONLY | posix.O_CLOEXEC
_WRITE = posix.O_WRONLY | posix.O_CLOEXEC


def new_mount_and_time(way: Program) -> None:
    """Make both, of the host's mounts and with clocks that begin now, and be in the first."""
    way.must("unshare", ns.CLONE_NEWNS | ns.CLONE_NEWTIME, label="jail_set: unshare")
    # Joining one's own mount namespace leads out of a chroot, in which no user namespace can be made (EPERM) and which
    # is no mount point to pivot away from.
    here, offsets = way.text("/proc/self/ns/mnt"), way.text("/proc/self/timens_offsets")
    way.must("openat", mount.AT_FDCWD, here, _OPEN, 0, keep=1, label="jail_set: open /proc/self/ns/mnt")
    way.must("openat", mount.AT_FDCWD, offsets, _WRITE, 0, keep=2, label="jail_set: open /proc/self/timens_offsets")
    way.must("setns", kept(1), ns.CLONE_NEWNS, label="jail_set: setns")
    # Nothing that is mounted from now on reaches the namespace that this one was copied from.
    private = words(0, 0, mount.MS_PRIVATE, 0)
    attributes = (mount.AT_RECURSIVE, way.data(private), len(private))
    way.must("mount_setattr", mount.AT_FDCWD, way.text("/"), *attributes, label="jail_set: mount_setattr /")
    boottime = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    monotonic = int(time.clock_gettime(time.CLOCK_MONOTONIC))
    clocks = b"monotonic -%d 0\nboottime -%d 0\n" % (monotonic, boottime)
    way.must("write", kept(2), way.text(clocks), len(clocks), label="jail_set: timens_offsets")


def take_own_mounts(way: Program, built: int) -> None:
    """Leave for a copy of the mount namespace that belongs to the jail, once the builder has said that all is there.

    In a copy for another user namespace every mount is locked (lock_mnt_tree() in fs/namespace.c): none of them can be
    unmounted or moved, nor looked under, and what is read-only, nosuid, nodev or noexec stays so. Nobody holds the
    namespace that is left, so it is gone. Whoever enters takes PID 1's.
    """
    way.fds.append(built)
    way.expect(1, "read", built, way.data(bytes(8)), 1)  # nothing, if whoever is to tell has died
    way.must("unshare", ns.CLONE_NEWNS, label="jail_set: unshare")


def renew(way: Program, sysctls: int) -> None:
    """Have ``sysctls`` be /proc/sys/user of a procfs that nobody has looked anything up in, if one can be mounted.

    The kernel keeps an entry of the same name there for the user namespace of each jail, and goes through all of them
    to find the one: 1.4 ms with a thousand jails (proc_sys_compare() in fs/proc/proc_sysctl.c). A procfs takes 0.03 ms.
    """
    way.may("fsopen", way.text("proc"), 1, keep=1)
    way.may("fsconfig", kept(1), mount.FSCONFIG_CMD_CREATE, 0, 0, 0)
    way.may("fsmount", kept(1), 1, 0, keep=2)
    attach(way, 2, "/proc")
    way.may("openat", kept(2), way.text("sys/user"), mount.O_PATH | posix.O_DIRECTORY, 0, keep=4)
    way.may("dup3", kept(4), sysctls, posix.O_CLOEXEC)
    for number in (4, 2, 1):
        way.may("close", kept(number))


def attach(way: Program, number: int, where: str) -> None:
    """Attach a detached mount somewhere in the host's tree, of which this namespace has a copy that it soon loses.

    Whoever closes the last descriptor of one that is attached nowhere waits for RCU (dissolve_on_fput() in
    fs/namespace.c), 0.1 to 0.6 ms, and PID 1 with it.
    """
    place = (mount.AT_FDCWD, way.text(where), mount.MOVE_MOUNT_F_EMPTY_PATH)
    way.may("move_mount", kept(number), way.text(b""), *place)


def leave_the_mounts(way: Program) -> None:
    """Have a file system without files be all that is in this mount namespace, until the builder brings the tree."""
    label = "jail_set: mount"
    way.must("fsopen", way.text("ramfs"), 1, keep=1, label=label)
    way.must("fsconfig", kept(1), mount.FSCONFIG_CMD_CREATE, 0, 0, 0, label=label)
    way.must("fsmount", kept(1), 1, 0, keep=2, label=label)
    way.must("mkdirat", kept(2), way.text(MASKS[1:]), 0o755, label=label)  # the builder mounts there
    place = (mount.AT_FDCWD, way.text("/"), mount.MOVE_MOUNT_F_EMPTY_PATH)
    way.must("move_mount", kept(2), way.text(b""), *place, label=label)
    way.must("fchdir", kept(2), label=label)
    here = way.text(b".")
    way.must("pivot_root", here, here, label="jail_set: pivot_root /")
    way.must("umount2", here, mount.MNT_DETACH, label="jail_set: umount2 /")
    for number in (1, 2):
        way.must("close", kept(number))
