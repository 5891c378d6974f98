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
        carried = {(found.index, found.packed) for found in aliases}
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
    carried: set[tuple[int, bytes]],
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
