"""The jail's file tree: what the builder mounts, by file descriptor, in the jail's own mount namespace.

The tree belongs to an enemy. Nothing below the root is opened but with RESOLVE_BENEATH and without symbolic links, and
nothing is mounted on a path that was looked at before: the descriptor that was checked is the one that is mounted on.
"""

from __future__ import annotations

import posix

from jailng.core import own
from jailng.core.operation import Operation
from jailng.core.program import kept
from jailng.errors import JailError
from jailng.linux import filekind
from jailng.linux import mount as m
from jailng.linux.libc import EINVAL, ENOENT, ENOTDIR, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.devfs import Link, Node
    from jailng.core.operation import Slots
    from jailng.core.program import Program

HIDDEN = m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC

# Never taken along from below the root: they show or steer the host, or the jail gets its own.
NOT_TAKEN = frozenset(
    "proc sysfs cgroup cgroup2 devtmpfs devpts mqueue debugfs tracefs securityfs configfs bpf pstore efivarfs fusectl "
    "hugetlbfs binfmt_misc autofs rpc_pipefs nsfs".split()
)
OWN = ("dev", "proc", "sys")
_OPEN = posix.O_RDONLY | posix.O_CLOEXEC


def open_root(path: str) -> int:
    """The directory ``path`` as an O_PATH descriptor, by no link that a running jail's root has made.

    Raises JailError in FreeBSD's words.
    """
    flags = m.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
    try:
        root = posix.open(path, flags)
        place = f"/proc/self/fd/{root}"
        if path.startswith("/proc/self/fd/") or posix.readlink(place) == path:
            return root
        posix.close(root)
        from jailng.core import hostpath  # a link was on the way, or the path is spelled in another way

        return hostpath.opened(path, flags)
    except OSError as error:
        raise JailError(f"path {path}: {error.strerror}") from None


def check_mount_points(root: int, path: str) -> None:
    """Refuse a root whose /dev or /proc is a symbolic link or no directory, before anything is made."""
    for name, parameter in (("dev", "mount.devfs"), ("proc", "mount.procfs")):
        try:
            kind = filekind.of(posix.stat(name, dir_fd=root, follow_symlinks=False))
        except FileNotFoundError:
            continue
        where = f"{path.rstrip('/')}/{name}"
        if kind == filekind.LINK:
            raise JailError(f"{parameter}: {where} is a symbolic link")
        if kind != filekind.DIRECTORY:
            raise JailError(f"{parameter}: {where}: {posix.strerror(ENOTDIR)}")


def mounts(process: int | str = "self") -> list[list[bytes]]:
    """The first six fields of each mount a process sees, and the rest: proc_pid_mountinfo(5). Raises OSError."""
    mountinfo = posix.open(f"/proc/{process}/mountinfo", posix.O_RDONLY | posix.O_CLOEXEC)
    text = b""
    try:
        while part := posix.read(mountinfo, 65536):
            text += part
    finally:
        posix.close(mountinfo)
    return [line.split(b" ", 6) for line in text.split(b"\n")[:-1]]


def mounts_below(path: str, known: list[list[bytes]]) -> list[tuple[bytes, str]]:
    """Those of ``mounts`` below the directory ``path`` as (path relative to it, file system type), parents first.

    Those that a jail has of its own, and those that show the host, are left out.
    """
    real = path.encode("utf-8", "surrogateescape").rstrip(b"/")
    escaped = escape(real) + b"/"
    found: list[tuple[bytes, str]] = []
    for fields in known:
        target = fields[4]
        if not target.startswith(escaped) or target == b"/":
            continue
        kind = (b" " + fields[6]).partition(b" - ")[2].partition(b" ")[0].decode()
        if kind not in NOT_TAKEN:
            relative = unescape(target)[len(real) + 1 :]
            if relative.partition(b"/")[0].decode("ascii", "replace") not in OWN:
                found.append((relative, kind))
    return found


def escape(path: bytes) -> bytes:
    """A path as mountinfo has it."""
    for byte in b"\\ \t\n":
        path = path.replace(bytes([byte]), b"\\%03o" % byte)
    return path


def unescape(text: bytes) -> bytes:
    """A path of mountinfo as it is."""
    if b"\\" not in text:
        return text
    for code in (b"040", b"011", b"012"):
        text = text.replace(b"\\" + code, bytes([int(code, 8)]))
    return text.replace(b"\\134", b"\\")


