"""What may be asked of the kernel inside a jail: one seccomp program a set of privileges.

Cold: this module runs when a program is not in the cache (core/confinement.py), and imports Debian's python3-seccomp.
docs/decisions/0002-seccomp.md says why each part is as it is.

Every system call is judged. What ``PERMITTED`` names passes, what ``DENIED`` names fails as it says there, what
``_by_argument`` names is judged by its arguments, and everything else, in a gap between the numbers or above the last
of them, does not exist: ENOSYS. A new kernel's new entry points are shut until someone has read what they do.
"""

from __future__ import annotations

import errno
import posix

import seccomp

from jailng.linux.libc import MACHINE, words

# What these mount or change is not in their arguments. Where mount(2) is open they do not exist (ENOSYS), for then
# mount(8) falls back to it, and of EPERM it makes "permission denied".
MOUNT_BY_DESCRIPTOR = "fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr"
_MOUNTS = frozenset(["bind", "fs"])

# group, errno, system calls. A group that has a name can be lifted: core/confinement.py, ROWS.
DENIED = (
    ("", errno.EPERM, MOUNT_BY_DESCRIPTOR),
    ("", errno.EPERM, "pivot_root listmount statmount unshare setns"),
    ("", errno.EPERM, "open_by_handle_at name_to_handle_at fanotify_init fanotify_mark quotactl quotactl_fd"),
    ("", errno.EPERM, "add_key request_key keyctl io_uring_setup io_uring_enter io_uring_register"),
    ("", errno.EPERM, "userfaultfd bpf perf_event_open kcmp lsm_get_self_attr lsm_set_self_attr lsm_list_modules"),
    ("", errno.EPERM, "init_module finit_module delete_module kexec_load kexec_file_load swapon swapoff acct"),
    ("", errno.EPERM, "settimeofday clock_settime clock_adjtime adjtimex syslog vhangup ioprio_set"),
    ("", errno.EPERM, "modify_ldt iopl ioperm"),
    # A shorter slice than others have is to be preferred to them, and ng.slice is not the jail's to change.
    ("", errno.EPERM, "sched_setattr"),
    # Where pages lie in the machine, and those of other processes.
    ("", errno.EPERM, "process_madvise move_pages migrate_pages mbind set_mempolicy set_mempolicy_home_node vmsplice"),
    # Its flags lie in memory, out of a filter's sight; told ENOSYS, the C library uses clone(2).
    ("", errno.ENOSYS, "clone3"),
    # Requests are counted against one number for the whole machine, fs.aio-max-nr, which a jail could use up.
    ("", errno.ENOSYS, "io_setup io_destroy io_getevents io_pgetevents io_submit io_cancel"),
    # While such a file is open, mapped or not, the machine does not hibernate (mm/secretmem.c). Its pages are never
    # swapped out, and RLIMIT_MEMLOCK bounds them in some kernels only while they are mapped: allow.mlock does not open
    # it. Kernels without it say this, too.
    ("", errno.ENOSYS, "memfd_secret"),
    # Gone from the kernel, or there for programs of the last century.
    ("", errno.ENOSYS, "uselib ustat sysfs _sysctl create_module get_kernel_syms query_module nfsservctl getpmsg"),
    ("", errno.ENOSYS, "putpmsg afs_syscall tuxcall security lookup_dcookie epoll_ctl_old epoll_wait_old vserver"),
    ("", errno.ENOSYS, "set_thread_area get_thread_area"),
    ("reboot", errno.EPERM, "reboot"),
    ("hostname", errno.EPERM, "sethostname setdomainname"),
    ("debug", errno.EPERM, "ptrace process_vm_readv process_vm_writev pidfd_getfd"),
    # FreeBSD's answer where sysvmsg, sysvsem, sysvshm are "disable".
    ("msg", errno.ENOSYS, "msgget msgsnd msgrcv msgctl"),
    ("sem", errno.ENOSYS, "semget semop semtimedop semctl"),
    ("shm", errno.ENOSYS, "shmat shmdt shmctl"),
)

