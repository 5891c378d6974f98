"""`service jail console`: somebody at a terminal is logged in to the jail, by its own login(1)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.kernel.conftest import ENVIRONMENT, Command


def test_console(checkout: Path, jail: Command, debian_copy: Path) -> None:
    made = jail("-c", "name=cell", f"path={debian_copy}", "host.hostname=cell", "persist")
    assert made.returncode == 0, made.stderr
    argv = ["script", "-qec", f"{checkout}/bin/jailctl rc oneconsole cell", "/dev/null"]
    typed = 'echo "$LOGNAME is at $(tty) of $(hostname), $0"\nexit\n'
    told = subprocess.run(argv, input=typed, capture_output=True, text=True, timeout=120, env=ENVIRONMENT, check=False)
    assert jail("-r", "cell").returncode == 0
    assert "root is at /dev/pts/0 of cell, -bash" in told.stdout
