"""The displays of jail.conf.5: which of them are configurations, and that they are what the page says of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jailng.conf.config import Config, load, parameters
from jailng.params.model import Parameters

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


class Display:
    """One text as all the files there are."""

    def __init__(self, text: str) -> None:
        self.text = text

    def read(self, path: str) -> bytes:
        return self.text.encode()

    def glob(self, pattern: str) -> list[str]:
        return []


def _config(text: str) -> Config:
    return load("jail.conf", Display(text))


def _display(part: str) -> Config:
    """The one display that has this in it."""
    (text,) = [text for text in displays() if part in text]
    return _config(text)


def _given(config: Config, key: str) -> Parameters:
    jail = config.find(key)
    assert jail is not None
    return parameters(jail.settings())


@pytest.mark.parametrize("text", displays(), ids=lambda text: text.split("\n", 1)[0])
def test_a_display_is_a_configuration_of_parameters_that_there_are(text: str) -> None:
    """What is told of a part of the language has jails too, so that nothing is shown that no jail could have."""
    config = _config(text)
    assert config.jails
    for jail in config.jails:
        parameters(jail.settings()).settle()


def test_the_first_display() -> None:
    config = _display("depend = cell;")
    assert [jail.key for jail in config.jails] == ["cell", "web"]
    web = _given(config, "web")
    assert web["path"] == "/jail/web"
    assert web["host.hostname"] == "web.example.org"


def test_the_page_says_what_the_parser_does() -> None:
    """Results that the text tells in words."""

    def value(part: str, key: str, name: str) -> object:
        return _given(_display(part), key)[name]

    assert value("allow.mount = 0;", "cell", "allow.mount") is False
    assert value("exec.start = \"/bin/sh /etc/rc\", \"/usr/sbin/cron\"", "cell", "exec.start") == (
        "/bin/sh /etc/rc", "/usr/sbin/cron",
    )  # fmt: skip
    assert value("$roots/${host.hostname}", "cell", "path") == "/jail/cell.example.org"
    assert value("$n = 101", "a", "host.hostname") == "worker-101"
    assert value("here the block * begins", "cell", "host.hostname") == "own"
    later = next(text for text in displays() if "here the block * begins" in text).split("\n", 1)[1]
    assert _given(_config(later), "cell")["host.hostname"] == "general"
    assert value('exec.prestart += "test', "cell", "exec.prestart") == ("logger start cell", "test -d /jail/cell/etc")
    assert value("echo \\$JNAME", "cell", "exec.poststart") == ("echo $JNAME is up, at /jail/cell",)
    assert value("echo \\$JNAME", "cell", "exec.start") == ('test -n "$PATH" && /bin/sh /etc/rc',)


@pytest.mark.parametrize(
    ("text", "key", "name", "told"),
    [
        ("a { path = /jail//cell;\n; }", "a", "path", "/jail"),
        ("$x = y; a { host.hostname = $x.log; }", "a", "host.hostname", "y.log"),
        ("$x = y; a { host.hostname = ${x}_log; }", "a", "host.hostname", "y_log"),
        ("a { host.hostname = 'a\\\\.b'; }", "a", "host.hostname", "a\\.b"),
        ("a { host.hostname = 'a\\.b'; }", "a", "host.hostname", "a.b"),
        ("a { path /jail/a; }", "a", "path", "/jail/a"),
        ('a { path = /jail/"a b"/$name; }', "a", "path", "/jail/a b/a"),
        ('a { host.hostname = "x\\\ny"; }', "a", "host.hostname", "xy"),
        ('"*.c" { persist; } a.c {} b {}', "a.c", "persist", True),
        ('"a.*" { persist; } a.b.c {}', "a.b.c", "persist", True),
    ],
)
def test_caveats(text: str, key: str, name: str, told: object) -> None:
    assert _given(_config(text), key)[name] == told


def test_what_a_wildcard_does_not_match() -> None:
    for text, key in (
        ('"*.c" { persist; } c {}', "c"),
        ('"web*" { persist; } web {}', "web"),
        ('"a.*" { persist; } a {}', "a"),
    ):
        assert not _given(_config(text), key).given("persist")


def test_the_name_of_a_wildcard_need_not_be_quoted() -> None:
    assert _given(_config("a.* { persist; } a.b {}"), "a.b")["persist"] is True


def test_two_blocks_of_one_name_are_two_jails() -> None:
    assert [jail.key for jail in _config("a { persist; } a { path = /x; }").jails] == ["a", "a"]