# What the builder keeps, by number: the tree, the new /dev and /proc, a point to mount on, what is for a moment only.
TREE, DEV, NEW_PROC, POINT, NEW, NEW_SYS, MASKING, KIT = range(1, 9)
_BELOW = 9  # and from here on the mounts below the root; without a number left, a mount is not taken along
MOST = 1000


def shown(parameter: str, path: str, relative: bytes) -> str:
    """How messages name a place below the root, after the parameter that it has to do with."""
    return f"{parameter}: {path.rstrip('/')}/{relative.decode('utf-8', 'replace')}"


def attach(way: Program, tree: int, where: int, path: bytes = b"") -> None:
    """Add a move_mount(2) of what is kept as ``tree``; no ``path``: onto the descriptor ``where`` itself."""
    flags = m.MOVE_MOUNT_F_EMPTY_PATH | (0 if path else m.MOVE_MOUNT_T_EMPTY_PATH)
    label = f"jail_set: move_mount {path.decode()}".rstrip()
    way.must("move_mount", kept(tree), way.text(b""), where, way.text(path), flags, label=label)


def mount_attributes(way: Program, attributes: int, userns: int = 0) -> tuple[int, int, int, int]:
    """The arguments of a mount_setattr(2) on a descriptor, but for that.

    A copy of a mount is one more peer of it, and where systemd is PID 1 all of the host's are shared: what is mounted
    in the jail would be mounted on the host as well, and pivot_root(2) refuses (EINVAL). So each copy leaves its peers.
    """
    attr = words(attributes, 0, m.MS_PRIVATE, userns)
    return way.text(b""), m.AT_EMPTY_PATH, way.data(attr), len(attr)


def beneath(way: Program, flags: int) -> tuple[int, int]:
    """The last arguments of an openat2(2) that leads nowhere but below its directory."""
    how = words(flags | posix.O_CLOEXEC, 0, m.BENEATH)
    return way.data(how), len(how)


def mount(
    way: Program, source: bytes, target: bytes, kind: bytes, flags: int, data: bytes = b"", unless: int = 0
) -> None:
    """Add a mount(2): one call where the descriptors of fsopen(2) take seven.

    For targets that nobody can have tampered with: what is a moment old, or the kernel's own.
    """
    way.must(
        "mount", way.text(source), way.text(target), way.text(kind), flags, way.text(data),
        label=f"jail_set: mount {target.decode()}".rstrip(), unless=unless,
    )  # fmt: skip


def new_file_system(
    way: Program, kind: bytes, options: list[tuple[bytes, bytes]], attributes: int, keep: int, pidns: int = -1
) -> None:
    """Add what makes a new instance of a file system, kept as a detached mount."""
    label = f"jail_set: fsopen {kind.decode()}"
    way.must("fsopen", way.text(kind), 1, keep=NEW, label=label)
    for key, value in options:
        name = f"jail_set: fsconfig {key.decode()}"
        way.must("fsconfig", kept(NEW), m.FSCONFIG_SET_STRING, way.text(key), way.text(value), 0, label=name)
    if pidns >= 0:
        way.must(
            "fsconfig", kept(NEW), m.FSCONFIG_SET_FD, way.text(b"pidns"), 0, pidns, label="jail_set: fsconfig pidns"
        )
    way.must("fsconfig", kept(NEW), m.FSCONFIG_CMD_CREATE, 0, 0, 0, label=f"jail_set: fsconfig {kind.decode()}")
    way.must("fsmount", kept(NEW), 1, attributes, keep=keep, label=f"jail_set: fsmount {kind.decode()}")
    way.must("close", kept(NEW))


