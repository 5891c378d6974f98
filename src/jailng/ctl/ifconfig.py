"""ifconfig(8) as FreeBSD has it: the listing, and what ``ifchange`` changes. For the rest there is the host's own."""

from __future__ import annotations

import getopt
import ipaddress
import os
import socket
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from jailng.ctl import ifchange, vnet
from jailng.errors import UsageError
from jailng.linux import interface as device
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink
from jailng.params.values import visible
from jailng.procs import printed

USAGE = """usage: ifconfig [-j jail] [-adlnu] [-f type:format] [-g group] [interface] [inet | inet6 | ether]
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
_SEPARATORS = {"dash": "-", "dotted": "."}  # of the bytes of a MAC address, where they are not colons
_FAMILIES = {"inet": rt.AF_INET, "inet6": rt.AF_INET6, "ether": 0, "link": 0, "lladdr": 0}
# FreeBSD's group of an interface is that of the word that makes it; by what Linux calls whoever made it.
_GROUPS = {"veth": "epair", "bridge": "bridge", "vlan": "vlan", "dummy": "lo", "ifb": "lo"}


@dataclass
class Listing:
    """What is to be shown: of all interfaces, of ``group`` or of ``interface``; all of it, or of one ``family``."""

    letters: str = ""
    group: str | None = None
    interface: str = ""
    family: int | None = None
    formats: dict[str, str] = field(default_factory=dict)


def answer(argv: list[str], real: str | None) -> int:
    """Run FreeBSD's ifconfig. Raises JailError, and UsageError for what the host's own, ``real``, is to answer."""
    options = 0
    while argv[options : options + 1] and argv[options][:1] == "-":
        options += 2 if argv[options][-1:] in ("f", "g", "j") else 1
    jail, words = vnet.jail_of(argv[:options])
    if jail is None:
        return _run(argv, real is None)
    vnet.enter(jail)
    words += argv[options:]
    try:
        return _run(words, real is None)
    except UsageError:
        if real is None:
            raise
        given = [loopback(word) for word in words[:1]] + words[1:]
        os.execv(real, ["ifconfig", *given])  # which is in the jail's network namespace, too


def _run(words: list[str], alone: bool) -> int:
    if ":" in "".join(words[:1]):
        # The label of an address (ep0:1), of which the host's own knows: for what is done here the kernel takes ep0.
        raise UsageError(USAGE)
    listing = _listing(words)
    if listing is not None:
        return _list(listing)
    interface, *rest = getopt.getopt(words, "nf:")[1]
    try:
        steps = ifchange.parse(rest, alone)
    except UsageError:
        raise UsageError(USAGE) from None
    return ifchange.apply(interface if rest[0] in ("create", "plumb") else loopback(interface), steps)


def loopback(name: str) -> str:
    """The interface of that name: FreeBSD's loopback is lo0, and scripts for vnet jails give it its address."""
    return "lo" if name == "lo0" and "lo0" not in [name for _, name in socket.if_nameindex()] else name


def _listing(words: list[str]) -> Listing | None:
    """What of it is to be listed; None where something is to be changed. Raises UsageError: another's options."""
    try:
        options, rest = getopt.getopt(list(words), "adlnuf:g:")
    except getopt.GetoptError:
        raise UsageError(USAGE) from None
    listing = Listing("".join([letter[1] for letter, _ in options]), dict(options).get("-g"))
    asked = dict(options).get("-f", os.environ.get("IFCONFIG_FORMAT", ""))
    listing.formats = formats(asked)
    # -n, no names, is how it is anyhow; it and -f may stand before an interface, and before what is to be changed.
    options = [(letter, value) for letter, value in options if letter not in ("-n", "-f")]
    if rest and not options:
        listing.interface = loopback(rest.pop(0))
    if rest and rest[0] in _FAMILIES:
        listing.family = _FAMILIES[rest.pop(0)]
    if rest and options:
        raise UsageError(USAGE)
    return None if rest else listing


def formats(text: str) -> dict[str, str]:
    """What -f, or IFCONFIG_FORMAT, says: how addresses of a type are shown."""
    found = {}
    for word in filter(None, text.split(",")):
        kind, colon, form = word.partition(":")
        if not colon:
            print(f"ifconfig: Skipping invalid format specification: {visible(word)}", file=sys.stderr)
        found[kind] = form
    return found


def _group_of(one: device.Device) -> str:
    if one.kind == "tun":
        return "tap" if one.mac else "tun"
    return _GROUPS.get(one.kind, "lo" if one.name == "lo" else "")


