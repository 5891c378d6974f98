"""The guard of docs/decisions/0001-ctypes.md: notices a Python whose ``_ctypes`` is not what libc.py builds on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PYTHONS = [found for minor in range(11, 20) if (found := shutil.which(f"/usr/bin/python3.{minor}"))]
# What a wrong declaration would break: an errno, a negative and a 64-bit argument, a null pointer, memory both ways.
PROBE = """
import sys
sys.path.append({src!r})
from jailng.linux import libc
def fails(*arguments):
    try:
        return libc.syscall(*arguments)
    except OSError as error:
        return error.errno
name = libc.buffer(16)
print(
    libc.syscall("prctl", 15, b"probe\\0", 0, 0, 0),
    libc.syscall("prctl", 16, name, 0, 0, 0), name.raw.partition(b"\\0")[0].decode(),
    fails("setns", -1, 0),
    fails("unshare", 1 << 40),
    fails("openat2", -100, None, libc.words(0, 0, 0), 24),
    "public" if "ctypes" in sys.modules else "private",
)
"""
EXPECTED = "0 0 probe 9 22 14"


def _probe(python: str, checkout: Path) -> str:
    program = PROBE.format(src=str(checkout / "src"))
    done = subprocess.run([python, "-IS", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_there_is_a_python_to_try() -> None:
    assert PYTHONS


@pytest.mark.parametrize("python", PYTHONS)
def test_system_calls_go_through_the_private_half(python: str, checkout: Path) -> None:
    assert _probe(python, checkout) == f"{EXPECTED} private"
