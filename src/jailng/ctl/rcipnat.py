"""rc.d/ipnat: rules of ipnat(5) loaded with the machine, as `service ipnat DIRECTIVE` asks for it.

Behind it are /etc/init.d/ipnat and a unit of systemd. Its words are FreeBSD's, of libexec/rc/rc.d/ipnat and rc.subr.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from jailng.ctl import rcconf, rcsubr, rcunit
from jailng.ctl.rcconf import Settings
from jailng.errors import JailError

_SCRIPT = "/etc/init.d/ipnat"
_ACTIONS = ("start", "stop", "restart", "reload", "status")
DIRECTIVES = ("start", "stop", "restart", *rcsubr.COMMON, "reload", "status")
# What ipnat_enable=NO forbids.
_GATED = ("start", "stop", "restart", "reload", "extracommands")
USAGE = rcsubr.usage(_SCRIPT, DIRECTIVES)


def main(argv: list[str]) -> int:
    """Carry out a directive; its exit status. Raises UsageError, JailError, OSError."""
    prefix, directive = rcsubr.parted(argv[0] if argv else "", _SCRIPT, DIRECTIVES)
    settings = rcconf.read()
    if directive in _GATED and rcsubr.forbidden("ipnat", prefix, directive, settings):
        return 0
    if directive not in _ACTIONS:
        return rcsubr.common("ipnat", "user interface to the NAT subsystem", "reload status", directive, settings)
    if directive == "status":
        return _status()
    done = _act("stop", settings) if directive == "restart" else 0
    done = done or _act("start" if directive == "restart" else directive, settings)
    if done == 0:
        rcunit.follow("ipnat", directive, rcconf.read())
    return done


def _act(directive: str, settings: Settings) -> int:
    """ipnat(8), as rc.d/ipnat calls it."""
    if directive == "stop":
        return _run("-F", "-C")
    rules = settings.text("ipnat_rules")
    if not os.access(rules, os.R_OK):
        raise JailError(f"{rules} is not readable.")
    if directive == "reload":
        return _run("-F", "-C", "-f", rules)
    rcsubr.tell("Installing NAT rules.\n")
    return _run("-CF", "-f", rules, *settings.words("ipnat_flags"))


def _status() -> int:
    """What ``ipnat -l`` prints; 3 if there are no rules."""
    done = subprocess.run([_command(), "-l"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    rcsubr.tell(done.stdout)
    if done.returncode:
        return done.returncode
    return 0 if done.stdout.splitlines()[1:2] not in ([], [""]) else rcsubr.NOT_RUNNING


def _run(*arguments: str) -> int:
    return subprocess.run([_command(), *arguments], stdin=subprocess.DEVNULL, check=False).returncode


def _command() -> str:
    """jailng's own, beside jailctl(8)."""
    return str(Path(sys.argv[0]).resolve().parent / "ipnat")