class CloneTree(Operation):
    """Take a detached copy of the root's mount and of those below it, while still in the host's namespace."""

    __slots__ = ("below", "path", "wanted")

    def __init__(self, path: str, below: list[tuple[bytes, str]], wanted: dict[bytes, bool]) -> None:
        """``wanted`` has the paths of those that the jail must see (``mounting.wanted``)."""
        self.path = path
        self.below = below
        self.wanted = wanted

    def outside(self, way: Program, slots: Slots) -> None:
        """A mount that has gone meanwhile is left out."""
        flags = m.OPEN_TREE_CLONE | posix.O_CLOEXEC | m.AT_EMPTY_PATH
        way.must("open_tree", slots["root"], way.text(b""), flags, keep=TREE, label="jail_set: open_tree")
        how = beneath(way, m.O_PATH | posix.O_NOFOLLOW)
        for number, (relative, _) in enumerate(self.below[:MOST], _BELOW):
            if relative in self.wanted:
                label = shown("mount", self.path, relative)
                way.must("openat2", slots["root"], way.text(relative), *how, keep=POINT, label=label)
                way.must("open_tree", kept(POINT), way.text(b""), flags, keep=number, label=label)
                way.must("close", kept(POINT))
                continue
            # What is not there is noted when its copy is to be attached, for then there is no such descriptor.
            way.may("openat2", slots["root"], way.text(relative), *how, keep=POINT)
            way.may("open_tree", kept(POINT), way.text(b""), flags, keep=number)
            way.may("close", kept(POINT))

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        also = "".join([f", {path.decode('utf-8', 'replace')}" for path, _ in self.below])
        return f"clone the mount at {self.path}{also}"


class AttachTree(Operation):
    """Map the ids of the copies through the jail's user namespace and mount them as the tree of this namespace."""

    __slots__ = ("below", "path", "private", "tried", "wanted")

    def __init__(self, path: str, below: list[tuple[bytes, str]], private: bool, wanted: dict[bytes, bool]) -> None:
        """``wanted`` has the paths of those that the jail must see, and whether their ids are mapped already."""
        self.path = path
        self.below = below
        self.private = private
        self.wanted = wanted
        self.tried: dict[int, bytes] = {}  # by the number of the call that failed if it is not seen

    def notes(self, noted: list[int]) -> list[str]:
        """The mounts below the root that are not seen inside."""
        paths = [self.tried[call] for call in noted if call in self.tried]
        paths += [path for path, _ in self.below[MOST:]]
        return [shown("not seen inside", self.path, path) for path in paths]

    def inside(self, way: Program, slots: Slots) -> None:
        """A root whose file system cannot map ids is an error; a mount below it that nobody asked for is left out."""
        mapping = m.MOUNT_ATTR_NODEV | (m.MOUNT_ATTR_IDMAP if self.private else 0)
        attributes = mount_attributes(way, mapping, slots["userns"] if self.private else 0)
        way.instead[way.here(), EINVAL] = (
            f"path {self.path}: its file system cannot map uids (idmapped mounts): "
            f"move the root to one that can, or set ng.uids=shared"
        )
        way.must("mount_setattr", kept(TREE), *attributes, label="jail_set: mount_setattr")
        attach(way, TREE, m.AT_FDCWD, b"/")
        unmapped = mount_attributes(way, m.MOUNT_ATTR_NODEV) if self.wanted else attributes
        how = beneath(way, m.O_PATH | posix.O_NOFOLLOW)
        for number, (relative, kind) in enumerate(self.below[:MOST], _BELOW):
            if relative in self.wanted:
                label = shown("mount", self.path, relative)
                way.instead[way.here(), EINVAL] = (
                    f"{label}: its file system ({kind}) cannot map uids (idmapped mounts): "
                    f"use one that can, or set ng.uids=shared"
                )
                given = unmapped if self.wanted[relative] else attributes
                way.must("mount_setattr", kept(number), *given, label=label)
                way.must("openat2", kept(TREE), way.text(relative), *how, keep=POINT, label=label)
                attach(way, number, kept(POINT))
                way.must("close", kept(POINT))
                continue
            mapped, found = way.here(), way.here() + 1
            self.tried[mapped] = self.tried[found] = relative
            way.note("mount_setattr", kept(number), *attributes)
            way.note("openat2", kept(TREE), way.text(relative), *how, keep=POINT)
            attach(way, number, kept(POINT))
            way.must("close", kept(POINT))
            way.skip(mapped)
            way.skip(found)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "mount the tree, " + ("uids mapped to the jail's own range" if self.private else "uids as on the host")


