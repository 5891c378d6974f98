"""The programs that hold sockets of the host's stack to a jail's addresses, attached to the cgroup of its broker.

They run in the cgroup that a socket was made in, whoever uses it. Those of core/stackaddress.py do not see every way in
which a socket gets an address (listen(2) without bind(2), sendto(2) of UDP, raw sockets), so two more look at the
packets: what is not from an address of the jail does not leave, what is not for one is not heard.
"""

from __future__ import annotations

import posix
import sys

from jailng.core import stackaddress
from jailng.core.stackrules import LOOPBACK6, LOOPBACK_NET, jump_if6, load6, words
from jailng.linux import bpf
from jailng.linux.assembler import Code
from jailng.linux.bpf import FRAME, R0, R1, R2, R3, R4, R6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.stackrules import Rules

_SOCK_STREAM, _SOCK_DGRAM, _SOCK_RAW = 1, 2, 3
_CONNECTED = 1  # TCP_ESTABLISHED, which it is called of all sockets

# Offsets in struct bpf_sock, struct __sk_buff and struct bpf_sockopt of include/uapi/linux/bpf.h.
_SK_TYPE, _SK_PROTOCOL, _SK_SRC_IP4, _SK_SRC_IP6, _SK_STATE = 8, 12, 24, 28, 72
_SKB_PROTOCOL, _SKB_SK = 16, 168
_OPT_SK, _OPT_LEVEL, _OPT_NAME, _OPT_LENGTH = 0, 24, 28, 32

_SOL_SOCKET, _IPPROTO_IP, _IPPROTO_TCP, _IPPROTO_UDP, _IPPROTO_IPV6 = 1, 0, 6, 17, 41
_IPPROTO_ICMPV6 = 58
_DISCOVERY = range(133, 138)  # of routers and neighbours: solicitations, advertisements, redirects
_EXTENSIONS = (0, 43, 44, 60, 135)  # options, routes, fragments, mobility
# What does nothing, by type of socket, level and name. SO_REUSEADDR of UDP: a socket that is bound to no address would
# share a port of the host's, and take away what is not for it. IP_RECVERR and IPV6_RECVERR of raw sockets, and their
# RFC4884, but for those that ``_tell_errors`` lets pass: these bind to whatever address they like, and what the LAN
# answers by ICMP to datagrams of the host's or of another jail's, with a piece of those in it, would come to them by a
# queue that no program looks into.
_SILENT = (
    (_SOCK_DGRAM, _SOL_SOCKET, (2,)),
    (_SOCK_RAW, _IPPROTO_IP, (11, 26)),
    (_SOCK_RAW, _IPPROTO_IPV6, (25, 31)),
)
# What would lead past the host's routes, tell of its interfaces, take or route what it forwards or feed its IPsec, and
# groups, which would be silent.
_REFUSED_OPTIONS = {
    _SOL_SOCKET: (25, 62),  # SO_BINDTODEVICE, SO_BINDTOIFINDEX
    # IP_OPTIONS (source routes), IP_ROUTER_ALERT, IP_UNICAST_IF, IP_ADD_MEMBERSHIP, IP_ADD_SOURCE_MEMBERSHIP,
    # MCAST_JOIN_*, MRT_INIT
    _IPPROTO_IP: (4, 5, 50, 35, 39, 42, 46, 200),
    _IPPROTO_TCP: (31,),  # TCP_ULP: espintcp, and TLS, which programs can do themselves
    _IPPROTO_UDP: (100,),  # UDP_ENCAP
    # IPV6_ROUTER_ALERT, IPV6_UNICAST_IF, IPV6_ADD_MEMBERSHIP, IPV6_JOIN_ANYCAST, MCAST_JOIN_*, MRT6_INIT
    _IPPROTO_IPV6: (22, 76, 20, 27, 42, 46, 200),
}


def hold(cgroup: int, rules: Rules) -> None:
    """Attach all the programs to a cgroup2 directory, for the sockets that are made in it. Raises OSError."""
    for kind, attach_type, made in PROGRAMS:
        program = bpf.load(kind, attach_type, made(rules).assembled())
        try:
            bpf.attach(cgroup, program, attach_type)
        finally:
            posix.close(program)


def _packet(rules: Rules, source: bool) -> Code:
    """A packet that leaves has its ``source``, one that arrives its destination among the jail's addresses.

    What the host translates counts by its socket's address. Nothing leaves for the host's loopback, nor
    with options of IPv4, which could lead there: a source route.
    """
    code = Code()
    code.copy(R6, R1)
    code.load(R2, R6, _SKB_PROTOCOL)
    for version, protocol in ((4, b"\x08\x00"), (6, b"\x86\xdd")):
        if rules.all(version):
            code.jump_if(R2, int.from_bytes(protocol + bytes(2), sys.byteorder), f"ip{version}")
        elif version in rules.free:
            code.jump_if(R2, int.from_bytes(protocol + bytes(2), sys.byteorder), "pass")
    code.label("drop")
    code.leave(0)
    for version, part in ((4, _packet4), (6, _packet6)):
        if rules.all(version):
            part(code, rules, source)
    code.label("pass")
    code.leave(1)
    return code


