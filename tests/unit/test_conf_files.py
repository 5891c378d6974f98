"""Files of configurations: patterns of their names, and what is no file."""

from __future__ import annotations

import fnmatch
import glob
import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.conf.config import exported, load
from jailng.conf.pattern import fits, is_pattern
from jailng.engine import files as files_module
from jailng.engine.files import Files
from jailng.errors import JailError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/etc/*.conf", True),
        ("a?", True),
        ("jail[.]conf", True),
        ("[!a]", True),
        ("[]]", True),
        ("[", False),
        ("[]", False),
        ("[!]", False),
        ("a[b/c]", False),
        (r"\*\?\[a]", False),
        ("/etc/jail.conf", False),
        ("", False),
        ("*" * 5000, False),
    ],
)
def test_what_is_a_pattern(path: str, expected: bool) -> None:
    assert is_pattern(path) is expected


@given(st.text("ab.-", max_size=6), st.text("ab.-*?[]!", max_size=8))
def test_names_fit_as_fnmatch_has_it(name: str, part: str) -> None:
    # Where they differ: a dot in front, and ranges whose ends are in the wrong order, for which fnmatch has rules.
    expected = fnmatch.fnmatchcase(name, part)
    if name.startswith(".") and part[:1] != ".":
        assert not fits(name, part)
    elif not any(part[at] > part[at + 2] for at in range(len(part) - 2) if part[at + 1] == "-"):
        assert fits(name, part) == expected


def test_many_stars_take_no_time() -> None:
    assert not fits("a" * 255, "*a" * 100 + "*b")
    assert fits("a" * 255, "*a" * 100 + "*")


def test_backslashes_take_meaning_away() -> None:
    assert fits("*", r"\*") and not fits("a", r"\*")
    assert fits(r"a\b", r"a\\b") and fits("[a]", r"\[a]")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.conf", "a.conf", ".hidden.conf", "d/c.conf", "d/.e.conf", "x[1].conf"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{path.name.strip('.')[0]} {{ }}")
    (tmp_path / "dangling.conf").symlink_to("nowhere")
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    ["*.conf", "*", "*/*.conf", "d/*", "[ab].conf", "?.conf", ".*.conf", "x[[]1].conf", "no*", "d/no*", "./*.conf"],
)
def test_patterns_find_what_glob_finds(tree: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sorted(glob.glob(f"{tree}/{pattern}"))
    assert Files().glob(f"{tree}/{pattern}") == expected
    monkeypatch.chdir(tree)
    assert [os.path.normpath(path) for path in Files().glob(pattern)] == [
        os.path.normpath(p) for p in sorted(glob.glob(pattern))
    ]


def test_a_backslash_in_a_directory(tree: Path) -> None:
    (tree / "*").mkdir()
    (tree / "*" / "f").touch()
    assert Files().glob(f"{tree}/\\*/*") == [f"{tree}/*/f"]


def included(tree: Path, name: str) -> list[str]:
    (tree / "jail.conf").write_text(f".include '{name}';")
    return [exported(jail, "|") for jail in load(f"{tree}/jail.conf", Files()).jails]


def wrong(tree: Path, name: str) -> str:
    with pytest.raises(JailError) as caught:
        included(tree, name)
    return str(caught.value)


def test_files_that_are_included(tree: Path) -> None:
    assert included(tree, "[ab].conf") == ["name=a", "name=b"]
    assert included(tree, str(tree / "d/c.conf")) == ["name=c"]


def test_what_cannot_be_included(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    assert wrong(tree, "fifo") == f"{tree}/fifo: not a regular file"
    assert wrong(tree, "d") == f"{tree}/d: Is a directory"
    assert wrong(tree, "dangling.conf") == f"{tree}/dangling.conf: No such file or directory"
    assert wrong(tree, "dang*") == f"{tree}/dangling.conf: No such file or directory"
    assert wrong(tree, "/dev/zero") == "/dev/zero: not a regular file"
    assert wrong(tree, "y" * 300) == f"{tree}/{'y' * 300}: File name too long"
    assert wrong(tree, "*" * 5000) == f"{tree}/{'*' * 5000}: File name too long"


def test_a_file_that_is_too_large(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "_LARGEST", 1 << 20)
    os.truncate(tree / "a.conf", (1 << 20) + 1)
    assert wrong(tree, "a.conf") == f"{tree}/a.conf: larger than 1 MB"
    with pytest.raises(JailError, match=r"^/dev/zero: larger than 1 MB$"):
        load("/dev/zero", Files())


def test_the_first_file_may_be_a_pipe(tree: Path) -> None:
    os.mkfifo(tree / "fifo")

    def write() -> None:
        (tree / "fifo").write_text("a { }")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert [jail.key for jail in load(str(tree / "fifo"), Files()).jails] == ["a"]
    finally:
        writer.join()
