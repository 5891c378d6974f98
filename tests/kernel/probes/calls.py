"""Entry points of the kernel: hostile-root.md, section 6 and section 10, number 3.

Each is called with arguments that make no sense, so that nothing happens where it is allowed. A jail must deny it
before the kernel looks at them.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
from functools import partial

from .attempt import ESCAPED, EXPOSED, HELD, Facts, Verdict, asked, attempt, call, tried, why

# x86_64; the numbers from 424 up are the same on every machine.
NUMBERS = {
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "userfaultfd": 323,
    "bpf": 321,
    "perf_event_open": 298,
    "unshare": 272,
    "setns": 308,
    "mount": 165,
    "umount2": 166,
    "pivot_root": 155,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "move_mount": 429,
    "open_tree": 428,
    "open_tree_attr": 467,
    "mount_setattr": 442,
    "listmount": 458,
    "statmount": 457,
    "open_by_handle_at": 304,
    "name_to_handle_at": 303,
    "fanotify_init": 300,
    "fanotify_mark": 301,
    "quotactl": 179,
    "quotactl_fd": 443,
    "acct": 163,
    "swapon": 167,
    "swapoff": 168,
    "reboot": 169,
    "kexec_load": 246,
    "kexec_file_load": 320,
    "init_module": 175,
    "finit_module": 313,
    "delete_module": 176,
    "settimeofday": 164,
    "clock_settime": 227,
    "clock_adjtime": 305,
    "adjtimex": 159,
    "vhangup": 153,
    "modify_ldt": 154,
    "iopl": 172,
    "ioperm": 173,
    "syslog": 103,
    "ioprio_set": 251,
    "kcmp": 312,
    "process_madvise": 440,
    "move_pages": 279,
    "migrate_pages": 256,
    "mbind": 237,
    "set_mempolicy": 238,
    "set_mempolicy_home_node": 450,
    "vmsplice": 278,
    "lsm_set_self_attr": 460,
    "clone3": 435,
    "uselib": 134,
    "ustat": 136,
    "sysfs": 139,
    "_sysctl": 156,
    "lookup_dcookie": 212,
    "nfsservctl": 180,
    "create_module": 174,
    "get_kernel_syms": 177,
    "query_module": 178,
    "file_setattr": 469,
    "listns": 470,
    "the next one that will be": 480,
}
_X32 = 0x40000000
# vhangup takes no argument that could be wrong: where it is allowed it hangs up, here in a session without a terminal.
_ARGUMENTS = {"vhangup": (), "acct": (b"/nonexistent/attempt",), "settimeofday": (None, None), "syslog": (10, None, 0)}
_NONSENSE = (-1, -1, -1, -1, -1, -1)


def arguments(name: str) -> tuple[int | bytes | None, ...]:
    return _ARGUMENTS.get(name, _NONSENSE)


def _ask(name: str, number: int, facts: Facts) -> Verdict:
    return asked(lambda: call(number, *arguments(name)))


if platform.machine() == "x86_64":
    for _name, _number in NUMBERS.items():
        attempt(f"calls: {_name}")(partial(_ask, _name, _number))
        attempt(f"calls: {_name}, x32")(partial(_ask, _name, _number | _X32))
    for _name, _number in (("execve", 520), ("ptrace", 521), ("io_submit", 544), ("execveat", 545)):
        attempt(f"calls: {_name}, x32's own number")(partial(_ask, _name, _number | _X32))


def _int80(number: int, facts: Facts) -> Verdict:
    """The i386 entry: mov eax, edi; mov ebx, esi; xor ecx, edx, esi, edi; int 0x80."""
    code = b"\x53\x89\xf8\x89\xf3\x31\xc9\x31\xd2\x31\xf6\x31\xff\xcd\x80\x5b\xc3"
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(address)
    result = function(number, -1)
    return (HELD, "ENOSYS") if result == -38 else (EXPOSED, f"the kernel answers {result}")


if platform.machine() == "x86_64":
    for _name, _number in (
        ("mount", 21),
        ("unshare", 310),
        ("keyctl", 288),
        ("bpf", 357),
        ("socketcall", 102),
        ("getpid", 20),
    ):
        attempt(f"calls: {_name}, i386")(partial(_int80, _number))


@attempt("calls: a number below none")
def _negative(facts: Facts) -> Verdict:
    return asked(lambda: call(-2))


@attempt("calls: read the kernel's messages")
def _dmesg(facts: Facts) -> Verdict:
    return tried(lambda: call(NUMBERS["syslog"], 3, ctypes.create_string_buffer(4096), 4096))


@attempt("calls: reboot with no magic")
def _reboot(facts: Facts) -> Verdict:
    """With numbers that are no magic: allowed, it says EINVAL."""
    return asked(lambda: call(NUMBERS["reboot"], 0, 0, 0, None))


@attempt("calls: set the clock to what it is")
def _clock(facts: Facts) -> Verdict:
    return tried(lambda: call(NUMBERS["settimeofday"], None, None))


@attempt("calls: adjust the clock by nothing")
def _adjust(facts: Facts) -> Verdict:
    return tried(lambda: call(NUMBERS["adjtimex"], ctypes.create_string_buffer(256)), EXPOSED)


@attempt("calls: host name")
def _hostname(facts: Facts) -> Verdict:
    name = os.uname().nodename.encode()
    return tried(lambda: call(170, name, len(name)))


@attempt("calls: domain name")
def _domainname(facts: Facts) -> Verdict:
    return tried(lambda: call(171, b"(none)", 6))


@attempt("calls: swap on a file")
def _swap(facts: Facts) -> Verdict:
    with open("swap", "wb") as file:
        file.write(bytes(4096))
    try:
        call(NUMBERS["swapon"], b"swap", 0)
    except OSError as error:
        return (HELD if error.errno == 1 else EXPOSED), why(error)
    return ESCAPED, "it works"


@attempt("calls: a key in a keyring of the user's")
def _key(facts: Facts) -> Verdict:
    return tried(lambda: call(NUMBERS["add_key"], b"user", b"attempt", b"content", 7, -2), EXPOSED)


@attempt("calls: the host's key")
def _host_key(facts: Facts) -> Verdict:
    return tried(lambda: call(NUMBERS["keyctl"], 11, int(facts["key"]), ctypes.create_string_buffer(64), 64, 0))


@attempt("calls: io_uring")
def _ring(facts: Facts) -> Verdict:
    return tried(lambda: call(NUMBERS["io_uring_setup"], 1, ctypes.create_string_buffer(120)), EXPOSED)


@attempt("calls: bpf map")
def _bpf(facts: Facts) -> Verdict:
    attributes = struct.pack("=IIII", 2, 4, 4, 1) + bytes(112)
    return tried(lambda: call(NUMBERS["bpf"], 0, attributes, len(attributes)), EXPOSED)


@attempt("calls: bpf, walk over the host's programs")
def _bpf_walk(facts: Facts) -> Verdict:
    memory = ctypes.create_string_buffer(128)
    return tried(lambda: call(NUMBERS["bpf"], 11, memory, len(memory)), EXPOSED)


def _perf(kind: int, config: int, pid: int, cpu: int, facts: Facts) -> Verdict:
    attributes = struct.pack("=IIQ", kind, 128, config) + bytes(112)
    return tried(lambda: call(NUMBERS["perf_event_open"], attributes, pid, cpu, -1, 0), EXPOSED)


attempt("calls: perf, own cycles")(partial(_perf, 1, 0, 0, -1))
attempt("calls: perf, every process on a processor")(partial(_perf, 1, 0, -1, 0))


@attempt("calls: userfaultfd for user mode alone")
def _userfault(facts: Facts) -> Verdict:
    return tried(lambda: call(NUMBERS["userfaultfd"], 1), EXPOSED)


@attempt("calls: personality without address randomising for the kernel's sake")
def _personality(facts: Facts) -> Verdict:
    """READ_IMPLIES_EXEC, MMAP_PAGE_ZERO."""
    return tried(lambda: call(135, 0x0400000 | 0x0100000), EXPOSED)


@attempt("calls: map page zero")
def _page_zero(facts: Facts) -> Verdict:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_long
    result = libc.mmap(None, 4096, 3, 0x32, -1, ctypes.c_long(0))
    return (HELD, os.strerror(ctypes.get_errno())) if result == -1 else (EXPOSED, "mapped")


@attempt("calls: a core file or its handler on the host")
def _core(facts: Facts) -> Verdict:
    """A core_pattern with a pipe runs a program on the host, whatever the limit is, unless it is 1 and stays it."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        pass
    after = resource.getrlimit(resource.RLIMIT_CORE)
    with open("/proc/sys/kernel/core_pattern") as file:
        wanted = (1, 1) if file.read(1) in "|@" else (0, 0)
    return (HELD, f"{after}") if limits == after == wanted else (EXPOSED, f"limit {limits}, then {after}")
