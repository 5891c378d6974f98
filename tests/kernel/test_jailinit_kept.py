"""Whom a long-lived process enters jails with: what a PID 1 runs is held while its pid is its own, and no longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from jailng.core import jailinit, rootfs
from jailng.core.program import Program
from jailng.engine import beginning, life
from jailng.engine.ending import stop
from jailng.errors import JailError
from jailng.params.model import Parameters


def _jail(root: Path) -> life.Life:
    params = Parameters()
    for name, text in (("name", "a"), ("path", str(root)), ("persist", None)):
        params.add(name, text)
    life.settle(params, life.Voice())
    return life.Life(params, None, life.Voice())


def test_a_jail_that_nobody_entered_leaves_no_pid_behind(small_root: Path) -> None:
    made = _jail(small_root)
    beginning.start(made)
    assert jailinit._coming is None
    stop(made, forced=True)
    assert (Path(jailinit.detached()).stat().st_mode & 0o111) != 0


def test_nor_does_one_that_could_not_be_made(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, way: Program, slots: object) -> None:
        way.must("chdir", way.text("/no/such/directory"), label="jail_set: here")

    monkeypatch.setattr(rootfs.Pivot, "inside", fail)
    with pytest.raises(JailError, match="jail_set: here"):
        beginning.start(_jail(small_root))
    assert jailinit._coming is None
