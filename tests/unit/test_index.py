"""The index of the registry: what is found in its text without taking every line apart."""

from __future__ import annotations

import errno
import fcntl
import os
import posix
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.core import index as index_file
from jailng.core.index import SLOTS, Index
from jailng.errors import JailError
from jailng.linux import cgroup
from jailng.params.values import JAIL_MAX


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A registry of its own, after which no more is open than before."""
    monkeypatch.setattr(index_file, "DIRECTORY", str(tmp_path / "jailng"))
    monkeypatch.setattr(index_file, "_known", [])
    before = os.listdir("/proc/self/fd")
    yield tmp_path / "jailng"
    assert len(os.listdir("/proc/self/fd")) == len(before)


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

    monkeypatch.setattr(posix, "pwrite", full)
    with pytest.raises(OSError, match="No space left") as caught, Index():
        pass
    assert caught.value.filename == f"{directory}/pidns"


def test_a_line_that_was_written_in_part_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with Index() as index:
        index.add(3, "0", "three", [])
    write = posix.write
    monkeypatch.setattr(posix, "write", lambda fd, content: write(fd, content[:5]))
    with Index() as index, pytest.raises(OSError, match="No space left"):
        index.add(4, "1", "four", [])
    assert index_file._read() == "3\t0\tthree\t\n"


def test_a_line_whose_writer_was_killed_is_as_if_it_were_not_there(directory: Path) -> None:
    with Index() as index:
        index.add(3, "0", "three", [])
    with (directory / "index").open("a") as file:
        file.write("4\t1\tfou")
    (directory / "index.new").write_text("of one who was killed as well, and longer than what is written now\n")
    with Index() as index:
        assert index.rows() == [["3", "0", "three", ""]]
        index.add(5, "2", "five", [])
    assert index_file._read() == "3\t0\tthree\t\n5\t2\tfive\t\n"


def test_names_of_any_bytes_are_struck_out_where_they_are() -> None:
    names = ["é", "\udcff", "\U0001f600", "a"]
    with Index() as index:
        for jid, name in enumerate(names, 1):
            index.add(jid, str(jid), name, [])
    for jid, name in enumerate(names, 1):
        assert index_file.jid_of(name) == jid
        with Index() as index:
            index.drop(jid)
            assert [row[2] for row in index.rows()] == names[jid:]
        assert index_file.jid_of(name) is None
        assert index_file.jids() == set(range(jid + 1, 5))


def test_much_that_is_struck_out_is_thrown_away(directory: Path) -> None:
    with Index() as index:
        for jid in range(1, 101):
            index.add(jid, str(jid), f"j{jid}", [])
        for jid in range(1, 100):
            index.drop(jid)
        assert index.rows() == [["100", "100", "j100", ""]]
        assert (directory / "index").read_text().count("\n") < 70
    assert index_file.jids() == {100}


def test_everybody_may_read_it_but_lock_nothing(directory: Path) -> None:
    before = os.umask(0o077)
    try:
        with Index() as index:
            index.add(1, "0", "a", [])
            assert (directory / "index").stat().st_mode & 0o777 == 0o644
            index.set_addresses(1, ["192.0.2.1", "192.0.2.2"])
    finally:
        os.umask(before)
    assert index_file.holders("192.0.2.2") == [1]
    modes = {path.name: path.stat().st_mode & 0o777 for path in [directory, *directory.iterdir()]}
    assert modes == {"jailng": 0o755, "jails": 0o755, "index": 0o644, "pidns": 0o644, "lock": 0o600}


def test_there_is_one_at_a_time(directory: Path) -> None:
    with Index():
        other = os.open(directory / "lock", os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(other)


def test_jids_go_up_and_begin_again(directory: Path) -> None:
    with Index() as index:
        assert [index.next_jid() for _ in range(3)] == [1, 2, 3]
        index.add(5, "0", "five", [])
        assert [index.next_jid() for _ in range(3)] == [4, 6, 7]
        for text in (f"{JAIL_MAX - 1}", f"{JAIL_MAX - 1:<6}\n"):
            (directory / "last").write_text(text)
            assert [index.next_jid() for _ in range(3)] == [JAIL_MAX, 1, 2]
        for nonsense in (b"", b"x", b"\xff", b"-1"):
            (directory / "last").write_bytes(nonsense)
            assert index.next_jid() == 1


def test_the_first_gap_that_is_wide_enough() -> None:
    last = SLOTS.stop - 1
    with Index() as index:
        assert (index.free_slot(), index.free_slot(len(SLOTS) - 1)) == (0, 0)
        for jid, held in enumerate(("0+1", "4", "6+2", f"{last}"), 1):
            index.add(jid, held, f"j{jid}", [])
        assert [index.free_slot(more) for more in (0, 1, 2)] == [2, 2, 9]
        assert index.slots_of(3) == range(6, 9)
        assert index.free_slot(last - 10) == 9
        with pytest.raises(JailError, match=f"no {last - 8} uid ranges in one piece"):
            index.free_slot(last - 9)
        assert index.free_slot(0, range(4, 6)) == 5
        with pytest.raises(JailError, match="no uid range is left"):
            index.free_slot(0, range(6, 9))


@pytest.mark.parametrize(
    ("there", "populated", "refused"),
    [
        *(("", True, False), ("0\n", True, False), ("x", True, False), ("5", False, False), ("5", True, True)),
        *(("4026531836", False, True), ("4026531836", True, True)),
    ],
)
def test_pids_of_another_namespace(
    directory: Path, monkeypatch: pytest.MonkeyPatch, there: str, populated: bool, refused: bool
) -> None:
    """While something lives there, or may: the machine's first one never ends."""
    monkeypatch.setattr(cgroup, "populated", lambda path: populated)
    monkeypatch.setattr(index_file, "_pid_namespace", lambda: 7)
    directory.mkdir()
    (directory / "pidns").write_text(there)
    if refused:
        with pytest.raises(JailError, match="the jails are of another PID namespace"), Index():
            pass
        assert (directory / "pidns").read_text() == there
    else:
        with Index():
            pass
        assert (directory / "pidns").read_text().strip() == "7"
