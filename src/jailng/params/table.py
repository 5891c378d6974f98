"""The table of parameters: what jail(8) knows, one row each, in the order of its manual; ours are named ``ng.*``.

It is what ``Parameters``, jls(8), the manual and docs/differences.md are made from or checked against. FreeBSD's side
of it (names, types, defaults, what may change when) is that of jail(8) and sys/kern/kern_jail.c of FreeBSD 15.

Every command loads this, and most look at a dozen rows: rows are constant tuples, objects are made on demand.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Default = bool | int | str | tuple[()]
    Domain = int | range | tuple[str, ...] | None
    Kind = Literal["bool", "int", "string", "ip4", "ip6", "jailsys", "list", "choice"]
    Live = Literal["live", "new", "restart"]
    Row = tuple[Kind, Default, str, Live, Domain, str, str]  # kind, default, flags, live, domain, meaning, linux

_INT = range(-(2**31), 2**31)
_SECONDS = range(2**31)
_SWITCH = ("new", "inherit")
_SYS = ("disable", "new", "inherit")

# The columns:
# kind      bool, int, string, choice (one of some words), jailsys (disable, new or inherit), ip4 and ip6 (lists of
#           addresses), list (strings; of the exec.* ones each is a command, of those that are not pseudo a rule).
# default   what holds where it is not given.
# flags     C create-only, R read-only, P pseudo (jail(8)'s own; it does not reach the record of the jail),
#           K may have keys below it (meta.key), H not among those that jls(8) lists when asked for all,
#           D differs from FreeBSD in default, range or effect (docs/differences.md says how),
#           X not honoured on Linux: any value but the default is refused, and ``linux`` is the reason.
# live      what a change does to a running jail: works at once ("live"), for processes that start afterwards ("new"),
#           or needs a restart ("restart").
# domain    range of an int, most bytes of a string or addresses of a list, words of a jailsys or choice; None: any.
_ROWS: dict[str, Row] = {
    "jid": ("int", 0, "C", "restart", _INT,
        "the jail's number, 1 to 999999; the next free one if not given",
        "a record below /run/jailng, a cgroup; the kernel has no such number"),
    "name": ("string", "", "D", "live", 255,
        "the jail's name; its number if not given",
        "kept in the record; without \"/\" and control characters, never only digits unless it is the given jid"),
    "path": ("string", "/", "C", "restart", 4095,
        "the directory that is the jail's root",
        "an idmapped clone of the mount, pivot_root in a mount namespace that belongs to the host"),
    "parent": ("int", 0, "R", "live", _INT,
        "jid of the jail in which this one was made, 0 for the host", "kept in the record"),
    "dying": ("bool", False, "R", "live", None,
        "whether the jail is on its way out", "always false: a removed jail is gone at once"),
    "children.cur": ("int", 0, "R", "live", _INT,
        "number of jails below this one", "counted in the registry"),
    "cpuset.id": ("int", 0, "RD", "live", _INT,
        "number of the jail's set of processors", "the jid: the set is that of the jail's cgroup"),
    "persist": ("bool", False, "", "live", None,
        "whether the jail stays when no process is left in it",
        "PID 1 exits with the last member unless this is set"),
    "ip4": ("jailsys", "new", "C", "restart", _SYS,
        "the IPv4 addresses: the host's (inherit), those of ip4.addr (new), none (disable)",
        "new: own network namespace; inherit: the host's; no address: sockets of that family are refused"),
    "ip4.addr": ("ip4", (), "D", "live", 255,
        "the IPv4 addresses, the primary one first: [interface|]address[/prefix][ words for ifconfig(8)]",
        "on routed veths of the jail's own network namespace, one for each interface of the host that has any of them"),
    "ip4.saddrsel": ("bool", True, "", "restart", None,
        "whether the kernel selects the source address; if not it is always the primary one",
        "the routes inside name it"),
    "ip6": ("jailsys", "new", "C", "restart", _SYS,
        "the IPv6 addresses: the host's (inherit), those of ip6.addr (new), none (disable)",
        "as ip4"),
    "ip6.addr": ("ip6", (), "", "restart", 255,
        "the IPv6 addresses, the primary one first: [interface|]address[/prefix][ words for ifconfig(8)]",
        "as ip4.addr"),
    "ip6.saddrsel": ("bool", True, "", "restart", None,
        "whether the kernel selects the source address; if not it is always the primary one",
        "as ip4.saddrsel"),
    "vnet": ("jailsys", "inherit", "CD", "restart", _SWITCH,
        "a network stack of its own, which root inside configures (new), or the host's (inherit)",
        "own network namespace, CAP_NET_ADMIN and CAP_NET_RAW in it, most of /proc/sys/net to be written to"),
    "host": ("jailsys", "new", "", "restart", _SWITCH,
        "host names of its own (new) or the host's, whatever they become (inherit)",
        "a UTS namespace of its own, or the host's, whose names nobody inside can change"),
    "host.hostname": ("string", "", "D", "live", 64,
        "the host name inside", "sethostname(2) in the UTS namespace, which holds 64 bytes"),
    "host.domainname": ("string", "", "D", "live", 64,
        "the NIS domain name inside", "setdomainname(2) in the UTS namespace, which holds 64 bytes"),
    "host.hostuuid": ("string", "00000000-0000-0000-0000-000000000000", "D", "live", 63,
        "the host UUID inside",
        "kept in the record, shown by jls and inside by sysctl kern.hostuuid; no other program sees it"),
    "host.hostid": ("int", 0, "D", "live", range(2**64),
        "the host id inside",
        "kept in the record, shown by jls and inside by sysctl kern.hostid; no other program sees it"),
    "securelevel": ("int", -1, "D", "live", _INT,
        "kern.securelevel inside: what even root may no longer do; -1 or higher",
        "no jail may do any of that at any level; from 1 upwards no rule set may show disks or memory"),
    "osrelease": ("string", "", "CDH", "restart", 31,
        "what uname -r says inside",
        "only the host's own release is taken: uname(2) says the same everywhere"),
    "osreldate": ("int", 0, "CHX", "restart", _INT,
        "what uname -K says inside", "Linux has no such number"),
    "enforce_statfs": ("int", 2, "D", "new", range(3),
        "which mounts are seen inside: all (0), those below the root (1), the root alone (2)",
        "the jail's own mounts are seen at each, and the host's at none"),
    "devfs_ruleset": ("int", 0, "D", "restart", range(65536),
        "number of the devfs rule set by which /dev is made; 0 for the default, rule set 4, or 5 with vnet",
        "/dev is a tmpfs that holds what the rule set shows: FreeBSD's five, and those of /etc/devfs.rules"),
    "children.max": ("int", 0, "D", "live", range(1000000),
        "how many jails may be made inside",
        "a broker on the host makes them; each has a range of uids, which the jail is given when it is made"),
    "meta": ("string", "", "K", "live", 4095,
        "any text about the jail, or lines key=value by meta.key; not seen inside", "kept in the record"),
    "env": ("string", "", "K", "live", 4095,
        "any text about the jail, or lines key=value by env.key; to be read inside",
        "kept in the record, and read inside by sysctl security.jail.env"),
    "mac.label": ("string", "", "HX", "live", None,
        "label of the MAC framework", "Linux has no MAC framework of that kind"),

    "allow.set_hostname": ("bool", False, "D", "new", None,
        "root may change the host name",
        "CAP_SYS_ADMIN in the jail's user namespace, which is much: off by default, unlike FreeBSD"),
    "allow.sysvipc": ("bool", False, "", "restart", None,
        "old name for sysvmsg, sysvsem and sysvshm all inherit", "the host's IPC namespace"),
    "allow.raw_sockets": ("bool", False, "", "new", None,
        "root may open raw sockets (ping, traceroute)",
        "CAP_NET_RAW, and filters for sockets (SO_ATTACH_FILTER), not with ip4=inherit; the host drops other sources"),
    "allow.chflags": ("bool", False, "X", "new", None,
        "root may set the system's file flags",
        "chattr +i and +a need CAP_LINUX_IMMUTABLE in the initial user namespace; a jail has its own"),
    "allow.mount": ("bool", False, "", "restart", None,
        "root may mount and unmount what allow.mount.* name; only where enforce_statfs is below 2",
        "CAP_SYS_ADMIN, and a mount namespace that is the jail's, in which what was there is locked"),
    "allow.mount.devfs": ("bool", False, "X", "restart", None,
        "root may mount devfs",
        "Linux lets the host alone make devices: mount --rbind /dev, by allow.mount.nullfs"),
    "allow.mount.fdescfs": ("bool", False, "X", "restart", None,
        "root may mount fdescfs", "Linux has no such file system: /dev/fd is a link to /proc/self/fd"),
    "allow.mount.fusefs": ("bool", False, "D", "restart", None,
        "root may mount FUSE file systems, and has /dev/fuse", "as allow.mount.tmpfs; not with ng.uids=shared"),
    "allow.mount.linprocfs": ("bool", False, "X", "restart", None,
        "root may mount linprocfs", "as allow.mount.procfs"),
    "allow.mount.linsysfs": ("bool", False, "X", "restart", None,
        "root may mount linsysfs", "Linux mounts sysfs only where one is seen already, and a jail has none"),
    "allow.mount.nullfs": ("bool", False, "", "restart", None,
        "root may mount a directory in another place", "bind mounts, which the filter knows by their flags"),
    "allow.mount.procfs": ("bool", False, "X", "restart", None,
        "root may mount procfs",
        "Linux refuses it while the jail's own /proc is masked: mount --rbind /proc, by allow.mount.nullfs"),
    "allow.mount.tmpfs": ("bool", False, "", "restart", None,
        "root may mount tmpfs", "a BPF program on the jail's cgroup judges the type: CONFIG_BPF_LSM, \"bpf\" in lsm="),
    "allow.mount.zfs": ("bool", False, "HX", "restart", None,
        "root may mount ZFS", "stock Linux has no ZFS"),
    "allow.quotas": ("bool", False, "X", "new", None,
        "root may set disk quotas",
        "quotactl(2) needs CAP_SYS_ADMIN in the initial user namespace, and a jail has its own"),
    "allow.read_msgbuf": ("bool", False, "X", "new", None,
        "processes may read the kernel's messages (dmesg)",
        "syslog(2) needs CAP_SYSLOG in the initial user namespace, and a jail has its own"),
    "allow.socket_af": ("bool", False, "", "new", None,
        "sockets of other families than unix, inet, inet6 and route",
        "the filter lets all pass, AF_ALG and AF_VSOCK too, and modules are loaded; AF_PACKET takes allow.raw_sockets"),
    "allow.mlock": ("bool", False, "", "new", None,
        "processes may lock memory",
        "RLIMIT_MEMLOCK, which is 0 without this, and MAP_HUGETLB, which is ENOMEM. memfd_secret(2) stays shut"),
    "allow.nfsd": ("bool", False, "X", "new", None,
        "an NFS server may run inside", "the kernel's NFS server needs privileges over the host"),
    "allow.cgroup": ("bool", False, "D", "restart", None,
        "root of a guest with an init of its own may make cgroups, and part what the jail has among its processes",
        "a delegated cgroup2 at /sys/fs/cgroup, below the jail's own, whose limits hold for all in it"),
    "allow.reserved_ports": ("bool", True, "", "new", None,
        "root may bind ports below 1024", "CAP_NET_BIND_SERVICE"),
    "allow.unprivileged_parent_tampering": ("bool", False, "X", "new", None,
        "a host user may signal and trace the jail's processes of the same uid",
        "with uids of its own no process of the jail has a host user's uid"),
    "allow.unprivileged_proc_debug": ("bool", True, "", "new", None,
        "users other than root may trace processes (ptrace)",
        "without this the filter refuses ptrace(2) and process_vm_readv(2), to root as well"),
    "allow.suser": ("bool", True, "", "new", None,
        "uid 0 inside has privileges", "without this no capability at all, and none to be had by exec"),
    "allow.extattr": ("bool", False, "X", "new", None,
        "root may change the system's extended attributes",
        "trusted.* needs CAP_SYS_ADMIN in the initial user namespace, and a jail has its own"),
    "allow.adjtime": ("bool", False, "X", "new", None,
        "root may slew the host's clock",
        "adjtimex(2) needs CAP_SYS_TIME in the initial user namespace, and a jail has its own"),
    "allow.settime": ("bool", False, "X", "new", None,
        "root may set the host's clock",
        "clock_settime(2) needs CAP_SYS_TIME in the initial user namespace, and a jail has its own"),
    "allow.routing": ("bool", False, "X", "new", None,
        "root of a jail without vnet may change routes",
        "CAP_NET_ADMIN, which it takes, would let the jail change its addresses as well"),
    "allow.setaudit": ("bool", False, "X", "new", None,
        "root may set the audit session",
        "the audit system answers processes of the initial user namespace alone"),
    "allow.vmm": ("bool", False, "H", "restart", None,
        "the jail may run virtual machines", "/dev/kvm, where the rule set shows it"),
    "allow.vmm_ppt": ("bool", False, "HX", "new", None,
        "virtual machines in the jail may use PCI devices",
        "a device handed to a jail reaches the host's memory"),

    "sysvmsg": ("jailsys", "disable", "D", "new", _SYS,
        "System V message queues: none (disable), its own (new), the host's (inherit)",
        "IPC namespace, one for all three: inherit only for all or for none; disable by the filter"),
    "sysvsem": ("jailsys", "disable", "D", "new", _SYS,
        "System V semaphores: none (disable), its own (new), the host's (inherit)", "as sysvmsg"),
    "sysvshm": ("jailsys", "disable", "D", "new", _SYS,
        "System V shared memory: none (disable), its own (new), the host's (inherit)", "as sysvmsg"),
    "linux": ("jailsys", "inherit", "HX", "live", _SWITCH,
        "FreeBSD's emulation of Linux", "this is Linux; nothing is emulated"),
    "linux.osname": ("string", "", "HX", "live", None,
        "what uname -s says under emulation", "this is Linux; nothing is emulated"),
    "linux.osrelease": ("string", "", "HX", "live", None,
        "what uname -r says under emulation", "this is Linux; nothing is emulated"),
    "linux.oss_version": ("int", 0, "HX", "live", _INT,
        "version of OSS under emulation", "this is Linux; nothing is emulated"),
    "zfs.mount_snapshot": ("int", 0, "HX", "live", _INT,
        "whether .zfs shows snapshots", "stock Linux has no ZFS"),

    "exec.prepare": ("list", (), "P", "restart", None,
        "commands on the host before everything else", "run by jail(8)"),
    "exec.prestart": ("list", (), "P", "restart", None,
        "commands on the host before the jail is made", "run by jail(8)"),
    "exec.created": ("list", (), "P", "restart", None,
        "commands on the host once the jail is made", "run by jail(8)"),
    "exec.start": ("list", (), "P", "restart", None,
        "commands in the jail that start it", "run by jail(8) as jexec(8) does"),
    "command": ("list", (), "P", "restart", None,
        "the command in the jail, word by word: the rest of the command line",
        "run by jail(8) as jexec(8) does"),
    "exec.poststart": ("list", (), "P", "restart", None,
        "commands on the host after exec.start", "run by jail(8)"),
    "exec.prestop": ("list", (), "P", "restart", None,
        "commands on the host before the jail is stopped", "run by jail(8)"),
    "exec.stop": ("list", (), "P", "restart", None,
        "commands in the jail that stop it", "run by jail(8) as jexec(8) does"),
    "exec.poststop": ("list", (), "P", "restart", None,
        "commands on the host once the jail is gone", "run by jail(8)"),
    "exec.release": ("list", (), "P", "restart", None,
        "commands on the host after everything else", "run by jail(8)"),
    "exec.clean": ("bool", False, "P", "restart", None,
        "commands see HOME, SHELL, TERM, USER and PATH alone", "run by jail(8)"),
    "exec.jail_user": ("string", "", "P", "restart", None,
        "the user as whom commands in the jail run", "looked up inside, after the jail is entered"),
    "exec.system_jail_user": ("bool", False, "P", "restart", None,
        "look exec.jail_user up on the host", "the host's passwd"),
    "exec.system_user": ("string", "", "P", "restart", None,
        "the user as whom commands on the host run", "setresuid(2)"),
    "exec.timeout": ("int", 0, "P", "restart", _SECONDS,
        "seconds that a command may take, 0 for no end", "poll(2) on a pidfd"),
    "exec.consolelog": ("string", "", "P", "restart", 4095,
        "file to which the output of commands in the jail is added",
        "written by the host from a pipe, so that the jail never holds the file"),
    "exec.fib": ("int", 0, "PX", "restart", _SECONDS,
        "number of the routing table of commands in the jail",
        "no process has a routing table there: rules of the whole stack choose one (ip rule, inside a vnet)"),
    "stop.timeout": ("int", 10, "P", "restart", _SECONDS,
        "seconds between SIGTERM and removal, 0 for removal at once", "poll(2) on the members' pidfds"),
    "interface": ("string", "", "P", "restart", 15,
        "host interface on which the addresses are aliases while the jail exists", "rtnetlink(7)"),
    "vnet.interface": ("list", (), "PD", "restart", None,
        "host interfaces that are moved into the vnet, and come back when it ends",
        "into its network namespace, which is held until they are back"),
    "ip_hostname": ("bool", False, "P", "restart", None,
        "add the addresses of host.hostname", "getaddrinfo(3) on the host"),
    "mount": ("list", (), "PD", "restart", None,
        "lines of fstab(5) to mount below the root",
        "in the host's mount namespace, by descriptor; not below the jail's own /dev and /proc"),
    "mount.fstab": ("list", (), "PD", "restart", None,
        "files of such lines", "as mount"),
    "mount.devfs": ("bool", True, "PD", "restart", None,
        "mount devfs on /dev", "a tmpfs, made by the rule set"),
    "mount.fdescfs": ("bool", True, "PD", "restart", None,
        "mount fdescfs on /dev/fd", "a link to /proc/self/fd in /dev"),
    "mount.procfs": ("bool", True, "PD", "restart", None,
        "mount procfs on /proc", "a masked /proc of the jail's own"),
    "zfs.dataset": ("list", (), "PX", "restart", None,
        "ZFS datasets that are handed to the jail", "stock Linux has no ZFS"),
    "depend": ("list", (), "P", "restart", None,
        "jails that have to run before this one", "jail(8)'s order of operations"),
    "allow.dying": ("bool", False, "P", "restart", None,
        "nothing any more; jail(8) says so", "no effect, as on FreeBSD 15"),

    "ng.uids": ("choice", "private", "C", "restart", ("private", "shared"),
        "65,536 uids of its own on the host (private), or the host's (shared, as on FreeBSD)",
        "user namespace and idmapped root; shared is the weaker"),
    "ng.stack": ("choice", "own", "C", "restart", ("own", "shared"),
        "whose network stack the addresses are used on: the jail's own, or the host's (shared, as on FreeBSD)",
        "shared: a broker makes the jail's sockets on the host, where BPF programs hold them to the addresses"),
    "ng.init": ("choice", "none", "C", "restart", ("none", "auto", "rc", "sysv", "openrc", "systemd"),
        "whose the guest's start and shutdown are: nobody's, those of /etc/rc, or those of an init of its own as PID 1",
        "jailinit, PID 1 as long as the jail is made, executes it; auto takes what the root has"),
    "ng.root": ("choice", "path", "C", "restart", ("path", "none"),
        "whose root the jail's is: path, or none, and each process that joins brings one: jailctl join",
        "none: an empty tree, read-only; who enters has a mount namespace with a clone of path, or of what he names"),
    "ng.sockets": ("string", "", "", "live", 63,
        "families of sockets besides ipv6 that may be made: ipv4, unix, route, or none; jail(8)'s own if empty",
        "new processes by the filter, others by programs on its cgroup: ipv4 made or met by ipv6, unix connected"),
    "ng.self": ("bool", True, "C", "restart", None,
        "the jail is told of those of its parameters that it may know of",
        "the file /dev/.jailng/self; without it the jail has no /dev/.jailng, and can have no children.max"),
    "ng.lenient": ("bool", False, "", "restart", None,
        "warn where a restriction cannot be applied, or a permission given, instead of refusing", "ours"),
    "ng.rdr": ("list", (), "", "live", None,
        "connections to the host's addresses that are led to the jail: protocol address port -> port",
        "destination NAT in a table jailng_rdr of nf_tables"),
    "ng.egress": ("list", (), "", "live", None,
        "what may leave the jail, the first rule that fits; without any rule all but to the host's own addresses",
        "a chain of the jail's own in a table jailng_egress of nf_tables"),
    "ng.limits": ("list", (), "", "live", None,
        "how much of the host's resources the jail may use: resource:action=amount, rules of rctl(8) without a subject",
        "controllers of its cgroups, limits of processes and namespaces, and a process of the host's that watches"),
    "ng.slice": ("int", 0, "", "live", range(101),
        "milliseconds for which a process runs before others have their turn; 0 is the kernel's own, 3 at most",
        "the slice of each thread (sched_setattr(2), Linux 6.12); who wakes comes before who has a longer one"),
    "ng.quota": ("string", "", "", "live", 255,
        "how much of the disk the root may take: size[,inodes=count], or image:size[,inodes=count]; no limit if empty",
        "the quota of a project of the file system that path is on, or an ext4 of its own in the file path.img"),
    "ng.watch": ("list", (), "", "live", None,
        "what is recorded of the jail, without its doing: tty, its terminals; packets, what it sends and receives",
        "a process of the host's beside the jail for each, which reads what BPF programs or a packet socket hand it"),
    "ng.log": ("list", (), "", "live", None,
        "what is logged outside the jail, tamper-evident: syslog, exec, connections, logins or all",
        "a process of the host's beside the jail, which serves /dev/log inside and hears the rest of the kernel"),
}  # fmt: skip


class Parameter:
    """One row. Attributes are the columns described above; further ones:

    The domain is ``range``, ``most`` (0: no limit) or ``words``, whichever the kind has. The flags have names.
    """

    __slots__ = (
        "name", "kind", "default", "live", "range", "most", "words", "meaning", "linux",
        "create_only", "read_only", "pseudo", "keyed", "hidden", "deviates", "refused",
    )  # fmt: skip

    def __init__(self, name: str, row: Row) -> None:
        kind, default, flags, live, domain, meaning, linux = row
        self.name = name
        self.kind: Kind = kind
        self.default = default
        self.live: Live = live
        self.range = domain if isinstance(domain, range) else _INT
        self.most = domain if isinstance(domain, int) else 0
        self.words = domain if isinstance(domain, tuple) else ()
        self.meaning = meaning
        self.linux = linux
        self.create_only = "C" in flags
        self.read_only = "R" in flags
        self.pseudo = "P" in flags
        self.keyed = "K" in flags
        self.hidden = "H" in flags
        self.deviates = "D" in flags
        self.refused = "X" in flags

    @property
    def differs(self) -> bool:
        """Whether a reader of FreeBSD's manual would be wrong about it; docs/differences.md has a row for each."""
        late = self.live == "restart" and not (self.create_only or self.pseudo or self.name.startswith("ng."))
        return self.deviates or self.refused or late

    def __repr__(self) -> str:
        return f"<Parameter {self.name}>"


