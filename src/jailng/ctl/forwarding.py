"""Whether the host's firewall lets the packets of jails through: it is tried, with one packet that does not get far.

It is sent from a jail's own address, in its network namespace, to somewhere on the host's way to the world. A table of
ours counts it when it comes to the forward hook, before all others, and takes it away behind all others. If it does not
get there, somebody between has dropped it: who could have, his rules tell.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from jailng.core import attach, policy
from jailng.ctl.diagnosis import Finding, Jails, Networked
from jailng.errors import JailError
from jailng.linux import ns
from jailng.linux.libnftables import Library
from jailng.linux.visit import InNamespace

_TABLE = "jailng_doctor"
_ELSEWHERE = {4: "192.0.0.8", 6: "100::1"}  # nobody's: core/link.py
_NAMES = {4: "IPv4", 6: "IPv6"}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def check(jails: Jails) -> Iterator[Finding]:
    """Whether they come from one jail of each of the host's interfaces to the world, and if not, how to let them."""
    library = Library()
    tried: set[tuple[int, str]] = set()
    for jail in jails.running:
        if jail.policed and policy.of(jail.record).is_judged:
            continue  # what leaves it is decided by ng.egress
        for way in jail.ways:
            for interface, address in way.carried:
                family = 6 if ":" in address else 4
                if not interface or (family, interface) in tried:
                    continue
                tried.add((family, interface))
                reached, passed = _probe(library, jail, way.link, address, family)
                if reached and not passed:
                    yield _dropped(library, jail, family, interface)
    if not tried:
        yield from _suspected(library)


def _probe(library: Library, jail: Networked, link: str, address: str, family: int) -> tuple[bool, bool]:
    """Whether a packet of the jail came to the host's forward hook, and whether it came through."""
    ours = f'iifname "{link}" ip{"6" if family == 6 else ""} daddr {_ELSEWHERE[family]} udp dport 9'
    hook = "type filter hook forward priority"
    try:
        library.run(
            f"add table inet {_TABLE}; delete table inet {_TABLE}; table inet {_TABLE} {{\n"
            f"chain before {{ {hook} -2147483648; {ours} counter; }}\n"
            f"chain behind {{ {hook} 2147483647; {ours} counter drop; }}\n}}"
        )
        _send(jail, address, family)
        counted = {
            rule["chain"]: expression["counter"]["packets"]
            for entry in library.ask(f"list table inet {_TABLE}")
            if (rule := entry.get("rule"))
            for expression in rule["expr"]
            if "counter" in expression
        }
    finally:
        library.run(f"add table inet {_TABLE}; delete table inet {_TABLE}")
    return counted["before"] > 0, counted["behind"] > 0


def _send(jail: Networked, address: str, family: int) -> None:
    """One datagram from the jail's address. What keeps it from being sent is for other checks to find."""
    try:
        init = attach.open_init(jail.record)
    except JailError:
        return  # it has ended meanwhile
    try:
        with (
            InNamespace(init, ns.CLONE_NEWNET),
            suppress(OSError),
            socket.socket(_FAMILIES[family], socket.SOCK_DGRAM) as made,
        ):
            made.bind((address, 0))
            made.sendto(b"", (_ELSEWHERE[family], 9))
    except ProcessLookupError:
        pass  # likewise
    finally:
        os.close(init)


def _dropped(library: Library, jail: Networked, family: int, interface: str) -> Finding:
    found = [chain for chain in chains(library, family) if chain.drops]
    who = " or ".join([chain.text for chain in found]) or "no rule that nft list ruleset shows"
    return Finding(
        f"{_NAMES[family]} packets of jails are dropped on their way to {interface} (tried with jail "
        f'"{jail.name}"), by {who}',
        tuple(line for chain in found for line in chain.remedy),
    )


