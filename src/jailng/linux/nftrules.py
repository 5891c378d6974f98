"""nf_tables, beyond what every jail needs (nftables.py): maps of verdicts, ranges, NAT, limits, logs and counters.

One message a function, one expression a function; numbers are in network order: include/uapi/linux/netfilter/
nf_tables.h. A key of several parts is laid out in registers of 32 bits, from the first on: ``Key`` counts them.
"""

from __future__ import annotations

from _struct import pack

from jailng.linux import nftables as nft
from jailng.linux.netlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, attribute, attributes, nested
from jailng.linux.nftables import expression, message, number, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.netlink import Message

POSTROUTING, OUTPUT = 4, 3  # hooks, as nft.PREROUTING
DSTNAT, SRCNAT = -100, 100
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
TYPE_IPV4, TYPE_IPV6 = 7, 8
FROM_BEGINNER, ANSWER = 0, 1  # directions

_GETCHAIN, _DELCHAIN, _GETRULE, _DELRULE = 0xA04, 0xA05, 0xA07, 0xA08
_FIRST = 8  # NFT_REG32_00, where a key begins
_VERDICT = 0  # the register that an immediate or a map of verdicts goes to
_JUMP, _GOTO, _RETURN = pack(">i", -3), pack(">i", -4), pack(">i", -5)
_IS_INTERVAL, _IS_MAP, _IS_JOINED = 4, 8, 0x80
_ENDS = 1  # of an element: NFT_SET_ELEM_INTERVAL_END
_LESS_OR_EQUAL, _GREATER_OR_EQUAL = 3, 5
_COMMENT = 0  # of a rule's user data, as nft(8) writes it
_MOST_IN_ONE = 1000  # elements in a message, whose attribute may not exceed 64 KiB


# Tables and chains


def get_table(table: str) -> Message:
    """Ask for a table: ENOENT, or an answer that ``uses`` reads."""
    return message(nft.GETTABLE, 0, text(1, table))


def uses(body: bytes) -> int:
    """How many chains, sets and objects the table has."""
    return int.from_bytes(attributes(body, 4)[3], "big")


def new_nat_chain(table: str, chain: str, hook: int, priority: int) -> Message:
    """A chain of type nat at a hook, whose policy is to accept."""
    where = nested(4, number(1, hook), number(2, priority))
    return message(nft.NEWCHAIN, NLM_F_CREATE, text(1, table), text(3, chain), where, text(7, "nat"))


def new_plain_chain(table: str, chain: str) -> Message:
    """A chain at no hook; it must not exist."""
    return message(nft.NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL, text(1, table), text(3, chain))


def delete_chain(table: str, chain: str) -> Message:
    """A chain and its rules; nothing may lead to it any more."""
    return message(_DELCHAIN, 0, text(1, table), text(3, chain))


def delete_rules(table: str, chain: str) -> Message:
    """All rules of a chain."""
    return message(_DELRULE, 0, text(1, table), text(2, chain))


def get_chains() -> Message:
    """Ask for all chains of the inet family; answered by what ``chain_of`` reads."""
    return message(_GETCHAIN, NLM_F_DUMP)


def chain_of(body: bytes) -> tuple[str, str]:
    """The table and the name of a chain, which may be anybody's."""
    found = attributes(body, 4)
    table, chain = [found[kind].rstrip(b"\0").decode(errors="surrogateescape") for kind in (1, 3)]
    return table, chain


def get_rules(table: str, chain: str) -> Message:
    """Ask for the rules of a chain; answered by what ``counted`` reads."""
    return message(_GETRULE, NLM_F_DUMP, text(1, table), text(2, chain))


def counted(body: bytes) -> tuple[str, int, int]:
    """The comment of a rule, "" if it has none, and packets and bytes of its counter, 0 if it has none."""
    found = attributes(body, 4)
    packets = size = 0
    for parts in nft.listed(found.get(4, b"")):
        if parts[1] == b"counter\0":
            numbers = attributes(parts[2])
            size, packets = int.from_bytes(numbers[1], "big"), int.from_bytes(numbers[2], "big")
    said = found.get(7, b"")
    return said[2:].rstrip(b"\0").decode() if said[:1] == bytes([_COMMENT]) else "", packets, size


