"""Connection tracking by netlink, as it stands in the messages: to pick entries out and to delete them.

linux/conntrack.py makes of them what a reader wants to know; numbers are those of the kernel's
linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

from _struct import pack

from jailng.linux.netlink import NLM_F_DUMP, attribute, attributes, nested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from jailng.linux.netlink import Message, Netlink

    Entry = dict[int, bytes]  # attributes by kind

NEW, GET, DELETE = 0x100, 0x101, 0x102
ORIGINAL, REPLY, ID, ZONE = 1, 2, 12, 18  # attributes
_IP, _PROTOCOL = 1, 2  # of a tuple
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3  # of its protocol
_FILTER, _BY_SOURCE, _BY_PROTOCOL, _BY_DESTINATION_PORT = 25, 1, 8, 32
_UDP = 17
_SOURCES = {4: 1, 16: 3}  # among a tuple's addresses, by their length; the destination is the next
_FAMILIES = {4: 2, 16: 10}
_ENOENT = 2
_AT_ONCE = 128  # messages of one datagram: a socket's buffer takes a multiple of that


def of_source(netlink: Netlink, address: bytes, answering: bool) -> Iterator[Entry]:
    """Those that an address, in network order, has begun; or, if ``answering``, in which it is who answers.

    The kernel picks them out (Linux 5.8). Raises OSError.
    """
    side = REPLY if answering else ORIGINAL
    wanted = nested(side, nested(_IP, attribute(_SOURCES[len(address)], address)))
    return _picked_out(netlink, _FAMILIES[len(address)], side, wanted, _BY_SOURCE)


def of_datagrams(netlink: Netlink, family: int, port: int) -> Iterator[Entry]:
    """Those of UDP that were begun with that port, 0 for any; of IPv4 (4) or IPv6. Raises OSError."""
    parts = [attribute(_NUMBER, bytes([_UDP]))]
    parts += [attribute(_DESTINATION_PORT, port.to_bytes(2, "big"))] if port else []
    by = _BY_PROTOCOL | (_BY_DESTINATION_PORT if port else 0)
    return _picked_out(netlink, 2 if family == 4 else 10, ORIGINAL, nested(ORIGINAL, nested(_PROTOCOL, *parts)), by)


def _picked_out(netlink: Netlink, family: int, side: int, wanted: bytes, by: int) -> Iterator[Entry]:
    flags = [attribute(kind, pack("I", by if kind == side else 0)) for kind in (ORIGINAL, REPLY)]
    for kind, body in netlink.ask((GET, NLM_F_DUMP, bytes([family, 0, 0, 0]) + wanted + nested(_FILTER, *flags))):
        if kind == NEW:
            yield attributes(body, 4)


class Ends:
    """One direction of a connection, addresses in network order; ports are 0 where there are none, GRE's its keys."""

    __slots__ = ("destination", "destination_port", "protocol", "source", "source_port")

    def __init__(self, packed: bytes) -> None:
        found = attributes(packed)
        addresses, protocol = attributes(found[_IP]), attributes(found[_PROTOCOL])
        first = 1 if 1 in addresses else 3
        self.source, self.destination = addresses[first], addresses[first + 1]
        self.protocol = protocol[_NUMBER][0]
        self.source_port = int.from_bytes(protocol.get(_SOURCE_PORT, b""), "big")
        self.destination_port = int.from_bytes(protocol.get(_DESTINATION_PORT, b""), "big")


def forget(netlink: Netlink, gone: list[Entry]) -> None:
    """Delete entries; that one has ended by itself is no error. Raises OSError."""
    for at in range(0, len(gone), _AT_ONCE):
        netlink.batch([_deletion(entry) for entry in gone[at : at + _AT_ONCE]], ignored=(_ENOENT,))


def _deletion(entry: Entry) -> Message:
    # By its number too: what has taken its place meanwhile is another's.
    parts = [nested(ORIGINAL, entry[ORIGINAL])]
    parts += [attribute(kind, entry[kind]) for kind in (ID, ZONE) if entry.get(kind)]
    return DELETE, 0, bytes([_FAMILIES[len(Ends(entry[ORIGINAL]).source)], 0, 0, 0]) + b"".join(parts)
