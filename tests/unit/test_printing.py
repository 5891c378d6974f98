"""What a command prints, where that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent.parent.parent
ANSWER = 'from jailng.cli import printing; printing.{}("here")'


def _run(call: str, out: int) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", ANSWER.format(call)]
    return subprocess.run(argv, stdout=out, stderr=subprocess.PIPE, text=True, env={"PYTHONPATH": f"{HERE}/src"})


@pytest.mark.parametrize("call", ["answer", "say"])
def test_no_room(call: str) -> None:
    """That is told of what was asked for, and not of what has been done."""
    with open("/dev/full", "w") as full:
        done = _run(call, full.fileno())
    assert ("standard output: No space left on device" in done.stderr) is (call == "answer")
    assert bool(done.returncode) is (call == "answer")


@pytest.mark.parametrize("call", ["answer", "say"])
def test_nobody_reads_it(call: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = _run(call, writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
