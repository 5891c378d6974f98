"""Mounting, unmounting and changing mounts: hostile-root.md, numbers 8 to 12."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from functools import partial

from .attempt import ESCAPED, EXPOSED, HELD, Facts, Verdict, attempt, call, tried, why

_MOUNT, _UMOUNT2, _PIVOT_ROOT = 165, 166, 155
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _FSPICK = 428, 429, 430, 431, 432, 433
_MOUNT_SETATTR, _STATMOUNT, _LISTMOUNT, _OPEN_TREE_ATTR = 442, 457, 458, 467
_MS_RDONLY, _MS_NOSUID, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SHARED = 1, 2, 32, 4096, 16384, 1 << 20
_MNT_DETACH = 2
_AT_FDCWD = -100

# Kinds of file system, and what mount(2) is told of each.
_KINDS = {
    "proc": "",
    "sysfs": "",
    "tmpfs": "",
    "ramfs": "",
    "devtmpfs": "",
    "devpts": "",
    "mqueue": "",
    "cgroup": "none,name=attempt",
    "cgroup2": "",
    "debugfs": "",
    "tracefs": "",
    "securityfs": "",
    "bpf": "",
    "binfmt_misc": "",
    "configfs": "",
    "fusectl": "",
    "overlay": "lowerdir=/etc:/usr",
    "fuse": "fd=0,rootmode=40000,user_id=0,group_id=0",
    "hugetlbfs": "",
    "pstore": "",
}


def mount(source: str, target: str, kind: str = "none", flags: int = 0, options: str = "") -> int:
    return call(_MOUNT, source.encode(), target.encode(), kind.encode(), flags, options.encode())


def unmount(target: str) -> int:
    return call(_UMOUNT2, target.encode(), _MNT_DETACH)


def _mount_kind(kind: str, facts: Facts) -> Verdict:
    os.mkdir("point")
    verdict = tried(lambda: mount("none", "point", kind, 0, _KINDS[kind]))
    if verdict[0] == ESCAPED:
        unmount("point")
    return verdict


for _name in _KINDS:
    attempt(f"mounts: mount {_name}")(partial(_mount_kind, _name))


@attempt("mounts: mount the host's disk")
def _mount_disk(facts: Facts) -> Verdict:
    os.mkdir("point")
    try:
        os.mknod("disk", 0o060600, int(facts["disk"]))
    except OSError as error:
        return HELD, f"mknod: {why(error)}"
    verdict = tried(lambda: mount("disk", "point", "ext4", _MS_RDONLY))
    if verdict[0] == ESCAPED:
        unmount("point")
    return verdict


def _mounted(source: str, target: str, flags: int, facts: Facts) -> Verdict:
    os.mkdir("point")
    verdict = tried(lambda: mount(source, target, "none", flags))
    if verdict[0] == ESCAPED and target == "point":
        unmount("point")
    return verdict


for _name, _source, _target, _flags in (
    ("bind mount", "/", "point", _MS_BIND),
    ("recursive bind mount", "/", "point", _MS_BIND | _MS_REC),
    ("bind mount of /proc/sys", "/proc/sys", "point", _MS_BIND),
    ("remount / with devices", "none", "/", _MS_REMOUNT | _MS_BIND),
    ("remount /proc with executables", "none", "/proc", _MS_REMOUNT | _MS_BIND),
    ("remount /proc/sys writable", "none", "/proc/sys", _MS_REMOUNT | _MS_BIND),
    ("remount /proc/kcore writable", "none", "/proc/kcore", _MS_REMOUNT | _MS_BIND),
    ("remount /dev/shm with devices", "none", "/dev/shm", _MS_REMOUNT | _MS_BIND | _MS_NOSUID),
    ("mount propagation to the host", "none", "/", _MS_SHARED | _MS_REC),
    ("mount propagation of /proc", "none", "/proc", _MS_SHARED),
):
    attempt(f"mounts: {_name}")(partial(_mounted, _source, _target, _flags))


def _under_a_mask(copied: int, prepare: Callable[[], object], facts: Facts) -> Verdict:
    """Copy /proc to ``point``, do something there, and look whether what is masked in /proc is then to be seen."""
    os.mkdir("point")
    try:
        mount("/proc", "point", "none", copied)
    except OSError as error:
        return HELD, why(error)
    directory = os.open("point", os.O_PATH)
    proc, said = os.stat("/proc/self/stat").st_dev, "as masked as /proc is"
    try:
        prepare()
    except OSError as error:
        said = why(error)
    seen = [name for name in ("keys", "cmdline", "interrupts") if os.stat(name, dir_fd=directory).st_dev == proc]
    try:
        unmount("point")
    except OSError:
        pass
    return (ESCAPED, " ".join(seen)) if seen else (HELD, said)


_ALL_BELOW = _MS_BIND | _MS_REC
for _name, _flags, _prepare in (
    ("in a copy of /proc", _ALL_BELOW, lambda: None),
    ("in a copy of /proc alone", _MS_BIND, lambda: None),
    ("in a copy without the mask", _ALL_BELOW, lambda: [unmount(f"point/{name}") for name in ("keys", "cmdline")]),
    ("in a copy that is moved away from", _ALL_BELOW, lambda: mount("point/keys", "point/cmdline", "none", 0x2000)),
    ("in a copy that is nowhere any more", _ALL_BELOW, lambda: unmount("point")),
    ("in a copy of a copy", _ALL_BELOW, lambda: mount("point", "point", "none", _MS_BIND)),
):
    attempt(f"mounts: what is masked, {_name}")(partial(_under_a_mask, _flags, _prepare))


@attempt("mounts: /proc/sys writable in a copy")
def _writable_copy(facts: Facts) -> Verdict:
    os.mkdir("point")
    try:
        mount("/proc", "point", "none", _MS_BIND | _MS_REC)
    except OSError as error:
        return HELD, why(error)
    try:
        mount("none", "point/sys", "none", _MS_REMOUNT | _MS_BIND)
    except OSError:
        pass
    verdict = tried(lambda: os.close(os.open("point/sys/kernel/shmmni", os.O_WRONLY)))
    unmount("point")
    return verdict


def _unmounted(target: str, facts: Facts) -> Verdict:
    return tried(lambda: unmount(target))


for _name in ("/proc/kcore", "/proc/keys", "/proc/sys", "/proc/acpi", "/dev/pts", "/proc", "/dev", "/"):
    attempt(f"mounts: unmount {_name}")(partial(_unmounted, _name))


@attempt("mounts: fsopen, fsmount, move_mount")
def _new_mount(facts: Facts) -> Verdict:
    os.mkdir("point")

    def make() -> int:
        context = call(_FSOPEN, b"tmpfs", 0)
        call(_FSCONFIG, context, 6, None, None, 0)
        tree = call(_FSMOUNT, context, 0, 0)
        return call(_MOVE_MOUNT, tree, b"", _AT_FDCWD, b"point", 4)

    return tried(make)


@attempt("mounts: open_tree of /")
def _open_tree(facts: Facts) -> Verdict:
    return tried(lambda: call(_OPEN_TREE, _AT_FDCWD, b"/", 1))


@attempt("mounts: open_tree_attr of /")
def _open_tree_attr(facts: Facts) -> Verdict:
    return tried(lambda: call(_OPEN_TREE_ATTR, _AT_FDCWD, b"/", 1, struct.pack("=QQQQ", 0, 4, 0, 0), 32))


@attempt("mounts: mount_setattr makes /proc/sys writable")
def _setattr(facts: Facts) -> Verdict:
    attributes = struct.pack("=QQQQ", 0, 1, 0, 0)
    return tried(lambda: call(_MOUNT_SETATTR, _AT_FDCWD, b"/proc/sys", 0, attributes, len(attributes)))


@attempt("mounts: fspick of /proc")
def _fspick(facts: Facts) -> Verdict:
    return tried(lambda: call(_FSPICK, _AT_FDCWD, b"/proc", 0))


@attempt("mounts: listmount")
def _listmount(facts: Facts) -> Verdict:
    request = struct.pack("=IIQQQ", 32, 0, 0xFFFFFFFFFFFFFFFF, 0, 0)
    return tried(lambda: call(_LISTMOUNT, request, ctypes.create_string_buffer(8 * 64), 64, 0), EXPOSED)


@attempt("mounts: pivot_root")
def _pivot(facts: Facts) -> Verdict:
    os.mkdir("point")
    try:
        mount("none", "point", "tmpfs")
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS):
            raise
    else:
        unmount("point")
        if "unconfined" in facts:  # a chroot is nothing to pivot from
            return ESCAPED, "mount works, so would this"
    return tried(lambda: call(_PIVOT_ROOT, b".", b"point"))


@attempt("mounts: take a mount point away")
def _take_away(facts: Facts) -> Verdict:
    refused = []
    for path in ("/dev", "/proc", "/dev/pts", "/dev/shm"):
        verdict = tried(partial(os.rename, path, path + ".attempt"))
        if verdict[0] != HELD:
            os.rename(path + ".attempt", path)
            return verdict
        refused.append(verdict[1])
    return HELD, refused[0]
