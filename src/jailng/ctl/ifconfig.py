"""ifconfig(8) as FreeBSD has it: the listing, aliases, up and down. For the rest there is the host's own."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from jailng.core import firewall
from jailng.ctl import epair, vnet
from jailng.errors import JailError, UsageError
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink
from jailng.params.values import visible
from jailng.procs import printed

USAGE = """usage: ifconfig [-j jail] [-a | -l | interface]
       ifconfig [-j jail] interface [inet | inet6] address [netmask mask | prefixlen bits] [broadcast address] alias
       ifconfig [-j jail] interface [inet | inet6] address -alias
       ifconfig [-j jail] interface up | down
       ifconfig interface vnet | -vnet jail
       ifconfig epair[number] create [up]
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
_LINK_SCOPE = 253
_NO_ADDRESS = "Can't assign requested address"  # FreeBSD's strerror(EADDRNOTAVAIL)


def answer(argv: list[str], real: str | None) -> int:
    """Run FreeBSD's ifconfig. Raises JailError, and UsageError for what the host's own, ``real``, is to answer."""
    if argv[:1] != ["-j"]:
        return _run(argv)
    if len(argv) < 2:
        raise UsageError(USAGE)
    vnet.enter(argv[1])
    words = argv[2:]
    try:
        return _run(words)
    except UsageError:
        if real is None:
            raise
        os.execv(real, ["ifconfig", *words])  # which is in the jail's network namespace, too


def _run(words: list[str]) -> int:
    if len(words) < 2:
        return _list(words)
    interface, *rest = words
    if interface.startswith("-"):
        raise UsageError(USAGE)
    if rest in (["up"], ["down"]):
        return _switch(interface, rest[0] == "up")
    if rest[0] in ("create", "plumb") and rest[1:] in ([], ["up"]):
        made = epair.create(interface)
        return (_switch(made, up=True) if rest[1:] else 0) or (printed.say([made]) if made != interface else 0)
    if rest in (["destroy"], ["unplumb"]):
        _index(interface)
        epair.destroy(interface)
        return 0
    if rest[0] in ("vnet", "-vnet") and len(rest) == 2:
        # What is to be brought back is not here.
        vnet.move(_index(interface), rest[1]) if rest[0] == "vnet" else vnet.reclaim(interface, rest[1])
        return 0
    change = parse(rest)
    index = _index(interface)
    if change.remove:
        _remove(interface, index, change)
    else:
        _add(index, change)
    return 0


@dataclass(frozen=True)
class Change:
    """An address that is to be an alias, or none any more. ``broadcast`` is empty where there is none."""

    packed: bytes
    prefix: int
    broadcast: bytes
    remove: bool


def parse(words: list[str]) -> Change:
    """What the words behind the interface ask for. Raises JailError: bad value; UsageError where that is no alias."""
    family, address, prefix, broadcast, verb = 0, "", "", "", ""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in ("inet", "inet6"):
            family = 4 if word == "inet" else 6
        elif word in ("alias", "add", "-alias", "delete", "remove"):
            verb = "add" if word in ("alias", "add") else "remove"
        elif word in ("netmask", "prefixlen", "broadcast") and rest:
            value = rest.pop(0)
            if word == "broadcast":
                broadcast = value
            else:
                prefix = str(_mask(value)) if word == "netmask" else value
        elif not address and not word.startswith("-"):
            address, slash, bits = word.partition("/")
            prefix = bits if slash else prefix
        else:
            raise UsageError(USAGE)
    if not verb or not address:  # FreeBSD's replaces the first address then, which is better asked of the host's own
        raise UsageError(USAGE)
    return _change(address, prefix, broadcast, family, verb == "remove")


def _change(address: str, prefix: str, broadcast: str, family: int, remove: bool) -> Change:
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        raise _bad(address) from None
    if family and known.version != family:
        raise _bad(address)
    if prefix and not (prefix.isascii() and prefix.isdigit() and int(prefix) <= known.max_prefixlen):
        raise JailError(f"{visible(address)}/{visible(prefix)}: bad value (width too large)")
    bits = int(prefix) if prefix else _class(known.packed) if known.version == 4 else 64
    if broadcast:
        packed = _ipv4(broadcast)
    elif known.version == 4 and bits < 31:
        packed = ipaddress.ip_network((known.packed, bits), strict=False).broadcast_address.packed
    else:
        packed = b""
    return Change(known.packed, bits, packed, remove)


def _class(packed: bytes) -> int:
    """The prefix of an address without one: by its class, as ever."""
    return 8 if packed[0] < 128 else 16 if packed[0] < 192 else 24


def _ipv4(text: str) -> bytes:
    try:
        return ipaddress.IPv4Address(text).packed
    except ValueError:
        raise _bad(text) from None


