"""What the processes of a jail may do, computed from its privileges: capabilities, seccomp, Landlock, rlimits.

FreeBSD's kernel lets a jailed root have the privileges on a list and no other (prison_priv_check in kern_jail.c). So
here: ``ROWS`` is the list. What stands in no row is never had.

The seccomp program is compiled once (core/filter.py, with libseccomp) and kept in ``CACHE``: a start loads bytes.
"""

from __future__ import annotations

import posix

from jailng.linux import caps, filekind
from jailng.linux.landlock import SCOPE_ABSTRACT_UNIX_SOCKET
from jailng.linux.libc import MACHINE, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    Row = tuple[str, str, int, tuple[int, int, int] | None]

CACHE = "/var/cache/jailng/seccomp"

_RLIMIT_CORE = 4
_RLIMIT_MEMLOCK = 8
_RLIMIT_NICE = 13
_RLIMIT_RTPRIO = 14
_OWNER = 0
_PRIME = 0xFFFFFFFB
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_TRAILER = 8  # remainder and length of the program, so that a write cut short by a power failure is noticed
DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
_FILE = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC


# One privilege a row: what a jail that has it is given, and what one that has it not is denied besides. The columns, of
# constants, since every command loads them all:
# capabilities    with it: the bounding set grows by these
# lifts           with it: this group of seccomp rules is left out (core/filter.py)
# landlock        with it: these scopes close
# rlimit_without  without it: resource, soft, hard
ROWS: dict[str, Row] = {
    # Without: root is a user like any other. SYS_PTRACE is FreeBSD's PRIV_DEBUG_DIFFCRED, and what ps(1) and lsof(8)
    # need to read others' /proc. It reaches no further than the jail: other pid namespaces have no numbers here, and
    # __ptrace_may_access() asks for it in the target's user namespace and, where the target is not dumpable, in the one
    # that its memory was made in (mm->user_ns): the host's, for a process of the host and for one that is still
    # entering with dumpable off; and for PID 1, since nobody in a jail may read jailinit, whose mode is 0711
    # (core/jailinit.py, ``copy``). A guest's own (ng.init) can be traced, and holds nothing that its tracer has not.
    "suser": ("CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP SYS_CHROOT SETFCAP SYS_PTRACE", "", 0, None),
    "reserved_ports": ("NET_BIND_SERVICE", "", 0, None),
    # sethostname(2) wants all of SYS_ADMIN, in the user namespace that owns the UTS namespace: the jail's. What else
    # that would open there (mounts, namespaces) seccomp keeps shut. Off by default, unlike FreeBSD.
    "set_hostname": ("SYS_ADMIN", "hostname", 0, None),
    # Both allow.mount, with allow.mount.nullfs and with what mounts file systems. They take SYS_ADMIN in the user
    # namespace that owns the mount namespace: with these it is the jail's (core/boot.py).
    "bind_mounts": ("SYS_ADMIN", "bind", 0, None),
    "file_systems": ("SYS_ADMIN", "fs", 0, None),
    "raw_sockets": ("NET_RAW", "raw", 0, None),
    "socket_af": ("", "families", 0, None),
    # Without: mlock(2) fails with EPERM for everyone (can_do_mlock, mm/mlock.c). With: the limit is the one that the
    # jail was started with. CAP_IPC_LOCK would add nothing, the kernel asks for it in the host's user namespace.
    "mlock": ("", "huge", 0, (_RLIMIT_MEMLOCK, 0, 0)),
    # Without: nobody can trace, root neither, for a filter cannot see who asks. Writing through /proc/PID/mem is a file
    # operation that no filter sees, and stays open between processes of one user.
    "proc_debug": ("", "debug", 0, None),
    "sysvmsg": ("", "msg", 0, None),
    "sysvsem": ("", "sem", 0, None),
    "sysvshm": ("", "shm", 0, None),
    "inet4": ("", "inet4", 0, None),
    "inet6": ("", "inet6", 0, None),
    # Abstract sockets belong to the network namespace; the processes of a jail are in a pid namespace of their own, so
    # signals need no scope. Of what allow.socket_af opens there, netlink's news of processes and devices are left out.
    "shared_net": ("", "hostnet", SCOPE_ABSTRACT_UNIX_SOCKET, None),
    # FreeBSD's list for a jail with a stack of its own: interfaces, addresses, routes, its own firewall, and with
    # raw_sockets, which comes with it, what reads and writes the wire. Both are asked for in the user namespace that
    # owns the network namespace: the jail's.
    "vnet": ("NET_ADMIN", "vnet", 0, None),
    # Its sockets are made by a broker, which is handed a listener by whoever enters: core/stack.py.
    "shared_stack": ("", "stack", 0, None),
    # Of a guest with an init of its own: reboot(2) ends PID 1, and with it the jail (reboot_pid_ns(), kernel/reboot.c).
    # It is asked for in the user namespace that owns the pid namespace. kexec takes it in the host's.
    "own_init": ("SYS_BOOT", "reboot", 0, None),
    # systemd-logind hears of devices by them. Those of the machine's are told in network namespaces of the initial user
    # namespace alone (uevent_net_init(), lib/kobject_uevent.c).
    "uevents": ("", "uevents", 0, None),
    # Not a privilege but the host's way: its core_pattern names a file, and not a program or a socket.
    "core_files": ("", "core", 0, None),
    # Nor are these: what ng.sockets leaves out.
    "no_unix": ("", "nounix", 0, None),
    "no_route": ("", "noroute", 0, None),
    # Nothing here depends on it: /proc/sys and device nodes are the root's business (core/procfs.py, core/rootfs.py).
    "shared_uids": ("", "", 0, None),
}

