"""What the network of an address jail is to be: decided from the addresses and from what the host has.

Nothing here changes anything; core/network.py carries it out.
"""

from __future__ import annotations

import errno
from _socket import AF_INET, AF_INET6, inet_ntop

from jailng.core import firewall
from jailng.errors import JailError
from jailng.linux import netdevice
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class Address(Protocol):
        """As jailng.params.address has it; ``interface`` is empty where none was given."""

        packed: bytes
        prefix: int
        interface: str
        words: str

        @property
        def bare(self) -> str:
            """The address as text, without interface and prefix."""
            ...


PROTOCOL = 106  # 'j', which /etc/iproute2/rt_protos gives to nobody: whose routes these are, on the host
# The jail's way out, by family. The host need not have these addresses: the jail knows their MAC address.
GATEWAY = {4: bytes([169, 254, 1, 1]), 6: b"\xfe\x80" + bytes(13) + b"\1"}
# Targets that nobody has, to ask for the source address of a packet that leaves by the default route: RFC 7600's dummy
# address, and RFC 6666's discard prefix.
_ELSEWHERE = {4: bytes([192, 0, 0, 8]), 6: b"\1" + bytes(14) + b"\1"}


class Place:
    """An address of the jail, and where on the host it was found.

    ``index`` is the interface that carries it there (0: none), with ``prefix`` and ``broadcast``; ``interface`` is its
    name if a LAN can be behind it (not of a loopback). ``source`` is the address by which the host is to speak to the
    jail (empty: it finds a good one by itself).
    """

    __slots__ = ("broadcast", "family", "index", "interface", "packed", "prefix", "source")

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.family = 4 if len(packed) == 4 else 6
        self.prefix = 8 * len(packed)
        self.broadcast = b""
        self.interface = ""
        self.index = 0
        self.source = b""

    @property
    def text(self) -> str:
        """The address as people write it."""
        return _text(self.packed)


class Link:
    """The network of one jail, decided. Without ``addresses`` there is no veth, only the jail's own loopback.

    ``mac`` and ``mtu`` (0: the kernel's default) are those of the jail's end; ``switches`` is for core/firewall.py.
    ``outside`` is a socket in the host's network namespace, from ``host_side`` to ``inside``.
    """

    __slots__ = (
        "addresses",
        "host_mac",
        "host_name",
        "inside_name",
        "ipv6",
        "jid",
        "switches",
        "mac",
        "mtu",
        "outside",
    )

    def __init__(self, jid: int) -> None:
        self.jid = jid
        self.host_name = f"jng{jid}"
        self.inside_name = "eth0"
        # Locally administered; jid in the last four bytes.
        self.host_mac = b"\x02\x6a" + jid.to_bytes(4, "big")
        self.mac = b"\x06\x6a" + jid.to_bytes(4, "big")
        self.mtu = 0
        self.addresses: list[Place] = []
        self.switches: list[str] = []
        self.ipv6 = False
        self.outside: Netlink | None = None

    def of(self, family: int) -> list[Place]:
        """The addresses of family 4 or 6, in the order in which they were given."""
        return [place for place in self.addresses if place.family == family]


def _text(packed: bytes) -> str:
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


def _is_loopback(packed: bytes) -> bool:
    return packed[0] == 127 if len(packed) == 4 else packed == bytes(15) + b"\1"


def _check(packed: bytes) -> None:
    first = packed[0]
    if len(packed) == 4:
        wrong = first == 0 or first >= 224
    else:
        wrong = first == 0xFF or (first == 0xFE and packed[1] & 0xC0 == 0x80) or not any(packed)
    if wrong:
        raise JailError(f"ip{4 if len(packed) == 4 else 6}.addr: {_text(packed)}: not the address of one host")


