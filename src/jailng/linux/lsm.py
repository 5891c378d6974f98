"""What the processes of a cgroup may mount, and have loaded as modules: BPF programs that the kernel's hooks ask.

These are strings, or things that the kernel does by the way, which no seccomp filter sees. Needs Linux 6.0
(BPF_LSM_CGROUP), CONFIG_BPF_LSM, and "bpf" among the security modules that are on (lsm= of the kernel's command line,
or CONFIG_LSM): without that a program can be loaded and attached, and is never asked.
"""

from __future__ import annotations

import posix
import sys

from jailng.linux import bpf
from jailng.linux.libc import ENOENT, ENOSYS, buffer, syscall

_PROG_TYPE_LSM = 29
_PROG_TYPE_SYSCALL = 31
CGROUP = 43
_SLEEPABLE = 1 << 4  # what a PROG_TYPE_SYSCALL has to be
_KIND_FUNCTION = 12
_LSM_ID_BPF = 109
_MOST_MODULES = 64
_LIST = "/sys/kernel/security/lsm"
_HOOK = "bpf_lsm_sb_mount"
_MODULE_HOOK = "bpf_lsm_kernel_module_request"

# struct arguments of security_sb_mount(dev_name, path, type, flags, data), each a word
_TYPE, _FLAGS = 16, 24
# MS_REMOUNT, MS_BIND, MS_MOVE and the four of propagation: then nothing new is mounted, and the type means nothing.
_NOTHING_NEW = 0x20 | 0x1000 | 0x2000 | 0x1E0000


def active() -> bool:
    """Whether the kernel asks BPF programs: lsm_list_modules(2), or before Linux 6.8 securityfs. Raises OSError."""
    size = _MOST_MODULES * 8
    identities, room = buffer(size), buffer(size.to_bytes(4, sys.byteorder))
    try:
        count = syscall("lsm_list_modules", identities, room, 0)
    except OSError as error:
        if error.errno != ENOSYS:
            raise
        file = posix.open(_LIST, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            return b"bpf" in posix.read(file, 4096).split(b",")
        finally:
            posix.close(file)
    return _LSM_ID_BPF in [int.from_bytes(identities.raw[8 * i : 8 * i + 8], sys.byteorder) for i in range(count)]


def function(name: str) -> int:
    """The number that the kernel's BTF has for one of its functions; 0: it has no such one. Raises OSError.

    The kernel looks it up itself, for a program that asks (Linux 5.14), in 0.3 ms; its BTF has 5 MB to search.
    """
    code, at = bpf.text(name.encode())
    code += bpf.copy(bpf.R1, bpf.FRAME) + bpf.add(bpf.R1, at) + bpf.mov(bpf.R2, len(name.encode()) + 1)
    code += bpf.mov(bpf.R3, _KIND_FUNCTION) + bpf.mov(bpf.R4, 0) + bpf.call(bpf.BTF_FIND_BY_NAME_KIND) + bpf.leave()
    program = bpf.load(_PROG_TYPE_SYSCALL, 0, code, _SLEEPABLE)
    try:
        return max(bpf.run(program), 0)
    finally:
        posix.close(program)


def judge(types: list[bytes]) -> bytes:
    """The program: 1, which permits, for what mounts nothing new and for these types; else 0, which is EPERM.

    A type has at most 7 bytes. It may be followed by a dot and the name of what serves it, as in fuse.sshfs; the kernel
    takes that of file systems of which more than one program is the server, and finds no such type otherwise.
    """
    yes = bpf.mov(bpf.R0, 1) + bpf.leave()
    code = bpf.fetch(bpf.R2, bpf.R1, _FLAGS) + bpf.both(bpf.R2, _NOTHING_NEW)
    code += bpf.jump_if(bpf.R2, 0, len(yes) // 8) + yes
    # The string is cut to the 16 bytes that there are, which are all 0 before.
    code += bpf.mov(bpf.R2, 0) + bpf.put(bpf.FRAME, -16, bpf.R2) + bpf.put(bpf.FRAME, -8, bpf.R2)
    code += bpf.fetch(bpf.R3, bpf.R1, _TYPE) + bpf.mov(bpf.R2, 16)
    code += bpf.copy(bpf.R1, bpf.FRAME) + bpf.add(bpf.R1, -16) + bpf.call(bpf.PROBE_READ_KERNEL_STR)
    for kind in types:
        code += _begins_with(kind + b"\0", yes) + _begins_with(kind + b".", yes)
    return code + bpf.mov(bpf.R0, 0) + bpf.leave()


def _begins_with(start: bytes, then: bytes) -> bytes:
    mask = int.from_bytes(b"\xff" * len(start) + bytes(8 - len(start)), sys.byteorder)
    word = int.from_bytes(start.ljust(8, b"\0"), sys.byteorder)
    code = bpf.fetch(bpf.R1, bpf.FRAME, -16) + bpf.constant(bpf.R2, mask) + bpf.both_of(bpf.R1, bpf.R2)
    code += bpf.constant(bpf.R2, word)
    return code + bpf.jump_unless_same(bpf.R1, bpf.R2, len(then) // 8) + then


def load(types: list[bytes]) -> int:
    """The program for these types, to be attached to a cgroup2 directory with ``bpf.attach`` as ``CGROUP``.

    Returns its file descriptor. Raises OSError with the name of what this kernel has not: a program that is never
    asked would permit everything.
    """
    return _loaded(_HOOK, judge(types))


def load_refusal() -> int:
    """The program, to be attached likewise, that has the kernel load no module because of what is asked of it.

    Raises OSError, as ``load``.
    """
    return _loaded(_MODULE_HOOK, bpf.mov(bpf.R0, 0) + bpf.leave())


def _loaded(name: str, code: bytes) -> int:
    if not active():
        raise OSError(ENOENT, posix.strerror(ENOENT), "security module bpf")
    hook = function(name)
    if not hook:
        raise OSError(ENOENT, posix.strerror(ENOENT), name)
    try:
        return bpf.load(_PROG_TYPE_LSM, CGROUP, code, 0, hook)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from None
