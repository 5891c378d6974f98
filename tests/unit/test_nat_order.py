"""Rules of ipnat(5) are tried by the length of a mask, and shown in the order of the file."""

from __future__ import annotations

from jailng.nat.order import arrives, inbound, leaves, outbound
from jailng.nat.parse import parse
from jailng.nat.printed import printed

# The example of ipnat(5), "RULE ORDERING", with the word port where the manual has forgotten it.
EXAMPLE = b"""
rdr le0 192.0.0.0/8 port 80 -> 127.0.0.1 port 3132 tcp
rdr le0 192.2.0.0/16 port 80 -> 127.0.0.1 port 3131 tcp
rdr le0 from any to pool/100 port = 80 -> 127.0.0.1 port 3130 tcp
rdr le0 192.2.2.0/24 port 80 -> 127.0.0.1 port 3129 tcp
rdr le0 192.2.2.1 port 80 -> 127.0.0.1 port 3128 tcp
"""


def test_the_longest_mask_is_first() -> None:
    rules = parse("f", EXAMPLE).rules
    assert [getattr(rule, "port", 0) for rule in rules] == [3132, 3131, 3130, 3129, 3128]
    assert [getattr(rule, "port", 0) for rule in inbound(rules)] == [3128, 3129, 3131, 3132, 3130]
    assert outbound(rules) == []


def test_of_masks_as_long_the_order_is_that_of_the_file() -> None:
    rules = parse("f", b"map a 10.0.0.0/8 -> 1.1.1.1 map a 0/0 -> 1.1.1.2 map a 11.0.0.0/8 -> 1.1.1.3").rules
    assert outbound(rules) == [rules[0], rules[2], rules[1]]
    assert outbound(reversed(rules)) == [rules[2], rules[0], rules[1]]


def test_each_kind_is_where_it_works() -> None:
    text = b"""
    map a 10.0.0.1 -> 1.1.1.1
    bimap a 10.0.0.0/24 -> 1.1.0.0/16
    map-block a 10.0.0.0/16 -> 1.1.1.0/24 ports auto
    rdr a 1.1.1.1 -> 10.0.0.1
    no map a 10.0.0.0/20;
    no bimap a 10.0.0.0/28;
    no rdr a 1.1.1.0/24;
    rewrite in on a from any to 1.1.1.0/28 -> src 0/0 dst 10.0.0.1;
    rewrite out on a from 10.0.0.0/12 to any -> src 1.1.1.1 dst 0/0;
    divert in on a from any to 1.1.1.0/20 -> src 1.1.1.1,1 dst 1.1.1.2,2 udp;
    encap out on a from any to any -> src 1.1.1.1 dst 1.1.1.2;
    """
    rules = parse("f", text).rules
    words = [printed(rule).partition(" a ")[0] for rule in rules]

    def shown(some: list[object]) -> list[str]:
        return [words[next(at for at, rule in enumerate(rules) if rule is one)] for one in some]

    assert shown([*outbound(rules)]) == [
        *("map", "no bimap", "bimap", "no map", "map-block", "rewrite out on", "encap out on"),
    ]
    assert shown([*inbound(rules)]) == ["rdr", "rewrite in on", "no rdr", "divert in on", "bimap", "no bimap"]
    assert all(leaves(rule) or arrives(rule) for rule in rules)


def test_a_mask_with_holes_counts_by_its_bits() -> None:
    rules = parse("f", b"map a 10.0.0.0/12 -> 0/32 map a 10.0.0.0/0xff00ff00 -> 0/32 map a 10.0.0.0/20 -> 0/32").rules
    assert outbound(rules) == [rules[2], rules[1], rules[0]]
