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

        broadcast: bytes
        packed: bytes
        prefix: int
        interface: str

        @property
        def bare(self) -> str:
            """The address as text, without interface and prefix."""
            ...


_LEAST_OF_IPV6 = 1280  # bytes of an MTU: RFC 8200
PROTOCOL = 106  # 'j', which /etc/iproute2/rt_protos gives to nobody: whose routes these are, on the host
_BY_KERNEL = 2  # RTPROT_KERNEL: the routes to the networks of addresses
_MOST_ROUTES = 64  # of a host to which a jail's way out looks
# The jail's way out, by family. The host need not have these addresses: the jail knows their MAC address.
GATEWAY = {4: bytes([169, 254, 1, 1]), 6: b"\xfe\x80" + bytes(13) + b"\1"}
_MAPPED = bytes(10) + b"\xff\xff"  # how sockets of IPv6 write an address of IPv4: on no wire
# Targets to ask for the source address of a packet that leaves by the default route. That nobody has: RFC 7600's dummy
# address, and RFC 6666's discard prefix. To these a host may have a route that discards, and then those of AS112 tell,
# which are everywhere (RFC 7535).
_ELSEWHERE = {
    4: (bytes([192, 0, 0, 8]), bytes([192, 31, 196, 1])),
    6: (b"\1" + bytes(14) + b"\1", b"\x26\x20\0\x4f\x80\0" + bytes(9) + b"\1"),
}


class Place:
    """An address of the jail, and where on the host it was found.

    ``index`` is the interface that carries it there (0: none), with ``prefix`` and ``broadcast``; ``interface`` is its
    name if a LAN can be behind it (not of a loopback). ``source`` is the address by which the host is to speak to the
    jail (empty: it finds a good one by itself). ``depth`` is how many jails the jail is in, which may have it, too.
    """

    __slots__ = ("broadcast", "depth", "family", "index", "interface", "packed", "prefix", "source")

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.family = 4 if len(packed) == 4 else 6
        self.prefix = 8 * len(packed)
        self.broadcast = b""
        self.interface = ""
        self.index = 0
        self.source = b""
        self.depth = 0

    @property
    def text(self) -> str:
        """The address as people write it."""
        return _text(self.packed)


class End:
    """One interface of a jail: the two ends of a veth, and the addresses that are reached by it.

    ``mac`` and ``mtu`` (0: the kernel's default) are those of the jail's end; ``model`` is the number of the host's
    interface that it looks like, 0 for none. ``networks`` are those that the host is in by that interface, where the
    jail has several: with the bits of their prefixes, and the address from which the jail speaks there.
    """

    __slots__ = ("addresses", "host_mac", "host_name", "inside_name", "mac", "model", "mtu", "networks")

    def __init__(self, jid: int, number: int) -> None:
        self.host_name = f"jng{jid}-{number}" if number else f"jng{jid}"
        self.inside_name = "eth0"
        # Locally administered; the number and the jid, which has 20 bits, in the last four bytes.
        last = (number << 20 | jid).to_bytes(4, "big")
        self.host_mac = b"\x02\x6a" + last
        self.mac = b"\x06\x6a" + last
        self.model = 0
        self.mtu = 0
        self.addresses: list[Place] = []
        self.networks: list[tuple[bytes, int, bytes]] = []

    def of(self, family: int) -> list[Place]:
        """Its addresses of family 4 or 6, in the order in which they were given."""
        return [place for place in self.addresses if place.family == family]

    def speaker(self, family: int) -> Place:
        """By which of them it speaks: the first that its interface has, else that the loopback has."""
        places = self.of(family)
        return next((place for place in places if place.interface), places[0])

    @property
    def has_room_for_ipv6(self) -> bool:
        """Whether the kernel has IPv6 on an interface of this MTU at all (IPV6_MIN_MTU)."""
        return not self.mtu or self.mtu >= _LEAST_OF_IPV6