PERMITTED = """
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek sendfile splice tee copy_file_range
open openat openat2 creat close close_range dup dup2 dup3 flock pipe pipe2
stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 getcwd chdir fchdir chroot umask
getdents getdents64 rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat mkdir mkdirat rmdir
readlink readlinkat mknod mknodat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat
truncate ftruncate fallocate fadvise64 readahead sync fsync fdatasync syncfs sync_file_range cachestat
utime utimes futimesat utimensat inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
setxattr lsetxattr fsetxattr setxattrat getxattr lgetxattr fgetxattr getxattrat
listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat
poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime
mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
bind connect listen accept accept4 shutdown getsockname getpeername getsockopt
sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg
munmap mremap mprotect msync mincore madvise brk remap_file_pages mseal map_shadow_stack
mlock mlock2 munlock mlockall munlockall pkey_mprotect pkey_alloc pkey_free membarrier get_mempolicy
fork vfork execve execveat exit exit_group wait4 waitid process_mrelease pidfd_open pidfd_send_signal
getpid getppid gettid getpgid getpgrp setpgid getsid setsid set_tid_address arch_prctl rseq restart_syscall
getuid geteuid getgid getegid setuid setgid setreuid setregid setresuid setresgid getresuid getresgid
setfsuid setfsgid getgroups capget capset seccomp
landlock_create_ruleset landlock_add_rule landlock_restrict_self
kill tkill tgkill rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigqueueinfo
rt_tgsigqueueinfo rt_sigsuspend sigaltstack pause alarm uretprobe
futex futex_waitv futex_wait futex_wake futex_requeue set_robust_list get_robust_list
nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getitimer setitimer
timer_create timer_settime timer_gettime timer_getoverrun timer_delete
sched_yield sched_setparam sched_getparam sched_getscheduler sched_getattr
sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_setaffinity sched_getaffinity
getpriority setpriority ioprio_get getcpu getrandom getrlimit getrusage uname sysinfo
"""

BY_ARGUMENT = (
    "socket socketpair setsockopt clone ioctl fcntl personality prctl setrlimit prlimit64 mount umount2"
    " sched_setscheduler mmap memfd_create shmget setgroups"
)

# What core/confinement.py may ask to be lifted: the named groups above, and these of the rules on arguments.
LIFTS = frozenset(
    [group for group, _, _ in DENIED if group]
    + "raw families inet4 inet6 core bind fs vnet stack uevents nounix noroute hostnet huge".split()
)

Block = list[tuple[int, int, int, int]]  # struct sock_filter: code, jump if true, jump if false, k

_LD, _JEQ, _JGT, _JGE, _JSET, _AND, _RET = 0x20, 0x15, 0x25, 0x35, 0x45, 0x54, 0x06
_NR, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets into struct seccomp_data
_RET_ERRNO = 0x00050000
_ALLOW: Block = [(_RET, 0, 0, 0x7FFF0000)]
_ASK: Block = [(_RET, 0, 0, 0x7FC00000)]  # SECCOMP_RET_USER_NOTIF: fails with ENOSYS where nobody listens
_KILL_PROCESS: Block = [(_RET, 0, 0, 0x80000000)]
_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK, _AF_PACKET = 1, 2, 10, 16, 17
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_RAW, _SOCK_PACKET = 1, 2, 3, 10
_SOCK_TYPE_MASK = 0xF  # the rest of the word is SOCK_NONBLOCK and SOCK_CLOEXEC
_NETLINK_ROUTE, _NETLINK_CONNECTOR, _NETLINK_NETFILTER, _NETLINK_KOBJECT_UEVENT, _NETLINK_GENERIC = 0, 11, 12, 15, 16
_STREAM_PROTOCOLS = (0, 6, 262)  # default, TCP, MPTCP
_DGRAM_PROTOCOLS = (0, 17, 136)  # default, UDP, UDP-Lite
_PING_PROTOCOLS = (1, 58)  # ICMP, ICMPv6

