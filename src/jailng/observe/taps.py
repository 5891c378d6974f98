"""Where the packets of a jail are taken from, so that every one is seen and none who is inside sees it.

* An address jail, and an interface that was lent to a jail with vnet: at the host's end of the pair, by a packet
  socket. What is inside has no part in it.
* An interface that was lent and has no end on the host, and the loopback of a jail with a network of its own: in there,
  by BPF (TCX), since a socket would stand in the jail's /proc/net/packet.
* A jail on a stack that is not its own: what its sockets send and receive, by BPF on its cgroup.

A jail in a jail that has an address has it on a pair of its own, which is as good as one of the outer one's.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jailng.core import attach, registry
from jailng.errors import JailError
from jailng.linux import cgroup, interface, ns, packet, packetcopy
from jailng.linux.netlink import Netlink, attributes
from jailng.linux.visit import InNamespace
from jailng.observe import pcapng
from jailng.params.values import visible

if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.linux.packet import Frame

    Source = packet.Ring | packetcopy.Copies

RING, COPIES = 64 << 20, 8 << 20  # bytes of memory for what nobody has written down yet
_INNER = 4 << 20  # the same, of a jail in the jail, of which its root makes as many as children.max says
_LOOPBACK = 1
_ARPHRD_ETHER = 1
_MOMENT = 0.002  # seconds
_IFLA_LINK, _IFLA_NETNSID = 5, 37


@dataclass(frozen=True)
class Tap:
    """One place. ``outside`` is the host's end of a pair; else ``index`` a number inside; else it is the cgroup."""

    name: str
    description: str
    outside: str = ""
    index: int = 0
    bare: bool = False  # its packets have no header of Ethernet's
    inner: bool = False  # it is that of a jail in the jail

    def direction(self, frame: Frame) -> int:
        """Whether the jail has sent it or gets it: what the host's end sends comes in."""
        if self.index == _LOOPBACK:
            return pcapng.UNKNOWN
        return pcapng.IN if frame.outgoing == bool(self.outside) else pcapng.OUT


def survey(record: Record) -> list[Tap]:
    """The taps of a jail as it is now, asked in the network namespace that it was made in. Raises JailError, OSError.

    The names of interfaces that root inside has given are not looked at.
    """
    if record.shares_network or record.sockets:
        return [Tap("sockets", "what the jail's sockets send and receive on a stack that is not its own")]
    found = _ends(record)
    for inner in registry.below(record.name):
        if inner.alive():
            found += [tap for tap in _ends(inner, True) if tap not in found]  # two may have one address between them
    lent = [line.split(" ") for line in record.undo if line.startswith("vnet ")]
    init = attach.open_init(record)
    try:
        peers = _peers(init) if lent else {}
        for words in lent:
            number, name = int(words[3]), words[4]
            if number in peers:
                found.append(Tap(peers[number], f"{name}, at the host's end", peers[number]))
            elif (hardware := _kind(init, number)) is not None:
                found.append(Tap(name, f"{name}, inside", index=number, bare=hardware != _ARPHRD_ETHER))
    finally:
        os.close(init)
    return [*found, Tap("lo", "the jail's loopback", index=_LOOPBACK)]


def _ends(record: Record, inner: bool = False) -> list[Tap]:
    """The host's ends of the pairs by which a jail has its addresses."""
    found = []
    for line in record.undo:
        # addresses LINK INTERFACE|ADDRESS..., joined JID LINK INTERFACE|ADDRESS... (core/network.py)
        kind, *words = line.split(" ")
        if kind in ("addresses", "joined"):
            end, *carried = words[kind == "joined" :]
            inside = next((name for one in carried if (name := one.rpartition("|")[0])), "eth0")
            told = f"{inside} of a jail in it" if inner else inside
            found.append(Tap(end, f"{told}, at the host's end", end, inner=inner))
    return found


