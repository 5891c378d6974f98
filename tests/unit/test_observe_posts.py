"""How long a post is waited for until it is ready: as long as it does something, on a machine however slow."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from jailng.observe import posts

Born = Callable[[Callable[[], None]], tuple[int, str]]


@pytest.fixture
def born(monkeypatch: pytest.MonkeyPatch) -> Iterator[Born]:
    """Fork one that does something, and then says that it is ready: the end to hear it from, and which it is."""
    monkeypatch.setattr(posts, "_SECONDS", 0.2)
    monkeypatch.setattr(posts, "_LOOK", 0.05)
    pids, fds = [], []

    def fork(work: Callable[[], None]) -> tuple[int, str]:
        hears, tells = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                work()
                os.write(tells, b"ready")
            finally:
                os._exit(0)
        os.close(tells)
        pids.append(pid)
        fds.append(hears)
        return hears, f"{pid} 0"

    yield fork
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for fd in fds:
        os.close(fd)


def _labour() -> None:
    while time.process_time() < 1:
        pass


def _have_a_child_labour() -> None:
    pid = os.fork()
    if pid == 0:
        _labour()
        os._exit(0)
    os.waitpid(pid, 0)


def _never_end() -> None:
    while True:
        pass


@pytest.mark.parametrize("work", [_labour, _have_a_child_labour])
def test_one_that_works_is_waited_for(born: Born, work: Callable[[], None]) -> None:
    assert posts._hear(*born(work)) == ""


def test_one_that_does_nothing_is_not(born: Born) -> None:
    assert posts._hear(*born(signal.pause)).startswith("no answer from process ")


def test_nor_one_that_never_comes_to_an_end(born: Born, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts, "_AT_MOST", 0.5)
    assert posts._hear(*born(_never_end)).startswith("no answer")
