"""The index of the registry: what is found in its text without taking every line apart."""

from __future__ import annotations

import errno
import posix
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.core import index as index_file
from jailng.core.index import Index


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A registry of its own."""
    monkeypatch.setattr(index_file, "DIRECTORY", str(tmp_path / "jailng"))
    yield tmp_path / "jailng"


def _fill(seed: int, most_slots: int) -> list[list[str]]:
    """Come and go as jails do; the rows that are left."""
    chance = random.Random(seed)
    there: list[int] = []
    for _ in range(300):
        with Index() as index:
            if there and chance.random() < 0.4:
                index.drop(there.pop(chance.randrange(len(there))))
                continue
            jid = index.next_jid()
            more = chance.randrange(most_slots)
            first = index.free_slot(more)
            held = f"{first}+{more}" if more else str(first)
            index.add(jid, held, f"j{jid}", [f"192.0.2.{jid}"] if chance.random() < 0.5 else [])
            there.append(jid)
    with Index() as index:
        assert sorted(int(row[0]) for row in index.rows()) == sorted(there)
        return index.rows()


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_found_by_jid_name_and_address(seed: int) -> None:
    rows = _fill(seed, 1)
    with Index() as index:
        for jid, slot, name, address in rows:
            row = [jid, slot, name, address]
            assert index.rows_with(f"\n{jid}\t") == [row]
            assert index.rows_with(f"\t{name}\t", f"\n{jid}\t") == [row]
            assert not address or row in index.rows_with(address)
        gone = next(number for number in range(1, 999) if all(row[0] != str(number) for row in rows))
        assert index.rows_with(f"\n{gone}\t", f"\tj{gone}\t") == []


@pytest.mark.parametrize("most_slots", [1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_no_uid_range_is_given_twice(seed: int, most_slots: int) -> None:
    slots = [slot for row in _fill(seed, most_slots) for slot in index_file.slots(row[1])]
    assert len(slots) == len(set(slots))
    if most_slots == 1:  # and none far beyond how many jails there have been at once
        assert max(slots) <= 300


def test_only_jails_with_addresses_are_looked_at() -> None:
    with Index() as index:
        index.add(3, "0", "three", [])
        index.add(4, "1", "four", ["192.0.2.4"])
        index.add(5, "2", "five", ["192.0.2.5", "2001:db8::5"])
        index.drop(4)
    assert list(index_file.addressed()) == [5]


def test_a_full_disk_is_told_of_with_the_file(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(index_file, "_known", [])
    monkeypatch.setattr(posix, "pwrite", full)
    with pytest.raises(OSError, match="No space left") as caught, Index():
        pass
    assert caught.value.filename == f"{directory}/pidns"
