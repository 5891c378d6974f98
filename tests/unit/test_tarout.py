"""A sparse file's map, as it is read for an archive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jailng.ctl import tarout


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
