"""Where a route of route(8) leads to and through: addresses and networks in FreeBSD's spellings."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from jailng.errors import JailError, UsageError
from jailng.linux import rtnetlink as rt
from jailng.params.values import visible

_EX_NOHOST = 68
_NUMBERS = re.compile(r"(0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10})(\.(0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10})){0,3}")


@dataclass(frozen=True)
class Target:
    """An address and how many of its bits count. ``host``: it was given as that of one host."""

    packed: bytes
    bits: int
    host: bool


def parse(text: str, family: int, forced: set[str]) -> Target:
    """A destination; ``forced`` has ``net`` or ``host`` if they were said before it.

    Raises JailError: it is an address, and a bad one; UsageError: it is none, such as the name of a host.
    """
    if text == "default":
        return Target(bytes(4 if family == rt.AF_INET else 16), 0, False)
    if family == rt.AF_INET6:
        return _parse6(text)
    address, slash, prefix = text.partition("/")
    if slash:
        number = _network(address)
        if number is None:
            raise _bad(text)
        # strtoul(3) makes 0 of what is none, and 0 is the prefix that the number itself has.
        bits = int(prefix) if re.fullmatch("[0-9]{1,3}", prefix) else 0
        if bits > 32:
            raise _bad(text)
        return Target(number.to_bytes(4, "big"), bits or _own_bits(number), False)
    packed = _aton(address)
    if packed is not None and "net" not in forced:
        number = int.from_bytes(packed, "big")
        if "host" in forced or number & _host_part(packed):
            return Target(packed, 32, True)
    else:
        found = _network(address)
        if found is None:
            raise _unknown(text)
        number = found
    return Target(number.to_bytes(4, "big"), _own_bits(number), False)


def gateway(text: str, family: int) -> tuple[bytes, str]:
    """A gateway: its address, and the interface that an address of one link names. Raises as ``parse`` does."""
    if family == rt.AF_INET:
        packed = _aton(text)
        if packed is None:
            raise _unknown(text)
        return packed, ""
    address, _, scope = text.partition("%")
    return _address6(address, text), scope


def bits(text: str, family: int) -> int:
    """The bits of a netmask. Raises as ``parse`` does."""
    if text == "default":
        return 0
    packed = _aton(text) if family == rt.AF_INET else _address6(text, text)
    if packed is None:
        raise _unknown(text)
    found = int.from_bytes(packed, "big").bit_count()
    if masked(b"\xff" * len(packed), found) != packed:
        raise _bad(text)  # one with holes, which Linux cannot
    return found


def length(text: str, family: int) -> int:
    """The bits of a prefix that is said as their number. Raises JailError."""
    if not re.fullmatch("[0-9]{1,3}", text) or int(text) > (32 if family == rt.AF_INET else 128):
        raise JailError(f"{visible(text)}: bad value")
    return int(text)


def masked(packed: bytes, prefix: int) -> bytes:
    """The first bits of an address, and zeros."""
    full = 8 * len(packed)
    mask = (1 << full) - (1 << (full - prefix))
    return (int.from_bytes(packed, "big") & mask).to_bytes(len(packed), "big")


def shown(packed: bytes) -> str:
    """An address as a number."""
    return str(ipaddress.ip_address(packed))


def scoped(packed: bytes, interface: str) -> str:
    """An address as a number, with the interface if it is one of a link alone."""
    scope = f"%{interface}" if packed[:1] == b"\xfe" and packed[1] & 0xC0 == 0x80 else ""
    return f"{shown(packed)}{scope}"


def named(packed: bytes) -> str:
    """An address, or ``default``, which FreeBSD has for IPv4 alone."""
    return "default" if packed == bytes(4) else shown(packed)


def network(packed: bytes, prefix: int) -> str:
    """A network as FreeBSD names it: of IPv4 without the zeros behind it."""
    if len(packed) == 16 or prefix == 32 or packed == bytes(4):
        return named(packed)
    parts = shown(packed).split(".")
    while parts[-1] == "0":
        parts.pop()
    return ".".join(parts)


def _parse6(text: str) -> Target:
    address, slash, prefix = text.partition("/")
    packed = _address6(address.partition("%")[0], address)
    if slash:
        found = length(prefix, rt.AF_INET6)
        return Target(packed, found, found == 128)
    if packed == bytes(16):
        return Target(packed, 0, False)
    # Of what is global unicast, and names no interface.
    if packed[0] & 0xE0 == 0x20 and packed[8:] == bytes(8):
        return Target(packed, 64, False)
    return Target(packed, 128, True)


def _address6(text: str, whole: str) -> bytes:
    try:
        return ipaddress.IPv6Address(text).packed
    except ValueError:
        if not _NUMBERS.fullmatch(text):
            raise UsageError(f"route: {whole}: not an address") from None
        raise JailError(f"{visible(whole)}: Name does not resolve") from None


def _unknown(text: str) -> JailError:
    """What is an address, but not one of IPv4, is a bad one; anything else may be a word of the host's own route."""
    try:
        ipaddress.IPv6Address(text.partition("/")[0])
    except ValueError:
        if not _NUMBERS.fullmatch(text):
            return UsageError(f"route: {text}: not an address")
    return _bad(text)


def _bad(text: str) -> JailError:
    return JailError(f"bad address: {visible(text)}", status=_EX_NOHOST)


def _aton(text: str) -> bytes | None:
    """inet_aton(3): of fewer than four numbers the last has all that is left."""
    try:
        return socket.inet_aton(text) if _NUMBERS.fullmatch(text) else None
    except OSError:
        return None


def _network(text: str) -> int | None:
    """inet_network(3), as route(8) takes it: of fewer than four numbers the first are the front of the address."""
    if not _NUMBERS.fullmatch(text):
        return None
    try:
        numbers = [int(part, 0) if part[:2] in ("0x", "0X") else int(part) for part in text.split(".")]
        return int.from_bytes(bytes(numbers) + bytes(4 - len(numbers)), "big")
    except ValueError:
        return None


def _own_bits(number: int) -> int:
    """The prefix of a network that was given without one: up to the last of its bytes that is not 0."""
    return next((32 - 8 * at for at in range(4) if number >> 8 * at & 0xFF), 0)


def _host_part(packed: bytes) -> int:
    """The bits that tell the host in an address of its class, as inet_lnaof(3) has it."""
    return 0xFFFFFF if packed[0] < 128 else 0xFFFF if packed[0] < 192 else 0xFF