def commented(rule: Message, comment: str) -> Message:
    """The same rule with a comment, which nft(8) shows."""
    kind, flags, body = rule
    said = comment.encode() + b"\0"
    return kind, flags, body + attribute(7, bytes([_COMMENT, len(said)]) + said)


# Sets and maps


def new_map(table: str, name: str, identifier: int, parts: list[tuple[int, int]], joined: bool = False) -> Message:
    """A map to verdicts, of keys whose ``parts`` are types and lengths; if ``joined`` each part may be a range."""
    flags = _IS_MAP | (_IS_INTERVAL | _IS_JOINED if joined else 0)
    verdict = number(6, 0xFFFFFF00), number(7, 16)
    return message(nft.NEWSET, NLM_F_CREATE, *_declared(table, name, identifier, parts, flags), *verdict)


def new_range_set(table: str, name: str, identifier: int, kind: int, length: int) -> Message:
    """A set of ranges of addresses."""
    return message(nft.NEWSET, NLM_F_CREATE, *_declared(table, name, identifier, [(kind, length)], _IS_INTERVAL))


def new_joined_set(table: str, name: str, identifier: int, parts: list[tuple[int, int]]) -> Message:
    """A set of keys of several parts."""
    return message(nft.NEWSET, NLM_F_CREATE, *_declared(table, name, identifier, parts, 0))


def _declared(table: str, name: str, identifier: int, parts: list[tuple[int, int]], flags: int) -> list[bytes]:
    kind = length = 0
    for part, size in parts:
        kind = kind << nft.TYPE_BITS | part
        length += (size + 3) & ~3
    said = [text(1, table), text(2, name), number(3, flags), number(4, kind), number(5, length), number(10, identifier)]
    said += nft.shown(kind)
    if flags & _IS_JOINED:
        fields = [nested(nft.LIST_ELEM, number(1, size)) for _, size in parts]
        said.append(nested(9, nested(2, *fields)))
    return said


Element = tuple[bytes, bytes, str]  # a key, the last key of its range (b"": no range), and the chain to go to ("": set)


def new_elements(table: str, name: str, elements: list[Element]) -> list[Message]:
    """Put keys into a map or set; EEXIST where one is there, unless it leads nowhere, or overlaps."""
    flags = NLM_F_CREATE | (NLM_F_EXCL if any(chain for _, _, chain in elements) else 0)
    return _elements(nft.NEWSETELEM, flags, table, name, elements)


def delete_elements(table: str, name: str, elements: list[Element]) -> list[Message]:
    """Take keys out of a map or set; ENOENT where one is not there."""
    return _elements(nft.DELSETELEM, 0, table, name, elements)


def delete_all_elements(table: str, name: str) -> Message:
    """Empty a set."""
    return message(nft.DELSETELEM, 0, text(1, table), text(2, name))


def _elements(kind: int, flags: int, table: str, name: str, elements: list[Element]) -> list[Message]:
    made = []
    for first in range(0, len(elements), _MOST_IN_ONE):
        coded = [_element(*element) for element in elements[first : first + _MOST_IN_ONE]]
        made.append(message(kind, flags, text(1, table), text(2, name), nested(3, *coded)))
    return made


def _element(key: bytes, last: bytes, chain: str) -> bytes:
    parts = [nested(1, attribute(nft.DATA_VALUE, key))]
    if chain:
        parts.append(nested(2, _verdict(_GOTO, chain)))
    if last:
        parts.append(nested(10, attribute(nft.DATA_VALUE, last)))
    return nested(nft.LIST_ELEM, *parts)


def new_ranges(table: str, name: str, ranges: list[tuple[int, int]], length: int) -> list[Message]:
    """Put ranges of addresses, sorted and apart from each other, into a set of ranges."""
    end = number(3, _ENDS)
    coded = [] if ranges[:1] and ranges[0][0] == 0 else [_edge(0, length, end)]
    for first, last in ranges:
        coded.append(_edge(first, length))
        if last + 1 < 1 << (8 * length):
            coded.append(_edge(last + 1, length, end))
    return [message(nft.NEWSETELEM, NLM_F_CREATE, text(1, table), text(2, name), nested(3, *coded))]


