"""Which sockets there are."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterable
from functools import partial

from .probe import ABSENT, ESCAPED, EXPOSED, HELD, Facts, Verdict, call, probe, why

_NO_FLAG = 0x10
_TYPES = (1, 2, 3, 4, 5, 6, 10)
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_MODERN_PROTOCOLS = (0, 1, 2, 6, 17, 33, 41, 46, 47, 50, 51, 58, 89, 103, 115, 132, 136, 255, 262)


def _made(facts: Facts, family: int, kind: int, protocol: int) -> Verdict:
    """socket(2), which has the kernel load a module for what it does not know.

    So it is asked first with a flag that there is not (EINVAL: it looked at it), and made where nothing can be loaded.
    """
    try:
        call("socket", family, kind | _NO_FLAG, protocol)
    except OSError as error:
        if error.errno != errno.EINVAL:
            return HELD, why(error)
    if facts["modules"]:
        return EXPOSED, "not refused"
    try:
        os.close(call("socket", family, kind, protocol))
    except OSError as error:
        return (HELD if error.errno in (errno.EPERM, errno.EACCES) else ABSENT), why(error)
    return EXPOSED, "it opens"


def _any(facts: Facts, triples: Iterable[tuple[int, int, int]]) -> Verdict:
    """Exposed if one is, absent if none is held."""
    last = ABSENT, "nothing of the kind"
    for family, kind, protocol in triples:
        verdict = _made(facts, family, kind, protocol)
        if verdict[0] == EXPOSED:
            return EXPOSED, f"type {kind}, protocol {protocol}: {verdict[1]}"
        if verdict[0] == HELD or last[1].startswith("nothing"):
            last = verdict
    return last


def _family(family: int, facts: Facts) -> Verdict:
    """Every type of a family that jails have not."""
    return _any(facts, [(family, kind, protocol) for kind in _TYPES for protocol in (0, 1, 3)])


for _number in range(48):
    if _number not in (_UNIX, _INET, _INET6, _NETLINK):
        probe(f"sockets: family {_number}", light=True)(partial(_family, _number))
for _number in (3, 17, 38, 40, 44):
    probe(f"sockets: family {_number}, its high half garbage", light=True)(
        lambda facts, family=_number: _family(family | 0x7EADBEEF << 32, facts)  # type: ignore[misc]
    )


def _internet(family: int, facts: Facts) -> Verdict:
    """Of the internet families, TCP, MPTCP, UDP and UDP-Lite and no other protocol."""
    known = ((1, 0), (1, 6), (1, 262), (2, 0), (2, 17), (2, 136))
    wanted = [(kind, protocol) for kind in _TYPES for protocol in _MODERN_PROTOCOLS if (kind, protocol) not in known]
    return _any(facts, [(family, kind, protocol) for kind, protocol in wanted])


probe("sockets: other protocols of inet", light=True)(partial(_internet, _INET))
probe("sockets: other protocols of inet6", light=True)(partial(_internet, _INET6))


def _netlink(protocol: int, facts: Facts) -> Verdict:
    return _any(facts, [(_NETLINK, 2, protocol), (_NETLINK, 3, protocol)])


for _number in range(1, 24):
    probe(f"sockets: netlink {_number}", light=True)(partial(_netlink, _number))
probe("sockets: netlink 9, its high half garbage", light=True)(
    lambda facts: _made(facts, _NETLINK, 3, 9 | 0x7EADBEEF << 32)
)


def _pair(family: int, facts: Facts) -> Verdict:
    """Asked with a flag that there is not."""
    try:
        call("socketpair", family, 1 | _NO_FLAG, 0, ctypes.create_string_buffer(8))
    except OSError as error:
        if error.errno != errno.EINVAL:
            return HELD, why(error)
    return EXPOSED, "not refused"


for _number in (30, 40, 44):
    probe(f"sockets: pair of family {_number}", light=True)(partial(_pair, _number))


def _special(family: int, kind: int, protocol: int, facts: Facts) -> Verdict:
    return _made(facts, family, kind, protocol)


for _name, _triple in {
    "raw ICMP": (2, 3, 1),
    "raw IPv6": (10, 3, 58),
    "raw with the header": (2, 3, 255),
    "packet": (17, 3, 0x0300),
    "packet as of Linux 2.0": (2, 10, 0x0300),
    "ping": (2, 2, 1),
    "ping of IPv6": (10, 2, 58),
    "SCTP": (2, 1, 132),
    "DCCP": (2, 6, 33),
}.items():
    probe(f"sockets: {_name}", light=True)(partial(_special, *_triple))


def _option(family: int, kind: int, level: int, name: int, value: bytes, facts: Facts) -> Verdict:
    try:
        with socket.socket(family, kind) as made:
            made.setsockopt(level, name, value)
    except OSError as error:
        return HELD, why(error)
    return ESCAPED, "it works"


def _looked_at(family: int, kind: int, protocol: int, level: int, name: int, verdict: str, facts: Facts) -> Verdict:
    """With a value of no length, which is wrong (EINVAL) once it is looked at."""
    try:
        with socket.socket(family, kind, protocol) as made:
            made.setsockopt(level, name, b"")
    except OSError as error:
        return (verdict if error.errno == errno.EINVAL else HELD), why(error)
    return verdict, "it works"


for _name, _six in {
    # Another protocol in the place of TCP: SMC, ESP, TLS.
    "TCP_ULP": (2, 1, 0, 6, 31, EXPOSED),
    # What a socket of UDP gets is IPsec then.
    "UDP_ENCAP": (2, 2, 0, 17, 100, EXPOSED),
    # Whoever is the first may route multicast between the interfaces from then on, without any privilege.
    "MRT_INIT": (2, 3, 2, 0, 200, ESCAPED),
    "MRT6_INIT": (10, 3, 58, 41, 200, ESCAPED),
}.items():
    probe(f"sockets: option {_name}", light=True)(partial(_looked_at, *_six))


_ONE = struct.pack("=i", 1)
# struct sock_fprog of one instruction, "take all of it": what the kernel compiles is no jail's memory, and counted
# against one number for the machine.
_TAKE_ALL = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF))
_PROGRAM = struct.pack("@HP", 1, ctypes.addressof(_TAKE_ALL))
for _name, _five in {
    "SO_MARK": (2, 2, 1, 36, _ONE),
    "SO_DEBUG": (2, 2, 1, 1, _ONE),
    "SO_PRIORITY 7": (2, 2, 1, 12, struct.pack("=i", 7)),
    "SO_ATTACH_FILTER": (1, 2, 1, 26, _PROGRAM),
    "SO_RCVBUFFORCE": (2, 2, 1, 33, struct.pack("=i", 1 << 26)),
    "SO_SNDBUFFORCE of a unix socket": (1, 2, 1, 32, struct.pack("=i", 1 << 26)),
    "IP_TRANSPARENT": (2, 2, 0, 19, _ONE),
    "IPV6_TRANSPARENT": (10, 2, 41, 75, _ONE),
    "TCP_REPAIR": (2, 1, 6, 19, _ONE),
    # One of 4096 of the machine's, for a second.
    "IPV6_FLOWLABEL_MGR": (10, 2, 41, 32, bytes(15) + b"\1" + struct.pack("=IBBHHHI", 0, 0, 1, 1, 1, 0, 0)),
}.items():
    probe(f"sockets: option {_name}", light=True)(partial(_option, *_five))
