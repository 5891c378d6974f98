"""What can be seen in a command string of the host's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.engine import hookwords
from jailng.engine.command import split


def seen(text: str, hits: bool = True, **known: str) -> list[tuple[int, str, str]]:
    """All that is told of; each is said to be there, or not."""
    told = []
    found = hookwords.executed(split(text)[0], {"PATH": "/bin", **known}, "/cwd")
    try:
        item = next(found)
        while True:
            told.append(item[:3])
            item = found.send(hits)
    except StopIteration:
        return told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b c", ["a"]),
        ("a 'b'; c", ["/bin/sh", "a", "c"]),
        ("a > b 2>&1 | c", ["/bin/sh", "a", "c"]),
        ("X=1 Y='2 3' a", ["/bin/sh", "a"]),
        ("X=/x; $X/a; ${X}/b; $Z/c", ["/bin/sh", "/x/a", "/x/b"]),
        ('a "b $(c d)" `e`', ["/bin/sh", "a", "e", "c"]),
        ("if a; then b; else c; fi", ["/bin/sh", "a", "b", "c", "fi"]),
        ("(a; { b; }) & # c", ["/bin/sh", "a", "b"]),
        ("eval 'a b'", ["/bin/sh", "eval", "a"]),
        ("env X=1 nice -n a b", ["env", "nice", "nice", "a", "a"]),
        ("\\a 'b", ["/bin/sh", "a"]),
    ],
)
def test_commands(text: str, words: list[str]) -> None:
    assert [word for kind, word, _ in seen(text) if kind == hookwords.PROGRAM] == words


def test_where() -> None:
    assert seen("cd /a && ./b; cd c; ./d; cd $X; ./e")[1:] == [
        (hookwords.PROGRAM, "./b", "/a"),
        (hookwords.PROGRAM, "./d", "/a/c"),
        (hookwords.PROGRAM, "./e", ""),
    ]


def test_scripts_and_roots() -> None:
    assert seen("python3 -u a b") == [(0, "python3", "/cwd"), (hookwords.SCRIPT, "a", "/cwd")]
    assert seen("perl -pe s/a/b/ c") == [(0, "perl", "/cwd")]
    assert (hookwords.SCRIPT, "b", "/cwd") in seen("sh -ec '. b'")
    assert (hookwords.ROOT, "/r", "/cwd") in seen("chroot --userspec=a /r b")


@given(st.text(alphabet="ab/ ;&|()`$\"'\\{}<>=#\n-csh!cd ", max_size=60), st.booleans())
def test_any_text_can_be_looked_at(text: str, hits: bool) -> None:
    for kind, word, _ in seen(text, hits, a="b"):
        assert kind in (hookwords.PROGRAM, hookwords.SCRIPT, hookwords.ROOT) and isinstance(word, str)
