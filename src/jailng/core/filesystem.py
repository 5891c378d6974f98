"""File systems for ``mount`` and ``mount.fstab``: FreeBSD's types and options on Linux, each as a detached mount.

A detached mount has no place yet and goes with its descriptor, so nothing here outlives this process: where it is
attached, and what has to be written down before, is for ``core.mounting`` to know. Types that Linux would show the host
by (a procfs, a devfs) are not made here at all: the jail has its own of these, and ``OWN`` says which.
"""

from __future__ import annotations

import posix

from jailng.core import hostpath, reach, rootfs
from jailng.core.apart import apart
from jailng.core.index import DIRECTORY
from jailng.errors import JailError
from jailng.linux import filekind, mountfd
from jailng.linux import mount as m
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jailng.conf.fstab import Entry

# FreeBSD's types, by the names that Linux has for them; all others are Linux's own, and passed on.
LINUX = {
    "nullfs": "bind",
    "none": "bind",
    "unionfs": "overlay",
    "msdosfs": "vfat",
    "cd9660": "iso9660",
    "ext2fs": "ext4",
    "smbfs": "cifs",
}
# Of these a jail has its own: mounting them is showing that in one more place.
OWN = {
    "devfs": "dev",
    "devtmpfs": "dev",
    "procfs": "proc",
    "linprocfs": "proc",
    "proc": "proc",
    "linsysfs": "sys",
    "sysfs": "sys",
}
# What is in each /dev of a jail, by type.
IN_DEV = {"fdescfs": "fd", "tmpfs": "shm", "devpts": "pts", "mqueue": "mqueue", "mqueuefs": "mqueue"}

# Words for mount(8) itself; jail(8) mounts what it is told to, now.
_NO_MATTER = frozenset(
    "rw auto noauto late failok dev nodev exec suid async atime relatime userquota groupquota".split()
)
_ATTRIBUTES = {
    "ro": m.MOUNT_ATTR_RDONLY,
    "rdonly": m.MOUNT_ATTR_RDONLY,
    "nosuid": m.MOUNT_ATTR_NOSUID,
    "noexec": m.MOUNT_ATTR_NOEXEC,
    "noatime": m.MOUNT_ATTR_NOATIME,
    "strictatime": m.MOUNT_ATTR_STRICTATIME,
    "nodiratime": m.MOUNT_ATTR_NODIRATIME,
    "nosymfollow": m.MOUNT_ATTR_NOSYMFOLLOW,
}
_TMPFS = {"size": "size", "inodes": "nr_inodes", "nr_inodes": "nr_inodes", "mode": "mode", "uid": "uid", "gid": "gid"}
_OTHER_CALLS = frozenset("bind rbind move remount private shared slave unbindable rprivate rshared rslave".split())


class Place:
    """What a file system is mounted for: the jail's root and where in it, as O_PATH descriptors, and its first uid.

    ``base`` is 0 where it has the host's uids. ``lenient`` is ng.lenient. ``enemies`` tells where links are jails' own
    (``trees.Trees.all``), of others than those that run. ``written`` are device and inode of what of the host's
    will be written in there beside the mount's root.
    """

    __slots__ = ("base", "enemies", "lenient", "point", "root", "written")

    def __init__(
        self,
        root: int,
        point: int,
        base: int,
        lenient: bool,
        enemies: Callable[[], Mapping[tuple[int, int], str]] = dict,
    ) -> None:
        self.root = root
        self.point = point
        self.base = base
        self.lenient = lenient
        self.enemies = enemies
        self.written: list[tuple[int, int]] = []

    def of_jails(self) -> dict[tuple[int, int], str]:
        """Device and inode of what only jails' roots say where links in it lead, and whose it is."""
        return {**self.enemies(), hostpath.identity(self.root): ""}


def _linux_kind(kind: str) -> str:
    """A type in Linux's spelling."""
    return LINUX.get(kind, kind)


def written(entry: Entry) -> list[str]:
    """The paths of the host's in which the jail's root will write by that entry."""
    kind = _linux_kind(entry.kind)
    if attributes(entry)[0] & m.MOUNT_ATTR_RDONLY or kind in OWN or kind in IN_DEV:
        return []
    if kind == "overlay":
        upper = [word.partition("=")[2] for word in entry.options if word.startswith("upperdir=")]
        return [entry.device] if entry.kind == "unionfs" and "below" not in entry.options else upper
    return [entry.device] if entry.device.startswith("/") else []


