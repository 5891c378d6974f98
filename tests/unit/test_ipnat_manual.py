"""ipnat.5: its displays are rules that Linux carries, and what it says Linux cannot carry is refused, by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jailng.errors import JailError
from jailng.nat.parse import parse
from jailng.nat.printed import printed
from jailng.nat.ruleset import compile_rules
from jailng.nat.translation import HELPERS, Loaded
from tests.unit.test_nat_examples import ACCEPTED

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "man/ipnat.5").read_text()
SOURCES = ("condition.py", "target.py", "translation.py")

# By the item of the manual: a rule, and what is said of it.
NEVER: dict[str, list[tuple[str, str]]] = {
    "divert , encap": [
        ("divert in on a from any to any -> src 192.0.2.1,1 dst 192.0.2.2,2 udp;", "divert: Linux has no such thing"),
        ("encap in on a from any to any -> src 192.0.2.1 dst 192.0.2.2;", "encap: Linux has no such thing"),
    ],
    "pool/ N , hash/ N , dstlist/ N": [
        ("map a from pool/100 to any -> 0/32", "pool/100: there is no ippool(8)"),
        ("map a from any to hash/x -> 0/32", "hash/x: there is no ippool(8)"),
        ("rewrite in on a from any to any -> src 0/0 dst dstlist/x;", "dstlist/x: there is no ippool(8)"),
    ],
    "tag NAME": [("map a 0/0 -> 0/32 tag lan1", "tag lan1: there is no ipf(8) to set it")],
    "proxy NAME": [
        *[
            (f"map a 0/0 -> 0/32 proxy port 1 {name}/tcp", f"proxy {name}: Linux has none")
            for name in ("rpcbind", "raudio", "dns", "ipsec", "netbios", "rcmd", "nosuch")
        ],
        (
            "map a 0/0 -> 0/32 proxy port 21 ftp/tcp config x",
            "proxy ftp: config x: Linux has nothing to configure",
        ),
        ("map a 0/0 -> 0/32 proxy port 69 tftp/tcp", "proxy tftp: only with udp"),
    ],
    "age": [
        ("map a 0/0 -> 0/32 age 5", "age: Linux sets the time-outs of tcp and udp alone"),
        ("map a 0/0 -> 0/32 age 5 gre", "age: Linux sets the time-outs of tcp and udp alone"),
    ],
    "bimap": [
        ("bimap a 10.0.0.0/24 -> 192.0.2.0/28", "bimap: two networks of one size"),
        ("bimap a 10.0.0.0/24 -> 192.0.2.0-192.0.2.9", "bimap: one network for another"),
    ],
    "map-block": [
        ("map-block a 2001:db8::/120 -> 2001:db8:1::/120 ports auto", "map-block: of IPv4 alone"),
        ("map-block a 10.0.0.0/24 -> 0/32 ports auto", "map-block: 0/32 has no ports to divide"),
        ("map-block a 10.0.0.0/8 -> 192.0.2.0/24 ports auto", "map-block: more than 65536 addresses"),
        ("map-block a 10.0.0.0/24 -> 192.0.2.1 ports 1000", "map-block: 1000 ports for each of 256 addresses"),
        ("map-block a 10.0.0.0/24 -> 0/0 ports 1", "map-block: one network for another"),
        ("map-block a 10.0.0.0/24 -> 192.0.2.1 ports auto age 5 tcp", "map-block: without age and mssclamp"),
    ],
    "sticky": [("rdr a 0/0 -> 10.0.0.0-10.9.0.0 round-robin sticky", "sticky: more than 65536 addresses")],
    "rewrite": [
        (
            "rewrite in on a from any to any -> src 0/32 dst 192.0.2.1;",
            "rewrite in: Linux does not know the interface's",
        ),
        ("rewrite out on a from any to any -> src 0/0 dst 0/32;", "rewrite out: Linux does not know the interface's"),
    ],
    "rdr ... -> ::1": [
        ("rewrite in on a from any to any -> src 0/0 dst ::1;", "::1: Linux leads nothing from the network"),
        ("rdr a inet6 any port 80 -> ::1 port 80", "::1: Linux leads nothing from the network to a loopback"),
    ],
    "10.0.0.0/0xff00ff00": [("map a 0/0 -> 10.0.0.0/0xff00ff00", "255.0.255.0: a mask with holes")],
}
# Refused as well, and not by Linux: what is said, and a rule, or None where no rule that can be read comes to it.
OTHER = {
    "{}: not the name of an interface": "map 'a b' 0/0 -> 0/32",
    "port {}: the last of {} would be above {}": "rdr a 0/0 port 1-10 -> 192.0.2.1 port 65530",
    "rdr: an address or a range of addresses, no network": None,
    "proxy {}: this kernel has no {}": None,
}


def refused(text: str) -> str | None:
    """What is said of a rule, or None."""
    (rule,) = parse("f", text.encode()).rules
    try:
        compile_rules("f", [(Loaded(1, rule), printed(rule, resolve=False))])
    except JailError as error:
        assert str(error).startswith("f:1: ")
        return str(error).removeprefix("f:1: ")
    return None


def items() -> list[str]:
    section = PAGE.partition(".Ss What Linux cannot carry")[2].partition("\n.Ss ")[0]
    found = re.findall(r"^\.It (.*)$", section, re.MULTILINE)
    return [re.sub(r"\b(?:Cm|Ar|Ns) ", "", item) for item in found]


def test_the_page_lists_what_is_tested_here() -> None:
    assert items() == list(NEVER)


@pytest.mark.parametrize(("text", "said"), [pair for pairs in NEVER.values() for pair in pairs])
def test_what_linux_cannot_carry_is_refused_by_name(text: str, said: str) -> None:
    assert (refused(text) or "").startswith(said)


def test_the_page_names_the_proxies_that_there_are() -> None:
    section = PAGE.partition(".Ss Proxies")[2].partition("\n.Ss ")[0]
    assert set(HELPERS) == set(re.findall(r"\b[a-z0-9]+\b", section.partition("are Linux's")[0])) - {"and"}
    assert all(refused(f"map a 0/0 -> 0/32 proxy port 1 {name}/{HELPERS[name][1]}") is None for name in HELPERS)


def test_all_that_is_refused_is_told_of() -> None:
    """Each sentence of the source is met by a rule above."""
    met = [refused(text) or "" for pairs in NEVER.values() for text, _ in pairs]
    for source in SOURCES:
        text = (ROOT / "src/jailng/nat" / source).read_text()
        sentences = re.findall(r'raise Refused\(f?"([^"]*)"', text)
        assert sentences and len(sentences) == text.count("raise Refused("), source
        for sentence in sentences:
            plain = re.sub(r"\{[^}]*\}", "{}", sentence)
            pattern = re.escape(plain).replace(r"\{\}", ".*")
            assert plain in OTHER or any(re.fullmatch(pattern, said) for said in met), sentence


@pytest.mark.parametrize(("sentence", "text"), [(one, text) for one, text in OTHER.items() if text])
def test_other_refusals(sentence: str, text: str) -> None:
    assert re.fullmatch(re.escape(sentence).replace(r"\{\}", ".*"), refused(text) or "")


def displays() -> list[str]:
    return re.findall(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", displays())
def test_every_display_is_rules_that_linux_carries(text: str) -> None:
    rules = parse("display", text.encode()).rules
    assert rules
    compile_rules("display", [(Loaded(at, rule), printed(rule, resolve=False)) for at, rule in enumerate(rules)])


@pytest.mark.parametrize("text", [text for text, _ in ACCEPTED])
def test_the_examples_of_freebsd_are_carried_or_refused_by_name(text: str) -> None:
    said = refused(text)
    known = {one for pairs in NEVER.values() for _, one in pairs}
    assert said is None or any(said.startswith(one) for one in known) or re.match("proxy .*: Linux has none|tag ", said)


def test_the_order_is_that_of_the_page() -> None:
    """The longest mask first, and the order of the file within; a pool would be last."""
    text = next(one for one in displays() if "10.0.0.0/24 port 80" in one)
    rules = parse("display", text.encode()).rules
    compiled = compile_rules("display", [(Loaded(at, rule), printed(rule)) for at, rule in enumerate(rules)])
    chain = compiled.partition("chain prerouting")[2].partition("\n}")[0]
    assert [chain.index(f"192.168.10.{at}") for at in (4, 3, 2)] == sorted(
        chain.index(f"192.168.10.{at}") for at in (4, 3, 2)
    )
