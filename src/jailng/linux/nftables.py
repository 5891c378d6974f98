"""nf_tables by netlink: tables, chains, sets, counters and rules, one message a function, one expression a function.

libnftables reads the same from text, but its Python binding costs 10 ms to import, as much as all the rest of a jail
(docs/decisions/0003-address-jail.md). Numbers are in network order: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from _struct import pack, unpack_from

from jailng.linux.netlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, attribute, attributes, nested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.netlink import Message

NFPROTO_INET = 1
NFPROTO_IPV4 = 2
NFPROTO_IPV6 = 10

# Hooks of the inet family and the priorities at which nft(8) knows names.
PREROUTING, INPUT, FORWARD = 0, 1, 2
RAW, FILTER = -300, 0

# What a packet is asked for, and the registers that answers go to: a key of two parts takes the first and the second,
# or where the first is a name, that and the one behind a name.
IIFNAME, OIFNAME, IIFTYPE, NFPROTO, L4PROTO = 6, 7, 8, 15, 16
FIRST, SECOND, BEHIND_NAME = 1, 9, 2
EQUAL, UNEQUAL = 0, 1
ACCEPT, DROP = b"\0\0\0\1", b"\0\0\0\0"
ESTABLISHED, RELATED = 2, 4
DNATTED = 1 << 5  # of the status of a connection: IPS_DST_NAT

# nft's own numbers for types, with which it shows the keys of sets; two that are joined are six bits apart.
TYPE_NFPROTO, TYPE_ETHERADDR, TYPE_INET_PROTO, TYPE_INET_SERVICE, TYPE_IFINDEX, TYPE_IFNAME = 2, 9, 12, 13, 20, 41
TYPE_BITS = 6

_NEWTABLE, GETTABLE, _DELTABLE, NEWCHAIN, _NEWRULE, NEWSET = 0xA00, 0xA01, 0xA02, 0xA03, 0xA06, 0xA09
NEWSETELEM, _GETSETELEM, DELSETELEM, _NEWOBJ = 0xA0C, 0xA0D, 0xA0E, 0xA12
_APPEND = 0x800
LIST_ELEM = 1
_COUNTER = 1
_EXPR_NAME, _EXPR_DATA = 1, 2
DATA_VALUE, DATA_VERDICT = 1, 2
_FIB_OIF, FIB_TYPE = 1, 3  # what is asked for
_FIB_SADDR, FIB_DADDR, _FIB_IIF, _FIB_PRESENT = 1, 2, 8, 32
RTN_LOCAL = pack("I", 2)
_LINK_HEADER, _NETWORK_HEADER, _TRANSPORT_HEADER = 0, 1, 2
_IIF = 4  # of meta
_TIMED_OUT, _DYNAMIC = 0x10, 0x20
_UPDATE = 1


def number(kind: int, value: int) -> bytes:
    """An attribute that holds 32 bits in network order."""
    return pack("HH", 8, kind) + (value & 0xFFFFFFFF).to_bytes(4, "big")


def text(kind: int, value: str) -> bytes:
    """An attribute that holds a name."""
    return attribute(kind, value.encode() + b"\0")


def message(kind: int, flags: int, *parts: bytes) -> Message:
    """A request to nf_tables about something of the inet family."""
    return kind, flags, bytes([NFPROTO_INET, 0, 0, 0]) + b"".join(parts)


def new_table(table: str, comment: str = "") -> Message:
    """A table of the inet family; it must not exist."""
    return message(
        _NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, text(1, table), *([attribute(6, _noted(comment))] if comment else [])
    )


def _noted(comment: str) -> bytes:
    """A comment as nft(8) has it among the user data of a table: NFTNL_UDATA_TABLE_COMMENT, length, text."""
    content = comment.encode() + b"\0"
    return bytes([0, len(content)]) + content


def comment_of(body: bytes) -> str:
    """The comment in an answer about a table."""
    return attributes(body, 4).get(6, b"")[2:].rstrip(b"\0").decode(errors="replace")


def get_tables() -> Message:
    """Ask for all tables of all families. Answered by what ``named`` reads."""
    return GETTABLE, NLM_F_DUMP, bytes(4)


def named(body: bytes) -> tuple[int, str]:
    """Family and name in an answer to ``get_tables``."""
    return body[0], attributes(body, 4)[1].rstrip(b"\0").decode(errors="surrogateescape")


def delete_table(table: str) -> Message:
    """A table and all that is in it."""
    return message(_DELTABLE, 0, text(1, table))


def new_chain(table: str, chain: str, hook: int, priority: int) -> Message:
    """A filter chain at a hook, whose policy is to accept."""
    where = nested(4, number(1, hook), number(2, priority))
    return message(NEWCHAIN, NLM_F_CREATE, text(1, table), text(3, chain), where, text(7, "filter"))


def new_set(table: str, name: str, identifier: int, key: int, length: int) -> Message:
    """A set of keys of ``length`` bytes, shown by nft(8) as of type ``key``."""
    parts = (number(3, 0), number(4, key), number(5, length), number(10, identifier), *shown(key))
    return message(NEWSET, NLM_F_CREATE, text(1, table), text(2, name), *parts)


def new_tally(table: str, name: str, identifier: int, seconds: int) -> Message:
    """A set of interfaces that ``count_by_interface`` fills; one that has not been counted for so long is dropped."""
    parts = (number(3, _DYNAMIC | _TIMED_OUT), number(4, TYPE_IFINDEX), number(5, 4), number(10, identifier))
    most, timeout = nested(9, number(1, 0x10000)), attribute(11, pack(">Q", 1000 * seconds))
    return message(NEWSET, NLM_F_CREATE, text(1, table), text(2, name), *parts, most, timeout, *shown(TYPE_IFINDEX))


def shown(key: int) -> list[bytes]:
    """What nft(8) needs to be told of a set of names, to show them: that their bytes stand in the machine's order."""
    return [attribute(13, b"\0\4" + pack("I", 1))] if key in (TYPE_IFINDEX, TYPE_IFNAME) else []


