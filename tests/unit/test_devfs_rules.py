"""devfs.rules(5): text to rule sets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.conf.devfs_rules import parse
from jailng.core.rulesets import NAMES, RULESETS, shown
from jailng.errors import JailError

# In the manner of FreeBSD's own file, written anew.
OURS = """\
# Devices of our jails.

[ours=10]
add include $devfsrules_hide_all
add include $devfsrules_unhide_basic
add path 'snd/*' unhide   # music
add path kvm mode 660 group 36 unhide

  [theirs=11]
    add include $ours
    add path "random" hide
"""


def rules(text: str, number: int = 10) -> tuple[tuple[str, str, str, str], ...]:
    return parse(text, {}, {})[0][number]


def one(line: str) -> list[tuple[str, str, str, str]]:
    return list(rules(f"[x=10]\n{line}\n"))


def refusal(text: str) -> str:
    with pytest.raises(JailError) as caught:
        parse(text, RULESETS, NAMES)
    return str(caught.value)


def test_a_file() -> None:
    rulesets, names = parse(OURS, RULESETS, NAMES)
    assert rulesets.keys() == {1, 2, 3, 4, 5, 10, 11}
    assert names == {**NAMES, "ours": 10, "theirs": 11}
    assert rulesets[10] == (
        ("", "", "include", "1"),
        ("", "", "include", "2"),
        ("snd/*", "", "unhide", ""),
        ("kvm", "", "mode", "660"),
        ("kvm", "", "group", "36"),
        ("kvm", "", "unhide", ""),
    )
    assert rulesets[11] == (("", "", "include", "10"), ("random", "", "hide", ""))
    assert [node[0] for node in shown(11, rulesets)[0]] == ["null", "zero", "full", "urandom"]


def test_freebsd_s_own_sets_in_its_own_spelling() -> None:
    """Whoever has copied /etc/defaults/devfs.rules into /etc/devfs.rules changes nothing by it."""
    pseudo = [f"add path '{kind}{letter}*' unhide" for kind in ("pty", "tty") for letter in "pqrsPQRSlmnoLMNO"]
    login = [f"add path {name} unhide" for name in "ptmx pts 'pts/*' fd 'fd/*' stdin stdout stderr".split()]
    text = "\n".join(
        [
            "[devfsrules_hide_all=1]",
            "add hide",
            "[devfsrules_unhide_basic=2]",
            *[f"add path {name} unhide" for name in "null zero crypto random urandom".split()],
            "[devfsrules_unhide_login=3]",
            *pseudo,
            *login,
            "[devfsrules_jail=4]",
            *[f"add include $devfsrules_{name}" for name in ("hide_all", "unhide_basic", "unhide_login")],
            *[f"add path {name} unhide" for name in ("fuse", "zfs")],
        ]
    )
    rulesets, _ = parse(text, RULESETS, NAMES)
    further = [("ttyS0", 0o020620, 4, 64, 0, 0), ("sda", 0o060660, 8, 0, 0, 0)]
    nodes, links = shown(4, rulesets, further)
    assert [node[0] for node in nodes] == ["null", "zero", "random", "urandom"]
    assert links == shown(4)[1]


def test_a_set_of_the_same_number_replaces() -> None:
    rulesets, _ = parse("[mine=4]\nadd path null hide\n", RULESETS, NAMES)
    assert rulesets[4] == (("null", "", "hide", ""),)
    assert rulesets[2] == RULESETS[2]
    assert parse("[mine=4]\n", RULESETS, NAMES)[0][4] == ()
    assert parse("[last=65535]\n", {}, {}) == ({65535: ()}, {"last": 65535})
    assert RULESETS[4] != ()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("add hide", [("", "", "hide", "")]),
        ("add path null unhide", [("null", "", "unhide", "")]),
        ("add path 'a b' unhide", [("a b", "", "unhide", "")]),
        ('add path "a b" unhide', [("a b", "", "unhide", "")]),
        (r"add path a\ b unhide", [("a b", "", "unhide", "")]),
        ("add path null unhide # said", [("null", "", "unhide", "")]),
        ("add path null \\\n unhide", [("null", "", "unhide", "")]),
        ("add type disk hide", [("", "disk", "hide", "")]),
        ("add type disk type tape path s* hide", [("s*", "disk tape", "hide", "")]),
        ("add path a mode 0644", [("a", "", "mode", "644")]),
        ("add path a mode u=rw,go=r", [("a", "", "mode", "644")]),
        ("add path a mode a+rw", [("a", "", "mode", "666")]),
        ("add path a mode +rw", [("a", "", "mode", "644")]),
        ("add path a mode u=rwx-x", [("a", "", "mode", "600")]),
        ("add path a mode ug+r,o=", [("a", "", "mode", "440")]),
        ("add path a mode u=rw,u=r", [("a", "", "mode", "400")]),
        ("add path a mode u+r,u+w", [("a", "", "mode", "600")]),
        ("add path a mode a=rwx", [("a", "", "mode", "777")]),
        ("add path a mode 7777", [("a", "", "mode", "777")]),
        ("add path a user www group 33", [("a", "", "user", "www"), ("a", "", "group", "33")]),
        ("add include $x", [("", "", "include", "10")]),
        ("add include ${x}", [("", "", "include", "10")]),
        ("add include 4", [("", "", "include", "4")]),
        ("#add hide", []),
        ("add hide\\", [("", "", "hide", "")]),
        ("add 65535 path a hide\nadd 1 hide", [("", "", "hide", ""), ("a", "", "hide", "")]),
        ("add hide\ndelset", []),
        ("add 7 hide\nadd 5 path a unhide\ndel 7", [("a", "", "unhide", "")]),
        ("del 3", []),
    ],
)  # fmt: skip
def test_lines(line: str, found: list[tuple[str, str, str, str]]) -> None:
    assert one(line) == found


def test_numbers_of_rules_are_their_order() -> None:
    text = "[x=10]\nadd path a hide\nadd 50 path b hide\nadd 150 path c hide\nadd path d hide\nadd 199 path e hide\n"
    assert [pattern for pattern, *_ in rules(text)] == ["b", "a", "c", "e", "d"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("add hide", "line 1: add: belongs to no rule set: [name=number] comes first"),
        ("[x]", "line 1: cannot extract rule number ([x])"),
        ("[x=]", "line 1: cannot extract rule number ([x=])"),
        ("[=3]", "line 1: cannot extract rule name ([=3])"),
        ("[a b=3]", "line 1: cannot extract rule name ([a b=3])"),
        ("\n\n[x=0]", "line 3: x=0: the number of a rule set is from 1 to 65535"),
        ("[x=65536]", "line 1: x=65536: the number of a rule set is from 1 to 65535"),
        ("[x=9]\nadd", "line 2: unexpected end of rulespec"),
        ("[x=9]\nadd path", "line 2: expecting argument for path"),
        ("[x=9]\nadd type", "line 2: expecting argument for type"),
        ("[x=9]\nadd type disk mode", "line 2: expecting argument for mode"),
        ("[x=9]\nadd include", "line 2: expecting argument for include"),
        ("[x=9]\nadd type gpu hide", "line 2: unknown type: gpu"),
        ("[x=9]\nadd show", "line 2: unknown argument: show"),
        ("[x=9]\nadd hide path a", "line 2: unknown argument: path"),
        ("[x=9]\nadd mode rwx", "line 2: invalid mode: rwx"),
        ("[x=9]\nadd mode 888", "line 2: invalid mode: 888"),
        ("[x=9]\nadd include x", "line 2: include: not a number: x"),
        ("[x=9]\nadd include $y", "line 2: $y: no rule set of that name before this line"),
        ("[x=9]\nadd path 'a unhide", "line 2: add path 'a unhide: no quote at its end"),
        ("[x=9]\nadd 4 hide\nadd 4 hide", "line 3: 4: there is a rule of that number"),
        ("[x=9]\nadd 70000 hide", "line 2: 70000: the number of a rule is from 1 to 65535"),
        ("[x=9]\nadd 65500 hide\nadd hide", "line 3: 65600: the number of a rule is from 1 to 65535"),
        (f"[x={9 * '1'}{5000 * '9'}]", f"line 1: x={9 * '1'}{5000 * '9'}: the number of a rule set is from 1 to 65535"),
        (f"[x=9]\nadd {5000 * '9'} hide", f"line 2: unknown argument: {5000 * '9'}"),
        (f"[x=9]\nadd include {5000 * '9'}", f"line 2: include: not a number: {5000 * '9'}"),
        ("[x=9]\nadd include \u0663", "line 2: include: not a number: \u0663"),
        ("[x=9]\nadd 0 hide", "line 2: 0: the number of a rule is from 1 to 65535"),
        ("[x=9]\nadd 65536 hide", "line 2: 65536: the number of a rule is from 1 to 65535"),
        ("[x=9]\ndel", "line 2: unknown command: del"),
        ("[x=9]\ndel a", "line 2: unknown command: del a"),
        ("[x=9]\ndel 1 2", "line 2: unknown command: del 1 2"),
        ("[x=9]\ndelset 1", "line 2: unknown command: delset 1"),
        ("[x=9]\nsub 1", "line 2: unknown command: sub 1"),
        ("[x=9]\napplyset", "line 2: unknown command: applyset"),
        ("[x=9]\nhide \x1b[2J", "line 2: unknown command: hide \\x1b[2J"),
    ],
)
def test_what_is_no_rule_is_said_with_its_line(text: str, message: str) -> None:
    assert refusal(text) == message


@given(st.text(alphabet="[]=xyz019 \n\t#'\"\\$*add pathunhide-mode{}", max_size=120))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        rulesets, _ = parse(text, RULESETS, NAMES)
    except JailError:
        return
    for number in rulesets:
        try:
            shown(number, rulesets)
        except JailError:
            pass


def test_the_manual_s_examples_do_what_is_said_of_them() -> None:
    page = (Path(__file__).parents[2] / "man/devfs.rules.5").read_text()
    first, second = re.findall(r"^\.Bd -literal -offset indent\n(.*?)^\.Ed", page, re.MULTILINE | re.DOTALL)
    further = [(name, 0o020600, 10, number, 0, 0) for number, name in enumerate(("snd/seq", "kvm", "net/tun", "sda"))]

    def node_names(number: int, text: str) -> list[str]:
        rulesets, _ = parse(text, RULESETS, NAMES)
        return [node[0] for node in shown(number, rulesets, further, lambda kind, name: 29)[0]]

    assert node_names(10, first) == ["null", "zero", "random", "urandom", "tty", "snd/seq"]
    assert node_names(11, second) == ["null", "zero", "full", "random", "urandom", "tty", "kvm", "net/tun"]
    table = dict(re.findall(r"^\.It (\d) Ta (\w+) Ta", page, re.MULTILINE))
    assert {name: int(number) for number, name in table.items()} == NAMES
