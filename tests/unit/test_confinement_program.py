"""The compiled seccomp programs, run in an interpreter of classic BPF: every call, every privilege, each machine."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable
from functools import cache
from itertools import product

import pytest
import seccomp
from hypothesis import given
from hypothesis import strategies as st

from jailng.core import filter as filters

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
DEFAULT = frozenset({"debug", "inet4", "inet6"})

# What at least the filter refuses, by errno.
FLOOR = {
    errno.EPERM: """
        add_key request_key keyctl io_uring_setup io_uring_enter io_uring_register userfaultfd bpf perf_event_open
        unshare setns mount umount2 pivot_root fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr
        listmount statmount open_by_handle_at name_to_handle_at fanotify_init fanotify_mark quotactl quotactl_fd acct
        swapon swapoff reboot kexec_load kexec_file_load init_module finit_module delete_module settimeofday
        clock_settime clock_adjtime adjtimex vhangup modify_ldt iopl ioperm syslog ioprio_set kcmp process_madvise
        move_pages migrate_pages mbind set_mempolicy vmsplice lsm_set_self_attr
    """,
    errno.ENOSYS: "clone3 memfd_secret",
}
# The same on every machine. Debian 12's libseccomp has no names for these, so there they do not exist.
NEWER = {"statmount": 457, "listmount": 458, "lsm_set_self_attr": 460}

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET = 1, 2, 10, 16, 17
STREAM, DGRAM, RAW, RDM, SEQPACKET, DCCP, PACKET = 1, 2, 3, 4, 5, 6, 10
NONBLOCK, CLOEXEC = 0o4000, 0o2000000
HIGH = 0xDEADBEEF << 32  # what a hostile caller may leave in the half of a register that the kernel does not read


Verdict = Callable[..., int]


def run(program: bytes, arch: int, number: int, arguments: Iterable[int] = ()) -> int:
    """What the program returns: linux/filter.h's machine, as far as seccomp has it."""
    values = [value & (1 << 64) - 1 for value in arguments]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *values, *[0] * (6 - len(values)))
    accumulator = counter = 0
    while True:
        code, yes, no, k = struct.unpack_from("<HBBI", program, 8 * counter)
        counter += 1
        match code:
            case 0x20:
                accumulator = int.from_bytes(data[k : k + 4], "little")
            case 0x54:
                accumulator &= k
            case 0x05:
                counter += k
            case 0x15:
                counter += yes if accumulator == k else no
            case 0x25:
                counter += yes if accumulator > k else no
            case 0x35:
                counter += yes if accumulator >= k else no
            case 0x45:
                counter += yes if accumulator & k else no
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"instruction {counter - 1}: {code:#x}")


build = cache(filters.build)


def verdict(lifted: frozenset[str] = DEFAULT, machine: str = "x86_64") -> Verdict:
    """A program as a function of the call's name or number and its arguments: 0, or the errno that it fails with."""
    program = build(lifted, machine)

    def ask(call: str | int, *arguments: int) -> int:
        number = call if isinstance(call, int) else int(seccomp.resolve_syscall(seccomp.Arch(machine), call))
        assert number >= -1, call
        result = run(program, MACHINES[machine], number, arguments)
        if result == ALLOW:
            return 0
        assert result & 0xFFFF0000 == 0x00050000, hex(result)
        return result & 0xFFFF

    return ask


def known(machine: str) -> dict[int, str]:
    """Every system call that this libseccomp knows of the machine."""
    found = {}
    for number in range(1024):
        try:
            name = seccomp.resolve_syscall(seccomp.Arch(machine), number)
        except ValueError:
            continue
        assert isinstance(name, bytes)
        found[number] = name.decode()
    return found


