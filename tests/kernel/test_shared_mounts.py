"""On a host whose mounts are shared, as systemd makes all of them, a jail mounts nothing on the host, nor it inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.debian import small
from tests.kernel.stage import MS_REC, mount, mounts, unmount

_MS_PRIVATE = 1 << 18
_MS_SHARED = 1 << 20


@pytest.fixture
def shared_host() -> Iterator[None]:
    """The stage's own mounts, which are private else."""
    found = {found.target for found in mounts()}
    mount("none", "/", None, _MS_SHARED | MS_REC)
    yield
    mount("none", "/", None, _MS_PRIVATE | MS_REC)
    mount("none", "/run/netns", None, _MS_SHARED | MS_REC)  # as ip-netns(8) has it, and the stage
    assert found == {found.target for found in mounts()}


def test_a_jail_and_its_mounts(shared_host: None, jail: Command, jexec: Command, tmp_path: Path) -> None:
    root = small(tmp_path / "root")
    (root / "data").mkdir()
    mount("none", root / "data", "tmpfs")
    mount("none", root / "data", None, _MS_SHARED)
    (root / "data/file").write_text("text\n")
    (root / "data/later").mkdir()
    try:
        before = mounts()
        made = jail("-c", "name=a", f"path={root}", "persist")
        assert (made.stderr, made.returncode) == ("", 0)
        assert mounts() == before
        assert jexec("a", "cat", "/data/file").stdout == "text\n"
        mount("none", root / "data/later", "tmpfs")
        (root / "data/later/file").write_text("of the host's\n")
        seen = jexec("a", "ls", "/data/later")
        unmount(root / "data/later")
        assert (seen.stdout, seen.returncode) == ("", 0)
        assert jail("-r", "a").returncode == 0
    finally:
        jail("-R", "a")
        unmount(root / "data")


def test_a_jail_of_no_files(shared_host: None, jail: Command) -> None:
    """``path=/``, FreeBSD's idiom for a jail that confines no files."""
    before = mounts()
    done = jail("-c", "path=/", "ng.uids=shared", "command=/bin/echo", "in")
    assert (done.stdout, done.stderr, done.returncode) == ("in\n", "", 0)
    assert mounts() == before
