"""The rules of jails' networks as they stand on the host, and what of its firewall they pass by: ``jailctl doctor``."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from jailng.core import egress, policy, ruleset
from jailng.ctl.diagnosis import Finding, Jails, Networked, word
from jailng.ctl.forwarding import chains
from jailng.errors import JailError
from jailng.linux.libnftables import Library
from jailng.params import redirect
from jailng.params.redirect import Redirect
from jailng.params.rules import show_ports


def check(jails: Jails) -> Iterator[Finding]:
    """Whether ng.rdr and ng.egress are carried out; and whom the host's rules for input keep from a port in vain."""
    for jail in jails.running:
        if jail.policed and ruleset.lacking(policy.of(jail.record)):
            yield Finding(
                f'rules of jail "{jail.name}" are gone, as after nft flush ruleset: what leaves it is not judged, and '
                "nothing is led to it",
                (f"{_as_it_is(jail)}, and makes those of all jails anew where table inet jailng is gone, too",),
            )
    yield from _passed_by(jails.running)
    yield from _come_since(jails.running)


def _come_since(running: list[Networked]) -> Iterator[Finding]:
    """Networks that the host has come to be in, of which rules that say lan, or world, do not know."""
    meeting = [jail for jail in running if jail.policed and policy.of(jail.record).meets_neighbours]
    if not meeting:
        return
    jail = meeting[0]
    try:
        known = _known_neighbours()
    except JailError:
        return  # which the finding above is about
    for address, bits in ruleset.connected():
        network = ipaddress.ip_network((address, bits))
        version, low, high = _ends(str(network))
        if not any(version == one and first <= low and high <= last for one, first, last in known):
            yield Finding(
                f"the host is in {network} since rules with lan or world were last made: to ng.egress of jail "
                f'"{jail.name}" that is the world',
                (_as_it_is(jail),),
            )


def _as_it_is(jail: Networked) -> str:
    name = "ng.egress" if jail.record.params.get("ng.egress") else "ng.rdr"
    rules = f"{name}={jail.record.params.get(name, '')}"
    return f"jail -m {word(f'name={jail.name}')} {word(rules)}   # as it is"


def _known_neighbours() -> list[tuple[int, int, int]]:
    """What ``lan`` means. Raises JailError: there is no such set."""
    library = Library()
    listed = [library.ask(f"list set inet {egress.TABLE} {name}", elements=True) for name in ("lan4", "lan6")]
    sets = [entry["set"] for answer in listed for entry in answer if "set" in entry]
    return [_range(element) for one in sets for element in one.get("elem", [])]


def _range(element: Any) -> tuple[int, int, int]:
    """An element of a set of ranges, as libnftables-json(5) has it: version, first and last address."""
    if isinstance(element, str):
        return _ends(element)
    if "prefix" in element:
        return _ends(f"{element['prefix']['addr']}/{element['prefix']['len']}")
    first, last = [_ends(address) for address in element["range"]]
    return first[0], first[1], last[2]


def _ends(text: str) -> tuple[int, int, int]:
    network = ipaddress.ip_network(text)
    return network.version, int(network[0]), int(network[-1])


def _passed_by(running: list[Networked]) -> Iterator[Finding]:
    led = [(jail, rule) for jail in running for rule in redirect.read([jail.record.params.get("ng.rdr", "")])]
    open_to_all = [(jail, rule) for jail, rule in led if not rule.sources]
    if not open_to_all:
        return
    try:
        library = Library()
    except JailError:
        return
    found = {chain.text: chain for family in (4, 6) for chain in chains(library, family, "input") if chain.drops}
    if not found:
        return
    jail, rule = open_to_all[0]
    yield Finding(
        f'who may come by ng.rdr, as to jail "{jail.name}" by {rule.text}, is not asked of {" or ".join(found)}: '
        "what is led to a jail is forwarded, and not the host's input (jail(8), Redirects)",
        (
            f'jailctl rdr add {word(jail.name)} "{_from_somewhere(rule)}"   # and del the other: or, at forward,',
            f"nft add rule inet FILTER FORWARD {_was_called(rule)} drop   # in a table of yours",
        ),
        wrong=False,
    )


def _was_called(rule: Redirect) -> str:
    # nft of Debian 12 takes no port of an original direction where no protocol is named.
    protocols = rule.protocols[0] if len(rule.protocols) == 1 else f"'{{ {', '.join(rule.protocols)} }}'"
    return f"meta l4proto {protocols} ct original proto-dst {show_ports(rule.ports)}"


def _from_somewhere(rule: Redirect) -> str:
    words = rule.text.split(" ")
    place = 3 if rule.interface else 1
    return " ".join([*words[:place], "from NETWORK", *words[place:]])
