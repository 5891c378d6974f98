"""observe/pcapng.py: what is written is read again, and what is torn is cut where it was whole."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.ctl import packets as packets_command
from jailng.observe import pcapng, store
from jailng.observe.pcapng import Counts, Interface, Malformed, Packet, Reader, Section, Statistics

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
packets = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, 2**63 - 1),
        st.binary(max_size=200),
        st.integers(0, 100),
        st.sampled_from((pcapng.UNKNOWN, pcapng.IN, pcapng.OUT)),
    ),
    max_size=10,
)


@given(names, names, names, packets)
def test_what_is_written_is_read(
    comment: str, name: str, expression: str, given: list[tuple[int, int, bytes, int, int]]
) -> None:
    blocks = [pcapng.section(comment), pcapng.interface(name, 262144, "", expression), pcapng.interface("lo", 262144)]
    blocks += [pcapng.packet(on, time, data, len(data) + more, way) for on, time, data, more, way in given]
    blocks.append(pcapng.statistics(1, 5, Counts(7, 2, 1), comment))
    read = list(Reader(io.BytesIO(b"".join(blocks))))
    section, first, second, *rest, last = read
    assert section == Section(comment)
    assert isinstance(first, Interface) and isinstance(second, Interface)
    assert (first.name, first.expression, first.linktype, first.snaplen) == (name, expression, 1, 262144)
    shown = [(one.interface, one.time, one.data, one.length, one.direction) for one in rest if isinstance(one, Packet)]
    assert shown == [((first, second)[on], time, data, len(data) + more, way) for on, time, data, more, way in given]
    assert last == Statistics(second, 5, Counts(7, 2, 1), comment)


@given(packets, st.data())
def test_what_is_torn_is_whole_up_to_a_block(
    given: list[tuple[int, int, bytes, int, int]], data: st.DataObject
) -> None:
    blocks = [pcapng.section(), pcapng.interface("a", 96), pcapng.interface("b", 96)]
    blocks += [pcapng.packet(on, time, content, len(content), way) for on, time, content, _, way in given]
    text = b"".join(blocks)
    cut = data.draw(st.integers(0, len(text)))
    ends = [sum(len(one) for one in blocks[:count]) for count in range(len(blocks) + 1)]
    assert pcapng.whole(text[:cut]) == max(end for end in ends if end <= cut)


@given(st.binary(max_size=400))
def test_whatever_comes_is_read_or_refused(junk: bytes) -> None:
    for text in (junk, pcapng.section() + pcapng.interface("a", 96) + junk):
        try:
            list(Reader(io.BytesIO(text)))
        except Malformed:
            pass


def test_what_is_read_can_be_shown_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a broken disk has made of it: it was a traceback of jailctl packets -r."""
    monkeypatch.setattr(store, "BASE", str(tmp_path))
    monkeypatch.setattr("jailng.core.registry.find", lambda _: None)
    (tmp_path / "cell/packets").mkdir(parents=True)
    begun = pcapng.section() + pcapng.interface("a", 96)
    seconds = begun.replace(struct.pack("=HHB", 9, 1, 9), struct.pack("=HHB", 9, 1, 0))
    assert seconds != begun
    counted = pcapng.statistics(0, 5, Counts(7, 2, 1))
    fewer = counted.replace(struct.pack("=HHQ", 4, 8, 7), struct.pack("=HHQ", 4, 8, 1))
    assert fewer != counted
    for content, status in ((seconds + pcapng.packet(0, 1 << 62, b"abc", 3), 1), (begun + fewer, 0)):
        (tmp_path / "cell/packets/00000001-20260101T000000Z.pcapng").write_bytes(content)
        assert packets_command.main(["-r", "cell"]) == status
        assert packets_command.main(["-r", "--json", "cell"]) == status
        assert packets_command.main(["-r", "-w", str(tmp_path / "out"), "cell"]) == status
        assert packets_command.main(["-l", "cell"]) == 0


def test_the_other_byte_order() -> None:
    section = struct.pack(">IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    interface = struct.pack(">IIHHII", 1, 20, 1, 0, 65535, 20)  # in microseconds
    body = struct.pack(">IIIII", 0, 0, 1_500_000, 3, 60) + b"abc\0"
    packet = struct.pack(">II", 6, 12 + len(body)) + body + struct.pack(">I", 12 + len(body))
    *_, read = Reader(io.BytesIO(section + interface + packet))
    assert isinstance(read, Packet)
    assert (read.time, read.data, read.length) == (1_500_000_000, b"abc", 60)


@pytest.mark.parametrize("command", [["tcpdump", "-nr"], ["tshark", "-r"]])
def test_others_read_it(command: list[str], tmp_path: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    frame = bytes.fromhex("ffffffffffff020000000001080600010800060400010200000000010a0000010000000000000a000002")
    file = tmp_path / "some.pcapng"
    file.write_bytes(
        b"".join(
            [
                pcapng.section("a gap before"),
                pcapng.interface("eth0", 262144, "at the host's end", "arp"),
                pcapng.packet(0, 1_700_000_000_123_456_789, frame, len(frame), pcapng.OUT),
                pcapng.statistics(0, 1_700_000_000_223_456_789, Counts(2, 1)),
                pcapng.section(),
                pcapng.interface("lo", 262144),
                pcapng.packet(0, 1_700_000_001_000_000_000, frame[:41], len(frame), pcapng.IN),
            ]
        )
    )
    done = subprocess.run([*command, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 and "10.0.0.2" in done.stdout