def _edge(value: int, length: int, *flags: bytes) -> bytes:
    return nested(nft.LIST_ELEM, nested(1, attribute(nft.DATA_VALUE, value.to_bytes(length, "big"))), *flags)


def elements(body: bytes) -> list[Element]:
    """The elements in an answer to ``nft.get_elements``."""
    found: list[Element] = []
    for parts in nft.listed(attributes(body, 4).get(3, b"")):
        last = attributes(parts[10])[nft.DATA_VALUE] if 10 in parts else b""
        chain = ""
        if 2 in parts and nft.DATA_VERDICT in (data := attributes(parts[2])):
            chain = attributes(data[nft.DATA_VERDICT]).get(2, b"").rstrip(b"\0").decode()
        found.append((attributes(parts[1])[nft.DATA_VALUE], last, chain))
    return found


# Expressions


class Key:
    """The parts of a key, loaded one after the other; ``parts`` are the expressions."""

    __slots__ = ("parts", "register")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.register = _FIRST

    def _next(self, length: int) -> int:
        at = self.register
        self.register += (length + 3) // 4
        return at

    def meta(self, what: int, length: int) -> Key:
        """A property of the packet, as nft.load."""
        self.parts.append(nft.load(what, self._next(length)))
        return self

    def payload(self, base: int, offset: int, length: int) -> Key:
        """Bytes of the header at ``base``: 1 of the network, 2 of the transport."""
        where = (number(2, base), number(3, offset), number(4, length))
        self.parts.append(expression("payload", number(1, self._next(length)), *where))
        return self

    def source(self, six: bool) -> Key:
        """``ip saddr`` or ``ip6 saddr``."""
        return self.payload(1, 8, 16) if six else self.payload(1, 12, 4)

    def destination(self, six: bool) -> Key:
        """``ip daddr`` or ``ip6 daddr``."""
        return self.payload(1, 24, 16) if six else self.payload(1, 16, 4)

    def protocol(self) -> Key:
        """``meta l4proto``."""
        return self.meta(nft.L4PROTO, 1)

    def source_port(self) -> Key:
        """``th sport``."""
        return self.payload(2, 0, 2)

    def destination_port(self) -> Key:
        """``th dport``."""
        return self.payload(2, 2, 2)

    def led_by(self, map_: str) -> list[bytes]:
        """``vmap``: go where the map says."""
        look = expression("lookup", text(1, map_), number(2, _FIRST), number(3, _VERDICT))
        return [*self.parts, look]

    def is_in(self, table_set: str, inverted: bool = False) -> list[bytes]:
        """Go on only if the set has the key; ``inverted``: has it not."""
        flags = [number(5, 1)] if inverted else []
        return [*self.parts, expression("lookup", text(1, table_set), number(2, _FIRST), *flags)]


def equals(load: bytes, value: bytes, inverted: bool = False) -> list[bytes]:
    """Go on only if what was loaded into the first register begins with the value, or does not."""
    return [load, nft.compare(nft.UNEQUAL if inverted else nft.EQUAL, value)]


def payload(base: int, offset: int, length: int) -> bytes:
    """Load bytes of the header at ``base``, as ``Key.payload``."""
    where = (number(2, base), number(3, offset), number(4, length))
    return expression("payload", number(1, nft.FIRST), *where)


def destination(six: bool) -> bytes:
    """Load the address that the packet goes to."""
    return payload(1, 24, 16) if six else payload(1, 16, 4)


def within(load: bytes, first: bytes, last: bytes) -> list[bytes]:
    """Go on only if what was loaded is from ``first`` to ``last``."""
    if first == last:
        return equals(load, first)
    return [load, nft.compare(_GREATER_OR_EQUAL, first), nft.compare(_LESS_OR_EQUAL, last)]


def in_network(load: bytes, address: bytes, bits: int, inverted: bool = False) -> list[bytes]:
    """Go on only if the address that was loaded is in the network, or is not."""
    size = len(address)
    if bits == 8 * size:
        return equals(load, address, inverted)
    mask = (((1 << bits) - 1) << (8 * size - bits)).to_bytes(size, "big")
    return [load, *_masked(mask), nft.compare(nft.UNEQUAL if inverted else nft.EQUAL, address)]


