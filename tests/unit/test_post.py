"""observe/post.py: a post outlives its worker as soon as anybody counts on it."""

from __future__ import annotations

import os
from typing import Any, cast

import pytest

from jailng.core.registry import Record
from jailng.limits import syslog
from jailng.observe.post import Duty, Supervisor


def test_the_supervisor_knows_that_it_is_ready_before_who_waits_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at once then, a worker is not taken for one that could not begin, with which the post would end."""
    hears, tells = os.pipe2(os.O_NONBLOCK)
    heard: list[bool] = []

    def kill(*_: object) -> None:
        with pytest.raises(BlockingIOError):
            os.read(hears, 100)
        heard.append(True)

    monkeypatch.setattr(os, "kill", kill)
    Duty(cast("Any", None), "log", -1, -1, False, tells).ready()
    assert (heard, os.read(hears, 100)) == ([True], b"ready")
    os.close(hears)


def test_a_post_that_is_to_end_does_so_although_its_workers_die(monkeypatch: pytest.MonkeyPatch) -> None:
    """They died a hundred times a second, for as long as the jail lived."""
    forked: list[bool] = []
    told: list[str] = []
    monkeypatch.setattr(Supervisor, "_fork", lambda _: forked.append(True))
    monkeypatch.setattr(syslog, "tell", told.append)
    init = os.pidfd_open(os.getpid())
    duty = Duty(Record(1), "log", init, -1, False, -1)
    duty.ending = True
    supervisor = Supervisor(duty, cast("Any", None), None, -1)
    while supervisor._follow(9):
        assert len(forked) < 10
    os.close(init)
    assert len(told) == len(forked) + 1 == 4
