"""What a command, and what it starts beside a jail, inherit: signals, descriptors, limits, priority."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.linux import processid
from tests.kernel.conftest import ENVIRONMENT, Command
from tests.kernel.test_vnet import wire

__all__ = ["wire"]

Run = Callable[..., "subprocess.CompletedProcess[str]"]

_BESIDE = ("ng.limits=maxproc:log=300", "children.max=1", "ng.watch=tty")


@pytest.fixture
def run(checkout: Path, small_root: Path, jail: Command) -> Iterator[Run]:
    """Runs a command of jailng's, given how its process is prepared; the jail ``cell``, jid 7, ends with the test."""

    def started(prepare: Callable[[], None], name: str, *words: str) -> subprocess.CompletedProcess[str]:
        if name == "jail":
            words = ("-c", "jid=7", "name=cell", f"path={small_root}", "persist", *words)
        argv = [str(checkout / "bin" / name), *words]
        return subprocess.run(
            argv, preexec_fn=prepare, close_fds=False, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
        )

    yield started
    jail("-qr", "cell")


def _quiet(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def _load() -> registry.Record:
    record = registry.load(7)
    assert record is not None
    return record


@pytest.mark.parametrize(
    "word", ["exec.start=echo in", "exec.prestart=echo in", "exec.jail_user=0", "ng.limits=maxproc:log=300"]
)
def test_a_caller_that_waits_for_no_child(run: Run, word: str) -> None:
    """SIGCHLD ignored, as by a daemon, outlives exec: no child of such a process leaves a status to be waited for."""

    def prepare() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    said = _quiet(run(prepare, "jail", word))
    assert said.split() == (["in"] if "echo" in word else [])
    assert _quiet(run(prepare, "jexec", "-U", "root", "cell", "echo", "inside")) == "inside\n"
    assert _quiet(run(prepare, "rctl", "-a", "jail:cell:openfiles:deny=100", "jail:cell:maxproc:log=5")) == ""
    _quiet(run(prepare, "jailctl", "cp", "/etc/hostname", "cell:/"))
    assert _quiet(run(prepare, "rctl", "-r", "jail:cell")) == ""