# A limit of 0 does not keep a core from a program on the host (CVE-2022-4415, CVE-2025-5054), only one of exactly 1
# (fs/coredump.c) does, at which the filter then keeps it. No file is written at either.
_CORE = {True: (_RLIMIT_CORE, 0, 0), False: (_RLIMIT_CORE, 1, 1)}
# Whoever starts jails may have been let prefer processes (limits.conf(5): rtprio, nice), up to those that no other can
# interrupt. No capability stands before that, and FreeBSD's jailed root has not PRIV_SCHED_RTPRIO.
_NO_PREFERENCE = [(_RLIMIT_NICE, 0, 0), (_RLIMIT_RTPRIO, 0, 0)]


class Privileges:
    """Which privileges a jail has: one attribute a row of ``ROWS``, FreeBSD's default where FreeBSD has one.

    ``core_files``: the host writes cores to files. ``proc_debug`` is allow.unprivileged_proc_debug; ``sysv*`` are true
    unless the parameter is "disable"; ``inet4`` and ``inet6`` are true where the jail has an address of that family or
    the host's; ``shared_net`` where its network namespace is the host's, ``shared_stack`` where its sockets are;
    ``vnet`` where its root configures its own; ``no_*`` where ng.sockets leaves that family out; the others are allow.*
    of the same name.
    """

    __slots__ = tuple(ROWS)

    def __init__(
        self,
        *,
        suser: bool = True,
        reserved_ports: bool = True,
        set_hostname: bool = False,
        bind_mounts: bool = False,
        file_systems: bool = False,
        raw_sockets: bool = False,
        socket_af: bool = False,
        mlock: bool = False,
        proc_debug: bool = True,
        sysvmsg: bool = False,
        sysvsem: bool = False,
        sysvshm: bool = False,
        inet4: bool = False,
        inet6: bool = False,
        shared_net: bool = False,
        vnet: bool = False,
        shared_stack: bool = False,
        own_init: bool = False,
        uevents: bool = False,
        core_files: bool = True,
        no_unix: bool = False,
        no_route: bool = False,
        shared_uids: bool = False,
    ) -> None:
        self.suser = suser
        self.reserved_ports = reserved_ports
        self.set_hostname = set_hostname
        self.bind_mounts = bind_mounts
        self.file_systems = file_systems
        self.raw_sockets = raw_sockets
        self.socket_af = socket_af
        self.mlock = mlock
        self.proc_debug = proc_debug
        self.sysvmsg = sysvmsg
        self.sysvsem = sysvsem
        self.sysvshm = sysvshm
        self.inet4 = inet4
        self.inet6 = inet6
        self.shared_net = shared_net
        self.vnet = vnet
        self.shared_stack = shared_stack
        self.own_init = own_init
        self.uevents = uevents
        self.core_files = core_files
        self.no_unix = no_unix
        self.no_route = no_route
        self.shared_uids = shared_uids


