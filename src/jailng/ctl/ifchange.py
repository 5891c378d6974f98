"""What ifconfig(8) changes, word by word, in the order in which FreeBSD's takes the words behind the interface."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

from jailng.core import alias
from jailng.ctl import clone, vnet
from jailng.errors import JailError, UsageError
from jailng.linux import interface as device
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink
from jailng.params.values import visible
from jailng.procs import printed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.netlink import Message

# The words of FreeBSD's that stand by themselves or before one other.
_ALONE = ("up", "down", "destroy", "unplumb", "create", "plumb", "-descr", "-description")
_BEFORE_ONE = (
    *("addm", "deletem", "private", "-private", "name", "vlan", "vlandev", "vnet", "-vnet"),
    *("descr", "description", "ether", "lladdr", "link", "mtu"),
)
# By itself it is as well the host's own ifconfig's, which then says what comes of it.
_EVERYBODYS = ("mtu",)
_OF_AN_ADDRESS = ("alias", "add", "-alias", "delete", "remove", "netmask", "prefixlen", "broadcast")
_NO_ADDRESS = "Can't assign requested address"  # FreeBSD's strerror(EADDRNOTAVAIL)
_MAC = re.compile("[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")


@dataclass(frozen=True)
class Change:
    """An address that an interface is to have, or none any more. ``broadcast`` is empty where there is none.

    ``replace``: instead of its first IPv4 address. ``plain``: in words that are as well the host's own ifconfig's.
    """

    packed: bytes
    prefix: int
    broadcast: bytes
    remove: bool
    replace: bool = False
    plain: bool = False


Step = Change | tuple[str, str]


def parse(words: list[str], alone: bool = False) -> list[Step]:
    """What the words behind the interface ask for. ``alone``: the host has no ifconfig of its own that might know them.

    Raises JailError: bad value; UsageError: they are not FreeBSD's, or not FreeBSD's alone.
    """
    steps: list[Step] = []
    rest = list(words)
    while rest:
        word = rest[0]
        if word in _ALONE:
            steps.append((rest.pop(0), ""))
        elif word in _BEFORE_ONE and len(rest) > 1:
            steps.append((rest.pop(0), rest.pop(0)))
        else:
            steps.append(_address(rest))
    plain = any(isinstance(step, Change) and step.plain for step in steps)
    left = (*_EVERYBODYS, "up", "down") if plain else _EVERYBODYS
    if all(step[0] in left if isinstance(step, tuple) else step.plain for step in steps) and not (alone and plain):
        raise UsageError(f"ifconfig: {' '.join(words)}: not understood")
    return steps


def _address(rest: list[str]) -> Change:
    """The words about one address, which are taken off ``rest``."""
    family, address, prefix, broadcast, verb = 0, "", "", "", ""
    while rest and rest[0] not in (*_ALONE, *_BEFORE_ONE):
        if rest[0] in ("inet", "inet6") and (family or address):
            break
        word = rest.pop(0)
        if word in ("inet", "inet6"):
            family = 4 if word == "inet" else 6
        elif word in ("alias", "add", "-alias", "delete", "remove"):
            verb = "add" if word in ("alias", "add") else "remove"
        elif word in _OF_AN_ADDRESS and rest:
            value = rest.pop(0)
            if word == "broadcast":
                broadcast = value
            else:
                prefix = str(_mask(value)) if word == "netmask" else value
        elif not address and not word.startswith("-"):
            address, slash, bits = word.partition("/")
            prefix = bits if slash else prefix
        else:
            raise UsageError(f"ifconfig: {word}: not understood")
    if not address:
        raise UsageError("ifconfig: not an address")
    # One without a verb is the host's own's too, unless it is said of what family.
    plain = not verb and not family
    try:
        return replace(_change(address, prefix, broadcast, family, verb), plain=plain)
    except JailError:
        if plain:
            raise UsageError(f"ifconfig: {visible(address)}: not understood") from None
        raise


def _change(address: str, prefix: str, broadcast: str, family: int, verb: str) -> Change:
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        raise _bad(address) from None
    if family and known.version != family:
        raise _bad(address)
    if prefix and not (
        prefix.isascii() and prefix.isdigit() and len(prefix) < 4 and int(prefix) <= known.max_prefixlen
    ):
        raise JailError(f"{visible(address)}/{visible(prefix)}: bad value (width too large)")
    bits = int(prefix) if prefix else _class(known.packed) if known.version == 4 else 64
    if broadcast:
        packed = _ipv4(broadcast)
    elif known.version == 4 and bits < 31:
        packed = ipaddress.ip_network((known.packed, bits), strict=False).broadcast_address.packed
    else:
        packed = b""
    return Change(known.packed, bits, packed, verb == "remove", not verb and known.version == 4)


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


def index_of(interface: str) -> int:
    """An interface's number. Raises JailError: there is no such."""
    try:
        return _number(interface)
    except (OSError, ValueError):
        raise JailError(f"interface {visible(interface)} does not exist") from None


