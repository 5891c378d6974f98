"""The filter in the kernel: each denied call is made, by real root with every capability, and is denied.

Each is also made without the filter, where it must end otherwise: so no test passes because the call would have failed.
The arguments are such that nothing comes of a call that is let through.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import signal
from collections.abc import Iterable

import pytest

from jailng.core import filter as filters
from tests.kernel import confined
from tests.kernel.confined import call, child
from tests.kernel.networks import Socket
from tests.kernel.stage import CLONE_NEWNET, unshare

DEFAULT = frozenset({"debug", "inet4", "inet6", "core"})
ALL = (1 << 64) - 1
HIGH = 0xDEADBEEF << 32
NAME = ctypes.create_string_buffer(b"name")
NR = filters.numbers(filters.PERMITTED + filters.BY_ARGUMENT + " " + " ".join([row[2] for row in filters.DENIED]))

EPERM = """
    mount umount2 pivot_root fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr listmount statmount
    unshare setns open_by_handle_at name_to_handle_at fanotify_init fanotify_mark quotactl quotactl_fd
    add_key request_key keyctl io_uring_setup io_uring_enter io_uring_register userfaultfd bpf perf_event_open kcmp
    lsm_get_self_attr lsm_set_self_attr lsm_list_modules init_module finit_module delete_module kexec_load
    kexec_file_load reboot swapon swapoff acct settimeofday clock_settime clock_adjtime adjtimex syslog vhangup
    ioprio_set sched_setattr modify_ldt iopl ioperm process_madvise move_pages migrate_pages mbind set_mempolicy
    set_mempolicy_home_node vmsplice sethostname setdomainname ptrace process_vm_readv process_vm_writev pidfd_getfd
""".split()
ENOSYS = (
    "clone3 sysfs msgget msgsnd msgrcv msgctl semget semop semtimedop semctl shmget shmat shmdt shmctl ustat "
    "io_setup io_destroy io_getevents io_pgetevents io_submit io_cancel".split()
)
# Not in this kernel, whoever asks; memfd_secret: not in every one (CONFIG_SECRETMEM, secretmem.enable).
ABSENT = """
    uselib _sysctl create_module get_kernel_syms query_module nfsservctl getpmsg putpmsg afs_syscall tuxcall security
    lookup_dcookie epoll_ctl_old epoll_wait_old vserver set_thread_area get_thread_area
    memfd_secret
