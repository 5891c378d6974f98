"""jail.conf(5) read by jailng and by a second grammar, tests/unit/conf/jail.lark: on any text both agree.

And what is read can be written, and reads the same again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from jailng.conf.config import exported, load
from jailng.conf.lex import unescape
from jailng.conf.parse import Variable, parse
from jailng.errors import JailError
from tests.unit.conf_files import Given

HERE = Path(__file__).parent / "conf"
SAMPLES = sorted(HERE.glob("*.conf"))
lark = pytest.importorskip("lark", reason="pip install --group check")
LARK = lark.Lark((HERE / "jail.lark").read_text(), parser="lalr", maybe_placeholders=False)

# A value is a list of ("text", str) and ("variable", str); an assignment its name, its sign and its values.
Value = list[tuple[str, str]]
Assignment = tuple[str, str, list[Value]]
Tree = list[tuple[str, list[Assignment]]]

IN_DOUBLE = re.compile(r"\\(?:[0-7]{1,3}|x[0-9A-Fa-f]{1,2}|[\s\S])|\$[A-Za-z_]\w*|\$\{[^\n\"{}]*\}|\$\{|[\s\S]", re.A)


class Refused(Exception):
    """The second grammar does not know this text."""


def joined(value: Value) -> Value:
    """A value without empty text, and text together."""
    done: Value = []
    for kind, text in value:
        if kind == "text" and done and done[-1][0] == "text":
            done[-1] = ("text", done[-1][1] + text)
        elif text or kind == "variable":
            done.append((kind, text))
    return done


def ours(text: str) -> Tree:
    tree: Tree = []
    for block in parse("f", Given({"f": text.encode("utf-8", "surrogateescape")})):
        assignments: list[Assignment] = []
        for one in block.assignments:
            values: list[Value] = []
            for value in one.values:
                parts = (value,) if isinstance(value, str) else value
                values.append(joined([("variable", p.name) if isinstance(p, Variable) else ("text", p) for p in parts]))
            assignments.append(("$" * one.variable + one.name, "+=" if one.append else "=", values))
        tree.append((block.name, assignments))
    return tree


def _piece(token: Any) -> Value:
    text = str(token)
    if token.type == "VARIABLE":
        return [("variable", text[1:])]
    if token.type == "BRACED":
        return [("variable", unescape(text[2:-1]))]
    if token.type == "SINGLE":
        return [("text", unescape(text[1:-1]))]
    if token.type != "DOUBLE":
        return [("text", unescape(text))]
    value: Value = []
    for part in IN_DOUBLE.findall(text[1:-1]):
        if part == "${":
            raise Refused("unterminated variable")
        if part[0] == "$" and len(part) > 1:
            value.append(("variable", part[2:-1] if part[1] == "{" else part[1:]))
        elif part == "$":
            value.append(("text", "$"))
            value.append(("dollar", ""))
        else:
            value.append(("text", unescape(part)))
    return value


def theirs(text: str) -> Tree:
    try:
        parsed = LARK.parse(text)
    except lark.exceptions.UnexpectedInput as error:
        raise Refused(str(error)) from error
    tree: Tree = []
    outside: list[Tree] = []

    def name(node: Any, jail: bool = False) -> str:
        pieces = [part for piece in node.children for part in _piece(piece.children[0])]
        if "variable" in dict(pieces) if jail else len({kind for kind, _ in pieces}) > 1:
            raise Refused("not a name")
        quoted = node.children[0].children[0].type == "DOUBLE"
        if quoted and "variable" in dict(pieces):
            raise Refused("not a name")
        return "".join(["$" * (kind == "variable") + part for kind, part in pieces])

    def items(nodes: list[Any], block: str | None) -> None:
        for item in nodes:
            for node in item.children:
                if node.data == "jail":
                    full = name(node.children[0], jail=True)
                    full = full if block is None else f"{block}.{full}"
                    tree.append((full, []))
                    inside = len(tree) - 1
                    items_of(node.children[1:], full, inside)
                else:
                    place(block, node)

    blocks: list[int] = []

    def items_of(nodes: list[Any], full: str, index: int) -> None:
        blocks.append(index)
        items(nodes, full)
        blocks.pop()

    def place(block: str | None, node: Any) -> None:
        values = [
            joined([part for piece in text.children for part in _piece(piece.children[0]) if part[0] != "dollar"])
            for value in node.children
            if getattr(value, "data", "") == "value"
            for text in value.children
        ]
        assignment = (name(node.children[0]), "+=" if node.data == "append" else "=", values)
        if block is not None:
            tree[blocks[-1]][1].append(assignment)
            return
        if not outside:
            tree.append(("*", []))
            outside.append(tree[-1:])
        outside[0][0][1].append(assignment)

    items(parsed.children, None)
    return tree


def agree(text: str) -> bool:
    """Whether the text is a configuration; fails if the two do not agree on that, or on what it says."""
    try:
        expected: Tree | None = theirs(text)
    except Refused:
        expected = None
    try:
        found: Tree | None = ours(text)
    except JailError:
        found = None
    assert found == expected
    return found is not None


# What is generated: statements that are right, with all that may stand where nothing need stand.

blank = st.sampled_from(["", " ", "\n", "\t \r\n", "# c ; }\n", '// c "\n', "/* c\n' */", "/***/", " /*/ */ "])
space = blank.filter(bool)
bare = st.text("abnoxZ_09.:-!%&()<>?@[]^`|~", min_size=1, max_size=6)
escape = st.sampled_from([*r"\a \n \t \; \" \' \\ \$ \101 \7 \x41 \x7 \q".split(), "\\\n", "\\ "])
mark = st.sampled_from(["*", "+"])
single = st.lists(st.one_of(bare, escape, st.sampled_from(['"', "$v", "{", ";\n", "é", "//"])), max_size=4).map(
    lambda parts: "'" + "".join(parts) + "'"
)
variable = st.sampled_from(["$v", "$a_1", "${v}", "${a.b c}", "${}"])
double = st.lists(
    st.one_of(bare, escape, variable, st.sampled_from(["'", "{", ";\n", "é", "//", "$ ", "$1", "$$"])), max_size=4
).map(lambda parts: '"' + "".join(parts) + '"')
word = st.one_of(bare, single, double.filter(lambda text: "$" not in text))
text = st.lists(st.one_of(bare, bare, escape, mark, single, double, variable), min_size=1, max_size=3).map("".join)


@st.composite
def values(draw: st.DrawFn) -> str:
    parts = draw(st.lists(text, min_size=1, max_size=3))
    return ",".join([draw(blank) + part + draw(blank) for part in parts])


@st.composite
def statement(draw: st.DrawFn) -> str:
    name = draw(st.one_of(word, variable))
    form = draw(st.sampled_from(["bare", "=", "+=", "follow"]))
    if form == "bare":
        return name + draw(blank) + ";"
    if form == "follow":
        return name + draw(space) + draw(text) + draw(blank) + ";"
    return name + draw(blank) + form + draw(values()) + ";"


@st.composite
def block(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    name = draw(st.one_of(word, st.just("*"), st.sampled_from(["a.*", "*.b", "a'b'", 'a.\\*."$"'])))
    return name + draw(blank) + "{" + draw(inner) + "}"


def several(one: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.tuples(blank, one, blank).map("".join), max_size=4).map("".join)


configuration = several(st.recursive(st.one_of(statement(), st.just(";")), lambda x: block(several(x)), max_leaves=8))
ALPHABET = "ab1.$$${{}}''\"\"\\\\;;==+,/**#\n  "


@given(configuration)
def test_what_is_generated_is_read_alike(text: str) -> None:
    assume(".include" not in text)
    agree(text)


@given(st.text(ALPHABET, max_size=30))
@example('"$"=')
@example("a/*")
@example("$a$b;")
def test_any_text_is_read_or_refused_alike(text: str) -> None:
    assume(not re.search(r"\$\{[^\n}]*\\", text))  # here flex's longest match is not that of a regular expression
    agree(text)


@given(st.sampled_from(SAMPLES), st.data())
def test_samples_are_read_alike_whole_and_damaged(sample: Path, data: st.DataObject) -> None:
    text = sample.read_text()
    assert agree(text)
    at = data.draw(st.integers(0, len(text)))
    until = data.draw(st.integers(at, min(len(text), at + 5)))
    damaged = text[:at] + data.draw(st.text(ALPHABET, max_size=3)) + text[until:]
    assume(not re.search(r"\$\{[^\n}]*\\", damaged))
    agree(damaged)


def written(tree: Tree) -> str:
    """A tree as a configuration: every name and text in quotes, every variable in braces."""

    def quote(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def value(parts: Value) -> str:
        return "".join([f"${{{t}}}" if kind == "variable" else quote(t) for kind, t in parts]) or "''"

    lines = []
    for name, assignments in tree:
        lines.append(f"{quote(name)} {{")
        for one, sign, all_values in assignments:
            lines.append(f"${{{one[1:]}}}" if one[:1] == "$" else quote(one))
            lines.append(f"{sign} {', '.join([value(parts) for parts in all_values])};" if all_values else ";")
        lines.append("}")
    return "\n".join(lines)


NAMES = st.text("abno.$ '\"\\\n#{}é", min_size=1, max_size=6).filter(lambda name: name[0] != "$" and name != ".include")
VARIABLES = st.text("abno. é", max_size=4)
PARTS = st.one_of(
    st.tuples(st.just("text"), st.text(st.characters(exclude_characters="\0"), max_size=8)),
    st.tuples(st.just("variable"), VARIABLES),
)
ASSIGNMENTS = st.tuples(
    st.one_of(NAMES, VARIABLES.map("$".__add__)),
    st.sampled_from(["=", "+="]),
    st.lists(st.lists(PARTS, max_size=3).map(joined), max_size=3),
).map(lambda one: one if one[2] else (one[0], "=", []))


@given(st.lists(st.tuples(NAMES, st.lists(ASSIGNMENTS, max_size=3)), max_size=3))
def test_what_is_written_is_read(tree: Tree) -> None:
    assert ours(written(tree)) == tree


@given(configuration)
def test_what_is_read_can_be_written_and_read_again(text: str) -> None:
    try:
        tree = ours(text)
    except JailError:
        assume(False)
        raise
    assert ours(written(tree)) == tree


def test_the_samples() -> None:
    assert SAMPLES
    for sample in SAMPLES:
        jails = load(sample.name, Given({sample.name: sample.read_bytes()})).jails
        assert [exported(jail, "|") for jail in jails] == sample.with_suffix(".exported").read_text().splitlines()
