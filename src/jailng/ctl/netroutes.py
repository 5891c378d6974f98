"""``netstat -r`` as FreeBSD 15 has it: the routes of the network that this process is in.

Forms, flags and libxo's names are those of usr.bin/netstat/route_netlink.c. Addresses are shown as numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jailng.ctl.destination import scoped
from jailng.linux import interface as device
from jailng.linux import routes
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink
from jailng.linux.routes import Route
from jailng.params.values import visible

FAMILIES = {rt.AF_INET: "Internet", rt.AF_INET6: "Internet6"}
# Of destination, gateway, flags and interface.
_WIDTHS = {rt.AF_INET: (18, 18, 6, 8), rt.AF_INET6: (33, 29, 6, 8)}
_FLAGS = {"U": "up", "G": "gateway", "H": "host", "R": "reject", "S": "static", "B": "blackhole"}
_UNREACHABLE, _THROW = 7, 9
_OF_NEIGHBOURS = (1, 9)  # protocols: ICMP redirects and router advertisements
_LOOPBACK = "lo"


@dataclass(frozen=True)
class Line:
    """A way to somewhere, as it is shown."""

    destination: str
    gateway: str
    flags: str
    interface: str


def held(family: int) -> list[Line]:
    """The ways of a family in the order of their destinations, each address of this network's own among them."""
    with Netlink() as netlink:
        links = [device.Device.read(body) for _, body in netlink.ask(device.everyone())]
        main, local = [
            [(Route.read(body), routes.hops(body)) for _, body in netlink.ask(rt.get_routes(family, table))]
            for table in (rt.RT_TABLE_MAIN, rt.RT_TABLE_LOCAL)
        ]
    names = {one.index: one.name for one in links}
    chosen = [(route, ways) for route, ways in local if _is_own(route)]
    own = {route.target for route, _ in chosen}
    # Of IPv6 an address may be in both tables.
    chosen += [
        (route, ways) for route, ways in main if _leads(route) and not (_is_whole(route) and route.target in own)
    ]
    chosen.sort(key=lambda known: (known[0].target, known[0].bits, known[0].priority))
    return [_line(route, gateway, index, names) for route, ways in chosen for gateway, index in ways]


def _leads(route: Route) -> bool:
    return route.table == rt.RT_TABLE_MAIN and not route.cloned and route.kind != _THROW


def _is_whole(route: Route) -> bool:
    return route.bits == 8 * len(route.target)


def _is_own(route: Route) -> bool:
    """An address of this host's: FreeBSD has them among its routes, Linux in a table of their own."""
    return route.table == rt.RT_TABLE_LOCAL and route.kind == routes.LOCAL and _is_whole(route)


def _line(route: Route, gateway: bytes, index: int, names: dict[int, str]) -> Line:
    own = _is_own(route)
    name = names.get(index, "---")
    known = (
        (True, "U"),
        (bool(gateway), "G"),
        (_is_whole(route), "H"),
        (route.kind in (routes.PROHIBIT, _UNREACHABLE), "R"),
        (name != _LOOPBACK if own else route.protocol not in (routes.OF_KERNEL, *_OF_NEIGHBOURS), "S"),
        (route.kind == routes.BLACKHOLE, "B"),
    )
    through = scoped(gateway, name) if gateway else f"link#{index}"
    flags = "".join([letter for holds, letter in known if holds])
    return Line(_destination(route, name), through, flags, _LOOPBACK if own else name)


def network(packed: bytes, bits: int, interface: str) -> str:
    """A network as FreeBSD names it, an address with its prefix."""
    if not bits and not any(packed):
        return "default"
    return f"{scoped(packed, interface)}/{bits}"


def _destination(route: Route, interface: str) -> str:
    if _is_whole(route):
        return scoped(route.target, interface)
    return network(route.target, route.bits, interface)


def text(families: list[int]) -> list[str]:
    """The table in lines."""
    lines = ["Routing tables"]
    for family in families:
        found = held(family)
        if not found:
            continue
        to, through, flags, name = _WIDTHS[family]
        lines += ["", f"{FAMILIES[family]}:"]
        lines.append(f"{'Destination':<{to}} {'Gateway':<{through}} {'Flags':<{flags}} {'Netif':>{name}} Expire")
        for one in found:
            # What is too long for its column takes from the next, as far as there is room.
            front = f"{one.destination:<{to}} "
            front += f"{one.gateway:<{max(to + through + 1 - len(front), 0)}} "
            front += f"{one.flags:<{max(to + through + flags + 2 - len(front), 0)}} "
            # FreeBSD cuts a name to eight places. Linux's are often longer, and scripts take them from here.
            lines.append(visible(f"{front}{one.interface:>{name}}"))
    return lines


def structure(families: list[int]) -> dict[str, Any]:
    """The table as libxo has it."""
    tables = []
    for family in families:
        entries = [
            {
                "destination": one.destination,
                "gateway": one.gateway,
                "flags": one.flags,
                "flags_pretty": [_FLAGS[letter] for letter in one.flags],
                "interface-name": one.interface,
            }
            for one in held(family)
        ]
        if entries:
            tables.append({"address-family": FAMILIES[family], "rt-entry": entries})
    return {"route-information": {"route-table": {"rt-family": tables}}}