class Confinement:
    """What to apply to a process on its way in, in this order: rlimits, landlock, program, caps.

    The program ``asks`` whoever has its listener for sockets; without one there are none.
    ``caps`` is the bounding set as bits (nothing at all without allow.suser: the one who applies it sets the securebits
    too); ``program`` is struct sock_filter records; ``landlock`` a set of SCOPE_ flags, 0 for none; ``rlimits`` are
    (resource, soft, hard); ``key`` names the program in the cache. ``limits`` are like ``rlimits``, of a command alone,
    and to be applied last: what the jail is limited in (core/rlimit.py).
    """

    __slots__ = ("asks", "caps", "key", "landlock", "limits", "program", "rlimits")

    def __init__(
        self,
        caps: int,
        program: bytes,
        landlock: int,
        rlimits: list[tuple[int, int, int]],
        key: str,
        asks: bool = False,
    ) -> None:
        self.asks = asks
        self.caps = caps
        self.program = program
        self.landlock = landlock
        self.rlimits = rlimits
        self.limits: list[tuple[int, int, int]] = []
        self.key = key


def compute(privileges: Privileges) -> Confinement:
    """The confinement that belongs to these privileges.

    Raises JailError where the seccomp program is not in the cache and cannot be compiled.
    """
    bounding = scopes = 0
    lifts = []
    rlimits = [_CORE[privileges.core_files], *_NO_PREFERENCE]
    for name, (capabilities, lifted, landlock, rlimit_without) in ROWS.items():
        if getattr(privileges, name):
            bounding |= caps.mask(capabilities)
            scopes |= landlock
            if lifted:
                lifts.append(lifted)
        elif rlimit_without:
            rlimits.append(rlimit_without)
    if not privileges.suser:
        bounding = 0
    key = _key(lifts)
    return Confinement(bounding, _cached(key) or _built(key, lifts), scopes, rlimits, key, privileges.shared_stack)


def _key(lifts: list[str]) -> str:
    """The program's name: machine, rules lifted, and what the source that it is made from was when it was made."""
    source = posix.stat(__file__.rpartition("/")[0] + "/filter.py")
    return f"{MACHINE}-{'.'.join(lifts)}-{source.st_size:x}-{source.st_mtime_ns:x}.bpf"


def _cached(key: str) -> bytes | None:
    """The program by that name, if nobody but root can have written it and it is whole."""
    try:
        directory = posix.open(CACHE, DIRECTORY)
    except OSError:
        return None
    try:
        if not ours(posix.fstat(directory)):
            return None
        fd = posix.open(key, _FILE, dir_fd=directory)
    except OSError:
        return None
    finally:
        posix.close(directory)
    try:
        return _read(fd)
    except OSError:
        return None
    finally:
        posix.close(fd)


def _read(fd: int) -> bytes | None:
    status = posix.fstat(fd)
    size = status.st_size
    regular = filekind.of(status) == filekind.REGULAR
    if not regular or not ours(status) or size % 8 or not 16 <= size <= 8 * _MAX_INSTRUCTIONS + _TRAILER:
        return None
    content = posix.read(fd, size + 1)
    program = content[:-_TRAILER]
    return program if content[-_TRAILER:] == trailer(program) else None


def ours(status: posix.stat_result) -> bool:
    """Whether nobody but root can have written it."""
    return status.st_uid == _OWNER and not status.st_mode & 0o022


def trailer(program: bytes) -> bytes:
    """What a whole program ends in."""
    # The remainder of a division by the largest prime of 32 bits does what a CRC does, without loading binascii.
    return words(int.from_bytes(program, "little") % _PRIME, len(program), size=4)


def _built(key: str, lifts: list[str]) -> bytes:
    from jailng.core import filtercache

    return filtercache.build(key, lifts)