@pytest.mark.parametrize("machine", MACHINES)
def test_every_known_call_is_judged_once(machine: str) -> None:
    judged = (filters.PERMITTED + filters.BY_ARGUMENT + " " + " ".join([row[2] for row in filters.DENIED])).split()
    assert len(judged) == len(set(judged))
    # Of a later libseccomp's additions none is shut by accident: they are shut until they are judged.
    assert {name for number, name in known(machine).items() if number <= 466} <= set(judged)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    "lifted", [DEFAULT, frozenset(), filters.LIFTS, *[frozenset({one}) for one in sorted(filters.LIFTS)]]
)
def test_every_number_gets_what_the_table_says(machine: str, lifted: frozenset[str]) -> None:
    names = known(machine)
    denied = {name: error for group, error, row in filters.DENIED if group not in lifted for name in row.split()}
    if lifted & {"bind", "fs"}:
        denied |= dict.fromkeys(filters.MOUNT_BY_DESCRIPTOR.split(), errno.ENOSYS)
    open_ = {name for group, _, row in filters.DENIED if group in lifted for name in row.split()}
    permitted = set(filters.PERMITTED.split()) | open_
    ask = verdict(lifted, machine)
    for number in range(1024):
        name = names.get(number, "")
        if name not in filters.BY_ARGUMENT.split():
            expected = 0 if name in permitted else denied.get(name, errno.ENOSYS)
            assert ask(number) == expected, (number, name)


@pytest.mark.parametrize("error", FLOOR)
def test_what_the_strict_default_denies_is_denied(error: int) -> None:
    for name in FLOOR[error].split():
        call: str | int = name
        expected = error
        if name in NEWER and seccomp.resolve_syscall(seccomp.Arch("x86_64"), name) == -1:
            call, expected = NEWER[name], errno.ENOSYS
        for lifted in (DEFAULT, filters.LIFTS - {"bind", "fs", "reboot"}):
            assert verdict(lifted)(call) == expected, name
        if name not in ("mount", "reboot", "umount2"):
            assert verdict(filters.LIFTS)(call) == (errno.ENOSYS if name in filters.MOUNT_BY_DESCRIPTOR else expected)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    "number", [467, 470, 600, 1 << 29, 0x3FFFFFFF, 0x40000000, 0x40000000 + 41, 0x7FFFFFFF, 0xFFFFFFFE]
)
def test_numbers_above_the_last_one_do_not_exist(machine: str, number: int) -> None:
    """x32's among them, which begin at 0x40000000."""
    assert verdict(filters.LIFTS, machine)(number) == errno.ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_a_tracers_answer_is_left_alone(machine: str) -> None:
    assert verdict(frozenset(), machine)(-1) == 0


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("number", [0, 1, 20, 40, 41, 198, 0x40000000])
def test_another_machines_calls_kill(machine: str, number: int) -> None:
    program = filters.build(filters.LIFTS, machine)
    for other in (0x40000003, 0x40000028, *MACHINES.values()):  # i386, arm
        if other != MACHINES[machine]:
            assert run(program, other, number) == KILL_PROCESS


def test_unknown_rules_are_an_error() -> None:
    with pytest.raises(ValueError, match="no such rules: mounts"):
        filters.build(frozenset({"mounts", "raw"}))


def test_building_is_deterministic() -> None:
    assert filters.build(DEFAULT) == filters.build(DEFAULT)


@pytest.mark.parametrize("lifted", [frozenset(), DEFAULT, filters.LIFTS])
def test_the_kernel_takes_the_program(lifted: frozenset[str]) -> None:
    """bpf_check_classic(): its length, and no jump out of it; above 4096 instructions it is refused."""
    program = filters.build(lifted)
    count = len(program) // 8
    assert count < 380
    for index in range(count):
        code, yes, no, _ = struct.unpack_from("<HBBI", program, 8 * index)
        if code in (0x15, 0x25, 0x35, 0x45):
            assert index + 1 + max(yes, no) < count


# --- sockets


@pytest.mark.parametrize("flags", [0, NONBLOCK, CLOEXEC, NONBLOCK | CLOEXEC, HIGH])
@pytest.mark.parametrize("high", [0, HIGH])
def test_the_four_families_of_a_jail(flags: int, high: int) -> None:
    ask = verdict()
    for kind in (STREAM, DGRAM, SEQPACKET, RAW):
        assert ask("socket", AF_UNIX | high, kind | flags, 0) == 0
    for family, (kind, protocol) in product(
        (AF_INET, AF_INET6), [(STREAM, 0), (STREAM, 6), (STREAM, 262), (DGRAM, 0), (DGRAM, 17), (DGRAM, 136)]
    ):
        assert ask("socket", family | high, kind | flags, protocol | high) == 0
    for kind in (RAW, DGRAM):
        assert ask("socket", AF_NETLINK | high, kind | flags, 0 | high) == 0


