"""Console logs as they are read: the last lines of a file, lines that come in pieces, and what a terminal may have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.ctl import consolelog
from jailng.ctl.consolelog import Place, Reader, Shown
from jailng.ctl.load import Rates


def _read(reader: Reader) -> list[bytes]:
    found: list[bytes] = []
    while lines := reader.read():
        found += lines
    return found + reader.rest()


@pytest.mark.parametrize("size", [3, 7, 1 << 16])
@pytest.mark.parametrize("end", ["", "\n"])
def test_the_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, end: str) -> None:
    """However large the pieces are that the file is read in."""
    monkeypatch.setattr(consolelog, "_PIECE", size)
    lines = [f"line {number}" for number in range(20)]
    file = tmp_path / "log"
    file.write_text("\n".join(lines) + end)
    for number in (0, 1, 2, 19, 20, 21, 1000):
        reader = Reader(Place("web", str(file), ()))
        reader.start(number)
        assert [line.decode().strip() for line in _read(reader)] == (lines[-number:] if number else [])


@pytest.mark.parametrize("follow", [False, True])
def test_a_log_that_grows_while_it_is_read(tmp_path: Path, follow: bool) -> None:
    """A guest that writes without end has whoever wants to know what there is read no more than that."""
    file = tmp_path / "log"
    file.write_bytes(b"a\n" * 100_000)
    reader = Reader(Place("web", str(file), ()))
    reader.start(-1, follow)
    found = b""
    while lines := reader.read():
        found += b"".join(lines)
        if len(found) > 300_000:
            break
        with open(file, "ab") as more:
            more.write(b"b\n" * 100_000)
    assert (b"b" in found) is follow and found.startswith(b"a\n" * 100_000)


def test_a_line_without_an_end_is_not_kept_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"x" * 100_000)
    reader = Reader(Place("web", str(file), ()))
    reader.start(-1)
    assert b"".join(_read(reader)) == b"x" * 100_000


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(OSError, match="not a regular file"):
            Place("web", str(tmp_path / name), ()).open()


@given(st.binary())
def test_nothing_shown_steers_a_terminal(data: bytes) -> None:
    text = Shown().text(data.replace(b"\n", b"") + b"\n")
    assert text.replace("\t", "").isprintable()


def test_characters_may_come_in_pieces() -> None:
    shown = Shown()
    assert shown.text(b"\xc3") + shown.text(b"\xa4\r\n") == "ä"
    assert shown.text(b"\xc3\n") == "\\xc3"


def test_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    rates = Rates()
    assert rates.of("a", {"cpu": 5}) == {"cpu": None}
    rates.turn()
    now = 2.0
    assert rates.of("a", {"cpu": 9, "new": 3}) == {"cpu": 2.0, "new": 0.0}
    rates.turn()
    now = 3.0
    assert rates.of("a", {"cpu": 1}) == {"cpu": 0.0}  # what has ended may take its part with it
    rates.turn()
    assert rates.of("b", {"cpu": 1}) == {"cpu": None}
    rates.turn()
    assert rates.of("a", {"cpu": 1}) == {"cpu": None}
