"""Mounting, unmounting and changing mounts.

Where a mount namespace of one's own is to be had, it is done there and gone with the process; elsewhere it is undone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from functools import partial

from .probe import ABSENT, ESCAPED, EXPOSED, HELD, Facts, Verdict, alone, asked, call, probe, tried, why

_MS_RDONLY, _MS_NOSUID, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE, _MS_SHARED = (
    1,
    2,
    32,
    4096,
    16384,
    1 << 18,
    1 << 20,
)
_MNT_DETACH, _MNT_EXPIRE = 2, 4
_AT_FDCWD = -100
_MOUNT_FLAGS = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME

# Kinds of file system, and what _mount(2) is told of each.
_KINDS = {
    "proc": "",
    "sysfs": "",
    "tmpfs": "",
    "ramfs": "",
    "devtmpfs": "",
    "devpts": "",
    "mqueue": "",
    "cgroup": "attempt",
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


def _mount(source: str, target: str, kind: str = "none", flags: int = 0, options: str = "") -> int:
    return call("mount", source.encode(), target.encode(), kind.encode(), flags, options.encode())


def _unmount(target: str) -> int:
    return call("umount2", target.encode(), _MNT_DETACH)


def _mount_kind(kind: str, facts: Facts) -> Verdict:
    """Of those alone that the kernel has at hand: it would load a module for another."""
    if kind not in facts["file systems"].split():
        return _ask_kind(kind)
    os.mkdir("point")
    alone()
    if kind in ("fuse", "cgroup"):  # of a server that there is not, of a controller that there is not
        return asked(lambda: _mount("none", "point", kind, 0, _KINDS[kind]), ESCAPED)
    verdict = tried(lambda: _mount("none", "point", kind, 0, _KINDS[kind]))
    if verdict[0] == ESCAPED:
        _unmount("point")
    return verdict


def _ask_kind(kind: str) -> Verdict:
    """Flags that contradict each other are looked at after the permission and before the name."""
    verdict = asked(lambda: _mount("none", ".", kind, _MS_SHARED | _MS_PRIVATE), ESCAPED)
    return verdict if verdict[0] != HELD else (HELD, f"{verdict[1]}; no such file system is loaded")


for _name in _KINDS:
    probe(f"mounts: mount {_name}")(partial(_mount_kind, _name))


@probe("mounts: mount the host's disk")
def _mount_disk(facts: Facts) -> Verdict:
    os.mkdir("point")
    try:
        os.mknod("disk", 0o060600, int(facts["disk"]))
    except OSError as error:
        return HELD, f"mknod: {why(error)}"
    # A file system that is in use is not mounted a second time as one that there is not.
    return asked(lambda: _mount("disk", "point", "attempt", _MS_RDONLY), ESCAPED)


def _bound(source: str, flags: int, facts: Facts) -> Verdict:
    os.mkdir("point")
    alone()
    verdict = tried(lambda: _mount(source, "point", "none", flags))
    if verdict[0] == ESCAPED:
        _unmount("point")
    return verdict


def _remounted(target: str, flags: int, facts: Facts) -> Verdict:
    """Where nobody else sees it; elsewhere it is as it was before, at once."""
    if not os.path.exists(target):
        return ABSENT, "there is none"
    alone()
    before = os.statvfs(target).f_flag & _MOUNT_FLAGS
    verdict = tried(lambda: _mount("none", target, "none", _MS_REMOUNT | _MS_BIND | flags))
    if verdict[0] == ESCAPED:
        _mount("none", target, "none", _MS_REMOUNT | _MS_BIND | before)
    return verdict


def _propagating(target: str, flags: int, facts: Facts) -> Verdict:
    if alone():
        return tried(lambda: _mount("none", target, "none", _MS_SHARED | flags))
    return asked(lambda: _mount("none", target, "none", _MS_SHARED | _MS_PRIVATE | flags), ESCAPED)


for _name, _source, _flags in (
    ("bind mount", "/", _MS_BIND),
    ("recursive bind mount", "/", _MS_BIND | _MS_REC),
    ("bind mount of /proc/sys", "/proc/sys", _MS_BIND),
):
    probe(f"mounts: {_name}")(partial(_bound, _source, _flags))
for _name, _target, _flags in (
    ("remount / with devices", "/", 0),
    ("remount /proc with executables", "/proc", 0),
    ("remount /proc/sys writable", "/proc/sys", 0),
    ("remount /proc/kcore writable", "/proc/kcore", 0),
    ("remount /dev/shm with devices", "/dev/shm", _MS_NOSUID),
):
    probe(f"mounts: {_name}")(partial(_remounted, _target, _flags))
for _name, _target, _flags in (("to the host", "/", _MS_REC), ("of /proc", "/proc", 0)):
    probe(f"mounts: mount propagation {_name}")(partial(_propagating, _target, _flags))


def _under_a_mask(copied: int, prepare: Callable[[], object], facts: Facts) -> Verdict:
    """Copy /proc to ``point``, do something there, and look whether what is masked in /proc is then to be seen."""
    os.mkdir("point")
    alone()
    try:
        _mount("/proc", "point", "none", copied)
    except OSError as error:
        return HELD, why(error)
    directory = os.open("point", os.O_PATH)
    proc, said = os.stat("/proc/self/stat").st_dev, "as masked as /proc is"
    try:
        prepare()
    except OSError as error:
        said = why(error)
    seen = [name for name in ("keys", "cmdline", "interrupts") if _device(name, directory) == proc]
    try:
        _unmount("point")
    except OSError:
        pass
    return (ESCAPED, " ".join(seen)) if seen else (HELD, said)


def _device(name: str, directory: int) -> int:
    try:
        return os.stat(name, dir_fd=directory).st_dev
    except OSError:
        return -1


_ALL_BELOW = _MS_BIND | _MS_REC
for _name, _flags, _prepare in (
    ("in a copy of /proc", _ALL_BELOW, lambda: None),
    ("in a copy of /proc alone", _MS_BIND, lambda: None),
    ("in a copy without the mask", _ALL_BELOW, lambda: [_unmount(f"point/{name}") for name in ("keys", "cmdline")]),
    ("in a copy that is moved away from", _ALL_BELOW, lambda: _mount("point/keys", "point/cmdline", "none", 0x2000)),
    ("in a copy that is nowhere any more", _ALL_BELOW, lambda: _unmount("point")),
    ("in a copy of a copy", _ALL_BELOW, lambda: _mount("point", "point", "none", _MS_BIND)),
):
    probe(f"mounts: what is masked, {_name}")(partial(_under_a_mask, _flags, _prepare))


@probe("mounts: /proc/sys writable in a copy")
def _writable_copy(facts: Facts) -> Verdict:
    os.mkdir("point")
    alone()
    try:
        _mount("/proc", "point", "none", _MS_BIND | _MS_REC)
    except OSError as error:
        return HELD, why(error)
    try:
        _mount("none", "point/sys", "none", _MS_REMOUNT | _MS_BIND)
    except OSError:
        pass
    verdict = tried(lambda: os.close(os.open("point/sys/kernel/shmmni", os.O_WRONLY)))
    _unmount("point")
    return verdict


def _unmounted(target: str, facts: Facts) -> Verdict:
    """With MNT_EXPIRE, which only marks a mount the first time, where it is allowed at all, and says EAGAIN."""
    try:
        call("umount2", target.encode(), _MNT_EXPIRE)
    except OSError as error:
        return (ESCAPED if error.errno in (errno.EAGAIN, errno.EBUSY) else HELD), why(error)
    return ESCAPED, "it works"


for _name in ("/proc/kcore", "/proc/keys", "/proc/sys", "/proc/acpi", "/dev/pts", "/proc", "/dev"):
    probe(f"mounts: unmount {_name}")(partial(_unmounted, _name))


@probe("mounts: fsopen, fsmount, move_mount")
def _new_mount(facts: Facts) -> Verdict:
    os.mkdir("point")
    alone()

    def make() -> int:
        context = call("fsopen", b"tmpfs", 0)
        call("fsconfig", context, 6, None, None, 0)
        tree = call("fsmount", context, 0, 0)
        return call("move_mount", tree, b"", _AT_FDCWD, b"point", 4)

    verdict = tried(make)
    if verdict[0] == ESCAPED:
        _unmount("point")
    return verdict


@probe("mounts: open_tree of /")
def _open_tree(facts: Facts) -> Verdict:
    return tried(lambda: call("open_tree", _AT_FDCWD, b"/", 1))


@probe("mounts: open_tree_attr of /")
def _open_tree_attr(facts: Facts) -> Verdict:
    return tried(lambda: call("open_tree_attr", _AT_FDCWD, b"/", 1, struct.pack("=QQQQ", 0, 4, 0, 0), 32))


@probe("mounts: mount_setattr makes /proc/sys writable")
def _setattr(facts: Facts) -> Verdict:
    alone()
    read_only = os.statvfs("/proc/sys").f_flag & os.ST_RDONLY
    made, back = struct.pack("=QQQQ", 0, 1, 0, 0), struct.pack("=QQQQ", 1, 0, 0, 0)
    verdict = tried(lambda: call("mount_setattr", _AT_FDCWD, b"/proc/sys", 0, made, len(made)))
    if verdict[0] == ESCAPED and read_only:
        call("mount_setattr", _AT_FDCWD, b"/proc/sys", 0, back, len(back))
    return verdict


@probe("mounts: fspick of /proc")
def _fspick(facts: Facts) -> Verdict:
    return tried(lambda: call("fspick", _AT_FDCWD, b"/proc", 0))


@probe("mounts: listmount")
def _listmount(facts: Facts) -> Verdict:
    request = struct.pack("=IIQQQ", 32, 0, 0xFFFFFFFFFFFFFFFF, 0, 0)
    return tried(lambda: call("listmount", request, ctypes.create_string_buffer(8 * 64), 64, 0), EXPOSED)


@probe("mounts: pivot_root")
def _pivot(facts: Facts) -> Verdict:
    """To what is no mount."""
    os.mkdir("point")
    return asked(lambda: call("pivot_root", b".", b"point"), ESCAPED)


@probe("mounts: take a mount point away")
def _take_away(facts: Facts) -> Verdict:
    """Asked by rmdir(2), which says of a directory with something in it whether that was all that it minded."""
    said = "there is none"
    for path in ("/dev", "/proc", "/dev/pts", "/dev/shm"):
        if not os.path.isdir(path) or not os.listdir(path):
            continue
        try:
            os.rmdir(path)
        except OSError as error:
            said = why(error)
            if error.errno == errno.ENOTEMPTY:
                return ESCAPED, f"{path}: {said}"
    return HELD, said
