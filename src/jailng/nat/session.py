"""Sessions: the connections of this host that a rule of ours translates, as ``ipnat -l`` prints them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from jailng.linux.conntrack import Connection, Tuple
from jailng.nat import label
from jailng.nat.label import Mark

_WITH_PORTS = (6, 17)


@dataclass(frozen=True)
class Session:
    """One end of a connection, translated by the rule with that number; one that has both makes two sessions.

    ``related`` is what a proxy has let through: FTP's data connection.
    """

    side: label.Side
    mark: Mark
    connection: Connection
    related: bool = False


def sessions(connections: Iterable[Connection]) -> Iterator[Session]:
    """Ours of these. What others translate on this host has no label of ours."""
    waiting: list[Connection] = []
    masters: dict[Tuple, Connection] = {}
    for connection in connections:
        found = list(_of(connection))
        yield from found
        if found:
            masters[connection.original] = connection
        elif connection.master is not None:
            waiting.append(connection)
    for connection in waiting:
        # What was announced is translated as its master is, in either direction, and has no label itself.
        master = masters.get(connection.master) if connection.master else None
        if master is not None:
            yield from _related(connection, master)


def _of(connection: Connection) -> Iterator[Session]:
    for side in label.SIDES:
        mark = label.read(connection.label, side)
        if mark is not None:
            yield Session(side, mark, connection)


def _related(connection: Connection, master: Connection) -> Iterator[Session]:
    marks = [mark for side in label.SIDES if (mark := label.read(master.label, side)) is not None]
    there, back = connection.original, connection.reply
    if (there.destination, there.destination_port) != (back.source, back.source_port):
        yield Session("destination", Mark(marks[0].number, "RDR"), connection, related=True)
    if (there.source, there.source_port) != (back.destination, back.destination_port):
        yield Session("source", Mark(marks[-1].number, "MAP"), connection, related=True)


def printed(session: Session, verbose: bool = False) -> str:
    """The line that FreeBSD's ipnat prints: printactivenat.c of FreeBSD 12. With ``verbose`` two more."""
    there, back = session.connection.original, session.connection.reply
    number = there.protocol
    source, destination = (there.source, there.source_port), (there.destination, there.destination_port)
    new_source, new_destination = (back.destination, back.destination_port), (back.source, back.source_port)
    if session.mark.kind.startswith("RWR"):
        line = (
            f"{_padded(*source, number)} {_padded(*destination, number)}<- -> "
            f"{_padded(*new_source, number)} {_padded(*new_destination, number)}"
        )
    elif session.side == "source":
        line = f"{_padded(*source, number)} <- -> {_padded(*new_source, number)} [{_peer(*new_destination, number)}]"
    else:
        line = f"{_padded(*new_destination, number)} <- -> {_padded(*destination, number)} [{_peer(*source, number)}]"
    line = f"{session.mark.kind} {line}"
    if not verbose:
        return line
    entry = session.connection
    counted = f"bytes {entry.octets[0]}/{entry.octets[1]} pkts {entry.packets[0]}/{entry.packets[1]}"
    proxy = f"\n\tproxy {entry.helper}/{number}" if entry.helper else ""
    return f"{line}\n\tttl {entry.timeout} use {entry.use} pr {number}/{number}\n\t{counted}{proxy}"


def _padded(address: IPv4Address | IPv6Address, port: int, protocol: int) -> str:
    text = f"{address!s:<15}" if address.version == 4 else str(address)
    return f"{text} {port:<5}" if protocol in _WITH_PORTS else text


def _peer(address: IPv4Address | IPv6Address, port: int, protocol: int) -> str:
    return f"{address} {port}" if protocol in _WITH_PORTS else str(address)
