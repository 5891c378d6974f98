"""Roots made by jailctl bootstrap, for tests: from a cache of their own, which the first of them fills."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.kernel.debian import CACHE
from tests.kernel.stage import Stage

KEPT = CACHE / "bootstrap"
SHIMS = "/usr/lib/jailng/shims"
_HERE = Path(__file__).parents[2]


def words(*arguments: str) -> list[str]:
    """The command, from the checkout."""
    return [sys.executable, "-c", "import sys; from jailng.cli import jailctl; jailctl.run()", "bootstrap", *arguments]


def environment() -> dict[str, str]:
    """What the command finds its modules by."""
    return {**os.environ, "PYTHONPATH": str(_HERE / "src")}


def bootstrap(stage: Stage, *arguments: str, cache: Path = KEPT) -> subprocess.CompletedProcess[str]:
    """Run it with the machine's own network; nothing is checked."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    return subprocess.run(
        words(*arguments, "--cache", str(cache)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
        env=environment(),
        preexec_fn=stage.onto_host_network,
    )
