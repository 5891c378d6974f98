"""Names of hosts, services and protocols, as the host's files and resolver have them.

The common ones are known without /etc/services and /etc/protocols, which a small system lacks.
"""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv6Address

from jailng.nat.lex import RESERVED
from jailng.nat.rule import Address

# As FreeBSD's protocols(5) spells them.
_PROTOCOLS = {
    "ip": 0,
    "icmp": 1,
    "igmp": 2,
    "ipencap": 4,
    "tcp": 6,
    "egp": 8,
    "igp": 9,
    "udp": 17,
    "ipv6": 41,
    "rsvp": 46,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": 58,
    "ospf": 89,
    "ipip": 94,
    "pim": 103,
    "vrrp": 112,
    "l2tp": 115,
    "sctp": 132,
    "udplite": 136,
}
_NAMES = {number: name for name, number in _PROTOCOLS.items()}
_SERVICES = {
    "ftp": 21,
    "ssh": 22,
    "telnet": 23,
    "smtp": 25,
    "domain": 53,
    "tftp": 69,
    "http": 80,
    "pop3": 110,
    "sunrpc": 111,
    "ntp": 123,
    "imap": 143,
    "snmp": 161,
    "https": 443,
    "isakmp": 500,
    "shell": 514,
    "pptp": 1723,
}
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z")  # a name that the language takes without quotes


def host(name: str, family: int) -> Address | None:
    """The first address of a host in family 4 or 6, or None. ``<thishost>`` is this one. May ask a name server."""
    name = socket.gethostname() if name == "<thishost>" else name
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_STREAM)
        text = str(found[0][4][0]).partition("%")[0]
        return IPv6Address(text) if family == 6 else IPv4Address(text)
    except (OSError, ValueError):  # ValueError: a name that no name server could have (UnicodeError)
        return None


def protocol(name: str) -> int | None:
    """The number of a protocol, 0 for ``ip``; None for what is none."""
    known = _PROTOCOLS.get(name.lower())
    if known is not None:
        return known
    try:
        return socket.getprotobyname(name.lower())
    except (OSError, ValueError):
        return None


def protocol_name(number: int) -> str:
    """The name of a protocol, or its number. The same on every host."""
    return _NAMES.get(number, str(number))


def service(name: str, number: int | None = None) -> int | None:
    """The port of a service, of the protocol of that number or of any that has it; None for what is none."""
    try:
        return socket.getservbyname(name, *([] if number is None else [protocol_name(number)]))
    except (OSError, ValueError):
        return _SERVICES.get(name)


def service_name(port: int, number: int) -> str:
    """The name of a port of TCP (6) or UDP (17), or the port: a word that, read in a rule, is this port again."""
    try:
        name = socket.getservbyport(port, protocol_name(number))
    except OSError:
        name = next((name for name, known in _SERVICES.items() if known == port), "")
    plain = _PLAIN.match(name) and name.lower() not in RESERVED and service(name) == port == service(name, number)
    return name if plain else str(port)
