"""The addresses that the host lends its jails: whether they still lead there. ``jailctl doctor``."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from jailng.ctl.diagnosis import Finding, Jails, Networked, Way
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink


def check(jails: Jails) -> Iterator[Finding]:
    """Addresses on no interface, and what an administrator or a program of his has changed since the jail started."""
    with Netlink() as netlink:
        proxies = {rt.proxied(body) for family in (4, 6) for _, body in netlink.ask(rt.get_proxies(family))}
        aliases = [rt.Address.read(body) for family in (2, 10) for _, body in netlink.ask(rt.get_addresses(family))]
        carried = {(found.index, found.packed): found for found in aliases}
        links = {way.link for jail in jails.running for way in jail.ways}
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
                (f"ip address add {address} dev {interface}",),
                wrong=False,
            )
        else:
            yield from _check_network(netlink, jail, interface, carried[index, packed])


def _check_network(netlink: Netlink, jail: Networked, interface: str, found: rt.Address) -> Iterator[Finding]:
    """Whether the host has its route to the network of an IPv4 address.

    The kernel makes that when the interface comes up, unless it would name as its source an address that is in a jail.
    """
    up = rt.Interface(netlink.ask(rt.get_link(found.index))[0][1]).flags & rt.IFF_UP
    if len(found.packed) != 4 or found.prefix > 30 or found.flags & rt.IFA_F_NOPREFIXROUTE or not up:
        return
    first = int.from_bytes(found.packed, "big") >> 32 - found.prefix << 32 - found.prefix
    network = first.to_bytes(4, "big"), found.prefix
    routes = [rt.Entry(body) for _, body in netlink.ask(rt.get_routes(rt.AF_INET))]
    if network not in [(route.target, route.bits) for route in routes]:
        text = f"{socket.inet_ntoa(network[0])}/{found.prefix}"
        yield Finding(
            f'the host has no route to {text}, the network of an address of jail "{jail.name}", as after {interface} '
            "was taken down",
            (f"ip route add {text} dev {interface} scope link   # and those by way of a gateway there",),
            wrong=False,
        )


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