@pytest.mark.parametrize("high", [0, HIGH])
@pytest.mark.parametrize("family", [f for f in range(64) if f not in (AF_UNIX, AF_INET, AF_INET6, AF_NETLINK)])
def test_no_other_family(family: int, high: int) -> None:
    for lifted in (DEFAULT, DEFAULT | {"raw"}):
        for kind in (STREAM, DGRAM, RAW, SEQPACKET, RDM, PACKET):
            assert verdict(lifted)("socket", family | high, kind | CLOEXEC, 0) == errno.EAFNOSUPPORT
    if family != AF_PACKET:
        assert verdict(DEFAULT | {"families"})("socket", family | high, RAW, 0) == 0


def test_packet_sockets_take_both_privileges() -> None:
    both = {"families", "raw"}
    for family, kind in ((AF_PACKET, RAW), (AF_PACKET, DGRAM), (AF_INET, PACKET), (AF_INET6, PACKET)):
        assert verdict(DEFAULT | both)("socket", family, kind | NONBLOCK, 0x300) == 0
        assert verdict(DEFAULT | {"families"})("socket", family, kind | NONBLOCK, 0x300) == errno.EPERM
    assert verdict(DEFAULT | {"raw"})("socket", AF_INET, PACKET, 0x300) == errno.EPERM


@pytest.mark.parametrize("protocol", [4, 9, 12, 15, 16, 31, 0xFFFFFFFF])
def test_netlink_is_the_routing_table_only(protocol: int) -> None:
    assert verdict(DEFAULT | {"raw"})("socket", AF_NETLINK, RAW, protocol | HIGH) == errno.EAFNOSUPPORT
    assert verdict(DEFAULT | {"families"})("socket", AF_NETLINK, RAW, protocol) == 0


FAMILIES = [(AF_INET, AF_INET6, "inet4"), (AF_INET6, AF_INET, "inet6")]


@pytest.mark.parametrize(("family", "other", "name"), FAMILIES)
@pytest.mark.parametrize("more", [set(), {"raw"}, {"raw", "families"}])
def test_a_family_that_the_jail_has_no_address_of(family: int, other: int, name: str, more: set[str]) -> None:
    ask = verdict(frozenset({name} | more))
    for kind, protocol in [(STREAM, 0), (STREAM, 6), (DGRAM, 0), (DGRAM, 17), (SEQPACKET, 132), (DGRAM, 300)]:
        assert ask("socket", other | HIGH, kind, protocol) == errno.EAFNOSUPPORT
    assert ask("socket", family, STREAM, 0) == 0
    neither = verdict(frozenset(more))
    assert neither("socket", AF_INET, STREAM, 0) == neither("socket", AF_INET6, DGRAM, 0) == errno.EAFNOSUPPORT


