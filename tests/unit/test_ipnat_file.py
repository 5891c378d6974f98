"""ipnat(8): a file of rules that has no end."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest

_IPNAT = Path(__file__).parents[2] / "bin/ipnat"
_MEMORY = 1 << 30  # bytes of address space


@pytest.mark.parametrize("name", ["/dev/zero", "-"])
def test_a_file_that_never_ends(name: str) -> None:
    """It took all memory that the host has."""
    with open("/dev/zero", "rb") as zero:
        done = subprocess.run(
            [_IPNAT, "-nf", name],
            stdin=zero,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY)),
        )
    shown = "<stdin>" if name == "-" else name
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"ipnat: {shown}: larger than 16 MB\n")
