"""Bombs in a limited jail: each has what the limits allow and no more, can be looked at, and goes without a trace.

What they do to a neighbour's latency ``bench/bombs`` measures.
"""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kernel import bombs
from tests.kernel.conftest import ENVIRONMENT, Command
from tests.kernel.stage import Stage

# What a bomb is told when it has what it may.
_TOLD = {
    **dict.fromkeys(("fork", "thread", "timer", "signal"), "EAGAIN"),
    **dict.fromkeys(("fd", "epoll", "timerfd", "inotify"), "EMFILE"),
    **dict.fromkeys(("disk", "inode", "sparse", "directory", "pty", "watch"), "ENOSPC"),
    # Whichever comes first: all of the memory, or what of it there may be in pipes, files or segments.
    **dict.fromkeys(("memory", "memfd", "socket", "pipe", "shm", "tmpfs"), "no memory"),
    **dict.fromkeys(("cpu", "negative"), "much"),
    "key": "EPERM",
}
_TOGETHER = [
    ["fork", "cpu"],
    ["thread", "signal", "key", "pty"],
    ["memory", "memfd", "socket", "pipe", "shm", "tmpfs"],
    ["fd", "epoll", "timerfd", "timer", "inotify"],
    ["disk", "sparse", "negative"],
    ["inode", "watch", "directory"],
]
_EACH = [[name] for name in bombs.BOMBS] if os.environ.get("JAILNG_TEST_THOROUGH") else _TOGETHER
_MEMORY, _PROCESSES = 96 << 20, 100


def test_all_are_tried() -> None:
    assert sorted(_TOLD) == sorted(bombs.BOMBS) == sorted([name for names in _TOGETHER for name in names])


class _Running:
    """A bomb in the jail ``bomb``."""

    def __init__(self, checkout: Path, name: str) -> None:
        argv = [f"{checkout}/bin/jexec", "bomb", "/usr/bin/python3", "-ISc", bombs.program(name)]
        self.name = name
        self.process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT
        )

    def told(self) -> str:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 60)[0], f"{self.name}: nothing stops it"
        told = self.process.stdout.readline().strip()
        return "no memory" if told in ("killed", "refused") else told

    def end(self) -> None:
        assert self.process.stdout is not None
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture
def cell(jail: Command, tmp_path: Path) -> Iterator[str]:
    root = bombs.root(tmp_path / "root")
    made = jail("-c", "name=bomb", "jid=7", *bombs.words(root), f"ng.limits={bombs.LIMITS}", "persist")
    assert made.returncode == 0, made.stderr
    yield "bomb"
    jail("-R", "bomb")
    (tmp_path / "root.img").unlink()


def _counters(stage: Stage, *names: str) -> list[int]:
    """What there is of these files in the jail's cgroups."""
    found = []
    for hierarchy in stage.hierarchies:
        for name in names:
            with suppress(OSError):
                found.append(int(Path(f"{hierarchy.mounted.target}/jailng/7/{name}").read_text()))
    return found


@pytest.mark.parametrize("names", _EACH, ids=" ".join)
def test_contained(names: list[str], cell: str, stage: Stage, checkout: Path, jail: Command, jexec: Command) -> None:
    running = [_Running(checkout, name) for name in names]
    try:
        assert {one.name: one.told() for one in running} == {name: _TOLD[name] for name in names}
        entered = jexec(cell, "/bin/echo", "here")
        assert (entered.stdout, entered.stderr) == ("here\n", "")
        (processes,) = _counters(stage, "pids.current")
        # PID 1, and who has entered, whom nothing refuses: of each bomb, and the last, whom the kernel may still count.
        assert processes <= _PROCESSES + 2 + len(names)
        (most,) = _counters(stage, "memory.max_usage_in_bytes", "memory.peak")
        assert most <= _MEMORY
        removed = jail("-r", cell)
        assert (removed.returncode, removed.stderr) == (0, "")
    finally:
        jail("-R", cell)
        for one in running:
            one.end()
