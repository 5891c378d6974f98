"""Programs that read what /proc tells of the machine go on working where it tells of a machine that idles."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command, standing


@pytest.fixture
def cell(jail: Command, debian: Path) -> Iterator[str]:
    """A jail with a Debian, by name."""
    with standing(jail, debian) as name:
        yield name


def test_procps(jexec: Command, cell: str) -> None:
    def run(command: str) -> list[str]:
        done = jexec(cell, "/bin/sh", "-c", command)
        assert (done.returncode, done.stderr) == (0, ""), command
        return done.stdout.splitlines()

    names, memory, _ = (line.split() for line in run("free"))
    values = dict(zip(names, map(int, memory[1:]), strict=True))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    assert pages * 4 // 5 < values["total"] <= pages
    assert values["available"] == values["total"] and values["used"] == 0
    assert [line.split()[-1] for line in run("ps aux")[:2]] == ["COMMAND", "init"]
    started = time.mktime(time.strptime(run("ps -o lstart= 1")[0]))
    assert abs(started - time.time()) < 60
    assert [line for line in run("top -bn2 -d0.1") if "100.0 id" in line]
    assert "load average: 0.00" in run("uptime")[0]
    for command in ("nproc", "getconf _NPROCESSORS_ONLN", "grep -c ^cpu[0-9] /proc/stat"):
        assert run(command) == [str(os.cpu_count())]


def test_the_masks_are_no_part_of_the_kernels(jexec: Command, cell: str) -> None:
    """Each is a read-only file of the host's, so that what stands in it is what the host put there."""
    paths = "sys/fs/file-nr sys/fs/inode-nr sys/fs/inode-state sys/fs/dentry-state sys/fs/aio-nr sys/kernel/pty/nr"
    paths += " sys/kernel/core_pattern sys/dev sys/fs/quota meminfo stat loadavg"
    script = "for file in $@; do stat -f -c %T /proc/$file; done; cat /proc/sys/kernel/core_pattern; echo >/proc/stat"
    done = jexec(cell, "/bin/sh", "-c", script, "sh", paths)
    count = len(paths.split())
    assert done.stdout.splitlines() == ["tmpfs"] * count + ["core"]
    assert "Read-only file system" in done.stderr
