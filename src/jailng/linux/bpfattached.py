"""The eBPF programs that are attached to a cgroup: bpf(2)'s query and detach. linux/bpf.py attaches."""

from __future__ import annotations

import posix
import sys

from jailng.linux.libc import address, buffer, syscall, words

PROG_TYPE_CGROUP_SOCK = 9
CGROUP_INET_SOCK_CREATE = 2
CGROUP_UNIX_CONNECT = 49  # Linux 6.7
CGROUP_UNIX_SENDMSG = 50  # Linux 6.7

_PROG_DETACH = 9
_PROG_GET_FD_BY_ID = 13
_OBJ_GET_INFO_BY_FD = 15
_PROG_QUERY = 16
_MOST = 64  # programs on one cgroup for one thing: BPF_CGROUP_MAX_PROGS
_INFO, _NAME, _NAME_LENGTH = 80, 64, 16  # of struct bpf_prog_info: what is read of it, and where the name is
_NAMED = b"jailng"  # as bpf.load() names ours


def ours(cgroup: int, attach_type: int) -> list[int]:
    """Descriptors of jailng's programs of that kind on the cgroup2 directory ``cgroup``. Raises OSError."""
    found = []
    for number in _ids(cgroup, attach_type):
        attr = words(number, 0, 0, size=4)
        try:
            program = syscall("bpf", _PROG_GET_FD_BY_ID, attr, len(attr))
        except FileNotFoundError:
            continue  # whoever had it attached has taken it away
        info = buffer(bytes(_INFO))
        attr = words(program, _INFO, size=4) + words(address(info))
        syscall("bpf", _OBJ_GET_INFO_BY_FD, attr, len(attr))
        if info.raw[_NAME : _NAME + _NAME_LENGTH].rstrip(b"\0") == _NAMED:
            found.append(program)
        else:
            posix.close(program)
    return found


def _ids(cgroup: int, attach_type: int) -> list[int]:
    numbers = buffer(bytes(4 * _MOST))
    # union bpf_attr, BPF_PROG_QUERY: target_fd attach_type query_flags attach_flags prog_ids prog_cnt
    attr = buffer(words(cgroup, attach_type, 0, 0, size=4) + words(address(numbers)) + words(_MOST, 0, size=4))
    syscall("bpf", _PROG_QUERY, attr, 32)
    count = int.from_bytes(attr.raw[24:28], sys.byteorder)
    return [int.from_bytes(numbers.raw[4 * at : 4 * at + 4], sys.byteorder) for at in range(count)]


def detach(cgroup: int, program: int, attach_type: int) -> None:
    """Take a program off a cgroup. Raises OSError."""
    attr = words(cgroup, program, attach_type, size=4)
    syscall("bpf", _PROG_DETACH, attr, len(attr))
