"""devfs rulesets: the engine, and the constant that stands for ruleset 4."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.core import devfs
from jailng.core.rulesets import RULESETS, matches, named, shown, writable
from jailng.errors import JailError

BASIC = ["null", "zero", "full", "random", "urandom"]
DISK = ("sda", 0o060660, 8, 0, 0, 6)
FURTHER = [
    DISK,
    ("mem", 0o020640, 1, 1, 0, 0),
    ("tty0", 0o020620, 4, 0, 0, 5),
    ("nst0", 0o020660, 9, 128, 0, 0),
    ("snd/pcm0", 0o020660, 116, 1, 0, 29),
]

Rule = tuple[str, str, str, str]


def rule(text: str) -> Rule:
    """``PATTERN ACTION ARGUMENT``, ``type=KIND`` for a pattern, ``-`` for none."""
    words = [*text.split(" "), "", ""]
    types = words[0][5:] if words[0].startswith("type=") else ""
    return ("" if types or words[0] == "-" else words[0], types, words[1], words[2])


def sets(**rules: list[str]) -> dict[int, tuple[Rule, ...]]:
    """``r10=[...]``: ruleset 10, beside FreeBSD's."""
    return {**RULESETS, **{int(name[1:]): tuple(map(rule, texts)) for name, texts in rules.items()}}


def names(ruleset: int, rules: dict[int, tuple[Rule, ...]], further: list[devfs.Node] | None = None) -> list[str]:
    return [node[0] for node in shown(ruleset, rules, further or [])[0]]


@pytest.mark.parametrize("ruleset", [0, 4, 5])
def test_the_jails_ruleset(ruleset: int) -> None:
    nodes, links = devfs.shown(ruleset)
    assert nodes == [
        ("null", 0o020666, 1, 3, 0, 0),
        ("zero", 0o020666, 1, 5, 0, 0),
        ("full", 0o020666, 1, 7, 0, 0),
        ("random", 0o020666, 1, 8, 0, 0),
        ("urandom", 0o020666, 1, 9, 0, 0),
        ("tty", 0o020666, 5, 0, 0, 0),
    ]
    assert dict(links) == {
        "fd": "/proc/self/fd",
        "stdin": "/proc/self/fd/0",
        "stdout": "/proc/self/fd/1",
        "stderr": "/proc/self/fd/2",
        "ptmx": "pts/ptmx",
    }


def test_the_constant_is_what_the_rules_come_to() -> None:
    assert shown(4, dict(RULESETS)) == shown(0, dict(RULESETS)) == devfs.shown() == devfs.shown(4)
    assert shown(5, dict(RULESETS)) == devfs.shown(5)


def test_the_callers_list_is_the_callers() -> None:
    for found in shown():
        found.clear()
    assert all(shown())


def test_the_other_default_rulesets() -> None:
    assert shown(1) == ([], [])
    assert shown(5) == shown(4)
    hidden_first = {**RULESETS, 2: RULESETS[1] + RULESETS[2], 3: RULESETS[1] + RULESETS[3]}
    assert names(2, hidden_first) == BASIC
    assert shown(2, hidden_first)[1] == []
    assert names(3, hidden_first) == ["tty"]
    assert shown(3, hidden_first)[1] == shown(4)[1]
    # As in FreeBSD: what no rule hides is there. Nothing is there, though, that a jail may never have.
    assert shown(2) == shown(3) == shown(4)


def test_the_last_rule_that_matches_wins() -> None:
    rules = sets(
        r10=["- include 1", "*random unhide", "urandom hide", "random mode 444"],
        r11=["* mode 600", "- include 10", "zero unhide", "- include 4"],
    )
    assert shown(10, rules)[0] == [("random", 0o020444, 1, 8, 0, 0)]
    assert [node[1] & 0o777 for node in shown(11, rules)[0]] == [0o600] * 3 + [0o444] + [0o600] * 2


def test_owners() -> None:
    rules = sets(r10=["- include 1", "null unhide", "null user 7", "null group 8", "fd user 9", "fd unhide"])
    assert shown(10, rules) == ([("null", 0o020666, 1, 3, 7, 8)], [("fd", "/proc/self/fd")])
    ids = {("user", "www"): 33, ("group", "tape"): 26}
    rules = sets(r10=["null user www", "null group tape"])
    assert shown(10, rules, ids=lambda kind, text: ids[kind, text])[0][0] == ("null", 0o020666, 1, 3, 33, 26)


# Devices that the host has


@pytest.mark.parametrize("ruleset", [1, 2, 3, 4, 5])
def test_no_default_ruleset_shows_a_device_of_the_hosts(ruleset: int) -> None:
    assert shown(ruleset, dict(RULESETS), FURTHER) == shown(ruleset)


