"""What ng.sockets means for the processes that are in a jail already: programs on its cgroup.

The filter that a process has come in with stays as it is. Of the kernel's hooks for programs on a cgroup one is asked
when an internet socket is made, and two (Linux 6.7) when a unix socket is connected, or written to by name; none when
one of another family is made. So what is taken away is taken at once, as far as that goes, and given back by taking
the programs off; a family that the filter has refused from the start only new processes get.

A socket of IPv6 reaches IPv4, too, by addresses in IPv6's clothes (::ffff:0:0/96), and no filter sees an address. So
where IPv4 is left out, three more programs are there from the start: nothing connects, sends or listens that way.
"""

from __future__ import annotations

import posix
import sys

from jailng.core import privileges
from jailng.core.operation import Operation
from jailng.core.stackrules import jump_if_mapped, load6
from jailng.errors import JailError
from jailng.linux import bpf, bpfattached, cgroup
from jailng.linux.assembler import Code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.operation import Slots
    from jailng.core.registry import Record
    from jailng.params.model import Parameters

_AF_INET, _AF_INET6 = 2, 10
_FAMILY, _STATE = 4, 72  # in struct bpf_sock
_USER_IP6, _SOCKET_FAMILY = 8, 28  # in struct bpf_sock_addr
_PROTOCOL, _SOCKET = 16, 168  # in struct __sk_buff
_IPV4 = b"\x08\x00\0\0"  # ETH_P_IP, as the wire has it
_LISTENS, _UNCONNECTED = 10, 7  # TCP_LISTEN, TCP_CLOSE, which it is called of all sockets
_EAFNOSUPPORT = 97  # what the filter says
# family: the hook, and the type of the programs that it takes
_HOOKS = {
    "ipv4": ((bpfattached.CGROUP_INET_SOCK_CREATE, bpfattached.PROG_TYPE_CGROUP_SOCK),),
    "unix": (
        (bpfattached.CGROUP_UNIX_CONNECT, bpf.PROG_TYPE_CGROUP_SOCK_ADDR),
        (bpfattached.CGROUP_UNIX_SENDMSG, bpf.PROG_TYPE_CGROUP_SOCK_ADDR),
    ),
}
# Of IPv4 by sockets of IPv6: by a name of their own, for ng.stack=shared has others for these hooks.
_CLOTHED = b"jailng_clothed"
_CLOTHED_HOOKS = (
    (bpf.CGROUP_INET6_CONNECT, bpf.PROG_TYPE_CGROUP_SOCK_ADDR),
    (bpf.CGROUP_UDP4_SENDMSG, bpf.PROG_TYPE_CGROUP_SOCK_ADDR),  # which is asked then
    (bpf.CGROUP_INET_INGRESS, bpf.PROG_TYPE_CGROUP_SKB),
)


class RefuseClothed(Operation):
    """Have IPv4 reached by no socket of IPv6 either."""

    __slots__ = ("cgroup",)

    def __init__(self, cgroup: str) -> None:
        self.cgroup = cgroup

    def apply(self, slots: Slots) -> None:
        """Raises JailError. The programs go with the cgroup."""
        try:
            _permit_clothed(self.cgroup, False)
        except OSError as error:
            raise _failed(error) from None

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "let IPv4 be reached by no socket of IPv6 either"


def operations(params: Parameters, path: str) -> list[Operation]:
    """What ng.sockets takes, beyond the filter, for the cgroup ``path`` of a jail that is being made."""
    return [RefuseClothed(path)] if _may_clothe(params) and "ipv4" not in privileges.permitted(params) else []


def _may_clothe(params: Parameters) -> bool:
    return privileges.has_family(params, "ip6")  # which is not changed while it runs


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
            raise _failed(error) from None
        finally:
            posix.close(directory)
    if _may_clothe(params):
        try:
            _permit_clothed(record.cgroup, "ipv4" in families)
        except OSError as error:
            raise _failed(error) from None


def _failed(error: OSError) -> JailError:
    return JailError(f"ng.sockets: a program on the jail's cgroup: {error.strerror}")


def _permit_clothed(path: str, permitted: bool) -> None:
    directory = cgroup.open_directory(path)  # of which those that _HOOKS are for are parts
    try:
        for hook, kind in _CLOTHED_HOOKS:
            _set(directory, hook, kind, permitted, _CLOTHED)
    finally:
        posix.close(directory)


def _set(directory: int, hook: int, kind: int, permitted: bool, name: bytes = bpf.NAME) -> None:
    """Have exactly one program of that name there, or none where it is permitted. Raises OSError."""
    there = bpfattached.ours(directory, hook, name)
    try:
        if permitted:
            for program in there:
                bpfattached.detach(directory, program, hook)
        elif not there:
            code = _refusal(hook) if name == bpf.NAME else _clothed(hook)
            program = bpf.load(kind, hook, code, name=name)
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


def _clothed(hook: int) -> bytes:
    code = Code()
    if hook == bpf.CGROUP_INET_INGRESS:  # what is connected stays so, as sockets of IPv4 do
        code.load(bpf.R2, bpf.R1, _PROTOCOL)
        code.jump_unless(bpf.R2, int.from_bytes(_IPV4, sys.byteorder), "pass")
        code.load_pointer(bpf.R1, bpf.R1, _SOCKET)
        code.jump_if_null(bpf.R1, "pass")
        code.call(bpf.SK_FULLSOCK)
        code.jump_if_null(bpf.R0, "pass")
        code.load(bpf.R2, bpf.R0, _FAMILY)
        code.jump_unless(bpf.R2, _AF_INET6, "pass")
        code.load(bpf.R2, bpf.R0, _STATE)
        code.jump_if(bpf.R2, _LISTENS, "drop")
        code.jump_unless(bpf.R2, _UNCONNECTED, "pass")
        code.label("drop")
        code.leave(0)
        code.label("pass")
        code.leave(1)
        return code.assembled()
    if hook == bpf.CGROUP_UDP4_SENDMSG:
        code.load(bpf.R2, bpf.R1, _SOCKET_FAMILY)
        code.jump_if(bpf.R2, _AF_INET6, "clothed")
    else:
        load6(code, bpf.R1, _USER_IP6)
        jump_if_mapped(code, "clothed")
    code.leave(1)
    code.label("clothed")
    code.refuse(_EAFNOSUPPORT)
    return code.assembled()
