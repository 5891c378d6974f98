"""The steps of a jail's life, where one jail is all that there is: what is waited for, and how long."""

from __future__ import annotations

import time

import pytest

from jailng.engine import command, life
from jailng.linux import ns


def test_a_wait_without_end_sleeps_after_months_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """poll(2) takes 24 days at most: each time that is over it is asked to wait again, and not just to look."""
    clock = [1000.0]
    asked: list[float] = []

    def ends_within(_: int, seconds: float) -> bool:
        asked.append(seconds)
        clock[0] += ns.LONGEST / 1000
        return len(asked) == 4

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(ns, "ends_within", ends_within)
    assert life._ended(command.Wait([7], 0))
    assert all(seconds > ns.LONGEST / 1000 for seconds in asked)


def test_a_wait_has_its_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    clock = [1000.0]

    def ends_within(_: int, seconds: float) -> bool:
        asked.append(seconds)
        clock[0] += min(seconds, 3)
        return False

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(ns, "ends_within", ends_within)
    assert not life._ended(command.Wait([7], 5))
    assert asked == [5, 2]
