"""Where a root is made, ctl/place.py: by one command at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from jailng.ctl import place


def test_a_mark_that_was_taken_away_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who had it takes it away when done: one who has opened it before, and locks it then, would lock it alone."""
    flock, mark = fcntl.flock, tmp_path / "root.partial.lock"
    opened: list[int] = []

    def late(fd: int, operation: int) -> None:
        if not opened:
            mark.unlink()
        opened.append(fd)
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with place.alone(tmp_path / "root", "import", lambda: None):
        assert mark.exists()
    assert not mark.exists()
    assert len(opened) == 2