""".split()
LIFTED = {
    "hostname": "sethostname setdomainname",
    "reboot": "reboot",
    "debug": "ptrace process_vm_readv process_vm_writev pidfd_getfd",
    "msg": "msgget msgsnd msgrcv msgctl",
    "sem": "semget semop semtimedop semctl",
    "shm": "shmat shmdt shmctl",
}
# -1 everywhere is a bad pointer, descriptor, pid, flag and command; but not a bad key.
ARGUMENTS = {"msgget": (0x6A6E, 0), "semget": (0x6A6E, 1, 0), "shmget": (0x6A6E, 4096, 0)}

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET = 1, 2, 10, 16, 17
STREAM, DGRAM, RAW, SEQPACKET, PACKET = 1, 2, 3, 5, 10


def attempt(lifted: Iterable[str] | None, *calls: tuple[str, tuple[int, ...]]) -> list[int]:
    """The errnos of these calls under the filter with these rules lifted, or without a filter."""

    def body() -> list[int]:
        os.setsid()  # vhangup(2) hangs up nobody then
        if lifted is not None:
            confined.attach(filters.build(frozenset(lifted)))
        return [call(NR[name], *arguments) for name, arguments in calls]

    found: list[int] = child(body)
    return found


def denied(name: str) -> tuple[str, tuple[int, ...]]:
    return name, ARGUMENTS.get(name, (ALL,) * 6)


def here(names: list[str]) -> list[str]:
    """Those that this machine has."""
    return [name for name in names if name in NR]


@pytest.fixture(scope="module")
def under_filter() -> dict[str, int]:
    names = here(EPERM + ENOSYS + ABSENT)
    return dict(zip(names, attempt([], *[denied(name) for name in names]), strict=True))


@pytest.fixture(scope="module")
def without_filter() -> dict[str, int]:
    names = here(EPERM + ENOSYS + ABSENT)
    return dict(zip(names, attempt(None, *[denied(name) for name in names]), strict=True))


def test_every_denied_call_is_tried() -> None:
    tried = {*EPERM, *ENOSYS, *ABSENT}
    tried -= {"mount", "umount2", "shmget"}  # judged by what is lifted: test_allow_mount.py, and below
    assert sorted(tried) == sorted([name for _, _, names in filters.DENIED for name in names.split()])
    assert {group: set(names.split()) for group, names in LIFTED.items()} == {
        group: {name for other, _, names in filters.DENIED if other == group for name in names.split()}
        for group, _, _ in filters.DENIED
        if group
    }


@pytest.mark.parametrize("name", here(EPERM))
def test_not_permitted(name: str, under_filter: dict[str, int], without_filter: dict[str, int]) -> None:
    assert under_filter[name] == errno.EPERM
    assert without_filter[name] != errno.EPERM, "this root lacks the privilege itself: the test proves nothing"


@pytest.mark.parametrize("name", here(ENOSYS))
def test_not_there(name: str, under_filter: dict[str, int], without_filter: dict[str, int]) -> None:
    assert under_filter[name] == errno.ENOSYS
    assert without_filter[name] != errno.ENOSYS


@pytest.mark.parametrize("name", here(ABSENT))
def test_obsolete(name: str, under_filter: dict[str, int]) -> None:
    assert under_filter[name] == errno.ENOSYS


@pytest.mark.parametrize("group", LIFTED)
def test_a_rule_that_is_lifted(group: str, without_filter: dict[str, int]) -> None:
    names = here(LIFTED[group].split())
    assert attempt([group], *[denied(name) for name in names]) == [without_filter[name] for name in names]


def test_new_system_calls_are_shut() -> None:
    """open_tree_attr(2) of Linux 6.15 is a mount call that this filter was never told of."""

    def body() -> list[int]:
        before = call(467, ALL, ALL, ALL, ALL, ALL)
        confined.attach(filters.build(filters.LIFTS))
        return [
            before,
            *[call(number, ALL, ALL, ALL, ALL, ALL, ALL) for number in (467, 468, 469, 470, 600, 0x40000027)],
        ]

    before, *after = child(body)
    assert after == [errno.ENOSYS] * 6
    if tuple(map(int, platform.release().split(".")[:2])) >= (6, 15):
        assert before != errno.ENOSYS


@pytest.mark.skipif(platform.machine() != "x86_64", reason="int 0x80 is i386's")
def test_a_32_bit_call_kills() -> None:
    code = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax, 20 (getpid); int 0x80; ret
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    getpid = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))

    def natively() -> bool:
        return bool(getpid() == os.getpid())

    def filtered() -> bool:
        confined.attach(filters.build(DEFAULT))
        return natively()

    try:
        assert child(natively)
    except AssertionError:
        pytest.skip("this kernel has no 32-bit calls")
    with pytest.raises(AssertionError, match=signal.SIGSYS.name):
        child(filtered)


# --- sockets


def socket(family: int, kind: int, protocol: int = 0) -> tuple[str, tuple[int, ...]]:
    return "socket", (family, kind, protocol)


USUAL = [
    socket(AF_UNIX, STREAM),
    socket(AF_UNIX, DGRAM | 0o2004000),
    socket(AF_UNIX, SEQPACKET),
    socket(AF_INET, STREAM),
    socket(AF_INET, STREAM | 0o2000000, 6),
    socket(AF_INET, DGRAM | 0o4000, 17),
    socket(AF_INET6, STREAM),
    socket(AF_INET6, DGRAM, 17),
    socket(AF_NETLINK, RAW, 0),
    socket(AF_NETLINK, DGRAM | 0o2000000, 0),
    ("socketpair", (AF_UNIX, STREAM, 0, 0)),  # EFAULT: the kernel looked at it
]


def test_usual_sockets_are_as_without_a_filter() -> None:
    expected = [0] * (len(USUAL) - 1) + [errno.EFAULT]
    assert attempt(DEFAULT, *USUAL) == attempt(None, *USUAL) == expected


RAW_SOCKETS = [socket(AF_INET, RAW, 1), socket(AF_INET6, RAW | 0o2000000, 58)]


def test_raw_sockets() -> None:
    assert attempt(DEFAULT, *RAW_SOCKETS) == [errno.EPERM] * 2
    assert attempt(DEFAULT | {"raw"}, *RAW_SOCKETS) == attempt(None, *RAW_SOCKETS) == [0] * 2


def test_ping_sockets() -> None:
    """With net.ipv4.ping_group_range open for all, as some distributions have it."""
    pings = [socket(AF_INET, DGRAM, 1), socket(AF_INET6, DGRAM | 0o4000, 58)]

    def body() -> list[int]:
        unshare(CLONE_NEWNET)
        with open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
            file.write("0 2147483647")
        before = [call(NR["socket"], *arguments) for _, arguments in pings]
        confined.attach(filters.build(DEFAULT))
        return before + [call(NR["socket"], *arguments) for _, arguments in pings]

    assert child(body) == [0, 0, errno.EPERM, errno.EPERM]


PACKETS = [socket(AF_PACKET, RAW, 0x300), socket(AF_PACKET, DGRAM), socket(AF_INET, PACKET, 0x300)]


def test_packet_sockets() -> None:
    assert attempt(DEFAULT, *PACKETS) == [errno.EAFNOSUPPORT, errno.EAFNOSUPPORT, errno.EPERM]
    assert attempt(DEFAULT | {"raw"}, *PACKETS) == [errno.EAFNOSUPPORT, errno.EAFNOSUPPORT, errno.EPERM]
    assert attempt(DEFAULT | {"families"}, *PACKETS) == [errno.EPERM] * 3
    assert attempt(DEFAULT | {"families", "raw"}, *PACKETS) == attempt(None, *PACKETS) == [0] * 3


def test_no_news_of_the_machine_in_the_host_s_network() -> None:
    """In the initial network namespace whoever binds such a socket hears of all processes (cn_proc) and devices."""
    news = [socket(AF_NETLINK, RAW, protocol) for protocol in (11, 15)]
    others = [socket(AF_NETLINK, RAW, protocol) for protocol in (0, 4, 16)]
    with_families = DEFAULT | {"families"}
    assert attempt(with_families | {"hostnet"}, *news, *others) == [errno.EAFNOSUPPORT] * 2 + [0] * 3
    assert attempt(with_families, *news) == attempt(None, *news) == [0] * 2


def test_netlink_of_the_routing_table_only() -> None:
    others = [socket(AF_NETLINK, RAW, protocol) for protocol in (4, 12, 15, 16)]  # sock_diag nfnetlink uevent generic
    assert attempt(DEFAULT, *others) == [errno.EAFNOSUPPORT] * 4
    assert attempt(DEFAULT | {"families"}, *others) == attempt(None, *others)
    assert 0 in attempt(None, *others)


def test_no_other_family() -> None:
    """Where this kernel has one, that is: AF_ALG, AF_VSOCK, AF_KEY, AF_XDP, Bluetooth, CAN, TIPC, RDS, SMC."""
    calls = [
        socket(family, kind) for family in range(3, 64) if family not in (10, 16) for kind in (STREAM, DGRAM, RAW, 5)
    ]
    assert attempt(DEFAULT | {"raw"}, *calls) == [errno.EAFNOSUPPORT] * len(calls)


@pytest.mark.parametrize(("lifted", "other"), [("inet4", AF_INET6), ("inet6", AF_INET)])
def test_a_family_without_an_address(lifted: str, other: int) -> None:
    calls = [socket(other, STREAM), socket(other, DGRAM), socket(other, RAW, 1)]
    assert attempt({lifted, "raw", "families"}, *calls) == [errno.EAFNOSUPPORT] * 3
    assert attempt(None, *calls)[:2] == [0, 0]


def test_other_transports() -> None:
    calls = [socket(AF_INET, STREAM, 132), socket(AF_INET, STREAM, 256), socket(AF_INET6, DGRAM, 115)]
    assert attempt(DEFAULT | {"raw"}, *calls) == [errno.EPROTONOSUPPORT] * 3
    odd = [socket(AF_INET, SEQPACKET, 132), socket(AF_INET6, 6)]
    assert attempt(DEFAULT | {"raw"}, *odd) == [errno.ESOCKTNOSUPPORT] * 2
    assert attempt(DEFAULT | {"families"}, *calls, *odd) == attempt(None, *calls, *odd)


def test_socket_pairs() -> None:
    calls = [("socketpair", (family, STREAM, 0, 0)) for family in (AF_INET, AF_INET6, 30)]
    assert attempt(DEFAULT, *calls) == [errno.EAFNOSUPPORT] * 3
    assert errno.EAFNOSUPPORT not in attempt(None, *calls)[:2]


# --- the other calls that are judged by their arguments

CLONE_SIGHAND = 0x800  # without CLONE_VM: EINVAL, so that no process comes of it
NEW = [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]


def test_no_new_namespaces() -> None:
    calls = [("clone", (flag | CLONE_SIGHAND | high, 0, 0, 0, 0)) for flag in NEW for high in (0, HIGH)]
    assert attempt(filters.LIFTS, *calls) == [errno.EPERM] * len(calls)
    assert attempt(None, *calls) == [errno.EINVAL] * len(calls)


def test_no_children_for_the_host() -> None:
    """CLONE_PARENT: of whoever has entered, the parent is a process of the host's."""
    calls = [("clone", (0x8000 | CLONE_SIGHAND | high, 0, 0, 0, 0)) for high in (0, HIGH)]
    assert attempt(filters.LIFTS, *calls) == [errno.EPERM] * 2
    assert attempt(None, *calls) == [errno.EINVAL] * 2


