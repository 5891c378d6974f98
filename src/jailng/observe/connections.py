"""The connections of a jail, out of the records of ``connectionprogram``: entries of its log."""

from __future__ import annotations

import ipaddress
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING

from jailng.observe import connectionprogram as program

if TYPE_CHECKING:
    from jailng.observe.chain import Fields

_INET = 2
_MOST = 16384  # connections that are remembered
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6", 132: "sctp", 136: "udplite", 262: "mptcp"}
_PORTS = (6, 17, 132, 136, 262)
_STREAMS = (6, 262)
# kind of record: kind of entry, direction
_NAMES = {
    program.CONNECT: ("connect", "out"),
    program.SEND: ("connect", "out"),
    program.CONNECTED: ("connected", "out"),
    program.FAILED: ("failed", "out"),
    program.ACCEPTED: ("accepted", "in"),
    program.CLOSED: ("closed", ""),
    program.LISTEN: ("listening", "in"),
    program.FLOW_IN: ("flow", "in"),
    program.FLOW_OUT: ("flow", "out"),
}
_FIRST = (program.CONNECT, program.SEND, program.ACCEPTED, program.LISTEN, program.FLOW_IN, program.FLOW_OUT)
_FLOWS = (program.FLOW_IN, program.FLOW_OUT)
_LAST = (program.CLOSED, program.FAILED)


def shown(packed: bytes, family: int) -> str:
    """An address of the kernel's: 16 bytes, of which IPv4 has the first four."""
    if family == _INET:
        return str(ipaddress.IPv4Address(packed[:4]))
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def place(address: str, port: int) -> str:
    """``192.0.2.1:22``, ``[2001:db8::1]:22``."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Connections:
    """What is known of the connections of one jail, of which ``base`` is the host's uid of its root."""

    def __init__(self, base: int) -> None:
        self._base = base
        self._known: OrderedDict[int, tuple[int, Fields]] = OrderedDict()  # by socket: since when, and what
        # Of those the ones that have ended, or of which no end is told.
        self._over: OrderedDict[int, None] = OrderedDict()

    def take(self, content: bytes) -> tuple[str, int, Fields] | None:
        """A record: the kind of entry, the time of CLOCK_BOOTTIME in nanoseconds, and what the entry has."""
        (
            when, kind, family, protocol, pid, uid, comm, remote, local, remote_port, local_port,
            socket, received, sent,
        ) = program.RECORD.unpack(content)  # fmt: skip
        name, direction = _NAMES[kind]
        begun, known = (when, {}) if kind in _FIRST else self._known.get(socket, (when, {}))
        fields: Fields = {"protocol": _PROTOCOLS.get(protocol, str(protocol))}
        if direction or "direction" in known:
            fields["direction"] = direction or known["direction"]
        # The later parts of a packet have none.
        ported = protocol in _PORTS and (remote_port or local_port or kind not in _FLOWS)
        if kind != program.LISTEN:
            address = shown(remote, family)
            fields["remote"] = place(address, _port(kind, remote_port)) if ported else address
        if kind not in (program.CONNECT, program.SEND):
            address = shown(local, family)
            port = local_port if kind not in _FLOWS else _swapped(local_port)
            fields["local"] = place(address, port) if ported else address
        if kind in (program.CONNECT, program.SEND):
            known = {"host_pid": pid, "host_uid": uid, "uid": uid - self._base, "comm": _text(comm)}
            fields |= known
        elif "host_pid" in known:
            fields |= {name: value for name, value in known.items() if name != "direction"}
        if socket:
            fields["connection"] = f"{begun:x}"
            self._remember(kind, protocol, socket, begun, {**known, "direction": fields.get("direction", "")})
        if kind == program.CLOSED:
            fields |= {"received": received, "sent": sent, "seconds": (when - begun) // 10**6 / 1000}
        return name, when, fields

    def known(self, socket: int) -> tuple[int, bool] | None:
        """When the connection of a socket began, and whether it was accepted, not asked for; None: it is not known."""
        found = self._known.get(socket)
        return None if found is None else (found[0], found[1].get("direction") == "in")

    def _remember(self, kind: int, protocol: int, socket: int, begun: int, known: Fields) -> None:
        if kind == program.LISTEN:
            return
        self._known[socket] = (begun, known)
        if kind in _LAST or protocol not in _STREAMS:
            self._over[socket] = None
        elif kind in _FIRST:
            self._over.pop(socket, None)
        if len(self._known) > _MOST:  # who makes thousands is not to lose that by which he has come in
            oldest, _ = (self._over or self._known).popitem(last=False)
            self._known.pop(oldest, None)


def _text(name: bytes) -> str:
    return name.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _port(kind: int, raw: int) -> int:
    """The other end's, of which the kernel has the bytes as they are on the wire: the low half, or all of a word."""
    if kind in (program.CONNECT, program.SEND, program.FLOW_IN, program.FLOW_OUT):
        return _swapped(raw)
    return int.from_bytes(raw.to_bytes(4, sys.byteorder), "big") & 0xFFFF


def _swapped(raw: int) -> int:
    return int.from_bytes((raw & 0xFFFF).to_bytes(2, sys.byteorder), "big")