class Link:
    """The network of one jail, decided. Without ``ends`` there is no veth, only the jail's own loopback.

    ``addresses`` are those of all ends, in the order in which they were given, ``nowhere`` those that no interface of
    the host has. ``ways`` has for each family the end by which the jail speaks to the world, and the address from which
    it does; ``fixed`` are the families in which it speaks from its first one alone. ``switches`` is for
    core/firewall.py. ``outside`` is a socket in the host's network namespace, from ``host_side`` to ``inside``.
    """

    __slots__ = ("addresses", "ends", "fixed", "ipv6", "jid", "nowhere", "outside", "switches", "ways")

    def __init__(self, jid: int, fixed: tuple[int, ...] = ()) -> None:
        self.jid = jid
        self.addresses: list[Place] = []
        self.ends: list[End] = []
        self.fixed = fixed
        self.ipv6 = False
        self.nowhere: list[str] = []
        self.outside: Netlink | None = None
        self.switches: list[str] = []
        self.ways: dict[int, tuple[End, Place]] = {}

    def of(self, family: int) -> list[Place]:
        """The addresses of family 4 or 6, in the order in which they were given."""
        return [place for place in self.addresses if place.family == family]


def _text(packed: bytes) -> str:
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


def is_loopback(packed: bytes) -> bool:
    """Whether it is of IPv4's loopback network, or IPv6's loopback address."""
    return packed[0] == 127 if len(packed) == 4 else packed == bytes(15) + b"\1"


def _check(packed: bytes) -> None:
    first = packed[0]
    if len(packed) == 4:
        wrong = first == 0 or first >= 224
    elif packed.startswith(_MAPPED):
        raise JailError(f"ip6.addr: {_text(packed)}: an IPv4 address, which is for ip4.addr")
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

    def elsewhere(self, family: int) -> rt.Found | None:
        """The way to the world; None if there is none."""
        return self.route(_ELSEWHERE[family][0]) or self.route(_ELSEWHERE[family][1])

    def alias(self, packed: bytes) -> rt.Address | None:
        """The address, if an interface has it; an IPv4 address only if that is up.

        Raises JailError for the broadcast address of a network of the host's: what is for all of that is for the host.
        """
        if len(packed) == 16:
            try:
                return rt.Address.read(self.netlink.ask(rt.get_address(packed))[0][1])
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    return None
                raise
        route = self.route(packed, matched=True)
        if route is not None and route.broadcast:
            raise JailError(f"{_text(packed)}: the broadcast address of a network that the host is in")
        if route is None or not (route.local or route.protocol == PROTOCOL):
            return None
        if route.local:
            found = netdevice.ipv4_alias(self.interface(route.index).name, packed)
            if found is not None:
                return rt.Address(index=route.index, packed=packed, prefix=found[0], broadcast=found[1])
        # An odd label, or the route of a jail that is being taken apart.
        return self.among_all(packed)

    def among_all(self, packed: bytes) -> rt.Address | None:
        """The IPv4 address, if an interface has it, be it one that is down. To list a thousand takes 2 ms."""
        for address in self.aliases(AF_INET):
            if address.packed == packed:
                return address
        return None

    def aliases(self, family: int) -> list[rt.Address]:
        """Every address of the host, of one family."""
        return [rt.Address.read(body) for _, body in self.netlink.ask(rt.get_addresses(family))]

    def carriers(self, family: int) -> list[rt.Interface]:
        """The interfaces that have an address of family 4 or 6."""
        found = []
        for index in sorted({alias.index for alias in self.aliases(AF_INET if family == 4 else AF_INET6)}):
            try:
                found.append(self.interface(index))
            except OSError as error:
                if error.errno != errno.ENODEV:  # that of a jail which has ended goes when the kernel comes to it
                    raise
        return found


def leads_outside(interface: rt.Interface) -> bool:
    """Whether what others than the host and its jails send comes in there."""
    return not interface.flags & rt.IFF_LOOPBACK and not interface.name.startswith("jng")


