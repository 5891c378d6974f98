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
{before}
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


def _probe(python: str, checkout: Path, before: str = "") -> str:
    program = PROBE.format(src=str(checkout / "src"), before=before)
    done = subprocess.run([python, "-IS", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_there_is_a_python_to_try() -> None:
    assert PYTHONS


@pytest.mark.parametrize("python", PYTHONS)
def test_system_calls_go_through_the_private_half(python: str, checkout: Path) -> None:
    assert _probe(python, checkout) == f"{EXPECTED} private"


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lost", ["FUNCFLAG_CDECL", "dlopen", "CFuncPtr"])
def test_without_it_they_go_through_the_public_one(python: str, checkout: Path, lost: str) -> None:
    """ctypes itself takes the name when it is imported, so that it has it before it is lost."""
    if "from ctypes import" not in (checkout / "src/jailng/linux/libc.py").read_text():
        pytest.skip("linux/libc.py has no fallback yet")
    assert _probe(python, checkout, f"import ctypes, _ctypes; del _ctypes.{lost}") == f"{EXPECTED} public"
