"""Faults at a chosen system call of a command: strace(1) kills it there, or has the call fail."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

# In a normal check every so-manieth step; all of them when there is time.
STRIDE = 1 if os.environ.get("JAILNG_TEST_THOROUGH") else 12
_CALL = re.compile(r"(\w+)\(")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}


class Step:
    """The ``number``-th call of that name that a process makes."""

    def __init__(self, name: str, number: int, text: str) -> None:
        self.name = name
        self.number = number
        self.text = text

    def __str__(self) -> str:
        return f"{self.name} #{self.number}: {self.text[:100]}"


def steps(trace: Path, *argv: str) -> list[Step]:
    """Run a command, which must succeed, and tell its calls from the first on that concerns the registry."""
    done = subprocess.run(
        ["strace", "-o", str(trace), *argv], capture_output=True, text=True, timeout=60, env=_ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    counted: dict[str, int] = {}
    found: list[Step] = []
    for line in trace.read_text().splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        name = call[1]
        counted[name] = counted.get(name, 0) + 1
        if found or "/run/jailng" in line:
            found.append(Step(name, counted[name], line))
    assert len(found) > 20
    return found


def run(step: Step, fault: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a fault (``signal=SIGKILL``, ``error=EPERM``) where that call is entered."""
    inject = f"inject={step.name}:{fault}:when={step.number}"
    return subprocess.run(
        ["strace", "-o", "/dev/null", "-e", f"trace={step.name}", "-e", inject, *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=_ENVIRONMENT,
    )