def _number(interface: str) -> int:
    """if_nametoindex(3), to which the label of an address (ep0:1) is the interface that has it, and none to us."""
    if ":" in interface:
        raise OSError(errno.ENXIO, "")
    return socket.if_nametoindex(interface)


def _refused(call: str, error: OSError) -> JailError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return JailError(f"ioctl ({call}): permission denied")
    words = _NO_ADDRESS if error.errno == errno.EADDRNOTAVAIL else os.strerror(error.errno or 0)
    return JailError(f"ioctl ({call}): {words}")


def apply(interface: str, steps: list[Step]) -> int:
    """Do it, one after the other, and print the name of what has a new one; 0. Raises JailError, UsageError."""
    asked, rest = interface, list(steps)
    if rest[0] in (("create", ""), ("plumb", "")):
        words = {step[0]: step[1] for step in rest if isinstance(step, tuple) and step[0] in ("vlan", "vlandev")}
        interface = clone.create(interface, words.get("vlan", ""), words.get("vlandev", ""))
        rest = [step for step in rest[1:] if isinstance(step, Change) or step[0] not in words]
    for step in rest:
        if isinstance(step, Change):
            _apply_address(interface, step)
            continue
        verb, value = step
        if verb not in _STEPS:
            raise UsageError(f"ifconfig: {verb}: not here")
        interface = _STEPS[verb](interface, value) or interface
    return printed.say([interface]) if interface != asked else 0


# Addresses


def _apply_address(interface: str, change: Change) -> None:
    index = index_of(interface)
    if change.remove:
        _remove(interface, index, change)
    elif change.replace:
        _replace(interface, index, change)
    else:
        _add(index, change)


def _replace(interface: str, index: int, change: Change) -> None:
    with Netlink() as netlink:
        held = [known for known in _addresses(netlink, index, rt.AF_INET) if known.packed != change.packed]
    if held:
        _remove(interface, index, Change(held[0].packed, held[0].prefix, b"", True))
    _add(index, change)


def _addresses(netlink: Netlink, index: int, family: int) -> list[rt.Address]:
    everything = [rt.Address.read(body) for _, body in netlink.ask(rt.get_addresses(family))]
    return [known for known in everything if known.index == index]


def _has(netlink: Netlink, index: int, packed: bytes) -> rt.Address | None:
    family = rt.AF_INET if len(packed) == 4 else rt.AF_INET6
    return next((known for known in _addresses(netlink, index, family) if known.packed == packed), None)


def _add(index: int, change: Change) -> None:
    """On FreeBSD an interface that is given an address comes up (ether_ioctl(), SIOCSIFADDR)."""
    with Netlink() as netlink:
        known = _has(netlink, index, change.packed)
        # Without a look for duplicates, which would take a second: a jail may be about to be started on it.
        flags = rt.IFA_F_NODAD if len(change.packed) == 16 else 0
        message = rt.new_address(index, change.packed, change.prefix, change.broadcast, flags)
        try:
            if known is None or known.prefix != change.prefix:  # FreeBSD's takes an alias twice
                netlink.batch([message])
            netlink.batch([device.bring_up(index)])
        except OSError as error:
            if error.errno != errno.ENETDOWN:  # a vlan, whose device is down
                raise _refused("SIOCAIFADDR", error) from None


def _remove(interface: str, index: int, change: Change) -> None:
    with Netlink() as netlink:
        known = _has(netlink, index, change.packed)
        if known is None:
            raise _refused("SIOCDIFADDR", OSError(errno.EADDRNOTAVAIL, ""))
        # Else the kernel removes with the first address of a network all others of it, which FreeBSD's leaves alone.
        guard = nullcontext() if len(change.packed) == 16 else alias.Promoting(interface)
        try:
            with guard:
                netlink.batch([rt.delete_address(index, change.packed, known.prefix)])
        except OSError as error:
            raise _refused("SIOCDIFADDR", error) from None


# The interface itself


