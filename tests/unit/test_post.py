"""observe/post.py: a post outlives its worker as soon as anybody counts on it."""

from __future__ import annotations

import os
from typing import Any, cast

import pytest

from jailng.observe.post import Duty


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