_SOL_SOCKET = 1
# SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF
_PROGRAMS = (26, 50, 51, 52)
_SOL_IPV6, _IPV6_FLOWLABEL_MGR = 41, 32
# TCP_ULP, which makes another protocol of a connection (smc, espintcp, tls); TCP_AO_ADD_KEY, _DEL_KEY, _INFO, _REPAIR
# (Linux 6.7)
_IPPROTO_TCP, _TCP_OTHERS = 6, (31, 38, 39, 40, 42)
_IPPROTO_IP, _MRT_INIT = 0, 200  # and MRT6_INIT
_UDP, _UDP_ENCAP = (17, 136), 100  # UDP and UDP-Lite
_SOL_PACKET, _PACKET_QDISC_BYPASS = 263, 20
_WITH_PROGRAMS = frozenset("raw families vnet uevents".split())  # of packets, of protocols, of udev's messages

# CLONE_NEWTIME is missing: in clone(2)'s word its bit is one of the exit signal's.
_CLONE_NEW = 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000
# Whoever has entered is a child of a process of the host's, and what he makes so is one as well: a zombie there until
# somebody waits for it, and once that process has gone a child of the host's init, which hears of each that ends.
_CLONE_PARENT = 0x8000

_IOCTLS = (
    0x5412,  # TIOCSTI: types into a terminal
    0x541C,  # TIOCLINUX: pastes into a virtual console
    0x541D,  # TIOCCONS: takes the host's console output
    0x5423,  # TIOCSETD: loads line disciplines (n_gsm, slip, ...), each a driver that reads what the jail writes
    0x50009401,  # BTRFS_IOC_SNAP_CREATE
    0x50009417,  # BTRFS_IOC_SNAP_CREATE_V2
    0x5000940E,  # BTRFS_IOC_SUBVOL_CREATE: a subvolume made inside has no quota group
    0x50009418,  # BTRFS_IOC_SUBVOL_CREATE_V2
)
# What reaches the hardware of an interface, for whoever has CAP_NET_ADMIN over the network namespace that it is in: its
# firmware and EEPROM (ethtool(8)), its transceiver, and what drivers have thought of. Here they are unknown, as to an
# interface that is none: libpcap takes no other error.
_IOCTLS_OF_HARDWARE = (
    0x8946,  # SIOCETHTOOL
    0x8949,  # SIOCSMIIREG
    0x894A,  # SIOCWANDEV
    *range(0x89F0, 0x8A00),  # SIOCDEVPRIVATE
)
# Bridges and VLANs, by a socket of whatever family: without the code for them the kernel has a module loaded before it
# asks for any privilege (sock_ioctl() and br_ioctl_call(), net/socket.c). With vnet none is loaded (core/modules.py).
_IOCTLS_OF_MODULES = (
    0x8940,  # SIOCGIFBR
    0x8941,  # SIOCSIFBR
    0x8982,  # SIOCGIFVLAN
    0x8983,  # SIOCSIFVLAN
    0x89A0,  # SIOCBRADDBR
    0x89A1,  # SIOCBRDELBR
)
# What is of the host's file system as a whole, by type and number, since the size is part of the rest: its UUID, label,
# name or devices, what of it is in use and where, and keys that it keeps when the jail has gone (fscrypt).
_IOCTLS_OF_FILE_SYSTEM = (
    0x1500,  # FS_IOC_GETFSUUID
    0x1501,  # FS_IOC_GETFSSYSFSPATH
    0x583B,  # FS_IOC_GETFSMAP
    *(0x660B, 0x662A, 0x5826, 0x5838),  # FS_IOC_FIEMAP, EXT4_IOC_GET_ES_CACHE, XFS_IOC_GETBMAP(X): where a file lies
    0x6614,  # FS_IOC_GET_ENCRYPTION_PWSALT: where there is none yet it is written into the superblock
    0x6617,  # FS_IOC_ADD_ENCRYPTION_KEY
    0x662C,  # EXT4_IOC_GETFSUUID
    0x662D,  # EXT4_IOC_GET_TUNE_SB_PARAM
    *(0x5864, 0x587C, 0x587E),  # XFS_IOC_FSGEOMETRY, of three versions
    *(0x583D, 0x5871),  # XFS_IOC_AG_GEOMETRY, XFS_IOC_FSCOUNTS
    *(0x5868, 0x5869, 0x586A),  # XFS_IOC_PATH_TO_FSHANDLE, PATH_TO_HANDLE, FD_TO_HANDLE: the UUID is in them
    *(0x9414, 0x941E, 0x941F, 0x9434),  # BTRFS_IOC_SPACE_INFO, DEV_INFO, FS_INFO, GET_DEV_STATS
    *(0x943C, 0x943D),  # BTRFS_IOC_GET_SUBVOL_INFO, GET_SUBVOL_ROOTREF: names and UUIDs of the host's subvolumes
    0x9412,  # BTRFS_IOC_INO_LOOKUP: the number of the subvolume, too
    0x9431,  # FS_IOC_GETFSLABEL
)
# F_SETLEASE and F_SETDELEG of fcntl(2): who opens the file, on the host too, waits up to 45 seconds for it to be given
# back, and may have to again. It takes to own the file, and all that is root's in a tree is the jail's root's, be it
# mounted read-only.
_LEASES = (1024, 1040)

