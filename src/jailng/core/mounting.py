"""``mount`` and ``mount.fstab``: file systems that the host mounts below a jail's root before the jail is made.

They are mounted in the host's mount namespace, where hooks and ``jail -C`` expect them; ``core.rootfs`` takes them
along into the jail. The tree belongs to an enemy: a target is walked to beneath a descriptor of the root and without
links, and what was found is what is mounted on. FreeBSD: check_path in usr.sbin/jail/command.c.

A mount is known by the number that Linux never gives out twice (statx(2), STATX_MNT_ID_UNIQUE). It has that before it
is attached anywhere, so the record can name it first, and undoing takes away that very mount wherever it has got to,
and no other that an administrator has put in its place.
"""

from __future__ import annotations

import posix

from jailng.core import filesystem, hostpath, index, ownmounts, rootfs, trees
from jailng.errors import JailError, explain
from jailng.linux import filekind, mountfd
from jailng.linux import mount as m
from jailng.linux.libc import EBUSY, ENOTDIR
from jailng.params.values import escape_word, unescape, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jailng.conf.fstab import Entry
    from jailng.core.operation import Operation
    from jailng.core.registry import Record
    from jailng.core.trees import Trees
    from jailng.params.model import Parameters

_LARGEST_FILE = 1 << 20
_LONGEST = 4096  # characters of a path in a message
# After a mount's number in a record: others came with it; its ids are mapped already.
_RECURSIVE, _MAPPED = "+", "="
_NULL = posix.makedev(1, 3)


def entries(params: Parameters) -> list[tuple[str, Entry]]:
    """What is to be mounted, in this order, each with the name of the parameter that says so.

    First the values of ``mount``, then the lines of each file of ``mount.fstab``, which is read now. Raises JailError.
    """
    from jailng.conf import fstab

    found = [fstab.parse_line(line) for line in params.strings("mount")]
    for file in params.strings("mount.fstab"):
        if file:
            found += fstab.parse(_read(file, params.text("path")))
    return [(entry.parameter, entry) for entry in found if entry is not None]