_made: dict[str, Parameter] = {}


def lookup(name: str) -> Parameter | None:
    """The parameter of that very name (not ``nopersist``, not ``meta.key``), or None."""
    parameter = _made.get(name)
    if parameter is None:
        row = _ROWS.get(name)
        if row is None:
            return None
        parameter = _made[name] = Parameter(name, row)
    return parameter


def default(name: str) -> Default:
    """The default of the parameter of that very name, without making its row. Raises KeyError."""
    return _ROWS[name][1]


def resolve(name: str) -> tuple[Parameter, bool, str | None] | None:
    """What a name on a command line means: the parameter, whether it is negated, and the key of a ``meta.key``.

    ``allow.nomount`` is the negated ``allow.mount``: "no" stands before the last component. None: there is no such one.
    """
    parameter = lookup(name)
    if parameter is not None:
        return parameter, False, None
    head, dot, last = name.rpartition(".")
    if last.startswith("no"):
        parameter = lookup(head + dot + last[2:])
        if parameter is not None and parameter.kind == "bool":
            return parameter, True, None
    head, dot, key = name.partition(".")
    parameter = lookup(head)
    if key and parameter is not None and parameter.keyed:
        return parameter, False, key
    return None


def names() -> list[str]:
    """Every parameter's name, in the order of the table."""
    return list(_ROWS)


def listed() -> list[str]:
    """The names that jls(8) shows for ``all``: those without a dot first, then by alphabet."""
    return sorted(
        [name for name, row in _ROWS.items() if "P" not in row[2] and "H" not in row[2]],
        key=lambda name: ("." in name, name),
    )


def negated(name: str) -> str:
    """A boolean's name with "no" before the last component: ``allow.nomount``."""
    head, dot, last = name.rpartition(".")
    return f"{head}{dot}no{last}"
