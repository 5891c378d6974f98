"""The jail's own /proc: what tells of the host or steers it is masked, and some files are the jail's own."""

from __future__ import annotations

import posix

from jailng.core import procfiles
from jailng.core.operation import Operation
from jailng.core.process import NOBODYS
from jailng.core.program import kept
from jailng.core.rootfs import (
    HIDDEN,
    MASKING,
    NEW,
    NEW_PROC,
    POINT,
    TREE,
    attach,
    beneath,
    mount,
    mount_attributes,
    new_file_system,
)
from jailng.linux import mount as m
from jailng.linux.libc import ENOENT, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.operation import Slots
    from jailng.core.program import Program

# Below /proc: what tells of the host or steers it.
MASKED_FILES = (
    b"kcore keys key-users latency_stats timer_list timer_stats sched_debug cmdline interrupts softirqs diskstats "
    b"partitions kallsyms iomem ioports modules slabinfo vmallocinfo pagetypeinfo kpagecount kpageflags kpagecgroup "
    b"zoneinfo buddyinfo swaps config.gz kmsg mtrr locks schedstat vmstat bootconfig dma misc consoles execdomains "
    b"sysrq-trigger mdstat allocinfo cgroups crypto devices fb vmcore lock_stat lockdep lockdep_chains lockdep_stats"
).split()
MASKED_DIRECTORIES = b"acpi asound scsi pressure fs irq bus tty dynamic_debug spl".split()  # spl: of ZFS
# Directories below /proc/sys: of the machine's drives, counters of quotas, and the number that ZFS has for the host.
MASKED_SYSCTLS = (b"sys/dev", b"sys/fs/quota", b"sys/kernel/spl")
# Below /proc, for whose root has a network stack: directories of which the kernel keeps a copy for each namespace, and
# shows what is the machine's as read-only there (ensure_safe_net_sysctl() in net/sysctl_net.c, Linux 5.12). Not
# sys/net/netfilter: nf_hooks_lwtunnel in it is the machine's, and anybody's to switch on for good.
NETWORKS_OWN = (b"sys/net/core", b"sys/net/ipv4", b"sys/net/ipv6", b"sys/net/mptcp", b"sys/net/unix")
MASKS = b"/dev"  # where they lie while the tree is built
_FLAGS = m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC
_ATTRIBUTES = m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC
_CREATE = posix.O_CREAT | posix.O_EXCL | posix.O_WRONLY | posix.O_CLOEXEC


