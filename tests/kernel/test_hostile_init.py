"""A guest's PID 1 is whatever root inside makes it. Its root is not the jail's, and the host is not led there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.core.registry import Record
from jailng.observe import ptys
from tests.kernel.conftest import Command

# It goes where nothing is, and says that it has got there.
INIT = """#!/bin/sh
mkdir -p /tmp/deep/er/bin
cp /bin/busybox /tmp/deep/er/bin/sh
exec chroot /tmp/deep/er /bin/sh -c 'echo > /there; while :; do read -r _ < /fifo; done'
"""


@pytest.fixture
def cell(jail: Command, jexec: Command, small_root: Path) -> Iterator[Record]:
    """A jail of that name, whose PID 1 has called chroot(2)."""
    (small_root / "sbin").mkdir(exist_ok=True)
    (small_root / "sbin/init").unlink(missing_ok=True)
    (small_root / "sbin/init").write_text(INIT)
    (small_root / "sbin/init").chmod(0o755)
    (small_root / "tmp/deep/er").mkdir(parents=True)
    os.mkfifo(small_root / "tmp/deep/er/fifo")
    made = jail("-c", "jid=96", "name=cell", f"path={small_root}", "persist", "ng.init=sysv")
    assert (made.returncode, made.stderr) == (0, "")
    there = "until [ -e /tmp/deep/er/there ]; do usleep 1000; done"
    assert jexec("cell", "sh", "-c", there).returncode == 0
    found = registry.find("cell")
    assert found is not None
    assert os.stat(f"/proc/{found.init_pid}/root/there")
    yield found
    assert jail("-R", "cell").returncode == 0


def test_its_root_is_no_way_round_a_limit(cell: Record, jail: Command, jexec: Command) -> None:
    """Of what is limited where it is mounted."""
    changed = jail("-m", "name=cell", "ng.limits=pseudoterminals:deny=7,shmsize:deny=1M")
    assert (changed.returncode, changed.stderr) == (0, "")
    lines = [line.split() for line in jexec("cell", "cat", "/proc/self/mountinfo").stdout.splitlines()]
    options = {line[4]: line[-1].split(",") for line in lines}
    assert "max=7" in options["/dev/pts"]
    assert "size=1024k" in options["/dev/shm"]


def test_its_root_hides_no_disk(cell: Record, checkout: Path) -> None:
    """In a process of its own, which is in the jail's mount namespace for a while."""
    code = "from jailng.core import registry, throttle; print(*throttle.disks(registry.find('cell')))"
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    argv = [sys.executable, "-c", f"import os; os.chdir('/etc'); {code}; assert os.getcwd() == '/etc'"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() or os.major(os.stat(cell.params["path"]).st_dev) == 0


def test_its_root_hides_no_terminals(cell: Record) -> None:
    devpts = ptys.directory(cell.init_pid)
    assert devpts >= 0
    os.close(devpts)