def survey(
    jid: int, addresses: Sequence[Address], interface: str | None = None, fixed: tuple[int, ...] = (), lent: bool = True
) -> Link:
    """Decide on the network of a jail with these addresses. Only reads. Not ``lent``: the host goes on using them.

    ``interface`` is the parameter of that name; its alias, if it is to have one, is there already, but for --plan.
    Addresses of the loopback are the jail's own affair: each has its own loopback. One that no interface of the host
    has is no one's: to bind it fails inside, as on FreeBSD. ``fixed`` are the families without saddrsel.

    Raises JailError for an address that no jail can have, that the host cannot spare or this kernel cannot route, and
    for an interface that does not exist; OSError.
    """
    link = Link(jid, fixed)
    link.ipv6 = any(len(address.packed) == 16 for address in addresses)
    for address in addresses:
        _check(address.packed)
    beyond = [address for address in addresses if not is_loopback(address.packed)]
    if not beyond:
        return link
    with Netlink() as netlink:
        host = Host(netlink)
        for address in beyond:
            place = Place(address.packed)
            if _find(host, place, address.interface or interface or ""):
                link.addresses.append(place)
            else:
                link.nowhere.append(place.text)
        families = [family for family in (4, 6) if link.of(family)]
        choose = _choose_source if lent else _speaking
        speaking = {family: choose(host, link.of(family)) for family in families}
        out = [(family, name) for family, index in speaking.items() for name in _outward(host, link.of(family), index)]
        if link.addresses:
            _part(link, host)
        for family in families:
            _find_networks(link, host, family)
    link.ways = {family: _way(link, family, index) for family, index in speaking.items()}
    carrying = [(place.family, place.interface) for place in link.addresses if lent and place.interface]
    # Before Linux 6.17 IPv6 is forwarded for all interfaces or for none, and only for whom the LAN is to reach.
    carrying += [(family, name) for family, name in out if lent and (family == 4 or firewall.can_forward_one())]
    for family, name in dict.fromkeys(carrying):
        needed = firewall.switches_for(family, name)
        link.switches += [switch for switch in needed if switch not in link.switches]
    return link


def _find(host: Host, place: Place, name: str) -> bool:
    """Whether the host has the address, and where; or is to have it, on the interface of that name."""
    named = _named(host, name) if name else None
    alias = host.alias(place.packed)
    if alias is None and named is None and place.family == 4:
        alias = host.among_all(place.packed)
    if alias is not None and named is not None and alias.index != named.index:
        # Two interfaces may have it, of which the kernel has told of the one that had it first.
        others = host.aliases(AF_INET if place.family == 4 else AF_INET6)
        alias = next((one for one in others if (one.index, one.packed) == (named.index, place.packed)), alias)
    if alias is not None:
        place.index, place.prefix, place.broadcast = alias.index, alias.prefix, alias.broadcast
        interface = host.interface(alias.index)
    elif named is not None:
        place.index = named.index
        interface = named
    else:
        return False
    if not interface.flags & rt.IFF_LOOPBACK:
        place.interface = interface.name
    return True


def _named(host: Host, name: str) -> rt.Interface:
    try:
        return host.interface(name=name)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise JailError(f"interface {name} does not exist") from None
        raise


def _part(link: Link, host: Host) -> None:
    """An interface of the jail for each of the host's that has one of its addresses, by name, MAC address and MTU.

    What a loopback of the host has is on the first; where no other has any, that is ``eth0``.
    """
    names: list[str] = []
    for place in link.addresses:
        if place.interface and place.interface not in names:
            names.append(place.interface)
    for number, name in enumerate(names or [""]):
        end = End(link.jid, number)
        mine = (name,) if number else (name, "")
        end.addresses = [place for place in link.addresses if place.interface in mine]
        if name:
            model = host.interface(name=name)
            end.inside_name, end.mac, end.mtu = model.name, model.address or end.mac, model.mtu
            end.model = model.index
        link.ends.append(end)


def _way(link: Link, family: int, speaking: int) -> tuple[End, Place]:
    """The end by which the jail speaks to the world: as the host, if it has an address there; else its first one's."""
    first = link.of(family)[0]
    for end in link.ends:
        if end.model == speaking and end.of(family) and family not in link.fixed:
            return end, end.speaker(family)
    return next(end for end in link.ends if first in end.addresses), first


