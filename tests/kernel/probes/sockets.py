"""Which sockets there are: hostile-root.md, number 41."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from functools import partial

from .attempt import ESCAPED, EXPOSED, HELD, Facts, Verdict, attempt, call, tried, why

_SOCKET, _SOCKETPAIR = 41, 53
_TYPES = (1, 2, 3, 4, 5, 6, 10)
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_MODERN_PROTOCOLS = (0, 1, 2, 6, 17, 33, 41, 46, 47, 50, 51, 58, 89, 103, 115, 132, 136, 255, 262)


def _family(family: int, facts: Facts) -> Verdict:
    """Every type of a family that jails have not."""
    refused = ""
    for kind in _TYPES:
        for protocol in (0, 1, 3):
            verdict = tried(partial(call, _SOCKET, family, kind, protocol), EXPOSED)
            if verdict[0] != HELD:
                return EXPOSED, f"type {kind}, protocol {protocol}"
            refused = verdict[1]
    return HELD, refused


for _number in range(48):
    if _number not in (_UNIX, _INET, _INET6, _NETLINK):
        attempt(f"sockets: family {_number}")(partial(_family, _number))
for _number in (3, 17, 38, 40, 44):
    attempt(f"sockets: family {_number}, its high half garbage")(
        lambda facts, family=_number: tried(lambda: call(_SOCKET, family | 0x7EADBEEF << 32, 2, 0), EXPOSED)  # type: ignore[misc]
    )


def _internet(family: int, facts: Facts) -> Verdict:
    """Of the internet families, TCP, MPTCP, UDP and UDP-Lite and no other protocol."""
    got = []
    for kind in _TYPES:
        for protocol in _MODERN_PROTOCOLS:
            if (kind, protocol) in ((1, 0), (1, 6), (1, 262), (2, 0), (2, 17), (2, 136)):
                continue
            try:
                os.close(call(_SOCKET, family, kind, protocol))
                got.append(f"{kind}/{protocol}")
            except OSError:
                continue
    return (EXPOSED, " ".join(got)) if got else (HELD, "none but TCP and UDP")


attempt("sockets: other protocols of inet")(partial(_internet, _INET))
attempt("sockets: other protocols of inet6")(partial(_internet, _INET6))


def _netlink(protocol: int, facts: Facts) -> Verdict:
    refused = ""
    for kind in (2, 3):
        verdict = tried(lambda kind=kind: call(_SOCKET, _NETLINK, kind, protocol), EXPOSED)  # type: ignore[misc]
        if verdict[0] != HELD:
            return verdict
        refused = verdict[1]
    return HELD, refused


for _number in range(1, 24):
    attempt(f"sockets: netlink {_number}")(partial(_netlink, _number))
attempt("sockets: netlink 9, its high half garbage")(
    lambda facts: tried(lambda: call(_SOCKET, _NETLINK, 3, 9 | 0x7EADBEEF << 32), EXPOSED)
)


def _pair(family: int, facts: Facts) -> Verdict:
    memory = ctypes.create_string_buffer(8)
    return tried(lambda: call(_SOCKETPAIR, family, 1, 0, memory), EXPOSED)


for _number in (30, 40, 44):
    attempt(f"sockets: pair of family {_number}")(partial(_pair, _number))


def _special(family: int, kind: int, protocol: int, facts: Facts) -> Verdict:
    return tried(lambda: call(_SOCKET, family, kind, protocol), EXPOSED)


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
    attempt(f"sockets: {_name}")(partial(_special, *_triple))


def _option(family: int, kind: int, level: int, name: int, value: bytes, facts: Facts) -> Verdict:
    try:
        with socket.socket(family, kind) as made:
            made.setsockopt(level, name, value)
    except OSError as error:
        return HELD, why(error)
    return ESCAPED, "it works"


_ONE = struct.pack("=i", 1)
for _name, _five in {
    "SO_MARK": (2, 2, 1, 36, _ONE),
    "SO_DEBUG": (2, 2, 1, 1, _ONE),
    "SO_PRIORITY 7": (2, 2, 1, 12, struct.pack("=i", 7)),
    "SO_RCVBUFFORCE": (2, 2, 1, 33, struct.pack("=i", 1 << 26)),
    "SO_SNDBUFFORCE of a unix socket": (1, 2, 1, 32, struct.pack("=i", 1 << 26)),
    "SO_ATTACH_BPF": (1, 2, 1, 50, _ONE),
    "IP_TRANSPARENT": (2, 2, 0, 19, _ONE),
    "IPV6_TRANSPARENT": (10, 2, 41, 75, _ONE),
    "IPT_SO_SET_REPLACE": (2, 3, 0, 64, bytes(128)),
    "MRT_INIT": (2, 3, 0, 200, _ONE),
    "TCP_REPAIR": (2, 1, 6, 19, _ONE),
}.items():
    attempt(f"sockets: option {_name}")(partial(_option, *_five))