class MountProc(Operation):
    """A procfs of the jail's own processes, what tells of the host masked, /proc/sys read-only.

    With ``vnet`` but for what is the network's and no other's (``NETWORKS_OWN``), and then the builder has to be in its
    namespace.
    """

    __slots__ = ("files", "hidden", "vnet")

    def __init__(self, files: list[tuple[bytes, bytes]], vnet: bool, hidden: tuple[bytes, ...] = ()) -> None:
        """``hidden`` are further directories below /proc that are to be masked."""
        self.files = files
        self.hidden = hidden
        self.vnet = vnet

    def outside(self, way: Program, slots: Slots) -> None:
        """What will hide files and directories is made while PID 1 is born: a ramfs that is nowhere.

        It has no size, so df(1) inside passes over it; the host alone puts anything there.
        """
        masks, new = kept(MASKING), kept(NEW)
        whole = "" if any(path == b"cpuinfo" for path, _ in self.files) else procfiles.whole_cpuinfo()
        if whole:  # whatever the umask of who has made it
            label = f"jail_set: open {whole}"
            way.must(
                "openat", m.AT_FDCWD, way.text(whole), posix.O_RDONLY | posix.O_CLOEXEC, 0, keep=POINT, label=label
            )
        # It holds what ``core.fresh`` writes, so nobody that the jail knows may open it. Its files are nobody's, too:
        # the owner of a file may have a lease that keeps who writes waiting.
        way.must("setfsuid", NOBODYS)
        new_file_system(way, b"ramfs", [(b"mode", b"700")], _ATTRIBUTES, MASKING)
        contents = [(b"nothing", b""), *[(procfiles.name(path), content) for path, content in self.files]]
        way.must("openat", masks, way.text(b""), _CREATE, 0o444, keep=NEW, label="jail_set: open a mask")
        way.must("write", new, way.text(b""), 0)
        way.must("close", new)
        way.rows(3, (1, 7, 8), [(name, content, len(content)) for name, content in contents])
        if whole:
            way.must("openat", masks, way.text(b"cpuinfo"), _CREATE, 0o444, keep=NEW, label="jail_set: open a mask")
            way.must("sendfile", new, kept(POINT), 0, 1 << 30)
            way.must("close", new)
            way.must("close", kept(POINT))
        way.must("mkdirat", masks, way.text(b"none"), 0o555)
        way.must("setfsuid", 0)

    def inside(self, way: Program, slots: Slots) -> None:
        """Nothing is done where the root has no /proc."""
        found = way.here()
        how = beneath(way, m.O_PATH | posix.O_NOFOLLOW)
        way.must(
            "openat2", kept(TREE), way.text(b"proc"), *how, keep=POINT, label="jail_set: openat2 proc", unless=ENOENT
        )
        # Over the host's /dev as this namespace still has it, of which nothing is trusted to be what it is called
        # (CVE-2025-31133).
        attach(way, MASKING, m.AT_FDCWD, MASKS)
        if m.takes_pid_namespace():
            new_file_system(way, b"proc", [], _ATTRIBUTES, NEW_PROC, slots["pidns"])
            attach(way, NEW_PROC, kept(POINT))
            way.must("close", kept(NEW_PROC))
        else:  # the builder is in the jail's pid namespace, so a new procfs is the jail's
            way.must("fchdir", kept(POINT))
            mount(way, b"proc", b".", b"proc", _FLAGS)
        way.must("close", kept(POINT))
        # It can be nothing but procfs, and what lies in it is the kernel's: from here on it is named by path.
        how = beneath(way, posix.O_RDONLY | posix.O_DIRECTORY)
        way.must("openat2", kept(TREE), way.text(b"proc"), *how, keep=NEW_PROC, label="jail_set: openat2 proc")
        way.must("fchdir", kept(NEW_PROC))
        flags = m.OPEN_TREE_CLONE | posix.O_CLOEXEC
        way.must("open_tree", kept(NEW_PROC), way.text(b"sys"), flags, keep=NEW, label="jail_set: open_tree sys")
        way.must("mount_setattr", kept(NEW), *mount_attributes(way, HIDDEN), label="jail_set: mount_setattr")
        attach(way, NEW, kept(NEW_PROC), b"sys")
        way.must("close", kept(NEW))
        for path in NETWORKS_OWN if self.vnet else ():
            label = f"jail_set: open_tree {path.decode()}"
            missing = way.here()
            way.must("open_tree", kept(NEW_PROC), way.text(path), flags, keep=NEW, label=label, unless=ENOENT)
            writable = way.data(words(0, m.MOUNT_ATTR_RDONLY, m.MS_PRIVATE, 0))
            way.must("mount_setattr", kept(NEW), way.text(b""), m.AT_EMPTY_PATH, writable, 32, label=label)
            attach(way, NEW, kept(NEW_PROC), path)
            way.must("close", kept(NEW))
            way.skip(missing)
        # As it is, for the host; read-only from here on, in all places where the jail finds something of it.
        mount(way, MASKS, procfiles.PLACE, b"", m.MS_BIND)
        read_only = mount_attributes(way, m.MOUNT_ATTR_RDONLY)
        way.must("mount_setattr", kept(MASKING), *read_only, label="jail_set: mount_setattr")
        for names, mask in (
            (MASKED_FILES, b"nothing"),
            ([*MASKED_DIRECTORIES, *MASKED_SYSCTLS, *self.hidden], b"none"),
        ):
            mount(way, b"%s/%s" % (MASKS, mask), b"", b"", m.MS_BIND, unless=ENOENT)
            way.each(1, names)  # which of them a kernel has depends on how it was built
        mount(way, b"", b"", b"", m.MS_BIND, unless=ENOENT)
        paths = dict.fromkeys([path for path, _ in self.files if path != procfiles.STATE] + [b"cpuinfo"])
        way.rows(1, (1, 0), [(path, b"%s/%s" % (MASKS, procfiles.name(path))) for path in paths])
        way.must("close", kept(NEW_PROC))
        way.skip(found)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        count = len(MASKED_FILES) + len(MASKED_DIRECTORIES) + len(MASKED_SYSCTLS) + len(self.files) + len(self.hidden)
        return f"mount /proc, {count} of its entries masked, /proc/sys read-only" + (
            " but for the network's own" if self.vnet else ""
        )
