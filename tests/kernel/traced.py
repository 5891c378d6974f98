"""A command under strace(1): what it calls."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

_CALL = re.compile(r"(?:\d+ +)?(\w+)\(")


def traced(work: Path, *argv: str, follow: bool = True) -> tuple[Counter[str], list[str]]:
    """How often each system call was made by a command, and every line of the trace, which is written in ``work``.

    With ``follow`` also by all that it started.
    """
    log = work / "trace"
    options = ["-f"] if follow else []
    command = ["strace", *options, "-qq", "-e", "signal=none", "-o", str(log), *argv]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = log.read_text().splitlines()
    return Counter(found[1] for line in lines if (found := _CALL.match(line))), lines
