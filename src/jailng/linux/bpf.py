"""eBPF programs on a cgroup: bpf(2). A handful of instructions, assembled here; no compiler and no library."""

from __future__ import annotations

import posix
import sys
from _struct import Struct

from jailng.linux.libc import address, buffer, syscall, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.libc import Buffer

PROG_TYPE_CGROUP_SKB = 8
PROG_TYPE_CGROUP_DEVICE = 15
PROG_TYPE_CGROUP_SOCK_ADDR = 18
PROG_TYPE_CGROUP_SOCKOPT = 25
PROG_TYPE_SOCK_OPS = 13
CGROUP_INET_INGRESS = 0
CGROUP_INET_EGRESS = 1
CGROUP_SOCK_OPS = 3
CGROUP_DEVICE = 6
CGROUP_INET4_BIND = 8
CGROUP_INET6_BIND = 9
CGROUP_INET4_CONNECT = 10
CGROUP_INET6_CONNECT = 11
CGROUP_UDP4_SENDMSG = 14
CGROUP_UDP6_SENDMSG = 15
CGROUP_SETSOCKOPT = 22

_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_TEST_RUN = 10
PROG_GET_FD_BY_ID, MAP_GET_FD_BY_ID, LINK_GET_FD_BY_ID = 13, 14, 30  # for ``numbered``
_OBJ_GET_INFO_BY_FD = 15
_LINK_CREATE = 28
_INFO = 256  # bytes of what the kernel tells of a program, map or link
F_ALLOW_OVERRIDE = 1  # one nearer to a process judges instead
F_ALLOW_MULTI = 2  # beside what the host's administrator, or systemd, has attached

# enum bpf_func_id: what a program may call
MAP_LOOKUP_ELEM = 1
MAP_UPDATE_ELEM = 2
MAP_DELETE_ELEM = 3
GET_CURRENT_PID_TGID = 14
GET_CURRENT_UID_GID = 15
GET_CURRENT_COMM = 16
SKB_LOAD_BYTES = 26
GET_CURRENT_TASK = 35
SOCK_OPS_CB_FLAGS_SET = 59
BIND = 64
SK_FULLSOCK = 95
PROBE_READ_USER = 112  # Linux 5.5
PROBE_READ_KERNEL = 113
PROBE_READ_KERNEL_STR = 115
GET_CURRENT_ANCESTOR_CGROUP_ID = 123  # Linux 5.7
KTIME_GET_BOOT_NS = 125  # Linux 5.8
RINGBUF_OUTPUT = 130
RINGBUF_RESERVE = 131
RINGBUF_SUBMIT = 132
RINGBUF_DISCARD = 133
BTF_FIND_BY_NAME_KIND = 167  # Linux 5.14
SET_RETVAL = 187  # Linux 5.18

NAME = b"jailng"  # of our programs and maps
R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FRAME = range(11)
_INSTRUCTION = Struct("=BBHI").pack  # struct bpf_insn: u8 code, two half-byte registers, s16 off, s32 imm
_WORD = 8
_TRIES = 20


def mov(register: int, value: int) -> bytes:
    """``register = value``."""
    return instruction(0xB7, register, 0, value)


def copy(register: int, source: int) -> bytes:
    """``register = source``."""
    return instruction(0xBF, register, 0, 0, source)


def add(register: int, value: int) -> bytes:
    """``register += value``."""
    return instruction(0x07, register, 0, value)


def constant(register: int, value: int) -> bytes:
    """``register = value``, all 64 bits of it."""
    return instruction(0x18, register, 0, value & 0xFFFFFFFF) + instruction(0, 0, 0, value >> 32)


def both(register: int, mask: int) -> bytes:
    """``register &= mask``, which has 31 bits."""
    return instruction(0x57, register, 0, mask)


def fetch(register: int, source: int, offset: int) -> bytes:
    """``register = *(u64 *)(source + offset)``."""
    return instruction(0x79, register, offset, 0, source)


def put(target: int, offset: int, register: int) -> bytes:
    """``*(u64 *)(target + offset) = register``."""
    return instruction(0x7B, target, offset, 0, register)


def jump_if(register: int, value: int, skip: int) -> bytes:
    """Skip that many instructions if ``register`` is ``value``."""
    return instruction(0x15, register, skip, value)


def both_of(register: int, other: int) -> bytes:
    """``register &= other``."""
    return instruction(0x5F, register, 0, 0, other)


def jump_unless_same(register: int, other: int, skip: int) -> bytes:
    """Skip that many instructions if the registers differ."""
    return instruction(0x5D, register, skip, 0, other)


