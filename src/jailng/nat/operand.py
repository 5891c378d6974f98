"""What the rules of ipnat(5) are made of: addresses and their masks, ports, protocols, by the grammar of ipnat_y.y."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from jailng.errors import JailError
from jailng.nat import names
from jailng.nat.lex import Lexer, Token
from jailng.nat.rule import TCP, UDP, Address, Lookup, Net, Ports, Range, Split

Family = Literal[4, 6]
Sign = Literal["=", "!=", "<", ">", "<=", ">=", "<>", "><", ":"]

_SIZES = {4: 32, 6: 128}
_COMPARE: dict[str, Sign] = {sign: sign for sign in ("=", "!=", "<", ">", "<=", ">=")}
_BETWEEN: dict[str, Sign] = {"<>": "<>", "><": "><", ":": ":"}


@dataclass(slots=True)
class Operand:
    """An address as it was written. ``family`` is 0 where that is open: of ``any``, and of a 0 whatever its mask.

    ``mask`` is the mask's bits, unless ``length`` says how many of them are set; ``last`` is the second address of a
    range or of two; ``lookup`` is a pool.
    """

    family: int
    address: int = 0
    mask: int | None = None
    length: int | None = None
    last: int | None = None
    split: bool = False
    lookup: Lookup | None = None

    def net(self, family: Family) -> Net:
        """The addresses, in a rule of this family."""
        size = _SIZES[family]
        mask = self.mask
        if mask is None:
            length = self.length or 0
            mask = ((1 << length) - 1) << (size - length)
        return Net(_made(family, self.address & mask), _made(family, mask))

    def matched(self, family: Family) -> Net | Lookup:
        """The addresses on the left of ``->``."""
        return self.lookup or self.net(family)

    def target(self, family: Family) -> Net | Range | Split:
        """The addresses on the right of ``->``."""
        if self.last is None:
            return self.net(family)
        kind = Split if self.split else Range
        return kind(_made(family, self.address), _made(family, self.last))

    def mapped(self, family: Family) -> Net | Range:
        """The addresses on the right of ``->`` where there cannot be two of them."""
        target = self.target(family)
        assert not isinstance(target, Split)
        return target


class Reader:
    """Reads operands from tokens. ``family`` is what the rule said (inet, inet6), or 0: names of hosts go by it."""

    __slots__ = ("tokens", "family")

    def __init__(self, tokens: Lexer) -> None:
        self.tokens = tokens
        self.family = 0

    # Tokens

    def at(self, *kinds: str) -> bool:
        """Whether the next token is of one of these kinds."""
        return self.tokens.peek().kind in kinds

    def take(self, *kinds: str) -> Token | None:
        """The next token, if it is of one of these kinds."""
        return self.tokens.next() if self.at(*kinds) else None

    def expect(self, kind: str, what: str = "") -> Token:
        """The next token, which has to be of this kind. Raises JailError."""
        if not self.at(kind):
            raise self.tokens.expected(what or f'"{kind}"')
        return self.tokens.next()

    def wrong(self, what: str, token: Token | None = None) -> JailError:
        """An error in what is written, at a token or at the next."""
        return self.tokens.error(what, token or self.tokens.peek())

    def same(self, number: int, *families: int) -> None:
        """Raise JailError if two of these families are not one. ``number`` is FreeBSD's, of its place in ipnat_y.y."""
        if len({0, *families}) > 2:
            raise self.wrong(f"{number}.address family mismatch")

    # Addresses

    def address(self, extended: bool = False) -> Operand:
        """``any``, an address or a name with or without a mask, and in from and to a pool (``addr`` of ipnat_y.y)."""
        if self.take("any"):
            return Operand(0)
        if self.at("pool", "hash"):
            if not extended:
                raise self.wrong(f"Can only use {self.tokens.peek().kind} with from/to rules")
            return Operand(0, lookup=self.lookup())
        return self._masked(self._host())

    def lookup(self) -> Lookup:
        """``pool/NAME``, ``hash/NAME`` or ``dstlist/NAME``."""
        kind = self.tokens.next().kind
        self.expect("/")
        if not self.at("number", "string"):
            raise self.tokens.expected("a name or a number")
        return Lookup(kind, self.tokens.next().text)  # type: ignore[arg-type]  # who calls has looked

    def target(self, bare: int = 8, worded: int = 9) -> Operand:
        """Where map and rewrite take packets to: an address, or a range with or without that word.

        The numbers are those of ``same``, for a range.
        """
        return self._range(bare, worded)

    def redirected(self) -> Operand:
        """Where rdr takes packets to: one address, two, or a range. A mask has to be that of one address, or 0."""
        operand = self._range(11, 12, split=True)
        size = _SIZES[operand.family or self.family or 4]
        whole = operand.length in (None, 0, size) if operand.mask is None else operand.mask in (0, (1 << size) - 1)
        if operand.last is None and not whole:
            raise self.wrong(f"dest ip bitmask not /{size}")
        return operand

    def _range(self, bare: int, worded: int, split: bool = False) -> Operand:
        word = self.take("range")
        if not word and self.at("any"):
            return self.address()
        operand = self._host()
        comma = split and not word and self.at(",")
        if comma or self.at("-"):
            self.tokens.next()
            last = self._host()
            self.same(10 if comma else worded if word else bare, operand.family, last.family)
            operand.family = operand.family or last.family
            operand.last = last.address
            operand.split = comma
            if not comma and last.address < operand.address:
                raise self.wrong("a range that ends before it begins")
            return operand
        if word:
            raise self.tokens.expected('"-"')
        return self._masked(operand)

    def _host(self) -> Operand:
        """An address without a mask: dotted, with colons, a number, or a name, which is looked up."""
        token = self.tokens.peek()
        if token.kind == "number":
            if self.tokens.peek(1).kind == ".":
                return Operand(4, self._dotted())
            self.tokens.next()
            return Operand(4 if token.value else 0, token.value)
        if token.kind == "ipv4":
            return Operand(4, self._dotted())
        if token.kind == "ipv6":
            self.tokens.next()
            return Operand(6, int(IPv6Address(token.text)))
        if token.kind != "string":
            raise self.tokens.expected("an address")
        self.tokens.next()
        family = 6 if self.family == 6 else 4
        address = names.host(token.text, family)
        if address is None:
            raise JailError(f"{self.tokens.place(token.line)}: Unknown host '{token.text}'")
        return Operand(family, int(address))

    def _masked(self, operand: Operand) -> Operand:
        """The mask of an address, if there is one; an address without is a single one."""
        sign = self.take("/", "mask")
        token = self.tokens.peek()
        if not sign:
            operand.length = _SIZES.get(operand.family, 0)
        elif token.kind == "hex":
            self.tokens.next()
            if operand.family == 6:
                raise self.wrong("incorrect inet6 mask", token)
            operand.family, operand.mask = 4, token.value
        elif token.kind in ("ipv4", "ipv6") or (token.kind == "number" and self.tokens.peek(1).kind == "."):
            mask = self._host()
            self.same(1 if sign.kind == "/" else 2, operand.family, mask.family)
            operand.family, operand.mask = mask.family, mask.address
        elif token.kind == "number" and sign.kind == "/":
            self.tokens.next()
            if token.value > _SIZES.get(operand.family, 128):
                raise self.wrong("invalid netmask", token)
            operand.family = operand.family or (6 if token.value > _SIZES[4] else 0)
            operand.length = token.value
        else:
            raise self.tokens.expected("a netmask")
        return operand

    def _dotted(self) -> int:
        """Four numbers, which may stand apart."""
        whole = self.take("ipv4")
        octets = whole.text.split(".") if whole else [self.expect("number", "a number").text]
        while not whole and len(octets) < 4:
            self.expect(".")
            octets.append(self.expect("number", "a number").text)
        value = 0
        for octet in octets:
            if int(octet) > 255:
                raise self.wrong("Invalid octet string for IP address", whole)
            value = value << 8 | int(octet)
        return value

    # Ports and protocols

    def port(self) -> int:
        """A port, or a service by its name."""
        token = self.tokens.peek()
        if token.kind not in ("number", "string"):
            raise self.tokens.expected("a port")
        self.tokens.next()
        port = token.value if token.kind == "number" else names.service(token.text)
        if port is None or port > 65535:
            raise self.wrong("invalid port number", token)
        return port

    def ports(self) -> tuple[int, int]:
        """``P``, ``P-Q`` or ``P:Q``, the ends of a range."""
        first = self.port()
        if not self.take("-", ":"):
            return first, first
        end = self.tokens.peek()
        last = self.port()
        self._ordered(first, last, end)
        return first, last

    def compared(self) -> Ports:
        """What ``port`` of from and to is compared with: ``= P``, ``P <> Q`` and the like."""
        sign = self.take(*_COMPARE)
        if sign:
            return Ports(_COMPARE[sign.kind], self.port())
        first = self.port()
        between = self.take(*_BETWEEN)
        if not between:
            raise self.tokens.expected('"<>", "><" or ":"')
        end = self.tokens.peek()
        last = self.port()
        self._ordered(first, last, end)
        return Ports(_BETWEEN[between.kind], first, last)

    def number(self, most: int, what: str) -> int:
        """A number that may not be larger."""
        token = self.expect("number", what)
        if token.value > most:
            raise self.wrong(f"{what} above {most}", token)
        return token.value

    def protocol(self) -> int:
        """One protocol, 0 for ``ip``."""
        token = self.tokens.peek()
        if token.kind not in ("number", "string", "tcp", "udp"):
            raise self.tokens.expected("a protocol")
        self.tokens.next()
        number = token.value if token.kind == "number" else names.protocol(token.text)
        if number is None or number > 255:
            raise self.wrong("unknown protocol", token)
        return number

    def protocols(self) -> tuple[int, ...]:
        """A protocol, ``tcp/udp`` or ``tcpudp``; () for ``ip``."""
        if self.take("tcpudp"):
            return TCP, UDP
        number = self.protocol()
        if number == TCP and self.at("/") and self.tokens.peek(1).kind == "udp":
            self.tokens.next()
            self.tokens.next()
            return TCP, UDP
        return (number,) if number else ()

    def _ordered(self, first: int, last: int, end: Token) -> None:
        if last < first:
            raise self.wrong(f"ports that end ({last}) before they begin ({first})", end)


def _made(family: int, address: int) -> Address:
    return IPv6Address(address) if family == 6 else IPv4Address(address)