@pytest.mark.parametrize(("family", "other", "name"), FAMILIES)
def test_ping_says_not_permitted_whatever_the_family(family: int, other: int, name: str) -> None:
    """It tries IPv4 and then IPv6, and tells of the last."""
    for kind, protocol in [(RAW, 1), (RAW | CLOEXEC, 58), (DGRAM, 1), (DGRAM | NONBLOCK, 58)]:
        for tried in (family, other):
            assert verdict(frozenset({name}))("socket", tried, kind, protocol) == errno.EPERM
            assert verdict(frozenset())("socket", tried, kind, protocol) == errno.EPERM
        assert verdict(frozenset({name, "raw"}))("socket", other, kind, protocol) == errno.EAFNOSUPPORT


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
@pytest.mark.parametrize("flags", [0, NONBLOCK | CLOEXEC, HIGH])
def test_raw_and_ping_sockets(family: int, flags: int) -> None:
    for kind, protocol in [(RAW, 0), (RAW | 0x10, 1), (RAW, 255), (DGRAM, 1), (DGRAM | 0x80, 58), (DGRAM, 1 | HIGH)]:
        assert verdict()("socket", family, kind | flags, protocol) == errno.EPERM
        assert verdict(DEFAULT | {"families"})("socket", family, kind | flags, protocol) == errno.EPERM
        assert verdict(DEFAULT | {"raw"})("socket", family, kind | flags, protocol) == 0


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_other_transports_are_other_stacks(family: int) -> None:
    """SCTP, DCCP, L2TP, SMC (which came as a protocol of AF_INET in Linux 6.11), and what is not there yet."""
    for kind, protocol in [(STREAM, 132), (STREAM, 256), (STREAM, 17), (DGRAM, 115), (DGRAM, 6), (DGRAM, 300)]:
        for lifted in (DEFAULT, DEFAULT | {"raw"}):
            assert verdict(lifted)("socket", family, kind | CLOEXEC, protocol) == errno.EPROTONOSUPPORT
        assert verdict(DEFAULT | {"families"})("socket", family, kind | CLOEXEC, protocol) == 0
    for kind in (0, RDM, SEQPACKET, DCCP, 7, 15):
        assert verdict(DEFAULT | {"raw"})("socket", family, kind | CLOEXEC, 0) == errno.ESOCKTNOSUPPORT
        assert verdict(DEFAULT | {"families"})("socket", family, kind | CLOEXEC, 0) == 0


def test_socket_pairs_are_unix() -> None:
    ask = verdict(DEFAULT | {"raw"})
    assert ask("socketpair", AF_UNIX | HIGH, STREAM | CLOEXEC, 0) == 0
    for family in (0, AF_INET, AF_INET6, AF_NETLINK, 30, 40, AF_INET | HIGH):
        assert ask("socketpair", family, STREAM, 0) == errno.EAFNOSUPPORT
        assert verdict(DEFAULT | {"families"})("socketpair", family, STREAM, 0) == 0


# --- the other calls that are judged by their arguments

NEW = [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]


@pytest.mark.parametrize("machine", MACHINES)
def test_clone_makes_no_namespace(machine: str) -> None:
    ask = verdict(filters.LIFTS, machine)
    for flag in NEW:
        assert ask("clone", flag | 17) == ask("clone", flag | 17 | HIGH) == ask("clone", flag | NEW[0]) == errno.EPERM
    glibc_fork, glibc_thread, vfork = 0x1200011, 0x3D0F00, 0x4111
    for flags in (glibc_fork, glibc_thread, vfork, 17, 17 | HIGH, 0x1000 | 17):
        assert ask("clone", flags) == 0
    of_the_host = 0x8000  # CLONE_PARENT: of whoever has entered that is a process outside
    assert ask("clone", of_the_host | 17) == ask("clone", of_the_host | 17 | HIGH) == errno.EPERM
    # A time namespace cannot be had from clone(2): its bit is one of the exit signal's. unshare(2) is denied.
    assert ask("clone", 0x80) == 0


DENIED_IOCTLS = [0x5412, 0x541C, 0x541D, 0x5423, 0x50009401, 0x50009417, 0x5000940E, 0x50009418]