def _suspected(library: Library) -> Iterator[Finding]:
    """Without a jail to try it with: what will drop them, for no rule is known that would spare them."""
    for family in (4, 6):
        for chain in chains(library, family):
            if chain.policy and not chain.spares:
                yield Finding(
                    f"{_NAMES[family]} packets of jails to come will be dropped by {chain.text}",
                    chain.remedy,
                    wrong=False,
                )


class Chain:
    """A base chain that is not ours.

    ``policy`` is whether it drops what no rule of it is about, ``drops`` whether it, or what it jumps to, drops
    anything; ``spares`` whether a rule of them is about jails' interfaces.
    """

    def __init__(self, chain: dict[str, Any], rules: list[dict[str, Any]], others: set[tuple[str, str]]) -> None:
        self.family, self.table, self.name = chain["family"], chain["table"], chain["name"]
        self.policy = chain.get("policy") == "drop"
        mine = _reached(
            self.name, [rule for rule in rules if (rule["family"], rule["table"]) == (self.family, self.table)]
        )
        text = [str(rule["expr"]) for rule in mine]
        self.drops = self.policy or any(word in one for one in text for word in ("'drop'", "'reject'", "'REJECT'"))
        self.spares = any("jng" in one and "'accept'" in one for one in text)
        self.others = others

    @property
    def text(self) -> str:
        """Which it is, in words."""
        what = ", whose policy is drop" if self.policy else ""
        return f"chain {self.name} of table {self.family} {self.table}{what}"

    @property
    def remedy(self) -> tuple[str, ...]:
        """The commands that let jails' packets through, in the language of whoever made the chain."""
        tool = {"ip": "iptables", "ip6": "ip6tables"}.get(self.family)
        if self.table == "firewalld":
            return (
                "firewall-cmd --permanent --zone=trusted --add-interface=jng+",
                "firewall-cmd --permanent --new-policy=to-jails",
                "firewall-cmd --permanent --policy=to-jails --add-ingress-zone=ANY",
                "firewall-cmd --permanent --policy=to-jails --add-egress-zone=trusted",
                "firewall-cmd --permanent --policy=to-jails --set-target=ACCEPT",
                "firewall-cmd --reload",
            )
        if tool and any(family == self.family and name.startswith("ufw") for family, name in self.others):
            return ("ufw route allow in on jng+", "ufw route allow out on jng+")
        if tool and self.table == "filter":
            where = "DOCKER-USER" if (self.family, "DOCKER-USER") in self.others else self.name
            return (f"{tool} -I {where} -i jng+ -j ACCEPT", f"{tool} -I {where} -o jng+ -j ACCEPT")
        rule = f"nft insert rule {self.family} {self.table} {self.name}"
        return (f"{rule} iifname 'jng*' accept", f"{rule} oifname 'jng*' accept")


def _reached(chain: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rules of a chain, and of those that it jumps to."""
    seen, waiting = {chain}, [chain]
    found: list[dict[str, Any]] = []
    while waiting:
        here = waiting.pop()
        for rule in rules:
            if rule["chain"] != here:
                continue
            found.append(rule)
            for expression in rule["expr"]:
                for kind in ("jump", "goto"):
                    target = expression.get(kind, {}).get("target") if isinstance(expression, dict) else None
                    if target and target not in seen:
                        seen.add(target)
                        waiting.append(target)
    return found


def chains(library: Library, family: int, hook: str = "forward") -> list[Chain]:
    """The base chains at a hook that see packets of family 4 or 6 and are not ours. Raises JailError."""
    objects = library.ask("list ruleset")
    listed = [entry["chain"] for entry in objects if "chain" in entry]
    rules = [entry["rule"] for entry in objects if "rule" in entry]
    others = {(chain["family"], chain["name"]) for chain in listed}
    concerned = ("inet", "ip6" if family == 6 else "ip")
    return [
        Chain(chain, rules, others)
        for chain in listed
        if chain.get("hook") == hook and chain["family"] in concerned and not chain["table"].startswith("jailng")
    ]
