"""What a rule of ipnat(5) has been seen to say, until it is complete; and what may follow its addresses."""

from __future__ import annotations

from jailng.nat import names
from jailng.nat.lex import Token
from jailng.nat.operand import Family, Operand, Reader
from jailng.nat.rule import ICMP, ICMPV6, TCP, UDP, Match, Options, PortMap, Ports, Proxy

# The words that may follow, by the kind of rule.
_COMMON = frozenset({"protocol", "round-robin", "frag", "age", "mssclamp", "tag", "purge"})
MAP = _COMMON | {"portmap", "proxy"}
MAP_BLOCK = _COMMON | {"ports"}
RDR = _COMMON | {"sticky", "proxy"}
PROTOCOL = ("number", "string", "tcp", "udp", "tcpudp")  # tokens that may begin a protocol
_TAG = 16  # bytes (IPFTAG_LEN)


class Given:
    """What a rule has been seen to say, until it is complete."""

    __slots__ = (
        *("interfaces", "source", "destination", "source_ports", "destination_ports", "not_source", "not_destination"),
        *("extended", "ported", "protocols", "seen", "portmap", "proxy", "options", "sticky", "ports", "auto", "line"),
    )

    def __init__(self, line: int) -> None:
        self.line = line
        self.interfaces = ("", "")
        self.source = Operand(0)
        self.destination = Operand(0)
        self.source_ports: Ports | None = None
        self.destination_ports: Ports | None = None
        self.not_source = False
        self.not_destination = False
        self.extended = False
        self.ported = False  # whether the word port has been there
        self.protocols: tuple[int, ...] | None = None  # None where none is given; () for ip
        self.seen: set[str] = set()
        self.portmap: PortMap | None = None
        self.proxy: Proxy | None = None
        self.options: dict[str, object] = {}
        self.sticky = False
        self.ports = 0
        self.auto = False

    def match(self, family: Family) -> Match:
        """Which packets the rule is for. Ports are only of TCP and UDP."""
        ports = self.has_ports
        return Match(
            self.source.matched(family),
            self.destination.matched(family),
            self.source_ports if ports else None,
            self.destination_ports if ports else None,
            self.not_source,
            self.not_destination,
            self.extended,
        )

    @property
    def has_ports(self) -> bool:
        """Whether the protocols are TCP or UDP, or have not been given."""
        return self.protocols is None or bool(set(self.protocols) & {TCP, UDP})

    def protocols_or(self, default: tuple[int, ...]) -> tuple[int, ...]:
        """The protocols; where ports are spoken of and no protocol is, these."""
        if self.protocols is not None:
            return self.protocols
        return default if self.ported else ()

    def common(self) -> Options:
        """The options that map and rdr share."""
        return Options(**self.options)  # type: ignore[arg-type]  # _simple puts in what belongs there


def options(reader: Reader, allowed: frozenset[str], given: Given) -> None:
    """All options that come, each at most once."""
    while True:
        token = reader.tokens.peek()
        kind = "portmap" if token.kind == "icmpidmap" else token.kind
        if kind in PROTOCOL and not (kind == "string" and reader.tokens.peek(1).kind == "="):
            kind = "protocol"
        if kind not in allowed:
            return
        if kind in given.seen or (kind == "protocol" and given.protocols is not None):
            raise reader.wrong(f"{kind} set twice")
        given.seen.add(kind)
        if kind == "protocol":
            given.protocols = reader.protocols()
        elif kind == "portmap":
            _portmap(reader, given)
        elif kind == "proxy":
            _proxy(reader, given, short=allowed is RDR)
        else:
            _simple(reader, reader.tokens.next(), given)


def _simple(reader: Reader, word: Token, given: Given) -> None:
    if word.kind in ("round-robin", "frag", "purge"):
        given.options[word.kind.replace("-", "_")] = True
    elif word.kind == "sticky":
        given.sticky = True
    elif word.kind == "age":
        there = back = reader.number(0xFFFFFFFF, "age")
        if reader.take("/"):
            back = reader.number(0xFFFFFFFF, "age")
        if back and not there:
            raise reader.wrong("an age for replies alone", word)
        given.options["age"] = (there, back) if there else None
    elif word.kind == "mssclamp":
        given.options["mssclamp"] = reader.number(65535, "mssclamp")
    elif word.kind == "tag":
        tag = reader.expect("string", "a tag")
        if not 0 < len(tag.text.encode("utf-8", "surrogateescape")) <= _TAG:
            raise reader.wrong(f"a tag that is empty or has over {_TAG} bytes", tag)
        given.options["tag"] = tag.text
    elif reader.take("auto"):
        given.auto = True
    else:
        given.ports = reader.number(65535, "ports")


def _portmap(reader: Reader, given: Given) -> None:
    word = reader.tokens.next()
    if given.protocols is not None:
        raise reader.wrong("protocol set twice", word)
    auto = False
    low, high = 1024, 65535
    if word.kind == "icmpidmap":
        which = reader.expect("string", '"icmp" or "ipv6-icmp"')
        if which.text not in ("icmp", "ipv6-icmp"):
            raise reader.wrong("icmpidmap not followed by icmp", which)
        given.protocols = (ICMP if which.text == "icmp" else ICMPV6,)
        low, high = reader.ports()
    elif reader.at("tcp", "udp", "tcpudp"):
        given.protocols = reader.protocols()
        auto = bool(reader.take("auto"))
        if not auto:
            low, high = reader.ports()
    else:
        low, high = reader.ports()
        if not reader.at("tcp", "udp", "tcpudp"):
            raise reader.tokens.expected('"tcp", "udp" or "tcp/udp"')
        given.protocols = reader.protocols()
    sequential = bool(reader.take("sequential"))
    given.portmap = PortMap(low, high, auto, sequential, icmp=word.kind == "icmpidmap")
    if given.proxy:
        raise reader.wrong("portmap beside proxy", word)


def _proxy(reader: Reader, given: Given, short: bool) -> None:
    """``proxy port PORT LABEL/PROTO [config NAME]``, or of rdr ``proxy LABEL``."""
    word = reader.tokens.next()
    if short and reader.at("string"):
        given.proxy = Proxy(reader.tokens.next().text)
        return
    reader.expect("port")
    port = reader.tokens.peek()
    if port.kind not in ("number", "string"):
        raise reader.tokens.expected("a port")
    reader.tokens.next()
    label = reader.expect("string", "the name of a proxy").text
    reader.expect("/")
    protocol = reader.protocol()
    number = port.value if port.kind == "number" else names.service(port.text, protocol)
    if number is None or not 0 < number <= 65535:
        raise reader.wrong("invalid port number", port)
    config = reader.expect("string", "a name").text if reader.take("config") else ""
    if given.portmap:
        raise reader.wrong("portmap beside proxy", word)
    if given.protocols is not None and not short:
        raise reader.wrong("protocol set twice", word)
    given.protocols = (protocol,) if protocol else ()
    given.proxy = Proxy(label, number, config)
