"""The order in which rules are tried: the longest mask first, and by their order in the file where masks are as long.

IPFilter keeps a list of the rules for packets that leave, by the mask of their source, and one for packets that arrive,
by that of their destination (ipf_nat_addmap() and ipf_nat_addrdr() in ip_nat.c). A pool, and whatever else is no
network, is tried last. ``ipnat -l`` shows the rules as they were read, all the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from jailng.nat.rule import Lookup, Map, MapBlock, Net, No, Range, Rdr, Rule, Split


def outbound(rules: Iterable[Rule]) -> list[Rule]:
    """The rules that packets which leave may meet (map, bimap, map-block, ``out``, and the exceptions to them)."""
    return sorted([rule for rule in rules if leaves(rule)], key=lambda rule: -_length(rule.match.source))


def inbound(rules: Iterable[Rule]) -> list[Rule]:
    """The rules that packets which arrive may meet (rdr, bimap, ``in``, and the exceptions to them)."""
    return sorted([rule for rule in rules if arrives(rule)], key=lambda rule: -_length(_destination(rule)))


def leaves(rule: Rule) -> bool:
    """Whether a rule is for packets that leave."""
    if isinstance(rule, (Map, MapBlock)):
        return True
    if isinstance(rule, No):
        return rule.kind != "rdr"
    return not isinstance(rule, Rdr) and rule.direction == "out"


def arrives(rule: Rule) -> bool:
    """Whether a rule is for packets that arrive."""
    if isinstance(rule, (Map, No)):
        return rule.kind in ("bimap", "rdr")
    if isinstance(rule, MapBlock):
        return False
    return isinstance(rule, Rdr) or rule.direction == "in"


def _destination(rule: Rule) -> Net | Range | Split | Lookup:
    # What comes back to a bimap comes to the address that it maps to.
    return rule.target if isinstance(rule, Map) else rule.match.destination


def _length(given: Net | Range | Split | Lookup) -> int:
    """Bits of a mask; of one with holes, those that are set."""
    return int(given.mask).bit_count() if isinstance(given, Net) else 0
