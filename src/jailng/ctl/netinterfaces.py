"""``netstat -i`` as FreeBSD 15 has it: interfaces, their addresses, and what has gone through them.

Forms and libxo's names are those of usr.bin/netstat/if.c. Linux counts nothing by address.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from jailng.ctl import ifconfig
from jailng.ctl.destination import scoped
from jailng.ctl.netroutes import network
from jailng.linux import interface as device
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink
from jailng.params.values import visible

_LINK = 0
_FAMILIES = {"inet": rt.AF_INET, "inet6": rt.AF_INET6, "link": _LINK}
# A number's name in libxo, its attribute, its heading, and of which width it is: packets, errors, bytes.
_COLUMNS = (
    ("received-packets", "packets_in", "Ipkts", "p"),
    ("received-errors", "errors_in", "Ierrs", "e"),
    ("dropped-packets", "dropped_in", "Idrop", "e"),
    ("received-bytes", "bytes_in", "Ibytes", "b"),
    ("sent-packets", "packets_out", "Opkts", "p"),
    ("send-errors", "errors_out", "Oerrs", "e"),
    ("sent-bytes", "bytes_out", "Obytes", "b"),
    ("collisions", "collisions", "Coll", "e"),
    ("dropped-packets", "dropped_out", "Drop", "e"),
)


@dataclass(frozen=True)
class Line:
    """An interface, or an address of one: that has no ``counters``."""

    link: rt.Interface
    network: str
    address: str
    counters: device.Counters | None


def held(only: str = "", family: str = "") -> list[Line]:
    """The interfaces, each with its addresses behind it; of the interface ``only``, or of a ``family``, where given."""
    addresses: dict[int, list[rt.Address]] = {}
    with Netlink() as netlink:
        links = [(rt.Interface(body), device.Counters(body)) for _, body in netlink.ask(device.everyone_counted())]
        for wanted in (rt.AF_INET, rt.AF_INET6):
            for _, body in netlink.ask(rt.get_addresses(wanted)):
                found = rt.Address.read(body)
                addresses.setdefault(found.index, []).append(found)
    lines = []
    for link, counters in links:
        if only and link.name != ifconfig.loopback(only):
            continue
        if family in ("", "link"):
            mac = ":".join([f"{byte:02x}" for byte in link.address])
            lines.append(Line(link, f"<Link#{link.index}>", mac or link.name, counters))
        for found in addresses.get(link.index, []):
            if family in ("", "inet" if len(found.packed) == 4 else "inet6"):
                lines.append(_of_address(link, found))
    return lines


def _of_address(link: rt.Interface, found: rt.Address) -> Line:
    around = ipaddress.ip_network((found.packed, found.prefix), strict=False).network_address.packed
    return Line(link, network(around, found.prefix, link.name), scoped(found.packed, link.name), None)


def _columns(letters: str) -> list[tuple[str, str, str, str]]:
    shown = [column for column in _COLUMNS if column[3] != "b" or "b" in letters]
    return shown if "d" in letters else shown[:-1]


def _width(least: int, numbers: list[int]) -> int:
    """max_num_len() of FreeBSD's."""
    for number in numbers:
        places = 2
        while number > 10:
            places, number = places + 1, number // 10
        least = max(least, places)
    return least


def text(found: list[Line], letters: str) -> list[str]:
    """The table in lines; ``letters`` are options: b for bytes, d for what was dropped on its way out."""
    columns = _columns(letters)
    titles = [line.link.name + ("" if line.link.flags & rt.IFF_UP else "*") for line in found]
    name = max([5, *[len(title) for title in titles]])
    around = max([8, *[len(line.network) for line in found]])
    address = max([8, *[len(line.address) for line in found]])
    widths = {}
    for kind, least in (("p", 8), ("e", 5), ("b", 10)):
        numbers = [
            getattr(line.counters, key) for line in found if line.counters for _, key, _, of in columns if of == kind
        ]
        widths[kind] = _width(least, numbers)
    head = f"{'Name':<{name}} {'Mtu':>5} {'Network':<{around}}  {'Address':<{address}}"
    lines = [" ".join([head, *[f"{heading:>{widths[kind]}}" for _, _, heading, kind in columns]])]
    for title, line in zip(titles, found, strict=True):
        mtu = str(line.link.mtu) if line.counters else "-"
        cells = [getattr(line.counters, key) if line.counters else "-" for _, key, _, _ in columns]
        front = f"{title:<{name}}{mtu:>6} {line.network:<{around}}  {line.address:<{address}}"
        numbers = [f"{cell:>{widths[column[3]]}}" for cell, column in zip(cells, columns, strict=True)]
        lines.append(visible(" ".join([front, *numbers])))
    return lines


def structure(found: list[Line], letters: str) -> dict[str, Any]:
    """The table as libxo has it: what it shows as a dash is not there."""
    listed = []
    for line in found:
        one: dict[str, Any] = {"name": line.link.name, "flags": f"{ifconfig.flags_of(line.link)[0]:#x}"}
        if line.counters:
            one["mtu"] = line.link.mtu
        one |= {"network": line.network, "address": line.address}
        if line.counters:
            # Both that are dropped have one name there. What comes in is what libxo's readers find.
            counted = [column for column in _columns(letters) if column[1] != "dropped_out"]
            one |= {field: getattr(line.counters, key) for field, key, _, _ in counted}
        listed.append(one)
    return {"interface": listed}
