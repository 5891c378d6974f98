"""The jail's file tree: what the builder mounts, by file descriptor, in the jail's own mount namespace.

The tree belongs to an enemy. Nothing below the root is opened but with RESOLVE_BENEATH and without symbolic links, and
nothing is mounted on a path that was looked at before: the descriptor that was checked is the one that is mounted on.
"""

from __future__ import annotations

import errno
import posix

from jailng.core.operation import Operation
from jailng.errors import JailError
from jailng.linux import mount as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.operation import Slots

_BENEATH = m.RESOLVE_BENEATH | m.RESOLVE_NO_SYMLINKS | m.RESOLVE_NO_MAGICLINKS
_HIDDEN = m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC

# Below /proc: what tells of the host or steers it (hostile-root.md in the design notes lists the attack of each).
MASKED_FILES = (
    b"kcore keys key-users latency_stats timer_list timer_stats sched_debug cmdline interrupts softirqs diskstats "
    b"partitions kallsyms iomem ioports modules slabinfo vmallocinfo pagetypeinfo kpagecount kpageflags kpagecgroup "
    b"zoneinfo buddyinfo swaps config.gz kmsg mtrr locks schedstat bootconfig dma misc consoles execdomains "
    b"sysrq-trigger mdstat allocinfo cgroups crypto devices fb vmcore lock_stat lockdep lockdep_chains lockdep_stats"
).split()
MASKED_DIRECTORIES = b"acpi asound scsi pressure driver fs irq bus tty dynamic_debug".split()
# Directories below /proc/sys: of the machine's drives, and counters of quotas.
MASKED_SYSCTLS = (b"sys/dev", b"sys/fs/quota")
# Never taken along from below the root: they show or steer the host, or the jail gets its own.
_NOT_TAKEN = frozenset(
    "proc sysfs cgroup cgroup2 devtmpfs devpts mqueue debugfs tracefs securityfs configfs bpf pstore efivarfs fusectl "
    "hugetlbfs binfmt_misc autofs rpc_pipefs nsfs".split()
)
_OWN = ("dev", "proc", "sys")
# Directories that every user of the host needs.
_EVERYBODYS = frozenset(["", *"bin etc home lib media mnt opt proc run sbin srv sys tmp usr var".split()])
_MASKS = b"/dev"
_MASK_FLAGS = m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC
_CREATE = posix.O_CREAT | posix.O_EXCL | posix.O_WRONLY | posix.O_CLOEXEC