@pytest.mark.parametrize("command", DENIED_IOCTLS)
@pytest.mark.parametrize("machine", MACHINES)
def test_ioctls(machine: str, command: int) -> None:
    ask = verdict(filters.LIFTS, machine)
    assert ask("ioctl", 0, command) == ask("ioctl", 0, command | HIGH) == errno.EPERM
    for near in (command - 1, command + 1, command ^ 0x80000000):
        if near not in DENIED_IOCTLS:
            assert ask("ioctl", 0, near) == ask("ioctl", command, near) == 0


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("high", [0, 1 << 32])
def test_prctl(machine: str, high: int) -> None:
    """No cookie of core scheduling, and nothing that the filter does not know, but for what is numbered by a name."""
    ask = verdict(frozenset(filters.LIFTS), machine)
    for option in (62, 79, 100, 0x7FFFFFFF, 0xFFFFFFFF):
        assert ask("prctl", option | high) == errno.EINVAL
    for option in (1, 15, 22, 36, 38, 47, 61, 63, 78, 0x53564D41, 0x59616D61):
        assert ask("prctl", option | high) == 0


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("high", [0, 1 << 32])
def test_huge_pages(machine: str, high: int) -> None:
    """MAP_HUGETLB and its like, with whatever size: they are of the host's pool, and of nobody's memory."""
    without = verdict(frozenset(filters.LIFTS - {"huge"}), machine)
    with_it = verdict(frozenset({"huge", "shm"}), machine)
    for flags in (0x40000, 0x22 | 0x40000, 0x40022 | 21 << 26):
        assert without("mmap", 0, 4096, 3, flags | high, 0, 0) == errno.ENOMEM
        assert with_it("mmap", 0, 4096, 3, flags | high, 0, 0) == 0
    assert without("mmap", 0, 4096, 3, 0x22 | high, 0, 0) == 0
    for flags in (4, 5, 4 | 30 << 26):
        assert without("memfd_create", 1, flags | high) == errno.ENOSYS
        assert with_it("memfd_create", 1, flags | high) == 0
    assert without("memfd_create", 1, 3 | high) == 0
    for flags in (0o4000, 0o5600, 0o5600 | 21 << 26):
        assert without("shmget", 0, 4096, flags | high) == errno.EPERM
        assert with_it("shmget", 0, 4096, flags | high) == 0
    assert without("shmget", 0, 4096, 0o1600 | high) == 0
    assert verdict(frozenset({"huge"}), machine)("shmget", 0, 4096, 0o1600) == errno.ENOSYS


def test_personality() -> None:
    """What gdb(1), setarch(8) -R, linux32(8) and uname26 ask for; no page at 0, no executable data."""
    ask = verdict(filters.LIFTS)
    for persona in (0, 8, 0x20000, 0x40000, 0x60008, 0xFFFFFFFF, 0xFFFFFFFF | HIGH, 8 | HIGH):
        assert ask("personality", persona) == 0
    for persona in (1, 4, 6, 0x100000, 0x400000, 0x440000, 0x200000, 0x800000, 0x4000000, 0xFFFFFFFE, 0x100000 | HIGH):
        assert ask("personality", persona) == errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_groups(machine: str) -> None:
    ask = verdict(filters.LIFTS, machine)
    for count, answer in ((0, 0), (1024, 0), (1024 | HIGH, 0), (1025, errno.EINVAL), (1025 | HIGH, errno.EINVAL)):
        assert ask("setgroups", count, 1) == answer


# --- mounts

RDONLY, NOSUID, REMOUNT, NOSYMFOLLOW, MOVE, REC = 1, 2, 32, 256, 0x2000, 0x4000
BIND, SILENT, RELATIME = 0x1000, 0x8000, 1 << 21
PROPAGATION = [1 << 17, 1 << 18, 1 << 19, 1 << 20]
MAGIC = 0xC0ED0000  # mount(8) adds it


def mount(lifted: set[str], flags: int, machine: str = "x86_64") -> int:
    return verdict(DEFAULT | lifted, machine)("mount", 1, 2, 3, flags, 5)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("magic", [0, MAGIC, HIGH, MAGIC | HIGH])
def test_bind_mounts_and_nothing_else(machine: str, magic: int) -> None:
    for flags in (BIND, BIND | REC, BIND | RDONLY | NOSUID, BIND | MOVE, REMOUNT | BIND | RDONLY, REMOUNT | BIND):
        assert mount({"bind"}, flags | magic, machine) == 0
        assert mount(set(), flags | magic, machine) == errno.EPERM
    for flags in (
        0,
        RDONLY | NOSUID,
        REC,
        MOVE,
        MOVE | REC,
        REMOUNT,
        REMOUNT | RDONLY,
        SILENT,
        NOSYMFOLLOW,
        0xFFF & ~32,
    ):
        assert mount({"bind"}, flags | magic, machine) == errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("magic", [0, MAGIC, HIGH, MAGIC | HIGH])
