"""The machine has jails that start with it: run by tests/vm/guest-boot, after one restart and after another."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.kernel.fivejails import ENDED, NAMES, STARTED, log

pytestmark = pytest.mark.skipif(not os.path.exists("/var/lib/jailng-boot"), reason="not a machine of ./check --vm boot")


def _said(*argv: str) -> str:
    return subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True).stdout


def test_they_are_up_in_order() -> None:
    assert _said("jls", "name").split() == list(NAMES)
    assert log(Path("/")) == STARTED
    assert _said("systemctl", "is-active", "jail.service", "jail-shutdown.service").split() == ["active", "active"]
    assert _said("service", "jail", "restart", "mail") == "Stopping jails: mail.\nStarting jails: mail.\n"


def test_they_saw_themselves_go_down_and_are_there_again() -> None:
    restarted = [f"mail: {what}" for what in ("service ends", "shut down", "started")]
    assert log(Path("/")) == [*STARTED, *restarted, *ENDED, *STARTED]
    assert _said("jls", "name").split() == list(NAMES)