def maps_itself(kind: str) -> bool:
    """Whether a file system of that type is made with its ids mapped, because it cannot be mapped as a whole."""
    return _linux_kind(kind) == "overlay"


def detached(entry: Entry, place: Place) -> tuple[int, str]:
    """The file system as a detached mount, and a warning or "".

    Device files in it are dead. Raises JailError that names what it is, or OSError.
    """
    kind = _linux_kind(entry.kind)
    if not kind.isprintable() or kind in rootfs.NOT_TAKEN:
        raise JailError(f"{entry.where}: a file system of type {entry.kind} would show the host")
    if kind == "overlay":
        from jailng.core import overlay

        return overlay.detached(entry, place)
    return _MAKERS.get(kind, _by_program)(entry, place)


def attributes(entry: Entry) -> tuple[int, list[str]]:
    """What the options say of the mount, as MOUNT_ATTR_ flags, and those that are the file system's own."""
    flags, others = m.MOUNT_ATTR_NODEV, []
    for word in entry.options:
        if word in _ATTRIBUTES:
            flags |= _ATTRIBUTES[word]
        elif word not in _NO_MATTER:
            others.append(word)
    return flags, others


def set_attributes(tree: int, flags: int, recursive: bool = False) -> None:
    """Give a detached mount these MOUNT_ATTR_ flags besides its own, and no peers. Raises OSError.

    A copy of a mount is one more peer of it: what is mounted below the one would be below the other.
    """
    clear = m.MOUNT_ATTR__ATIME if flags & m.MOUNT_ATTR__ATIME else 0
    mountfd.mount_setattr(tree, flags, recursive=recursive, clear=clear, propagation=m.MS_PRIVATE)


def refuse(entry: Entry, word: str) -> JailError:
    """The error of an option that there is not."""
    return JailError(f"{entry.where}: {entry.kind}: unknown option {word}")


def open_source(entry: Entry, path: str, place: Place) -> int:
    """A file or directory of the host's that an entry names, as an O_PATH descriptor. Raises JailError.

    Symbolic links are followed, but for those that an enemy may have made: in the tree of this jail or of one that
    runs, and in what was mounted into one to be written to.
    """
    try:
        return hostpath.opened(path, m.O_PATH | posix.O_CLOEXEC, more=place.of_jails)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise JailError(f"{entry.parameter}: {visible(path)}: {why}") from None


def _real(fd: int) -> str:
    return posix.readlink(f"/proc/self/fd/{fd}")


def check_shown(entry: Entry, source: int, path: str) -> None:
    """Refuse what shows or steers the host. Raises JailError."""
    found = mountfd.stat_mount(mountfd.mount_id(source))
    if found is not None and found[1] in rootfs.NOT_TAKEN:
        raise JailError(f"{entry.parameter}: {visible(path)}: a file system of type {found[1]} would show the host")


