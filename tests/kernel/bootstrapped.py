"""Roots made by jailctl bootstrap, for tests: from a cache of their own, which the first of them fills."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from jailng.ctl import recipe
from tests.kernel.debian import CACHE
from tests.kernel.stage import Stage

KEPT = CACHE / "bootstrap"
SHIMS = "/usr/lib/jailng/shims"
# What tests have with --include, or nothing: a root of each is kept.
_INCLUDED: list[list[str]] = [[], ["inetutils-ftp"]]
_HERE = Path(__file__).parents[2]


def words(*arguments: str) -> list[str]:
    """The command, from the checkout."""
    return [sys.executable, "-c", "import sys; from jailng.cli import jailctl; jailctl.run()", "bootstrap", *arguments]


def environment() -> dict[str, str]:
    """What the command finds its modules by."""
    return {**os.environ, "PYTHONPATH": str(_HERE / "src")}


def bootstrap(stage: Stage | None, *arguments: str, cache: Path = KEPT) -> subprocess.CompletedProcess[str]:
    """Run it with the machine's own network, from a stage or without one; nothing is checked."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    return subprocess.run(
        words(*arguments, "--cache", str(cache)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
        env=environment(),
        preexec_fn=stage.onto_host_network if stage else None,
    )


def make(say: Callable[[str], None]) -> list[Path]:
    """The roots that the tests ask for, as they are kept: made now if they were not before.

    ``say`` is called with a line of progress. Raises JailError where this host's apt has no source for them,
    RuntimeError with the end of what the command said.
    """
    suite = recipe.host_suite()
    sources = recipe.host_sources(suite, suite)
    found: list[Path] = []
    for included in _INCLUDED:
        wanted = recipe.Recipe(suite, recipe.architecture(), recipe.packages(included), sources)
        found.append(KEPT / f"{wanted.key}.tar")
        if not found[-1].exists():
            say(f"{' '.join(['jailctl bootstrap', *included])}, whose root some tests begin with: about a minute")
            with tempfile.TemporaryDirectory(prefix="jailng-root-") as directory:
                done = bootstrap(None, f"{directory}/root", *[word for one in included for word in ("--include", one)])
            if done.returncode:
                raise RuntimeError(f"jailctl bootstrap failed:\n{done.stderr[-4000:]}")
    return found