# FreeBSD's, with the effective one (NGROUPS_MAX). With Linux's 65,536, /proc/PID/status of each process is half a
# megabyte, which takes whoever looks at processes on the host, ps(1) too, 10 ms of the kernel's to read.
_MOST_GROUPS = 1024

# SIOCGIFNAME, -CONF, -FLAGS, -ADDR, -DSTADDR, -BRDADDR, -NETMASK, -METRIC, -MTU, -HWADDR, -INDEX, -TXQLEN, -MAP
_IOCTLS_THAT_ASK = (
    *(0x8910, 0x8912, 0x8913, 0x8915, 0x8917, 0x8919, 0x891B, 0x891D, 0x8921, 0x8927, 0x8933, 0x8942, 0x8970),
)
_SIOCADDRT, _SIOCPRIVATE_LAST = 0x890B, 0x8BFF  # with SIOCGIFCONF, SIOCETHTOOL, SIOCGARP, wireless(7) between them

_MS_REMOUNT, _MS_BIND, _MS_MOVE = 0x20, 0x1000, 0x2000
_MS_PROPAGATION = 0x20000 | 0x40000 | 0x80000 | 0x100000  # unbindable, private, slave, shared
_MS_MGC_VAL, _MS_MGC_MSK = 0xC0ED0000, 0xFFFF0000  # of before Linux 2.4; mount(8) adds it still, the kernel drops it

# Whoever has a cookie has the other threads of his core wait for him, in which time nobody else runs there.
_PR_SCHED_CORE = 62
_PRCTLS_BY_NAME = (0x41555856, 0x53564D41, 0x59616D61)  # PR_GET_AUXV, PR_SET_VMA, PR_SET_PTRACER
_LAST_PRCTL = 78  # PR_FUTEX_HASH, of Linux 6.16: as of system calls, what is newer is not there
# Huge pages are of one pool, that the host's administrator has set aside, and of no jail's memory (hugetlb is a
# controller of its own). Who finds it empty is told ENOMEM; where the kernel has none memfd_create(2) is told ENOSYS.
_MAP_HUGETLB, _MFD_HUGETLB, _SHM_HUGETLB = 0x40000, 0x4, 0o4000
_SCHED_RESET_ON_FORK = 0x40000000  # what is forked has the kernel's own slice again
_RLIMIT_CORE = 4
_PERSONALITY_QUERY = 0xFFFFFFFF
_PERSONALITIES = 0x8 | 0x20000 | 0x40000  # PER_LINUX32, UNAME26 (setarch), ADDR_NO_RANDOMIZE (gdb)


def _deny(number: int) -> Block:
    return [(_RET, 0, 0, _RET_ERRNO | number)]


def _load(argument: int, half: int = 0) -> Block:
    """Load an argument's low 32 bits, all that the kernel looks at of an ``int``: the other half may hold anything."""
    return [(_LD, 0, 0, _ARGUMENTS + 8 * argument + 4 * half)]


def _when_null(pointer: int, block: Block) -> Block:
    """Run ``block``, which ends in a return, if the argument is a null pointer."""
    low = _load(pointer, 1) + _when((0,), block)
    return [*_load(pointer), (_JEQ, 0, len(low), 0), *low]


