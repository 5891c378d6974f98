"""What stands on the left of ``->``, in nf_tables' words."""

from __future__ import annotations

import operator

import pytest

from jailng.nat.condition import Family, Hook, Never, Refused, conditions, interface, ports, takes_port
from jailng.nat.parse import parse
from jailng.nat.rule import Map, Ports, Rdr

_SIGNS = {"!=": operator.ne, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}


def is_taken(text: str, port: int) -> bool:
    """What nft(8) makes of a condition on ports: ``th dport [SIGN] LOW[-HIGH]``."""
    what, side, *sign, number = text.split()
    assert (what, side) == ("th", "dport")
    low, dash, high = number.partition("-")
    if dash:
        assert int(low) < int(high), "nft(8) takes no other range"
        return (int(low) <= port <= int(high)) is not (sign == ["!="])
    return _SIGNS[sign[0]](port, int(low)) if sign else port == int(low)


@pytest.mark.parametrize("sign", ["=", "!=", "<", ">", "<=", ">=", "<>", "><", ":"])
def test_a_packet_s_port_is_judged_alike_here_and_in_the_kernel(sign: str) -> None:
    for low in range(5, 9):
        for high in range(low, 9) if sign in ("<>", "><", ":") else [low]:
            wanted = Ports(sign, low, high)  # type: ignore[arg-type]
            try:
                (condition,) = ports("dport", wanted)
            except Never:
                assert not any(takes_port(wanted, port) for port in range(20))
                continue
            assert [takes_port(wanted, port) for port in range(20)] == [is_taken(condition.text, n) for n in range(20)]
    assert takes_port(Ports("<>", 5, 7), 4) and takes_port(Ports("><", 5, 7), 6) and takes_port(None, 4)


def words(text: str, hook: Hook) -> str:
    (rule,) = parse("f", text.encode()).rules
    assert isinstance(rule, Map | Rdr)
    protocols = rule.protocols if text.endswith("udp") else ()
    return ", ".join([one.text for one in conditions(Family(rule.family), hook, rule.match, protocols)])


@pytest.mark.parametrize(
    ("text", "hook", "expected"),
    [
        ("map a 0/0 -> 0/32", "postrouting", ""),
        ("map a 10.0.0.0/8 -> 0/32", "postrouting", "ip saddr 10.0.0.0/8"),
        ("map a 10.0.0.1 -> 0/32 tcp/udp", "postrouting", "meta l4proto { tcp, udp }, ip saddr 10.0.0.1"),
        ("map a 10.0.0.0/255.0.255.0 -> 0/32", "postrouting", "ip saddr & 255.0.255.0 == 10.0.0.0"),
        ("map a 0/32 -> 192.0.2.1", "postrouting", "fib saddr . oif type local"),
        ("map a 2001:db8::/64 -> 2001:db8::1 udp", "postrouting", "meta l4proto udp, ip6 saddr 2001:db8::/64"),
        (
            "map a from 10.0.0.0/8 port > 1024 to 192.0.2.1 port = 80 -> 0/32",
            "postrouting",
            "meta l4proto { tcp, udp }, ip saddr 10.0.0.0/8, ip daddr 192.0.2.1, th sport > 1024, th dport 80",
        ),
        ("map a from any ! to 192.0.2.0/24 -> 0/32", "postrouting", "ip daddr != 192.0.2.0/24"),
        ("map a from any ! to 192.0.2.1 -> 0/32", "postrouting", "ip daddr != 192.0.2.1"),
        ("map a from any ! to 192.0.0.0/255.0.255.0 -> 0/32", "postrouting", "ip daddr & 255.0.255.0 != 192.0.0.0"),
        ("map a from any ! to 0/32 -> 0/32", "postrouting", "fib daddr type != local"),
        (
            "rdr a 0/32 port 80 -> 10.0.0.1",
            "prerouting",
            "meta l4proto { tcp, udp }, fib daddr . iif type local, th dport 80",
        ),
        ("rdr a 0/32 port 80-90 -> 10.0.0.1 udp", "output", "meta l4proto udp, fib daddr type local, th dport 80-90"),
        ("rdr a ! from 10.0.0.0/8 to any -> 10.0.0.1", "prerouting", "ip saddr != 10.0.0.0/8"),
    ],
)
def test_which_packets(text: str, hook: Hook, expected: str) -> None:
    assert words(text, hook) == expected


@pytest.mark.parametrize(
    ("hook", "name", "expected"),
    [
        ("prerouting", "ep0", [['iifname "ep0"']]),
        ("postrouting", "ep0", [['oifname "ep0"']]),
        ("sending", "ep0", [['oifname "ep0"']]),
        ("leaving", "ep0", [['fib daddr oifname "ep0"']]),
        ("output", "ep0", []),
        ("prerouting", "*", [[]]),
        ("leaving", "*", [["fib daddr type != local"]]),
        ("leaving", "lo0", []),
        ("output", "*", [['oifname { "lo", "jng*" }']]),
        ("output", "lo0", [['oifname { "lo", "jng*" }']]),
        ("postrouting", "lo0", [['oifname { "lo", "jng*" }']]),
        (
            "prerouting",
            "lo0",
            [['iifname "jng*"', "fib daddr type local"], ['iifname "jng*"', 'fib daddr oifname "jng*"']],
        ),
    ],
)
def test_which_interface(hook: Hook, name: str, expected: list[list[str]]) -> None:
    assert [[one.text for one in found] for found in interface(hook, name)] == expected


@pytest.mark.parametrize("name", ['ep0"', "a b", "x" * 16, "é"])
def test_what_is_no_interface(name: str) -> None:
    with pytest.raises(Refused, match="not the name of an interface"):
        interface("prerouting", name)


def test_nobody() -> None:
    (rule,) = parse("f", b"map a from any ! to any -> 0/32").rules
    with pytest.raises(Never):
        conditions(Family(4), "postrouting", rule.match, ())
