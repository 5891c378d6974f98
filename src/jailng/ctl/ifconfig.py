"""ifconfig(8) as FreeBSD has it: the listing, and what ``ifchange`` changes. For the rest there is the host's own."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections import defaultdict
from pathlib import Path

from jailng.ctl import ifchange, vnet
from jailng.errors import UsageError
from jailng.linux import interface as device
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink
from jailng.params.values import visible
from jailng.procs import printed

USAGE = """usage: ifconfig [-j jail] [-a | -l | interface]
       ifconfig [-j jail] interface [inet | inet6] address [netmask mask | prefixlen bits] [broadcast address] alias
       ifconfig [-j jail] interface [inet | inet6] address -alias
       ifconfig [-j jail] interface up | down
       ifconfig [-j jail] interface name newname | mtu bytes | ether address | descr text
       ifconfig interface vnet | -vnet jail
       ifconfig [-j jail] epair | bridge | lo[number] create
       ifconfig [-j jail] vlan[number] create vlan tag vlandev interface
       ifconfig [-j jail] bridge addm | deletem | private | -private interface
       ifconfig [-j jail] interface destroy"""
_IFF_SIMPLEX = 0x800  # FreeBSD's alone: an interface that does not hear itself
# Linux's flag, FreeBSD's, and its name; in the order of FreeBSD's bits, as it prints them.
_FLAGS = (
    (0x1, 0x1, "UP"),
    (0x2, 0x2, "BROADCAST"),
    (0x4, 0x4, "DEBUG"),
    (0x8, 0x8, "LOOPBACK"),
    (0x10, 0x10, "POINTOPOINT"),
    (0x40, 0x40, "RUNNING"),
    (0x80, 0x80, "NOARP"),
    (0x100, 0x100, "PROMISC"),
    (0x200, 0x200, "ALLMULTI"),
    (0, _IFF_SIMPLEX, "SIMPLEX"),
    (0x1000, 0x8000, "MULTICAST"),
)
_BROADCAST = 0x2
_MEMBER = "flags=143<LEARNING,DISCOVER,AUTOEDGE,AUTOPTP>"  # FreeBSD's words for a member as it is made
_LINK_SCOPE = 253


def answer(argv: list[str], real: str | None) -> int:
    """Run FreeBSD's ifconfig. Raises JailError, and UsageError for what the host's own, ``real``, is to answer."""
    if argv[:1] != ["-j"]:
        return _run(argv, real is None)
    if len(argv) < 2:
        raise UsageError(USAGE)
    vnet.enter(argv[1])
    words = argv[2:]
    try:
        return _run(words, real is None)
    except UsageError:
        if real is None:
            raise
        given = [_loopback(word) for word in words[:1]] + words[1:]
        os.execv(real, ["ifconfig", *given])  # which is in the jail's network namespace, too


def _run(words: list[str], alone: bool) -> int:
    if ":" in "".join(words[:1]):
        # The label of an address (ep0:1), of which the host's own knows: for what is done here the kernel takes ep0.
        raise UsageError(USAGE)
    if len(words) < 2:
        return _list(words)
    interface, *rest = words
    if interface.startswith("-"):
        raise UsageError(USAGE)
    try:
        steps = ifchange.parse(rest, alone)
    except UsageError:
        raise UsageError(USAGE) from None
    return ifchange.apply(interface if rest[0] in ("create", "plumb") else _loopback(interface), steps)


def _loopback(name: str) -> str:
    """The interface of that name: FreeBSD's loopback is lo0, and scripts for vnet jails give it its address."""
    return "lo" if name == "lo0" and "lo0" not in [name for _, name in socket.if_nameindex()] else name


def _list(words: list[str]) -> int:
    if words[:1] == ["-l"]:
        return printed.say([visible(" ".join(name for _, name in socket.if_nameindex()))])
    if words and words != ["-a"] and words[0].startswith("-"):
        raise UsageError(USAGE)
    if words and words != ["-a"]:
        words = [_loopback(words[0])]
        chosen = [(ifchange.index_of(words[0]), words[0])]
    else:
        chosen = socket.if_nameindex()
    lines: list[str] = []
    with Netlink() as netlink:
        # By interface, of which root inside may have made any number.
        addresses: defaultdict[int, list[rt.Address]] = defaultdict(list)
        for family in (rt.AF_INET, rt.AF_INET6):
            for _, body in netlink.ask(rt.get_addresses(family)):
                found = rt.Address.read(body)
                addresses[found.index].append(found)
        aliases: dict[int, bytes] = {}
        members: defaultdict[int, list[str]] = defaultdict(list)
        for _, body in netlink.ask(device.everyone()):
            one = device.Device.read(body)
            aliases[one.index] = one.alias
            members[one.master].append(one.name)
        for index, _ in chosen:
            try:
                interface = rt.Interface(netlink.ask(rt.get_link(index))[0][1])
            except OSError:
                continue  # it has gone since
            text = aliases.get(index, b"").decode(errors="surrogateescape")
            lines += describe(interface, addresses[index], text)
            lines += [f"\tmember: {name} {_MEMBER}" for name in members[index]]
    return printed.say([visible(line, keep="\t") for line in lines])


def describe(interface: rt.Interface, addresses: list[rt.Address], text: str = "") -> list[str]:
    """The lines about an interface, as the article prints them, and the ``text`` that describes it, if any."""
    simplex = _IFF_SIMPLEX if interface.flags & _BROADCAST else 0
    held = [(flag, name) for linux, flag, name in _FLAGS if interface.flags & linux or (not linux and simplex & flag)]
    bits, names = sum(flag for flag, _ in held), ",".join([name for _, name in held])
    lines = [f"{interface.name}: flags={bits:x}<{names}> mtu {interface.mtu}"]
    lines += [f"\tdescription: {text}"] if text else []
    lines += ["\t" + _address(interface, found) for found in addresses]
    if interface.address:
        lines.append(f"\tether {':'.join([f'{byte:02x}' for byte in interface.address])}")
        lines += [f"\tmedia: {known}" for known in _media(interface)]
    return lines


def _address(interface: rt.Interface, found: rt.Address) -> str:
    peer = f" --> {ipaddress.ip_address(found.peer)}" if found.peer else ""
    if len(found.packed) == 4:
        mask = (0xFFFFFFFF << (32 - found.prefix)) & 0xFFFFFFFF
        text = f"inet {ipaddress.ip_address(found.packed)}{peer} netmask {mask:#010x}"
        return f"{text} broadcast {ipaddress.ip_address(found.broadcast)}" if found.broadcast else text
    text = str(ipaddress.ip_address(found.packed))
    if found.scope == _LINK_SCOPE:
        return f"inet6 {text}%{interface.name} prefixlen {found.prefix} scopeid {interface.index:#x}"
    return f"inet6 {text}{peer} prefixlen {found.prefix}"


def _media(interface: rt.Interface) -> list[str]:
    """What the card says, where there is one: /sys may show another network namespace's interface of that name."""
    place = Path("/sys/class/net") / interface.name
    try:
        same = (place / "address").read_text().strip() == interface.address.hex(":")
        same = same and (place / "ifindex").read_text().strip() == str(interface.index)
        speed = int((place / "speed").read_text()) if same and (place / "device").exists() else 0
        duplex = (place / "duplex").read_text().strip() if speed > 0 else ""
    except (OSError, ValueError):
        return []
    return [f"Ethernet {speed}baseT <{duplex}-duplex>"] if speed > 0 and duplex in ("full", "half") else []
