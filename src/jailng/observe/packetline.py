"""A packet in a line, much as tcpdump(1) has it, and as an object of JSON's. Nothing in it is a guest's own words.

Whoever wants more of a packet than who sends what to whom gets it from tcpdump or tshark, which read the same stream.
"""

from __future__ import annotations

import struct
import time
from socket import AF_INET, AF_INET6, inet_ntop
from typing import TYPE_CHECKING, Any

from jailng.observe import pcapng
from jailng.params.values import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.observe.pcapng import Packet

_WAYS = {pcapng.IN: "In", pcapng.OUT: "Out"}
_TAGS = (0x8100, 0x88A8)
_LONGEST = 1500  # up to that what stands in the place of the type is a length (IEEE 802.3): LLC, spanning trees
_MOST_TAGS = 8  # a frame may have nothing but tags, sixteen thousand of them
_FLAGS = "FSRP.UEW"  # FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, as tcpdump writes them
_FRAGMENT = 44
_BEFORE = {0: "hop-by-hop", 43: "routing", 60: "destination"}  # extension headers of one form
_ECHO = {1: (8, 0), 58: (128, 129)}
_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}


class Told:
    """What is known of a packet: ``fields`` for JSON, ``text`` for a line."""

    __slots__ = ("fields", "text")

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.text = ""


def line(packet: Packet) -> str:
    """A packet as a line: when, where, which way, and what."""
    seconds, rest = divmod(packet.time, 1_000_000_000)
    clock = time.strftime("%H:%M:%S", time.localtime(seconds))
    way = _WAYS.get(packet.direction, "-")
    return f"{clock}.{rest // 1000:06} {visible(packet.interface.name)} {way} {told(packet).text}"


def fields(packet: Packet) -> dict[str, Any]:
    """A packet as an object: times in nanoseconds since 1970, lengths in bytes."""
    way = _WAYS.get(packet.direction)
    return {
        "time": packet.time,
        "interface": packet.interface.name,
        "direction": way.lower() if way else None,
        "length": packet.length,
        "captured": len(packet.data),
        **told(packet).fields,
    }


def told(packet: Packet) -> Told:
    """What is known of a packet by its headers, however much of them there is, and whatever they say."""
    made = Told()
    try:
        _frame(packet.data, packet.length, made)
    except (struct.error, IndexError):
        made.text += f"{' ' if made.text else ''}[cut short]"
    except ValueError:
        made.text += "[malformed]"
    return made


def _frame(data: bytes, length: int, made: Told) -> None:
    (kind,) = struct.unpack_from("!H", data, 12)
    at = 14
    while kind in _TAGS and at < 14 + 4 * _MOST_TAGS:
        tag, kind = struct.unpack_from("!HH", data, at)
        made.fields.setdefault("vlan", []).append(tag & 0xFFF)
        made.text += f"vlan {tag & 0xFFF}, "
        at += 4
    if kind == 0x0800:
        _ip4(data[at:], made)
    elif kind == 0x86DD:
        _ip6(data[at:], made)
    elif kind == 0x0806:
        _arp(data[at:], made)
    elif kind <= _LONGEST:
        made.fields["protocol"] = "802.3"
        made.text += f"802.3, length {length}"
    else:
        made.fields["protocol"] = f"ethertype 0x{kind:04x}"
        made.text += f"ethertype 0x{kind:04x}, length {length}"


def _arp(data: bytes, made: Told) -> None:
    operation, source, target = struct.unpack_from("!6xH6x4s6x4s", data)
    sender, asked = inet_ntop(AF_INET, source), inet_ntop(AF_INET, target)
    made.fields.update(protocol="arp", source=sender, destination=asked)
    mac = ":".join(f"{byte:02x}" for byte in data[8:14])
    if operation == 1:
        made.text += f"ARP, Request who-has {asked} tell {sender}"
    elif operation == 2:
        made.text += f"ARP, Reply {sender} is-at {mac}"
    else:
        made.text += f"ARP, operation {operation}"