def _mask(text: str) -> int:
    """The bits of a netmask: 0xffffff00, 255.255.255.0."""
    number = int(text, 16) if re.fullmatch("0[xX][0-9a-fA-F]{1,8}", text) else int.from_bytes(_ipv4(text), "big")
    bits = number.bit_count()
    if number != (0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF:
        raise _bad(text)  # one with holes, which FreeBSD's kernel would take and Linux's cannot
    return bits


def _bad(text: str) -> JailError:
    return JailError(f"{visible(text)}: bad value")


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except (OSError, ValueError):
        raise JailError(f"interface {visible(interface)} does not exist") from None


def _refused(call: str, error: OSError) -> JailError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return JailError(f"ioctl ({call}): permission denied")
    words = _NO_ADDRESS if error.errno == errno.EADDRNOTAVAIL else os.strerror(error.errno or 0)
    return JailError(f"ioctl ({call}): {words}")


def _has(netlink: Netlink, index: int, packed: bytes) -> rt.Address | None:
    family = rt.AF_INET if len(packed) == 4 else rt.AF_INET6
    for _, body in netlink.ask(rt.get_addresses(family)):
        known = rt.Address.read(body)
        if known.index == index and known.packed == packed:
            return known
    return None


def _add(index: int, change: Change) -> None:
    with Netlink() as netlink:
        known = _has(netlink, index, change.packed)
        if known is not None and known.prefix == change.prefix:
            return  # FreeBSD's takes an alias twice
        # Without a look for duplicates, which would take a second: a jail may be about to be started on it.
        flags = rt.IFA_F_NODAD if len(change.packed) == 16 else 0
        message = rt.new_address(index, change.packed, change.prefix, change.broadcast, flags)
        try:
            netlink.batch([message])
        except OSError as error:
            raise _refused("SIOCAIFADDR", error) from None


def _remove(interface: str, index: int, change: Change) -> None:
    with Netlink() as netlink:
        known = _has(netlink, index, change.packed)
        if known is None:
            raise _refused("SIOCDIFADDR", OSError(errno.EADDRNOTAVAIL, ""))
        # Else the kernel removes with the first address of a network all others of it, which FreeBSD's leaves alone.
        switch = f"ipv4/conf/{interface}/promote_secondaries"
        promoting = len(change.packed) == 16 or firewall.read_switch(switch) == 1
        try:
            if not promoting:
                firewall.write_switch(switch, 1)
            netlink.batch([rt.delete_address(index, change.packed, known.prefix)])
        except OSError as error:
            raise _refused("SIOCDIFADDR", error) from None
        finally:
            if not promoting and os.geteuid() == 0:
                firewall.write_switch(switch, 0)


def _switch(interface: str, up: bool) -> int:
    index = _index(interface)
    try:
        with Netlink() as netlink:
            netlink.batch([rt.set_link(index, up=True)] if up else [_down(index)])
    except OSError as error:
        raise _refused("SIOCSIFFLAGS", error) from None
    return 0


def _down(index: int) -> tuple[int, int, bytes]:
    # rtnetlink(7): a struct ifinfomsg in which IFF_UP may change, to nothing.
    kind, flags, body = rt.set_link(index)
    return kind, flags, body[:12] + rt.IFF_UP.to_bytes(4, "little") + body[16:]


def _list(words: list[str]) -> int:
    if words[:1] == ["-l"]:
        return printed.say([" ".join(name for _, name in socket.if_nameindex())])
    if words and words != ["-a"] and words[0].startswith("-"):
        raise UsageError(USAGE)
    chosen = [(_index(words[0]), words[0])] if words and words != ["-a"] else socket.if_nameindex()
    lines: list[str] = []
    with Netlink() as netlink:
        known = [
            rt.Address.read(body)
            for family in (rt.AF_INET, rt.AF_INET6)
            for _, body in netlink.ask(rt.get_addresses(family))
        ]
        for index, _ in chosen:
            try:
                interface = rt.Interface(netlink.ask(rt.get_link(index))[0][1])
            except OSError:
                continue  # it has gone since
            lines += describe(interface, [found for found in known if found.index == index])
    return printed.say([visible(line, keep="\t") for line in lines])


def describe(interface: rt.Interface, addresses: list[rt.Address]) -> list[str]:
    """The lines about an interface, as the article prints them."""
    simplex = _IFF_SIMPLEX if interface.flags & _BROADCAST else 0
    held = [(flag, name) for linux, flag, name in _FLAGS if interface.flags & linux or (not linux and simplex & flag)]
    bits, names = sum(flag for flag, _ in held), ",".join([name for _, name in held])
    lines = [f"{interface.name}: flags={bits:x}<{names}> mtu {interface.mtu}"]
    lines += ["\t" + _address(interface, found) for found in addresses]
    if interface.address:
        lines.append(f"\tether {':'.join([f'{byte:02x}' for byte in interface.address])}")
        lines += [f"\tmedia: {known}" for known in _media(interface)]
    return lines


def _address(interface: rt.Interface, found: rt.Address) -> str:
    if len(found.packed) == 4:
        mask = (0xFFFFFFFF << (32 - found.prefix)) & 0xFFFFFFFF
        text = f"inet {ipaddress.ip_address(found.packed)} netmask {mask:#010x}"
        return f"{text} broadcast {ipaddress.ip_address(found.broadcast)}" if found.broadcast else text
    text = str(ipaddress.ip_address(found.packed))
    if found.scope == _LINK_SCOPE:
        return f"inet6 {text}%{interface.name} prefixlen {found.prefix} scopeid {interface.index:#x}"
    return f"inet6 {text} prefixlen {found.prefix}"


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