class MountDev(Operation):
    """A /dev of the jail's own: device nodes by ruleset, links, pts, shm and mqueue, and what it may know of itself."""

    __slots__ = ("base", "links", "nodes", "private", "shm", "told")

    def __init__(self, nodes: list[Node], links: list[Link], base: int, private: bool, told: bytes, shm: str) -> None:
        """``told``: content of the file of ``core.own``, b"" for none; ``shm``: what was said of its size, or ""."""
        self.told = told
        self.shm = shm
        self.nodes = nodes
        self.links = links
        self.base = base
        self.private = private

    def outside(self, way: Program, slots: Slots) -> None:
        """Nodes are made while ids are not mapped yet: the host's root has no id in an idmapped mount (EOVERFLOW)."""
        options = [(b"source", b"tmpfs"), (b"size", b"1m"), (b"nr_inodes", b"4096"), (b"mode", b"755")]
        new_file_system(way, b"tmpfs", options, m.MOUNT_ATTR_NOSUID, DEV)
        dev = kept(DEV)
        for name in _directories(self.nodes):
            way.must("mkdirat", dev, way.text(name), 0o755, label=f"jail_set: {name}")
        empty = way.text(b"")
        way.must("mknodat", dev, empty, 0, 0, label="jail_set:")
        way.rows(1, (1, 2, 3), [(_bytes(node[0]), node[1], posix.makedev(*node[2:4])) for node in self.nodes])
        for name, _, _, _, uid, gid in self.nodes:
            if uid or gid:  # on the disk, so to say: the mount maps them into the jail's range
                way.must("fchownat", dev, way.text(name), uid, gid, m.AT_SYMLINK_NOFOLLOW, label=f"jail_set: {name}")
        way.must("symlinkat", empty, dev, empty, label="jail_set:")
        way.rows(1, (2, 0), [(_bytes(name), _bytes(target)) for name, target in self.links])
        way.must("mkdirat", dev, empty, 0o755, label="jail_set:")
        way.each(1, [b"pts", b"shm", b"mqueue", *([own.FOLDER] if self.told else [])])
        if self.told:
            own.lay_down(way, dev, NEW, self.told)

    def inside(self, way: Program, slots: Slots) -> None:
        """Nothing is done where the root has no /dev."""
        found = way.here()
        how = beneath(way, m.O_PATH | posix.O_NOFOLLOW)
        way.must(
            "openat2", kept(TREE), way.text(b"dev"), *how, keep=POINT, label="jail_set: openat2 dev", unless=ENOENT
        )
        if self.private:
            attributes = mount_attributes(way, m.MOUNT_ATTR_IDMAP, slots["userns"])
            way.must("mount_setattr", kept(DEV), *attributes, label="jail_set: mount_setattr")
        attach(way, DEV, kept(POINT))
        way.must("close", kept(POINT))
        # This /dev is a moment old and nobody is inside yet, so what lies below it can be named by path.
        way.must("fchdir", kept(DEV))
        owner = self.base if self.private else 0
        quiet = m.MS_NOSUID | m.MS_NOEXEC
        pts = b"newinstance,mode=620,ptmxmode=666,max=1024,gid=%d" % (owner + 5)
        mount(way, b"devpts", b"pts", b"devpts", quiet, pts)
        size = self.shm or "size=512m"
        if "nr_inodes" not in size:  # the kernel's own number is half of the machine's pages, as statvfs(3) tells
            size += ",nr_inodes=128k"
        shm = b"%s,mode=1777,uid=%d,gid=%d" % (size.encode(), owner, owner)
        mount(way, b"tmpfs", b"shm", b"tmpfs", m.MS_NOSUID | m.MS_NODEV, shm)
        mount(way, b"mqueue", b"mqueue", b"mqueue", quiet | m.MS_NODEV)
        way.skip(found)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "mount /dev: " + " ".join([node[0] for node in self.nodes])


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _directories(nodes: list[Node]) -> list[str]:
    """The directories that nodes lie in, parents first."""
    found: dict[str, None] = {}
    for node in nodes:
        parts = node[0].split("/")[:-1]
        for count in range(len(parts)):
            found["/".join(parts[: count + 1])] = None
    return list(found)


class Pivot(Operation):
    """Make the tree the root of the namespace, for PID 1 too, and let go of the host's."""

    __slots__ = ()

    def inside(self, way: Program, slots: Slots) -> None:
        """EINVAL: the host's own root is no mount that can be left, as in an initramfs.

        pivot_root(2), NOTES: with "." twice the old root ends up on top of the new one, from where it is detached.
        """
        here = way.text(b".")
        way.must("fchdir", kept(TREE))
        way.must("pivot_root", here, here, label="jail_set: pivot_root /")
        way.must("umount2", here, m.MNT_DETACH, label="jail_set: umount2 /")

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "pivot into the tree and detach the host's"
