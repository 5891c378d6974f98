"""``ng.quota``: what its values say, and what is none."""

from __future__ import annotations

import pytest

from jailng.errors import JailError
from jailng.params import quota
from jailng.params.model import Parameters

G = 1 << 30


@pytest.mark.parametrize(
    "text, expected",
    [
        ("8G", (8 * G, 0, False)),
        ("8589934592", (8 * G, 0, False)),
        ("1k", (1024, 0, False)),
        ("8g,inodes=200k", (8 * G, 200 * 1024, False)),
        ("image:8G", (8 * G, 0, True)),
        ("image:8M, inodes=1000", (8 << 20, 1000, True)),
    ],
)
def test_values(text: str, expected: tuple[int, int, bool]) -> None:
    found = quota.parse(text)
    assert (found.bytes, found.inodes, found.image) == expected


@pytest.mark.parametrize(
    "text, why",
    [
        ("much", 'not an amount: "much"'),
        ("0", 'not an amount: "0"'),
        ("-1", 'not an amount: "-1"'),
        ("image:", 'not an amount: ""'),
        ("image:4M", "an image has 8M at least"),
        ("64E", 'not an amount: "64E"'),
        ("8G,", 'not inodes=COUNT: ""'),
        ("8G,blocks=3", 'not inodes=COUNT: "blocks=3"'),
        ("8G,inodes=1,inodes=2", 'not inodes=COUNT: "inodes=2"'),
        ("8G,inodes=0", 'not an amount: "0"'),
        ("file:8G", 'not an amount: "file:8G"'),
        ("8\x1bG", 'not an amount: "8\\x1bG"'),
    ],
)
def test_what_is_none(text: str, why: str) -> None:
    params = Parameters()
    params.add("path", "/jail/a")
    params.add("ng.quota", text)
    with pytest.raises(JailError) as found:
        params.settle()
    shown = text.replace("\x1b", "\\x1b")
    assert str(found.value) == f'ng.quota: "{shown}": {why}'


def test_no_value_is_no_limit() -> None:
    params = Parameters()
    params.add("ng.quota", "")
    params.settle()
    assert params["ng.quota"] == ""
