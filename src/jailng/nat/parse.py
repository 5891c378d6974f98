"""The grammar of ipnat(5), text to rules, as IPFilter's ipnat_y.y has it.

The one liberty: what follows the addresses after ``->`` may stand in any order, as it does in FreeBSD's own manual.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from jailng.nat.given import MAP, MAP_BLOCK, PROTOCOL, RDR, Given, options
from jailng.nat.lex import Lexer
from jailng.nat.operand import Family, Operand, Reader
from jailng.nat.rule import (
    TCP,
    UDP,
    Divert,
    Encap,
    Map,
    MapBlock,
    NewPorts,
    No,
    Ports,
    Proxy,
    ProxyConfig,
    Rdr,
    Rewrite,
    Rule,
    Rules,
)

_PASS = {"allow": True, "pass": True, "deny": False, "block": False, "drop": False}


def parse(name: str, content: bytes, variables: Mapping[str, str] | None = None) -> Rules:
    """The rules of a text, with ``variables`` set before. ``name`` is the text's, for messages.

    Raises JailError at the first error: ``NAME:LINE: what``, in FreeBSD's words after that.
    """
    return _Parser(Lexer(name, content.decode("utf-8", "surrogateescape"), variables)).file()


class _Parser:
    def __init__(self, tokens: Lexer) -> None:
        self.tokens = tokens
        self.reader = Reader(tokens)
        self.rules: list[Rule] = []
        self.proxies: list[ProxyConfig] = []
        self.warnings: list[str] = []

    def file(self) -> Rules:
        while (token := self.tokens.peek()).kind:
            if token.kind == "string" and self.tokens.peek(1).kind == "=":
                self._assign()
            elif token.kind == "proxy":
                self._proxy_config()
            else:
                self.rules.append(self._rule())
        return Rules(self.tokens.name, tuple(self.rules), tuple(self.proxies), tuple(self.warnings))

    def _assign(self) -> None:
        name = self.tokens.next().text
        self.tokens.next()
        value = self.tokens.peek()
        if value.kind in ("", "number", "hex", "ipv6") or not value.kind[0].isalpha():
            raise self.tokens.expected("a string")  # a keyword is one here
        self.tokens.next()
        self.reader.expect(";")
        self.tokens.variables[name] = value.text

    def _rule(self) -> Rule:
        token = self.tokens.peek()
        given = Given(token.line)
        self.reader.family = 0
        exception = self.reader.take("no")
        kind = self.tokens.peek().kind
        if kind in ("rewrite", "divert", "encap") and not exception:
            self.tokens.next()
            return self._both(kind, given)
        if kind not in ("map", "bimap", "map-block", "rdr"):
            raise self.tokens.expected('"map", "bimap", "map-block" or "rdr"' if exception else "a rule")
        self.tokens.next()
        self._interfaces(given)
        self._left(kind, given)
        if exception:
            return self._exception(kind, given)
        self.reader.expect("->")
        made = {"rdr": self._rdr, "map-block": self._map_block}.get(kind)
        rule = made(given) if made else self._map("bimap" if kind == "bimap" else "map", given)
        self.reader.take(";")
        return rule

    # Left of ->

    def _interfaces(self, given: Given) -> None:
        first = second = self.reader.expect("string", "an interface").text
        if self.reader.take(","):
            second = self.reader.expect("string", "an interface").text
        given.interfaces = first, second
        self._family_word()

    def _family_word(self) -> None:
        word = self.reader.take("inet", "inet6")
        if word:
            self.reader.family = 6 if word.kind == "inet6" else 4

    def _left(self, kind: str, given: Given) -> None:
        """The match: an address, or from and to."""
        if kind != "map-block" and self.reader.at("from", *["!"] * (kind == "rdr")):
            self._from_to(given, kind == "rdr")
        elif kind == "rdr":
            given.destination = self.reader.address()
            if self.reader.take("port"):
                given.ported = True
                given.destination_ports = _range_of(*self.reader.ports())
        else:
            given.source = self.reader.address()

    def _from_to(self, given: Given, rdr: bool) -> None:
        """``[!] from [!] OBJECT to OBJECT`` of rdr, ``from OBJECT [!] to [!] OBJECT`` of the others."""
        given.extended = True
        reader = self.reader
        number = 16 if rdr else 13
        if rdr and reader.take("!"):
            number = 17
        reader.expect("from")
        if rdr and number == 16 and reader.take("!"):
            number = 18
        given.source, given.source_ports = self._object(given)
        if not rdr and reader.take("!"):
            number = 14
        reader.expect("to")
        if number == 13 and reader.take("!"):
            number = 15
        given.destination, given.destination_ports = self._object(given)
        given.not_source = number in (17, 18)
        given.not_destination = number in (14, 15)
        reader.same(number, given.source.family, given.destination.family)

    def _object(self, given: Given) -> tuple[Operand, Ports | None]:
        address = self.reader.address(extended=True)
        if not self.reader.take("port"):
            return address, None
        given.ported = True
        return address, self.reader.compared()

    def _family(self, given: Given, *targets: Operand) -> Family:
        """The family of the rule, which all of its addresses have to be of."""
        families = {one.family for one in (given.source, given.destination, *targets)} | {self.reader.family}
        if families >= {4, 6}:
            raise self.reader.wrong("address family mismatch")
        return 6 if 6 in families else 4

    # The forms

    def _exception(self, kind: str, given: Given) -> Rule:
        if self.reader.at(*PROTOCOL):
            given.protocols = self.reader.protocols()
        self.reader.take(";")
        family = self._family(given)
        protocols = given.protocols_or((TCP,) if kind == "rdr" else (TCP, UDP))
        return No(kind, family, given.interfaces, given.match(family), protocols, given.line)  # type: ignore[arg-type]

    def _map(self, kind: Literal["map", "bimap"], given: Given) -> Rule:
        target = self.reader.target()
        options(self.reader, MAP, given)
        self.reader.same((5 if given.extended else 3) + bool(given.portmap), given.source.family, target.family)
        family = self._family(given, target)
        ports = given.destination_ports
        if given.proxy and ports and ports.low != given.proxy.port:
            raise self.reader.wrong("proxy port numbers not consistant")
        return Map(
            kind,
            family,
            given.interfaces,
            given.match(family),
            target.mapped(family),
            given.protocols_or((TCP, UDP)),
            given.portmap,
            given.proxy,
            given.common(),
            given.line,
        )

    def _map_block(self, given: Given) -> Rule:
        target = self.reader.address()
        options(self.reader, MAP_BLOCK, given)
        self.reader.same(7, given.source.family, target.family)
        family = self._family(given, target)
        return MapBlock(
            family,
            given.interfaces,
            given.match(family),
            target.net(family),
            given.ports,
            given.auto,
            given.protocols_or((TCP, UDP)),
            given.common(),
            given.line,
        )

    def _rdr(self, given: Given) -> Rule:
        reader = self.reader
        target = reader.redirected()
        low = high = 0
        fixed = False
        if reader.take("port"):
            given.ported = True
            fixed = bool(reader.take("="))
            low, high = (reader.port(),) * 2 if fixed else reader.ports()
        options(reader, RDR, given)
        reader.same(20 if given.extended else 21, given.source.family, given.destination.family, target.family)
        family = self._family(given, target)
        proxy = given.proxy
        if proxy:
            if proxy.port:  # proxy port PORT LABEL/PROTO: packets to it, which keep it
                low, high, fixed = proxy.port, proxy.port, False
                if not given.extended:
                    given.destination_ports = None
            if given.destination_ports is None and (proxy.port or not given.extended):
                given.destination_ports = _range_of(low, low)
            proxy = Proxy(proxy.label, config=proxy.config)
        if not given.has_ports:
            low, high, fixed = 0, 0, False
        if given.sticky and not (given.options.get("round_robin") or target.split):
            given.sticky = False
            where = self.tokens.place(given.line)
            self.warnings.append(f"{where}: 'sticky' for use with round-robin/IP splitting only")
        return Rdr(
            family,
            given.interfaces,
            given.match(family),
            target.target(family),
            low,
            high,
            fixed,
            given.protocols_or((TCP,)),
            given.sticky,
            proxy,
            given.common(),
            given.line,
        )

    def _both(self, kind: str, given: Given) -> Rule:
        """rewrite, divert and encap: ``in|out on IF [proto P] from … to … -> src … dst …;``."""
        reader = self.reader
        direction: Literal["in", "out"] = "in" if reader.take("in") else "out"
        if direction == "out":
            reader.expect("out", '"in" or "out"')
        reader.expect("on")
        self._interfaces(given)
        if reader.take("proto"):
            given.protocols = reader.protocols()
        self._from_to(given, rdr=False)
        reader.expect("->")
        reader.expect("src")
        parts = {"rewrite": self._rewrite, "divert": self._divert}.get(kind, self._encap)(given, direction)
        reader.expect(";")
        return parts

    def _rewrite(self, given: Given, direction: Literal["in", "out"]) -> Rule:
        reader = self.reader
        source = reader.target()
        source_ports = self._new_ports(given)
        reader.expect("dst")
        lookup = reader.lookup() if reader.at("dstlist") else None
        destination = Operand(0) if lookup else reader.target(11, 12)
        destination_ports = self._new_ports(given)
        purge = bool(reader.take("purge"))
        family = self._family(given, source, destination)
        return Rewrite(
            direction,
            family,
            given.interfaces,
            given.match(family),
            source.mapped(family),
            lookup or destination.mapped(family),
            source_ports,
            destination_ports,
            given.protocols_or((TCP, UDP)),
            purge,
            given.line,
        )

    def _new_ports(self, given: Given) -> NewPorts | None:
        """``,P``, ``,P-Q`` or ``port = P``, before which a comma may stand."""
        comma = self.reader.take(",")
        word = self.reader.take("port")
        if not comma and not word:
            return None
        if not given.protocols or not given.has_ports:
            raise self.reader.wrong("must be TCP/UDP for ports")
        if not word:
            return NewPorts(*self.reader.ports())
        self.reader.expect("=")
        port = self.reader.port()
        return NewPorts(port, port, fixed=True)

    def _divert(self, given: Given, direction: Literal["in", "out"]) -> Rule:
        reader = self.reader
        source, source_port = self._socket()
        reader.expect("dst")
        destination, destination_port = self._socket()
        reader.expect("udp")
        family = self._family(given, source, destination)
        return Divert(
            direction,
            family,
            given.interfaces,
            given.match(family),
            source.net(family),
            source_port,
            destination.net(family),
            destination_port,
            given.protocols_or((TCP, UDP)),
            bool(reader.take("purge")),
            given.line,
        )

    def _socket(self) -> tuple[Operand, int]:
        address = self.reader.address()
        if not address.net(6 if address.family == 6 else 4).host:
            raise self.reader.wrong("divert must have /32 dest")
        self.reader.expect(",")
        return address, self.reader.port()

    def _encap(self, given: Given, direction: Literal["in", "out"]) -> Rule:
        source = self.reader.address()
        self.reader.expect("dst")
        destination = self.reader.address()
        family = self._family(given, source, destination)
        return Encap(
            direction,
            family,
            given.interfaces,
            given.match(family),
            source.net(family),
            destination.net(family),
            given.protocols_or((TCP, UDP)),
            bool(self.reader.take("purge")),
            given.line,
        )

    def _proxy_config(self) -> None:
        """``proxy dns/PROTO config NAME { allow|deny [.]NAME; … };``."""
        reader = self.reader
        line = self.tokens.next().line
        label = reader.expect("string", '"dns"')
        if label.text.lower() != "dns":
            raise reader.wrong("syntax error", label)
        reader.expect("/")
        protocol = reader.protocol()
        reader.expect("config")
        name = reader.expect("string", "a name").text
        reader.expect("{")
        passed: list[tuple[bool, str]] = []
        while not passed or not reader.at("}"):
            verdict = reader.expect("string", '"allow" or "deny"')
            if verdict.text.lower() not in _PASS:
                raise reader.wrong("syntax error", verdict)
            dot = "." if reader.take(".") else ""
            passed.append((_PASS[verdict.text.lower()], dot + reader.expect("string", "a name").text))
            reader.expect(";")
        self.tokens.next()
        reader.expect(";")
        self.proxies.append(ProxyConfig("dns", protocol, name, tuple(passed), line))


def _range_of(low: int, high: int) -> Ports | None:
    """The ports of rdr's short form: port 0 is any."""
    if not low:
        return None
    return Ports("=", low) if low == high else Ports(":", low, high)
