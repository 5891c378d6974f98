"""systemd's view of jails and rules: their units follow what is done without systemd being asked."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from jailng.ctl.rcconf import Settings

_RUNS = "/run/systemd/system"  # sd_booted(3)
_JOBS = {"start": "start", "restart": "start", "stop": "stop"}
# systemctl(1), is-system-running: what we are called by may be a part of that, which the unit's job would wait for.
_ON_ITS_WAY = ("initializing", "starting", "stopping")
_PATIENCE = 30  # seconds


def follow(name: str, directive: str, settings: Settings) -> None:
    """The service was started, or stopped: have systemd know. Nothing where it does not run, or did it itself.

    It calls us once more for that, when there is nothing left to do. That is waited for, since by then it might be
    undone what somebody does next.
    """
    unit = f"{name}.service"
    if directive not in _JOBS or not settings.yes(f"{name}_enable") or not os.path.isdir(_RUNS) or _is_unit(unit):
        return
    options = ["--no-block"] if _state() in _ON_ITS_WAY else []
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(
            ["systemctl", *options, _JOBS[directive], unit],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_PATIENCE, check=False,
        )  # fmt: skip


def _state() -> str:
    argv = ["systemctl", "is-system-running"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _is_unit(unit: str) -> bool:
    """Whether this process is the unit's own: by its cgroup, for variables are inherited by whom the unit starts."""
    return any(line.endswith(f"/{unit}") for line in Path("/proc/self/cgroup").read_text().splitlines())
