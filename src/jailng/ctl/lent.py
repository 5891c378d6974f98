"""The addresses that the host lends its jails: whether they still lead there. ``jailctl doctor``."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from jailng.core.joining import is_loopback
from jailng.core.link import PROTOCOL, network_of
from jailng.core.registry import Record
from jailng.ctl.diagnosis import Finding, Jails, Networked, Way
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink
from jailng.params.model import Parameters


def check(jails: Jails) -> Iterator[Finding]:
    """Addresses on no interface, and what an administrator or a program of his has changed since the jail started."""
    with Netlink() as netlink:
        proxies = {rt.proxied(body) for family in (4, 6) for _, body in netlink.ask(rt.get_proxies(family))}
        aliases = [rt.Address.read(body) for family in (2, 10) for _, body in netlink.ask(rt.get_addresses(family))]
        carried = {(found.index, found.packed): found for found in aliases}
        links = {way.link for jail in jails.running for way in jail.ways}
        if links:
            yield from _check_own(netlink, aliases)
        for jail in jails.running:
            for address in jail.nowhere:
                yield Finding(
                    f'jail "{jail.name}": {address} was on no interface when it started: nothing in it can use that',
                    (
                        f"ip address add {address} dev lo   # or the interface that it is to be on",
                        f"{jail.again}   # or start it again as it was",
                    ),
                )
            for way in jail.ways:
                yield from _check_way(netlink, jail, way, links, proxies, carried)
        for record in jails.sharing:
            yield from _check_sharing(record, {found.packed for found in aliases})


def _check_sharing(record: Record, carried: set[bytes]) -> Iterator[Finding]:
    """Whether the host has the addresses to which sockets of its own stack are held."""
    params = Parameters.from_texts(record.params, known=True)
    for given in [*params.addresses("ip4.addr"), *params.addresses("ip6.addr")]:
        if given.packed not in carried and not is_loopback(given.bare):
            where = given.interface or params.text("interface") or "lo"
            yield Finding(
                f'jail "{record.name}": {given.bare} is on no interface: nothing in it can use that',
                (f"ip address add {given.bare}/{given.prefix} dev {where}",),
            )


def _check_way(
    netlink: Netlink,
    jail: Networked,
    way: Way,
    links: set[str],
    proxies: set[tuple[int, bytes]],
    carried: dict[tuple[int, bytes], rt.Address],
) -> Iterator[Finding]:
    again = (f"{jail.again}   # or start it again as it was",)
    if not _index(way.link):
        yield Finding(f'jail "{jail.name}": its interface {way.link} is gone', again)
        return
    for interface, address in way.carried:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
        leads = _leads_to(netlink, packed)
        # A jail in it may have been lent the address.
        if leads not in links:
            yield Finding(f'jail "{jail.name}": {address} leads to {leads or "nothing"}, and not to {way.link}', again)
        if not interface:
            continue
        index = _index(interface)
        if not index:
            yield Finding(f'jail "{jail.name}": the interface {interface}, which had {address}, is gone', again)
            continue
        if not proxies & {(index, packed), (0, packed)}:
            yield Finding(
                f'jail "{jail.name}": nobody answers for {address} on {interface}',
                (f"ip neighbour add proxy {address} dev {interface} nud permanent",),
            )
        if (index, packed) not in carried:
            yield Finding(
                f'jail "{jail.name}": {interface} has {address} no longer, so that nobody answers there once the jail '
                "has ended",
                (f"ip address add {_as_lent(jail, interface, address)}",),
                wrong=False,
            )
        else:
            yield from _check_network(netlink, jail, interface, carried[index, packed], [*carried.values()])


def _as_lent(jail: Networked, interface: str, address: str) -> str:
    """Words for ip-address(8): the alias as the jail has made it, to be known when it is taken away with the jail."""
    for line in jail.record.undo:
        kind, *words = line.split(" ")
        if kind == "alias" and words[1].partition("/")[0] == address:
            alike = " nodad preferred_lft 0" if ":" in address else ""  # the host does not speak from it
            return f"{words[1]} dev {interface}{alike}"
    return f"{address} dev {interface}"


def _check_own(netlink: Netlink, aliases: list[rt.Address]) -> Iterator[Finding]:
    """Whether the host's other addresses lead to it.

    The kernel makes no route to one of a network of which the first is in a jail, as that would name it as its source.
    """
    for found in aliases:
        interface = _up(netlink, found.index) if len(found.packed) == 4 else ""
        if not interface:
            continue
        text = socket.inet_ntoa(found.packed)
        try:
            route = rt.Found(netlink.ask(rt.get_route(found.packed, matched=True))[0][1])
        except OSError:
            route = None
        if route is None or not (route.local or route.protocol == PROTOCOL):
            yield Finding(
                f"{text} on {interface} does not lead to the host, as the first address of its network is in a jail",
                (f"ip route add local {text} dev {interface} table local src {text}",),
            )


def _up(netlink: Netlink, index: int) -> str:
    """The interface, if it is up; that of a jail which has ended goes when the kernel comes to it."""
    try:
        found = rt.Interface(netlink.ask(rt.get_link(index))[0][1])
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return ""
    return found.name if found.flags & rt.IFF_UP and not found.master else ""  # a VRF has tables of its own


def _check_network(
    netlink: Netlink, jail: Networked, interface: str, found: rt.Address, aliases: list[rt.Address]
) -> Iterator[Finding]:
    """Whether the host has its route to the network of an IPv4 address.

    The kernel makes that when the interface comes up, unless it would name as its source an address that is in a jail.
    """
    if len(found.packed) != 4 or found.prefix > 30 or found.flags & rt.IFA_F_NOPREFIXROUTE:
        return
    if not _up(netlink, found.index):
        return
    network = _network(found)
    routes = [rt.Entry(body) for _, body in netlink.ask(rt.get_routes(rt.AF_INET))]
    if network not in [(route.target, route.bits) for route in routes]:
        text = f"{socket.inet_ntoa(network[0])}/{found.prefix}"
        others = [one.packed for one in aliases if one.index == found.index and _network(one) == network]
        own = [packed for packed in others if not _leads_to(netlink, packed).startswith("jng")]
        source = f" src {socket.inet_ntoa(own[0])}" if own else ""
        yield Finding(
            f'the host has no route to {text}, the network of an address of jail "{jail.name}", as after {interface} '
            "was taken down",
            (f"ip route add {text} dev {interface} scope link{source}   # and those by way of a gateway there",),
            wrong=False,
        )


def _network(found: rt.Address) -> tuple[bytes, int]:
    return network_of(found.packed, found.prefix), found.prefix


def _leads_to(netlink: Netlink, packed: bytes) -> str:
    """The interface by which the host sends to an address."""
    try:
        return socket.if_indextoname(rt.Found(netlink.ask(rt.get_route(packed))[0][1]).index)
    except OSError as error:
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.ENXIO):
            return ""
        raise


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0
