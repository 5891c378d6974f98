"""Offsets in the kernel's structures are looked up once, and what is kept of them is right or not used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.linux import btf
from jailng.observe import offsets

PATHS = [("tty_struct", "link"), ("tty_struct", "ctrl", "packet")]


class Types:
    """A kernel; ``read``: how many times somebody has asked one."""

    read = 0

    def __init__(self) -> None:
        Types.read += 1

    def offset(self, structure: str, *members: str) -> int:
        if members[0] == "none":
            raise FileNotFoundError
        return 1000 * len(members) + len(structure)

    def function(self, name: str) -> int:
        return len(name)


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where offsets are kept."""
    monkeypatch.setattr(btf, "Types", Types)
    monkeypatch.setattr(offsets, "_FILE", str(tmp_path / "offsets"))
    monkeypatch.setattr(Types, "read", 0)
    return tmp_path / "offsets"


def looked_up() -> list[int]:
    at = offsets.Offsets()
    found = [at[path] for path in PATHS] + [at.function("pty_write")]
    at.keep()
    return found


def test_what_was_looked_up_is_known_to_whoever_comes_next(kept: Path) -> None:
    found = looked_up()
    assert (found, Types.read, kept.stat().st_mode & 0o777) == ([1010, 2010, 9], 1, 0o600)
    assert (looked_up(), Types.read) == (found, 1)
    at = offsets.Offsets()
    assert (at["dentry", "d_sb"], Types.read) == (1006, 2)
    at.keep()
    assert (looked_up(), offsets.Offsets()["dentry", "d_sb"], Types.read) == (found, 1006, 2)
    assert os.listdir(kept.parent) == ["offsets"]


def test_two_at_once_lose_nothing_that_was_kept() -> None:
    one, other = offsets.Offsets(), offsets.Offsets()
    assert (one["a", "b"], other["cc", "d"]) == (1001, 1002)
    one.keep()
    other.keep()
    at = offsets.Offsets()
    assert (at["a", "b"], at["cc", "d"], Types.read) == (1001, 1002, 2)


def test_what_the_kernel_has_not_is_no_offset() -> None:
    with pytest.raises(FileNotFoundError):
        offsets.Offsets()["tty_struct", "none"]


def test_a_damaged_file_is_as_none(kept: Path) -> None:
    found = looked_up()
    whole = kept.read_bytes()
    for at in range(len(whole)):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            kept.write_bytes(damaged)
            before = Types.read
            assert (looked_up(), Types.read) == (found, before + 1)
            assert kept.read_bytes() == whole


def test_of_another_boot_nothing_is_taken(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up()
    monkeypatch.setattr(registry, "_boot", ["another"])
    looked_up()
    assert Types.read == 2
    assert kept.read_text().startswith("another ")


def test_without_a_place_to_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offsets, "_FILE", "/proc/none/offsets")
    assert looked_up() == looked_up()
    assert Types.read == 2
