"""The first screen of README.md: what it shows is what happens."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.stage import mount, unmount


def _transcript(checkout: Path) -> list[tuple[str, str]]:
    """The commands of the first block, and what each says."""
    block = (checkout / "README.md").read_text().split("```")[1]
    found: list[tuple[str, str]] = []
    for line in block.strip().splitlines():
        if line.startswith("# "):
            found.append((line[2:], ""))
        else:
            found[-1] = (found[-1][0], found[-1][1] + line + "\n")
    return found


@pytest.fixture
def roots(debian: Path, tmp_path: Path) -> Iterator[Path]:
    """What is /jail in the text, with the root that it speaks of."""
    root = tmp_path / "jail/192.0.2.10"
    root.mkdir(parents=True)
    mount(str(debian), root, None, 0x1000)  # MS_BIND
    yield root.parent
    unmount(root)


def test_the_first_screen(checkout: Path, roots: Path) -> None:
    commands = _transcript(checkout)
    assert 5 <= len(commands) <= 10
    environment = {**os.environ, "PATH": f"{checkout / 'bin'}:{os.environ['PATH']}", "LC_ALL": "C"}
    try:
        for command, expected in commands:
            argv = ["/bin/sh", "-c", command.replace("/jail/", f"{roots}/")]
            done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
            said = (done.stdout + done.stderr).replace(f"{roots}/", "/jail/")
            said = re.sub(r"^ +\d+(?=  192)", "     1", said, flags=re.MULTILINE)
            assert said.startswith(expected), f"{command}: {said}"
            assert expected or not said, f"{command}: {said}"
    finally:
        subprocess.run([str(checkout / "bin/jail"), "-R", "cell"], capture_output=True, check=False)
