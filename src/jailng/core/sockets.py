"""What ng.sockets means for the processes that are in a jail already: programs on its cgroup.

The filter that a process has come in with stays as it is. Of the kernel's hooks for programs on a cgroup one is asked
when an internet socket is made, and two (Linux 6.7) when a unix socket is connected, or written to by name; none when
one of another family is made. So what is taken away is taken at once, as far as that goes, and given back by taking
the programs off; a family that the filter has refused from the start only new processes get.
"""

from __future__ import annotations

import posix

from jailng.core import privileges
from jailng.errors import JailError
from jailng.linux import bpf, bpfattached, cgroup
from jailng.linux.assembler import Code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.params.model import Parameters

_AF_INET = 2
_FAMILY = 4  # in struct bpf_sock
_EAFNOSUPPORT = 97  # what the filter says
# family: the hook, and the type of the programs that it takes
_HOOKS = {
    "ipv4": ((bpfattached.CGROUP_INET_SOCK_CREATE, bpfattached.PROG_TYPE_CGROUP_SOCK),),
    "unix": (
        (bpfattached.CGROUP_UNIX_CONNECT, bpf.PROG_TYPE_CGROUP_SOCK_ADDR),
        (bpfattached.CGROUP_UNIX_SENDMSG, bpf.PROG_TYPE_CGROUP_SOCK_ADDR),
    ),
}


def permit(record: Record, params: Parameters) -> None:
    """Have the members of a jail make sockets as ``params`` say. Needs the lock. Raises JailError.

    Killed in the middle, whoever asks for the same again finds it changed again, and does the rest.
    """
    families = privileges.permitted(params)
    # Of a jail on the host's stack the sockets are made by its broker, in a cgroup of that one's own.
    for path in (f"{record.cgroup}/members", f"{record.cgroup}/sockets"):
        if not cgroup.exists(path):
            continue
        directory = cgroup.open_directory(path)
        try:
            for family, hooks in _HOOKS.items():
                for hook, kind in hooks:
                    _set(directory, hook, kind, family in families)
        except OSError as error:
            raise JailError(f"ng.sockets: a program on the jail's cgroup: {error.strerror}") from None
        finally:
            posix.close(directory)


def _set(directory: int, hook: int, kind: int, permitted: bool) -> None:
    """Have exactly one program of ours there, or none where it is permitted. Raises OSError."""
    there = bpfattached.ours(directory, hook)
    try:
        if permitted:
            for program in there:
                bpfattached.detach(directory, program, hook)
        elif not there:
            program = bpf.load(kind, hook, _refusal(hook))
            there.append(program)
            bpf.attach(directory, program, hook)
    finally:
        for program in there:
            posix.close(program)


def _refusal(hook: int) -> bytes:
    code = Code()
    if hook == bpfattached.CGROUP_INET_SOCK_CREATE:  # which is asked for IPv6 as well
        code.load(bpf.R2, bpf.R1, _FAMILY)
        code.jump_if(bpf.R2, _AF_INET, "no")
        code.leave(1)
    code.label("no")
    code.refuse(_EAFNOSUPPORT)
    return code.assembled()
