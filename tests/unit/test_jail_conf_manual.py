"""The displays of jail.conf.5: which of them are configurations, and that they are what the page says of them."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "man/jail.conf.5"
_DISPLAY = re.compile(r"^\.Bd -literal[^\n]*\n(\.\\\" display: [^\n]*\n)?(.*?)^\.Ed$", re.MULTILINE | re.DOTALL)
# mdoc(7): how what means something to it is written.
_WRITTEN = {r"\e": "\\", r"\&": "", r"\(aq": "'", r"\(dq": '"', r"\`": "`"}


def _plain(text: str) -> str:
    return re.sub(r"\\(e|&|\(aq|\(dq|`)", lambda found: _WRITTEN[found[0]], text)


def displays(configurations: bool = True) -> list[str]:
    """The displays as they are printed, those that are configurations or the others."""
    found = [(mark, _plain(text)) for mark, text in _DISPLAY.findall(PAGE.read_text())]
    return [text for mark, text in found if (not mark) is configurations]


def test_there_are_displays() -> None:
    assert len(displays()) > 15
    assert {text.split(None, 1)[0] for text in displays(False)} == {"!", ".include", "#"}


def test_every_display_is_read() -> None:
    assert PAGE.read_text().count(".Bd") == len(displays()) + len(displays(False))