def _ip4(data: bytes, made: Told) -> None:
    first, total, fragment, protocol, source, target = struct.unpack_from("!BxHxxHxB2x4s4s", data)
    head = (first & 15) * 4
    if first >> 4 != 4 or head < 20:
        raise ValueError
    total = total or len(data)  # what is to be cut up by the card may be longer than the field can say
    ends = inet_ntop(AF_INET, source), inet_ntop(AF_INET, target)
    offset = (fragment & 0x1FFF) * 8
    _transport(data[head:], protocol, total - head, ends, "IP", offset if fragment & 0x3FFF else -1, made)


def _ip6(data: bytes, made: Told) -> None:
    length, protocol, source, target = struct.unpack_from("!4xHBx16s16s", data)
    ends = inet_ntop(AF_INET6, source), inet_ntop(AF_INET6, target)
    at, offset = 40, -1
    length = length or len(data) - 40
    while protocol in _BEFORE or protocol == _FRAGMENT:
        following, size = struct.unpack_from("!BB", data, at)
        if protocol == _FRAGMENT:
            offset = struct.unpack_from("!H", data, at + 2)[0] & 0xFFF8
            size = 0
        protocol = following
        at += (size + 1) * 8
    _transport(data[at:], protocol, length - (at - 40), ends, "IP6", offset, made)


def _transport(
    data: bytes, protocol: int, length: int, ends: tuple[str, str], version: str, fragment: int, made: Told
) -> None:
    name = _NAMES.get(protocol, f"ip-proto-{protocol}")
    made.fields.update(protocol=name, source=ends[0], destination=ends[1])
    if fragment >= 0:
        made.fields["fragment"] = fragment
    if fragment > 0 or protocol not in _SHOWN:
        more = f", fragment at {fragment}" if fragment > 0 else ""
        made.text += f"{version} {ends[0]} > {ends[1]}: {name}{more}, length {length}"
        return
    before = made.text
    made.text += f"{version} {ends[0]} > {ends[1]}: {name}"  # should there be no more of it
    text = _SHOWN[protocol](data, length, made.fields)
    if "source_port" in made.fields:
        ends = f"{ends[0]}.{made.fields['source_port']}", f"{ends[1]}.{made.fields['destination_port']}"
    more = " [fragmented]" if fragment == 0 else ""
    made.text = f"{before}{version} {ends[0]} > {ends[1]}: {text}{more}"


def _tcp(data: bytes, length: int, fields: dict[str, Any]) -> str:
    source, target, sequence, acknowledged, offset, bits, window = struct.unpack_from("!HHIIBBH", data)
    flags = "".join([letter for place, letter in enumerate(_FLAGS) if bits >> place & 1]) or "none"
    payload = max(length - (offset >> 4) * 4, 0)
    fields.update(source_port=source, destination_port=target, flags=flags, payload=payload)
    words = [f"Flags [{flags}]", f"seq {sequence}:{sequence + payload & 0xFFFFFFFF}" if payload else f"seq {sequence}"]
    if bits & 16:
        words.append(f"ack {acknowledged}")
    return ", ".join([*words, f"win {window}", f"length {payload}"])


def _udp(data: bytes, length: int, fields: dict[str, Any]) -> str:
    source, target = struct.unpack_from("!HH", data)
    payload = max(length - 8, 0)
    fields.update(source_port=source, destination_port=target, payload=payload)
    return f"UDP, length {payload}"


def _icmp(protocol: int) -> Callable[[bytes, int, dict[str, Any]], str]:
    asks, answers = _ECHO[protocol]
    name = "ICMP" if protocol == 1 else "ICMP6"

    def shown(data: bytes, length: int, fields: dict[str, Any]) -> str:
        kind, code = struct.unpack_from("!BB", data)
        fields.update(type=kind, code=code)
        if kind not in (asks, answers):
            return f"{name} type {kind} code {code}, length {length}"
        identity, sequence = struct.unpack_from("!HH", data, 4)
        way = "request" if kind == asks else "reply"
        return f"{name} echo {way}, id {identity}, seq {sequence}, length {length}"

    return shown


_SHOWN = {1: _icmp(1), 6: _tcp, 17: _udp, 58: _icmp(58)}