def guard(entry: Entry, source: int, path: str, lenient: bool) -> str:
    """Refuse to let a jail write where other users of the host can reach, or with ``lenient`` warn; as for the root.

    A set-uid file that a jailed root makes is set-uid on the host's disk, whatever uids the jail has.
    """
    here = source
    if filekind.of(posix.fstat(source)) != filekind.DIRECTORY:
        here = posix.open(_real(source).rpartition("/")[0] or "/", m.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    status, top = posix.fstat(here), posix.stat("/")
    reached = reach.reachable(here, path, here == source) or (status.st_ino, status.st_dev) == (top.st_ino, top.st_dev)
    if here != source:
        posix.close(here)
    if not reached:
        return ""
    warning = (
        f"{entry.parameter}: {visible(path)}: other users of this host can reach it, and a set-uid file made inside "
        f"would be one outside: mount it ro, keep them out by a directory of mode 0700, or set ng.lenient"
    )
    if not lenient:
        raise JailError(warning)
    return warning


def _bind(entry: Entry, place: Place) -> tuple[int, str]:
    """nullfs(4): one mount and not what is mounted below it, unless Linux's ``rbind`` says so."""
    flags, others = attributes(entry)
    recursive = "rbind" in others
    for word in others:
        if word not in ("bind", "rbind", "nocache", "cache"):
            raise refuse(entry, word)
    if entry.kind == "none" and not {"bind", "rbind"} & set(others):
        raise JailError(f"{entry.where}: a file system of type none without bind or rbind")
    source = open_source(entry, entry.device, place)
    try:
        check_shown(entry, source, entry.device)
        writable = not flags & m.MOUNT_ATTR_RDONLY
        warning = guard(entry, source, entry.device, place.lenient) if writable else ""
        tree = mountfd.open_tree(source, recursive=recursive)
    finally:
        posix.close(source)
    set_attributes(tree, flags, recursive)
    return tree, warning


def _tmpfs(entry: Entry, place: Place) -> tuple[int, str]:
    flags, others = attributes(entry)
    source = entry.device.encode("utf-8", "surrogateescape")
    options: list[tuple[bytes, bytes | None]] = [(b"source", source)]
    for word in others:
        key, _, value = word.partition("=")
        if key not in _TMPFS or not value:
            raise refuse(entry, word)
        options.append((_TMPFS[key].encode(), value.encode("utf-8", "surrogateescape")))
    try:
        return mountfd.new_file_system(b"tmpfs", options, flags), ""
    except OSError as error:
        words = ",".join(others)
        raise JailError(f"{entry.where}: tmpfs {words}: {error.strerror}") from None


def sizes(entry: Entry) -> list[str]:
    """What the options of a tmpfs say of how much it holds, in Linux's words."""
    if entry.kind != "tmpfs":
        return []
    words = [word.partition("=") for word in entry.options]
    return [f"{_TMPFS[key]}={value}" for key, _, value in words if key in ("size", "inodes", "nr_inodes")]


def _by_program(entry: Entry, place: Place) -> tuple[int, str]:
    """Have mount(8) mount it, in a mount namespace where nobody else sees it, and take a copy of that.

    Which helper a type has (mount.nfs), that an image is made a loop device, that a UUID is a disk: mount(8) knows.
    """
    flags, others = attributes(entry)
    for word in others:
        if word in _OTHER_CALLS:  # not a new file system, and not looked at as nullfs is
            raise refuse(entry, word)
    warning = _distrust(entry, place)
    readonly = ["ro"] if flags & m.MOUNT_ATTR_RDONLY else []
    options = ",".join(["nodev", *readonly, *others])
    argv = ["mount", "-t", _linux_kind(entry.kind), "-o", options, "--", entry.device, DIRECTORY]
    try:
        tree = apart(lambda say: _run(argv, say))
    except JailError as error:
        raise JailError(f"{entry.where}: {_complaint(str(error))}") from None
    set_attributes(tree, flags)
    return tree, warning


def _distrust(entry: Entry, place: Place) -> str:
    """Refuse what a jail's root has made a link to any disk of the host's, or an image for the kernel to stumble over.

    Or with ``lenient`` warn: mount(8) takes a path, and goes it by itself. Raises JailError.
    """
    try:
        if not hostpath.leads_through(entry.device, place.of_jails):
            return ""
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise JailError(f"{entry.parameter}: {visible(entry.device)}: {why}") from None
    warning = (
        f"{entry.parameter}: {visible(entry.device)}: in the tree of a jail, whose root says what the "
        f"kernel would read there: move it, or set ng.lenient"
    )
    if not place.lenient:
        raise JailError(warning)
    return warning


def _run(argv: list[str], say: int) -> int:
    """A copy of what mount(8) mounts; its complaints go to ``say``. Raises JailError, OSError."""
    before = _mount_at(DIRECTORY)
    null = posix.open("/dev/null", posix.O_RDWR)
    actions = [(posix.POSIX_SPAWN_DUP2, fd, to) for fd, to in ((null, 0), (null, 1), (say, 2))]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    try:
        pid = posix.posix_spawnp(argv[0], argv, environment, file_actions=actions)
    except FileNotFoundError:
        raise JailError("mount(8) is not installed") from None
    _, status = posix.waitpid(pid, 0)
    if status or _mount_at(DIRECTORY) == before:  # with nofail it may be content with nothing
        raise JailError("mount(8) failed")
    return mountfd.open_tree(m.AT_FDCWD, DIRECTORY.encode())


def _mount_at(path: str) -> int:
    fd = posix.open(path, m.O_PATH | posix.O_CLOEXEC)
    number = mountfd.mount_id(fd)
    posix.close(fd)
    return number


def _complaint(line: str) -> str:
    """What mount(8) says, less where it believes that it mounts."""
    for before in ("mount: ", f"{DIRECTORY}: "):
        line = line.removeprefix(before)
    return line.rstrip(".")


_MAKERS: dict[str, Callable[[Entry, Place], tuple[int, str]]] = {"bind": _bind, "tmpfs": _tmpfs}