def _find_networks(link: Link, host: Host, family: int) -> None:
    """Which networks the host is in by the interfaces of a jail that has several: an alias need not have their prefix.

    Each once, of the interface that had it first. And those to which it has routes by them, unless it is a router of
    many: to another than the interface by which it speaks to the world they would lead from a wrong address.
    """
    ends = {end.model: end for end in link.ends if end.of(family)}
    if len(ends) < 2:
        return
    known = set()
    for alias in host.aliases(AF_INET if family == 4 else AF_INET6):
        network = network_of(alias.peer or alias.packed, alias.prefix), alias.prefix
        is_network = alias.peer or 0 < alias.prefix < 8 * len(alias.packed)
        if is_network and alias.index in ends and alias.scope != rt.RT_SCOPE_LINK and network not in known:
            known.add(network)
            end = ends[alias.index]
            end.networks.append((*network, end.speaker(family).packed))
    answers = host.netlink.ask(rt.get_routes(AF_INET if family == 4 else AF_INET6))
    entries = [rt.Entry(body) for _, body in answers]
    routes = [one for one in entries if one.leads and one.index in ends and one.protocol not in (PROTOCOL, _BY_KERNEL)]
    for entry in routes if len(routes) <= _MOST_ROUTES else ():
        if (entry.target, entry.bits) not in known:
            known.add((entry.target, entry.bits))
            end = ends[entry.index]
            end.networks.append((entry.target, entry.bits, end.speaker(family).packed))


def network_of(packed: bytes, prefix: int) -> bytes:
    """The network that an address is in: what of it its prefix does not name is zero."""
    hosts = 8 * len(packed) - prefix
    return (int.from_bytes(packed, "big") >> hosts << hosts).to_bytes(len(packed), "big")


def _speaking(host: Host, places: list[Place]) -> int:
    """The number of the interface by which the host speaks to the world, 0 for none."""
    route = host.elsewhere(places[0].family)
    return route.index if route is not None else 0


def _choose_source(host: Host, places: list[Place]) -> int:
    """By which address the host is to speak to the jail. Refuses to give away the one by which it speaks at all.

    The number of the interface by which it speaks to the world, 0 for none.
    """
    family = places[0].family
    ours = [place.packed for place in places]
    route = host.elsewhere(family)
    by = route.index if route is not None else 0
    speaking = route.preferred if route is not None else b""
    if speaking in ours:
        raise JailError(
            f"ip{family}.addr: {_text(speaking)} is the address by which the host itself speaks to the world: "
            "give the jail another one, or share the host's network"
        )
    if family == 4:
        return by  # the kernel takes the first address of the first interface: see core/network.py
    # To an address that it has the host speaks from that very address (RFC 6724, rule 1), which the jail would take for
    # its own. A route outlives the address that it names here, and speaks from the jail's then: so no temporary one.
    named = host.alias(speaking) if speaking else None
    lasting = speaking if named is not None and not named.flags & rt.IFA_F_TEMPORARY else b""
    source = lasting or _any_other(host, ours)
    for place in places:
        place.source = source or GATEWAY[6]
    return by


def _outward(host: Host, places: list[Place], speaking: int) -> list[str]:
    """Where answers to the jail come in, whichever interface has its addresses: by the host's way to the world.

    Of a host without one, and a jail that can be reached only through translation, that is any of its networks.
    """
    if speaking:
        return [host.interface(speaking).name]
    if any(place.interface for place in places):
        return []
    return [interface.name for interface in host.carriers(places[0].family) if leads_outside(interface)]


def _any_other(host: Host, ours: list[bytes]) -> bytes:
    """An address of the host's that no jail has, if there is one: the first that an interface got (the kernel's last).

    Those that came later may be for jails to come. If it comes to be a jail's all the same, core/network.py sees to it.
    """
    chosen, place = b"", 0
    for found in host.aliases(AF_INET6):
        passing = found.flags & (rt.IFA_F_DEPRECATED | rt.IFA_F_TEMPORARY)
        coming = found.flags & (rt.IFA_F_TENTATIVE | rt.IFA_F_OPTIMISTIC) == rt.IFA_F_TENTATIVE  # no source of a route
        usable = found.scope == rt.RT_SCOPE_UNIVERSE and not passing and not coming and place in (0, found.index)
        if usable and found.packed not in ours:
            route = host.route(found.packed)
            if route is None or route.protocol != PROTOCOL:
                chosen, place = found.packed, found.index
    return chosen