def _when(values: tuple[int, ...], block: Block, code: int = _JEQ) -> Block:
    """Run ``block``, which ends in a return, if the loaded word is (or by ``code``: relates to) one of the values."""
    last = len(values) - 1
    tests = [(code, last - i, len(block) if i == last else 0, value) for i, value in enumerate(values)]
    return tests + block


def _inet(lifted: frozenset[str]) -> Block:
    """socket(2) of an available internet family; of the host's stack, the jail's broker makes it (core/stack.py)."""
    if "stack" in lifted:
        return _of_host(lifted)
    foreign = "families" in lifted
    raw = _ALLOW if "raw" in lifted else _deny(errno.EPERM)
    protocol = _ALLOW if foreign else _deny(errno.EPROTONOSUPPORT)
    stream = _load(2) + _when(_STREAM_PROTOCOLS, _ALLOW) + protocol
    dgram = _load(2) + _when(_DGRAM_PROTOCOLS, _ALLOW) + _when(_PING_PROTOCOLS, raw) + protocol
    return [
        *_load(1),
        (_AND, 0, 0, _SOCK_TYPE_MASK),
        *_when((_SOCK_STREAM,), stream),
        *_when((_SOCK_DGRAM,), dgram),
        *_when((_SOCK_RAW,), raw),
        *_when((_SOCK_PACKET,), raw if foreign else _deny(errno.EPERM)),  # the kernel makes an AF_PACKET of it
        *(_ALLOW if foreign else _deny(errno.ESOCKTNOSUPPORT)),
    ]


def _of_host(lifted: frozenset[str]) -> Block:
    """TCP and UDP, and raw sockets: of other protocols the programs on the broker's cgroup do not see every way."""
    raw = _ASK if "raw" in lifted else _deny(errno.EPERM)
    protocol = _deny(errno.EPROTONOSUPPORT)
    return [
        *_load(1),
        (_AND, 0, 0, _SOCK_TYPE_MASK),
        *_when((_SOCK_STREAM,), _load(2) + _when(_STREAM_PROTOCOLS[:2], _ASK) + protocol),
        *_when((_SOCK_DGRAM,), _load(2) + _when(_DGRAM_PROTOCOLS[:2], _ASK) + _when(_PING_PROTOCOLS, raw) + protocol),
        *_when((_SOCK_RAW,), raw),
        *_when((_SOCK_PACKET,), _deny(errno.EPERM)),
        *_deny(errno.ESOCKTNOSUPPORT),
    ]


def _no_inet(lifted: frozenset[str]) -> Block:
    """socket(2) of an internet family that the jail has no address of.

    Raw and ping sockets say first that they are not permitted: ping(8) tries IPv4, then IPv6, and tells of the last.
    """
    missing = _deny(errno.EAFNOSUPPORT)
    if "raw" in lifted:
        return missing
    refused = _deny(errno.EPERM)
    return [
        *_load(1),
        (_AND, 0, 0, _SOCK_TYPE_MASK),
        *_when((_SOCK_RAW,), refused),
        *_when((_SOCK_DGRAM,), _load(2) + _when(_PING_PROTOCOLS, refused) + missing),
        *missing,
    ]


def _socket(lifted: frozenset[str]) -> Block:
    """socket(2): unix, inet, inet6 and netlink's route, as FreeBSD's jails have unix, inet, inet6 and route."""
    other = _ALLOW if "families" in lifted else _deny(errno.EAFNOSUPPORT)
    packet = other if "raw" in lifted or "families" not in lifted else _deny(errno.EPERM)
    netlink: tuple[int, ...] = (_NETLINK_ROUTE,)
    if "vnet" in lifted:
        # What a generic family does to more than the caller's network namespace it does for the host's root alone
        # (GENL_ADMIN_PERM, and netnsok); the others are asked as NETLINK_ROUTE is.
        packet, netlink = _ALLOW, (_NETLINK_ROUTE, _NETLINK_NETFILTER, _NETLINK_GENERIC)
    if "uevents" in lifted:
        netlink = (*netlink, _NETLINK_KOBJECT_UEVENT)
    unavailable = _deny(errno.EAFNOSUPPORT)
    others = other
    if "hostnet" in lifted:
        # Whoever is in the initial network namespace hears there of all processes (cn_proc) and devices of the machine.
        others = _when((_NETLINK_CONNECTOR, _NETLINK_KOBJECT_UEVENT), unavailable) + other
    here = tuple(family for family, name in ((_AF_INET, "inet4"), (_AF_INET6, "inet6")) if name in lifted)
    away = tuple(family for family in (_AF_INET, _AF_INET6) if family not in here)
    return [
        *_load(0),
        *_when((_AF_UNIX,), unavailable if "nounix" in lifted else _ALLOW),
        *(_when(here, _inet(lifted)) if here else []),
        *(_when(away, _no_inet(lifted)) if away else []),
        *_when((_AF_NETLINK,), _load(2) + _when(netlink, unavailable if "noroute" in lifted else _ALLOW) + others),
        *_when((_AF_PACKET,), packet),
        *other,
    ]


