"""Throttling of the disks under a jail's root and mounts: io.max of cgroup v2, blkio.throttle.* of v1.

A limit is of a whole disk, not of a partition (blk-throttle), and each disk has it. With v1 what is written by way of
the page cache is not slowed down: the kernel writes it out on its own account.
"""

from __future__ import annotations

import posix

from jailng.core import attach
from jailng.errors import JailError
from jailng.linux import cgroup, content, controller, mount, ns
from jailng.linux.libc import ENODEV
from jailng.linux.visit import InNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

# What io.max calls it, and the file of v1.
RESOURCES = {
    "readbps": ("rbps", "read_bps_device"),
    "writebps": ("wbps", "write_bps_device"),
    "readiops": ("riops", "read_iops_device"),
    "writeiops": ("wiops", "write_iops_device"),
}
_DEVICES = "/sys/dev/block"
_DIRECTORY = mount.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
_DEPTH = 8  # of file systems in file systems
_MOST_OPERATIONS = 2**32 - 1  # v1 takes no more than the lower bits of what is above
_LAYERS = ("lowerdir", "upperdir", "lowerdir+", "datadir+")  # options of overlayfs that have paths


def apply(record: Record, place: str, wanted: dict[str, int]) -> None:
    """Set the limits of a jail, whose directory with the controller is ``place``, and no others.

    Raises JailError where there is no disk to limit, or OSError.
    """
    devices = disks(record) if wanted else []
    first = next(iter(wanted), "")
    if wanted and not devices:
        raise JailError(f"{first}: no disk is under the jail's root: {record.params.get('path', '')}")
    if controller.hierarchy("io"):
        for name, (_, file) in RESOURCES.items():
            path = f"{place}/blkio.throttle.{file}"
            for device in dict.fromkeys([*_named_in(path), *devices]):
                amount = wanted.get(name, 0) if device in devices else 0
                if name.endswith("iops"):
                    amount = min(amount, _MOST_OPERATIONS)
                _write(name, path, f"{device} {amount}")
        return
    for device in dict.fromkeys([*_named_in(f"{place}/io.max"), *devices]):
        parts = [
            f"{word}={wanted[name] if name in wanted and device in devices else 'max'}"
            for name, (word, _) in RESOURCES.items()
        ]
        _write(first or "io", f"{place}/io.max", " ".join([device, *parts]))


def _named_in(path: str) -> list[str]:
    return [line.split()[0] for line in cgroup.read(path).decode().split("\n") if line]


def _write(name: str, path: str, text: str) -> None:
    try:
        cgroup.write(path, text.encode())
    except OSError as error:
        why = "the disk has gone" if error.errno == ENODEV else error.strerror
        raise JailError(f"{name}: {text.split()[0]}: {why}") from None


def disks(record: Record) -> list[str]:
    """The whole disks, as MAJOR:MINOR, that the file systems lie on which the jail sees. Raises OSError."""
    found: dict[str, None] = {}
    text = _mounts_of(record)
    here = content.text("/proc/self/mountinfo")
    for line in text.split("\n"):
        if line:
            for device in _under(line, here, _DEPTH):
                found[device] = None
    return list(found)


def _mounts_of(record: Record) -> str:
    """The mountinfo of the jail, and not of its PID 1: a guest's own may have called chroot(2)."""
    init, root = attach.open_init(record), attach.open_tree_of(record)
    own, top, here = [posix.open(path, _DIRECTORY) for path in ("/proc/self", "/", ".")]
    try:
        try:
            with InNamespace(init, ns.CLONE_NEWNS):
                _be_below(root)  # and below what root inside may have mounted on it
                return content.text("mountinfo", own)
        finally:
            _be_below(top)
            posix.fchdir(here)
    finally:
        for fd in (init, root, own, top, here):
            posix.close(fd)


def _be_below(root: int) -> None:
    posix.fchdir(root)
    posix.chroot(".")


def _under(line: str, here: str, depth: int) -> list[str]:
    """The disks under the file system of a line of mountinfo; ``here`` is the host's, for what it names by path."""
    device = line.split(" ")[2]
    if not device.startswith("0:"):
        return _whole(device)
    kind, source, *options = line.partition(" - ")[2].split(" ")
    if kind == "overlay" and depth:
        paths = [part.partition("=")[2] for part in options[-1].split(",") if part.split("=")[0] in _LAYERS]
        return [disk for path in ":".join(paths).split(":") for disk in _of_path(path, here, depth)]
    if source.startswith("/dev/"):  # file systems of several devices have numbers of their own (btrfs)
        try:
            number = posix.stat(source).st_rdev
        except OSError:
            return []
        return _whole(f"{posix.major(number)}:{posix.minor(number)}")
    return []


def _of_path(path: str, here: str, depth: int) -> list[str]:
    try:
        number = posix.stat(path).st_dev
    except OSError:
        return []
    device = f"{posix.major(number)}:{posix.minor(number)}"
    for line in here.split("\n"):
        if line and line.split(" ")[2] == device:
            return _under(line, here, depth - 1)
    return _whole(device) if posix.major(number) else []


def _whole(device: str) -> list[str]:
    """The disk that a partition is of; none if it is no block device."""
    try:
        posix.stat(f"{_DEVICES}/{device}/partition")
        return [content.text(f"{_DEVICES}/{device}/../dev").strip()]
    except OSError:
        return [device] if posix.access(f"{_DEVICES}/{device}", posix.F_OK) else []
