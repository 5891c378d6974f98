"""The options of a command, those of its manual's SYNOPSIS, and those of its usage; and the messages of the manuals."""

from __future__ import annotations

import ast
import os
import re
import string
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from jailng.cli import jail, jexec, jls
from jailng.cli.getopt import getopt
from jailng.errors import UsageError
from jailng.params.model import Parameters

CHECKOUT = Path(__file__).resolve().parents[2]
COMMANDS = ("jail", "jexec", "jls")
USAGES = {"jail": jail.USAGE, "jexec": jexec.USAGE, "jls": jls.USAGE}
PARSERS: dict[str, Callable[[list[str]], object]] = {
    "jail": lambda argv: getopt(argv, jail._LETTERS, jail.USAGE),
    "jexec": lambda argv: getopt(argv, jexec._LETTERS, jexec.USAGE),
    "jls": jls.parse_arguments,
}
# What jls -c needs beside it.
COMPANY = {"jls": ["-j", "x"]}
# Accepted for the sake of old scripts. FreeBSD's manuals do not list them either; ours mention them.
UNLISTED = {"jail": set[str](), "jexec": {"n"}, "jls": {"a"}}


def page(command: str) -> str:
    return (CHECKOUT / "man" / f"{command}.8").read_text()


def accepts(command: str, argv: list[str]) -> bool:
    try:
        PARSERS[command](argv)
    except UsageError:
        return False
    return True


def accepted(command: str) -> dict[str, bool]:
    """The letters that the command takes for options, and whether each takes an argument."""
    found = {}
    for letter in string.ascii_letters + string.digits + string.punctuation.replace("-", ""):
        if accepts(command, [f"-{letter}?"]):  # "?" is an option of nobody's, so it has been an argument
            found[letter] = True
        elif accepts(command, [f"-{letter}", *COMPANY.get(command, [])]):
            found[letter] = False
    return found


def synopsis(command: str) -> dict[str, bool]:
    """The options of the SYNOPSIS, long ones with their two dashes, and whether each takes an argument."""
    text = page(command)
    text = text[text.index(".Sh SYNOPSIS") : text.index(".Sh DESCRIPTION")]
    found = {}
    for word, argument in re.findall(r"Fl (-?\w+)( Ar)?", text):
        for option in [f"-{word}"] if word.startswith("-") else word:
            found[option] = bool(argument) and (len(word) == 1 or word.startswith("-"))
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_accepts_what_the_synopsis_lists_and_nothing_else(command: str) -> None:
    listed = {option: argument for option, argument in synopsis(command).items() if len(option) == 1}
    assert listed
    told = {letter: argument for letter, argument in accepted(command).items() if letter not in UNLISTED[command]}
    assert told == listed


@pytest.mark.parametrize("command", COMMANDS)
def test_options_that_are_not_listed_are_accepted_and_mentioned(command: str) -> None:
    for letter in UNLISTED[command]:
        assert accepted(command)[letter] is False
        assert f".Fl {letter}\n" in page(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_usage_lists_is_in_the_synopsis(command: str) -> None:
    """Not the other way round: the usage is FreeBSD's, to the letter."""
    listed = set("".join(re.findall(r"(?<![\w-])-\[?([A-Za-z]+)", USAGES[command])))
    assert listed
    assert listed <= set(synopsis(command))


@pytest.mark.parametrize("command", ["jexec", "jls"])
def test_the_diagnostics_have_the_usage_to_the_letter(command: str) -> None:
    assert f".It {USAGES[command]}\n" in page(command)


def test_long_options() -> None:
    assert {command: {o for o in synopsis(command) if len(o) > 1} for command in COMMANDS} == {
        "jail": {"--plan"},
        "jexec": set(),
        "jls": {"--libxo"},
    }
    style = jls.parse_arguments(["--libxo", "json"]).style
    assert style is not None
    assert style.encoder == "json"
    for command in COMMANDS:
        assert not accepts(command, ["--nonsense"])


class Stop(Exception):
    """In place of the creation of a jail."""


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[bool, list[str]]]:
    """jail(8) up to the point where it would create: whether it was asked for a plan, and the jail's command."""

    def create(options: jail.Options, params: Parameters, old_style: bool = False) -> int:
        raise Stop(options.plan, list(params.strings("command")))

    monkeypatch.setattr(jail, "create", create)

    def run(*argv: str) -> tuple[bool, list[str]]:
        with pytest.raises(Stop) as stopped:
            jail.main(list(argv))
        asked, words = stopped.value.args
        return asked, words

    return run


@pytest.mark.parametrize(
    "argv",
    [
        ("--plan", "-c", "path=/", "command=/bin/true"),
        ("-c", "--plan", "path=/", "command=/bin/true"),
        ("-u", "root", "--plan", "-c", "path=/", "command=/bin/true"),
        ("-cv", "-J", "/nowhere", "--plan", "path=/", "command=/bin/true"),
        ("--plan", "/", "host", "", "/bin/true"),
        ("-l", "--plan", "/", "host", "", "/bin/true"),
    ],
)
def test_plan_stands_among_the_options(plan: Callable[..., tuple[bool, list[str]]], argv: tuple[str, ...]) -> None:
    assert plan(*argv) == (True, ["/bin/true"])


@pytest.mark.parametrize(
    "argv",
    [
        ("-c", "path=/", "command=/bin/echo", "--plan"),
        ("-c", "-n", "x", "path=/", "command", "/bin/echo", "--plan"),
        ("/", "host", "", "/bin/echo", "--plan"),
    ],
)
def test_plan_after_the_first_word_is_the_command_s(
    plan: Callable[..., tuple[bool, list[str]]], argv: tuple[str, ...]
) -> None:
    assert plan(*argv) == (False, ["/bin/echo", "--plan"])


def _strings(tree: ast.AST) -> Iterator[str]:
    """The texts of a program, what is put into them at run time being a NUL."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


STRERRORS = {os.strerror(number) for number in range(1, 134)}


def messages(command: str) -> list[str]:
    """The messages of DIAGNOSTICS; a single capital letter, a word of capitals and "why" stand for what varies."""
    text = page(command).partition(".Bl -diag\n")[2].partition(".El")[0]
    return [item.replace("\\(dq", '"') for item in re.findall(r"^\.It (.*)$", text, re.MULTILINE)]


def _letters(text: str) -> int:
    for error in STRERRORS:
        text = text.replace(error, "")
    return sum(char.isalnum() for char in re.sub(r"\b(?:[A-Z]|CMD|USER|DIR|why|mount\.\w+)\b", "", text))


@cache
def _said() -> list[tuple[str, re.Pattern[str]]]:
    """Every text of the program, and what it can become."""
    sources = (CHECKOUT / "src").glob("**/*.py")
    texts = {text for source in sources for text in _strings(ast.parse(source.read_text()))}
    return [(text, re.compile(".*".join(map(re.escape, re.split(r"\0|\{\}", text))))) for text in texts]


def is_said(message: str) -> bool:
    """Whether a text of the program can become that message, and most of it stands there."""
    said = [text for text, wanted in _said() if wanted.fullmatch(message)]
    return any(_letters(text) >= 0.55 * _letters(message) for text in said)


@pytest.mark.parametrize("command, message", [(command, text) for command in COMMANDS for text in messages(command)])
def test_a_message_of_the_manual_is_one_of_the_program(command: str, message: str) -> None:
    assert is_said(message)


def test_a_message_that_no_program_has_would_be_seen() -> None:
    assert is_said('jail "X" not found')
    assert not is_said('jail "X" not lost')
    assert not is_said("path P: other users of this host cannot reach it")
