"""`service jail console`: somebody at a terminal is logged in to the jail, by its own login(1)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.kernel.conftest import ENVIRONMENT, Command


def test_console(checkout: Path, jail: Command, debian_copy: Path) -> None:
    made = jail("-c", "name=cell", f"path={debian_copy}", "host.hostname=cell", "persist")
    assert made.returncode == 0, made.stderr
    argv = ["script", "-qec", f"{checkout}/bin/jailctl rc oneconsole cell", "/dev/null"]
    typed = b'echo "$LOGNAME is at $(tty) of $(hostname), $0"\nexit\n'
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        told = b""
        while b"# " not in told and (part := os.read(process.stdout.fileno(), 4096)):  # login(1) drops what came before
            told += part
        told += process.communicate(typed, timeout=120)[0]
    assert jail("-r", "cell").returncode == 0
    assert b"root is at /dev/pts/0 of cell, -bash" in told
