"""ipnat(5), text to rules: the words, the errors, and what FreeBSD makes of a rule that says little."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from jailng.errors import JailError
from jailng.nat import names
from jailng.nat.lex import predefined
from jailng.nat.parse import parse
from jailng.nat.printed import printed
from jailng.nat.rule import Lookup, Map, MapBlock, Match, Net, Options, PortMap, Ports, Proxy, Range, Rdr, Rule, Split


def rule(text: str) -> Rule:
    (one,) = parse("f", text.encode()).rules
    return one


def error(text: str | bytes) -> str:
    with pytest.raises(JailError) as caught:
        parse("f", text.encode() if isinstance(text, str) else text)
    return str(caught.value)


def net(text: str) -> Net:
    address, _, mask = text.partition("/")
    return Net(IPv4Address(address), IPv4Address(mask))


ANY = net("0.0.0.0/0.0.0.0")
OWN = net("0.0.0.0/255.255.255.255")


UNPRINTABLE = "a word that is not printable or has over 1024 characters"


# What a rule is


def test_a_map_as_a_value() -> None:
    one = rule("map ep0,le1 10.0.0.0/8 -> range 192.0.2.1 - 192.0.2.9 portmap tcp 10:20 sequential frag purge")
    assert one == Map(
        kind="map",
        family=4,
        interfaces=("ep0", "le1"),
        match=Match(net("10.0.0.0/255.0.0.0"), ANY),
        target=Range(IPv4Address("192.0.2.1"), IPv4Address("192.0.2.9")),
        protocols=(6,),
        portmap=PortMap(10, 20, sequential=True),
        options=Options(frag=True, purge=True),
    )
    assert one.line == 1
    assert rule("\n\n map a 0/0 -> 0/0").line == 3


def test_an_rdr_as_a_value() -> None:
    one = rule("rdr ep0 192.0.2.1 port 80-88 -> 10.0.0.1,10.0.0.2 port 8080 tcp/udp age 5 mssclamp 1400 tag x sticky")
    assert one == Rdr(
        family=4,
        interfaces=("ep0", "ep0"),
        match=Match(ANY, net("192.0.2.1/255.255.255.255"), None, Ports(":", 80, 88)),
        target=Split(IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")),
        port=8080,
        port_high=8080,
        protocols=(6, 17),
        sticky=True,
        options=Options(age=(5, 5), mssclamp=1400, tag="x"),
    )


def test_a_mapblock_as_a_value() -> None:
    one = rule("map-block ep0 10.0.0.0/16 -> 192.0.2.0/24 ports 252 udp")
    assert isinstance(one, MapBlock)
    assert (one.ports, one.auto, one.protocols, one.target) == (252, False, (17,), net("192.0.2.0/255.255.255.0"))


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        *[
            (f"10.1.2.3{mask}", 8)
            for mask in ("/8", "/0xff000000", "/255.0.0.0", " mask 255.0.0.0", " netmask 0xff000000")
        ],
        *[(f"10.1.2.3{mask}", 32) for mask in ("", "/32", "/0xffffffff", "/255.255.255.255")],
        *[(f"10.1.2.3{mask}", 0) for mask in ("/0", "/0x0", "/0x", "/0.0.0.0")],
        *[("0", 0), ("0/0", 0), ("any", 0), ("0/32", 32), ("10/32", 32), ("167838211/8", 8)],
    ],
)
def test_all_spellings_of_a_mask(text: str, bits: int) -> None:
    one = rule(f"map ep0 {text} -> 0/32")
    assert isinstance(one, Map) and isinstance(one.match.source, Net)
    assert one.match.source.bits == bits
    assert int(one.match.source.address) & ~int(one.match.source.mask) == 0
    if bits == 8:
        assert str(one.match.source.address) == "10.0.0.0"


def test_properties_of_networks() -> None:
    holes = net("10.0.0.0/255.0.255.0")
    assert (holes.bits, holes.host, holes.interface, holes.everything) == (None, False, False, False)
    assert (ANY.bits, ANY.everything, ANY.interface, ANY.host) == (0, True, False, False)
    assert (OWN.bits, OWN.everything, OWN.interface, OWN.host) == (32, False, True, False)
    assert net("10.0.0.1/255.255.255.255").host
    one = rule("map ep0 inet6 0/0 -> 0/128")
    assert isinstance(one, Map) and isinstance(one.target, Net)
    assert one.target == Net(IPv6Address("::"), IPv6Address("f" * 4 + ":ffff" * 7)) and one.target.interface


@pytest.mark.parametrize(
    ("text", "protocols"),
    [
        ("map a 0/0 -> 0/0", ()),
        ("map a 0/0 -> 0/0 ip", ()),
        ("map a 0/0 -> 0/0 tcpudp", (6, 17)),
        ("map a 0/0 -> 0/0 tcp / udp", (6, 17)),
        ("map a 0/0 -> 0/0 GRE", (47,)),
        ("map a 0/0 -> 0/0 255", (255,)),
        ("map a from any port = 1 to any -> 0/0", (6, 17)),
        # As in the article; today's FreeBSD makes it tcp/udp.
        ("rdr a 0/0 port 1 -> 1.1.1.1 port 1", (6,)),
        ("no rdr a 0/0 port 1;", (6,)),
        ("no rdr a 0/0 port 1", (6,)),
        ("no map a from any port = 1 to any;", (6, 17)),
        ("rdr a 0/0 -> 1.1.1.1", ()),
        ("map a 0/0 -> 0/0 proxy port 21 ftp/tcp", (6,)),
        ("map a 0/0 -> 0/0 icmpidmap icmp 1:2", (1,)),
        ("rewrite in on a proto udp from any to any -> src 0/0 dst 1.1.1.1;", (17,)),
    ],
)
def test_protocols(text: str, protocols: tuple[int, ...]) -> None:
    assert rule(text).protocols == protocols


def test_ports_are_of_tcp_and_udp_alone() -> None:
    """With another protocol FreeBSD takes no notice of them (setnatproto() in ipnat_y.y)."""
    assert rule("rdr a 0/0 port 80 -> 1.1.1.1 port 80 icmp") == rule("rdr a 0/0 -> 1.1.1.1 icmp")
    assert rule("map a from any port = 80 to any -> 0/32 esp") == rule("map a from any to any -> 0/32 esp")


def test_port_0_is_any() -> None:
    assert rule("rdr a 0/0 port 0 -> 1.1.1.1 port 0 tcp") == rule("rdr a 0/0 -> 1.1.1.1 tcp")


def test_a_proxy_of_rdr_is_for_its_port() -> None:
    one = rule("rdr a 0/0 -> 1.1.1.1 proxy port 21 ftp/tcp")
    assert one == rule("rdr a 0/0 port 21 -> 1.1.1.1 port 21 tcp proxy ftp")
    assert isinstance(one, Rdr) and one.proxy == Proxy("ftp") and one.match.destination_ports == Ports("=", 21)
    assert rule("rdr a 0/0 -> 1.1.1.1 port 21 tcp proxy ftp") == one
    assert rule("rdr a from any to any -> 1.1.1.1 proxy port 21 ftp/tcp") == rule(
        "rdr a from any to any port = 21 -> 1.1.1.1 port 21 tcp proxy ftp"
    )


def test_sticky_for_one_address_is_told_of() -> None:
    read = parse("f", b"\nrdr a 0/0 -> 1.1.1.1 sticky")
    assert read.warnings == ("f:2: 'sticky' for use with round-robin/IP splitting only",)
    (one,) = read.rules
    assert isinstance(one, Rdr) and not one.sticky
    assert parse("f", b"rdr a 0/0 -> 1.1.1.1 sticky round-robin").warnings == ()


def test_pools() -> None:
    one = rule("map a from pool/100 to hash/x -> 0/32")
    assert one.match.source == Lookup("pool", "100") and one.match.destination == Lookup("hash", "x")
    two = rule("rewrite in on a from any to any -> src 0/0 dst dstlist/x;")
    assert getattr(two, "destination", None) == Lookup("dstlist", "x")


def test_options_stand_in_any_order() -> None:
    assert rule("map a 0/0 -> 0/32 tcp purge tag x age 1 frag round-robin mssclamp 5") == rule(
        "map a 0/0 -> 0/32 round-robin frag age 1/1 mssclamp 5 tag x tcp purge"
    )


def test_proxy_config() -> None:
    read = parse("f", b"\nproxy dns/udp config x { allow .a.org; deny b.org; block c; pass d; drop .e; };")
    assert not read.rules
    (one,) = read.proxies
    assert one.names == ((True, ".a.org"), (False, "b.org"), (False, "c"), (True, "d"), (False, ".e"))
    assert (one.label, one.protocol, one.name, one.line) == ("dns", 17, "x", 2)


# Words


def test_keywords_are_of_either_case_and_names_when_quoted() -> None:
    assert rule("MAP a FROM Any TO aNy -> 0/32 TCP") == rule("map a from any to any -> 0/32 tcp")
    assert rule("map 'map' 0/0 -> 0/32").interfaces == ("map", "map")
    assert printed(rule("map 'map',\"-\" 0/0 -> 0/32")) == 'map "map","-" 0/0 -> 0.0.0.0/32'
    assert 'error at "map"' in error("map map 0/0 -> 0/32")


def test_lines_and_comments() -> None:
    text = "# one\nmap a \\\n 0/0 # two\r\n ->\t0/32#three\n# four\n;rdr b 0/0->1.1.1.1"
    assert [printed(one) for one in parse("f", text.encode()).rules] == [
        *("map a 0/0 -> 0.0.0.0/32", "rdr b 0/0 -> 1.1.1.1 ip"),
    ]
    assert [one.line for one in parse("f", text.encode()).rules] == [2, 6]
    assert parse("f", b"").rules == parse("f", b"\n# nothing\n").rules == ()


def test_what_is_words_apart_and_together() -> None:
    assert rule("map a 10 . 0 . 0 . 1/8->1.1.1.1-1.1.1.9tcp") == rule("map a 10.0.0.1/8 -> 1.1.1.1 - 1.1.1.9 tcp")
    assert rule("map a 2001:db8::1->2001:db8::2") == rule("map a 2001:db8::1/128 -> 2001:db8::2/128")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('if="ppp0"; map $if 0/0 -> 0/32', "map ppp0 0/0 -> 0.0.0.0/32"),
        ("if='ppp'; map ${if}0 0/0 -> 0/32", "map ppp0 0/0 -> 0.0.0.0/32"),
        ("if=ppp0;map $if 0/0 -> 0/32", "map ppp0 0/0 -> 0.0.0.0/32"),
        ("if=any; map a $if -> 0/32", "map a 0/0 -> 0.0.0.0/32"),
        ('n="10.0.0.0/8"; r="map a $n -> 0/32"; $r', "map a 10.0.0.0/8 -> 0.0.0.0/32"),
        ('x="a"; y="$x 0/0"; x="b"; map $y -> 0/32', "map b 0/0 -> 0.0.0.0/32"),
        ('x="a"; y="$x$x"; map $y 0/0 -> 0/32', "map aa 0/0 -> 0.0.0.0/32"),
        ("map a 0/0 -> 0/32 x='1';", "map a 0/0 -> 0.0.0.0/32"),
        ("map a 0/0 -> 0/32\ntcp='1'; map b 0/0 -> 0/32", None),
        ("map $before 0/0 -> 0/32", "map le0 0/0 -> 0.0.0.0/32"),
    ],
)
def test_variables(text: str, shown: str | None) -> None:
    if shown is None:
        assert "syntax error" in error(text)  # a keyword is no variable
        return
    (one,) = parse("f", text.encode(), {"before": "le0"}).rules
    assert printed(one) == shown


def test_predefined_variables() -> None:
    assert predefined("a=b;c=\"d e\";=x;f;g='h';i=") == {"a": "b", "c": "d e", "g": "h", "i": ""}
    assert predefined("") == {}


# Errors


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("map", 'f:1: syntax error error at "", line 1: expected an interface'),
        ("\nfoo", 'f:2: syntax error error at "foo", line 2: expected a rule'),
        ("map a 0/0 0/32", 'f:1: syntax error error at "0", line 1: expected "->"'),
        ("map a 0/0 ->\n\n", 'f:3: syntax error error at "", line 3: expected an address'),
        ("map a 256.0.0.1 -> 0/32", 'f:1: Invalid octet string for IP address error at "256.0.0.1", line 1'),
        ("map a 10.0.0.0/33 -> 0/32", 'f:1: invalid netmask error at "33", line 1'),
        ("map a ::/129 -> ::/128", 'f:1: invalid netmask error at "129", line 1'),
        ("map a ::/0xff -> ::/128", 'f:1: incorrect inet6 mask error at "0xff", line 1'),
        ("map a 10.0.0.0/ffff:: -> 0/32", 'f:1: 1.address family mismatch error at "->", line 1'),
        ("map a :: netmask 255.0.0.0 -> 0/32", 'f:1: 2.address family mismatch error at "->", line 1'),
        ("map a ::/0 -> 1.1.1.1", 'f:1: 3.address family mismatch error at "", line 1'),
        ("map a ::/0 -> 1.1.1.1 portmap tcp auto", 'f:1: 4.address family mismatch error at "", line 1'),
        ("map a from ::/0 to any -> 1.1.1.1", 'f:1: 5.address family mismatch error at "", line 1'),
        ("map a from ::/0 to any -> 1.1.1.1 portmap udp auto", 'f:1: 6.address family mismatch error at "", line 1'),
        ("map-block a ::/0 -> 1.1.1.1", 'f:1: 7.address family mismatch error at "", line 1'),
        ("map a 0/0 -> 1.1.1.1-::", 'f:1: 8.address family mismatch error at "", line 1'),
        ("map a 0/0 -> range 1.1.1.1-::", 'f:1: 9.address family mismatch error at "", line 1'),
        ("rdr a 0/0 -> 1.1.1.1,::", 'f:1: 10.address family mismatch error at "", line 1'),
        ("rdr a 0/0 -> 1.1.1.1-::", 'f:1: 11.address family mismatch error at "", line 1'),
        ("rdr a 0/0 -> range 1.1.1.1-::", 'f:1: 12.address family mismatch error at "", line 1'),
        ("map a from 1.1.1.1 to ::", 'f:1: 13.address family mismatch error at "", line 1'),
        ("map a from 1.1.1.1 ! to ::", 'f:1: 14.address family mismatch error at "", line 1'),
        ("map a from 1.1.1.1 to ! ::", 'f:1: 15.address family mismatch error at "", line 1'),
        ("rdr a from 1.1.1.1 to ::", 'f:1: 16.address family mismatch error at "", line 1'),
        ("rdr a ! from 1.1.1.1 to ::", 'f:1: 17.address family mismatch error at "", line 1'),
        ("rdr a from ! 1.1.1.1 to ::", 'f:1: 18.address family mismatch error at "", line 1'),
        ("rdr a from 1.1.1.1 to any -> ::1", 'f:1: 20.address family mismatch error at "", line 1'),
        ("rdr a 1.1.1.1 -> ::1", 'f:1: 21.address family mismatch error at "", line 1'),
        ("map a inet6 10.0.0.0/8 -> 0/32", 'f:1: address family mismatch error at "", line 1'),
        ("rdr a 0/0 -> 1.1.1.0/24", 'f:1: dest ip bitmask not /32 error at "", line 1'),
        ("rdr a 0/0 -> 2001:db8::/64", 'f:1: dest ip bitmask not /128 error at "", line 1'),
        ("rdr a 0/0 port 65536 -> 1.1.1.1", 'f:1: invalid port number error at "65536", line 1'),
        ("rdr a 0/0 port nosuchservice -> 1.1.1.1", 'f:1: invalid port number error at "nosuchservice", line 1'),
        (
            "map a 0/0 -> 0/32 portmap udp 9:8\nmap b 0/0 -> 0/32",
            'f:1: ports that end (8) before they begin (9) error at "8", line 1',
        ),
        ("rdr a 0/0 port 9-8 -> 1.1.1.1", 'f:1: ports that end (8) before they begin (9) error at "8", line 1'),
        ("map a 0/0 -> 1.1.1.9-1.1.1.1", 'f:1: a range that ends before it begins error at "", line 1'),
        ("map a 0/0 -> 0/32 nosuch", 'f:1: unknown protocol error at "nosuch", line 1'),
        ("map a 0/0 -> 0/32 256", 'f:1: unknown protocol error at "256", line 1'),
        ("map a 0/0 -> 0/32 tcp udp", 'f:1: protocol set twice error at "udp", line 1'),
        ("map a 0/0 -> 0/32 portmap tcp auto tcp", 'f:1: protocol set twice error at "tcp", line 1'),
        ("map a 0/0 -> 0/32 tcp portmap tcp auto", 'f:1: protocol set twice error at "portmap", line 1'),
        ("map a 0/0 -> 0/32 frag frag", 'f:1: frag set twice error at "frag", line 1'),
        ("map a 0/0 -> 0/32 icmpidmap tcpx 1:2", 'f:1: icmpidmap not followed by icmp error at "tcpx", line 1'),
        ("map a 0/0 -> 0/32 age 0/5", 'f:1: an age for replies alone error at "age", line 1'),
        ("map a 0/0 -> 0/32 mssclamp 65536", 'f:1: mssclamp above 65535 error at "65536", line 1'),
        ("map a 0/0 -> 0/32 sticky", 'f:1: syntax error error at "sticky", line 1: expected a rule'),
        ("rdr a 0/0 -> 1.1.1.1 portmap tcp auto", 'f:1: syntax error error at "portmap", line 1: expected a rule'),
        (
            "map a 0/0 -> 0/32 99999999999",
            'f:1: syntax error error at "99999999999", line 1: a number that is too large',
        ),
        (
            "map a from any to any port = 22 -> 0/32 proxy port 21 ftp/tcp",
            'f:1: proxy port numbers not consistant error at "", line 1',
        ),
        ("map a pool/1 -> 0/32", 'f:1: Can only use pool with from/to rules error at "pool", line 1'),
        ("map a ! from any to any -> 0/32", 'f:1: syntax error error at "!", line 1: expected an address'),
        ("rdr a from any ! to any -> 1.1.1.1", 'f:1: syntax error error at "!", line 1: expected "to"'),
        ("no rewrite", 'f:1: syntax error error at "rewrite", line 1: expected "map", "bimap", "map-block" or "rdr"'),
        (
            "rewrite in on a from any to any -> src 0/0,5 dst 1.1.1.1;",
            'f:1: must be TCP/UDP for ports error at "5", line 1',
        ),
        (
            "divert in on a from any to any -> src 1.1.1.0/24,5 dst 1.1.1.1,5 udp;",
            'f:1: divert must have /32 dest error at ",", line 1',
        ),
        ("map $x 0/0 -> 0/32", "f:1: unknown variable 'x'"),
        ("map ${1} 0/0 -> 0/32", "f:1: unknown variable '1'"),
        ("x='$-'; map $x", "f:1: variables cannot start with '-'"),
        ("x='$x'; map $x", "f:1: variables in variables more than 32 deep"),
        ("x=5;", 'f:1: syntax error error at "5", line 1: expected a string'),
        ("map 'a 0/0 -> 0/32", 'f:1: syntax error error at "\'", line 1: a string that does not end'),
        ("map a 1:2:3 -> 0/32", 'f:1: syntax error error at "1:2:3", line 1: no address'),
        ("map a\\b 0/0 -> 0/32", 'f:1: syntax error error at "\\", line 1: a character that has no place here'),
        ("map 'a\x1b' 0/0 -> 0/32", r'f:1: syntax error error at "a\x1b", line 1: ' + UNPRINTABLE),
        ("map a\x80 0/0 -> 0/32", r'f:1: syntax error error at "a\x80", line 1: ' + UNPRINTABLE),
        ("proxy irc/tcp", 'f:1: syntax error error at "irc", line 1'),
        ("proxy dns/udp config x { };", 'f:1: syntax error error at "}", line 1: expected "allow" or "deny"'),
        (
            f"map a 0/0 -> 0/32 tag {'x' * 17}",
            f'f:1: a tag that is empty or has over 16 bytes error at "{"x" * 17}", line 1',
        ),
    ],
)
def test_errors(text: str, said: str) -> None:
    assert error(text) == said


def test_a_host_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "host", lambda name, family: None)
    assert error("\nmap a no.such.host/32 -> 0/32") == "f:2: Unknown host 'no.such.host'"


def test_a_host_is_looked_up_in_the_family_of_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {4: IPv4Address("192.0.2.1"), 6: IPv6Address("2001:db8::1")}
    monkeypatch.setattr(names, "host", lambda name, family: known[family])
    assert printed(rule("rdr a gate -> gate")) == "rdr a 192.0.2.1/32 -> 192.0.2.1 ip"
    assert printed(rule("rdr a inet6 gate -> <thishost>")) == "rdr a inet6 2001:db8::1/128 -> 2001:db8::1 ip"
    assert printed(rule("rdr a 0/0 -> one-host.example - two")) == "rdr a 0/0 -> 192.0.2.1-192.0.2.1 ip"


@pytest.mark.parametrize(
    "text",
    [
        b"\0" * 1000000,
        b"\xff\xfe" * 500000,
        b"\x1b[2J" * 250000,
        b'"' + b"a" * 1000000,
        b"a" * 1000000,
        b"1" * 1000000,
        b":" * 1000000,
        b"a:" * 500000,
        b"$a" * 500000,
        b"${" * 500000,
        b"map a 0/0 -> 0/32 " + b"frag " * 200000,
        b"".join([b'x%d="$x%d$x%d";' % (at + 1, at, at) for at in range(30)]) + b'x0="";map $x30',
        b'w="' + b"x" * 1000 + b'";' + b"v='" + b"$w" * 1000 + b"';map $v$v",
    ],
)
def test_a_million_bytes_of_anything_are_refused_at_once(text: bytes) -> None:
    said = error(text)
    assert said.startswith("f:1: ") and "\n" not in said and "\x1b" not in said and len(said) < 400


# Names


def test_names_of_services_and_protocols(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are printed where IPFilter prints them, and are never read as anything else."""
    assert printed(rule("map a 0/0 -> 0/32 proxy port 21 ftp/tcp")).endswith("proxy port ftp ftp/tcp")
    assert printed(rule("map a from any to any port = 53 -> 0/32 udp")).endswith("port = domain -> 0.0.0.0/32 udp")
    assert printed(rule("map a from any to any port = 53 -> 0/32 tcp/udp")).endswith("= 53 -> 0.0.0.0/32 tcp/udp")
    assert printed(rule("map a from any to any port = 53 -> 0/32 udp"), resolve=False).endswith(
        "= 53 -> 0.0.0.0/32 udp"
    )
    assert printed(rule("map a 0/0 -> 0/32 50")) == "map a 0/0 -> 0.0.0.0/32 esp"
    assert printed(rule("map a 0/0 -> 0/32 254")) == "map a 0/0 -> 0.0.0.0/32 254"

    def unknown(*_: object) -> int:
        raise OSError

    for word in ("getservbyname", "getservbyport", "getprotobyname"):
        monkeypatch.setattr(names.socket, word, unknown)  # type: ignore[attr-defined]
    assert names.service("ftp", 6) == 21 and names.service("nosuch") is None
    assert names.protocol("GRE") == 47 and names.protocol("ip") == 0 and names.protocol("nosuch") is None
    assert names.service_name(443, 6) == "https" and names.service_name(4, 6) == "4"
    for name, shown in (("any", "7"), ("LE", "7"), ("3com", "7"), ("a b", "7"), ("echo", "echo")):
        monkeypatch.setattr(names.socket, "getservbyport", lambda *_, name=name: name)  # type: ignore[attr-defined]
        monkeypatch.setattr(names.socket, "getservbyname", lambda *_: 7)  # type: ignore[attr-defined]
        assert names.service_name(7, 6) == shown
    # A name that UDP has for another port.
    monkeypatch.setattr(names.socket, "getservbyname", lambda name, *of: 7 if of else 8)  # type: ignore[attr-defined]
    assert names.service_name(7, 6) == "7"


def test_ipv6_as_it_is_printed() -> None:
    assert printed(rule("map a inet6 any -> 0/128")) == "map a inet6 any -> ::/128"
    assert printed(rule("rdr a 2001:DB8:0::1 -> ::0.0.0.2")) == "rdr a inet6 2001:db8::1/128 -> ::2 ip"
    assert printed(rule("map a ::/0 -> 2001:db8::/ffff:0:ffff::")) == "map a inet6 any -> 2001::/ffff:0:ffff::"
