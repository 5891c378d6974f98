"""What stands on the right of ``->``, in nf_tables' words."""

from __future__ import annotations

import pytest

from jailng.nat.condition import Family, Refused
from jailng.nat.dispatch import SEED
from jailng.nat.parse import parse
from jailng.nat.rule import Map, MapBlock, Net, Rdr, Rewrite
from jailng.nat.target import blocks, new_destination, new_source, rewritten, turned


def words(text: str) -> str:
    """Of bimap, there and back; of rewrite, both ends."""
    (rule,) = parse("f", text.encode()).rules
    family = Family(rule.family)
    if isinstance(rule, Rdr):
        return new_destination(family, rule)
    if isinstance(rule, Rewrite):
        return ", ".join([rewritten(family, "snat", rule), rewritten(family, "dnat", rule)])
    assert isinstance(rule, Map)
    if rule.kind == "map":
        return new_source(family, rule.target, rule.portmap)
    source = rule.match.source
    assert isinstance(source, Net) and isinstance(rule.target, Net)
    return f"{turned(family, 'snat', source, rule.target)}, {turned(family, 'dnat', rule.target, source)}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("map a 10.0.0.0/8 -> 0/32", "masquerade"),
        ("map a 10.0.0.0/8 -> 0/32 portmap tcp/udp 5000:65000", "masquerade to :5000-65000"),
        ("map a 10.0.0.0/8 -> 0/0", "accept"),
        ("map a 10.0.0.0/8 -> 0/0 portmap tcp auto", "snat to :1024-65535"),
        ("map a 10.0.0.0/8 -> 192.0.2.1 portmap tcp 5000:5000", "snat to 192.0.2.1:5000"),
        ("map a 10.0.0.0/8 -> 192.0.2.0/30", "snat to 192.0.2.0-192.0.2.3"),
        ("map a 10.0.0.0/8 -> range 192.0.2.5-192.0.2.9", "snat to 192.0.2.5-192.0.2.9"),
        ("map a 2001:db8::/64 -> 2001:db8:1::1 portmap tcp 5000:6000", "snat to [2001:db8:1::1]:5000-6000"),
        ("bimap a 10.0.0.1 -> 192.0.2.1", "snat to 192.0.2.1, dnat to 10.0.0.1"),
        ("bimap a 10.0.0.1 -> 0/32", "masquerade, dnat to 10.0.0.1"),
        (
            "bimap a 10.0.0.0/24 -> 192.0.2.0/24",
            (
                "snat ip prefix to ip saddr map { 10.0.0.0/24 : 192.0.2.0/24 }, "
                "dnat ip prefix to ip daddr map { 192.0.2.0/24 : 10.0.0.0/24 }"
            ),
        ),
        ("bimap a 10.0.0.1 -> 0/0", "accept, dnat to 10.0.0.1"),
        ("rdr a 0/0 port 80 -> 0/32 port 8080", "redirect to :8080"),
        ("rdr a from any to any -> 0/32", "redirect"),
        ("rdr a from any to any -> 0/0", "accept"),
        ("rdr a 192.0.2.1 port 80 -> 127.0.0.1 port 8080", "dnat ip to 127.0.0.1:8080"),
        ("rdr lo0 2001:db8::1/128 port 80 -> ::1 port 81", "dnat ip6 to [::1]:81"),
        ("rdr a 192.0.2.1 port 80 -> 10.0.0.1 port 90-95", "dnat ip to 10.0.0.1:90-95"),
        ("rdr a 192.0.2.1 port 80-80 -> 10.0.0.1 port 90-95", "dnat ip to 10.0.0.1:90-95"),
        (
            "rdr a 192.0.2.1 port 80-81 -> 10.0.0.1 port 65534",
            "dnat ip to 10.0.0.1:th dport map { 80 : 65534, 81 : 65535 }",
        ),
        (
            "rdr a 192.0.2.1 port 80 -> range 10.0.0.1-10.0.0.3 port 81",
            "dnat ip to numgen inc mod 3 map { 0 : 10.0.0.1, 1 : 10.0.0.2, 2 : 10.0.0.3 } : 81",
        ),
        (
            "rdr a 192.0.2.1 port 80 -> 10.0.0.1,10.0.0.5 port 81 tcp round-robin sticky",
            f"dnat ip to jhash ip saddr mod 2 seed {SEED:#x} map {{ 0 : 10.0.0.1, 1 : 10.0.0.5 }} : 81",
        ),
        ("rdr a 192.0.2.1 port 80 -> range 10.0.0.0-10.0.4.0 port 81", "dnat ip to 10.0.0.0-10.0.4.0:81"),
        ("rdr a 192.0.2.1 port 80 -> 10.0.0.1 port 8080 tcp", "dnat ip to 10.0.0.1:8080"),
        ("rdr a 2001:db8::1/128 port 80 -> 2001:db8::2 port 81", "dnat ip6 to [2001:db8::2]:81"),
        ("rdr a 192.0.2.1 port 80 -> 0/0 port 81", "dnat to :81"),
        ("rdr a 192.0.2.1 port 80-82 -> 10.0.0.1 port 80", "dnat ip to 10.0.0.1"),
        ("rdr a 192.0.2.1 port 80-82 -> 10.0.0.1 port = 90", "dnat ip to 10.0.0.1:90"),
        (
            "rdr a 192.0.2.1 port 80-82 -> 10.0.0.1 port 90",
            "dnat ip to 10.0.0.1:th dport map { 80 : 90, 81 : 91, 82 : 92 }",
        ),
        (
            "rdr a 192.0.2.1 port 80 -> 10.0.0.1,10.0.0.5 port 81",
            "dnat ip to numgen inc mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.5 } : 81",
        ),
        (
            "rdr a from any to 192.0.2.1 -> 10.0.0.1,10.0.0.5 tcp",
            "dnat ip to numgen inc mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.5 }",
        ),
        ("rewrite in on a from any to any -> src 0/0 dst 10.0.0.1;", "accept, dnat to 10.0.0.1"),
        ("rewrite out on a from any to any -> src 0/32 dst 0/0;", "masquerade, accept"),
        (
            "rewrite in on a proto tcp from any to any -> src 192.0.2.1,port = 9 dst 0/32,80-81;",
            "snat to 192.0.2.1:9, redirect to :80-81",
        ),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rdr a 2001:db8::1/128 port 80 -> 0/32 port 81", "rdr: an address or a range of addresses, no network"),
        ("rdr a 192.0.2.1 port 80-82 -> 10.0.0.1 port 65534", "port 65534: the last of 3 would be above 65535"),
        ("rdr a 2001:db8::1/128 port 80 -> ::1 port 81", "::1: Linux leads nothing from the network to a loopback"),
        ("rewrite in on a from any to any -> src 0/0 dst ::1;", "::1: Linux leads nothing from the network"),
        ("rewrite in on a from any to any -> src 0/0 dst dstlist/x;", "dstlist/x: there is no ippool"),
        ("map a 10.0.0.0/8 -> 192.0.2.0/255.0.255.0", "255.0.255.0: a mask with holes"),
        ("rewrite in on a from any to any -> src 0/32 dst 10.0.0.1;", "rewrite in: Linux does not know the interface"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(Refused, match=f"^{why}"):
        words(text)


@pytest.mark.parametrize(
    ("text", "each", "shared"),
    [
        (
            "map-block a 10.0.0.0/30 -> 192.0.2.0/31 ports 256",
            [
                "10.0.0.0 : 192.0.2.0-192.0.2.0 . 1024-1279",
                "10.0.0.1 : 192.0.2.0-192.0.2.0 . 1280-1535",
                "10.0.0.2 : 192.0.2.1-192.0.2.1 . 1024-1279",
                "10.0.0.3 : 192.0.2.1-192.0.2.1 . 1280-1535",
            ],
            ["10.0.0.0/31 : 192.0.2.0", "10.0.0.2/31 : 192.0.2.1"],
        ),
        (
            "map-block a 10.0.0.0/31 -> 192.0.2.9 ports auto",
            ["10.0.0.0 : 192.0.2.9-192.0.2.9 . 1024-33279", "10.0.0.1 : 192.0.2.9-192.0.2.9 . 33280-65535"],
            ["10.0.0.0/31 : 192.0.2.9"],
        ),
        (
            "map-block a 10.0.0.4/31 -> 192.0.2.0/24 ports 64512",
            ["10.0.0.4 : 192.0.2.0-192.0.2.0 . 1024-65535", "10.0.0.5 : 192.0.2.1-192.0.2.1 . 1024-65535"],
            ["10.0.0.4/32 : 192.0.2.0", "10.0.0.5/32 : 192.0.2.1"],
        ),
    ],
)
def test_blocks_of_ports(text: str, each: list[str], shared: list[str]) -> None:
    (rule,) = parse("f", text.encode()).rules
    assert isinstance(rule, MapBlock) and isinstance(rule.match.source, Net)
    assert blocks(Family(4), rule, rule.match.source, rule.target) == (each, shared)


@pytest.mark.parametrize("ports", ["32257", "auto"])
def test_more_blocks_than_there_are_ports(ports: str) -> None:
    source = "10.0.0.0/31" if ports != "auto" else "10.0.0.0/16"
    (rule,) = parse("f", f"map-block a {source} -> 192.0.2.9 ports {ports}".encode()).rules
    assert isinstance(rule, MapBlock) and isinstance(rule.match.source, Net)
    with pytest.raises(Refused, match="are more than there are"):
        blocks(Family(4), rule, rule.match.source, rule.target)
