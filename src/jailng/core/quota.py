"""``ng.quota``, and the resource ``disk`` of ``ng.limits``: how much of the disk a jail's root may take.

By a project quota of the file system that the root lies on (``core.project``), or in a file system of its own
(``core.image``). Either way statfs(2) inside tells of the jail's part, and not of the host's disk.
"""

from __future__ import annotations

import posix

from jailng.core import rootfs
from jailng.core.index import UIDS_PER_JAIL
from jailng.errors import JailError, explain
from jailng.linux import mountfd
from jailng.linux import quota as kernel
from jailng.params.limit import read
from jailng.params.quota import Quota, parse
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.registry import Record
    from jailng.params.model import Parameters

_DISK = "disk:deny="


def wanted(params: Parameters, rules: str = "") -> Quota | None:
    """What ng.quota asks for, with the least that a limit of ``disk`` leaves of it; ``rules`` are those of rctl(8)."""
    given = [*read(params.strings("ng.limits")), *read([rules])]
    limits = [limit.amount for limit in given if limit.text.startswith(_DISK)]
    text = params.text("ng.quota")
    quota = parse(text) if text else Quota(min(limits)) if limits else None
    return _less(quota, min(limits)) if quota is not None and limits else quota


def _less(quota: Quota, disk: int) -> Quota:
    """Raises JailError for an image, which is as large as it is."""
    if quota.image and disk < quota.bytes:
        raise JailError(f"ng.quota: {_DISK}{disk}: the image is larger, and does not shrink")
    return Quota(min(quota.bytes, disk), quota.inodes, quota.image)


def begin(record: Record, params: Parameters) -> str:
    """Give a jail that is being made what it asks for, before its tree is mounted; a warning, or "".

    Needs the jail's lock; what it does is undone by what the record tells of. Raises JailError.
    """
    quota = wanted(params, record.rules)
    if quota is None:
        return ""
    if record.parent or record.remote:
        raise inner()
    path = params.text("path")
    root = rootfs.open_root(path)
    try:
        real = posix.readlink(f"/proc/self/fd/{root}")
        if real == "/":
            raise JailError("ng.quota: not with path=/, which is the host's own tree")
        if quota.image:
            from jailng.core import blueprint, image

            return image.begin(record, root, real, quota, UIDS_PER_JAIL * (1 + blueprint.kept(params)))
        from jailng.core import project

        try:
            check(root, real)
        except JailError as error:
            if not params.flag("ng.lenient"):
                raise
            return str(error)
        project.begin(record, root, real, quota.bytes, quota.inodes)
        return ""
    except OSError as error:
        raise JailError(f"ng.quota: {explain(error)}") from None
    finally:
        posix.close(root)


def inner() -> JailError:
    """Why a jail in a jail has none: what it takes counts for the outer one, out of whose project it would be taken."""
    return JailError("ng.quota: not for a jail in a jail: what that takes counts for the outer one")


def check(root: int, path: str) -> None:
    """Refuse a directory whose file system has no project quota. Raises JailError that says what there is to do."""
    top = posix.open(".", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=root)
    try:
        if kernel.is_enforced(top):
            return
    finally:
        posix.close(top)
    kind, how = file_system(root)
    raise JailError(f'ng.quota: {visible(path)}: {kind} {how}, or set ng.quota="image:SIZE"')


# By type of file system: how it comes to have quotas of projects.
_WAYS = {
    "ext4": "without quotas of projects: tune2fs -O quota,project DEVICE while unmounted, then mount it with prjquota",
    "xfs": "without quotas of projects: mount it with prjquota (for the root: rootflags=prjquota at boot)",
    "f2fs": "without quotas of projects: mount it with prjquota",
    "btrfs": "has no quotas that statfs(2) tells of: use another file system",
    "tmpfs": "has no quotas of projects: mount one for the jail alone, with size= and nr_inodes=",
}


def file_system(root: int) -> tuple[str, str]:
    """The type of the file system at the descriptor of a directory, and how it comes to have quotas of projects."""
    found = mountfd.stat_mount(mountfd.mount_id(root))
    kind = found[1] if found is not None else "its file system"
    return kind, _WAYS.get(kind, "has no quotas of projects: use another file system")


# A jail that runs


def change(record: Record, params: Parameters) -> None:
    """Carry out what a running jail's parameters have become. Needs the jail's lock. Raises JailError."""
    _carry_out(record, wanted(params, record.rules))


def hold(record: Record, disk: int) -> None:
    """Have the root take ``disk`` bytes at most, 0 for what ng.quota says alone. Needs the lock. Raises JailError."""
    from jailng.params.model import Parameters

    text = Parameters.from_texts(record.params).text("ng.quota")
    quota = parse(text) if text else None
    try:
        if disk:
            quota = _less(quota, disk) if quota is not None else Quota(disk)
        _carry_out(record, quota)
    except JailError as error:
        raise JailError(f"disk: {str(error).removeprefix('ng.quota: ')}") from None


def _carry_out(record: Record, quota: Quota | None) -> None:
    if record.parent:
        if quota is not None:
            raise inner()
        return
    from jailng.core import image

    in_image = bool(image.of(record))
    if quota is None:
        if in_image:
            raise JailError("ng.quota: the jail's root is in an image: it has to be started anew without")
        quota = Quota(0)
    elif quota.image is not in_image:
        raise JailError("ng.quota: between an image and the tree itself a jail changes when it is started anew")
    if quota.bytes or has(record):
        _set_quota(record, quota.bytes, quota.inodes)


def _set_quota(record: Record, size: int, inodes: int) -> None:
    """Change what the root of a running jail may take to ``size`` bytes and ``inodes``, 0 for no limit.

    An image only grows. Raises JailError, also for a jail that was started without a quota: its tree is walked only
    while nobody lives in it.
    """
    from jailng.core import image, project

    def work(root: int) -> None:
        if image.of(record):
            image.grow(record, root, size, inodes)
            return
        kernel.put(root, project.of(record), size, inodes)

    _at_root(record, work)


def used(record: Record) -> tuple[int, int]:
    """The bytes and inodes that the root of a running jail takes. Raises JailError for one that has no quota."""
    found: list[tuple[int, int]] = []

    def work(root: int) -> None:
        from jailng.core import image, project

        if image.of(record):
            has = posix.fstatvfs(root)
            found.append(((has.f_blocks - has.f_bfree) * has.f_frsize, has.f_files - has.f_ffree))
        else:
            _, _, space, inodes = kernel.get(root, project.of(record))
            found.append((space, inodes))

    _at_root(record, work)
    return found[0]


def has(record: Record) -> bool:
    """Whether the jail was started with one; not where ng.lenient has made do without."""
    return any(line.startswith(("quota ", "image ")) for line in record.undo)


def _at_root(record: Record, work: Callable[[int], None]) -> None:
    if not has(record):
        raise JailError("ng.quota: a jail has it from its start on: start it anew")
    from jailng.core import attach

    try:  # until it is there, PID 1 has the host's root
        root = attach.open_tree_of(record) if record.created else rootfs.open_root(record.params.get("path", "/"))
        try:
            work(root)
        finally:
            posix.close(root)
    except OSError as error:
        raise JailError(f"ng.quota: {explain(error)}") from None