def test_a_plain_clone() -> None:
    calls = [("clone", (CLONE_SIGHAND | signal.SIGCHLD, 0, 0, 0, 0))]
    assert attempt([], *calls) == [errno.EINVAL]


TERMINAL = [0x5412, 0x541C, 0x541D, 0x5423]  # TIOCSTI TIOCLINUX TIOCCONS TIOCSETD
BTRFS = [0x50009401, 0x50009417, 0x5000940E, 0x50009418]


@pytest.mark.parametrize("command", TERMINAL + BTRFS)
def test_ioctls(command: int) -> None:
    calls = [("ioctl", (ALL, command | high, 0)) for high in (0, HIGH)]
    assert attempt(filters.LIFTS, *calls) == [errno.EPERM] * 2
    assert attempt(None, *calls) == [errno.EBADF] * 2


# FS_IOC_GETFSMAP, _ADD_ENCRYPTION_KEY, _GET_ENCRYPTION_PWSALT; XFS_IOC_FSGEOMETRY, BTRFS_IOC_FS_INFO, _GET_SUBVOL_INFO;
# FS_IOC_FIEMAP, EXT4_IOC_GET_ES_CACHE, XFS_IOC_GETBMAP, _GETBMAPX, BTRFS_IOC_INO_LOOKUP
OF_FILE_SYSTEM = [0xC0C0583B, 0xC0506617, 0x40106614, 0x8100587E, 0x8400941F, 0x81F8943C]
OF_FILE_SYSTEM += [0xC020660B, 0xC020662A, 0xC0205826, 0xC0305838, 0xD0009412]


