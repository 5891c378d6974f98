"""linux/content.py: a file that is made is whole, or is not there; lines are found by their names."""

from __future__ import annotations

import errno
import os
import posix
from pathlib import Path

import pytest

from jailng.linux import content


def test_a_disk_that_takes_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a tmpfs does that has fewer pages left than are written."""
    room = [8]
    written = posix.write

    def write(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = written(fd, data[: room[0]])
        room[0] -= part
        return part

    file = tmp_path / "file"
    monkeypatch.setattr(posix, "write", write)
    with pytest.raises(OSError, match="No space left"):
        content.replace(str(file), b"0123456789", 0o600)
    assert not file.exists()

    def grows(fd: int, data: bytes) -> int:
        return written(fd, data[:3])

    monkeypatch.setattr(posix, "write", grows)
    content.replace(str(file), b"0123456789", 0o600)
    assert file.read_bytes() == b"0123456789"


def test_the_line_of_a_name() -> None:
    """As /proc/PID/status has them: a newline in the name of a process is written out there."""
    status = b"Name:\tUid:\\nUid:\t0\nUmask:\t0022\nUid:\t7\t8\t9\t10\nNSpid:\t12\t3\nSigPnd:\t00000000\n"
    assert content.field(status, b"Uid") == b"7\t8\t9\t10"
    assert content.field(status, b"SigPnd") == b"00000000"
    assert content.field(status, b"Pid") == b""
