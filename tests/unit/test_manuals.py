"""The manuals: well-formed mdoc, whole, and of one mind with the table of parameters."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from jailng.params.table import names

MAN = Path(__file__).resolve().parents[2] / "man"
PAGES = sorted(path.name for path in MAN.glob("*.[1-9]"))
COMMANDS = ("jail", "jls", "jexec", "ipnat", "rctl")
# mdoc(7): what a page of section 8 is expected to have.
SECTIONS = ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "SEE ALSO", "HISTORY")


def _page(name: str) -> str:
    if name not in PAGES:
        pytest.skip(f"man/{name} is not written yet")
    return (MAN / name).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_mandoc_finds_nothing_to_warn_of(page: str) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", str(MAN / page)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_has_its_sections(command: str) -> None:
    found = re.findall(r'^\.Sh "?(.*?)"?$', _page(f"{command}.8"), re.MULTILINE)
    assert [section for section in SECTIONS if section in found] == list(SECTIONS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_synopsis_names_the_options_that_are_described(command: str) -> None:
    text = _page(f"{command}.8")
    synopsis = text[text.index(".Sh SYNOPSIS") : text.index(".Sh DESCRIPTION")]
    described = set(re.findall(r"^\.It Fl (-?\w+)", text, re.MULTILINE))
    # `.Op Fl hilqv` is five options, `.Fl -plan` is one.
    words = re.findall(r"Fl (-?\w+)", synopsis)
    listed = {option for word in words for option in ([word] if word.startswith("-") else word)}
    assert described
    assert described == listed


@pytest.mark.parametrize("parameter", names())
def test_jail_8_describes_every_parameter(parameter: str) -> None:
    """As an item of a list, so that a reader can search for it, or beside others in one item."""
    items = re.findall(r"^\.It .*$", _page("jail.8"), re.MULTILINE)
    assert any(parameter in item.replace(" Ns ", "").split() for item in items)


def test_jail_8_describes_no_parameter_that_there_is_not() -> None:
    items = re.findall(r"^\.It Va (\S+)", _page("jail.8"), re.MULTILINE)
    assert items
    assert set(items) <= set(names())