@pytest.mark.parametrize("command", OF_FILE_SYSTEM)
def test_the_host_s_file_system_as_a_whole(command: int) -> None:
    calls = [("ioctl", (ALL, command | high, 0)) for high in (0, HIGH)]
    assert attempt(filters.LIFTS, *calls) == [errno.ENOTTY] * 2
    assert attempt(None, *calls) == [errno.EBADF] * 2


# SIOCGIFBR SIOCSIFBR SIOCGIFVLAN SIOCSIFVLAN SIOCBRADDBR SIOCBRDELBR
OF_MODULES = [0x8940, 0x8941, 0x8982, 0x8983, 0x89A0, 0x89A1]


@pytest.mark.parametrize("command", OF_MODULES)
def test_no_module_for_bridges_or_vlans(command: int) -> None:
    """The kernel would look for one whoever asks, by a socket of any family."""
    with Socket(AF_UNIX) as made:
        calls = [("ioctl", (made.fileno(), command | high, 0)) for high in (0, HIGH)]
        assert attempt(DEFAULT, *calls) == [errno.EPERM] * 2
        assert errno.EPERM not in attempt(None, calls[0]) or command in (0x89A0, 0x89A1)


def test_a_connection_stays_one_of_tcp() -> None:
    """TCP_ULP makes one of another protocol of it, if it is there: SMC, ESP, TLS."""
    with Socket() as made:
        calls = [("setsockopt", (made.fileno(), 6, 31, ctypes.addressof(NAME), 4))]
        assert attempt(DEFAULT, *calls) == [errno.ENOPROTOOPT]
        assert attempt(DEFAULT | {"families"}, *calls) == attempt(None, *calls) == [errno.ENOENT]


