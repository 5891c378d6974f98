"""A command is killed that changes a jail or strikes one out: any other command finds what it needs, and mends it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.linux import ns
from tests.kernel import test_killed
from tests.kernel.conftest import Command
from tests.kernel.test_killed import Trial

remains, trial = test_killed.remains, test_killed.trial
pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace(1)")


def _make(trial: Trial, *commands: tuple[str, ...]) -> None:
    for words in commands:
        done = trial.jail(*words)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_line_that_is_torn(jail: Command, jls: Command, small_root: Path) -> None:
    """Who writes more than is in a page can be killed after a part of it; what comes next is a line of its own."""
    assert jail("-c", "name=a", "jid=7", f"path={small_root}", "persist").returncode == 0
    with open("/run/jailng/jails/7", "ab") as record:
        record.write(b"param meta=to")
    assert jail("-m", "name=a", "host.hostname=other").returncode == 0
    assert jls("-j", "a", "host.hostname", "meta").stdout == 'other ""\n'
    assert jail("-r", "a").returncode == 0


def test_a_record_that_is_struck_out_already(jail: Command, jls: Command, small_root: Path) -> None:
    """Whoever comes upon what is left of it leaves alone the jails in another that has its name by now."""
    assert jail("-c", "name=a", "jid=8", f"path={small_root}", "children.max=3", "persist").returncode == 0
    assert jail("-c", "name=a.b", "jid=9", f"path={small_root}", "persist").returncode == 0
    left = f"boot {registry.boot_id()}\nstarter 1 1\nparam name=a\nparam path={small_root}\n"
    Path("/run/jailng/jails/7").write_text(left)
    assert jail("-r", "7").returncode == 1
    assert not Path("/run/jailng/jails/7").exists()
    assert jls("name").stdout.split() == ["a", "a.b"]
    assert jail("-r", "a").returncode == 0
