"""jail.8 says what the program's tables say: of parameters, steps, numbers, characters and variables.

The page is read here without the help of man/generate, which writes its lists, so that a mistake there is seen as well.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jailng.core import attach
from jailng.core.index import FIRST_UID, UIDS_PER_JAIL
from jailng.engine import beginning, command, ending
from jailng.params import values
from jailng.params.table import Parameter, lookup, names, resolve

MAN = Path(__file__).resolve().parents[2] / "man"
PAGE = (MAN / "jail.8").read_text()
KINDS = {"bool": "boolean", "int": "integer", "string": "string", "list": "list"}


def section(title: str) -> str:
    """What stands under a heading, up to the next of the same or a higher level."""
    found = re.search(rf'^\.S[hs] "?{re.escape(title)}"?$(.*?)(?=^\.S[hs] |\Z)', PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def items() -> list[tuple[str, str, str]]:
    """Of every parameter that is an item: its name, the line in brackets, and the text after that."""
    found = re.findall(r"^\.It Va (\S+)\n\.Bq (.*)\n((?:[^.\n].*\n)+)", PAGE, re.MULTILINE)
    assert found
    return [(name, facts, text) for name, facts, text in found]


ITEMS = {name: (facts.split("; "), text) for name, facts, text in items()}


def row(name: str) -> Parameter:
    parameter = lookup(name)
    assert parameter is not None
    return parameter


def test_every_row_is_an_item_once_and_no_item_is_without_a_row() -> None:
    listed = [name for name, _, _ in items()]
    assert sorted(listed) == sorted(names())
    assert sorted(re.findall(r"^\.It Va (\S+)$", PAGE, re.MULTILINE)) == sorted(names()), "one without its bracket"


@pytest.mark.parametrize("name", names())
def test_kind(name: str) -> None:
    parameter = row(name)
    said = ITEMS[name][0][0]
    if parameter.words:
        assert re.split(r", | or ", said) == list(parameter.words)
    elif parameter.kind in ("ip4", "ip6"):
        assert said == f"list of at most {parameter.most} IPv{parameter.kind[-1]} addresses"
    else:
        assert said.split()[0] == KINDS[parameter.kind]
        bounds = [int(number) for number in re.findall(r"-?\d+", said)]
        if parameter.most:
            assert bounds == [parameter.most]
        elif bounds:
            assert bounds == [parameter.range[0], parameter.range[-1]]
        else:
            assert parameter.kind != "int" or parameter.range[-1] == 2**31 - 1


@pytest.mark.parametrize("name", names())
def test_default(name: str) -> None:
    default = row(name).default
    shown = {True: "true", False: "false"}[default] if isinstance(default, bool) else str(default)
    assert ITEMS[name][0][1] == f"default {'empty' if default in ('', ()) else shown}"


@pytest.mark.parametrize("name", names())
def test_what_a_change_does_to_a_running_jail(name: str) -> None:
    parameter, said = row(name), ITEMS[name][0][2]
    assert (said == "read-only") is parameter.read_only
    assert (said == "pseudo") is parameter.pseudo
    assert (said == "create-only") is parameter.create_only
    if not (parameter.read_only or parameter.pseudo or parameter.create_only):
        assert said == {"live": "live", "new": "new processes", "restart": "restart"}[parameter.live]


def test_every_word_for_a_change_is_explained() -> None:
    explained = re.findall(r"^\.It ([a-z -]+?)(?: Ar \w+)?$", section("PARAMETERS"), re.MULTILINE)
    used = {facts[2] for facts, _ in ITEMS.values()}
    assert used <= set(explained)
    assert "refused" in explained


@pytest.mark.parametrize("name", names())
def test_what_is_refused_is_said(name: str) -> None:
    parameter = row(name)
    facts, text = ITEMS[name]
    assert facts[3:] == (["refused"] if parameter.refused else [])
    assert ("Why: " in text) is parameter.refused


@pytest.mark.parametrize("page", [MAN / "jail.8", MAN / "jls.8", MAN / "jexec.8"], ids=lambda page: page.name)
def test_what_a_page_calls_a_parameter_is_one(page: Path) -> None:
    """Va marks parameters alone in the manuals of jails: as they are, with "no", or as a key or family of some."""
    marked = re.findall(r"^\.(?:It |Pq |Sq |Dq |Op |Li )*Va (.*)$", page.read_text(), re.MULTILINE)
    words = {word for line in marked for word in re.split(" N[os] ", line)[0].replace(",", " ").split()}
    assert words or page.name in ("jexec.8",)
    unknown = set()
    for word in words:
        name = word.rstrip(".*")
        if name[:1].isalpha() and not resolve(name) and not any(known.startswith(f"{name}.") for known in names()):
            unknown.add(word)
    assert unknown == set()


@pytest.mark.parametrize("name", names())
def test_meaning(name: str) -> None:
    meaning = row(name).meaning
    assert meaning[1:] + ".\n" in ITEMS[name][1]


def test_the_lists_are_those_that_man_generate_makes() -> None:
    done = subprocess.run([sys.executable, str(MAN / "generate"), "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_generate_finds_a_page_that_is_not_current(tmp_path: Path) -> None:
    """That --check can fail: the page of another table is told from this one's."""
    (tmp_path / "man").mkdir()
    (tmp_path / "src").symlink_to(MAN.parent / "src")
    (tmp_path / "man/generate").write_text((MAN / "generate").read_text())
    page = tmp_path / "man/jail.8"
    page.write_text(PAGE.replace("default 10;", "default 11;"))
    run = [sys.executable, str(tmp_path / "man/generate")]
    assert page.read_text() != PAGE
    assert subprocess.run([*run, "--check"], capture_output=True).returncode == 1
    assert subprocess.run(run, capture_output=True).returncode == 0
    assert page.read_text() == PAGE


