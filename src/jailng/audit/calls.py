"""Entry points of the kernel.

Each is called with arguments that make no sense, so that nothing happens where it is allowed. A jail must deny it
before the kernel looks at them.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
from functools import partial

from .numbers import NUMBERS
from .probe import ABSENT, ESCAPED, EXPOSED, HELD, Facts, Verdict, asked, call, mapped, probe, tried, why

_ASKED = """
add_key request_key keyctl io_uring_setup io_uring_enter io_uring_register userfaultfd bpf perf_event_open unshare setns
mount umount2 pivot_root fsopen fsconfig fsmount fspick move_mount open_tree open_tree_attr mount_setattr listmount
statmount open_by_handle_at name_to_handle_at fanotify_init fanotify_mark quotactl quotactl_fd acct swapon swapoff
reboot kexec_load kexec_file_load init_module finit_module delete_module settimeofday clock_settime clock_adjtime
adjtimex vhangup modify_ldt iopl ioperm syslog ioprio_set kcmp process_madvise move_pages migrate_pages mbind
set_mempolicy set_mempolicy_home_node vmsplice lsm_set_self_attr clone3 uselib ustat sysfs _sysctl lookup_dcookie
nfsservctl create_module get_kernel_syms query_module file_setattr listns
""".split()
_NEXT = "the next one that will be"
_X32 = 0x40000000
_MACHINE = os.uname().machine
# vhangup takes no argument that could be wrong: where it is allowed it hangs up, here in a session without a terminal.
# What init_module is given is too short for a module; syslog asks how large the kernel's buffer is.
_ARGUMENTS: dict[str, tuple[int | bytes | None, ...]] = {
    "vhangup": (),
    "acct": (b"/nonexistent/attempt",),
    "settimeofday": (None, None),
    "syslog": (10, None, 0),
    "init_module": (None, 0, b""),
    "io_uring_setup": (0, None),
}
_NONSENSE = (-1, -1, -1, -1, -1, -1)


def arguments(name: str) -> tuple[int | bytes | None, ...]:
    """What a call is asked with."""
    return _ARGUMENTS.get(name, _NONSENSE)


def _ask(name: str, more: int, facts: Facts) -> Verdict:
    if name not in NUMBERS:
        return ABSENT, "this machine has no such call"
    return asked(lambda: call(NUMBERS[name] | more, *arguments(name)))


for _name in [*_ASKED, _NEXT]:
    probe(f"calls: {_name}", light=True)(partial(_ask, _name, 0))
if _MACHINE == "x86_64":
    for _name in [*_ASKED, _NEXT]:
        probe(f"calls: {_name}, x32", light=True)(partial(_ask, _name, _X32))
    for _name, _number in (("execve", 520), ("ptrace", 521), ("io_submit", 544), ("execveat", 545)):
        probe(f"calls: {_name}, x32's own number", light=True)(
            lambda facts, number=_number: asked(lambda: call(number | _X32, *_NONSENSE))  # type: ignore[misc]
        )


def enter_as_i386(number: int) -> int:
    """The i386 entry: mov eax, edi; mov ebx, esi; xor ecx, edx, esi, edi; int 0x80."""
    code = b"\x53\x89\xf8\x89\xf3\x31\xc9\x31\xd2\x31\xf6\x31\xff\xcd\x80\x5b\xc3"
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(address)
    result: int = function(number, -1)
    return result


def _int80(number: int, facts: Facts) -> Verdict:
    """In a process of its own, which ends here where the kernel has no such entry, or the filter kills."""
    pid = os.fork()
    if pid == 0:
        os._exit(38 if enter_as_i386(number) == -38 else 0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == -signal.SIGSEGV:
        return ABSENT, "the kernel has no such entry"
    if status == -signal.SIGSYS:
        return HELD, "killed by SIGSYS"
    return (HELD, "ENOSYS") if status == 38 else (EXPOSED, "the kernel answers")


if _MACHINE == "x86_64":
    for _name, _number in (
        ("mount", 21),
        ("unshare", 310),
        ("keyctl", 288),
        ("bpf", 357),
        ("socketcall", 102),
        ("getpid", 20),
    ):
        probe(f"calls: {_name}, i386")(partial(_int80, _number))


@probe("calls: read the kernel's messages")
def _dmesg(facts: Facts) -> Verdict:
    """None of them: of no length."""
    return tried(lambda: call("syslog", 3, ctypes.create_string_buffer(8), 0))


@probe("calls: reboot with no magic")
def _reboot(facts: Facts) -> Verdict:
    """With numbers that are no magic: allowed, it says EINVAL."""
    return asked(lambda: call("reboot", 0, 0, 0, None))


@probe("calls: set the clock")
def _clock(facts: Facts) -> Verdict:
    """To no time at all, which is allowed to whoever may set one."""
    return tried(lambda: call("settimeofday", None, None))


@probe("calls: adjust the clock by nothing")
def _adjust(facts: Facts) -> Verdict:
    return tried(lambda: call("adjtimex", ctypes.create_string_buffer(256)), EXPOSED)


@probe("calls: host name")
def _hostname(facts: Facts) -> Verdict:
    name = os.uname().nodename.encode()
    return tried(lambda: call("sethostname", name, len(name)))


@probe("calls: domain name")
def _domainname(facts: Facts) -> Verdict:
    """To what it is, as the host's name above."""
    try:
        with open("/proc/sys/kernel/domainname", "rb") as file:
            name = file.read().strip()
    except OSError:
        return asked(lambda: call("setdomainname", None, -1), ESCAPED)
    return tried(lambda: call("setdomainname", name, len(name)))