def _masked(mask: bytes) -> list[bytes]:
    words = (
        nested(4, attribute(nft.DATA_VALUE, mask)),
        nested(5, attribute(nft.DATA_VALUE, bytes(len(mask)))),
    )
    return [expression("bitwise", number(1, nft.FIRST), number(2, nft.FIRST), number(3, len(mask)), *words)]


def family_is(six: bool) -> list[bytes]:
    """``meta nfproto``."""
    return equals(nft.load(nft.NFPROTO), bytes([nft.NFPROTO_IPV6 if six else nft.NFPROTO_IPV4]))


def interface_name(name: str) -> bytes:
    """The whole name of an interface, as it is compared with or kept in a key."""
    return name.encode("utf-8", "surrogateescape").ljust(16, b"\0")


def is_local() -> list[bytes]:
    """``fib daddr type local``: go on only if the host itself has the address."""
    return [nft.fib(nft.FIB_DADDR, nft.FIB_TYPE), nft.compare(nft.EQUAL, nft.RTN_LOCAL)]


def goes(direction: int) -> list[bytes]:
    """``ct direction``: whether the packet is one of who began the connection, or an answer."""
    return equals(expression("ct", number(2, 1), number(1, nft.FIRST)), bytes([direction]))


def originally(what: str, six: bool = False) -> bytes:
    """``ct original``: load saddr, daddr or proto-dst of the connection as it was begun, before any translation."""
    key = {"saddr": 21 if six else 19, "daddr": 22 if six else 20, "proto-dst": 12}[what]
    return expression("ct", number(2, key), number(1, nft.FIRST), attribute(3, bytes([FROM_BEGINNER])))


def counter() -> bytes:
    """A counter of the rule's own."""
    return expression("counter")


def limit(rate: int, seconds: int, burst: int, over: bool) -> bytes:
    """Go on only for as many packets as that in a time; if ``over``, only for those beyond."""
    parts = (attribute(1, rate.to_bytes(8, "big")), attribute(2, seconds.to_bytes(8, "big")))
    return expression("limit", *parts, number(3, burst), number(4, 0), number(5, 1 if over else 0))


def log(prefix: str, group: int) -> bytes:
    """Tell of the packet: in the kernel's log, or to whoever listens to an nfnetlink group, if that is not negative."""
    said = prefix.encode("utf-8", "surrogateescape")[:126].decode("utf-8", "ignore")
    if group < 0:
        return expression("log", text(2, said), number(5, 6))
    return expression("log", attribute(1, group.to_bytes(2, "big")), text(2, said))


def dnat(address: bytes, port: int) -> list[bytes]:
    """``dnat``: to the address, and the port unless that is 0."""
    parts = [number(1, 1), number(2, nft.NFPROTO_IPV4 if len(address) == 4 else nft.NFPROTO_IPV6), number(3, 1)]
    loads = [_immediate(1, address)]
    if port:
        loads.append(_immediate(2, port.to_bytes(2, "big")))
        parts.append(number(5, 2))
    return [*loads, expression("nat", *parts)]


def snat_to_original(six: bool) -> list[bytes]:
    """``snat``: the sender is, for whom it reaches, the address that it has called."""
    family = number(2, nft.NFPROTO_IPV6 if six else nft.NFPROTO_IPV4)
    return [originally("daddr", six), expression("nat", number(1, 0), family, number(3, nft.FIRST))]


def _immediate(register: int, value: bytes) -> bytes:
    return expression("immediate", number(1, register), nested(2, attribute(nft.DATA_VALUE, value)))


def _verdict(code: bytes, chain: str = "") -> bytes:
    return nested(nft.DATA_VERDICT, attribute(1, code), *([text(2, chain)] if chain else []))


def jump(chain: str) -> bytes:
    """Go through a chain, and on behind it."""
    return expression("immediate", number(1, _VERDICT), nested(2, _verdict(_JUMP, chain)))


def goto(chain: str) -> bytes:
    """Go on in a chain, and not here."""
    return expression("immediate", number(1, _VERDICT), nested(2, _verdict(_GOTO, chain)))


def leave() -> bytes:
    """``return``: leave the chain."""
    return nft.verdict(_RETURN)
