"""What jails' networks share on the host, and what administrators have made of it meanwhile: ``jailctl doctor``."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

from jailng.core import advertisements, firewall
from jailng.core.link import Host, leads_outside
from jailng.ctl.diagnosis import Finding, Jails, Networked, Way, word
from jailng.errors import JailError
from jailng.linux.netlink import NETLINK_NETFILTER, Netlink

_END = re.compile(r"jng([0-9]{1,6})(?:-[0-9]+)?")


def guarded() -> set[str] | None:
    """The switches that the table guards, None if there is no table."""
    try:
        with Netlink(NETLINK_NETFILTER) as netlink:
            return firewall.guarded(netlink)
    except OSError:
        return None


def table(jails: Jails) -> Iterator[Finding]:
    """Whether the table is there while jails are reached, and what it guards; ``nft flush ruleset`` takes it."""
    held = guarded()
    reached = [jail for jail in jails.running if jail.ways]
    if held is None:
        if reached:
            names = ", ".join([jail.name for jail in reached])
            yield Finding(
                f"table inet jailng is gone, as after nft flush ruleset: {names} may send from any address and connect "
                "to the host, and the host forwards for anybody where it does for jails",
                (f"{reached[0].again}   # any jail with an address that is started makes it anew, for all",),
            )
        return
    for switch in sorted(jails.switches - held):
        if not switch.startswith("proxy") and firewall.state(switch) == "ours":
            yield Finding(f"{firewall.sysctl(switch)} was switched on for jails, and nothing guards it")
    for switch in sorted(held):
        if firewall.state(switch) == "theirs":
            yield Finding(
                f"{firewall.sysctl(switch)} is the administrator's by now, and jailng still drops what is not for "
                "jails there, until the next jail with an address starts",
                wrong=False,
            )


def switches(jails: Jails) -> Iterator[Finding]:
    """Whether packets are forwarded to jails and from them."""
    for jail in jails.running:
        for way in jail.ways:
            for name in (4, 6):
                if any((":" in address) == (name == 6) for _, address in way.carried):
                    yield from _forwarding(jail, name, way.link)
            for family, interfaces in way.interfaces.items():
                for interface in sorted(interfaces):
                    yield from _forwarding(jail, family, interface)
        if any(switch.startswith("proxy") for switch in jail.switches) and firewall.state("proxy:6") == "off":
            yield Finding(*_off(jail, firewall.sysctl("proxy:6")))
    yield from _answers(jails)


def _answers(jails: Jails) -> Iterator[Finding]:
    """What comes back translated comes by the host's way to the world, which may have been another at the start."""
    for family in (4, 6):
        concerned = [jail for jail in jails.running if any(_has(way, family) for way in jail.ways)]
        name = _way_out(family) if concerned else ""
        told = {carrying for jail in concerned for way in jail.ways for carrying in way.interfaces.get(family, ())}
        if name and name not in told and _is_off(family, name):
            jail = concerned[0]
            yield Finding(
                f"the host speaks to the world by {name}, and does not forward there: what comes back to jail "
                f'"{jail.name}" and is translated (ipnat(8)) does not get to it',
                (f"{jail.again}   # or start it again as it was",),
                wrong=False,
            )


def _has(way: Way, family: int) -> bool:
    return any((":" in address) == (family == 6) for _, address in way.carried)


def _way_out(family: int) -> str:
    """The interface by which the host speaks to the world; "" where that is none by which others come."""
    with Netlink() as netlink:
        host = Host(netlink)
        route = host.elsewhere(family)
        if route is None or not route.index:
            return ""
        interface = host.interface(route.index)
        return interface.name if leads_outside(interface) else ""


def _paths(family: int, interface: str) -> list[str]:
    if family == 4:
        return [f"ipv4/conf/{interface}/forwarding"]
    return ["ipv6/conf/all/forwarding", f"ipv6/conf/{interface}/force_forwarding"]


def _forwarding(jail: Networked, family: int, interface: str) -> Iterator[Finding]:
    if _is_off(family, interface):
        yield Finding(*_off(jail, firewall.sysctl(_paths(family, interface)[-1])))


def _is_off(family: int, interface: str) -> bool:
    values = [firewall.read_switch(path) for path in _paths(family, interface)]
    return not any(values) and values != [None] * len(values)


def _off(jail: Networked, name: str) -> tuple[str, tuple[str, ...]]:
    return f'{name} is 0: jail "{jail.name}" is cut off', (f"sysctl -w {name}=1",)


def rp_filter(jails: Jails) -> Iterator[Finding]:
    """The second line behind the table's rule against forged sources."""
    every = firewall.read_switch("ipv4/conf/all/rp_filter") or 0
    for jail in jails.running:
        for way in jail.ways:
            if max(every, firewall.read_switch(f"ipv4/conf/{way.link}/rp_filter") or 0) == 0:
                name = firewall.sysctl(f"ipv4/conf/{way.link}/rp_filter")
                yield Finding(
                    f'{name} is 0: the table alone keeps jail "{jail.name}" from forging addresses',
                    (f"sysctl -w {name}=1",),
                    wrong=False,
                )


def accept_ra(_: Jails) -> Iterator[Finding]:
    """Before Linux 6.17 IPv6 is forwarded by all interfaces or none, which then take no router advertisements."""
    if firewall.can_forward_one() or firewall.read_switch("ipv6/conf/all/forwarding") != 0:
        return
    try:
        advertisements.check()
    except JailError as error:
        yield Finding(f"a jail with IPv6 addresses is refused: {error}", wrong=False)


def leftovers(jails: Jails) -> Iterator[Finding]:
    """Switches and guards that no jail needs, interfaces of jails that are gone, records of such."""
    held = guarded()
    used = any(jail.ways for jail in jails.running)
    for record in jails.ended:
        yield Finding(
            f'jail "{record.name}" has ended by itself, and what it had on the host is still there',
            (f"jail -r {word(record.name)}",),
            wrong=False,
        )
    if jails.ended:
        return  # what they need, they hold
    if held is not None and not used:
        yield Finding("table inet jailng stands, and no jail is there", ("nft delete table inet jailng",))
    for switch in sorted((held or set()) - jails.switches) if used else []:
        yield Finding(f"{firewall.sysctl(switch)} is guarded, and no jail needs it")
    for path in sorted(Path("/proc/sys/net/ipv4/conf").iterdir()):
        value = firewall.read_switch(f"ipv4/conf/{path.name}/forwarding")
        if value in firewall.OURS and f"4:{path.name}" not in jails.switches and not _END.fullmatch(path.name):
            yield Finding(
                f"{firewall.sysctl(f'4:{path.name}')} was switched on for jails, and none needs it",
                (f"sysctl -w {firewall.sysctl(f'4:{path.name}')}=0",),
            )
    known = {way.link for jail in jails.running for way in jail.ways}
    for _, name in socket.if_nameindex():
        if _END.fullmatch(name) and name not in known:
            yield Finding(
                f"{name} is the interface of a jail that is gone: a connection of its waits for an answer, or its "
                "namespace is still being taken apart",
                (f"ip link delete {name}",),
                wrong=False,
            )