def _packet4(code: Code, rules: Rules, source: bool) -> None:
    code.label("ip4")
    _load_bytes(code, 0, 20)
    if source:
        code.load(R2, FRAME, -32)
        code.mask(R2, words(b"\xff\0\0\0")[0])
        code.jump_unless(R2, words(b"\x45\0\0\0")[0], "drop")  # version 4, and five words: no options
    code.load(R2, FRAME, -20 if source else -16)
    for packed in rules.all(4):
        code.jump_if(R2, words(packed)[0], "to4" if source else "pass")
    if not source:
        code.jump("drop")
        return
    _load_socket(code, 4)
    code.load(R2, R0, _SK_SRC_IP4)
    for packed in rules.all(4):
        code.jump_if(R2, words(packed)[0], "to4")
    _only_streams(code)
    code.jump_unless(R2, 0, "drop")
    code.label("to4")
    code.load(R2, FRAME, -16)
    for packed in rules.all(4):
        code.jump_if(R2, words(packed)[0], "pass")
    code.mask(R2, LOOPBACK_NET[0])
    code.jump_unless(R2, LOOPBACK_NET[1], "pass")
    code.jump("drop")


def _packet6(code: Code, rules: Rules, source: bool) -> None:
    code.label("ip6")
    if source:
        _no_discovery(code)
    _load_bytes(code, 8, 32)
    load6(code, FRAME, -32 if source else -16)
    for packed in rules.all(6):
        jump_if6(code, packed, "to6" if source else "pass")
    if not source:
        code.jump("drop")
        return
    _load_socket(code, 6)
    load6(code, R0, _SK_SRC_IP6)
    for packed in rules.all(6):
        jump_if6(code, packed, "own6")
    _only_streams(code)
    jump_if6(code, bytes(16), "own6")
    code.jump("drop")
    code.label("own6")
    code.label("to6")
    load6(code, FRAME, -16)
    jump_if6(code, LOOPBACK6, "drop")
    code.jump("pass")


def _no_discovery(code: Code) -> None:
    """Whose address is where on the LAN, the host's and its router's too, is for no raw socket to say: RFC 4861.

    Nor by ICMP behind headers of extension, which only a raw socket has there.
    """
    next_header = words(b"\0\0\xff\0")[0]
    _load_bytes(code, 4, 4)
    code.load(R2, FRAME, -32)
    code.mask(R2, next_header)
    code.jump_if(R2, words(bytes((0, 0, _IPPROTO_ICMPV6, 0)))[0], "icmp6")
    for extension in _EXTENSIONS:
        code.jump_if(R2, words(bytes((0, 0, extension, 0)))[0], "extended6")
    code.jump("undisguised6")
    code.label("icmp6")
    _load_bytes(code, 40, 4)
    code.load(R2, FRAME, -32)
    code.mask(R2, words(b"\xff\0\0\0")[0])
    for kind in _DISCOVERY:
        code.jump_if(R2, words(bytes((kind, 0, 0, 0)))[0], "drop")
    code.jump("undisguised6")
    code.label("extended6")
    code.load_pointer(R1, R6, _SKB_SK)
    code.jump_if_null(R1, "drop")
    code.call(bpf.SK_FULLSOCK)
    code.jump_if_null(R0, "drop")
    code.load(R1, R0, _SK_TYPE)
    code.jump_if(R1, _SOCK_RAW, "drop")
    code.label("undisguised6")


def _load_socket(code: Code, version: int) -> None:
    """The socket of TCP or UDP that a packet with another source is from: R0; where it is from none, it is dropped.

    The host's rules may have translated it by now (ipnat(8)). What a stream or a datagram of a socket with an address
    is from is for bind(2), connect(2) and sendto(2) to say, or for the packet that came in, and all are held to the
    jail's addresses; so it is the socket's address that counts. A raw socket writes the packet itself.
    """
    code.load_pointer(R1, R6, _SKB_SK)
    code.jump_if_null(R1, "drop")
    code.call(bpf.SK_FULLSOCK)
    code.jump_if_null(R0, "drop")
    code.load(R2, R0, _SK_PROTOCOL)
    code.load(R1, R0, _SK_TYPE)
    code.jump_if(R1, _SOCK_STREAM, f"stream{version}")
    code.jump_unless(R1, _SOCK_DGRAM, "drop")
    code.jump_unless(R2, _IPPROTO_UDP, "drop")
    code.jump(f"socket{version}")
    code.label(f"stream{version}")
    code.jump_unless(R2, _IPPROTO_TCP, "drop")
    code.label(f"socket{version}")