def new_counter(table: str, name: str) -> Message:
    """A named counter."""
    return message(_NEWOBJ, NLM_F_CREATE, text(1, table), text(2, name), number(3, _COUNTER), nested(4))


def new_rule(table: str, chain: str, *expressions: bytes) -> Message:
    """A rule at the end of a chain."""
    return message(_NEWRULE, NLM_F_CREATE | _APPEND, text(1, table), text(2, chain), nested(4, *expressions))


def new_element(table: str, name: str, key: bytes) -> Message:
    """Put a key into a set; that it is there already is no error."""
    return message(NEWSETELEM, NLM_F_CREATE, *_element(table, name, key))


def delete_element(table: str, name: str, key: bytes) -> Message:
    """Take a key out of a set."""
    return message(DELSETELEM, 0, *_element(table, name, key))


def _element(table: str, name: str, key: bytes) -> tuple[bytes, bytes, bytes]:
    element = nested(LIST_ELEM, nested(1, attribute(DATA_VALUE, key)))
    return text(1, table), text(2, name), nested(3, element)


def get_elements(table: str, name: str) -> Message:
    """Ask for what is in a set; ENOENT if there is no such set or table. Answered by what ``keys`` reads."""
    return message(_GETSETELEM, NLM_F_DUMP, text(1, table), text(2, name))


def keys(body: bytes) -> list[bytes]:
    """The keys in an answer to ``get_elements``."""
    return [attributes(element[1])[DATA_VALUE] for element in listed(attributes(body, 4).get(3, b""))]


def listed(data: bytes) -> list[dict[int, bytes]]:
    """The attributes of each item of a list of these: elements of a set, expressions of a rule."""
    found = []
    offset = 0
    while offset + 4 <= len(data):
        length: int = unpack_from("H", data, offset)[0]
        found.append(attributes(data[offset + 4 : offset + length]))
        offset += (length + 3) & ~3
    return found


def expression(name: str, *parts: bytes) -> bytes:
    """A part of a rule: what looks at the packet, or does something with it."""
    return nested(LIST_ELEM, text(_EXPR_NAME, name), nested(_EXPR_DATA, *parts))


def load(what: int, register: int = FIRST) -> bytes:
    """``meta``: a property of the packet."""
    return expression("meta", number(2, what), number(1, register))


