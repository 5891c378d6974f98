"""service(8) with FreeBSD's -j, the jail's own service, run as its root; and -e, which scripts run at boot."""

from __future__ import annotations

import getopt
import os
import sys
from pathlib import Path

from jailng.ctl import rcconf
from jailng.errors import JailError, UsageError
from jailng.params.values import visible
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
_LISTED = """cd /etc/init.d 2>/dev/null || exit 0
[ -z "$1" ] || echo "From /etc/init.d:"
for script in *; do [ -f "$script" ] && [ -x "$script" ] && echo "$script"; done
:"""
_PATH = "/usr/sbin/service"  # where it is in a jail, on FreeBSD as on Debian


def shim(argv: list[str]) -> int:
    """Become ``jexec -l JAIL service ...``, or answer -e, -l and -r.

    Raises UsageError for what the host's own is to answer, JailError for what cannot be.
    """
    try:
        asked, words = getopt.getopt(argv, "j:ehlrRv")
    except getopt.GetoptError:
        raise UsageError(USAGE) from None
    jail = dict(asked).get("-j", "")
    given = {option for option, _ in asked}
    lists = given & {"-e", "-l", "-r", "-R"}
    if lists and not jail and not words and given <= {*lists, "-v"}:
        return _list(max(lists, key="-e -r -l -R".split().index), "-v" in given)
    if not jail:
        raise UsageError(USAGE)
    if "-h" in given:
        return printed.say(USAGE.splitlines())
    jexec = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "jexec")
    if "-l" in given and not words:
        os.execv(jexec, ["jexec", "-l", "--", jail, "/bin/sh", "-c", _LISTED, "service", "-v" if "-v" in given else ""])
    letters = [option for option in ("-e", "-l", "-r", "-R", "-v") if option in given]
    os.execv(jexec, ["jexec", "-l", "--", jail, _PATH, *letters, *words])


def _list(letter: str, verbose: bool) -> int:
    if letter == "-R":
        raise JailError("-R: not honoured: Debian keeps the administrator's own services among all others")
    if letter == "-e":
        return printed.say(_enabled())
    scripts = sorted(path for path in (_ETC / "init.d").glob("*") if path.is_file() and os.access(path, os.X_OK))
    if letter == "-l":
        front = [f"From {_ETC / 'init.d'}:"] if verbose else []
        return printed.say(front + [visible(path.name) for path in scripts])
    ordered = _linked()  # and behind them what is not enabled, which no link says the place of
    return printed.say([visible(str(path)) for path in [*ordered, *[path for path in scripts if path not in ordered]]])


def _linked() -> list[Path]:
    links = [link for level in ("rcS.d", "rc2.d") for link in sorted((_ETC / level).glob("S*"))]
    return list(dict.fromkeys(_ETC / "init.d" / link.resolve().name for link in links))


def _enabled() -> list[str]:
    """The scripts that the host's init starts, in its order; of jail(8)'s that is not all: rc.jail(8).

    systemd keeps these links too, for every service that has a script.
    """
    return [str(script) for script in _linked() if script.name != "jail" or rcconf.read().yes("jail_enable")]
