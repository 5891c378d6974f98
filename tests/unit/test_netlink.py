"""netlink messages: what goes in comes out, and nonsense from the other side is an error and not a loop."""

from __future__ import annotations

import errno
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as some

from jailng.linux import nftables, rtnetlink
from jailng.linux.netlink import (
    NLM_F_ACK,
    NLM_F_REQUEST,
    attribute,
    attributes,
    decode,
    encode,
    failure,
    nested,
    number,
    string,
)

kinds = some.integers(0, 0x3FFF)
numbers = some.integers(0, 0xFFFFFFFF)
payloads = some.binary(max_size=80)
messages = some.lists(some.tuples(some.integers(0, 0xFFFF), some.integers(0, 0xFFFF), payloads), min_size=1, max_size=6)
v4, v6 = some.binary(min_size=4, max_size=4), some.binary(min_size=16, max_size=16)
macs = some.binary(min_size=6, max_size=6)
names = some.text("abcdefghijklmnopqrstuvwxyz0123456789.-_", min_size=1, max_size=15)
indices = some.integers(1, 0x7FFFFFFF)


@given(some.dictionaries(kinds, payloads))
def test_attributes_come_back(wanted: dict[int, bytes]) -> None:
    data = b"".join([attribute(kind, payload) for kind, payload in wanted.items()])
    assert attributes(data) == wanted
    assert len(data) % 4 == 0


@given(kinds, some.dictionaries(kinds, payloads))
def test_nested_attributes_come_back(kind: int, wanted: dict[int, bytes]) -> None:
    outer = attributes(nested(kind, *[attribute(inner, payload) for inner, payload in wanted.items()]))
    assert attributes(outer[kind]) == wanted


@given(kinds, numbers, names)
def test_numbers_and_strings(kind: int, value: int, text: str) -> None:
    assert attributes(number(kind, value)) == {kind: pack("I", value)}
    assert attributes(string(kind, text)) == {kind: text.encode() + b"\0"}


@given(messages, some.integers(0, 0xFFFF0000), some.integers(-1, 5))
def test_messages_come_back(wanted: list[tuple[int, int, bytes]], sequence: int, acknowledged: int) -> None:
    found = decode(encode(wanted, sequence, acknowledged))
    assert [(kind, body) for kind, _, _, body in found] == [(kind, body) for kind, _, body in wanted]
    assert [number for _, _, number, _ in found] == list(range(sequence, sequence + len(wanted)))
    for place, ((_, flags, _, _), (_, own, _)) in enumerate(zip(found, wanted, strict=True)):
        assert flags == own | NLM_F_REQUEST | (NLM_F_ACK if place == acknowledged else 0)


@given(some.binary(max_size=300))
def test_nonsense_ends(data: bytes) -> None:
    for read in (attributes, decode):
        try:
            read(data)
        except ValueError:
            pass


@pytest.mark.parametrize("data", [pack("HH", 3, 1), pack("HH", 0, 1), pack("HH", 9, 1) + b"x"])
def test_a_wrong_length_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="netlink attribute"):
        attributes(data)


@given(some.binary(min_size=1, max_size=60), some.integers(0, 50), some.booleans())
def test_the_words_of_the_kernel_are_in_the_error(words: bytes, size: int, capped: bool) -> None:
    words = words.replace(b"\0", b"?")
    request = pack("IHHII", 16 + size, 16, 0, 1, 0) + (b"" if capped else bytes(size + -size % 4))
    body = pack("i", -errno.EEXIST) + request + attribute(1, words + b"\0")
    error = failure(0x200 | (0x100 if capped else 0), body)
    assert error is not None
    assert error.errno == errno.EEXIST
    assert error.strerror == f"File exists ({words.decode(errors='replace')})"


def test_success_is_no_error() -> None:
    assert failure(0, bytes(20)) is None


@given(indices, v4 | v6, some.integers(0, 32), some.integers(0, 0xFFFF))
def test_an_address_reads_as_it_was_written(index: int, packed: bytes, prefix: int, flags: int) -> None:
    _, _, body = rtnetlink.new_address(index, packed, prefix, packed[:4], flags)
    found = rtnetlink.Address.read(body)
    assert (found.index, found.packed, found.prefix, found.flags) == (index, packed, prefix, flags)
    assert found.broadcast == packed[:4]


@given(indices, v4 | v6, v4 | v6)
def test_a_route_reads_as_it_was_written(index: int, target: bytes, preferred: bytes) -> None:
    route = rtnetlink.Route(index, target, 8 * len(target), rtnetlink.RT_TABLE_LOCAL, 106, preferred=preferred)
    (_, made, body), (_, deleted, same) = route.prepended(), route.deleted()
    found = rtnetlink.Found(body)
    assert (found.index, found.protocol, found.local, found.preferred) == (index, 106, False, preferred)
    assert (body, made, deleted) == (same, 0x400, 0)


@given(names, macs, names, macs, indices, some.integers(0, 65535))
def test_a_veth_has_two_ends(name: str, mac: bytes, peer: str, peer_mac: bytes, pid: int, mtu: int) -> None:
    _, _, body = rtnetlink.new_veth(name, mac, peer, peer_mac, pid, mtu)
    here = attributes(body, 16)
    data = attributes(attributes(here[18])[2])
    there = attributes(data[1], 16)
    assert (here[3], here[1]) == (name.encode() + b"\0", mac)
    assert (there[3], there[1], there[19]) == (peer.encode() + b"\0", peer_mac, pack("I", pid))
    assert (here.get(4), there.get(4)) == ((pack("I", mtu),) * 2 if mtu else (None, None))


@given(some.lists(some.binary(min_size=20, max_size=20), max_size=8))
def test_keys_of_a_set_come_back(wanted: list[bytes]) -> None:
    elements = [nested(1, nested(1, attribute(1, key))) for key in wanted]
    assert nftables.keys(bytes(4) + nested(3, *elements)) == wanted
