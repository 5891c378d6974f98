"""Searches in recordings."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.observe import cast, search
from jailng.observe.search import Match


def find(pattern: str, events: list[tuple[str, bytes]], codes: str = "io") -> list[Match]:
    lines = []
    streams = {code: cast.Stream() for code in "io"}
    for number, (code, data) in enumerate(events):
        lines.append(cast.line(number * 1_000_000_000, code, streams[code].add(data)))
    return list(search.search(io.BytesIO(b"".join(lines)), re.compile(pattern), codes))


def test_across_events_and_colours() -> None:
    events = [("o", b"\x1b[1mpass"), ("i", b"x"), ("o", b"\x1b[0;3"), ("o", b"1mwo\x1b]0;title\x07rd\r\nnext")]
    [found] = find("password", events)
    assert (found.time, found.code, found.before, found.text, found.after) == (0.0, "o", "", "password", "\nnext")
    [later] = find("next", events)
    assert later.time == 3.0


def test_typed_or_shown() -> None:
    events = [("i", b"ls\r"), ("o", b"ls\r\n"), ("i", b"pwd\r")]
    assert [(one.code, one.time) for one in find("ls", events)] == [("i", 0.0), ("o", 1.0)]
    assert [one.code for one in find("ls", events, "o")] == ["o"]
    assert not find("lsp", events)
    assert [one.before for one in find("pwd", events, "i")] == ["ls\n"]


def test_what_was_typed_and_erased() -> None:
    events = [("i", b"rm -rf /tmo"), ("i", b"\x7fp/x\r"), ("i", b"exit\r")]
    assert [one.time for one in find("/tmp/x", events)] == [0.0]
    assert [one.time for one in find("/tmo", events)] == [0.0]
    assert [one.time for one in find("^exit", [("i", b"\r"), *events])] == []
    assert len(find("exit", events)) == 1


def test_bytes_that_are_no_text() -> None:
    [found] = find("a.b", [("o", b"a\xffb")])
    assert found.text == "a\ufffdb"


def test_far_more_than_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_BATCH", 5000)
    monkeypatch.setattr(search, "_CARRIED", 300)
    events = [("o", b"needle %05d in a haystack\r\n" % number) for number in range(3000)]
    found = find(r"needle (\d+)", events)
    assert [one.text for one in found] == [f"needle {number:05}" for number in range(3000)]
    assert [one.time for one in found] == list(range(3000))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(0, 200))
def test_wherever_events_begin(sizes: list[int], place: int) -> None:
    text = b"\x1b[1m" + b"." * place + b"nee\x1b[32mdle" + b"\x1b[m,\x1b[0K" * 30
    events, begin, number = [], 0, 0
    while begin < len(text):
        size = sizes[number % len(sizes)]
        events.append(("o", text[begin : begin + size]))
        begin += size
        number += 1
    saved = search._BATCH, search._CARRIED
    search._BATCH, search._CARRIED = 64, 50
    try:
        [found] = find("needle", events)
    finally:
        search._BATCH, search._CARRIED = saved
    assert found.text == "needle"


def test_a_line_that_is_torn_or_none() -> None:
    content = cast.line(1, "o", "one") + b"rubbish\n" + cast.line(2, "o", "two") + cast.line(3, "o", "three")[:-4]
    found = list(search.search(io.BytesIO(content), re.compile("o|thre"), "o"))
    assert [one.text for one in found] == ["o", "o", "thre"]
