"""The programs that hold sockets of the host's stack to a jail's addresses, as FreeBSD's kernel holds a jail's.

What is here for bind(2), connect(2) and sendto(2) are prison_local_ip4, prison_remote_ip4 and prison_check_ip4 of
FreeBSD's kern_jail.c, and the same for IPv6. They run in the cgroup that a socket was made in, whoever uses it. No
program sees every way in which a socket gets an address (listen(2) without bind(2), sendto(2) of UDP, raw sockets), so
two more look at the packets: what is not from an address of the jail does not leave, what is not for one is not heard.
"""

from __future__ import annotations

import errno
import posix
import sys
from _socket import AF_INET, AF_INET6, inet_ntop

from jailng.linux import bpf
from jailng.linux.assembler import BIND, GET_CURRENT_UID_GID, SK_FULLSOCK, SKB_LOAD_BYTES, Code
from jailng.linux.bpf import FRAME, R0, R1, R2, R3, R4, R5, R6, R7, R8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SOCK_STREAM, _SOCK_DGRAM = 1, 2

# Offsets in struct bpf_sock_addr, struct bpf_sock, struct __sk_buff and struct bpf_sockopt of include/uapi/linux/bpf.h.
_USER_IP4, _USER_IP6, _FAMILY, _MSG_SRC_IP4, _MSG_SRC_IP6, _SK = 4, 8, 28, 40, 44, 64
_SK_TYPE, _SK_PROTOCOL, _SK_SRC_IP4, _SK_SRC_IP6 = 8, 12, 24, 28
_SKB_PROTOCOL, _SKB_SK = 16, 168
_OPT_SK, _OPT_LEVEL, _OPT_NAME, _OPT_LENGTH = 0, 24, 28, 32

_SOL_SOCKET, _IPPROTO_IP, _IPPROTO_TCP, _IPPROTO_UDP, _IPPROTO_IPV6 = 1, 0, 6, 17, 41
_SO_REUSEADDR = 2
# What would lead past the host's routes, tell of its interfaces or feed its IPsec, and groups, which would be silent.
_REFUSED_OPTIONS = {
    _SOL_SOCKET: (25, 62),  # SO_BINDTODEVICE, SO_BINDTOIFINDEX
    # IP_OPTIONS (source routes), IP_UNICAST_IF, IP_ADD_MEMBERSHIP, IP_ADD_SOURCE_MEMBERSHIP, MCAST_JOIN_*
    _IPPROTO_IP: (4, 50, 35, 39, 42, 46),
    _IPPROTO_TCP: (31,),  # TCP_ULP: espintcp, and TLS, which programs can do themselves
    _IPPROTO_UDP: (100,),  # UDP_ENCAP
    _IPPROTO_IPV6: (76, 20, 27, 42, 46),  # IPV6_UNICAST_IF, IPV6_ADD_MEMBERSHIP, IPV6_JOIN_ANYCAST, MCAST_JOIN_*
}
_BY_WHOM = 0xFFFFFFFF


class Rules:
    """What a jail's sockets are held to: addresses in network order with their prefixes, the primary ones first.

    Those of a version in ``free`` (4, 6) are not held to any.
    ``root`` is the uid on the host that may bind ports below 1024, -1 for none. ``select``: an address on whose network
    the peer is goes before the primary one, by version (4, 6).
    """

    __slots__ = ("addresses", "free", "root", "select")

    def __init__(
        self, addresses: list[tuple[bytes, int]], root: int, select: dict[int, bool], free: tuple[int, ...] = ()
    ) -> None:
        self.free = free
        self.addresses = {
            4: [(packed, prefix) for packed, prefix in addresses if len(packed) == 4],
            6: [(packed, prefix) for packed, prefix in addresses if len(packed) == 16],
        }
        self.root = root
        self.select = select

    def all(self, version: int) -> list[bytes]:
        """The addresses of version 4 or 6."""
        return [packed for packed, _ in self.addresses[version]]

    def texts(self) -> list[str]:
        """The addresses as people write them."""
        families = {4: AF_INET, 6: AF_INET6}
        return [inet_ntop(family, packed) for version, family in families.items() for packed in self.all(version)]

    def primary(self, version: int) -> bytes:
        """The first of them. There is one."""
        return self.addresses[version][0][0]


