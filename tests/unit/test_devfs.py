"""devfs rulesets: the engine, and the constant that stands for ruleset 4."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.core import devfs
from jailng.core.devfs import RULESETS, evaluate, links, matches, nodes
from jailng.errors import JailError

BASIC = ["null", "zero", "full", "random", "urandom"]


@pytest.mark.parametrize("ruleset", [0, 4])
def test_the_jails_ruleset(ruleset: int) -> None:
    assert nodes(ruleset) == [
        ("null", 1, 3, 0o666),
        ("zero", 1, 5, 0o666),
        ("full", 1, 7, 0o666),
        ("random", 1, 8, 0o666),
        ("urandom", 1, 9, 0o666),
        ("tty", 5, 0, 0o666),
    ]
    assert dict(links(ruleset)) == {
        "fd": "/proc/self/fd",
        "stdin": "/proc/self/fd/0",
        "stdout": "/proc/self/fd/1",
        "stderr": "/proc/self/fd/2",
        "ptmx": "pts/ptmx",
    }


def test_the_constant_is_what_the_rules_come_to() -> None:
    shown = evaluate(4)
    assert nodes() == [(name, major, minor, shown[name]) for name, major, minor, _ in devfs.DEVICES if name in shown]
    assert links() == [(name, target) for name, target in devfs.LINKS if name in shown]
    assert nodes(4, dict(RULESETS)) == nodes()
    assert links(0, dict(RULESETS)) == links()


def test_the_callers_list_is_the_callers() -> None:
    nodes().clear()
    links().clear()
    assert nodes()
    assert links()


def test_the_other_default_rulesets() -> None:
    assert nodes(1) == []
    assert links(1) == []
    assert nodes(5) == nodes(4)
    hidden_first = {**RULESETS, 2: RULESETS[1] + RULESETS[2], 3: RULESETS[1] + RULESETS[3]}
    assert [node[0] for node in nodes(2, hidden_first)] == BASIC
    assert links(2, hidden_first) == []
    assert [node[0] for node in nodes(3, hidden_first)] == ["tty"]
    assert links(3, hidden_first) == links(4)
    # As in FreeBSD: what no rule hides is there. Nothing is there, though, that a jail may never have.
    assert nodes(2) == nodes(3) == nodes(4)


def test_the_last_rule_that_matches_wins() -> None:
    rules = {
        10: (("", "include", "1"), ("*random", "unhide"), ("urandom", "hide"), ("random", "mode", "0444")),
        11: (("*", "mode", "600"), ("", "include", "10"), ("zero", "unhide"), ("", "include", "4")),
        **RULESETS,
    }
    assert nodes(10, rules) == [("random", 1, 8, 0o444)]
    assert [mode for _, _, _, mode in nodes(11, rules)] == [0o600] * 3 + [0o444] + [0o600] * 2


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({}, "devfs ruleset 9 not found"),
        ({9: (("", "include", "8"),)}, "devfs ruleset 8 not found"),
        ({9: (("", "include", "8"),), 8: (("", "include", "9"),)}, "devfs ruleset 9 includes itself"),
        ({9: (("", "include", "one"),)}, "devfs ruleset 9: include: not a number: one"),
        ({9: (("", "include", ""),)}, "devfs ruleset 9: include: not a number: "),
        ({9: (("null", "mode", "0689"),)}, "devfs ruleset 9: mode: not a number: 0689"),
        ({9: (("null", "mode"),)}, "devfs ruleset 9: mode: not a number: "),
        ({9: (("null", "user", "root"),)}, "devfs ruleset 9: unknown action user"),
    ],
)
def test_what_cannot_be_applied_is_an_error(rules: dict[int, tuple[tuple[str, ...], ...]], message: str) -> None:
    for ask in (nodes, links):
        with pytest.raises(JailError) as caught:
            ask(9, rules)
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
