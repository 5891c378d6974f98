"""The eBPF programs that are attached to a cgroup or an interface: bpf(2)'s query and detach. linux/bpf.py attaches."""

from __future__ import annotations

import posix
import sys

from jailng.linux import bpf
from jailng.linux.libc import address, buffer, syscall, words

PROG_TYPE_CGROUP_SOCK = 9
CGROUP_INET_SOCK_CREATE = 2
CGROUP_UNIX_CONNECT = 49  # Linux 6.7
CGROUP_UNIX_SENDMSG = 50  # Linux 6.7

_PROG_DETACH = 9
_PROG_QUERY = 16
_MOST = 64  # programs on one cgroup for one thing: BPF_CGROUP_MAX_PROGS
_NAME, _NAME_LENGTH = 64, 16  # where struct bpf_prog_info has the name


def ours(cgroup: int, attach_type: int, name: bytes = bpf.NAME) -> list[int]:
    """Descriptors of programs of that kind and name on the cgroup2 directory ``cgroup``. Raises OSError."""
    found = []
    for number in numbers(cgroup, attach_type):
        try:
            program = bpf.numbered(bpf.PROG_GET_FD_BY_ID, number)
        except FileNotFoundError:
            continue  # whoever had it attached has taken it away
        if bpf.info(program)[_NAME : _NAME + _NAME_LENGTH].rstrip(b"\0") == name:
            found.append(program)
        else:
            posix.close(program)
    return found


def numbers(target: int, attach_type: int) -> list[int]:
    """What the kernel calls the programs on a cgroup2 directory, or, for TCX, on the interface of that number.

    Raises OSError.
    """
    found = buffer(bytes(4 * _MOST))
    # union bpf_attr, BPF_PROG_QUERY: target_fd attach_type query_flags attach_flags prog_ids prog_cnt, then what stays
    # 0, and the revision, which the kernel writes (for TCX) whether or not the size has room for it
    asked = words(target, attach_type, 0, 0, size=4) + words(address(found)) + words(_MOST, 0, size=4)
    attr = buffer(asked + bytes(32))
    syscall("bpf", _PROG_QUERY, attr, len(attr.raw))
    count = int.from_bytes(attr.raw[24:28], sys.byteorder)
    return [int.from_bytes(found.raw[4 * at : 4 * at + 4], sys.byteorder) for at in range(count)]


def detach(cgroup: int, program: int, attach_type: int) -> None:
    """Take a program off a cgroup. Raises OSError."""
    attr = words(cgroup, program, attach_type, size=4)
    syscall("bpf", _PROG_DETACH, attr, len(attr))