def _of_interfaces() -> Block:
    """ioctl(2) of a socket of the host's stack tells of the host's interfaces, routes and neighbours: netdevice(7).

    What programs ask, the broker asks in the jail's own network namespace.
    """
    refused = _when(_IOCTLS_THAT_ASK, _ASK) + _deny(errno.EPERM)
    return [(_JGE, 0, len(refused) + 1, _SIOCADDRT), (_JGT, len(refused), 0, _SIOCPRIVATE_LAST), *refused]


def _socketpair(lifted: frozenset[str]) -> Block:
    """socketpair(2): unix."""
    unavailable = _deny(errno.EAFNOSUPPORT)
    unix = _when((_AF_UNIX,), unavailable if "nounix" in lifted else _ALLOW)
    return _load(0) + unix + (_ALLOW if "families" in lifted else unavailable)


def _setsockopt(lifted: frozenset[str]) -> Block:
    """setsockopt(2): programs for sockets only where there are such that need them, no flow labels to keep, no TCP-AO,
    no other protocol in the place of TCP or in UDP, no routing of multicast but with vnet, and no sending past those
    who look at what leaves (TCX, by which ng.watch takes the packets of an interface without an end on the host).

    What the kernel compiles these to is no jail's memory, and counted against one number for the machine; and so are
    the labels (FL_MAX_SIZE, net/ipv6/ip6_flowlabel.c). With a key of TCP-AO comes the name of an algorithm, any that
    the kernel has or has a module for, and no privilege is asked for (tcp_ao_key_alloc(), net/ipv4/tcp_ao.c). Nor is it
    for TCP_ULP and UDP_ENCAP, nor, of who has a raw socket, for MRT_INIT, after which he may route (net/ipv4/ipmr.c).
    """
    refused = _deny(errno.EPERM)
    routing = () if "vnet" in lifted else (_MRT_INIT,)
    judged = _load(1) + _when((_SOL_IPV6,), _load(2) + _when((_IPV6_FLOWLABEL_MGR, *routing), refused) + _ALLOW)
    if routing:
        judged += _when((_IPPROTO_IP,), _load(2) + _when(routing, refused) + _ALLOW)
    if "families" not in lifted:  # which opens AF_ALG, and SMC
        judged += _when((_IPPROTO_TCP,), _load(2) + _when(_TCP_OTHERS, _deny(errno.ENOPROTOOPT)) + _ALLOW)
        if "vnet" not in lifted:  # whose root can have IPsec
            judged += _when(_UDP, _load(2) + _when((_UDP_ENCAP,), _deny(errno.ENOPROTOOPT)) + _ALLOW)
    if lifted & {"vnet", "families"}:  # who has packet sockets
        judged += _when((_SOL_PACKET,), _load(2) + _when((_PACKET_QDISC_BYPASS,), _deny(errno.ENOPROTOOPT)) + _ALLOW)
    programs = _load(2) + _when(_PROGRAMS, refused) + _ALLOW
    return judged + ([] if lifted & _WITH_PROGRAMS else _when((_SOL_SOCKET,), programs)) + _ALLOW