def _read(file: str, path: str) -> str:
    try:  # without O_NONBLOCK a fifo would be waited for
        fd = posix.open(file, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise JailError(f"mount.fstab: {visible(file)}: {getattr(error, 'strerror', error)}") from None
    try:
        status = posix.fstat(fd)
        if (filekind.of(status), status.st_rdev) == (filekind.CHARACTER, _NULL):
            return ""
        if filekind.of(status) != filekind.REGULAR:
            raise JailError(f"mount.fstab: {file}: not a regular file")
        if status.st_size > _LARGEST_FILE:
            raise JailError(f"mount.fstab: {file}: {posix.strerror(27)}")  # EFBIG
        why = trees.distrust(file, fd, trees.Trees())
        if why:
            raise JailError(f"mount.fstab: {visible(file)}: {why}")
        if _is_in_tree(fd, file, path):  # else a jail's root would write down which directories of the host's it gets
            raise JailError(f"mount.fstab: {file}: in the jail's own tree, where its root can write")
        return posix.read(fd, _LARGEST_FILE).decode("utf-8", "surrogateescape")
    finally:
        posix.close(fd)


def _is_in_tree(fd: int, file: str, path: str) -> bool:
    root = rootfs.open_root(path)
    try:
        real = posix.readlink(f"/proc/self/fd/{root}")
        way = file if file.startswith("/") else f"{posix.getcwd()}/{file}"
        if real != "/" and hostpath.beneath(root, way) is not None:  # even if a link in there leads out of it again
            return True
    finally:
        posix.close(root)
    return real != "/" and posix.readlink(f"/proc/self/fd/{fd}").startswith(f"{real}/")


def check_targets(path: str, found: list[Entry]) -> None:
    """Refuse what would not be mounted below the root ``path``. Raises JailError, OSError."""
    root = rootfs.open_root(path)
    try:
        for entry in found:
            _relative(root, path, entry)
    finally:
        posix.close(root)


def written(found: Iterable[Entry]) -> list[str]:
    """The paths of the host's in which the jail's root will write by these."""
    return [path for entry in found for path in filesystem.written(entry)]


def mount(record: Record, path: str, entry: Entry, enemies: Trees | None = None) -> str:
    """Mount it for the jail whose root is ``path``, with its undo record written before. A warning, or "".

    No link is followed where ``enemies`` make them, and where jails that run do.
    What the jail has of its own (a devfs on /dev, a procfs on /proc) is there without: that is not mounted on the host.
    Needs the jail's lock. Raises JailError.
    """
    root = rootfs.open_root(path)
    point = tree = -1
    try:
        relative = _relative(root, path, entry)
        if _is_in_dev(record, relative, entry):
            record.append([_undo_line(filesystem.IN_DEV[entry.kind] + _sizes(entry, root), relative)])
            return ""
        point = _walk(root, relative, entry)
        if entry.kind in filesystem.OWN:
            _check_own(record, point, relative, entry)
            record.append([_undo_line(filesystem.OWN[entry.kind], relative)])
            return ""
        private = record.params.get("ng.uids") != "shared"
        place = filesystem.Place(root, point, record.base if private else 0, record.params.get("ng.lenient") == "true")
        if enemies is not None:
            place.enemies = enemies.all
        tree, warning = filesystem.detached(entry, place)
        if _is_directory(tree) is not _is_directory(point):
            raise JailError(f"{entry.where}: {posix.strerror(ENOTDIR)}")
        marks = _RECURSIVE if "rbind" in entry.options else ""
        if private and filesystem.maps_itself(entry.kind):
            marks += _MAPPED
        record.append([*_given(entry, tree, place), _undo_line(f"{mountfd.mount_id(tree)}{marks}", relative)])
        point = _attach(tree, point, path, entry)
    except OSError as error:
        raise JailError(f"{entry.where}: {error.strerror}") from None
    finally:
        for fd in (tree, point, root):
            if fd >= 0:
                posix.close(fd)
    return warning


def _given(entry: Entry, tree: int, place: filesystem.Place) -> list[str]:
    """What the record tells of the host's files in which the jail's root may make links from now on."""
    if filesystem.attributes(entry)[0] & m.MOUNT_ATTR_RDONLY:
        return []
    top = posix.stat("/")  # who has that has the host, and all of its links would be his
    found = [one for one in (hostpath.identity(tree), *place.written) if one != (top.st_dev, top.st_ino)]
    return [f"given {device} {inode}" for device, inode in found]


def _attach(tree: int, point: int, path: str, entry: Entry) -> int:
    """Mount it there. What is mounted there may be taken away at this moment: then the point is looked for again.

    Closes that, and returns what was mounted on. Raises JailError, OSError.
    """
    while True:
        lock = index.lock_file()
        try:
            hold(lock)
            if mountfd.stat_mount(mountfd.mount_id(point)) is not None:
                mountfd.move_mount(tree, point)
                return point
        finally:
            posix.close(lock)
        root = rootfs.open_root(path)
        try:
            again = _walk(root, _relative(root, path, entry), entry)
        finally:
            posix.close(root)
        posix.close(point)
        point = again


def _undo_line(what: str, relative: str) -> str:
    return f"undo mount {what} {escape_word(relative or '.')}"


def _relative(root: int, path: str, entry: Entry) -> str:
    """The target relative to the root, "" for the root itself, however the way to the root is spelled."""
    target = entry.target
    if not target.startswith("/"):
        raise JailError(f"{entry.where}: not an absolute pathname")
    parts = [part for part in target.split("/") if part not in ("", ".")]
    if ".." not in parts:
        top = posix.fstat(root)
        for count in range(len(parts) + 1):
            try:
                here = posix.stat("/" + "/".join(parts[:count]))
            except (OSError, ValueError):
                break
            if (here.st_ino, here.st_dev) == (top.st_ino, top.st_dev):
                return "/".join(parts[count:])
    raise JailError(f"{entry.where}: not below the jail's path {path}")


def _is_in_dev(record: Record, relative: str, entry: Entry) -> bool:
    """Whether the jail's own /dev has that anyway. Raises JailError where what the jail has of its own hides it."""
    places = {name: name for name in rootfs.OWN}
    places |= {place: kind for kind, place in _recorded(record) if kind.isalpha()}
    for place, kind in places.items():
        if relative == place and filesystem.OWN.get(entry.kind) == kind:
            return False
        if (relative + "/").startswith(place + "/"):
            if kind == "dev" and relative == f"{place}/{filesystem.IN_DEV.get(entry.kind)}":
                return True
            raise JailError(f"{entry.where}: not seen inside: what a jail has there is its own")
    if entry.kind == "fdescfs":
        raise JailError(f"{entry.where}: fdescfs is a part of /dev on Linux: mount devfs above it")
    return False


def _check_own(record: Record, point: int, relative: str, entry: Entry) -> None:
    """Raises JailError for what cannot be done with what a jail has of its own."""
    if not relative or not _is_directory(point):
        raise JailError(f"{entry.where}: {posix.strerror(ENOTDIR if relative else EBUSY)}")
    kind = filesystem.OWN[entry.kind]
    ruleset = record.params.get("devfs_ruleset", "0")
    if ruleset == "0":
        ruleset = "5" if record.params.get("vnet") == "new" else "4"
    for word in filesystem.attributes(entry)[1]:
        if kind != "dev" or word != f"ruleset={ruleset}":
            raise filesystem.refuse(entry, word)
    if kind != "sys" and {"ro", "rdonly"} & set(entry.options):
        raise filesystem.refuse(entry, "ro")


def _sizes(entry: Entry, root: int) -> str:
    """What is to be known of /dev/shm when the jail is made: ``:size=1g``, or "". Raises JailError."""
    found = filesystem.sizes(entry)
    if found:  # what is wrong with them is said now
        posix.close(filesystem.detached(entry, filesystem.Place(root, root, 0, lenient=False))[0])
    return f":{','.join(found)}" if found else ""


def _walk(root: int, relative: str, entry: Entry) -> int:
    """The target as an O_PATH descriptor. Raises JailError, in FreeBSD's words where there is something on the way."""
    if not relative:
        return posix.dup(root)
    try:
        name = relative.encode("utf-8", "surrogateescape")
        return mountfd.openat2(root, name, m.O_PATH, m.BENEATH)
    except OSError as error:
        raise JailError(_complaint(root, relative, entry, error)) from None


def _complaint(root: int, relative: str, entry: Entry, error: OSError) -> str:
    """What lies in the way, by name; ``error`` if nothing does any more."""
    parts = relative.split("/")
    above = entry.target.rstrip("/").removesuffix(relative).rstrip("/")
    for count in range(1, len(parts) + 1):
        shown = f"{above}/{'/'.join(parts[:count])}"
        try:
            name = "/".join(parts[:count]).encode("utf-8", "surrogateescape")
            fd = mountfd.openat2(root, name, m.O_PATH | posix.O_NOFOLLOW, m.BENEATH)
            link = filekind.of(posix.fstat(fd)) == filekind.LINK
            posix.close(fd)
        except OSError as found:
            return f"{entry.parameter}: {visible(shown)}: {found.strerror}"
        if link:
            return f"{entry.parameter}: {visible(shown)} is a symbolic link"
    return f"{entry.where}: {error.strerror}"


def _is_directory(fd: int) -> bool:
    return filekind.of(posix.fstat(fd)) == filekind.DIRECTORY


# What a record tells of


def _recorded(record: Record) -> Iterator[tuple[str, str]]:
    for line in record.undo:
        kind, _, rest = line.partition(" ")
        if kind == "mount":
            what, _, relative = rest.partition(" ")
            yield what, unescape(relative)


def wanted(
    record: Record, path: str, below: list[tuple[bytes, str]], own: dict[str, bool]
) -> tuple[dict[bytes, bool], list[Operation]]:
    """What the jail has to see of what has been mounted for it, and the builder's work besides its /dev and /proc.

    First the paths, relative to the root, of mounts: true where their ids are mapped already. ``below`` is what will be
    taken into the jail (``rootfs.mounts_below``). ``own`` says whether the jail has ``dev``, ``fd`` in that, ``proc``
    and ``sys``, and is changed to what the entries want. Raises JailError for what cannot be seen.
    """
    taken = {relative for relative, _ in below[: rootfs.MOST]}
    found: dict[bytes, bool] = {}
    again: dict[str, str] = {}
    for what, relative in _recorded(record):
        name = relative.encode("utf-8", "surrogateescape")
        if what.partition(":")[0] in filesystem.IN_DEV.values():
            own[what.partition(":")[0]] = True
        elif what.isalpha():
            again[relative] = what
            own[what] = own[what] or what == relative or what == "sys"
        elif relative != ".":
            found[name] = what.endswith(_MAPPED)
            if name not in taken:
                raise JailError(f"mount: {path.rstrip('/')}/{visible(relative)}: not seen inside")
    more: list[Operation] = []
    for relative, what in again.items():
        if not own["proc" if what == "sys" else what]:
            needed = "mount.devfs" if what == "dev" else "mount.procfs"
            raise JailError(f"mount: {path.rstrip('/')}/{visible(relative)}: not without {needed}")
        if what == "sys":
            more.append(ownmounts.MountSys(path, relative))
        elif what != relative:
            more.append(ownmounts.ShowAgain(what, path, relative))
    return found, more


def shared_memory(record: Record) -> str:
    """How much the jail's /dev/shm holds, as options of Linux's tmpfs; "" where nothing was said of that."""
    return ",".join([what.removeprefix("shm:") for what, _ in _recorded(record) if what.startswith("shm:")])


# Undoing


def unmount(what: str, lock: int) -> str:
    """Unmount what a record of ``mount`` or ``image`` calls that, wherever it is; it may be gone: "".

    Else nothing is done, for something is mounted on it or below: the number of what covers it, or 0, then those of all
    that is there, and its path. ``lock`` is of ``index.lock_file``, and is held from then on. Raises JailError,
    OSError.

    It goes at once for everybody (MNT_DETACH): the jail's processes are dead, and who else has a file open there keeps
    it until he closes that. What others have mounted on it or below is not taken away; what came with it, as by rbind,
    is. A word for a number is what the jail had of its own: nothing on the host.
    """
    number = number_of(what)
    while number and (found := mountfd.stat_mount(number)) is not None:
        fd = mountfd.open_place(found[0], m.O_PATH | posix.O_NOFOLLOW)
        try:
            hold(lock)  # not while a server is waited for that may be on the way
            top = above = mountfd.mount_id(fd)
            if above == number and (_RECURSIVE in what or not mountfd.mounts_below(number)):
                mountfd.unmount(fd, m.MNT_DETACH)
                return ""
        finally:
            posix.close(fd)
        cover = 0
        while above not in (0, number):
            cover, above = above, mountfd.parent_mount(above)
        if above or mountfd.stat_mount(top) is not None:  # else that was taken away before the lock was had
            numbers = [cover if above else 0, *mountfd.mounts_below(number)]
            return f"{' '.join(map(str, numbers))} {visible(found[0].decode('utf-8', 'replace'))[:_LONGEST]}"
        index.let_go(lock, index.MOUNTS)
    return ""


def hold(lock: int) -> None:
    """Have no jail's mount be put on another, or taken from it, until ``lock`` is closed. Raises JailError."""
    try:
        index.take(lock, index.MOUNTS)
    except OSError as error:
        raise JailError(explain(error)) from None


def number_of(what: str) -> int:
    """The number in a record's word for a mount; 0 where it has none."""
    text = what.rstrip(_RECURSIVE + _MAPPED)
    return int(text) if text.isdigit() else 0
