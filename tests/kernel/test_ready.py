"""The command of a new jail, which waits at its door while the jail's tree is made: what it gets, and what ends it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import cast

import pytest

from jailng.core import stdio
from jailng.core.program import Running
from jailng.engine import ready
from tests.kernel.conftest import Command
from tests.kernel.stage import mount, unmount

_STAT = ("command=stat", "-L", "-c", "%D:%i", "/dev/null")


def _run(checkout: Path, root: Path, *command: str, errors: str = "") -> list[str]:
    argv = ["sh", "-c", f'exec "$0" "$@" {errors}', str(checkout / "bin/jail"), "-c", f"path={root}", *command]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("numbers", [(0,), (0, 2)])
def test_its_null_device_is_the_jails_own(checkout: Path, small_root: Path, numbers: tuple[int, ...]) -> None:
    streams = [f"/proc/self/fd/{number}" for number in numbers]
    null, *others = _run(checkout, small_root, *_STAT, *streams, errors="2>/dev/null" if 2 in numbers else "")
    assert others == [null] * len(streams)


def test_it_has_nothing_else_open(checkout: Path, small_root: Path) -> None:
    """The last of these is the directory that is listed."""
    assert _run(checkout, small_root, "command=sh", "-c", "ls /proc/self/fd") == ["0", "1", "2", "3"]


def test_a_jail_without_null_runs_its_command(checkout: Path, small_root: Path) -> None:
    assert _run(checkout, small_root, "devfs_ruleset=1", "command=sh", "-c", "test -e /dev/null || echo none") == [
        "none"
    ]


def test_a_jail_that_cannot_be_made_lets_it_go(jail: Command, tmp_path: Path) -> None:
    """Nothing is left, for which the fixture looks."""
    tmp_path.chmod(0o700)
    root = tmp_path / "root"
    root.mkdir()
    mount("none", root, "ramfs")
    try:
        (root / "dev").mkdir()
        done = jail("-c", f"path={root}", "command=/bin/true")
    finally:
        unmount(root)
    assert done.returncode == 1
    assert done.stderr.startswith(f"jail: path {root}: its file system cannot map uids")
    assert done.stderr.count("\n") == 1


def test_a_jail_that_is_removed_when_it_is_to_enter() -> None:
    """Another command may do that at any time: it has been killed, and what is told is that."""
    reads, writes = os.pipe()
    os.close(reads)
    child = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    os.kill(child, signal.SIGKILL)

    class Killed:
        pid = child

        def forked(self) -> int:
            return self.pid

        def arrived(self) -> None:
            pass

    waiting = ready.Ready(writes, cast(Running, Killed()), stdio.Streams((0, 1, 2)))
    assert os.WTERMSIG(waiting.run()) == signal.SIGKILL