@probe("calls: swap on a file")
def _swap(facts: Facts) -> Verdict:
    with open("swap", "wb") as file:
        file.write(bytes(4096))
    try:
        call("swapon", b"swap", 0)
    except OSError as error:
        return (HELD if error.errno == 1 else EXPOSED), why(error)
    return ESCAPED, "it works"


@probe("calls: a key in a keyring of the user's")
def _key(facts: Facts) -> Verdict:
    return tried(lambda: call("add_key", b"user", b"attempt", b"content", 7, -2), EXPOSED)


@probe("calls: the host's key")
def _host_key(facts: Facts) -> Verdict:
    return tried(lambda: call("keyctl", 11, int(facts["key"]), ctypes.create_string_buffer(64), 64, 0))


@probe("calls: io_uring")
def _ring(facts: Facts) -> Verdict:
    return tried(lambda: call("io_uring_setup", 1, ctypes.create_string_buffer(120)), EXPOSED)


@probe("calls: bpf map")
def _bpf(facts: Facts) -> Verdict:
    attributes = struct.pack("=IIII", 2, 4, 4, 1) + bytes(112)
    return tried(lambda: call("bpf", 0, attributes, len(attributes)), EXPOSED)


@probe("calls: bpf, walk over the host's programs")
def _bpf_walk(facts: Facts) -> Verdict:
    memory = ctypes.create_string_buffer(128)
    return asked(lambda: call("bpf", 11, memory, len(memory)))


def _perf(kind: int, config: int, pid: int, cpu: int, facts: Facts) -> Verdict:
    attributes = struct.pack("=IIQ", kind, 128, config) + bytes(112)
    return tried(lambda: call("perf_event_open", attributes, pid, cpu, -1, 0), EXPOSED)


probe("calls: perf, own cycles")(partial(_perf, 1, 0, 0, -1))
probe("calls: perf, every process on a processor")(partial(_perf, 1, 0, -1, 0))


@probe("calls: userfaultfd for user mode alone")
def _userfault(facts: Facts) -> Verdict:
    return tried(lambda: call("userfaultfd", 1), EXPOSED)


@probe("calls: personality without address randomising for the kernel's sake")
def _personality(facts: Facts) -> Verdict:
    """READ_IMPLIES_EXEC, MMAP_PAGE_ZERO."""
    return tried(lambda: call("personality", 0x0400000 | 0x0100000), EXPOSED)


@probe("calls: map page zero")
def _page_zero(facts: Facts) -> Verdict:
    return tried(lambda: mapped(4096, 0x10), EXPOSED)


@probe("calls: a core file or its handler on the host")
def _core(facts: Facts) -> Verdict:
    """A core_pattern with a pipe runs a program on the host, whatever the limit is, unless it is 1 and stays it.

    A socket (Linux 6.16) has it whatever the limit is.
    """
    import resource

    if facts["core"] == "socket":
        return EXPOSED, "the host has a socket for them"
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        pass
    after = resource.getrlimit(resource.RLIMIT_CORE)
    wanted = (1, 1) if facts["core"] == "handler" else (0, 0)
    return (HELD, f"{after}") if limits == after == wanted else (EXPOSED, f"limit {limits}, then {after}")
