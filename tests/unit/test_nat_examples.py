"""The examples of FreeBSD's ipnat(5): what each becomes as ipnat -l prints it, or in which words it is refused.

Some are refused by FreeBSD, too, or would be: its manual is older than its grammar. Their text is theirs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from jailng.errors import JailError
from jailng.nat.parse import parse
from jailng.nat.printed import printed

ARTICLE = Path(__file__).parent / "nat" / "article.rules"

LONG = "round-robin frag age 40/40 sticky mssclamp 1000 tag tagged"
CYCLE = "1.0.0.0/8,5000-5999 dst 2.0.0.0/24,6000-6999;"

# As it is written; as it is printed, or None for the same.
ACCEPTED: list[tuple[str, str | None]] = [
    ("map le0 0/0 -> 0/32", "map le0 0/0 -> 0.0.0.0/32"),
    ("map le0 0/0 -> 0/0", None),
    ("map le0 10.1.1.0/24 -> 192.168.55.3/32", None),
    ("map le0 10.0.0.0/8 -> 192.168.55.0/24", None),
    ("map le0 10.0.0.0/8 -> 192.168.55.0/24 portmap tcp/udp auto", None),
    ("map le0 10.0.0.0/8 -> 192.168.55.0/24 portmap tcp/udp 5000:65000", None),
    (
        "map le0 10.0.0.0/8 -> range 192.168.55.10-192.168.55.249\n                      portmap tcp/udp 5000:65000",
        "map le0 10.0.0.0/8 -> range 192.168.55.10-192.168.55.249 portmap tcp/udp 5000:65000",
    ),
    ("map le0 10.0.0.0/8 -> range 192.168.55.10-192.168.55.29 portmap tcp/udp 5000:65000 round-robin", None),
    ("map le0 10.0.0.0/8 -> 192.168.55.0/24 tcp/udp", None),
    ("map le0 10.0.0.0/8 -> 192.168.55.1/32 icmp", None),
    ("map le0 10.0.0.0/8 -> 192.168.55.2/32 gre", None),
    ("map pppoe0 0/0 -> 0/32 mssclamp 1400 tcp", "map pppoe0 0/0 -> 0.0.0.0/32 mssclamp 1400 tcp"),
    ("map le0 10.0.0.0/8 -> 192.168.55.1/32 icmpidmap icmp 1000:20000", None),
    (
        "map le0 from 10.0.0.0/8 to 26.0.0.0/8 ->\n                      192.168.55.1",
        "map le0 from 10.0.0.0/8 to 26.0.0.0/8 -> 192.168.55.1/32",
    ),
    (
        "map le0 from 10.0.0.0/8 port > 1024 to 26.0.0.0/8 -> 192.168.55.2 portmap 5000:9999 tcp/udp",
        "map le0 from 10.0.0.0/8 port > 1024 to 26.0.0.0/8 -> 192.168.55.2/32 portmap tcp/udp 5000:9999",
    ),
    (
        "map le0 from 10.0.0.0/8 ! to 26.0.0.0/8 -> 192.168.55.3 portmap 5000:9999 tcp/udp",
        "map le0 from 10.0.0.0/8 ! to 26.0.0.0/8 -> 192.168.55.3/32 portmap tcp/udp 5000:9999",
    ),
    ("map le0 0/0 -> 0/32 gre age 30", "map le0 0/0 -> 0.0.0.0/32 age 30/30 gre"),
    (
        "map le0 from any to any port = 53 -> 0/32 age 60/10 udp",
        "map le0 from 0/0 to 0/0 port = 53 -> 0.0.0.0/32 age 60/10 udp",
    ),
    ("map le0 0/0 -> 0/32 proxy port 21 ftp/tcp", "map le0 0/0 -> 0.0.0.0/32 proxy port 21 ftp/tcp"),
    ("map hme0,le0 0/0 -> 0/32", "map hme0,le0 0/0 -> 0.0.0.0/32"),
    ("map *,le0 0/0 -> 0/32", "map *,le0 0/0 -> 0.0.0.0/32"),
    ("map-block ppp0 172.192.0.0/16 -> 209.1.2.0/24 ports auto", None),
    (
        "map bge0 from 10.1.0.0/16 to 192.168.1.0/24 -> 172.12.1.4",
        "map bge0 from 10.1.0.0/16 to 192.168.1.0/24 -> 172.12.1.4/32",
    ),
    (
        "rdr bge0 from 10.1.0.0/16 to any port = 25 -> 127.0.0.1 port 2501 tcp",
        "rdr bge0 from 10.1.0.0/16 to 0/0 port = 25 -> 127.0.0.1 port 2501 tcp",
    ),
    ("rdr le0 0/0 -> 192.168.1.0", "rdr le0 0/0 -> 192.168.1.0 ip"),
    ("rdr le0 from 1.1.0.0/16 to any -> 192.168.1.3", "rdr le0 from 1.1.0.0/16 to 0/0 -> 192.168.1.3 ip"),
    ("rdr le0 ! from 1.1.0.0/16 to any -> 192.168.1.4", "rdr le0 ! from 1.1.0.0/16 to 0/0 -> 192.168.1.4 ip"),
    ("rdr le0 0/0 -> 192.168.1.1 - 192.168.1.5", "rdr le0 0/0 -> 192.168.1.1-192.168.1.5 ip"),
    ("rdr le0 0/0 -> range 192.168.1.1 - 192.168.1.5", "rdr le0 0/0 -> 192.168.1.1-192.168.1.5 ip"),
    ("rdr le0 0/0 -> 192.168.1.1,192.168.1.2", "rdr le0 0/0 -> 192.168.1.1,192.168.1.2 ip"),
    ("rdr le0 0/0 -> 192.168.1.1,192.168.1.2 round-robin", "rdr le0 0/0 -> 192.168.1.1,192.168.1.2 ip round-robin"),
    ("rdr le0 0/0 -> 192.168.1.9 round-robin", "rdr le0 0/0 -> 192.168.1.9 ip round-robin"),
    ("rdr le0 0/0 -> 192.168.1.1,192.168.1.2 sticky", "rdr le0 0/0 -> 192.168.1.1,192.168.1.2 ip sticky"),
    (
        "rdr le0 0/0 -> 192.168.1.5,192.168.1.7 round-robin sticky",
        "rdr le0 0/0 -> 192.168.1.5,192.168.1.7 ip round-robin sticky",
    ),
    ("rdr le0 0/0 -> 192.168.1.9 round-robin sticky", "rdr le0 0/0 -> 192.168.1.9 ip round-robin sticky"),
    ("rdr de0 0/0 port 80 -> 127.0.0.1 port 3128 tcp", None),
    ("rdr le0 0/0 port 80-88 -> 127.0.0.1 port 3128 tcp", None),
    ("rdr le0 0/0 port 80-88 -> 127.0.0.1 port = 3128 tcp", None),
    ("rdr le0 0/0 port 53 -> 127.0.0.1 port 10053 udp age 5/5", None),
    ("rdr ge0 0/0 port 21 -> 127.0.0.1 port 21 tcp proxy ftp", None),
    ("rdr le0,* 0/0 -> 192.168.1.0", "rdr le0,* 0/0 -> 192.168.1.0 ip"),
    (
        "rdr le0,ppp0 9.8.7.6/32 port 80 -> 1.1.1.1,1.1.1.2 port 80 tcp\n    " + LONG,
        "rdr le0,ppp0 9.8.7.6/32 port 80 -> 1.1.1.1,1.1.1.2 port 80 tcp " + LONG,
    ),
    (
        "rewrite in on ppp0 proto tcp from any to any port = 80 ->\n\tsrc 0/0 dst 127.0.0.1,3128;",
        "rewrite in on ppp0 proto tcp from 0/0 to 0/0 port = 80 -> src 0/0 dst 127.0.0.1/32,3128;",
    ),
    (
        "rewrite out on ppp0 from any to any ->\n\tsrc 0/32 dst 10.1.1.0/24;",
        "rewrite out on ppp0 from 0/0 to 0/0 -> src 0.0.0.0/32 dst 10.1.1.0/24;",
    ),
    (
        "rewrite in on le0 proto tcp from any to any port = 80 ->\n\tsrc 0/0,2000-20000 dst 127.0.0.1,port = 3128;",
        "rewrite in on le0 proto tcp from 0/0 to 0/0 port = 80 -> src 0/0,2000-20000 dst 127.0.0.1/32,port = 3128;",
    ),
    (
        "rewrite out on le0 proto tcp from any to any port = 80 ->\n\tsrc " + CYCLE,
        "rewrite out on le0 proto tcp from 0/0 to 0/0 port = 80 -> src " + CYCLE,
    ),
    # "KERNEL PROXIES"
    ("map le0 0/0 -> 0/32 proxy port 6667 irc/tcp", "map le0 0/0 -> 0.0.0.0/32 proxy port 6667 irc/tcp"),
    ("map le0 0/0 -> 0/32 proxy port 1720 h323/tcp", "map le0 0/0 -> 0.0.0.0/32 proxy port 1720 h323/tcp"),
    ("map le0 0/0 -> 0/32 proxy port 500 ipsec/udp", "map le0 0/0 -> 0.0.0.0/32 proxy port 500 ipsec/udp"),
    ("map le0 0/0 -> 0/32 proxy port shell rcmd/tcp", "map le0 0/0 -> 0.0.0.0/32 proxy port 514 rcmd/tcp"),
]

SYNTAX = "syntax error error at "
REFUSED = {
    # No port map beside a proxy, and a proxy has a port.
    "map le0 0/0 -> 0/32 proxy portmap 5000:5999 tag lan1 tcp": SYNTAX + '"portmap", line 1: expected "port"',
    "map bge0 from pool/100 to any port = 25 -> 127.0.0.1 port 2501 tcp": SYNTAX + '"port", line 1: expected',
    # As the manual says.
    "rdr le0 0/0 -> 192.168.1.0/24": 'dest ip bitmask not /32 error at "", line 1',
    # No in or out.
    "rewrite from any to any port = 80 ->\n\tsrc 1.1.2.3 - 1.1.2.6 dst 2.2.3.4 - 2.2.3.6;": (
        'syntax error error at "from", line 1: expected "in" or "out"'
    ),
    # Five octets, and no udp.
    "divert in on le0 proto udp from any to any port = 53 ->\n\tsrc 192.1.1.1,54 dst 192.168.1.22.1,5300;": (
        'syntax error error at ".", line 2: expected ","'
    ),
    # No word port.
    "rdr le0 192.0.0.0/8 port 80 -> 127.0.0.1 3132 tcp": 'unknown protocol error at "3132", line 1',
    "map le0 0/0 -> 0/32 proxy port 53 dns/udp { block .cnn.com; }": SYNTAX + '"{", line 1: expected a rule',
}


@pytest.mark.parametrize(("text", "canonical"), ACCEPTED)
def test_accepted(text: str, canonical: str | None) -> None:
    (rule,) = parse("ipnat.rules", text.encode()).rules
    assert printed(rule, resolve=False) == (canonical or text)
    assert parse("again", printed(rule).encode()).rules == (rule,)
    assert parse("again", printed(rule, resolve=False).encode()).rules == (rule,)


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text: str) -> None:
    with pytest.raises(JailError) as caught:
        parse("ipnat.rules", text.encode())
    line = 2 if "line 2" in REFUSED[text] else 1
    assert str(caught.value).startswith(f"ipnat.rules:{line}: {REFUSED[text]}")


def test_variables() -> None:
    (rule,) = parse("f", b'nif="ppp0";\nmap $nif 0/0 -> 0/32\n').rules
    assert printed(rule) == "map ppp0 0/0 -> 0.0.0.0/32"


def test_the_article() -> None:
    """Its file, and what `ipnat -l` printed there of it."""
    rules = parse("ipnat.rules", ARTICLE.read_bytes()).rules
    assert [printed(rule) for rule in rules] == [
        "map ep0 192.168.10.2/32 -> 0.0.0.0/32 portmap tcp/udp 10000:65000",
        "map ep0 192.168.10.2/32 -> 0.0.0.0/32",
        "rdr ep0 10.0.0.75/32 port 21 -> 192.168.10.2 port 21 tcp",
        "rdr ep0 10.0.0.75/32 port 22 -> 192.168.10.2 port 22 tcp",
        "rdr ep0 10.0.0.75/32 port 80 -> 192.168.10.2 port 80 tcp",
    ]