@pytest.mark.parametrize("number, table", [(0, beginning.START), (1, ending.STOP)])
def test_the_steps_are_those_of_the_life_of_a_jail(number: int, table: tuple[tuple[str, object], ...]) -> None:
    steps = re.findall(r"^\.Bl -enum.*?\n(.*?)^\.El", section("Order of operations"), re.MULTILINE | re.DOTALL)[number]
    texts = steps.split(".It\n")[1:]
    words = {
        "jail_set": "the jail itself",
        "jail_remove": "the jail is removed",
        "nopersist": "persist\nsays",
        "undo": "file systems",
    }
    assert len(texts) == len(table)
    for text, (name, _) in zip(texts, table, strict=True):
        assert words.get(name, name) in text


def test_characters_that_are_for_the_shell() -> None:
    display = section("COMMANDS").partition(".Bd -literal -offset indent\n")[2].partition("\n.Ed")[0]
    characters = display.replace("\\(aq", "'").replace("\\e", "\\").replace("\\`", "`").split()
    assert len(characters) == len(set(characters))
    assert set(characters) == command._FOR_SHELL


def test_variables_of_the_environment() -> None:
    passed = re.search(r"get no more of it than\n\.Ev (.*)\nand\n\.Ev (.*)\n", section("ENVIRONMENT"))
    assert passed
    variables = [word for word in f"{passed[1]} , {passed[2]}".split() if word.isupper()]
    assert sorted(variables) == sorted([*command._HARMLESS, "LC_*"])
    assert attach.USUAL_PATH in section("ENVIRONMENT")
    assert attach.CLEAN_PATH in section("ENVIRONMENT")


def test_numbers() -> None:
    assert f"{UIDS_PER_JAIL:,} uids" in section("Users")
    assert f"from {FIRST_UID} upwards" in section("Users")
    assert f"from 1 to {values.JAIL_MAX}," in section("Names and numbers")
    assert f"at most {row('name').most} bytes" in section("Names and numbers")
    assert f"usual {row('stop.timeout').default} seconds" in section("Order of operations")