def _mount(lifted: frozenset[str]) -> Block:
    """mount(2), in the kernel's own order (path_mount() in fs/namespace.c): what it does is in its flags.

    A remount with MS_BIND changes the flags of one mount, and those of a mount that the jail was given are locked. One
    without is of the file system, for whose user namespace owns it. Nothing moves, and nothing propagates. Which file
    system is mounted is a string, out of a filter's sight: linux/lsm.py.
    """
    refused = _deny(errno.EPERM)
    bind = _ALLOW if "bind" in lifted else refused
    new = _ALLOW if "fs" in lifted else refused
    judged = [
        *_when((_MS_REMOUNT,), _when((_MS_BIND,), _unmount(lifted), _JSET) + new, _JSET),
        *_when((_MS_BIND,), bind, _JSET),
        *_when((_MS_MOVE | _MS_PROPAGATION,), refused, _JSET),
        *new,
    ]
    old = [*_load(3), (_AND, 0, 0, 0xFFFFFFFF & ~_MS_MGC_MSK), *judged]
    return [*_load(3), (_AND, 0, 0, _MS_MGC_MSK), *_when((_MS_MGC_VAL,), old), *_load(3), *judged]


def _unmount(lifted: frozenset[str]) -> Block:
    """umount2(2): whoever may mount may unmount; what the jail was given is locked (MNT_LOCKED)."""
    return _ALLOW if lifted & _MOUNTS else _deny(errno.EPERM)


def _core_limit(new: int, old: int | None) -> Block:
    """setrlimit(2) and prlimit(2): the limit of a core stays 1, and whoever asks for another is told that he has it.

    They ask for 0, and ssh-agent, gpg and others end when they are refused. Who wants the old limit too can only be
    refused.
    """
    unchanged = _deny(0)
    if old is not None:
        unchanged = _when_null(new, _ALLOW) + _when_null(old, unchanged) + _deny(errno.EPERM)
    return _load(new - 1) + _when((_RLIMIT_CORE,), unchanged) + _ALLOW


def _shmget(lifted: frozenset[str]) -> Block:
    """shmget(2): none at all, or no huge pages, which whoever is in the host's group 0 may have without a limit."""
    if "shm" not in lifted:
        return _deny(errno.ENOSYS)
    return _ALLOW if "huge" in lifted else _load(2) + _when((_SHM_HUGETLB,), _deny(errno.EPERM), _JSET) + _ALLOW


def _by_argument(lifted: frozenset[str]) -> dict[str, Block]:
    """The system calls that are judged by their arguments, each with a block that ends in a return."""
    forbidden = 0xFFFFFFFF & ~_PERSONALITIES
    huge = "huge" in lifted
    return {
        # The first, as it is asked for most.
        "mmap": _ALLOW if huge else _load(3) + _when((_MAP_HUGETLB,), _deny(errno.ENOMEM), _JSET) + _ALLOW,
        "memfd_create": _ALLOW if huge else _load(1) + _when((_MFD_HUGETLB,), _deny(errno.ENOSYS), _JSET) + _ALLOW,
        "socket": _socket(lifted),
        "socketpair": _socketpair(lifted),
        "setsockopt": _setsockopt(lifted),
        "clone": _load(0) + _when((_CLONE_NEW | _CLONE_PARENT,), _deny(errno.EPERM), _JSET) + _ALLOW,
        "ioctl": [
            *_load(1),
            *_when(_IOCTLS, _deny(errno.EPERM)),
            *(
                _when(_IOCTLS_OF_HARDWARE, _deny(errno.EOPNOTSUPP))
                if "vnet" in lifted
                else _when(_IOCTLS_OF_MODULES, _deny(errno.EPERM))
            ),
            *(_of_interfaces() if "stack" in lifted else []),
            (_AND, 0, 0, 0xFFFF),
            *_when(_IOCTLS_OF_FILE_SYSTEM, _deny(errno.ENOTTY)),
            *_ALLOW,
        ],
        "fcntl": _load(1) + _when(_LEASES, _deny(errno.EINVAL)) + _ALLOW,
        "personality": [
            *_load(0),
            *_when((_PERSONALITY_QUERY,), _ALLOW),
            *_when((forbidden,), _deny(errno.EPERM), _JSET),
            *_ALLOW,
        ],
        "prctl": [
            *_load(0),
            *_when((_PR_SCHED_CORE,), _deny(errno.EINVAL)),
            *_when(_PRCTLS_BY_NAME, _ALLOW),
            *_when((_LAST_PRCTL,), _deny(errno.EINVAL), _JGT),
            *_ALLOW,
        ],
        "setrlimit": _ALLOW if "core" in lifted else _core_limit(1, None),
        "prlimit64": _ALLOW if "core" in lifted else _core_limit(2, 3),
        "mount": _mount(lifted),
        "umount2": _unmount(lifted),
        "shmget": _shmget(lifted),
        "sched_setscheduler": _load(1) + _when((_SCHED_RESET_ON_FORK,), _deny(errno.EPERM), _JSET) + _ALLOW,
        "setgroups": _load(0) + _when((_MOST_GROUPS,), _deny(errno.EINVAL), _JGT) + _ALLOW,
    }


