"""Values of ng.watch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.errors import JailError
from jailng.params import watch


@pytest.mark.parametrize(
    ("text", "one_form"),
    [
        ("tty", ["tty"]),
        ("tty,packets", ["tty", "packets"]),
        ("packets files=3 size=10m, tty  rate=64k", ["packets size=10485760 files=3", "tty rate=65536"]),
        (
            "packets filter host 192.0.2.1 and (port 22 or port 80),tty",
            ["packets filter host 192.0.2.1 and (port 22 or port 80)", "tty"],
        ),
        ("packets filter tcp[0:2] = 1, 2 or filter", ["packets filter tcp[0:2] = 1, 2 or filter"]),
        ("", []),
    ],
)
def test_a_list_and_its_one_form(text: str, one_form: list[str]) -> None:
    found = [one.text for one in watch.read([text])]
    assert found == one_form
    assert [one.text for one in watch.read([",".join(found)])] == one_form


def test_what_is_not_said_has_a_value() -> None:
    (one,) = watch.read(["tty size=8k"])
    assert one.options == {"size": 8192, "rate": 1 << 20, "total": 1 << 30, "sessions": 10000, "oldest": 0}
    assert watch.of({"ng.watch": "packets,tty size=8k"}, "tty") is not None
    assert watch.of({"ng.watch": "tty"}, "packets") is None
    assert watch.of({}, "tty") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pty", 'ng.watch: "pty": not tty or packets: "pty"'),
        ("tty,tty", 'ng.watch: "tty" is said twice'),
        ("tty files=3", 'ng.watch: "tty files=3": not one of size, rate, total, sessions, oldest: "files=3"'),
        ("tty size", 'ng.watch: "tty size": not one of size, rate, total, sessions, oldest: "size"'),
        ("tty size=1k", 'ng.watch: "tty size=1k": size: not a number from 4096 to 1099511627776: "1k"'),
        ("tty size=1m size=2m", 'ng.watch: "tty size=1m size=2m": size is said twice'),
        ("tty filter x", 'ng.watch: "tty filter x": not one of size, rate, total, sessions, oldest: "filter"'),
        ("\x9b", 'ng.watch: "\\x9b": not tty or packets: "\\x9b"'),
        ("tty \x9b", 'ng.watch: "tty \\x9b": not one of size, rate, total, sessions, oldest: "\\x9b"'),
        ("packets filter", 'ng.watch: "packets filter": the expression is missing'),
    ],
)
def test_what_is_wrong_is_named(text: str, why: str) -> None:
    with pytest.raises(JailError) as error:
        watch.read([text])
    assert str(error.value) == why


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = watch.read([text])
    except JailError as error:
        assert "\n" not in str(error)
        return
    assert [one.text for one in watch.read([",".join([one.text for one in found])])] == [one.text for one in found]
