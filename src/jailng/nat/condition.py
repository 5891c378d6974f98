"""Which packets a rule is for, in nf_tables' words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from jailng.errors import JailError
from jailng.nat.rule import TCP, UDP, Address, Lookup, Match, Net, Ports

# Where a rule is tried: the hooks of nf_tables; and for what is to leave, but has to be led elsewhere before it is
# routed, ``leaving`` (prerouting) and ``sending`` (output), after the others of the same hook.
Hook = Literal["prerouting", "output", "leaving", "sending", "postrouting"]

# ``*`` and ``-`` are any interface: fr_resolvenic().
_ANY = ("*", "-")
_LOOPBACK = ("lo", "lo0")
_INTERFACE = re.compile(r"[A-Za-z0-9_.:@+-]{1,15}\Z")
# How nft(8) calls the protocols that it has words for.
_PROTOCOLS = {1: "icmp", TCP: "tcp", UDP: "udp", 50: "esp", 51: "ah", 58: "icmpv6"}
# What of the host itself, or from one jail to another, goes over lo0 on FreeBSD.
_LOCAL = '{ "lo", "jng*" }'


class Refused(JailError):
    """What Linux cannot carry, without file and line."""


class Never(Exception):
    """No packet is like that: ``! from any``."""


@dataclass(frozen=True)
class Condition:
    """One test. ``keys`` are the values that ``what`` may have, where these are all there is to it."""

    what: str
    text: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """How nf_tables speaks of IPv4, or IPv6."""

    number: Literal[4, 6]

    @property
    def word(self) -> str:
        """``ip`` or ``ip6``."""
        return "ip" if self.number == 4 else "ip6"

    @property
    def icmp(self) -> str:
        """``icmp`` or ``icmpv6``."""
        return "icmp" if self.number == 4 else "icmpv6"

    @property
    def width(self) -> int:
        """Bits of an address."""
        return 32 if self.number == 4 else 128

    def with_port(self, address: str, port: str) -> str:
        """``192.0.2.1:80``; an IPv6 address stands in brackets."""
        if not port:
            return address
        return f"{address}:{port}" if self.number == 4 else f"{_bracketed(address)}:{port}"


def _bracketed(addresses: str) -> str:
    return "-".join([f"[{part}]" for part in addresses.split("-")]) if addresses else ""


def protocol_word(number: int) -> str:
    """``tcp``, or the number where nft(8) has no word."""
    return _PROTOCOLS.get(number, str(number))


def check_interface(name: str) -> None:
    """Raises Refused for what can be no interface's name, or is more than a name to nf_tables."""
    if name not in _ANY and not _INTERFACE.match(name):
        raise Refused(f"{name}: not the name of an interface")


def interface(hook: Hook, name: str) -> list[list[Condition]]:
    """Where a packet comes in or goes out: alternatives, each of conditions that have to hold together.

    There is none where a rule has nothing to do at that hook. FreeBSD's host and its jails are one stack: what they
    send to each other leaves and arrives at lo0.
    """
    check_interface(name)
    if hook == "output":
        return [[Condition("oifname", f"oifname {_LOCAL}")]] if name in (*_ANY, *_LOOPBACK) else []
    if hook == "leaving":
        if name in _ANY:
            return [[Condition("fib type", "fib daddr type != local")]]
        return [] if name in _LOOPBACK else [[Condition("fib oifname", f'fib daddr oifname "{name}"')]]
    if hook == "sending":
        hook = "postrouting"
    what = "oifname" if hook == "postrouting" else "iifname"
    if name in _ANY:
        return [[]]
    if name not in _LOOPBACK:
        return [[Condition(what, f'{what} "{name}"', (f'"{name}"',))]]
    if hook == "postrouting":
        return [[Condition(what, f"oifname {_LOCAL}")]]
    from_jail = Condition(what, 'iifname "jng*"')
    return [
        [from_jail, Condition("fib type", "fib daddr type local")],
        [from_jail, Condition("fib oifname", 'fib daddr oifname "jng*"')],
    ]


