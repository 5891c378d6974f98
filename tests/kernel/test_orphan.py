"""core/process.orphan: what fails in a process that is init's is told of, however many descriptors its starter has."""

from __future__ import annotations

import os

import pytest

from jailng.core import beside, jailinit, process, program
from jailng.linux import cgroup
from tests.kernel.stdio_host import until


def _is_cleared() -> bool:
    beside.clear()
    return not cgroup.exists("jailng")


@pytest.mark.parametrize("more", [0, *range(10, 20)])
def test_what_fails_is_told_of(more: int) -> None:
    for name in ("jailng", beside.HOME):
        cgroup.make(name)
    home = cgroup.open_directory(beside.HOME)
    given = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(more)]
    try:
        way = program.Program()
        process.orphan(way, home, given)
        way.execute(["/nonexistent"], {"PATH": ""})
        running = program.start(way, jailinit.path())
        running.forked()
        assert running.complaint() == "execvp: /nonexistent: No such file or directory"
    finally:
        for fd in (home, *given, *others):
            os.close(fd)
        until(_is_cleared, "the process ends")
