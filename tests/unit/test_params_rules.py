"""ng.rdr and ng.egress: what is a rule, and that each has one form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.errors import JailError
from jailng.params import egress, redirect
from jailng.params.model import Parameters
from jailng.params.values import visible

# As it may be written, and its one form.
REDIRECTS = [
    ("tcp 10.0.0.75 8080 -> 80", None),
    ("tcp 10.0.0.75 8080->80", "tcp 10.0.0.75 8080 -> 80"),
    ("udp to any port 53 -> 5353", "udp any 53 -> 5353"),
    ("tcp/udp any 53 -> 53", "tcp,udp any 53 -> 53"),
    ("tcp, udp  any 53 -> 53", "tcp,udp any 53 -> 53"),
    ("tcp on ep0 from 192.0.2.0/24, 198.51.100.7/32 any 22 -> 192.0.2.11:2222 log", None),
    ("tcp 2001:DB8::1 80-90 -> [2001:db8:0::2]:80-90 log w", "tcp 2001:db8::1 80-90 -> [2001:db8::2]:80-90 log w"),
    ("tcp any 80 -> 80 log web.1 group 5", None),
    ("tcp any 1-65535 -> 80 log group 0", None),
    ("tcp any 80 -> 80 log " + "x" * 32, None),
]  # fmt: skip
EGRESS = [
    ("pass", "pass to any"),
    ("pass to any", None),
    ("drop to 10.0.0.0/8 log", None),
    ("pass tcp/udp to world port 53,80-90", "pass tcp,udp to world port 53,80-90"),
    ("pass tcp to any port 80 ,443", "pass tcp to any port 80,443"),
    ("pass tcp to any port 80, 443 rate 10/second burst 20", "pass tcp to any port 80,443 rate 10/second burst 20"),
    ("pass icmp to lan,jails,host,2001:DB8::/32 log", "pass icmp to lan,jails,host,2001:db8::/32 log"),
    ("pass to lan rate 1/day log out group 7", "pass to lan rate 1/day burst 1 log out group 7"),
    ("honeypot", None),
    ("none", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "form"), REDIRECTS)
def test_a_redirect_has_one_form(text: str, form: str | None) -> None:
    rule = redirect.parse(text)
    assert rule.text == (form or text).replace(", ", ",").replace("/32 ", " ")
    assert redirect.parse(rule.text).text == rule.text


@pytest.mark.parametrize(("text", "form"), EGRESS)
def test_a_rule_of_egress_has_one_form(text: str, form: str | None) -> None:
    rule = egress.parse(text)
    assert rule.text == (form or text)
    assert egress.parse(rule.text).text == rule.text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", 'no "->" in it'),
        ("-> 80", "the protocol is missing"),
        ("tcp -> 80", "the address is missing"),
        ("tcp any -> 80", "the port is missing"),
        ("tcp any 0 -> 80", 'not a port from 1 to 65535: "0"'),
        ("tcp any 80 -> 65536", 'not a port from 1 to 65535: "65536"'),
        ("tcp any 80 ->", "the port to go to is missing"),
        ("tcp any 90-80 -> 80", "90-80: the range ends before it begins"),
        ("tcp any 80-90 -> 180-190", "80-90 goes to the same range, or to one port"),
        ("tcp on e/0 any 80 -> 80", 'not the name of an interface: "e/0"'),
        ("tcp from 192.0.2.1/24 any 80 -> 80", "192.0.2.1/24: bits are set behind the prefix"),
        ("tcp from any any 80 -> 80", 'not an address: "any"'),
        ("tcp 192.0.2.1 80 -> [2001:db8::1]:80", "IPv4 and IPv6 in one rule"),
        ("tcp 192.0.2.1 80 -> 2001:db8::1:80", "IPv4 and IPv6 in one rule"),
        ("tcp any 80 -> 80 loud", 'not understood: "loud"'),
        ("tcp any 80 -> 80 log group 65536", 'not a group from 0 to 65535: "65536"'),
        ("tcp any 80 -> 80 log \x1b", 'a prefix of the log is at most 32 letters, digits, dots and dashes: "\\x1b"'),
        ("tcp any \uff18 -> 80", 'not a port from 1 to 65535: "\uff18"'),
        ("tcp any 80-65536 -> 80", 'not a port from 1 to 65535: "65536"'),
        ("tcp any 0-80 -> 80", 'not a port from 1 to 65535: "0"'),
        ("tcp any 1_0 -> 80", 'not a port from 1 to 65535: "1_0"'),
        ("tcp any \x1b[m -> 80", 'not a port from 1 to 65535: "\\x1b[m"'),
        (f"tcp any {'9' * 5000} -> 80", f'not a port from 1 to 65535: "{"9" * 5000}"'),
        (
            "tcp any 80 -> 80 log " + "x" * 33,
            f'a prefix of the log is at most 32 letters, digits, dots and dashes: "{"x" * 33}"',
        ),
        ("sctp any 80 -> 80", 'not tcp, udp or tcp,udp: "sctp"'),
        ("tcp any 80 90 -> 80", '"->" is wanted, not "90"'),
        ("tcp any 80 -> [2001:db8::1:80", 'not an address: "[2001:db8::1"'),
        ("tcp any 80 -> 2001:db8::1]:80", 'not an address: "2001:db8::1]"'),
    ],
)  # fmt: skip
def test_what_is_no_redirect(text: str, why: str) -> None:
    with pytest.raises(JailError) as caught:
        redirect.parse(text)
    assert str(caught.value).startswith('ng.rdr: "')
    assert str(caught.value).endswith(f'": {why}')


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("allow to any", 'not pass, drop, none or honeypot: "allow"'),
        ("pass sctp to any", 'not tcp, udp, tcp,udp or icmp: "sctp"'),
        ("pass \x9b to any", 'not tcp, udp, tcp,udp or icmp: "\\x9b"'),
        ("pass to \x9b", 'not an address: "\\x9b"'),
        ("pass to nowhere", 'not an address: "nowhere"'),
        ("pass to any port 80", "ports are those of tcp or udp, which has to be named"),
        ("pass icmp to any port 80", "ports are those of tcp or udp, which has to be named"),
        ("drop to any rate 1/second", "what is dropped has no rate"),
        ("pass to any rate 1", 'not second, minute, hour, day: ""'),
        ("pass to any rate 0/second", 'not a rate from 1 to 1000000: "0"'),
        ("pass to any burst 1", 'not understood: "burst 1"'),
        ("honeypot log", "a preset stands alone; rules follow after a comma"),
        ("pass to", "the destination is missing"),
    ],
)
def test_what_is_no_rule_of_egress(text: str, why: str) -> None:
    with pytest.raises(JailError) as caught:
        egress.parse(text)
    assert str(caught.value) == f'ng.egress: "{visible(text)}": {why}'


def test_commas_part_rules_and_what_a_rule_lists() -> None:
    made = Parameters()
    made.add("ng.rdr", "tcp,udp from 192.0.2.1,192.0.2.2 any 53 -> 53, tcp any 80 -> 80,")
    made.add("ng.rdr", "udp any 9 -> 9")
    made.add("ng.egress", "honeypot, pass tcp to lan,192.0.2.1 port 1,2-3 , drop to jails,lan,none")
    assert made.strings("ng.rdr") == (
        "tcp,udp from 192.0.2.1,192.0.2.2 any 53 -> 53",
        "tcp any 80 -> 80",
        "udp any 9 -> 9",
    )
    assert made.strings("ng.egress") == (
        "honeypot",
        "pass tcp to lan,192.0.2.1 port 1,2-3",
        "drop to jails,lan",
        "none",
    )
    made.add("ip4.addr", "192.0.2.7")
    made.settle()
    again = Parameters.from_lines(made.to_lines())
    assert (again.strings("ng.rdr"), again.strings("ng.egress")) == (made.strings("ng.rdr"), made.strings("ng.egress"))


def test_every_preset_is_made_of_rules() -> None:
    for name, texts in egress.PRESETS.items():
        rules = egress.expanded([egress.parse(name)])
        assert [rule.text for rule in rules] == list(texts)
        assert not any(rule.preset for rule in rules)


@pytest.mark.parametrize("other", ["ip4=inherit", "ip6=inherit", "vnet=new", "ng.stack=shared"])
@pytest.mark.parametrize("name", ["ng.rdr", "ng.egress"])
def test_it_takes_an_interface_of_the_jail_s_own(name: str, other: str) -> None:
    made = Parameters()
    made.add(name, "tcp any 80 -> 80" if name == "ng.rdr" else "none")
    made.add(other.partition("=")[0], other.partition("=")[2])
    if other == "ip6=inherit":
        made.add("ip4", "inherit")
    if other == "ng.stack=shared":
        made.add("ip4.addr", "192.0.2.7")
    with pytest.raises(
        JailError, match=rf"^{name}: not with (ip4|{other.partition('=')[0]})=\w+: it takes an interface"
    ):
        made.settle()


_WORDS = st.sampled_from(
    "tcp udp tcp,udp tcp/udp icmp on ep0 from to any port log group rate burst pass drop honeypot none world lan jails "
    "host -> 80 80-90 0 65536 192.0.2.1 192.0.2.0/24 2001:db8::1 [2001:db8::1]:80 192.0.2.1:80 1/day , x".split()
)


@given(st.lists(_WORDS | st.text(max_size=3), max_size=14).map(" ".join))
def test_any_text_is_a_list_of_rules_or_refused(text: str) -> None:
    for name in ("ng.rdr", "ng.egress"):
        made = Parameters()
        try:
            made.add(name, text)
        except JailError as error:
            assert str(error).isprintable()
            continue
        again = Parameters.from_lines(made.to_lines([name]))
        assert again.strings(name) == made.strings(name)


_ADDRESS4 = st.ip_addresses(v=4).map(str)
_PORTS = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(lambda two: f"{min(two)}-{max(two)}")
_LOG = st.sampled_from(["", " log", " log web", " log group 7", " log a-b group 65535"])


_PROTOCOL = st.sampled_from(["tcp", "udp", "tcp,udp"])


@given(_PROTOCOL, st.lists(_ADDRESS4, max_size=3), _ADDRESS4 | st.just("any"), _PORTS, _LOG)
def test_a_redirect_is_read_as_it_is_written(
    protocol: str, sources: list[str], address: str, ports: str, log: str
) -> None:
    first, last = ports.split("-")
    ports = first if first == last else ports
    source = f" from {','.join(sources)}" if sources else ""
    text = f"{protocol}{source} {address} {ports} -> 80{log}"
    assert redirect.parse(text).text == text
