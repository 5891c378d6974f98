"""The words and the grammar of jail.conf(5), and what is said of text that has another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jailng.conf.parse import Variable, parse
from jailng.errors import JailError
from tests.unit.conf_files import Given

if TYPE_CHECKING:
    from jailng.conf.parse import Text


def shown(text: Text) -> str:
    """A value with its variables as ``<name>``."""
    parts = (text,) if isinstance(text, str) else text
    return "".join([f"<{part.name}>" if isinstance(part, Variable) else part for part in parts])


def tree(text: str | bytes) -> list[str]:
    """A block a line: its name, and after it the assignments."""
    content = text if isinstance(text, bytes) else text.encode()
    lines = []
    for block in parse("f", Given({"f": content})):
        words = [block.name + ":"]
        for one in block.assignments:
            sign = ("+=" if one.append else "=") if one.values else ""
            words.append(f"{'$' * one.variable}{one.name}{sign}{','.join([shown(value) for value in one.values])}")
        lines.append(" ".join(words))
    return lines


def value(text: str | bytes) -> str:
    """How one value is read."""
    content = text if isinstance(text, bytes) else text.encode()
    (line,) = tree(b"a=" + content + b";")
    return line.removeprefix("*: a=")


def wrong(text: str | bytes) -> str:
    with pytest.raises(JailError) as caught:
        tree(text)
    return str(caught.value)


def test_a_file_of_nothing() -> None:
    assert tree("") == tree(" \t\r\n;;;\n# \n// \n/* \n */") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("persist;", ["*: persist"]),
        ("path = /x;", ["*: path=/x"]),
        ("path=/x;", ["*: path=/x"]),
        ("path /x;", ["*: path=/x"]),
        ("path'/x';", ["f line 1: '/x': syntax error"]),
        ("ip4.addr = a, b,c;ip4.addr+=d;", ["*: ip4.addr=a,b,c ip4.addr+=d"]),
        ("ip4.addr a, b;", ["*: ip4.addr=a,b"]),
        ("$v = 1; ${w w}=2;", ["*: $v=1 $w w=2"]),
        ("$v;", ["*: $v"]),
        ("'a b' { }", ["a b:"]),
        ("a{b{c;}d;}e;", ["a: d", "a.b: c", "*: e"]),
        ("* { a; } '*.b' { c; }", ["*: a", "*.b: c"]),
        ("foo.* { a; } *.b { } foo.*.b { } a'b c'\"$\" { }", ["foo.*: a", "*.b:", "foo.*.b:", "ab c$:"]),
        ("x; a { y; } z; b { } * { w; }", ["*: x z", "a: y", "b:", "*: w"]),
        ("a { } a { b; }", ["a:", "a: b"]),
        ("$.include y;", ["f line 1: .include: syntax error"]),
        (".include = x; .include += y; .include;", ["*: .include=x .include+=y .include"]),
    ],
)
def test_statements(text: str, expected: list[str]) -> None:
    assert (tree(text) if "error" not in expected[0] else [wrong(text)]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/usr/jail/x", "/usr/jail/x"),
        ("http://x\n", "http:"),
        ("a#b\n", "a"),
        ("a/*b*/", "a"),
        ("'http://x#y/*z'", "http://x#y/*z"),
        ('"http://x#y/*z"', "http://x#y/*z"),
        ("a'b c'\"d e\"f", "ab cd ef"),
        ("A_9!%&()-.:<>?@[]^`|~$*+/", "A_9!%&()-.:<>?@[]^`|~$*+/"),
        ("a+b", "a+b"),
        ("[fe80::1%lo]", "[fe80::1%lo]"),
        ("'a\nb'", "a\nb"),
        (r"\a\b\f\n\r\t\v", "\a\b\f\n\r\t\v"),
        (r"'\a\b\f\n\r\t\v'", "\a\b\f\n\r\t\v"),
        (r"\101\60x\7", "A0x\a"),
        (r"'\1011'", "A1"),
        (r"\x41\x4g\x0a1", "A\x04g\n1"),
        (r"'\x414'", "A4"),
        (r"\q\;\ \#\"\'\\\$x", "q; #\"'\\$x"),
        (r"'\q\'\\'", "q'\\"),
        ("a\\\nb", "ab"),
        ("'a\\\nb'", "ab"),
        ('"a\\\n b"', "a b"),
        ("$v", "<v>"),
        ("a$v/$w.$1", "a<v>/<w>.$1"),
        ("${a.b c}d", "<a.b c>d"),
        ('"${a.b}$c$d e$"', "<a.b><c><d> e$"),
        ("'$v ${w}'", "$v ${w}"),
        ('"\\$v\\\\$w"', "$v\\<w>"),
        ('"$v\\"$w"x', '<v>"<w>x'),
        ('"$"', "$"),
        ("'$'{", "f line 1: {: syntax error"),
        ('""', ""),
        (r"${a\x62\}c}", "<ab}c>"),
        ("\"\xe9\"'\\xc3\\xa9'", "\xe9\xe9"),
        (b"'\xff'", "\udcff"),
    ],
)
def test_values(text: str | bytes, expected: str) -> None:
    if expected.endswith("error"):
        assert wrong(b"a=" + (text if isinstance(text, bytes) else text.encode())) == expected
    else:
        assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "f: unexpected EOF"),
        ("a\n{\n}\nb", "f: unexpected EOF"),
        ("a {", "f: unexpected EOF"),
        ("a = ", "f: unexpected EOF"),
        ("a = b", "f: unexpected EOF"),
        ("}", "f line 1: }: syntax error"),
        ("a {} }", "f line 1: }: syntax error"),
        ("a {\n persist }", "f line 2: }: syntax error"),
        ("a = 1\nb = 2;", "f line 2: b: syntax error"),
        ("a = b c;", "f line 1: c: syntax error"),
        ("a = 'b' 'c';", "f line 1: 'c': syntax error"),
        ("a = b, ;", "f line 1: ;: syntax error"),
        ("a = ;", "f line 1: ;: syntax error"),
        ("a += = b;", "f line 1: =: syntax error"),
        ("a = += ;", "f line 1: +=: syntax error"),
        ("= a;", "f line 1: =: syntax error"),
        ("{ }", "f line 1: {: syntax error"),
        ("$v { }", "f line 1: {: syntax error"),
        ("foo.* = a;", "f line 1: *: syntax error"),
        ("foo.*;", "f line 1: *: syntax error"),
        ("$v.* { }", "f line 1: .: syntax error"),
        ('a"b" = c;', 'f line 1: "b": syntax error'),
        ("a\"b\"'c' = d;", 'f line 1: "b": syntax error'),
        ('"a$b" { }', "f line 1: $b: syntax error"),
        ('"$b" = c;', "f line 1: $b: syntax error"),
        ("a/*\n\n*/'b'", "f: unexpected EOF"),
        ("\n\n'a\nb' 'c\n\nd' 'e';", "f line 6: 'e': syntax error"),
        ("'a\nb\n'\n=\n=\n", "f line 5: =: syntax error"),
        ("a = 'b;", "f line 1: unterminated string"),
        ('a;\nb = "c\n;', "f line 2: unterminated string"),
        ("a = 'b\\'\n;", "f line 1: unterminated string"),
        ("a;\n/* b\n c;\n", "f line 4: unterminated comment"),
        ("/*/", "f line 1: unterminated comment"),
        ("a = ${b\n};", "f line 1: unterminated variable"),
        ("a = ${b{c};", "f line 1: unterminated variable"),
        ('a = "${b";', "f line 1: unterminated variable"),
        ("a = ${b\\}c;\n", "f line 1: unterminated variable"),
        ("a = \xe9;", "f line 1: \xe9: syntax error"),
        (b"a = \xff;", "f line 1: \\xff: syntax error"),
        ("a = \x1b[1m;", "f line 1: \\x1b: syntax error"),
        ("a = b\0;", "f line 1: \\x00: syntax error"),
        ("a = 'b\0';", "f line 1: a NUL within a string"),
        ("\na = '\\0';", "f line 2: a NUL within a string"),
        ("a = \\x;", "f line 1: a NUL within a string"),
        ("a " + "b" * 100 + " c;", "f line 1: c: syntax error"),
        ("a = 1 " + "b" * 5000 + ";", f"f line 1: {'b' * 4096}: syntax error"),
        (f"exec.start = 'a' '{'b ' * 100}';", f"f line 1: '{'b ' * 100}': syntax error"),
        ("a = 1 'b\n\tc';", "f line 2: 'b\n\tc': syntax error"),
        ('a;\n";\nb = "c";\nd = "', "f line 3: c: syntax error"),
        ('a"b"c"\n', 'f line 1: "b": syntax error'),
        ("a'b'c${d", "f line 1: 'b': syntax error"),
        ("a {" * 129, "f line 1: blocks nest more than 128 deep"),
        ("a {" * 100000, "f line 1: blocks nest more than 128 deep"),
    ],
)
def test_errors(text: str | bytes, expected: str) -> None:
    assert wrong(text) == expected


def test_the_end_within_an_escape() -> None:
    assert wrong("a = b\\") == "f: unexpected EOF"
    assert wrong("a = '\\") == "f line 1: unterminated string"


def test_standard_input_has_a_name() -> None:
    with pytest.raises(JailError, match=r"^STDIN line 2: \}: syntax error$"):
        parse("-", Given({"-": b"\n}"}))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(JailError, match=r"^/etc/jail\.conf: No such file or directory$"):
        parse("/etc/jail.conf", Given({}))
