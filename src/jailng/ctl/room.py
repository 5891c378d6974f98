"""Whether what jails take of the disk can be limited (``ng.quota``): where their roots lie, and by images."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator

from jailng.core import project, quota, registry
from jailng.ctl.diagnosis import Finding, Jails
from jailng.linux import caps, mountfd
from jailng.linux import quota as kernel

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_PROGRAMS = ("mkfs.ext4", "e2fsck")
_ROOT = "/"


def check(jails: Jails) -> Iterator[Finding]:
    """The file systems of the roots of running jails, that of / where there are none; loop devices and e2fsprogs."""
    yield from _images()
    seen: set[int] = set()
    records = registry.jails()
    paths = [record.params.get("path", _ROOT) for record in records if not project.of(record)]
    numbers = {project.of(record) for record in records}
    for path in [path for path in paths if path != _ROOT] or [_ROOT]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue  # what its root is named has been changed since
        try:
            device = os.fstat(fd).st_dev
            if device not in seen:
                seen.add(device)
                yield from _file_system(fd, path, numbers)
        finally:
            os.close(fd)


def _file_system(fd: int, path: str, numbers: set[int]) -> Iterator[Finding]:
    if not kernel.is_enforced(fd):
        kind, how = quota.file_system(fd)
        yield Finding(f"{path}: {kind} {how}; ng.quota=image:SIZE does without", wrong=False)
        return
    number = project.FIRST
    while project.is_ours(number := kernel.following(fd, number)):
        if number not in numbers and any(kernel.get(fd, number)[:2]):
            found = mountfd.stat_mount(mountfd.mount_id(fd))
            place = os.fsdecode(found[0]) if found is not None else path
            what = f"{path}: project {number} has the limits of a jail that is gone, by a power cut perhaps"
            yield Finding(what, (f"setquota -P {number} 0 0 0 0 {shlex.quote(place)}",), wrong=False)
        number += 1


def _images() -> Iterator[Finding]:
    try:
        os.close(os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        why = f"/dev/loop-control: {error.strerror}: no ng.quota=image:SIZE without loop devices"
        yield Finding(why, ("modprobe loop",), wrong=False)
    missing = [program for program in _PROGRAMS if shutil.which(program, path=_PATH) is None]
    if missing:
        why = f"{' and '.join(missing)}: not installed: no ng.quota=image:SIZE without"
        yield Finding(why, ("apt-get install e2fsprogs",), wrong=False)
    if caps.lacking("SYS_RESOURCE"):
        yield Finding("root has no CAP_SYS_RESOURCE here: images of ng.quota do not grow", wrong=False)
