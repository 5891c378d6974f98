"""jailctl drops: packets that the host has not taken from jails: with forged senders, and for the host itself."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from jailng.core import firewall
from jailng.ctl import diagnosis, listing
from jailng.ctl.listing import Column
from jailng.errors import JailError
from jailng.linux.libnftables import Library
from jailng.procs import printed
from jailng.procs.jails import named

USAGE = "usage: jailctl drops [--json] [jail ...]"
_COLUMNS = [
    Column("jid", left=False, least=5),
    Column("forged", left=False),
    Column("denied", left=False),
    Column("name", "JAIL"),
]


@dataclass(frozen=True)
class Drops:
    """Packets of one jail: from an address that is not its own, and to the host itself. Of interfaces that it has."""

    jid: int
    name: str
    forged: int
    denied: int


def main(argv: list[str]) -> int:
    """Run; the exit status. Raises UsageError and JailError."""
    given, names = listing.options(argv, USAGE)
    wanted = {named(name, lambda jid: f"jail {jid} not found").jid for name in names}
    found, everybody = counted()
    shown = [one for one in found if not wanted or one.jid in wanted]
    written = listing.show("jails", _COLUMNS, [vars(one) for one in shown], "--json" in given, everybody)
    if names or "--json" in given:
        return written
    total = f"of all, also of those that are gone: {everybody['forged']} forged, {everybody['denied']} denied; "
    others = f"{everybody['unrouted']} of others, that the host would not have routed without jails"
    return written or printed.say([total + others])


def counted() -> tuple[list[Drops], dict[str, int]]:
    """Of each running jail with addresses, and of all since the table was made. Raises JailError."""
    forged, denied, totals = {}, {}, dict.fromkeys(("spoofed", "denied", "unrouted"), 0)
    for entry in _listed():
        if "set" in entry:
            elements = [element["elem"] for element in entry["set"].get("elem", []) if "elem" in element]
            packets = {str(one["val"]): int(one["counter"]["packets"]) for one in elements if "counter" in one}
            if entry["set"]["name"] == firewall.TALLIES[0]:
                forged = packets
            elif entry["set"]["name"] == firewall.TALLIES[1]:
                denied = packets
        elif "counter" in entry and entry["counter"]["name"] in totals:
            totals[entry["counter"]["name"]] = int(entry["counter"]["packets"])
    found = []
    for jail in diagnosis.jails().running:
        links = [way.link for way in jail.ways]
        sums = [sum([packets.get(link, 0) for link in links]) for packets in (forged, denied)]
        found.append(Drops(jail.record.jid, jail.name, *sums))
    return found, {"forged": totals["spoofed"], "denied": totals["denied"], "unrouted": totals["unrouted"]}


def _listed() -> list[dict[str, Any]]:
    try:
        return Library().ask(f"list table inet {firewall.TABLE}", elements=True)
    except JailError as error:
        if error.errno == errno.ENOENT:
            return []  # no jail with an address has been started
        raise
