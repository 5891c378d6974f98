"""How many system calls and processes the commands cost: the part of their speed that is the same on every machine.

The bounds are upper ones, a tenth above what was counted, as machines differ by a dozen calls by mounts and cgroups.
docs/speed.md says where the time goes. Where one fails, the change that broke it either saves more than it costs, and
moves the bound, or is a mistake.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.linux import mount
from tests.kernel.conftest import Command
from tests.kernel.traced import traced

_BORN = ("clone", "clone3", "fork", "vfork")
_EXECUTED = ("execve", "execveat")

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace(1)")


def _born(calls: Counter[str]) -> int:
    return sum(calls[name] for name in _BORN)


@pytest.fixture(scope="session", autouse=True)
def gathered(checkout: Path) -> None:
    """Each command's modules are in one file, as they are once it is installed."""
    subprocess.run(["make", "-s", "-C", str(checkout)], check=True)


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """What an interpreter calls that has nothing to do."""
    work = tmp_path_factory.mktemp("bare")
    script = work / "script"
    script.write_text("#!/usr/bin/python3 -ISXutf8\nimport posix\nposix._exit(0)\n")
    script.chmod(0o755)
    return traced(work, str(script))[0]


@pytest.fixture
def cell(jail: Command, small_root: Path) -> Iterator[str]:
    """A jail that stays, by name."""
    made = jail("-c", "name=cell", f"path={small_root}", "persist")
    assert made.returncode == 0, made.stderr
    yield "cell"
    jail("-R", "cell")


def test_a_jail_for_one_command(checkout: Path, tmp_path: Path, small_root: Path, bare: Counter[str]) -> None:
    argv = (str(checkout / "bin/jail"), "-c", f"path={small_root}", "command=/bin/true")
    traced(tmp_path, *argv)  # compiles the filter, if this machine has not had it yet
    calls, lines = traced(tmp_path, *argv)
    # The builder, and PID 1 and the command by way of a jailinit each that makes the door. Before Linux 6.18 the
    # builder cannot name the pid namespace of the /proc that it mounts: it is born into it (core/builder.py).
    assert _born(calls) <= (5 if mount.takes_pid_namespace() else 6)
    assert sum(calls[name] for name in _EXECUTED) <= 6
    assert calls["mount"] <= 80
    assert calls.total() - bare.total() <= 1270
    assert not [line for line in lines if "/cgroup.procs" in line and "O_WRONLY" in line]  # 12 ms a process that moves
    assert not [line for line in lines if "RTM_DELLINK" in line]  # 20 ms each


def test_entering(checkout: Path, tmp_path: Path, cell: str, bare: Counter[str]) -> None:
    calls, lines = traced(tmp_path, str(checkout / "bin/jexec"), cell, "/bin/true")
    assert _born(calls) <= 2
    assert sum(calls[name] for name in _EXECUTED) <= 3
    assert calls["mount"] == 0
    assert calls.total() - bare.total() <= 520
    assert not [line for line in lines if "/cgroup.procs" in line and "O_WRONLY" in line]


def test_listing(checkout: Path, tmp_path: Path, cell: str, bare: Counter[str]) -> None:
    calls, lines = traced(tmp_path, str(checkout / "bin/jls"))
    assert _born(calls) == 0
    assert not [line for line in lines if "flock(" in line or "F_OFD_SETLK" in line]  # a reader waits for nobody
    assert calls.total() - bare.total() <= 160


def test_removing(checkout: Path, tmp_path: Path, cell: str, bare: Counter[str]) -> None:
    calls, _ = traced(tmp_path, str(checkout / "bin/jail"), "-r", cell)
    assert _born(calls) == 0
    assert calls.total() - bare.total() <= 360


def test_a_listing_costs_what_its_jails_cost(checkout: Path, tmp_path: Path, jail: Command, small_root: Path) -> None:
    """No more than a few calls for each, and for each the same."""
    counts = []
    try:
        for number in range(3):
            counts.append(traced(tmp_path, str(checkout / "bin/jls"))[0].total())
            assert jail("-c", f"name=cell{number}", f"path={small_root}", "persist").returncode == 0
        counts.append(traced(tmp_path, str(checkout / "bin/jls"))[0].total())
    finally:
        jail("-R", "*")
    assert counts[2] - counts[1] == counts[3] - counts[2] <= 10, counts