@pytest.mark.parametrize("pattern", ["-", "*", "sd*", "?da", "[st]*", "*/*", "s*/pcm0", "type=disk"])
def test_a_device_that_no_rule_names_stays_hidden(pattern: str) -> None:
    assert names(10, sets(r10=[f"{pattern} unhide"]), FURTHER) == [*BASIC, "tty"]


def test_a_device_that_a_rule_names_is_shown_as_the_host_has_it() -> None:
    rules = sets(r10=["- include 1", "sda unhide", "snd/* unhide"])
    assert shown(10, rules, FURTHER)[0] == [DISK, ("snd/pcm0", 0o020660, 116, 1, 0, 29)]
    assert names(11, sets(r11=["- include 1", "sda unhide", "sd* hide"]), FURTHER) == []
    changed = sets(r10=["- include 1", "sda unhide", "sda mode 600", "sda group 0"])
    assert shown(10, changed, FURTHER)[0] == [("sda", 0o060600, 8, 0, 0, 0)]


def test_what_a_ruleset_names() -> None:
    assert named(10, sets(r10=["sda unhide", "snd/* unhide", "snd/seq unhide", "t* unhide", "mem hide"])) == [
        "sda",
        "snd",
    ]
    assert {"null", "fuse"} <= set(named(0, RULESETS))
    assert named(10, sets(r10=["- include 11"], r11=["kvm unhide"])) == ["kvm"]
    with pytest.raises(JailError, match="devfs ruleset 12 not found"):
        named(12, RULESETS)
    with pytest.raises(JailError, match="devfs ruleset 10 includes itself"):
        named(10, sets(r10=["- include 10"]))


@pytest.mark.parametrize(
    ("kind", "found"), [("disk", ["sda"]), ("mem", ["mem"]), ("tape", ["nst0"]), ("tty", ["tty", "tty0"])]
)
def test_types(kind: str, found: list[str]) -> None:
    rules = sets(r10=[f"{name} unhide" for name in ("sda", "mem", "tty0", "nst0")] + [f"type={kind} hide"])
    every = {"sda", "mem", "tty0", "nst0", "tty", *BASIC}
    assert every - set(names(10, rules, FURTHER)) == set(found)
    both = {**RULESETS, 10: (*rules[10][:4], ("", f"{kind} disk", "hide", ""))}
    assert every - set(names(10, both, FURTHER)) == {*found, "sda"}
    narrow = {**RULESETS, 10: (*rules[10][:4], ("s*", kind, "hide", ""))}
    assert every - set(names(10, narrow, FURTHER)) == {name for name in found if name[0] == "s"}


def test_what_could_be_written_to() -> None:
    assert writable(FURTHER) == ["sda", "mem"]
    assert writable(shown()[0]) == []


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({}, "devfs ruleset 9 not found"),
        ({9: ["- include 8"]}, "devfs ruleset 8 not found"),
        ({9: ["- include 8"], 8: ["- include 9"]}, "devfs ruleset 9 includes itself"),
        ({9: ["- include one"]}, "devfs ruleset 9: include: not a number: one"),
        ({9: ["- include"]}, "devfs ruleset 9: include: not a number: "),
        ({9: ["null mode 0689"]}, "devfs ruleset 9: mode: not a number: 0689"),
        ({9: ["null mode"]}, "devfs ruleset 9: mode: not a number: "),
        ({9: ["null user root"]}, "devfs ruleset 9: user: not a number: root"),
        ({9: ["null show"]}, "devfs ruleset 9: unknown action show"),
    ],
)
def test_what_cannot_be_applied_is_an_error(rules: dict[int, list[str]], message: str) -> None:
    with pytest.raises(JailError) as caught:
        shown(9, {number: tuple(map(rule, texts)) for number, texts in rules.items()})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("pts/*", "pts/0", True),
        ("pts*", "pts/0", False),  # FNM_PATHNAME: no wildcard matches a slash
        ("pts?0", "pts/0", False),
        ("pts[/]0", "pts/0", False),
        ("tty*", "tty", True),
        ("tty[a-cx]?", "ttyb0", True),
        ("tty[a-cx]?", "ttyd0", False),
        ("tty[!a-c]", "ttyb", False),
        ("tty[!a-c]", "ttyd", True),
        ("tty[]]", "tty]", True),
        ("tty[-a]", "tty-", True),
        ("tty[a", "tty[a", True),
        ("", "", True),
        ("", "null", False),
        ("null", "nulls", False),
        ("nulls", "null", False),
        ("null?", "null", False),
        ("null[a]", "null", False),
        ("*a*b*c", "xxaxxbxxc", True),
        ("*a*b*c", "xxaxxbxxd", False),
    ],
)
def test_patterns(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


@given(st.text("ab*?[]!-", max_size=8), st.text("ab[]!-", max_size=8))
def test_without_slashes_patterns_are_the_shells(pattern: str, name: str) -> None:
    assert matches(pattern, name) == fnmatch.fnmatchcase(name, pattern)