def test_file_systems_and_nothing_else(machine: str, magic: int) -> None:
    for flags in (0, RDONLY | NOSUID, REC, SILENT, REMOUNT, REMOUNT | RDONLY, REMOUNT | BIND | NOSUID):
        assert mount({"fs"}, flags | magic, machine) == 0
        assert mount(set(), flags | magic, machine) == errno.EPERM
    for flags in (BIND, BIND | REC, BIND | RDONLY, MOVE, MOVE | REC):
        assert mount({"fs"}, flags | magic, machine) == errno.EPERM


@pytest.mark.parametrize("lifted", [set(), {"bind"}, {"fs"}, {"bind", "fs"}])
def test_nothing_moves_or_propagates(lifted: set[str]) -> None:
    for flags in (
        MOVE,
        MOVE | MAGIC,
        *PROPAGATION,
        PROPAGATION[0] | REC,
        PROPAGATION[3] | REC | HIGH,
        sum(PROPAGATION),
    ):
        assert mount(lifted, flags) == errno.EPERM
    # With the magic number the kernel does not see the upper half of the word, and neither does the filter.
    for flag in PROPAGATION:
        if MAGIC & flag:
            assert mount(lifted, MAGIC) == (0 if "fs" in lifted else errno.EPERM)


@given(st.integers(0, 2**32 - 1), st.sets(st.sampled_from(["bind", "fs"])))
def test_every_word_of_flags_is_judged_as_the_kernel_reads_it(flags: int, lifted: set[str]) -> None:
    """path_mount() in fs/namespace.c, written out."""
    seen = flags & 0xFFFF if flags & 0xFFFF0000 == MAGIC else flags
    if seen & REMOUNT and seen & BIND:
        permitted = bool(lifted)
    elif seen & REMOUNT:
        permitted = "fs" in lifted
    elif seen & BIND:
        permitted = "bind" in lifted
    else:
        permitted = not seen & (sum(PROPAGATION) | MOVE) and "fs" in lifted
    assert mount(lifted, flags) == (0 if permitted else errno.EPERM)


def test_who_may_mount_may_unmount() -> None:
    for lifted in ({"bind"}, {"fs"}, {"bind", "fs"}):
        for flags in (0, 1, 2, 8, 2 | HIGH):
            assert verdict(DEFAULT | lifted)("umount2", 1, flags) == 0
            assert verdict(DEFAULT)("umount2", 1, flags) == errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_programs_for_sockets(machine: str) -> None:
    programs = (26, 50, 51, 52)
    for lifted in (DEFAULT, *[frozenset({one}) for one in filters.LIFTS]):
        ask = verdict(lifted, machine)
        expected = 0 if lifted & {"raw", "families", "vnet", "uevents"} else errno.EPERM
        for option, high in product(programs, (0, HIGH)):
            assert ask("setsockopt", 3, 1 | high, option | high) == expected
            assert ask("setsockopt", 3, 6 | high, option | high) == 0  # of TCP, say
        assert [ask("setsockopt", 3, 1, option) for option in range(100) if option not in programs] == [0] * 96


@pytest.mark.parametrize("machine", MACHINES)
def test_no_algorithm_and_no_protocol_by_name(machine: str) -> None:
    """TCP-AO would have the kernel load a module for it, and TCP_ULP make SMC of a connection.

    Others of TCP's pass: TCP_MD5SIG is FreeBSD's as well.
    """
    ao = (31, 38, 39, 40, 42)
    for lifted in (DEFAULT, filters.LIFTS - {"families"}, frozenset({"vnet"})):
        ask = verdict(frozenset(lifted), machine)
        for option, high in product(ao, (0, HIGH)):
            assert ask("setsockopt", 3, 6 | high, option | high) == errno.ENOPROTOOPT
            assert ask("setsockopt", 3, 17 | high, option | high) == 0
        assert [ask("setsockopt", 3, 6, option) for option in range(100) if option not in ao] == [0] * 95
    assert [verdict(frozenset({"families"}), machine)("setsockopt", 3, 6, option) for option in ao] == [0] * 5