def protocols(numbers: tuple[int, ...]) -> list[Condition]:
    """``meta l4proto``: one of these; no condition for any."""
    words = tuple([protocol_word(number) for number in numbers])
    if not words:
        return []
    text = words[0] if len(words) == 1 else f"{{ {', '.join(words)} }}"
    return [Condition("meta l4proto", f"meta l4proto {text}", words)]


def address(
    family: Family, hook: Hook, side: Literal["saddr", "daddr"], net: Net | Lookup, *, negated: bool = False
) -> list[Condition]:
    """``ip saddr`` or ``ip daddr``. Raises Refused for a pool, and Never."""
    if isinstance(net, Lookup):
        raise Refused(f"{net.kind}/{net.name}: there is no ippool(8)")
    what = f"{family.word} {side}"
    if net.everything:
        if negated:
            raise Never
        return []
    if net.interface:
        return [Condition(f"fib {side}", f"fib {_fib(hook, side)} type {'!= ' if negated else ''}local")]
    sign = "!= " if negated else ""
    if net.bits is None:
        return [Condition(what, f"{what} & {net.mask} {'!=' if negated else '=='} {net.address}")]
    if net.host:
        return [Condition(what, f"{what} {sign}{net.address}", () if negated else (str(net.address),))]
    return [Condition(what, f"{what} {sign}{net.address}/{net.bits}")]


def _fib(hook: Hook, side: Literal["saddr", "daddr"]) -> str:
    """Of the interface, where the hook knows one that counts."""
    if hook == "prerouting" and side == "daddr":
        return "daddr . iif"
    return "saddr . oif" if hook == "postrouting" and side == "saddr" else side


def ports(side: Literal["sport", "dport"], wanted: Ports | None) -> list[Condition]:
    """``th sport`` or ``th dport``. Raises Never."""
    if wanted is None:
        return []
    what = f"th {side}"
    low, high = wanted.low, wanted.high
    if wanted.sign == "=":
        return [Condition(what, f"{what} {low}", (str(low),))]
    if wanted.sign in ("!=", "<", ">", "<=", ">="):
        return [Condition(what, f"{what} {wanted.sign} {low}")]
    if wanted.sign == "<>":
        return [Condition(what, f"{what} != {low}-{high}" if low < high else f"{what} != {low}")]
    if wanted.sign == "><":
        low, high = low + 1, high - 1
    if low > high:
        raise Never
    return [Condition(what, f"{what} {low}-{high}" if low < high else f"{what} {low}")]


def takes_port(wanted: Ports | None, port: int) -> bool:
    """Whether a packet's port is among those."""
    if wanted is None:
        return True
    low, high = wanted.low, wanted.high
    return {
        "=": port == low,
        "!=": port != low,
        "<": port < low,
        ">": port > low,
        "<=": port <= low,
        ">=": port >= low,
        "<>": port < low or port > high,
        "><": low < port < high,
        ":": low <= port <= high,
    }[wanted.sign]


def conditions(family: Family, hook: Hook, match: Match, numbers: tuple[int, ...]) -> list[Condition]:
    """All of a match, but for the interface. Raises Refused, Never."""
    has_ports = match.source_ports is not None or match.destination_ports is not None
    return [
        *protocols(numbers or ((TCP, UDP) if has_ports else ())),
        *address(family, hook, "saddr", match.source, negated=match.not_source),
        *address(family, hook, "daddr", match.destination, negated=match.not_destination),
        *ports("sport", match.source_ports),
        *ports("dport", match.destination_ports),
    ]


def reversed_match(match: Match, own: Net) -> Match:
    """What comes back to ``own``, from where ``match`` lets packets go: the other half of bimap."""
    return Match(
        source=match.destination,
        destination=own,
        source_ports=match.destination_ports,
        destination_ports=match.source_ports,
        not_source=match.not_destination,
        extended=True,
    )


def first_and_last(net: Net) -> tuple[Address, Address]:
    """The ends of a network whose mask has no holes."""
    inverse = int(net.mask) ^ ((1 << net.mask.max_prefixlen) - 1)
    return net.address, type(net.address)(int(net.address) | inverse)