class Host:
    """Questions about the host, asked through one socket."""

    __slots__ = ("interfaces", "netlink")

    def __init__(self, netlink: Netlink) -> None:
        self.netlink = netlink
        self.interfaces: list[rt.Interface] = []

    def interface(self, index: int = 0, name: str = "") -> rt.Interface:
        """An interface, by number or name. Raises OSError (ENODEV)."""
        for known in self.interfaces:
            if known.name == name or known.index == index:
                return known
        found = rt.Interface(self.netlink.ask(rt.get_link(index, name))[0][1])
        self.interfaces.append(found)
        return found

    def route(self, target: bytes, matched: bool = False) -> rt.Found | None:
        """The way to a target; None if there is none, or one that says unreachable, prohibit or blackhole."""
        try:
            return rt.Found(self.netlink.ask(rt.get_route(target, matched))[0][1])
        except OSError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
                return None
            raise

    def alias(self, packed: bytes) -> rt.Address | None:
        """The address, if an interface has it."""
        if len(packed) == 16:
            try:
                return rt.Address.read(self.netlink.ask(rt.get_address(packed))[0][1])
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    return None
                raise
        route = self.route(packed, matched=True)
        if route is None or not (route.local or route.protocol == PROTOCOL):
            return None
        if route.local:
            found = netdevice.ipv4_alias(self.interface(route.index).name, packed)
            if found is not None:
                return rt.Address(index=route.index, packed=packed, prefix=found[0], broadcast=found[1])
        # An odd label, or the route of a jail that is being taken apart. To list a thousand addresses takes 2 ms.
        for address in self.aliases(AF_INET):
            if address.packed == packed:
                return address
        return None

    def aliases(self, family: int) -> list[rt.Address]:
        """Every address of the host, of one family."""
        return [rt.Address.read(body) for _, body in self.netlink.ask(rt.get_addresses(family))]


def survey(jid: int, addresses: Sequence[Address], interface: str | None = None) -> Link:
    """Decide on the network of a jail with these addresses. Only reads.

    ``interface`` is the parameter of that name; its alias, if it is to have one, is there already. Addresses of the
    loopback are the jail's own affair: each has its own loopback.

    Raises JailError for an address that no jail can have, that the host cannot spare or this kernel cannot route, and
    for an interface that does not exist; OSError.
    """
    link = Link(jid)
    link.ipv6 = any(len(address.packed) == 16 for address in addresses)
    for address in addresses:
        _check(address.packed)
        if not _is_loopback(address.packed):
            link.addresses.append(Place(address.packed))
    if not link.addresses:
        return link
    with Netlink() as netlink:
        host = Host(netlink)
        for place in link.addresses:
            _find(host, place)
        for family in (4, 6):
            if link.of(family):
                _choose_source(host, link.of(family))
        carrying = [place.interface for place in link.addresses if place.interface]
        named = [name for name in (interface, *[address.interface for address in addresses]) if name]
        if carrying or named:
            _look_like(link, host, (carrying or named)[0])
    for place in link.addresses:
        if place.interface:
            needed = firewall.switches_for(place.family, place.interface)
            link.switches += [switch for switch in needed if switch not in link.switches]
    return link


def _find(host: Host, place: Place) -> None:
    alias = host.alias(place.packed)
    if alias is not None:
        place.index, place.prefix, place.broadcast = alias.index, alias.prefix, alias.broadcast
        interface = host.interface(alias.index)
        if not interface.flags & rt.IFF_LOOPBACK:
            place.interface = interface.name


def _choose_source(host: Host, places: list[Place]) -> None:
    """By which address the host is to speak to the jail. Refuses to give away the one by which it speaks at all."""
    family = places[0].family
    ours = [place.packed for place in places if place.index]
    route = host.route(_ELSEWHERE[family])
    speaking = route.preferred if route is not None else b""
    if speaking in ours:
        raise JailError(
            f"ip{family}.addr: {_text(speaking)} is the address by which the host itself speaks to the world: "
            "give the jail another one, or share the host's network"
        )
    if family == 4:
        return  # the kernel takes the first address of the first interface: see core/network.py
    # To an address that it has the host speaks from that very address (RFC 6724, rule 1), which the jail would take for
    # its own. A route outlives the address that it names here.
    source = speaking or _any_other(host, ours)
    for place in places:
        if place.index or not source:
            place.source = source or GATEWAY[6]


def _any_other(host: Host, ours: list[bytes]) -> bytes:
    for found in host.aliases(AF_INET6):
        usable = found.scope == rt.RT_SCOPE_UNIVERSE and not found.flags & rt.IFA_F_DEPRECATED
        if usable and found.packed not in ours:
            return found.packed
    return b""


def _look_like(link: Link, host: Host, name: str) -> None:
    """Give the jail's end the name, MAC address and MTU of a host interface."""
    try:
        model = host.interface(name=name)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise JailError(f"interface {name} does not exist") from None
        raise
    if not model.flags & rt.IFF_LOOPBACK:
        link.inside_name, link.mac, link.mtu = model.name, model.address or link.mac, model.mtu