def _only_streams(code: Code) -> None:
    """Go on with a stream of TCP, which may listen on all addresses; a datagram of such a socket has its own source."""
    code.load(R1, R0, _SK_TYPE)
    code.jump_unless(R1, _SOCK_STREAM, "drop")


def _load_bytes(code: Code, offset: int, size: int) -> None:
    """Bytes of the packet to the end of the frame."""
    code.copy(R1, R6)
    code.set(R2, offset)
    code.frame(R3, -32)
    code.set(R4, size)
    code.call(bpf.SKB_LOAD_BYTES)
    code.jump_unless(R0, 0, "drop")


def _option(rules: Rules) -> Code:
    """setsockopt(2)."""
    code = Code()
    code.copy(R6, R1)
    code.load(R2, R6, _OPT_LEVEL)
    code.load(R3, R6, _OPT_NAME)
    for level, names in _REFUSED_OPTIONS.items():
        code.jump_unless(R2, level, f"not {level}")
        for name in names:
            code.jump_if(R3, name, "refuse")
        code.label(f"not {level}")
    code.load_pointer(R1, R6, _OPT_SK)
    code.load(R4, R1, _SK_TYPE)
    for kind, level, names in _SILENT:
        code.jump_unless(R4, kind, f"not {kind} {level}")
        code.jump_unless(R2, level, f"not {kind} {level}")
        for name in names:
            code.jump_if(R3, name, f"errors {level}" if kind == _SOCK_RAW else "silent")
        code.label(f"not {kind} {level}")
    code.label("pass")
    code.set(R1, 0)
    code.store(R6, _OPT_LENGTH, R1)  # what the caller gave, however long it is
    code.leave(1)
    _tell_errors(code, rules)
    code.label("silent")
    code.set(R1, -1)
    code.store(R6, _OPT_LENGTH, R1)  # done, and the kernel is not asked
    code.leave(1)
    code.label("refuse")
    code.leave(0)  # EPERM
    return code


def _tell_errors(code: Code, rules: Rules) -> None:
    """A raw socket, in r1, that is connected from an address of the jail's may be told of errors: goes on at "pass".

    The kernel gives it what quotes a datagram from its own address. While it is connected it cannot be bound to another
    (raw_bind() in net/ipv4/raw.c), and by being disconnected it leaves the table of those that are given anything, for
    good (__udp_disconnect() in net/ipv4/udp.c).
    """
    for level in (_IPPROTO_IP, _IPPROTO_IPV6):
        code.label(f"errors {level}")
        code.load(R2, R1, _SK_STATE)
        code.jump_unless(R2, _CONNECTED, "silent")
        if level == _IPPROTO_IP:
            code.load(R2, R1, _SK_SRC_IP4)
            for packed in rules.all(4):
                code.jump_if(R2, words(packed)[0], "pass")
        else:
            load6(code, R1, _SK_SRC_IP6)
            for packed in rules.all(6):
                jump_if6(code, packed, "pass")
        code.jump("silent")


def _ingress(rules: Rules) -> Code:
    return _packet(rules, source=False)


def _egress(rules: Rules) -> Code:
    return _packet(rules, source=True)


PROGRAMS: tuple[tuple[int, int, Callable[[Rules], Code]], ...] = (
    (bpf.PROG_TYPE_CGROUP_SOCK_ADDR, bpf.CGROUP_INET4_BIND, stackaddress.bind4),
    (bpf.PROG_TYPE_CGROUP_SOCK_ADDR, bpf.CGROUP_INET6_BIND, stackaddress.bind6),
    (bpf.PROG_TYPE_CGROUP_SOCK_ADDR, bpf.CGROUP_INET4_CONNECT, stackaddress.connect4),
    (bpf.PROG_TYPE_CGROUP_SOCK_ADDR, bpf.CGROUP_INET6_CONNECT, stackaddress.connect6),
    (bpf.PROG_TYPE_CGROUP_SOCK_ADDR, bpf.CGROUP_UDP4_SENDMSG, stackaddress.sendmsg4),
    (bpf.PROG_TYPE_CGROUP_SOCK_ADDR, bpf.CGROUP_UDP6_SENDMSG, stackaddress.sendmsg6),
    (bpf.PROG_TYPE_CGROUP_SKB, bpf.CGROUP_INET_INGRESS, _ingress),
    (bpf.PROG_TYPE_CGROUP_SKB, bpf.CGROUP_INET_EGRESS, _egress),
    (bpf.PROG_TYPE_CGROUP_SOCKOPT, bpf.CGROUP_SETSOCKOPT, _option),
)
