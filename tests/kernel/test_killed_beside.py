"""SIGKILL at every step of a command about a jail that is watched, logged, or has an rc: the next finds the truth."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.linux import btf, processid
from tests.kernel import test_killed
from tests.kernel.faults import STRIDE, Step
from tests.kernel.stage import own_logs
from tests.kernel.test_killed import Trial

remains, trial = test_killed.remains, test_killed.trial
needs_btf = pytest.mark.skipif(not os.path.exists(btf.VMLINUX), reason="a kernel without BTF")
_EVERY = 4 if STRIDE > 1 else 1  # each step takes a process that loads much
_LIMITS = "ng.limits=openfiles:deny=100,wallclock:log=100000"


@pytest.fixture(autouse=True)
def logs(stage: object) -> Iterator[None]:
    """A /var/log of the test's own."""
    with own_logs("size=64m"):
        yield


def _words(root: Path, *more: str) -> tuple[str, ...]:
    return ("-c", "name=a", "jid=7", f"path={root}", "persist", *more)


def _looked_after(trial: Trial, step: Step, *kinds: str) -> None:
    """Whoever has been asked for is there, from the next entry on, or one after it.

    What the killed command was starting may hold the jail's lock for a moment still, for which no entry waits; it loads
    much, and on a slow machine that moment is several entries long.
    """
    missing = list(kinds)
    for _ in range(100):
        trial.jexec("a", "/bin/true")
        record = registry.load(7)
        if record is None:
            trial.note(step, "no record")
            return
        holders = {kind: record.warden if kind == "warden" else record.posts.get(kind, "") for kind in kinds}
        missing = [kind for kind in kinds if not processid.is_alive(holders[kind])]
        if not missing:
            break
        time.sleep(0.2)
    for kind in missing:
        trial.note(step, f"no {kind}")


def _creation(trial: Trial, create: tuple[str, ...], *kinds: str) -> None:
    trial.creation(*create, every=_EVERY, then=lambda step: _looked_after(trial, step, *kinds))


@needs_btf
def test_creation_with_watched_terminals(trial: Trial, small_root: Path) -> None:
    _creation(trial, _words(small_root, "ng.watch=tty"), "tty")


def test_creation_with_a_log(trial: Trial, small_root: Path) -> None:
    _creation(trial, _words(small_root, "ng.log=syslog"), "log")


def test_creation_with_watched_limits(trial: Trial, small_root: Path) -> None:
    _creation(trial, _words(small_root, _LIMITS), "warden")


def test_creation_with_an_rc(trial: Trial, small_root: Path) -> None:
    (small_root / "etc/rc").write_text("#!/bin/sh\nsleep 1000 >/dev/null 2>&1 &\n")
    (small_root / "etc/rc").chmod(0o755)
    _creation(trial, _words(small_root, "ng.init=rc"))


@needs_btf
def test_to_watch_log_and_limit_from_now_on(trial: Trial, small_root: Path) -> None:
    """Whenever jail -m was killed, what the parameters then ask for is done by the next entry, or by the same again."""
    wanted = {"ng.watch": "tty", "ng.log": "syslog", "ng.limits": _LIMITS.partition("=")[2]}
    kinds = {"ng.watch": "tty", "ng.log": "log", "ng.limits": "warden"}
    modify = ("-m", "name=a", *[f"{name}={value}" for name, value in wanted.items()])
    trial.jail(*_words(small_root))
    steps = trial.steps("jail", *modify)[::_EVERY]
    trial.jail("-r", "a")
    for number, step in enumerate(steps):
        trial.expect(step, *_words(small_root))
        trial.kill(step, "jail", *modify)
        record = registry.load(7)
        assert record is not None
        asked = [kinds[name] for name in wanted if record.params.get(name)]
        if number % 2:
            _looked_after(trial, step, *asked)
        trial.expect(step, *modify)
        _looked_after(trial, step, *kinds.values())
        trial.expect(step, "-r", "a")
        trial.nothing_remains(step)
    trial.verdict()
