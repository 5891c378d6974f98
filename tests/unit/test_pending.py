"""ctl/pending.py: where is kept what a restart has under way; where it cannot be, it restarts all the same."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from jailng.ctl import pending


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "run" / "restart"
    monkeypatch.setattr(pending, "_PLACE", found)
    return found


def test_nobody_else_may_write_where_it_is_kept(place: Path) -> None:
    """The directory above is the registry's, of which this may be the first use."""
    before = os.umask(0)
    try:
        file = pending.begin(["a"])
    finally:
        os.umask(before)
    assert file is not None
    modes = [stat.S_IMODE(one.stat().st_mode) for one in (place.parent, place)]
    assert modes == [0o755, 0o700]
    assert file.read_bytes() == b"a\n"
    assert not pending.left()  # this process lives
    pending.end(file)
    assert not [*place.iterdir()]


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_nothing_may_be_left(place: Path, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    def refused(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "mkdir", refused)
    assert pending.begin(["a"]) is None
    assert not place.parent.exists()


def test_a_full_disk_is_told_of_before_anything_is_stopped(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", refused)
    with pytest.raises(OSError, match="No space left"):
        pending.begin(["a"])


def test_what_others_than_root_may_not_look_at_is_not_theirs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", refused)
    assert not pending.left()
    pending.forget(["a"])


def test_files_of_other_names_are_nobodys(place: Path) -> None:
    place.mkdir(parents=True)
    for name in ("junk", "1", "1 1.old", " "):
        (place / name).write_bytes(b"a\n")
    (place / "1 1").write_bytes(b"b\n")  # no process has that inode
    (place / "1 1.new").write_bytes(b"c\n")
    assert pending.left() == {"b", "c"}
    pending.forget(["a", "b", "c"])
    assert {file.name for file in place.iterdir()} == {"junk", "1", "1 1.old", " "}