def _batch(call: str, *messages: Message) -> None:
    try:
        with Netlink() as netlink:
            netlink.batch(list(messages))
    except OSError as error:
        raise _refused(call, error) from None


def _up(interface: str, _: str) -> None:
    _batch("SIOCSIFFLAGS", device.bring_up(index_of(interface)))


def _down(interface: str, _: str) -> None:
    _batch("SIOCSIFFLAGS", device.take_down(index_of(interface)))


def _destroy(interface: str, _: str) -> None:
    index_of(interface)
    clone.destroy(interface)


def _lend(interface: str, jail: str) -> None:
    vnet.move(index_of(interface), jail)


def _reclaim(interface: str, jail: str) -> None:
    vnet.reclaim(interface, jail)  # what is to be brought back is not here


def _rename(interface: str, name: str) -> str:
    """Linux renames no interface that is up."""
    index = index_of(interface)
    with Netlink() as netlink:
        up = device.Device.read(netlink.ask(device.get(index))[0][1]).up
    messages = [device.take_down(index)] if up else []
    try:
        _batch("SIOCSIFNAME (set name)", *messages, device.rename(index, name))
    except JailError as error:
        raise JailError(str(error).replace("ioctl (SIOCSIFNAME (set name))", "ioctl SIOCSIFNAME (set name)")) from None
    finally:
        if up:
            _batch("SIOCSIFFLAGS", device.bring_up(index))
    return name


def _bridged(call: str, member: str, *messages: Callable[[int], Message]) -> None:
    try:
        index = _number(member)
        with Netlink() as netlink:
            netlink.batch([message(index) for message in messages])
    except OSError as error:
        code = errno.ENOENT if error.errno in (errno.ENODEV, errno.ENXIO, None) else error.errno
        raise JailError(f"{call} {visible(member)}: {os.strerror(code)}") from None


def _member_of(member: str) -> int:
    with Netlink() as netlink:
        try:
            return device.Device.read(netlink.ask(device.get(name=member))[0][1]).master
        except OSError:
            return 0


def _add_member(interface: str, member: str) -> None:
    bridge = index_of(interface)
    held = _member_of(member)
    if held:  # which Linux would take from there
        code = errno.EEXIST if held == bridge else errno.EBUSY
        raise JailError(f"BRDGADD {visible(member)}: {os.strerror(code)}")
    _bridged("BRDGADD", member, lambda index: device.set_master(index, bridge))


def _delete_member(interface: str, member: str) -> None:
    if _member_of(member) != index_of(interface):
        raise JailError(f"BRDGDEL {visible(member)}: {os.strerror(errno.ENOENT)}")
    _bridged("BRDGDEL", member, lambda index: device.set_master(index, 0))


def _set_private(interface: str, member: str, private: bool) -> None:
    if _member_of(member) != index_of(interface):
        raise JailError(f"BRDGSIFFLGS {visible(member)}: {os.strerror(errno.ENOENT)}")
    _bridged("BRDGSIFFLGS", member, lambda index: device.isolate(index, private))


def _set_mtu(interface: str, value: str) -> None:
    if not (value.isascii() and value.isdigit() and len(value) < 11 and int(value) < 1 << 31):
        raise _bad(value)
    _batch("SIOCSIFMTU (set mtu)", device.set_mtu(index_of(interface), int(value)))


def _set_mac(interface: str, value: str) -> None:
    if not _MAC.fullmatch(value):
        raise _bad(value)
    mac = bytes([int(part, 16) for part in value.split(":")])
    _batch("SIOCSIFLLADDR", device.set_mac(index_of(interface), mac))


def _describe(interface: str, text: str) -> None:
    _batch("SIOCSIFDESCR", device.describe(index_of(interface), text.encode("utf-8", "surrogateescape")))


_STEPS: dict[str, Callable[[str, str], str | None]] = {
    "up": _up,
    "down": _down,
    "destroy": _destroy,
    "unplumb": _destroy,
    "vnet": _lend,
    "-vnet": _reclaim,
    "name": _rename,
    "addm": _add_member,
    "deletem": _delete_member,
    "private": lambda bridge, member: _set_private(bridge, member, True),
    "-private": lambda bridge, member: _set_private(bridge, member, False),
    "mtu": _set_mtu,
    "ether": _set_mac,
    "lladdr": _set_mac,
    "link": _set_mac,
    "descr": _describe,
    "description": _describe,
    "-descr": _describe,
    "-description": _describe,
}
