"""What the kernel's connection tracking knows: ctnetlink, made by hand.

pyroute2 knows it too, but takes 130 ms to import, and five times as long for each entry; a dozen attributes are
wanted. Numbers are those of the kernel's linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from jailng.linux import ctnetlink
from jailng.linux.netlink import NETLINK_NETFILTER, NLM_F_DUMP, Netlink, attributes

_TUPLE_ORIG, _TUPLE_REPLY, _HELP, _TIMEOUT = 1, 2, 5, 7
_COUNTERS_ORIG, _COUNTERS_REPLY, _USE, _ID, _TUPLE_MASTER, _ZONE, _LABELS = 9, 10, 11, 12, 14, 18, 22
_PORTS = (6, 17, 33, 132, 136)  # tcp, udp, dccp, sctp, udplite
_RAW = (ctnetlink.ORIGINAL, ctnetlink.ID, ctnetlink.ZONE)


@dataclass(frozen=True)
class Tuple:
    """One direction of a connection; ports are 0 where the protocol has none."""

    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    protocol: int
    source_port: int
    destination_port: int


@dataclass(frozen=True)
class Connection:
    """An entry. ``master`` is the original tuple of the connection that has announced this one, as FTP's does.

    ``timeout`` is in seconds. Packets and bytes are those of both directions, 0 unless nf_conntrack_acct is on.
    """

    original: Tuple
    reply: Tuple
    master: Tuple | None
    label: bytes
    timeout: int
    use: int
    helper: str
    packets: tuple[int, int]
    octets: tuple[int, int]
    raw: tuple[bytes, bytes, bytes]


def connections(netlink: Netlink, families: Iterable[int] = (2, 10)) -> Iterator[Connection]:
    """All of this network namespace: of IPv4, of IPv6. ``netlink`` is of NETLINK_NETFILTER. Raises OSError."""
    for family in families:
        for kind, body in netlink.ask((ctnetlink.GET, NLM_F_DUMP, bytes([family, 0, 0, 0]))):
            if kind == ctnetlink.NEW:
                yield _connection(attributes(body, 4))


def forget(netlink: Netlink, gone: list[Connection]) -> None:
    """Delete entries; that one has ended by itself is no error. Raises OSError."""
    ctnetlink.forget(netlink, [dict(zip(_RAW, entry.raw, strict=True)) for entry in gone])


def open_conntrack() -> Netlink:
    """A socket for these. Raises OSError."""
    return Netlink(NETLINK_NETFILTER)


def _connection(found: dict[int, bytes]) -> Connection:
    master = found.get(_TUPLE_MASTER)
    forth, back = _counters(found.get(_COUNTERS_ORIG)), _counters(found.get(_COUNTERS_REPLY))
    help_name = attributes(found[_HELP]).get(1, b"") if _HELP in found else b""
    return Connection(
        _tuple(found[_TUPLE_ORIG]),
        _tuple(found[_TUPLE_REPLY]),
        _tuple(master) if master else None,
        found.get(_LABELS, b""),
        int.from_bytes(found.get(_TIMEOUT, b""), "big"),
        int.from_bytes(found.get(_USE, b""), "big"),
        help_name.rstrip(b"\0").decode(errors="replace"),
        (forth[0], back[0]),
        (forth[1], back[1]),
        (found[_TUPLE_ORIG], found.get(_ID, b""), found.get(_ZONE, b"")),
    )


def _counters(packed: bytes | None) -> tuple[int, int]:
    if packed is None:
        return 0, 0
    found = attributes(packed)
    return int.from_bytes(found.get(1, b""), "big"), int.from_bytes(found.get(2, b""), "big")


def _tuple(packed: bytes) -> Tuple:
    ends = ctnetlink.Ends(packed)
    ports = (ends.source_port, ends.destination_port) if ends.protocol in _PORTS else (0, 0)  # GRE's keys are none
    return Tuple(ip_address(ends.source), ip_address(ends.destination), ends.protocol, *ports)
