"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# The same cases on every run: a check that fails does so for everybody, at once.
settings.register_profile("check", derandomize=True, deadline=None, database=None)
settings.load_profile("check")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The project's root directory."""
    return Path(__file__).resolve().parent.parent
