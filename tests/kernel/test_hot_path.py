"""What real runs of the commands load, in every process that they fork: nothing that costs milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imports import FORBIDDEN, run
from tests.kernel.conftest import Command, standing


@pytest.fixture
def cell(jail: Command, small_root: Path) -> Iterator[str]:
    """A jail that stays, by name."""
    with standing(jail, small_root) as name:
        yield name


def test_creating_a_jail_for_a_command(checkout: Path, small_root: Path) -> None:
    arguments = ("-c", f"path={small_root}", "command=/bin/true")
    run(checkout / "bin/jail", *arguments)  # compiles the filter, if this machine has not had it yet
    done, loaded = run(checkout / "bin/jail", *arguments)
    assert done.returncode == 0, done.stderr
    assert "jailng.core.boot" in loaded
    assert not loaded & FORBIDDEN


def test_entering_and_listing(checkout: Path, cell: str) -> None:
    for command, arguments in (("jexec", (cell, "/bin/true")), ("jls", ()), ("jls", ("-n",))):
        done, loaded = run(checkout / "bin" / command, *arguments)
        assert done.returncode == 0, done.stderr
        assert not loaded & FORBIDDEN


def test_removing(checkout: Path, jail: Command, small_root: Path) -> None:
    assert jail("-c", "name=cell", f"path={small_root}", "persist").returncode == 0
    done, loaded = run(checkout / "bin/jail", "-r", "cell")
    assert done.returncode == 0, done.stderr
    assert not loaded & FORBIDDEN