@pytest.mark.parametrize("protocol", [17, 136])
def test_udp_carries_no_other_protocol(protocol: int) -> None:
    """UDP_ENCAP gives what comes to the kernel's IPsec, with which nobody but root of a vnet can do anything."""
    with Socket(AF_INET, DGRAM, protocol) as made:
        calls = [("setsockopt", (made.fileno(), protocol, 100, ctypes.addressof(NAME), 1))]  # too short a value
        assert attempt(DEFAULT, *calls) == [errno.ENOPROTOOPT]
        assert attempt(DEFAULT | {"vnet"}, *calls) == attempt(None, *calls) == [errno.EINVAL]


@pytest.mark.parametrize(("family", "protocol", "level"), [(AF_INET, 2, 0), (AF_INET6, 58, 41)])
def test_who_has_a_raw_socket_routes_no_multicast(family: int, protocol: int, level: int) -> None:
    """MRT_INIT, MRT6_INIT: the kernel asks for no more than the socket, and from then on for nothing."""
    mrt_init = 200
    with Socket(family, RAW, protocol) as made:
        calls = [("setsockopt", (made.fileno(), level, mrt_init, ctypes.addressof(NAME), 1))]  # too short a value
        assert attempt(DEFAULT | {"raw"}, *calls) == [errno.EPERM]
        assert attempt(DEFAULT | {"raw", "vnet"}, *calls) == attempt(None, *calls) == [errno.EINVAL]


def test_no_leases() -> None:
    """Whoever opens the file, on the host too, would wait for it. Other words of fcntl(2) pass."""
    f_setlease, f_setdeleg, f_getlease = 1024, 1040, 1025
    calls = [("fcntl", (ALL, f_setlease | high, 0)) for high in (0, HIGH)] + [("fcntl", (ALL, f_setdeleg, 0))]
    assert attempt(filters.LIFTS, *calls) == [errno.EINVAL] * 3
    assert attempt(None, *calls) == [errno.EBADF] * 3
    assert attempt([], ("fcntl", (ALL, f_getlease, 0)), ("fcntl", (ALL, fcntl.F_GETFD, 0))) == [errno.EBADF] * 2


def test_as_many_groups_as_freebsd_has() -> None:
    """Whoever lists the processes of the host reads all of them of each."""
    listed = (ctypes.c_uint32 * 1025)()
    calls = [("setgroups", (count, ctypes.addressof(listed))) for count in (1025, 1025 | HIGH, 0xFFFFFFFF, 1024, 0)]
    assert attempt(filters.LIFTS, *calls) == [errno.EINVAL] * 3 + [0] * 2
    assert attempt(None, *calls) == [0, 0, errno.EINVAL, 0, 0]


def test_the_kernel_takes_an_ioctl_from_the_low_half_alone() -> None:
    """So a filter that compared all 64 bits could be walked around."""
    master, slave = os.openpty()
    size = ctypes.create_string_buffer(8)
    calls = [("ioctl", (slave, 0x5413 | high, ctypes.addressof(size))) for high in (0, HIGH)]  # TIOCGWINSZ
    try:
        assert attempt(DEFAULT, *calls) == [0, 0]
    finally:
        os.close(master)
        os.close(slave)


