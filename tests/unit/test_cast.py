"""asciicast v2: what goes in comes out, byte for byte, and every line is what other players read."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.observe import cast

HEADER = cast.Header(80, 24, 1, "t", {}, {"id": "1"})
# Bytes among which every mishap of UTF-8 is likely.
BYTES = st.lists(
    st.sampled_from(
        [b"a", b"\0", b"\x1b[1m", "é".encode(), "€".encode(), "😀".encode(), "\U0010f7a0".encode(), b"\xff"]
    )
    | st.binary(max_size=5)
).map(b"".join)
PIECES = st.lists(BYTES, max_size=12)


def written(pieces: list[bytes], code: str = "o", flush: bool = True) -> bytes:
    stream = cast.Stream()
    lines = [HEADER.line()]
    for number, piece in enumerate(pieces):
        text = stream.add(piece)
        if text:
            lines.append(cast.line(number, code, text))
        if stream.held:
            lines.append(cast.line(number, cast.PENDING, code + cast.text(stream.held)))
    rest = stream.flush() if flush else ""
    if rest:
        lines.append(cast.line(len(pieces), code, rest))
    return b"".join(lines)


def read(content: bytes, code: str = "o") -> bytes:
    file = io.BytesIO(content)
    cast.opened(file)
    return b"".join([data for _, data in cast.pieces(cast.entries(file), code)])


@given(BYTES)
def test_any_bytes_are_text_and_the_same_bytes_again(data: bytes) -> None:
    made = cast.text(data)
    assert cast.content(made) == data
    made.encode()  # valid: no lone surrogates


@given(PIECES, st.sampled_from("io"), st.booleans())
def test_any_pieces_come_back(pieces: list[bytes], code: str, flush: bool) -> None:
    content = written(pieces, code, flush)
    assert read(content, code) == b"".join(pieces)
    assert read(content, "i" if code == "o" else "o") == b""


@given(PIECES)
def test_every_line_is_valid_and_nothing_in_it_steers_a_terminal(pieces: list[bytes]) -> None:
    lines = written(pieces).split(b"\n")
    assert lines.pop() == b""
    assert json.loads(lines[0])["version"] == 2
    for raw in lines[1:]:
        time, code, data = json.loads(raw.decode("utf-8", "strict"))
        assert isinstance(time, float)
        assert len(code) == 1
        data.encode()
        assert not [char for char in raw.decode() if ord(char) < 32 or 0x7F <= ord(char) < 0xA0]


@given(PIECES.filter(lambda pieces: any(pieces)), st.data())
def test_text_that_is_utf8_reads_as_it_was_shown(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces).decode("utf-8", "ignore").replace("\U0010f7a0", "")
    encoded = whole.encode()
    cut = data.draw(st.integers(0, len(encoded)))
    events = [json.loads(raw) for raw in written([encoded[:cut], encoded[cut:]]).splitlines()[1:]]
    assert "".join([text for _, code, text in events if code == "o"]) == whole


@given(PIECES, st.data())
def test_torn_anywhere_gives_the_beginning_of_what_there_was(pieces: list[bytes], data: st.DataObject) -> None:
    content = written(pieces)
    whole = b"".join(pieces)
    header = len(HEADER.line())
    cut = data.draw(st.integers(header, len(content)))
    found = read(content[:cut])
    assert whole.startswith(found)
    # Only what was in the torn line may be missing.
    assert found.startswith(read(content[: content.rfind(b"\n", 0, cut) + 1]))


@pytest.mark.parametrize("cut", range(1, len(b'[0.000000001, "o", "ab\\u0000c\xc3\xa9"]\n')))
def test_a_torn_line_is_mended(cut: int) -> None:
    line = cast.line(1, "o", "ab\0cé")
    made = cast.mended(line[:cut])
    if made:
        assert cast.nanoseconds(made) == 1
        assert "ab\0cé".startswith(cast.entry(made).data)
    assert bool(made) == (cut > line.index(b"ab"))


def test_c1_is_escaped() -> None:
    assert cast.line(0, "o", "\x9b1m\x7f") == b'[0.000000000, "o", "\\u009b1m\\u007f"]\n'


def test_a_header_of_others_is_read() -> None:
    found = cast.header(b'{"version": 2, "width": 132, "height": 43}\n')
    assert (found.width, found.height, found.own, found.timestamp) == (132, 43, {}, 0)
    for wrong in (b"", b'{"version": 2}', b'{"version": 1}\n', b"[]\n", b"nothing\n"):
        with pytest.raises(ValueError):
            cast.header(wrong)


def test_time_is_exact() -> None:
    assert cast.nanoseconds(cast.line(12_345_678_901, "o", "x")) == 12_345_678_901
