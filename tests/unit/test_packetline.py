"""observe/packetline.py: a packet in a line, whatever is in it."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.linux import packet as ring
from jailng.observe import packetfiles, packetline, pcapng
from jailng.observe.pcapng import Interface, Packet

_ON = Interface("eth0", 1, 262144, "", "", 10**9)
_MACS = bytes(12)
_IP4 = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 1, 0, 64, 6, 0, bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]))
_TCP = struct.pack("!HHIIBBHHH", 4711, 80, 1000, 7, 0x50, 0x12, 512, 0, 0)
_IP6 = struct.pack("!IHBB16s16s", 6 << 28, 12, 17, 64, b"\x20\x01" + bytes(14), b"\x20\x01" + bytes(13) + b"\1")
_UDP = struct.pack("!HHHH", 53, 4711, 12, 0) + b"abcd"


def shown(data: bytes, length: int = 0) -> str:
    text = packetline.line(Packet(_ON, 1_500_000_000_123_456_789, length or len(data), data, pcapng.OUT))
    assert text.partition(".")[2].startswith("123456 eth0 Out ")
    return text.partition("Out ")[2]


def look(content: bytes) -> packetfiles.Look:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return packetfiles.look(Path(file.name))


def test_of_many_tags_some_are_shown() -> None:
    """A frame of 64 KB has room for sixteen thousand."""
    text = shown(_MACS + b"\x81\x00\x00\x07" * 16000 + b"\x08\x00")
    assert text == f"{'vlan 7, ' * 8}ethertype 0x8100, length 64014"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (
            _MACS + b"\x08\0" + _IP4 + _TCP,
            "IP 192.0.2.1.4711 > 192.0.2.2.80: Flags [S.], seq 1000, ack 7, win 512, length 0",
        ),
        (_MACS + b"\x08\0" + _IP4 + _TCP[:10], "IP 192.0.2.1 > 192.0.2.2: tcp [cut short]"),
        (_MACS + b"\x08\0" + _IP4[:10], "[cut short]"),
        (_MACS + b"\x08\0\x41" + _IP4[1:], "[malformed]"),
        (_MACS + b"\0\x26\x42\x42\x03" + bytes(43), "802.3, length 60"),
        (_MACS + b"\x86\xdd" + _IP6 + _UDP, "IP6 2001::.53 > 2001::1.4711: UDP, length 4"),
        (
            _MACS + b"\x81\0\0\x07\x08\0" + _IP4[:9] + b"\x59" + _IP4[10:],
            "vlan 7, IP 192.0.2.1 > 192.0.2.2: ip-proto-89, length 20",
        ),
        (_MACS + b"\x88\xcc" + bytes(46), "ethertype 0x88cc, length 60"),
        (
            _MACS + b"\x08\0" + _IP4[:6] + b"\x20\x05" + _IP4[8:],
            "IP 192.0.2.1 > 192.0.2.2: tcp, fragment at 40, length 20",
        ),
        (
            _MACS + b"\x08\x06" + bytes.fromhex("00010800060400010200000000 01c0000201000000000000c0000202"),
            "ARP, Request who-has 192.0.2.2 tell 192.0.2.1",
        ),
        (
            _MACS + b"\x08\0" + _IP4[:9] + b"\1" + _IP4[10:] + struct.pack("!BBHHH", 8, 0, 0, 3, 4) + bytes(12),
            "IP 192.0.2.1 > 192.0.2.2: ICMP echo request, id 3, seq 4, length 20",
        ),
    ],
)
def test_lines(data: bytes, line: str) -> None:
    assert shown(data) == line


@given(
    st.sampled_from((b"", _MACS + b"\x08\0" + _IP4, _MACS + b"\x86\xdd" + _IP6, _MACS + b"\x81\0")),
    st.binary(max_size=120),
)
def test_whatever_comes_is_one_line_of_print(before: bytes, data: bytes) -> None:
    text = shown(before + data)
    assert text.isprintable() and text.isascii()
    packetline.fields(Packet(_ON, 1, 99, before + data, pcapng.IN))


def test_a_tag_is_put_back_where_it_was() -> None:
    data = bytes(range(12)) + b"\x08\0rest"
    assert ring.tagged(data, 7, 0) == bytes(range(12)) + b"\x81\0\0\x07" + b"\x08\0rest"
    assert ring.tagged(memoryview(data), 7, 0x88A8)[12:16] == b"\x88\xa8\0\x07"


@given(st.lists(st.binary(max_size=100), max_size=20), st.binary(max_size=60))
def test_what_a_look_at_a_file_tells(contents: list[bytes], torn: bytes) -> None:
    blocks = [pcapng.section("a remark"), pcapng.interface("eth0", 262144)]
    blocks += [pcapng.packet(0, 1000 + number, data, len(data)) for number, data in enumerate(contents)]
    blocks += [
        pcapng.statistics(0, 9, pcapng.Counts(30, 4, 0)),
        pcapng.statistics(0, 10, pcapng.Counts(40, 5, 1), "full"),
    ]
    found = look(b"".join(blocks) + torn[:19])
    assert (found.packets, found.lost, found.remarks) == (len(contents), 6, ["a remark", "full"])
    assert (found.first, found.last) == ((1000, 999 + len(contents)) if contents else (0, 0))


@given(st.binary(max_size=300))
def test_a_look_at_what_somebody_else_has_written(junk: bytes) -> None:
    assert look(junk).size == len(junk)
