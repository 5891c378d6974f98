"""The rules of jails' networks as they stand on the host, and what of its firewall they pass by: ``jailctl doctor``."""

from __future__ import annotations

from collections.abc import Iterator

from jailng.core import policy, ruleset
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
                (f"{jail.again}   # or the start of any jail, where table inet jailng is gone, too",),
            )
    yield from _passed_by(jails.running)


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
