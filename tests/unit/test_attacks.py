"""docs/attacks.md names tests: those are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_CHECKOUT = Path(__file__).parents[2]
_ROWS = [line for line in (_CHECKOUT / "docs/attacks.md").read_text().splitlines() if line.startswith("| ")]
_NAMED = [row for row in _ROWS if re.search(r"`test_\w+`", row)]


def _missing(row: str) -> list[str]:
    """What a row names and nobody has: a module, or a test of the module that was named last."""
    text, lacking = "", []
    for word in re.findall(r"`([\w/.]+)`", row):
        if re.fullmatch(r"(tests/unit/)?test_\w+(\.py)?", word):
            found = [*(_CHECKOUT / "tests").glob(f"*/{word.rpartition('/')[2].removesuffix('.py')}.py")]
            text = found[0].read_text() if found else ""
            lacking += [] if found else [word]
        elif text and re.fullmatch(r"[a-z0-9]+(_\w+)+", word) and not re.search(rf"def test_\w*{word}", text):
            lacking.append(word)
    return lacking


@pytest.mark.parametrize("row", _NAMED)
def test_what_is_named_is_there(row: str) -> None:
    assert not _missing(row)


def test_what_is_not_there_is_seen() -> None:
    assert len(_NAMED) > 20
    assert _missing("| x | `test_nowhere`; `test_hostile_tree`: `no_such_test_at_all` |") == [
        "test_nowhere",
        "no_such_test_at_all",
    ]
