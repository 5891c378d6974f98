"""What all tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# The same cases on every run: a check that fails does so for everybody, at once.
settings.register_profile("check", derandomize=True, deadline=None, database=None)
settings.load_profile("check")

# What starts the check may have had these ignored (nohup, a shell's "&"), which commands inherit and tests are about.
for _number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(_number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
# readline(3), which pytest imports, says so to the C library, which os.environ does not know: ps would cut its lines.
for _name in ("COLUMNS", "LINES"):
    os.unsetenv(_name)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The project's root directory."""
    return Path(__file__).resolve().parent.parent