@pytest.mark.parametrize("machine", MACHINES)
def test_udp_carries_no_other_protocol(machine: str) -> None:
    """UDP_ENCAP, of UDP and UDP-Lite. Their other options pass."""
    for lifted in (DEFAULT, filters.LIFTS - {"families", "vnet"}, {"families"}, DEFAULT | {"vnet"}):
        ask = verdict(frozenset(lifted), machine)
        expected = 0 if lifted & {"families", "vnet"} else errno.ENOPROTOOPT
        for level, high in product((17, 136), (0, HIGH)):
            assert ask("setsockopt", 3, level | high, 100 | high) == expected
            assert [ask("setsockopt", 3, level, option) for option in (1, 99, 101, 102, 103, 104)] == [0] * 6
        assert ask("setsockopt", 3, 1, 100) == ask("setsockopt", 3, 6, 100) == 0


@pytest.mark.parametrize("machine", MACHINES)
def test_no_packet_goes_past_those_who_look(machine: str) -> None:
    """PACKET_QDISC_BYPASS, of who may have a packet socket. Its other options pass."""
    for lifted in (DEFAULT | {"vnet"}, DEFAULT | {"families"}, filters.LIFTS):
        ask = verdict(frozenset(lifted), machine)
        for high in (0, HIGH):
            assert ask("setsockopt", 3, 263 | high, 20 | high) == errno.ENOPROTOOPT
        assert [ask("setsockopt", 3, 263, option) for option in range(30) if option != 20] == [0] * 29
        assert ask("setsockopt", 3, 1, 20) == ask("setsockopt", 3, 6, 20) == 0


@pytest.mark.parametrize("machine", MACHINES)
def test_multicast_is_routed_by_vnet_alone(machine: str) -> None:
    """MRT_INIT and MRT6_INIT: whoever has a raw socket and is the first may do all the rest."""
    for lifted in (DEFAULT | {"raw"}, filters.LIFTS - {"vnet"}, filters.LIFTS):
        ask = verdict(frozenset(lifted), machine)
        expected = 0 if "vnet" in lifted else errno.EPERM
        for level, high in product((0, 41), (0, HIGH)):
            assert ask("setsockopt", 3, level | high, 200 | high) == expected
        assert [ask("setsockopt", 3, 0, option) for option in range(200)] == [0] * 200
        assert ask("setsockopt", 3, 6, 200) == 0


MODULES = [0x8940, 0x8941, 0x8982, 0x8983, 0x89A0, 0x89A1]


@pytest.mark.parametrize("command", MODULES)
@pytest.mark.parametrize("machine", MACHINES)
def test_bridges_and_vlans(machine: str, command: int) -> None:
    """A module is loaded for who asks; not where there is a vnet, whose jail has none loaded."""
    for lifted in (DEFAULT, frozenset(), filters.LIFTS - {"vnet"}):
        ask = verdict(frozenset(lifted), machine)
        assert ask("ioctl", 0, command) == ask("ioctl", 0, command | HIGH) == errno.EPERM
    ask = verdict(DEFAULT, machine)
    assert [ask("ioctl", 0, near) for near in (command - 1, command + 1) if near not in MODULES][:1] == [0]
    assert verdict(DEFAULT | {"vnet"}, machine)("ioctl", 0, command) == 0


@pytest.mark.parametrize("machine", MACHINES)
def test_flow_labels(machine: str) -> None:
    """There are 4096 for the machine, and a jail could have half of them. Other options of IPv6's pass."""
    for lifted in (DEFAULT, filters.LIFTS):
        ask = verdict(frozenset(lifted), machine)
        assert [ask("setsockopt", 3, 41 | high, 32 | high) for high in (0, HIGH)] == [errno.EPERM] * 2
        assert [ask("setsockopt", 3, 41, option) for option in range(100) if option != 32] == [0] * 99
        assert ask("setsockopt", 3, 0, 32) == 0
