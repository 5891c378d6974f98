"""Programs that decide on the addresses of a socket of the host's stack, as FreeBSD's kernel decides on a jail's.

prison_local_ip4, prison_remote_ip4 and prison_check_ip4 of kern_jail.c, and the same for IPv6. They run at bind(2),
connect(2) and sendto(2) of a socket that was made in the cgroup they are attached to (core/stackfilter.py).
"""

from __future__ import annotations

import errno
import sys
from _socket import AF_INET, AF_INET6

from jailng.core.stackrules import (
    LOOPBACK6,
    LOOPBACK_NET,
    MAPPED,
    in_network4,
    in_network6,
    jump_if6,
    jump_if_mapped,
    load6,
    store6,
    words,
)
from jailng.linux import bpf
from jailng.linux.assembler import Code
from jailng.linux.bpf import FRAME, R0, R1, R2, R3, R5, R6, R7, R8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.stackrules import Rules

# Offsets in struct bpf_sock_addr and struct bpf_sock of include/uapi/linux/bpf.h.
_USER_IP4, _USER_IP6, _FAMILY, _MSG_SRC_IP4, _MSG_SRC_IP6, _SK = 4, 8, 28, 40, 44, 64
_SK_SRC_IP4, _SK_SRC_IP6 = 24, 28
_BY_WHOM = 0xFFFFFFFF


def _allow_bind(code: Code, rules: Rules) -> None:
    """Let it pass; for the jail's root without the capability that the host's network namespace asks for.

    Bit 1 of a bind program's result waives it. Ports below 1024 stay that root's.
    """
    code.label("allow")
    if rules.root >= 0:
        code.call(bpf.GET_CURRENT_UID_GID)
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
            code.jump_if(register, words(packed)[0], "allow")
        code.copy(R1, register)
        code.mask(R1, LOOPBACK_NET[0])
        code.jump_if(R1, LOOPBACK_NET[1], "primary4")
    code.refuse(errno.EADDRNOTAVAIL)
    if known:
        code.label("primary4")
        code.set(R1, words(rules.primary(4))[0])
        code.store(R6, offset, R1)
        code.jump("allow")


def bind4(rules: Rules) -> Code:
    """bind(2): none becomes the address if there is one alone, 127.0.0.0/8 the primary one; others are not there."""
    code = Code()
    code.copy(R6, R1)
    code.load(R2, R6, _USER_IP4)
    known = rules.all(4)
    _bind4_part(code, rules, R2, _USER_IP4)
    if known or 4 in rules.free:
        _allow_bind(code, rules)
    return code


def bind6(rules: Rules) -> Code:
    """As for IPv4. ``::`` may mean IPv4 as well, so it stays what it is where the jail has both."""
    code = Code()
    code.copy(R6, R1)
    load6(code, R6, _USER_IP6)
    jump_if_mapped(code, "mapped")
    known = rules.all(6)
    if 6 in rules.free:
        code.jump("allow")
    if known:
        several = len(known) > 1 or rules.all(4) or 4 in rules.free
        jump_if6(code, bytes(16), "allow" if several else "primary6")
        for packed in known:
            jump_if6(code, packed, "allow")
        jump_if6(code, LOOPBACK6, "primary6")
    if 6 not in rules.free:
        code.refuse(errno.EADDRNOTAVAIL)
    if known:
        code.label("primary6")
        store6(code, R6, _USER_IP6, rules.primary(6))
        code.jump("allow")
    code.label("mapped")
    _bind4_part(code, rules, R5, _USER_IP6 + 12)
    _allow_bind(code, rules)
    return code


def _peer4(code: Code, rules: Rules, register: int, offset: int) -> None:
    """The peer in ``register``, at ``offset``: loopback, or none at all, is the primary address."""
    code.jump_if(register, 0, "own4")
    for packed in rules.all(4):
        code.jump_if(register, words(packed)[0], "peer4")
    code.copy(R1, register)
    code.mask(R1, LOOPBACK_NET[0])
    code.jump_unless(R1, LOOPBACK_NET[1], "peer4")
    code.label("own4")
    code.set(register, words(rules.primary(4))[0])
    code.store(R6, offset, register)
    code.label("peer4")


