"""What runs beside a jail: whether it is the one that the record names."""

from __future__ import annotations

import os
import posix
import time
from types import SimpleNamespace
from typing import Any

import pytest

from jailng.core import beside, registry
from jailng.linux import processid


class _Registry:
    """A record that names this process when it has been looked at so many times."""

    def __init__(self, patch: pytest.MonkeyPatch, after: int) -> None:
        self.after = after
        self.looks = 0
        patch.setattr(registry, "load", self.load)
        patch.setattr(time, "sleep", lambda _: None)

    def load(self, _: int) -> Any:
        self.looks += 1
        return SimpleNamespace(warden=processid.of(os.getpid()) if self.looks > self.after else "")


def _asked() -> object:
    return beside.named(7, lambda record: record.warden)


def test_a_starter_that_lives_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """He may not have been let run for seconds, and nobody would hear that the jail is not watched."""
    known = _Registry(monkeypatch, after=1000)
    monkeypatch.setitem(posix.environ, b"JAILNG_STARTER", b"%d" % os.getppid())
    assert _asked() is not None
    assert known.looks == 1001


@pytest.mark.parametrize(("after", "is_known"), [(0, True), (1, False)])
def test_what_one_that_has_ended_wrote_counts(monkeypatch: pytest.MonkeyPatch, after: int, is_known: bool) -> None:
    known = _Registry(monkeypatch, after)
    monkeypatch.setitem(posix.environ, b"JAILNG_STARTER", b"%d" % os.getpid())
    assert (_asked() is not None) == is_known
    assert known.looks == 1


def test_one_that_never_writes_is_not_waited_for_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    _Registry(monkeypatch, after=1 << 30)
    monkeypatch.setitem(posix.environ, b"JAILNG_STARTER", b"%d" % os.getppid())
    clock = iter(range(0, 1000, 7))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    assert _asked() is None
