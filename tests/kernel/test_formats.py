"""Programs that the host's binfmt_misc runs, in a jail."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.stage import mount, unmount

_NAME = f"jailng-test-{os.getpid()}"
_MAGIC = b"\x7fjailng-%d" % os.getpid()


@pytest.fixture
def held_open(tmp_path: Path) -> Iterator[Path]:
    """A program of the host's that runs files of a format, as qemu-user does: it is busybox's cat."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    program = tmp_path / "cat"
    shutil.copy(busybox, program)
    place = tmp_path / "formats"
    place.mkdir()
    try:
        mount("none", place, "binfmt_misc")
    except OSError as error:
        pytest.skip(f"binfmt_misc: {error.strerror}")
    try:
        magic = "".join(f"\\x{byte:02x}" for byte in _MAGIC)
        (place / "register").write_text(f":{_NAME}:M::{magic}::{program}:F")
        yield program
        (place / _NAME).write_text("-1")
    finally:
        unmount(place)


def test_one_that_the_host_holds_open(jail: Command, small_root: Path, held_open: Path) -> None:
    """It is the host's file, of which root inside is the owner where the uids are the host's."""
    foreign = small_root / "tmp/foreign"
    foreign.write_bytes(_MAGIC + b"\n")
    foreign.chmod(0o755)
    words = ("-c", f"path={small_root}")
    for uids, reached in (("private", True), ("shared", False)):
        done = jail(*words, f"ng.uids={uids}", "command=/tmp/foreign")
        assert (done.stdout == foreign.read_text()) is reached, done.stderr
        assert reached or "Exec format error" in done.stderr
    change = "/tmp/foreign /dev/zero > /dev/null & sleep 0.3; chmod 4755 /proc/$!/exe; kill $!"
    for uids in ("private", "shared"):
        jail(*words, f"ng.uids={uids}", "command=/bin/sh", "-c", change)
        assert held_open.stat().st_mode & 0o7777 == 0o755, uids