def text(content: bytes) -> tuple[bytes, int]:
    """What puts a string and its NUL at the end of the stack frame, and where it then is from the frame's end."""
    size = -(-(len(content) + 1) // _WORD) * _WORD
    padded = content.ljust(size, b"\0")
    parts = [
        constant(R1, int.from_bytes(padded[at : at + _WORD], sys.byteorder)) + put(FRAME, at - size, R1)
        for at in range(0, size, _WORD)
    ]
    return b"".join(parts), -size


def call(helper: int) -> bytes:
    """``r0 = helper(r1, ...)``. What is in r1 to r5 is lost."""
    return instruction(0x85, 0, 0, helper)


def jump32_if_not(register: int, value: int, skip: int) -> bytes:
    """Skip that many instructions if the low half of ``register`` is not ``value``."""
    return instruction(0x56, register, skip, value)


def leave() -> bytes:
    """Return r0."""
    return instruction(0x95, 0, 0, 0)


def instruction(code: int, register: int, offset: int, value: int, source: int = 0) -> bytes:
    """One instruction in the kernel's form, for who knows its code (linux/assembler.py)."""
    registers = register | source << 4 if sys.byteorder == "little" else register << 4 | source
    return _INSTRUCTION(code, registers, offset & 0xFFFF, value & 0xFFFFFFFF)


def load(
    kind: int,
    attach_type: int,
    code: bytes,
    flags: int = 0,
    function: int = 0,
    log: Buffer | None = None,
    name: bytes = NAME,
) -> int:
    """Have the kernel verify a program; returns its file descriptor (close-on-exec). Raises OSError.

    ``function`` is the number in BTF of the kernel's function that it is to be attached to, where it is to one.
    ``log`` gets what the verifier says. ``name`` is letters, digits, _ and . up to 15.
    """
    instructions, licence = buffer(code), buffer(b"GPL\0")
    # union bpf_attr, BPF_PROG_LOAD: prog_type insn_cnt insns license log_level log_size log_buf kern_version prog_flags
    # prog_name[16] prog_ifindex expected_attach_type, then nine that stay 0, attach_btf_id attach_prog_fd
    attr = words(kind, len(code) // 8, size=4) + words(address(instructions), address(licence))
    attr += words(1, len(log.raw), size=4) + words(address(log)) if log else bytes(16)
    attr += words(0, flags, size=4) + name.ljust(16, b"\0") + words(0, attach_type, size=4)
    if function:
        attr += bytes(36) + words(function, 0, size=4)
    for _ in range(_TRIES):
        try:
            return _call(_PROG_LOAD, attr)
        except BlockingIOError:  # the verifier gives up when a signal comes
            pass
    return _call(_PROG_LOAD, attr)


def run(program: int, arguments: bytes = b"") -> int:
    """Run a program once, by this process; what it returns, of 32 bits. Raises OSError.

    It is one of PROG_TYPE_SYSCALL, or for a raw tracepoint, with the tracepoint's ``arguments``.
    """
    given = buffer(arguments) if arguments else None
    # union bpf_attr, BPF_PROG_TEST_RUN: prog_fd retval data_size_in data_size_out data_in data_out repeat duration
    # ctx_size_in ctx_size_out ctx_in ctx_out flags cpu
    context = words(len(arguments), 0, size=4) + words(address(given) if given else 0, 0)
    attr = buffer(words(program, 0, 0, 0, size=4) + bytes(24) + context + bytes(16))
    syscall("bpf", _PROG_TEST_RUN, attr, len(attr.raw))
    return int.from_bytes(attr.raw[4:8], sys.byteorder, signed=True)


def attach(cgroup: int, program: int, attach_type: int, flags: int = F_ALLOW_MULTI) -> None:
    """Attach a program to the cgroup2 directory ``cgroup``, for all processes in it and below, for its life.

    Needs CAP_NET_ADMIN and CAP_BPF (or CAP_SYS_ADMIN) in the host's user namespace. Raises OSError.
    """
    attr = words(cgroup, program, attach_type, flags, size=4)
    _call(_PROG_ATTACH, attr)


def link(target: int, program: int, attach_type: int) -> int:
    """As ``attach``, but only as long as somebody has the descriptor (close-on-exec) that this returns.

    For TCX the ``target`` is an interface's number. Raises OSError.
    """
    return _call(_LINK_CREATE, words(program, target, attach_type, 0, size=4) + bytes(16))


def number(fd: int) -> int:
    """What the kernel calls a program, map or link as long as it lives, for ``numbered``. Raises OSError."""
    return int.from_bytes(info(fd)[4:8], sys.byteorder)


def info(fd: int) -> bytes:
    """What the kernel tells of one: struct bpf_prog_info, bpf_map_info, bpf_link_info: type id ... Raises OSError."""
    told = buffer(_INFO)
    _call(_OBJ_GET_INFO_BY_FD, words(fd, _INFO, size=4) + words(address(told)))
    return told.raw


def numbered(command: int, number: int) -> int:
    """A descriptor (close-on-exec) of what the kernel calls by that number, whoever holds it.

    ``command``: PROG_GET_FD_BY_ID, or that of maps or links. Raises OSError (ENOENT: nobody does).
    """
    return _call(command, words(number, 0, 0, size=4))


def _call(command: int, attr: bytes) -> int:
    return syscall("bpf", command, attr, len(attr))


def allow_reserved_ports(cgroup: int, uid: int) -> None:
    """Let processes of the real uid ``uid`` (as the host counts it) in the cgroup2 directory bind ports below 1024.

    For a jail on the host's network: that network namespace asks for CAP_NET_BIND_SERVICE in the host's user namespace,
    which a jail never has. Bit 1 of a bind program's result waives the capability (since Linux 5.12). The uid is looked
    at so that in a jail, too, these ports are root's only. Raises OSError.
    """
    code = call(GET_CURRENT_UID_GID) + jump32_if_not(R0, uid, 2) + mov(R0, 3) + leave() + mov(R0, 1) + leave()
    for attach_type in (CGROUP_INET4_BIND, CGROUP_INET6_BIND):
        program = load(PROG_TYPE_CGROUP_SOCK_ADDR, attach_type, code)
        try:
            attach(cgroup, program, attach_type)
        finally:
            posix.close(program)
