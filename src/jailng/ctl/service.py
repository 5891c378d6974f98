"""service(8) with FreeBSD's -j: the jail's own service, run as its root."""

from __future__ import annotations

import getopt
import os
import sys

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
_PATH = "/usr/sbin/service"  # where it is in a jail, on FreeBSD as on Debian


def shim(argv: list[str]) -> int:
    """Become ``jexec -l JAIL service ...``. Raises UsageError for what the host's own is to answer: no -j."""
    try:
        asked, words = getopt.getopt(argv, "j:ehlrRv")
    except getopt.GetoptError:
        raise UsageError(USAGE) from None
    jail = dict(asked).get("-j", "")
    if not jail:
        raise UsageError(USAGE)
    given = {option for option, _ in asked}
    if "-h" in given:
        return printed.say(USAGE.splitlines())
    jexec = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "jexec")
    letters = [option for option in ("-e", "-l", "-r", "-R", "-v") if option in given]
    os.execv(jexec, ["jexec", "-l", "--", jail, _PATH, *letters, *words])
