"""A tree read for an archive: a sparse file's map, and what is exchanged for something else meanwhile."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.ctl import tarout
from jailng.ctl.told import Limits, Told


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarout, "_MOST_PARTS", 10)


def _parts(path: Path, parts: int, every: int) -> list[tuple[int, int]] | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        for number in range(parts):
            os.pwrite(fd, b"x", number * every)
        os.ftruncate(fd, parts * every)
        return tarout._parts(fd, os.fstat(fd))
    finally:
        os.close(fd)


def test_holes_stay_holes(tmp_path: Path, few: None) -> None:
    found = _parts(tmp_path / "few", 10, 1 << 20)
    assert found is not None and len(found) == 11 and found[-1] == (10 << 20, 0)


def test_more_holes_than_a_map_has_room_for(tmp_path: Path, few: None) -> None:
    """Read as if there were none, but for a file of terabytes, which would fill the host's disk."""
    assert _parts(tmp_path / "some", 20, 1 << 14) is None
    with pytest.raises(OSError, match="has more than 10 holes"):
        _parts(tmp_path / "many", 20, 1 << 36)


@pytest.fixture
def reader() -> Iterator[tuple[tarout.Reader, io.BytesIO, list[str]]]:
    """What reads, what it has written, and what it has told."""
    told: list[str] = []

    class Hears(Told):
        def _say(self, word: str, value: object) -> None:
            told.append(f"{word} {value}")

    with open(os.devnull, "wb") as nobody:
        to = io.BytesIO()
        yield tarout.Reader(to, Limits(), Hears(nobody.fileno())), to, told


def test_what_was_looked_at_has_become_a_link_or_a_fifo(
    tmp_path: Path, reader: tuple[tarout.Reader, io.BytesIO, list[str]]
) -> None:
    """By whoever lives in the tree: nothing outside is read, and nobody waited for."""
    reads, to, told = reader
    (tmp_path / "outside/d").mkdir(parents=True)
    (tmp_path / "outside/secret").write_text("secret")
    (tmp_path / "top/d").mkdir(parents=True)
    (tmp_path / "top/f").write_text("f")
    directory, file = (tmp_path / "top/d").stat(), (tmp_path / "top/f").stat()
    (tmp_path / "top/link").symlink_to(tmp_path / "outside")
    (tmp_path / "top/file").symlink_to(tmp_path / "outside/secret")
    os.mkfifo(tmp_path / "top/fifo")
    top = os.open(tmp_path / "top", os.O_PATH)
    try:
        wanted = tarout.Wanted(top, ".", fifos=True)
        for path in ("link", "link/d"):
            with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
                reads._directory(wanted, path, directory, directory.st_dev)
        for path in ("link/secret", "file", "../outside/secret"):
            with pytest.raises(OSError, match=r"symbolic links|cross-device"):
                reads._other(wanted, path, file)
        reads._other(wanted, "fifo", file)
    finally:
        os.close(top)
    assert (to.getvalue(), told) == (b"", ["skipped fifo: FIFO"])


@pytest.mark.parametrize("left", [10, (2 << 20) + 5])
def test_a_file_that_has_become_shorter(
    tmp_path: Path, reader: tuple[tarout.Reader, io.BytesIO, list[str]], left: int
) -> None:
    """What was said of its length holds, or all that follows would be taken for something else."""
    reads, to, told = reader
    (tmp_path / "f").write_bytes(b"abc")
    with open(tmp_path / "f", "rb") as file:
        reads._data("f", file.fileno(), 0, left)
    assert to.getvalue() == b"abc" + bytes(left - 3)
    assert told == ["failed f: became shorter while it was read"]


def test_a_directory_with_very_many_files(
    tmp_path: Path, reader: tuple[tarout.Reader, io.BytesIO, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads has a gigabyte: with no more than its name for each file that is millions of them."""
    reads, _, told = reader
    monkeypatch.setattr(reads, "_other", lambda *_: None)
    many = 5000
    for number in range(many):
        (tmp_path / f"{number:040}").touch()
    top = os.open(tmp_path, os.O_PATH)
    tracemalloc.start()
    try:
        reads.read(tarout.Wanted(top, "."))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        os.close(top)
    assert (told, most < 300 * many) == ([], True)


def test_linked_files_take_no_more_memory_than_there_is(
    tmp_path: Path, reader: tuple[tarout.Reader, io.BytesIO, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes them chooses how many, and how long their names are: beyond a limit they are files, and told of."""
    monkeypatch.setattr(tarout, "_MOST_NAMES", 100)
    reading, to, told = reader
    for number in range(9):
        for kind in "ab":
            (tmp_path / kind).mkdir(exist_ok=True)
            name = tmp_path / kind / f"{number}{'x' * 30}"
            if kind == "a":
                name.write_text(f"{number}")
            else:
                os.link(tmp_path / "a" / name.name, name)
    top = os.open(tmp_path, os.O_RDONLY)
    reading.read(tarout.Wanted(top, "."))
    reading.end()
    os.close(top)
    with tarfile.open(fileobj=io.BytesIO(to.getvalue())) as archive:
        kinds = [member.type for member in archive if not member.isdir()]
    assert kinds.count(tarfile.LNKTYPE) == 2 and kinds.count(tarfile.REGTYPE) == 16
    assert [line for line in told if "become files of their own" in line]
    assert len(reading._links) <= 2


def test_pairs_are_links_however_many(
    tmp_path: Path, reader: tuple[tarout.Reader, io.BytesIO, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is forgotten when all names of its file have been seen."""
    monkeypatch.setattr(tarout, "_MOST_NAMES", 100)
    reading, to, told = reader
    for number in range(20):
        (tmp_path / f"d{number}").mkdir()
        (tmp_path / f"d{number}/a{'x' * 30}").write_text("")
        os.link(tmp_path / f"d{number}/a{'x' * 30}", tmp_path / f"d{number}/b")
    top = os.open(tmp_path, os.O_RDONLY)
    reading.read(tarout.Wanted(top, "."))
    reading.end()
    os.close(top)
    with tarfile.open(fileobj=io.BytesIO(to.getvalue())) as archive:
        assert len([member for member in archive if member.islnk()]) == 20
    assert told == []
