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

# What a packet is asked for, and the registers that answers go to: a key of two parts takes the first and the second.
IIFNAME, OIFNAME, NFPROTO, L4PROTO = 6, 7, 15, 16
FIRST, SECOND = 1, 9
EQUAL, UNEQUAL = 0, 1
ACCEPT, DROP = b"\0\0\0\1", b"\0\0\0\0"
ESTABLISHED, RELATED = 2, 4

# nft's own numbers for types, with which it shows the keys of sets; two that are joined are six bits apart.
TYPE_NFPROTO, TYPE_INET_PROTO, TYPE_INET_SERVICE, TYPE_IFNAME = 2, 12, 13, 41
TYPE_BITS = 6

_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _NEWSET = 0xA00, 0xA02, 0xA03, 0xA06, 0xA09
_NEWSETELEM, _GETSETELEM, _DELSETELEM, _NEWOBJ = 0xA0C, 0xA0D, 0xA0E, 0xA12
_APPEND = 0x800
_LIST_ELEM = 1
_COUNTER = 1
_EXPR_NAME, _EXPR_DATA = 1, 2
_DATA_VALUE, _DATA_VERDICT = 1, 2
_FIB_OIF, _FIB_SADDR, _FIB_IIF, _FIB_PRESENT = 1, 1, 8, 32
_TRANSPORT_HEADER = 2


def _number(kind: int, value: int) -> bytes:
    return pack("HH", 8, kind) + (value & 0xFFFFFFFF).to_bytes(4, "big")


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _message(kind: int, flags: int, *parts: bytes) -> Message:
    return kind, flags, bytes([NFPROTO_INET, 0, 0, 0]) + b"".join(parts)


def new_table(table: str) -> Message:
    """A table of the inet family; it must not exist."""
    return _message(_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, _text(1, table))


def delete_table(table: str) -> Message:
    """A table and all that is in it."""
    return _message(_DELTABLE, 0, _text(1, table))


def new_chain(table: str, chain: str, hook: int, priority: int) -> Message:
    """A filter chain at a hook, whose policy is to accept."""
    where = nested(4, _number(1, hook), _number(2, priority))
    return _message(_NEWCHAIN, NLM_F_CREATE, _text(1, table), _text(3, chain), where, _text(7, "filter"))


def new_set(table: str, name: str, identifier: int, key: int, length: int) -> Message:
    """A set of keys of ``length`` bytes, shown by nft(8) as of type ``key``."""
    parts = (_number(3, 0), _number(4, key), _number(5, length), _number(10, identifier))
    return _message(_NEWSET, NLM_F_CREATE, _text(1, table), _text(2, name), *parts)


def new_counter(table: str, name: str) -> Message:
    """A named counter."""
    return _message(_NEWOBJ, NLM_F_CREATE, _text(1, table), _text(2, name), _number(3, _COUNTER), nested(4))


def new_rule(table: str, chain: str, *expressions: bytes) -> Message:
    """A rule at the end of a chain."""
    return _message(_NEWRULE, NLM_F_CREATE | _APPEND, _text(1, table), _text(2, chain), nested(4, *expressions))


def new_element(table: str, name: str, key: bytes) -> Message:
    """Put a key into a set; that it is there already is no error."""
    return _message(_NEWSETELEM, NLM_F_CREATE, *_element(table, name, key))


def delete_element(table: str, name: str, key: bytes) -> Message:
    """Take a key out of a set."""
    return _message(_DELSETELEM, 0, *_element(table, name, key))


def _element(table: str, name: str, key: bytes) -> tuple[bytes, bytes, bytes]:
    element = nested(_LIST_ELEM, nested(1, attribute(_DATA_VALUE, key)))
    return _text(1, table), _text(2, name), nested(3, element)


def get_elements(table: str, name: str) -> Message:
    """Ask for what is in a set; ENOENT if there is no such set or table. Answered by what ``keys`` reads."""
    return _message(_GETSETELEM, NLM_F_DUMP, _text(1, table), _text(2, name))


def keys(body: bytes) -> list[bytes]:
    """The keys in an answer to ``get_elements``."""
    found = []
    listed = attributes(body, 4).get(3, b"")
    offset = 0
    while offset + 4 <= len(listed):
        length: int = unpack_from("H", listed, offset)[0]
        element = attributes(listed[offset + 4 : offset + length])
        found.append(attributes(element[1])[_DATA_VALUE])
        offset += (length + 3) & ~3
    return found


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(_LIST_ELEM, _text(_EXPR_NAME, name), nested(_EXPR_DATA, *parts))


def load(what: int, register: int = FIRST) -> bytes:
    """``meta``: a property of the packet."""
    return _expression("meta", _number(2, what), _number(1, register))


def load_destination_port(register: int) -> bytes:
    """``th dport``."""
    where = (_number(2, _TRANSPORT_HEADER), _number(3, 2), _number(4, 2))
    return _expression("payload", _number(1, register), *where)


def compare(operator: int, value: bytes) -> bytes:
    """Go on only if the first register begins with ``value`` (EQUAL), or does not (UNEQUAL)."""
    return _expression("cmp", _number(1, FIRST), _number(2, operator), nested(3, attribute(_DATA_VALUE, value)))


def no_way_back() -> list[bytes]:
    """``fib saddr . iif oif missing``: go on only if a packet to the sender would not leave by where this one came."""
    flags = _FIB_SADDR | _FIB_IIF | _FIB_PRESENT
    fib = _expression("fib", _number(3, flags), _number(2, _FIB_OIF), _number(1, FIRST))
    return [fib, compare(EQUAL, bytes(4))]


def connection_state(mask: int) -> list[bytes]:
    """``ct state``: go on only if one of these bits, in the machine's order, is set."""
    state = _expression("ct", _number(2, 0), _number(1, FIRST))
    words = (nested(4, attribute(_DATA_VALUE, pack("I", mask))), nested(5, attribute(_DATA_VALUE, bytes(4))))
    masked = _expression("bitwise", _number(1, FIRST), _number(2, FIRST), _number(3, 4), *words)
    return [state, masked, compare(UNEQUAL, bytes(4))]


def look_up(table_set: str) -> bytes:
    """Go on only if what the registers hold is in the set."""
    return _expression("lookup", _text(1, table_set), _number(2, FIRST))


def count(counter: str) -> bytes:
    """Add the packet to a named counter."""
    return _expression("objref", _number(1, _COUNTER), _text(2, counter))


def verdict(code: bytes) -> bytes:
    """ACCEPT or DROP."""
    return _expression("immediate", _number(1, 0), nested(2, nested(_DATA_VERDICT, attribute(1, code))))