def hold(cgroup: int, rules: Rules) -> None:
    """Attach all the programs to a cgroup2 directory, for the sockets that are made in it. Raises OSError."""
    for kind, attach_type, made in PROGRAMS:
        program = bpf.load(kind, attach_type, made(rules).assembled())
        try:
            bpf.attach(cgroup, program, attach_type)
        finally:
            posix.close(program)


def _words(packed: bytes) -> list[int]:
    return [int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4)]


def _mask(prefix: int, bits: int) -> list[int]:
    return _words((((1 << prefix) - 1) << (bits - prefix)).to_bytes(bits // 8, "big"))


_LOOPBACK_NET = _words(b"\xff\0\0\0")[0], _words(b"\x7f\0\0\0")[0]
_LOOPBACK6 = bytes(15) + b"\1"
_MAPPED = _words(bytes(10) + b"\xff\xff")
_ADDRESS6 = (R2, R3, R4, R5)  # where an IPv6 address is held while it is looked at


def _load6(code: Code, source: int, offset: int) -> None:
    for number, register in enumerate(_ADDRESS6):
        code.load(register, source, offset + 4 * number)


def _store6(code: Code, target: int, offset: int, packed: bytes) -> None:
    for number, word in enumerate(_words(packed)):
        code.set(R1, word)
        code.store(target, offset + 4 * number, R1)


def _jump_if6(code: Code, packed: bytes, label: str) -> None:
    """Go on at ``label`` if the loaded address is that one."""
    other = f"not {packed.hex()} {label}"
    for register, word in zip(_ADDRESS6, _words(packed), strict=True):
        code.jump_unless(register, word, other)
    code.jump(label)
    code.label(other)


def _jump_if_mapped(code: Code, label: str) -> None:
    for register, word in zip(_ADDRESS6, _MAPPED, strict=False):
        code.jump_unless(register, word, f"not {label}")
    code.jump(label)
    code.label(f"not {label}")


def _in_network4(code: Code, register: int, packed: bytes, prefix: int, label: str) -> None:
    """Go on at ``label`` if the address in ``register`` is on that network. r1 is lost."""
    mask = _mask(prefix, 32)[0]
    code.copy(R1, register)
    code.mask(R1, mask)
    code.jump_if(R1, _words(packed)[0] & mask, label)


def _in_network6(code: Code, packed: bytes, prefix: int, label: str) -> None:
    other = f"not on {packed.hex()}"
    for register, word, mask in zip(_ADDRESS6, _words(packed), _mask(prefix, 128), strict=True):
        if mask:
            code.copy(R1, register)
            code.mask(R1, mask)
            code.jump_unless(R1, word & mask, other)
    code.jump(label)
    code.label(other)


def _allow_bind(code: Code, rules: Rules) -> None:
    """Let it pass; for the jail's root without the capability that the host's network namespace asks for.

    Bit 1 of a bind program's result waives it. Ports below 1024 stay that root's.
    """
    code.label("allow")
    if rules.root >= 0:
        code.call(GET_CURRENT_UID_GID)
        code.jump_unless(R0, rules.root & _BY_WHOM, "as it is")
        code.leave(3)
        code.label("as it is")
    code.leave(1)


def _bind4_part(code: Code, rules: Rules, register: int, offset: int) -> None:
    """What becomes of the IPv4 address in ``register``, which is at ``offset``: goes on at "allow", or refuses."""
    known = rules.all(4)
    if 4 in rules.free:
        code.jump("allow")
        return
    if known:
        code.jump_if(register, 0, "primary4" if len(known) == 1 else "allow")
        for packed in known:
            code.jump_if(register, _words(packed)[0], "allow")
        code.copy(R1, register)
        code.mask(R1, _LOOPBACK_NET[0])
        code.jump_if(R1, _LOOPBACK_NET[1], "primary4")
    code.refuse(errno.EADDRNOTAVAIL)
    if known:
        code.label("primary4")
        code.set(R1, _words(rules.primary(4))[0])
        code.store(R6, offset, R1)
        code.jump("allow")


def _bind4(rules: Rules) -> Code:
    """bind(2): none becomes the address if there is one alone, 127.0.0.0/8 the primary one; others are not there."""
    code = Code()
    code.copy(R6, R1)
    code.load(R2, R6, _USER_IP4)
    known = rules.all(4)
    _bind4_part(code, rules, R2, _USER_IP4)
    if known or 4 in rules.free:
        _allow_bind(code, rules)
    return code


def _bind6(rules: Rules) -> Code:
    """As for IPv4. ``::`` may mean IPv4 as well, so it stays what it is where the jail has both."""
    code = Code()
    code.copy(R6, R1)
    _load6(code, R6, _USER_IP6)
    _jump_if_mapped(code, "mapped")
    known = rules.all(6)
    if 6 in rules.free:
        code.jump("allow")
    if known:
        several = len(known) > 1 or rules.all(4) or 4 in rules.free
        _jump_if6(code, bytes(16), "allow" if several else "primary6")
        for packed in known:
            _jump_if6(code, packed, "allow")
        _jump_if6(code, _LOOPBACK6, "primary6")
    if 6 not in rules.free:
        code.refuse(errno.EADDRNOTAVAIL)
    if known:
        code.label("primary6")
        _store6(code, R6, _USER_IP6, rules.primary(6))
        code.jump("allow")
    code.label("mapped")
    _bind4_part(code, rules, R5, _USER_IP6 + 12)
    _allow_bind(code, rules)
    return code


def _peer4(code: Code, rules: Rules, register: int, offset: int) -> None:
    """The peer in ``register``, at ``offset``: loopback, or none at all, is the primary address."""
    code.jump_if(register, 0, "own4")
    for packed in rules.all(4):
        code.jump_if(register, _words(packed)[0], "peer4")
    code.copy(R1, register)
    code.mask(R1, _LOOPBACK_NET[0])
    code.jump_unless(R1, _LOOPBACK_NET[1], "peer4")
    code.label("own4")
    code.set(register, _words(rules.primary(4))[0])
    code.store(R6, offset, register)
    code.label("peer4")


def _choose4(code: Code, rules: Rules, register: int, chosen: int) -> None:
    """Have ``chosen`` be the address from which the peer in ``register`` is spoken to."""
    places = list(enumerate(rules.addresses[4]))
    if rules.select[4] and len(places) > 1:
        for number, (packed, _) in places:
            code.jump_if(register, _words(packed)[0], f"from4 {number}")
        for number, (packed, prefix) in places:
            _in_network4(code, register, packed, prefix, f"from4 {number}")
        code.jump("from4 0")
        for number, (packed, _) in places[1:]:
            code.label(f"from4 {number}")
            code.set(chosen, _words(packed)[0])
            code.jump("chosen4")
        code.label("from4 0")
    code.set(chosen, _words(rules.primary(4))[0])
    code.label("chosen4")


def _choose6(code: Code, rules: Rules, target: int, offset: int) -> None:
    """Write the address from which the peer in ``_ADDRESS6`` is spoken to."""
    places = list(enumerate(rules.addresses[6]))
    if rules.select[6] and len(places) > 1:
        for number, (packed, _) in places:
            _jump_if6(code, packed, f"from6 {number}")
        for number, (packed, prefix) in places:
            _in_network6(code, packed, prefix, f"from6 {number}")
        code.jump("from6 0")
        for number, (packed, _) in places[1:]:
            code.label(f"from6 {number}")
            _store6(code, target, offset, packed)
            code.jump("chosen6")
        code.label("from6 0")
    _store6(code, target, offset, rules.primary(6))
    code.label("chosen6")


def _bind_here(code: Code, size: int, own_address: tuple[int, ...]) -> None:
    """bind(2) to the struct sockaddr at the end of the frame, with a port that is chosen at connect(2).

    A socket that is bound already stays as it is, but one that is bound to no address: that would be from the host's.
    """
    code.copy(R1, R6)
    code.point(R2, -32)
    code.set(R3, size)
    code.call(BIND)
    code.jump_if(R0, 0, "connect")
    code.load_pointer(R1, R6, _SK)
    for offset in own_address:
        code.load(R2, R1, offset)
        code.jump_unless(R2, 0, "connect")
    code.refuse(errno.EADDRNOTAVAIL)
    code.label("connect")
    code.leave(1)


def _clear_frame(code: Code) -> None:
    code.set(R1, 0)
    for offset in range(-32, 0, 4):
        code.store(FRAME, offset, R1)


def _set_family(code: Code, family: int) -> None:
    # struct sockaddr begins with the family in the first half of its first word
    code.set(R1, int.from_bytes(family.to_bytes(2, sys.byteorder) + bytes(2), sys.byteorder))
    code.store(FRAME, -32, R1)


def _connect4(rules: Rules) -> Code:
    """connect(2): loopback is the primary address, and the socket is bound to an address of the jail."""
    code = Code()
    if 4 in rules.free:
        code.leave(1)
        return code
    if not rules.all(4):
        code.refuse(errno.EAFNOSUPPORT)
        return code
    code.copy(R6, R1)
    # An IPv6 socket of UDP takes an IPv4 address: what is bound here would then be half of each.
    code.load(R2, R6, _FAMILY)
    code.jump_if(R2, AF_INET, "go on")
    code.refuse(errno.EAFNOSUPPORT)
    code.label("go on")
    code.load(R7, R6, _USER_IP4)
    _peer4(code, rules, R7, _USER_IP4)
    _choose4(code, rules, R7, R8)
    _clear_frame(code)
    _set_family(code, AF_INET)
    code.store(FRAME, -28, R8)
    _bind_here(code, 16, (_SK_SRC_IP4,))
    return code


def _connect6(rules: Rules) -> Code:
    code = Code()
    code.copy(R6, R1)
    _load6(code, R6, _USER_IP6)
    _jump_if_mapped(code, "mapped")
    sources = tuple(range(_SK_SRC_IP6, _SK_SRC_IP6 + 16, 4))
    if 6 in rules.free:
        code.leave(1)
    elif rules.all(6):
        _peer6(code, rules)
        _clear_frame(code)
        _load6(code, R6, _USER_IP6)
        _choose6(code, rules, FRAME, -24)
        _set_family(code, AF_INET6)
        code.jump("bind")
    else:
        code.refuse(errno.EADDRNOTAVAIL)
    code.label("mapped")
    if 4 in rules.free:
        code.leave(1)
    elif rules.all(4):
        code.copy(R7, R5)
        _peer4(code, rules, R7, _USER_IP6 + 12)
        _choose4(code, rules, R7, R8)
        _clear_frame(code)
        code.set(R1, _MAPPED[2])
        code.store(FRAME, -16, R1)
        code.store(FRAME, -12, R8)
        _set_family(code, AF_INET6)
    else:
        code.refuse(errno.ENETUNREACH)
    if rules.all(4) or rules.all(6):
        code.label("bind")
        _bind_here(code, 28, sources)
    return code


def _peer6(code: Code, rules: Rules) -> None:
    _jump_if6(code, bytes(16), "own6")
    for packed in rules.all(6):
        _jump_if6(code, packed, "peer6")
    _jump_if6(code, _LOOPBACK6, "own6")
    code.jump("peer6")
    code.label("own6")
    _store6(code, R6, _USER_IP6, rules.primary(6))
    code.label("peer6")


def _free_or_refused(code: Code, rules: Rules, version: int) -> None:
    if version in rules.free:
        code.leave(1)
    else:
        code.refuse(errno.ENETUNREACH)


def _sendmsg4(rules: Rules) -> Code:
    """sendto(2) of UDP, by an IPv6 socket too: as connect(2), and whoever names a source names one of the jail's."""
    code = Code()
    known = rules.all(4)
    if not known:
        _free_or_refused(code, rules, 4)
        return code
    code.copy(R6, R1)
    code.load(R7, R6, _USER_IP4)
    _peer4(code, rules, R7, _USER_IP4)
    code.load(R2, R6, _MSG_SRC_IP4)
    for packed in known:
        code.jump_if(R2, _words(packed)[0], "allow")
    code.jump_if(R2, 0, "choose")
    code.refuse(errno.EADDRNOTAVAIL)
    code.label("choose")
    _choose4(code, rules, R7, R8)
    code.store(R6, _MSG_SRC_IP4, R8)
    code.label("allow")
    code.leave(1)
    return code


def _sendmsg6(rules: Rules) -> Code:
    code = Code()
    known = rules.all(6)
    if not known:
        _free_or_refused(code, rules, 6)
        return code
    code.copy(R6, R1)
    _load6(code, R6, _USER_IP6)
    _peer6(code, rules)
    _load6(code, R6, _MSG_SRC_IP6)
    for packed in known:
        _jump_if6(code, packed, "allow")
    _jump_if6(code, bytes(16), "choose")
    code.refuse(errno.EADDRNOTAVAIL)
    code.label("choose")
    _load6(code, R6, _USER_IP6)
    _choose6(code, rules, R6, _MSG_SRC_IP6)
    code.label("allow")
    code.leave(1)
    return code


def _packet(rules: Rules, source: bool) -> Code:
    """A packet that leaves has its ``source``, one that arrives its destination among the jail's addresses.

    A stream of TCP that the host translates counts by its socket's address. Nothing leaves for the host's loopback, nor
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
        code.mask(R2, _words(b"\xff\0\0\0")[0])
        code.jump_unless(R2, _words(b"\x45\0\0\0")[0], "drop")  # version 4, and five words: no options
    code.load(R2, FRAME, -20 if source else -16)
    for packed in rules.all(4):
        code.jump_if(R2, _words(packed)[0], "to4" if source else "pass")
    if not source:
        code.jump("drop")
        return
    _load_stream(code)
    code.load(R2, R0, _SK_SRC_IP4)
    for packed in [*rules.all(4), bytes(4)]:
        code.jump_if(R2, _words(packed)[0], "to4")
    code.jump("drop")
    code.label("to4")
    code.load(R2, FRAME, -16)
    for packed in rules.all(4):
        code.jump_if(R2, _words(packed)[0], "pass")
    code.mask(R2, _LOOPBACK_NET[0])
    code.jump_unless(R2, _LOOPBACK_NET[1], "pass")
    code.jump("drop")


def _packet6(code: Code, rules: Rules, source: bool) -> None:
    code.label("ip6")
    _load_bytes(code, 8, 32)
    _load6(code, FRAME, -32 if source else -16)
    for packed in rules.all(6):
        _jump_if6(code, packed, "to6" if source else "pass")
    if not source:
        code.jump("drop")
        return
    _load_stream(code)
    _load6(code, R0, _SK_SRC_IP6)
    for packed in [*rules.all(6), bytes(16)]:
        _jump_if6(code, packed, "own6")
    code.jump("drop")
    code.label("own6")
    code.label("to6")
    _load6(code, FRAME, -16)
    _jump_if6(code, _LOOPBACK6, "drop")
    code.jump("pass")


def _load_stream(code: Code) -> None:
    """The socket of TCP that a packet is from, which has another source: R0; where it is from none, it is dropped.

    The host's rules may have translated it by now (ipnat(8)). What a stream is from is for connect(2) and for the
    packet that came in to say, and both are held to the jail's addresses; so it is the socket's address that counts,
    or none where it listens on all.
    """
    code.load_pointer(R1, R6, _SKB_SK)
    code.jump_if_null(R1, "drop")
    code.call(SK_FULLSOCK)
    code.jump_if_null(R0, "drop")
    code.load(R2, R0, _SK_TYPE)
    code.jump_unless(R2, _SOCK_STREAM, "drop")
    code.load(R2, R0, _SK_PROTOCOL)
    code.jump_unless(R2, _IPPROTO_TCP, "drop")


def _load_bytes(code: Code, offset: int, size: int) -> None:
    """Bytes of the packet to the end of the frame."""
    code.copy(R1, R6)
    code.set(R2, offset)
    code.point(R3, -32)
    code.set(R4, size)
    code.call(SKB_LOAD_BYTES)
    code.jump_unless(R0, 0, "drop")


def _option(rules: Rules) -> Code:
    """setsockopt(2). SO_REUSEADDR of UDP does nothing.

    With it a socket that is bound to no address shares a port of the host's, and takes away what is not for it.
    """
    code = Code()
    code.copy(R6, R1)
    code.load(R2, R6, _OPT_LEVEL)
    code.load(R3, R6, _OPT_NAME)
    for level, names in _REFUSED_OPTIONS.items():
        code.jump_unless(R2, level, f"not {level}")
        for name in names:
            code.jump_if(R3, name, "refuse")
        code.label(f"not {level}")
    code.jump_unless(R2, _SOL_SOCKET, "allow")
    code.jump_unless(R3, _SO_REUSEADDR, "allow")
    code.load_pointer(R1, R6, _OPT_SK)
    code.load(R2, R1, _SK_TYPE)
    code.jump_unless(R2, _SOCK_DGRAM, "allow")
    code.set(R1, -1)
    code.store(R6, _OPT_LENGTH, R1)  # done, and the kernel is not asked
    code.leave(1)
    code.label("refuse")
    code.leave(0)  # EPERM
    code.label("allow")
    code.set(R1, 0)
    code.store(R6, _OPT_LENGTH, R1)  # what the caller gave, however long it is
    code.leave(1)
    return code


def _ingress(rules: Rules) -> Code:
    return _packet(rules, source=False)


def _egress(rules: Rules) -> Code:
    return _packet(rules, source=True)


PROGRAMS: tuple[tuple[int, int, Callable[[Rules], Code]], ...] = (
    (bpf.PROG_TYPE_CGROUP_SOCK_ADDR, bpf.CGROUP_INET4_BIND, _bind4),
    (bpf.PROG_TYPE_CGROUP_SOCK_ADDR, bpf.CGROUP_INET6_BIND, _bind6),
    (bpf.PROG_TYPE_CGROUP_SOCK_ADDR, bpf.CGROUP_INET4_CONNECT, _connect4),
    (bpf.PROG_TYPE_CGROUP_SOCK_ADDR, bpf.CGROUP_INET6_CONNECT, _connect6),
    (bpf.PROG_TYPE_CGROUP_SOCK_ADDR, bpf.CGROUP_UDP4_SENDMSG, _sendmsg4),
    (bpf.PROG_TYPE_CGROUP_SOCK_ADDR, bpf.CGROUP_UDP6_SENDMSG, _sendmsg6),
    (bpf.PROG_TYPE_CGROUP_SKB, bpf.CGROUP_INET_INGRESS, _ingress),
    (bpf.PROG_TYPE_CGROUP_SKB, bpf.CGROUP_INET_EGRESS, _egress),
    (bpf.PROG_TYPE_CGROUP_SOCKOPT, bpf.CGROUP_SETSOCKOPT, _option),
)