def _peers(init: int) -> dict[int, str]:
    """The interfaces here that are pairs with one of the jail's, by the number of that one in there."""
    found: dict[int, str] = {}
    with Netlink() as netlink:
        links = [body for _, body in netlink.ask(interface.everyone())]
        with InNamespace(init, ns.CLONE_NEWNET):
            there = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            known = interface.namespace(netlink.ask(interface.get_namespace(there))[0][1])
        finally:
            os.close(there)
    for body in links:
        parts = attributes(body, 16)
        if _IFLA_LINK in parts and _IFLA_NETNSID in parts:
            device = interface.Device.read(body)
            if device.kind == "veth" and _number(parts[_IFLA_NETNSID]) == known:
                found[_number(parts[_IFLA_LINK])] = device.name
    return found


def lapsed(record: Record, tap: Tap) -> bool:
    """Whether what is tapped is the host's again. Raises JailError, OSError."""
    if tap.outside:
        with Netlink() as netlink:
            try:
                body = netlink.ask(interface.get(name=tap.outside))[0][1]
            except OSError:
                return True
        return _IFLA_NETNSID not in attributes(body, 16)  # the other end is beside it
    if not tap.index or tap.index == _LOOPBACK:
        return False
    init = attach.open_init(record)
    try:
        return _kind(init, tap.index) is None
    finally:
        os.close(init)


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder, signed=True)


def _kind(init: int, number: int) -> int | None:
    """The ARPHRD_ of the interface of that number in there, None where there is none."""
    with InNamespace(init, ns.CLONE_NEWNET), Netlink() as netlink:
        try:
            body = netlink.ask(interface.get(number))[0][1]
        except OSError:
            return None
    return int.from_bytes(body[2:4], sys.byteorder)


def open_tap(record: Record, tap: Tap, program: bytes, most: int, room: int = RING) -> Source:
    """Begin to take packets there, in the network namespace of ``survey``. At a host's end ``program`` chooses them.

    ``most`` is how many bytes of a packet are wanted, ``room`` how much memory a ring has. Raises JailError.
    """
    try:
        if tap.outside:
            return packet.Ring(tap.outside, min(room, _INNER) if tap.inner else room, program)
        if tap.index:
            init = attach.open_init(record)
            try:
                with InNamespace(init, ns.CLONE_NEWNET):
                    return packetcopy.Copies(COPIES, most, tap.index, tap.index != _LOOPBACK, tap.bare)
            finally:
                os.close(init)
        directory = cgroup.open_directory(record.cgroup)
        try:
            return packetcopy.Copies(COPIES, most, cgroup=directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise JailError(f"{visible(tap.name)} ({visible(tap.description)}): {error.strerror}") from None


def open_all(record: Record, program: bytes, most: int, room: int = RING) -> tuple[dict[Tap, Source], list[str]]:
    """All taps of a jail, and what there is no way to tap: loopbacks, before Linux 6.6. Raises JailError, OSError.

    ``room`` is how much memory the rings have together.
    """
    found: dict[Tap, Source] = {}
    missed: list[str] = []
    taps = survey(record)
    rings = sum(bool(tap.outside) and not tap.inner for tap in taps)
    try:
        for tap in taps:
            try:
                found[tap] = open_tap(record, tap, program, most, room // max(rings, 1))
            except JailError as error:
                if tap.index != _LOOPBACK:
                    raise
                missed.append(str(error))
    except BaseException:
        for source in found.values():
            source.close()
        raise
    return found, missed


def wait(record: Record, seconds: float) -> None:
    """Wait, at most so long, until somebody takes packets of all that the jail has. Raises JailError, OSError."""
    until = time.monotonic() + seconds
    taps = survey(record)
    while not all(_is_open(record, tap) for tap in taps) and time.monotonic() < until:
        time.sleep(_MOMENT)


def _is_open(record: Record, tap: Tap) -> bool:
    if tap.outside:
        return packet.is_tapped(tap.outside)
    if not tap.index or tap.index == _LOOPBACK:
        return True
    init = attach.open_init(record)
    try:
        with InNamespace(init, ns.CLONE_NEWNET):
            return packetcopy.is_tapped(tap.index)
    finally:
        os.close(init)
