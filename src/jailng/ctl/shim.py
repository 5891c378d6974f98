"""What the scripts in shims/ run: a program of the host's as FreeBSD has it. What that does not know goes on to the
host's own program: the next of that name on PATH, behind the shims' directory.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

from jailng.errors import JailError, UsageError
from jailng.params.values import visible

USAGE = "usage: jailctl shim path [argument ...]"
# Each is a module of jailng.ctl.
_SHIMS = (
    *("cpuset", "ifconfig", "killall", "mount", "mount_nullfs", "netstat", "pgrep", "pkill", "ps", "route", "service"),
    *("sockstat", "sysctl", "top", "umount", "watch"),
)
# Of these one command line may have words for both: they are told which the host's own is.
_MIXED = ("ifconfig", "mount", "mount_nullfs", "netstat", "pgrep", "pkill", "route", "sysctl", "umount")
_BEHIND = {"mount_nullfs": "mount"}  # the host has another name for it
_NOT_FOUND = 127  # the shell's


def main(argv: list[str]) -> int:
    """Be the program that the script at ``argv[0]`` is named after; its exit status. Raises UsageError."""
    if not argv or os.path.basename(argv[0]) not in _SHIMS:
        raise UsageError(USAGE)
    script, *arguments = argv
    name = os.path.basename(script)
    module = import_module(f"jailng.ctl.{name}")
    real = behind(os.path.join(os.path.dirname(script), _BEHIND.get(name, name)), os.environ.get("PATH", os.defpath))
    try:
        if name in _MIXED:
            return int(module.answer(arguments, real))
        return int(module.shim(arguments))
    except UsageError as error:
        if real is None:
            return _complain(str(error).replace(f"jailctl {name}", name), _NOT_FOUND)
        os.execv(real, [name, *arguments])
    except JailError as error:
        return _complain(f"{name}: {error}", error.status)
    except OSError as error:
        return _complain(f"{name}: {error.filename or ''}{': ' if error.filename else ''}{error.strerror}", 1)


def behind(script: str, path: str) -> str | None:
    """The program that a shim stands before: the first executable of its name in a directory of ``path`` after its own.

    Of two directories with shims neither leads back to the other. Without its own on it, all of ``path`` counts.
    """
    own = Path(script).parent.resolve()
    places = [Path(place or ".") for place in path.split(":")]
    mine = [at for at, place in enumerate(places) if place.resolve() == own]
    for place in places[mine[0] + 1 if mine else 0 :]:
        candidate = place / os.path.basename(script)
        # Path.is_file() raises for a directory that this user may not look into, and PATH is often somebody else's.
        found = place.resolve() != own and os.path.isfile(candidate) and os.access(candidate, os.X_OK)
        if found and not os.path.samefile(candidate, script):
            return str(candidate)
    return None


def _complain(text: str, status: int) -> int:
    print(visible(text, keep="\n\t"), file=sys.stderr)
    return status
