"""Merging and variables, against a model: lists that are searched from the front, and recursion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from jailng.conf.merge import Merge, similar
from jailng.conf.parse import Assignment, Variable

if TYPE_CHECKING:
    from jailng.conf.parse import Text

NAMES = ["a", "b", "noa", "c.d", "c.nod", "noc.d", "nonoa", "v", "w", "name", "jid"]
PART = st.one_of(st.sampled_from(["", "x"]), st.sampled_from([*NAMES, "none"]).map(Variable))


def _text(parts: list[str | Variable]) -> Text:
    """Parts as the parser leaves them: no empty text, and none of them a tuple of text alone."""
    parts = [part for part in parts if part != ""]
    if any(isinstance(part, Variable) for part in parts):
        return tuple(parts)
    return "".join([str(part) for part in parts])


TEXT = st.lists(PART, max_size=3).map(_text)
GIVEN = st.builds(
    Assignment,
    st.sampled_from(NAMES),
    st.lists(TEXT, max_size=2).map(tuple),
    st.booleans(),
    st.booleans(),
)
OWN = {"name", "jid"}


class Wrong(Exception):
    """The model finds an error."""


class Model:
    def __init__(self, assignments: list[Assignment]) -> None:
        self.entries: list[Assignment] = [Assignment("name", ("j",))]
        for one in assignments:
            self.add(one)
        self.done: dict[Assignment, tuple[str, ...]] = {}
        self.busy: list[Assignment] = []

    def add(self, one: Assignment) -> None:
        for entry in self.entries:
            if alike(entry.name, one.name):
                if entry.variable != one.variable or entry.name in OWN:
                    raise Wrong
                keep = entry.values if one.append and one.values else ()
                entry.name, entry.values = one.name, keep + one.values
                return
        if one.variable and any(alike(one.name, name) for name in OWN):
            raise Wrong
        self.entries.append(Assignment(one.name, one.values, one.variable))

    def settle(self) -> list[tuple[str, tuple[str, ...]]]:
        for entry in self.entries:
            self.value(entry)
        return [(entry.name, found) for entry, found in self.done.items()]

    def value(self, entry: Assignment) -> tuple[str, ...]:
        if entry in self.done:
            return self.done[entry]
        if entry in self.busy:
            raise Wrong
        self.busy.append(entry)
        found = tuple([string for value in entry.values for string in self.text(value)])
        self.busy.remove(entry)
        self.done[entry] = found
        return found

    def text(self, text: Text) -> tuple[str, ...]:
        if isinstance(text, str):
            return (text,)
        whole = ""
        for place, part in enumerate(text):
            if isinstance(part, str):
                whole += part
                continue
            strings = self.referred(part.name)
            if len(strings) > 1:
                if len(text) > place + 1 or whole:
                    raise Wrong
                return strings
            whole += strings[0]
        return (whole,)

    def referred(self, name: str) -> tuple[str, ...]:
        for entry in self.entries:
            if entry.name == name and entry.values:
                if all(isinstance(value, str) for value in entry.values):
                    return tuple([str(value) for value in entry.values])
                return self.value(entry)
        raise Wrong


def alike(one: str, other: str) -> bool:
    """Whether two names are the same, or a single component of them differs by a "no" in front."""
    ours, theirs = one.split("."), other.split(".")
    if len(ours) != len(theirs):
        return False
    differ = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    return not differ or (len(differ) == 1 and differ[0][0] in (f"no{differ[0][1]}", differ[0][1].removeprefix("no")))


@given(st.lists(GIVEN, max_size=8))
def test_as_the_model_has_it(assignments: list[Assignment]) -> None:
    merged = Merge()
    merged.imply("name", "j")
    for one in assignments:
        merged.add(one)
    merged.substitute()
    try:
        expected = Model(assignments).settle()
    except Wrong:
        assert merged.errors
        return
    assert not merged.errors
    assert [(entry.name, tuple(entry.strings)) for entry in merged.entries] == expected


@given(st.text("no.a", max_size=8), st.text("no.a", max_size=8))
def test_names_that_mean_the_same(one: str, other: str) -> None:
    assert (one == other or other in similar(one)) == alike(one, other)


def test_each_error_of_a_jail_once() -> None:
    merged = Merge()
    for name, other in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"), ("e", "none")):
        merged.add(Assignment(name, ((Variable(other),),)))
    merged.substitute()
    assert merged.errors == ["a: variable loop", 'e: variable "none" not found']
    assert sorted([entry.name for entry in merged.entries]) == list("abcde")


def test_a_loop_that_is_met_from_the_side() -> None:
    merged = Merge()
    merged.add(Assignment("a", ((Variable("b"),),)))
    merged.add(Assignment("b", ((Variable("c"), Variable("a")),)))
    merged.add(Assignment("c", ((Variable("d"),),)))
    merged.add(Assignment("d", ("x",)))
    merged.substitute()
    assert merged.errors == ["b: variable loop"]
    assert sorted([entry.name for entry in merged.entries]) == list("abcd")


def test_two_parameters_that_come_to_have_one_name() -> None:
    merged = Merge()
    for name, value in (("nonoa", "1"), ("a", "2"), ("noa", "3"), ("a", "4"), ("nonoa", "5")):
        merged.add(Assignment(name, (value,)))
    merged.add(Assignment("b", ((Variable("a"),),)))
    merged.substitute()
    assert [(entry.name, *entry.strings) for entry in merged.entries] == [
        ("a", "4"),
        ("a", "2"),
        ("nonoa", "5"),
        ("b", "4"),
    ]