def open_root(path: str) -> int:
    """The directory ``path`` as an O_PATH descriptor. Raises JailError in FreeBSD's words."""
    try:
        return posix.open(path, m.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError as error:
        raise JailError(f"path {path}: {error.strerror}") from None


def reachable(root: int, path: str) -> str:
    """The command that mends a root in which another user of the host could run what the jail's root has made, or "".

    What keeps them out is a directory of root's above it, or the root itself, that gives nothing to group and others;
    the group's bits may be those of an access control list, which may name anybody (acl(5)).

    An idmapped root keeps uid 0 on the disk, so ``chmod 4755 sh`` inside is a set-uid-root shell for whoever reaches
    the file outside, and what setcap gives is given there as well. ``/`` itself is FreeBSD's idiom for a jail that
    confines no files.
    """
    status = posix.fstat(root)
    top = posix.stat("/")
    if (status.st_ino, status.st_dev) == (top.st_ino, top.st_dev):
        return ""
    here = posix.dup(root)
    try:
        while True:
            if status.st_uid == 0 and not status.st_mode & 0o011:
                return ""
            if (status.st_ino, status.st_dev) == (top.st_ino, top.st_dev):
                break
            above = posix.open("..", m.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=here)
            posix.close(here)
            here = above
            status = posix.fstat(here)
    finally:
        posix.close(here)
    parent = path.rstrip("/").rpartition("/")[0]
    if parent.count("/") < 2 and parent[1:] in _EVERYBODYS:
        return f"install -d -m 700 /jail && mv {path.rstrip('/')} /jail/"
    return f"chmod 0700 {parent}"


def check_mount_points(root: int, path: str) -> None:
    """Refuse a root whose /dev or /proc is a symbolic link or no directory, before anything is made."""
    for name, parameter in (("dev", "mount.devfs"), ("proc", "mount.procfs")):
        try:
            mode = posix.stat(name, dir_fd=root, follow_symlinks=False).st_mode
        except FileNotFoundError:
            continue
        kind = mode & 0o170000
        where = f"{path.rstrip('/')}/{name}"
        if kind == 0o120000:
            raise JailError(f"{parameter}: {where} is a symbolic link")
        if kind != 0o040000:
            raise JailError(f"{parameter}: {where}: {posix.strerror(errno.ENOTDIR)}")


def mounts_below(path: str) -> list[tuple[bytes, str]]:
    """The mounts below the directory ``path`` as (path relative to it, file system type), parents first.

    Those that a jail has of its own, and those that show the host, are left out.
    """
    real = path.encode("utf-8", "surrogateescape").rstrip(b"/")
    found: list[tuple[bytes, str]] = []
    with open("/proc/self/mountinfo", "rb") as mountinfo:
        for line in mountinfo:
            fields = line.split()
            target = _unescape(fields[4])
            if not target.startswith(real + b"/") or target == b"/":
                continue
            relative = target[len(real) + 1 :]
            kind = fields[fields.index(b"-") + 1].decode()
            if kind not in _NOT_TAKEN and relative.partition(b"/")[0].decode("ascii", "replace") not in _OWN:
                found.append((relative, kind))
    return found


def _unescape(text: bytes) -> bytes:
    if b"\\" not in text:
        return text
    for code in (b"040", b"011", b"012"):
        text = text.replace(b"\\" + code, bytes([int(code, 8)]))
    return text.replace(b"\\134", b"\\")


def _target(directory: int, path: bytes) -> int:
    """An existing directory or file below ``directory`` to mount on."""
    return m.openat2(directory, path, m.O_PATH | posix.O_NOFOLLOW, _BENEATH)


class CloneTree(Operation):
    """Take a detached copy of the root's mount and of those below it, while still in the host's namespace."""

    __slots__ = ("below", "path")

    def __init__(self, path: str, below: list[tuple[bytes, str]]) -> None:
        self.path = path
        self.below = below

    def apply(self, slots: Slots) -> None:
        """Fill ``tree`` and ``tree.N``; a mount that has gone meanwhile is left out."""
        slots["tree"] = m.open_tree(slots["root"])
        for number, (relative, _) in enumerate(self.below):
            try:
                slots[f"tree.{number}"] = m.open_tree(slots["root"], relative)
            except OSError:
                continue

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        also = "".join([f", {path.decode('utf-8', 'replace')}" for path, _ in self.below])
        return f"clone the mount at {self.path}{also}"


class AttachTree(Operation):
    """Map the ids of the copies through the jail's user namespace and mount them as the tree of this namespace."""

    __slots__ = ("below", "path", "private", "skipped")

    def __init__(self, path: str, below: list[tuple[bytes, str]], private: bool) -> None:
        self.path = path
        self.below = below
        self.private = private
        self.skipped: list[str] = []

    def notes(self) -> list[str]:
        """The mounts below the root that are not seen inside."""
        return [f"not seen inside: {self.path.rstrip('/')}/{path}" for path in self.skipped]

    def _map(self, tree: int, slots: Slots) -> None:
        attributes = m.MOUNT_ATTR_NODEV | (m.MOUNT_ATTR_IDMAP if self.private else 0)
        m.mount_setattr(tree, attributes, slots["userns"] if self.private else 0)

    def apply(self, slots: Slots) -> None:
        """Raises JailError where the root's file system cannot map ids; a mount below it that cannot is left out."""
        try:
            self._map(slots["tree"], slots)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise JailError(
                f"path {self.path}: its file system cannot map uids (idmapped mounts): "
                f"move the root to one that can, or set ng.uids=shared"
            ) from None
        m.move_mount(slots["tree"], m.AT_FDCWD, b"/")
        for number, (relative, _) in enumerate(self.below):
            tree = slots.get(f"tree.{number}")
            try:
                if tree is None:
                    raise FileNotFoundError
                self._map(tree, slots)
                point = _target(slots["tree"], relative)
            except OSError:
                self.skipped.append(relative.decode("utf-8", "replace"))
                continue
            m.move_mount(tree, point)
            posix.close(point)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "mount the tree, " + ("uids mapped to the jail's own range" if self.private else "uids as on the host")


class MountDev(Operation):
    """A /dev of the jail's own: device nodes by ruleset, links, pts, shm and mqueue."""

    __slots__ = ("base", "links", "nodes", "private")

    def __init__(
        self, nodes: list[tuple[str, int, int, int]], links: list[tuple[str, str]], base: int, private: bool
    ) -> None:
        self.nodes = nodes
        self.links = links
        self.base = base
        self.private = private

    def prepare(self, slots: Slots) -> None:
        """Nodes are made while ids are not mapped yet: the host's root has no id in an idmapped mount (EOVERFLOW)."""
        options: list[tuple[bytes, bytes | None]] = [(b"source", b"tmpfs"), (b"size", b"1m"), (b"nr_inodes", b"4096")]
        dev = m.new_file_system(b"tmpfs", [*options, (b"mode", b"755")], m.MOUNT_ATTR_NOSUID)
        slots["dev"] = dev
        for name, major, minor, mode in self.nodes:
            posix.mknod(name, 0o020000 | mode, posix.makedev(major, minor), dir_fd=dev)
        for name, target in self.links:
            posix.symlink(target, name, dir_fd=dev)
        for name in ("pts", "shm", "mqueue"):
            posix.mkdir(name, 0o755, dir_fd=dev)

    def apply(self, slots: Slots) -> None:
        """Nothing is done where the root has no /dev."""
        try:
            point = _target(slots["tree"], b"dev")
        except FileNotFoundError:
            return
        dev = slots["dev"]
        if self.private:
            m.mount_setattr(dev, m.MOUNT_ATTR_IDMAP, slots["userns"])
        m.move_mount(dev, point)
        posix.close(point)
        # This /dev is a moment old and nobody is inside yet, so what lies below it can be named by path.
        posix.fchdir(dev)
        owner = self.base if self.private else 0
        quiet = m.MS_NOSUID | m.MS_NOEXEC
        m.mount(b"devpts", b"pts", b"devpts", quiet, b"newinstance,mode=620,ptmxmode=666,max=1024,gid=%d" % (owner + 5))
        m.mount(
            b"tmpfs", b"shm", b"tmpfs", m.MS_NOSUID | m.MS_NODEV, b"size=512m,mode=1777,uid=%d,gid=%d" % (owner, owner)
        )
        m.mount(b"mqueue", b"mqueue", b"mqueue", quiet | m.MS_NODEV)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "mount /dev: " + " ".join([node[0] for node in self.nodes])


class MountProc(Operation):
    """A procfs of the jail's own processes, what tells of the host masked, /proc/sys read-only."""

    __slots__ = ("files",)

    def __init__(self, files: list[tuple[bytes, bytes]]) -> None:
        self.files = files

    def prepare(self, slots: Slots) -> None:
        """Lay out what hides files and directories, read-only, over the host's /dev as this namespace still has it.

        Nothing of the host's own /dev is trusted to be what it is called (CVE-2025-31133).
        """
        m.mount(b"tmpfs", _MASKS, b"tmpfs", _MASK_FLAGS, b"size=64k,mode=755")
        posix.close(posix.open(_MASKS + b"/nothing", _CREATE, 0o444))
        posix.mkdir(_MASKS + b"/none", 0o555)
        for number, (_, content) in enumerate(self.files):
            fd = posix.open(b"%s/%d" % (_MASKS, number), _CREATE, 0o444)
            posix.write(fd, content)
            posix.close(fd)
        m.mount(b"none", _MASKS, None, m.MS_REMOUNT | m.MS_BIND | m.MS_RDONLY | _MASK_FLAGS)

    def apply(self, slots: Slots) -> None:
        """Nothing is done where the root has no /proc."""
        try:
            point = _target(slots["tree"], b"proc")
        except FileNotFoundError:
            return
        self._mount_on(point, slots)
        # It can be nothing but procfs, and what lies in it is the kernel's: from here on it is named by path.
        proc = m.openat2(slots["tree"], b"proc", posix.O_RDONLY | posix.O_DIRECTORY, _BENEATH)
        posix.fchdir(proc)
        posix.close(point)
        sys = m.open_tree(proc, b"sys")
        m.mount_setattr(sys, _HIDDEN)
        m.move_mount(sys, proc, b"sys")
        present = set(posix.listdir(proc))
        masks = [(b"nothing", path) for path in MASKED_FILES if path.decode() in present]
        masks += [(b"none", path) for path in MASKED_DIRECTORIES if path.decode() in present]
        masks += [(b"none", path) for path in MASKED_SYSCTLS]
        masks += [(b"%d" % number, path) for number, (path, _) in enumerate(self.files)]
        for mask, path in masks:
            try:
                m.mount(b"%s/%s" % (_MASKS, mask), path, None, m.MS_BIND)
            except FileNotFoundError:  # not every kernel has all of them
                continue
        posix.close(proc)

    @staticmethod
    def _mount_on(point: int, slots: Slots) -> None:
        pidns = slots.get("pidns")
        if pidns is None:  # this process is in the jail's pid namespace, so a new procfs is the jail's
            posix.fchdir(point)
            m.mount(b"proc", b".", b"proc", m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC)
            return
        proc = m.new_procfs(pidns, m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC)
        m.move_mount(proc, point)
        posix.close(proc)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        count = len(MASKED_FILES) + len(MASKED_DIRECTORIES) + len(MASKED_SYSCTLS) + len(self.files)
        return f"mount /proc, {count} of its entries masked, /proc/sys read-only"


class Pivot(Operation):
    """Make the tree the root of the namespace, for PID 1 too, and let go of the host's."""

    __slots__ = ()

    def apply(self, slots: Slots) -> None:
        """Raises OSError (EINVAL: the host's own root is no mount that can be left, as in an initramfs)."""
        posix.fchdir(slots["tree"])
        m.pivot_root_here()

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "pivot into the tree and detach the host's"
