"""rc.d/rctl: rules of rctl.conf(5) loaded with the machine, as `service rctl DIRECTIVE` asks for it.

Behind it are /etc/init.d/rctl and a unit of systemd. Its words are FreeBSD's, of libexec/rc/rc.d/rctl and rc.subr.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from jailng.ctl import rcconf, rcsubr, rcunit
from jailng.limits import database

_SCRIPT = "/etc/init.d/rctl"
_ACTIONS = ("start", "stop", "restart")
DIRECTIVES = (*_ACTIONS, *rcsubr.COMMON)
USAGE = rcsubr.usage(_SCRIPT, DIRECTIVES)


def main(argv: list[str]) -> int:
    """Carry out a directive; its exit status. Raises UsageError, JailError, OSError."""
    prefix, directive = rcsubr.parted(argv[0] if argv else "", _SCRIPT, DIRECTIVES)
    settings = rcconf.read()
    if directive in (*_ACTIONS, "extracommands") and rcsubr.forbidden("rctl", prefix, directive, settings):
        return 0
    if directive not in _ACTIONS:
        return rcsubr.common("rctl", "Manage resource limits", "", directive, settings)
    done = 0
    if directive != "start" and database.read():
        done = _run("-r", ":")
    if directive != "stop":
        words = rules(Path(settings.text("rctl_rules")))
        done = (_run("-a", "--", *words) if words else 0) or done
    if done == 0:
        rcunit.follow("rctl", directive, rcconf.read())
    return done


def rules(file: Path) -> list[str]:
    """The rules in a file, the first word of each line; none where there is no such file. Raises OSError."""
    if not file.is_file():
        return []
    lines = [line.split() for line in file.read_text(errors="surrogateescape").splitlines()]
    return [words[0] for words in lines if words and not words[0].startswith("#")]


def _run(*arguments: str) -> int:
    """jailng's own rctl(8), beside jailctl(8)."""
    command = str(Path(sys.argv[0]).resolve().parent / "rctl")
    return subprocess.run([command, *arguments], stdin=subprocess.DEVNULL, check=False).returncode
