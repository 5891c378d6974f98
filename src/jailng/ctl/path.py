"""What PATH leads to: other packages of Debian have a jexec (OpenJDK) and a jls (sleuthkit), in /usr/bin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from jailng.ctl.diagnosis import Finding, Jails

_COMMANDS = ("jail", "jls", "jexec", "jailctl")


def check(_: Jails) -> Iterator[Finding]:
    """Whether each command is found first where it is jailng's."""
    places = [Path(part) for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part]
    for name in _COMMANDS:
        there = [place / name for place in places if (place / name).is_file() and os.access(place / name, os.X_OK)]
        ours = [path for path in there if _is_ours(path)]
        if not ours:
            yield Finding(f"{name}: none of jailng's on PATH", ("export PATH=/usr/sbin:$PATH",))
        elif there[0] != ours[0]:
            yield Finding(
                f"{name}: PATH leads to {there[0]}, which is another program, before {ours[0]}",
                (f"export PATH={ours[0].parent}:$PATH",),
            )


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return b"jailng" in file.read(4096)
