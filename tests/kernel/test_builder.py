"""The builder on kernels before Linux 6.18, where it is born into the jail's pid namespace; and what it tells of."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

# jail(8) as it is where a procfs cannot be told whose it is.
_OLDER = """
import sys
sys.path += sys.argv[1:3]
from jailng.cli import jail
from jailng.linux import mount
mount.takes_pid_namespace = lambda: False
sys.exit(jail.main(sys.argv[3:]))
"""


def older(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """jail(8) as it is there."""
    path = [str(checkout / "src"), "/usr/lib/python3/dist-packages"]
    argv = ["/usr/bin/python3", "-IS", "-c", _OLDER, *path, *arguments]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


def test_it_makes_the_same_tree(checkout: Path, small_root: Path) -> None:
    command = (
        "-c",
        f"path={small_root}",
        "command=/bin/sh",
        "-c",
        "cat /proc/mounts /proc/1/comm",
    )
    newer = subprocess.run([checkout / "bin/jail", *command], capture_output=True, text=True, timeout=60)
    before = older(checkout, *command)
    assert (before.returncode, before.stderr) == (0, "")
    seen = [text.replace("none /proc", "proc /proc") for text in (newer.stdout, before.stdout)]
    assert seen[0] == seen[1]


def test_a_failure_in_there_is_named(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir(mode=0o700)
    (tmp_path / "root/proc").symlink_to("/")
    done = older(checkout, "-c", f"path={tmp_path}/root", "persist")
    assert done.returncode == 1
    assert done.stderr == f"jail: mount.procfs: {tmp_path}/root/proc is a symbolic link\n"


@pytest.mark.parametrize("before", [False, True])
def test_a_mount_that_is_not_seen_inside_is_told_of(checkout: Path, small_root: Path, before: bool) -> None:
    (small_root / "below").mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", small_root / "below"], check=True)
    try:
        command = ("-vc", f"path={small_root}", "command=/bin/true")
        if before:
            done = older(checkout, *command)
        else:
            argv = [str(checkout / "bin/jail"), *command]
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    finally:
        subprocess.run(["umount", small_root / "below"], check=True)
    assert done.returncode == 0, done.stderr
    assert f"not seen inside: {small_root}/below\n" in done.stdout + done.stderr