def load_destination_port(register: int) -> bytes:
    """``th dport``."""
    where = (number(2, _TRANSPORT_HEADER), number(3, 2), number(4, 2))
    return expression("payload", number(1, register), *where)


def compare(operator: int, value: bytes) -> bytes:
    """Go on only if the first register begins with ``value`` (EQUAL), or does not (UNEQUAL)."""
    return expression("cmp", number(1, FIRST), number(2, operator), nested(3, attribute(DATA_VALUE, value)))


def fib(flags: int, result: int) -> bytes:
    """``fib``: what the routes say of a packet; ``flags`` are what they are asked by."""
    return expression("fib", number(3, flags), number(2, result), number(1, FIRST))


def no_way_back() -> list[bytes]:
    """``fib saddr . iif oif missing``: go on only if a packet to the sender would not leave by where this one came."""
    return [fib(_FIB_SADDR | _FIB_IIF | _FIB_PRESENT, _FIB_OIF), compare(EQUAL, bytes(4))]


def not_ours() -> list[bytes]:
    """``fib daddr . iif type != local``: go on only if it goes to no address that the interface it came by has."""
    return [fib(FIB_DADDR | _FIB_IIF, FIB_TYPE), compare(UNEQUAL, RTN_LOCAL)]


def connection_state(mask: int) -> list[bytes]:
    """``ct state``: go on only if one of these bits, in the machine's order, is set."""
    return _of_connection(0, mask)


def connection_status(mask: int) -> list[bytes]:
    """``ct status``: the same of what has become of the connection."""
    return _of_connection(2, mask)


def _of_connection(what: int, mask: int) -> list[bytes]:
    asked = expression("ct", number(2, what), number(1, FIRST))
    words = (nested(4, attribute(DATA_VALUE, pack("I", mask))), nested(5, attribute(DATA_VALUE, bytes(4))))
    masked = expression("bitwise", number(1, FIRST), number(2, FIRST), number(3, 4), *words)
    return [asked, masked, compare(UNEQUAL, bytes(4))]


def look_up(table_set: str, inverted: bool = False) -> bytes:
    """Go on only if what the registers hold is in the set; ``inverted``: is not."""
    flags = [number(5, 1)] if inverted else []
    return expression("lookup", text(1, table_set), number(2, FIRST), *flags)


def load_frame_destination(register: int) -> bytes:
    """``ether daddr``, of what comes by Ethernet."""
    return expression("payload", number(1, register), number(2, _LINK_HEADER), number(3, 0), number(4, 6))


def count(counter: str) -> bytes:
    """Add the packet to a named counter."""
    return expression("objref", number(1, _COUNTER), text(2, counter))


def count_by_interface(tally: str) -> list[bytes]:
    """Add the packet to what a tally has counted of the interface that it came by, by number: names come again."""
    counter = nested(7, text(_EXPR_NAME, "counter"), nested(_EXPR_DATA))
    return [load(_IIF), expression("dynset", text(1, tally), number(3, _UPDATE), number(4, FIRST), counter)]


def aimed_at(prefix: bytes, bits: int) -> list[bytes]:
    """``ip daddr`` or ``ip6 daddr``: go on only if the packet goes to an address of that network."""
    length = len(prefix)
    kept = length if bits % 8 else bits // 8  # as nft(8) compares whole bytes where it can
    where = (number(2, _NETWORK_HEADER), number(3, 16 if length == 4 else 24), number(4, kept))
    found = [load(NFPROTO), compare(EQUAL, bytes([NFPROTO_IPV4 if length == 4 else NFPROTO_IPV6]))]
    found.append(expression("payload", number(1, FIRST), *where))
    if bits % 8:
        mask = ((1 << bits) - 1 << 8 * length - bits).to_bytes(length, "big")
        words = (nested(4, attribute(DATA_VALUE, mask)), nested(5, attribute(DATA_VALUE, bytes(length))))
        found.append(expression("bitwise", number(1, FIRST), number(2, FIRST), number(3, length), *words))
    return [*found, compare(EQUAL, prefix[:kept])]


def verdict(code: bytes) -> bytes:
    """ACCEPT or DROP."""
    return expression("immediate", number(1, 0), nested(2, nested(DATA_VERDICT, attribute(1, code))))
