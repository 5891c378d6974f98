"""Connections that are older than a rule that is for them: of datagrams and the like, which have no beginning.

The kernel asks rules with what it takes for the first packet of a connection. Who sends from one port, or to one host
without ports, all the time goes on as he began, where IPFilter asks with every packet of which it knows no session. A
connection of TCP would break.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jailng.linux.conntrack import Connection, Tuple
from jailng.nat.condition import takes_port
from jailng.nat.rule import TCP, Address, Lookup, Map, MapBlock, Net, Range, Rdr, Rewrite, Rule, Split

_Places = Net | Range | Split | Lookup


def older(connections: Iterable[Connection], rules: Iterable[Rule]) -> Iterator[Connection]:
    """Those of these that nobody translates, and that begin as packets for one of the rules do."""
    wanted = [rule for rule in rules if isinstance(rule, (Map, MapBlock, Rdr, Rewrite))]
    for connection in connections:
        began = connection.original
        if began.protocol != TCP and _is_untouched(connection) and any(_is_for(began, rule) for rule in wanted):
            yield connection


def _is_untouched(connection: Connection) -> bool:
    there, back = connection.original, connection.reply
    return (there.source, there.source_port, there.destination, there.destination_port) == (
        back.destination,
        back.destination_port,
        back.source,
        back.source_port,
    )


def _is_for(began: Tuple, rule: Map | MapBlock | Rdr | Rewrite) -> bool:
    """The interface is left out, of which conntrack knows nothing."""
    if began.source.version != rule.family or (rule.protocols and began.protocol not in rule.protocols):
        return False
    if isinstance(rule, Map) and rule.kind == "bimap" and _is_in(began.destination, rule.target):
        return True
    match = rule.match
    return (
        _is_in(began.source, match.source) != match.not_source
        and _is_in(began.destination, match.destination) != match.not_destination
        and takes_port(match.source_ports, began.source_port)
        and takes_port(match.destination_ports, began.destination_port)
    )


def _is_in(address: Address, places: _Places) -> bool:
    if isinstance(places, Net):  # of the interface's own, nobody knows which that is
        return places.interface or int(address) & int(places.mask) == int(places.address)
    return isinstance(places, Range) and int(places.first) <= int(address) <= int(places.last)