def _list(listing: Listing) -> int:
    with Netlink() as netlink:
        everyone = [device.Device.read(body) for _, body in netlink.ask(device.everyone())]
    chosen = [one for one in everyone if listing.group in (None, "all", _group_of(one))]
    unwanted = {up for letter, up in (("u", False), ("d", True)) if letter in listing.letters}
    chosen = [one for one in chosen if one.up not in unwanted]
    if "l" in listing.letters:
        if listing.family == 0:
            chosen = [one for one in chosen if any(one.mac)]
        return printed.say([visible(" ".join([one.name for one in chosen]))])
    if listing.group is not None and "a" not in listing.letters:
        return printed.say([visible(one.name) for one in chosen])
    if listing.interface:
        index = ifchange.index_of(listing.interface)
        chosen = [one for one in chosen if one.index == index]
    members: defaultdict[int, list[str]] = defaultdict(list)
    for one in everyone:
        members[one.master].append(one.name)
    lines: list[str] = []
    with Netlink() as netlink:
        # By interface, of which root inside may have made any number.
        addresses: defaultdict[int, list[rt.Address]] = defaultdict(list)
        for family in (rt.AF_INET, rt.AF_INET6):
            for _, body in netlink.ask(rt.get_addresses(family)):
                found = rt.Address.read(body)
                addresses[found.index].append(found)
        for one in chosen:
            try:
                interface = rt.Interface(netlink.ask(rt.get_link(one.index))[0][1])
            except OSError:
                continue  # it has gone since
            text = one.alias.decode(errors="surrogateescape")
            lines += describe(interface, addresses[one.index], text, listing.family, listing.formats)
            if listing.family is None:
                lines += [f"\tmember: {name} {_MEMBER}" for name in members[one.index]]
    return printed.say([visible(line, keep="\t") for line in lines])


def describe(
    interface: rt.Interface,
    addresses: list[rt.Address],
    text: str = "",
    family: int | None = None,
    formats: dict[str, str] | None = None,
) -> list[str]:
    """The lines about an interface, as the article prints them, and the ``text`` that describes it, if any.

    ``family``: those of its addresses alone that are of it, 0 being Ethernet's. ``formats`` are those of ``formats()``.
    """
    formats = formats or {}
    bits, names = flags_of(interface)
    lines = [f"{interface.name}: flags={bits:x}<{names}> mtu {interface.mtu}"]
    lines += [f"\tdescription: {text}"] if text else []
    lines += ["\t" + _address(interface, found, formats) for found in addresses if family in (None, _family(found))]
    if interface.address and not family:
        separator = _SEPARATORS.get(formats.get("ether", ""), ":")
        lines.append(f"\tether {separator.join([f'{byte:02x}' for byte in interface.address])}")
    if interface.address and family is None:
        lines += [f"\tmedia: {known}" for known in _media(interface)]
    return lines


def flags_of(interface: rt.Interface) -> tuple[int, str]:
    """FreeBSD's flags of an interface, and their names."""
    simplex = _IFF_SIMPLEX if interface.flags & _BROADCAST else 0
    held = [(flag, name) for linux, flag, name in _FLAGS if interface.flags & linux or (not linux and simplex & flag)]
    return sum(flag for flag, _ in held), ",".join([name for _, name in held])


def _family(found: rt.Address) -> int:
    return rt.AF_INET if len(found.packed) == 4 else rt.AF_INET6


def _address(interface: rt.Interface, found: rt.Address, formats: dict[str, str]) -> str:
    peer = f" --> {ipaddress.ip_address(found.peer)}" if found.peer else ""
    address, bits = str(ipaddress.ip_address(found.packed)), f" prefixlen {found.prefix}"
    form = formats.get("inet" if len(found.packed) == 4 else "inet6", "")
    if form == "cidr":
        bits = f"/{found.prefix}"
    if len(found.packed) == 4:
        mask = (0xFFFFFFFF << (32 - found.prefix)) & 0xFFFFFFFF
        if form != "cidr":
            bits = f" netmask {ipaddress.ip_address(mask)}" if form == "dotted" else f" netmask {mask:#010x}"
        text = f"inet {address}{peer}{bits}"
        shown = found.broadcast and interface.flags & _BROADCAST  # of a loopback there is none
        return f"{text} broadcast {ipaddress.ip_address(found.broadcast)}" if shown else text
    if found.scope == _LINK_SCOPE:
        return f"inet6 {address}%{interface.name}{peer}{bits} scopeid {interface.index:#x}"
    return f"inet6 {address}{peer}{bits}"


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
