"""The scripts in bin/: what happens before the command that they start has begun."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

BIN = Path(__file__).parents[2] / "bin"


@pytest.mark.parametrize("name", ["jail", "jls", "jexec", "jailctl", "rctl", "ipnat"])
def test_interrupted_while_it_loads(tmp_path: Path, name: str) -> None:
    """^C ends it as a signal ends a program, without a traceback."""
    (tmp_path / "bin").mkdir()
    shutil.copy(BIN / name, tmp_path / "bin")
    package = tmp_path / "src/jailng"
    (package / "cli").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli/__init__.py").touch()
    shutil.copy(BIN.parent / "src/jailng/start.py", package)
    (package / f"cli/{name}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run([tmp_path / "bin" / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
