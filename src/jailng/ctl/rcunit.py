"""systemd's view of jails: the unit jail.service follows what is done without systemd being asked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from jailng.ctl.rcconf import Settings

_RUNS = "/run/systemd/system"  # sd_booted(3)
_UNIT = "jail.service"
_JOBS = {"start": "start", "restart": "start", "stop": "stop"}


def follow(directive: str, settings: Settings) -> None:
    """All jails were started, or stopped: have systemd know. Nothing where it does not run, or did it itself.

    It calls us once more for that, when there is nothing left to do, and nobody waits: this may be a part of the boot.
    """
    if directive not in _JOBS or not settings.yes("jail_enable") or not os.path.isdir(_RUNS) or _is_unit():
        return
    argv = ["systemctl", "--no-block", _JOBS[directive], _UNIT]
    subprocess.run(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _is_unit() -> bool:
    """Whether this process is the unit's own: by its cgroup, for variables are inherited by whom the unit starts."""
    return any(line.endswith(f"/{_UNIT}") for line in Path("/proc/self/cgroup").read_text().splitlines())
