"""service(8) with FreeBSD's -j, the jail's own service, run as its root; and -e, which scripts run at boot."""

from __future__ import annotations

import getopt
import os
import sys
from pathlib import Path

from jailng.ctl import rcconf
from jailng.errors import UsageError
from jailng.procs import printed

USAGE = """
Usage:
service [-j <jail name or id>] -e
service [-j <jail name or id>] -R
service [-j <jail name or id>] [-v] -l | -r
service [-j <jail name or id>] [-v] <rc.d script> start|stop|etc.
service -h
"""
_ETC = Path("/etc")
_PATH = "/usr/sbin/service"  # where it is in a jail, on FreeBSD as on Debian


def shim(argv: list[str]) -> int:
    """Become ``jexec -l JAIL service ...``, or answer -e. Raises UsageError for what the host's own is to answer."""
    try:
        asked, words = getopt.getopt(argv, "j:ehlrRv")
    except getopt.GetoptError:
        raise UsageError(USAGE) from None
    jail = dict(asked).get("-j", "")
    given = {option for option, _ in asked}
    if given == {"-e"} and not words:
        return printed.say(_enabled())
    if not jail:
        raise UsageError(USAGE)
    if "-h" in given:
        return printed.say(USAGE.splitlines())
    jexec = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "jexec")
    letters = [option for option in ("-e", "-l", "-r", "-R", "-v") if option in given]
    os.execv(jexec, ["jexec", "-l", "--", jail, _PATH, *letters, *words])


def _enabled() -> list[str]:
    """The scripts that the host's init starts, in its order; of jail(8)'s that is not all: rc.jail(8).

    systemd keeps these links too, for every service that has a script.
    """
    links = [link for level in ("rcS.d", "rc2.d") for link in sorted((_ETC / level).glob("S*"))]
    scripts = [_ETC / "init.d" / link.resolve().name for link in links]
    return [str(script) for script in scripts if script.name != "jail" or rcconf.read().yes("jail_enable")]