def numbers(names: str, machine: str = MACHINE) -> dict[str, int]:
    """The numbers of these system calls, without those that ``machine`` has not (libseccomp's are negative then)."""
    arch = seccomp.Arch(machine)
    found = {name: int(seccomp.resolve_syscall(arch, name)) for name in names.split()}
    return {name: number for name, number in found.items() if number >= 0}


def _gaps(known: list[int]) -> list[tuple[int, int]]:
    """The runs of numbers, first and last, that lie between those that are known."""
    ordered = sorted(known)
    return [(low + 1, high - 1) for low, high in zip([-1, *ordered], ordered, strict=False) if high - low > 1]


def _prologue(lifted: frozenset[str], machine: str) -> Block:
    """What libseccomp has no words for: ranges of numbers, and "anything but these" of an argument's low half."""
    judged = PERMITTED + BY_ARGUMENT + "".join([" " + names for _, _, names in DENIED])
    known = list(numbers(judged, machine).values())
    missing = _deny(errno.ENOSYS)
    code: Block = [(_LD, 0, 0, _ARCH), (_JEQ, 1, 0, _ARCHES[machine]), *_KILL_PROCESS, (_LD, 0, 0, _NR)]
    # A tracer writes -1 over a call that it answers itself; an errno of ours would overwrite the answer.
    code += _when((0xFFFFFFFF,), _ALLOW)
    code += _when((max(known),), missing, _JGT)  # x32's numbers, from 0x40000000 up, are among these
    for name, block in _by_argument(lifted).items():
        code += _when((numbers(name, machine)[name],), block)
    for low, high in _gaps(known):  # last: these are asked for least
        code += [(_JGE, 0, 2, low), (_JGT, 1, 0, high), *missing]
    return code


def _exported(rules: seccomp.SyscallFilter) -> bytes:
    """What libseccomp makes of its rules. It writes to a file; to memory only since 2.6, and Debian 12 has 2.5."""
    with open(posix.memfd_create("seccomp"), "w+b", buffering=0) as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def build(lifted: frozenset[str], machine: str = MACHINE) -> bytes:
    """The program, as struct sock_filter records, with the rules lifted that ``lifted`` names (of ``LIFTS``).

    Deterministic. Raises ValueError for an unknown name, and what libseccomp raises.
    """
    if not lifted <= LIFTS:
        raise ValueError(f"no such rules: {' '.join(sorted(lifted - LIFTS))}")
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    arch = seccomp.Arch(machine)
    if not rules.exist_arch(arch):
        rules.add_arch(arch)
        rules.remove_arch(seccomp.Arch())
    rules.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    rules.set_attr(seccomp.Attr.CTL_OPTIMIZE, 2)  # a binary tree over the numbers
    for group, error, names in DENIED:
        if names is MOUNT_BY_DESCRIPTOR and lifted & _MOUNTS:
            error = errno.ENOSYS
        if group not in lifted:
            for name in numbers(names, machine):
                rules.add_rule_exactly(seccomp.ERRNO(error), name)
    prologue = _prologue(lifted, machine)
    packed = [words(code, size=2) + bytes((yes, no)) + words(k, size=4) for code, yes, no, k in prologue]
    return b"".join(packed) + _exported(rules)
