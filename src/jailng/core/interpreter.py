"""The machine's Python, for processes of jailng's own that are started by exec and are no command."""

from __future__ import annotations

from jailng import start

PYTHON = "/usr/bin/python3"
# As the commands do it: without site, which would cost as much as all the rest.
_PROGRAM = """\
import sys
sys.path += [sys.argv[1], "/usr/lib/python3/dist-packages"]
from %s import main
main(*map(int, sys.argv[2:]))"""


def command(module: str, *numbers: int) -> list[str]:
    """The argv of a process that is ``main`` of a module, with these arguments."""
    return [PYTHON, "-ISXutf8", "-c", _PROGRAM % module, start.ROOT, *map(str, numbers)]