def _choose4(code: Code, rules: Rules, register: int, chosen: int) -> None:
    """Have ``chosen`` be the address from which the peer in ``register`` is spoken to."""
    places = list(enumerate(rules.addresses[4]))
    if rules.select[4] and len(places) > 1:
        for number, (packed, _) in places:
            code.jump_if(register, words(packed)[0], f"from4 {number}")
        for network, prefix, number in rules.networks[4]:
            in_network4(code, register, network, prefix, f"from4 {number}")
        code.jump(f"from4 {rules.others[4]}")
        for number, (packed, _) in places[1:]:
            code.label(f"from4 {number}")
            code.set(chosen, words(packed)[0])
            code.jump("chosen4")
        code.label("from4 0")
    code.set(chosen, words(rules.primary(4))[0])
    code.label("chosen4")


def _choose6(code: Code, rules: Rules, target: int, offset: int) -> None:
    """Write the address from which the peer in ``ADDRESS6`` is spoken to."""
    places = list(enumerate(rules.addresses[6]))
    if rules.select[6] and len(places) > 1:
        for number, (packed, _) in places:
            jump_if6(code, packed, f"from6 {number}")
        for network, prefix, number in rules.networks[6]:
            in_network6(code, network, prefix, f"from6 {number}")
        code.jump(f"from6 {rules.others[6]}")
        for number, (packed, _) in places[1:]:
            code.label(f"from6 {number}")
            store6(code, target, offset, packed)
            code.jump("chosen6")
        code.label("from6 0")
    store6(code, target, offset, rules.primary(6))
    code.label("chosen6")


def _bind_here(code: Code, size: int, own_address: tuple[int, ...]) -> None:
    """bind(2) to the struct sockaddr at the end of the frame, with a port that is chosen at connect(2).

    A socket that is bound already stays as it is, but one that is bound to no address: that would be from the host's.
    """
    code.copy(R1, R6)
    code.frame(R2, -32)
    code.set(R3, size)
    code.call(bpf.BIND)
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


def connect4(rules: Rules) -> Code:
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


def connect6(rules: Rules) -> Code:
    """As for IPv4; and an IPv4 address in IPv6's clothes is one."""
    code = Code()
    code.copy(R6, R1)
    load6(code, R6, _USER_IP6)
    jump_if_mapped(code, "mapped")
    sources = tuple(range(_SK_SRC_IP6, _SK_SRC_IP6 + 16, 4))
    if 6 in rules.free:
        code.leave(1)
    elif rules.all(6):
        _peer6(code, rules)
        _clear_frame(code)
        load6(code, R6, _USER_IP6)
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
        code.set(R1, MAPPED[2])
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
    jump_if6(code, bytes(16), "own6")
    for packed in rules.all(6):
        jump_if6(code, packed, "peer6")
    jump_if6(code, LOOPBACK6, "own6")
    code.jump("peer6")
    code.label("own6")
    store6(code, R6, _USER_IP6, rules.primary(6))
    code.label("peer6")


def _free_or_refused(code: Code, rules: Rules, version: int) -> None:
    if version in rules.free:
        code.leave(1)
    else:
        code.refuse(errno.ENETUNREACH)


def sendmsg4(rules: Rules) -> Code:
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
        code.jump_if(R2, words(packed)[0], "allow")
    code.jump_if(R2, 0, "choose")
    code.refuse(errno.EADDRNOTAVAIL)
    code.label("choose")
    _choose4(code, rules, R7, R8)
    code.store(R6, _MSG_SRC_IP4, R8)
    code.label("allow")
    code.leave(1)
    return code


def sendmsg6(rules: Rules) -> Code:
    """As for IPv4. What is sent to IPv4 addresses the kernel judges by the other."""
    code = Code()
    known = rules.all(6)
    if not known:
        _free_or_refused(code, rules, 6)
        return code
    code.copy(R6, R1)
    load6(code, R6, _USER_IP6)
    _peer6(code, rules)
    load6(code, R6, _MSG_SRC_IP6)
    for packed in known:
        jump_if6(code, packed, "allow")
    jump_if6(code, bytes(16), "choose")
    code.refuse(errno.EADDRNOTAVAIL)
    code.label("choose")
    load6(code, R6, _USER_IP6)
    _choose6(code, rules, R6, _MSG_SRC_IP6)
    code.label("allow")
    code.leave(1)
    return code
