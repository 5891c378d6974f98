"""docs/differences.md tells exactly what the parameter table says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jailng.params.table import lookup, names, resolve

TEXT = (Path(__file__).parents[2] / "docs" / "differences.md").read_text()


def rows() -> dict[str, str]:
    """Parameter name to the jailng column, from the first table."""
    section = TEXT.partition("## Parameters")[2].partition("\n## ")[0]
    found: dict[str, str] = {}
    for line in section.splitlines():
        if not line.startswith("| `"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == 4, line
        for name in cells[0].split(", "):
            assert name.startswith("`") and name.endswith("`"), line
            assert name.strip("`") not in found, f"{name} has two rows"
            found[name.strip("`")] = cells[2]
    return found


ROWS = rows()


def test_every_difference_has_a_row_and_every_row_is_one() -> None:
    differing = {name for name in names() if (found := lookup(name)) is not None and found.differs}
    ours = {name for name in names() if name.startswith("ng.")}
    assert set(ROWS) == differing | ours


def test_no_parameter_is_spoken_of_that_is_none() -> None:
    """In all of the document: what looks like a parameter, in backticks, is one, as it stands or with a value."""
    words = re.findall(
        r"`((?:allow|exec|mount|host|ip4|ip6|stop|children|meta|env|ng|zfs|vnet|linux|sysv\w+)\.?[^`]*)`", TEXT
    )
    assert len(words) > 50
    for word in set(words) - {"exec.nostart"}:  # which is there for what it is: none
        name = word.partition("=")[0].partition(" ")[0].removesuffix(".*")
        assert resolve(name) or any(known.startswith(f"{name}.") for known in names()), word


@pytest.mark.parametrize("name", [name for name in ROWS if not name.startswith("ng.")])
def test_row_agrees_with_the_table(name: str) -> None:
    parameter = lookup(name)
    assert parameter is not None
    said = ROWS[name]
    if parameter.refused:
        assert "refused" in said
    late = parameter.live == "restart" and not (parameter.create_only or parameter.pseudo)
    if late and not parameter.refused:
        assert "only at restart" in said
    else:
        assert "only at restart" not in said