def test_personality() -> None:
    calls = [("personality", (persona,)) for persona in (0x100000, 0x400000, 0x1, 0x40000, 0x8, 0xFFFFFFFF, 0)]
    assert attempt(filters.LIFTS, *calls) == [errno.EPERM] * 3 + [0] * 4
    assert attempt(None, *calls) == [0] * 7


def test_prctl() -> None:
    """What the filter leaves out is EINVAL, as where the kernel has it not; others pass."""
    asks = [("prctl", (number, 0, 0, 0, 0)) for number in (3, 39, 0x41555856, 0x59616D61, 0x53564D41)]
    assert attempt(DEFAULT, *asks) == attempt(None, *asks)
    assert attempt(DEFAULT, ("prctl", (62, 0, 0, 0, 0)), ("prctl", (1000, 0, 0, 0, 0))) == [errno.EINVAL] * 2


def test_huge_pages_of_the_host_s_pool() -> None:
    """As where there are none. What is asked for is one, of the size that the machine has."""
    of_pool = ("memfd_create", (ctypes.addressof(NAME), 4))
    mapped = ("mmap", (0, 1, 3, 0x40022, ALL, 0))
    assert attempt(DEFAULT, of_pool, mapped) == [errno.ENOSYS, errno.ENOMEM]
    assert attempt(DEFAULT | {"huge"}, of_pool)[0] == attempt(None, of_pool)[0] != errno.EFAULT


def test_huge_pages_of_system_v() -> None:
    """Root of the host, and of a jail with its uids, may have them without any limit (can_do_hugetlb_shm())."""
    calls = [("shmget", (0x6A6E, 0, 0)), ("shmget", (0, 1 << 50, 0o5600)), ("shmget", (0, 1 << 50, HIGH | 0o5600))]
    none, few = errno.ENOENT, errno.ENOMEM  # no such segment, and not so many pages
    assert attempt(DEFAULT, *calls) == [errno.ENOSYS] * 3
    assert attempt(DEFAULT | {"shm"}, *calls) == [none, errno.EPERM, errno.EPERM]
    assert attempt(DEFAULT | {"shm", "huge"}, *calls) == attempt(None, *calls) == [none, few, few]


def test_no_flow_labels_to_keep() -> None:
    """EPERM comes before the kernel asks what is wanted."""
    calls = [("setsockopt", (ALL, 41 | high, 32 | high, 0, 0)) for high in (0, HIGH)]
    assert attempt(filters.LIFTS, *calls) == [errno.EPERM] * 2
    assert attempt(None, *calls) == [errno.EBADF] * 2


def test_the_limit_of_a_core() -> None:
    """Where a program on the host would be given a core, the limit of 1 stays, and who asks for less is not told."""
    core, other, pointer = 4, 3, 1
    calls = [
        ("setrlimit", (core, pointer)),
        ("setrlimit", (HIGH | core, pointer)),
        ("prlimit64", (0, core, pointer, 0)),
        ("prlimit64", (0, HIGH | core, HIGH, 0)),
        ("prlimit64", (0, core, pointer, pointer)),
        ("prlimit64", (0, core, pointer, HIGH)),
        ("prlimit64", (0, core, 0, 0)),
        ("prlimit64", (0, core, 0, pointer)),
        ("prlimit64", (0, other, pointer, 0)),
        ("setrlimit", (other, pointer)),
    ]
    bad = errno.EFAULT
    assert attempt(DEFAULT - {"core"}, *calls) == [0] * 4 + [errno.EPERM] * 2 + [0] + [bad] * 3
    assert attempt(DEFAULT, *calls) == [bad] * 6 + [0] + [bad] * 3


def test_set_user_id_still_works() -> None:
    """The filter is attached without no_new_privs, which would take su(1) and sudo(8) away."""

    def body() -> str:
        confined.attach(filters.build(DEFAULT))
        with open("/proc/self/status") as file:
            return file.read()

    assert "NoNewPrivs:\t0" in child(body)
    assert "Seccomp:\t2" in child(body)
