"""``jailctl console``: a login session in a jail, on a terminal of its own if this is one: what jexec(8) gives.

Where the jail has login(1), that makes the session, as its own sessions are made: /etc/motd, PAM, utmp. Else it is the
user's shell, as a login shell. Nothing of the jail's is executed to find that out.
"""

from __future__ import annotations

import os
import sys

from jailng.core import attach
from jailng.core.registry import Record
from jailng.ctl import listing
from jailng.errors import JailError, UsageError
from jailng.linux.mount import BENEATH, O_PATH
from jailng.linux.mountfd import openat2
from jailng.procs.jails import named

USAGE = "usage: jailctl console jail [user]"
_LOGIN = ("usr/bin/login", "bin/login")
_ROOT = "root"


def main(argv: list[str]) -> int:
    """Become the session. Raises UsageError, JailError, OSError."""
    given, words = listing.options(argv, USAGE)
    if given or not 1 <= len(words) <= 2 or "" in words:
        raise UsageError(USAGE)
    if os.geteuid() != 0:
        raise JailError("console: Operation not permitted")
    record = named(words[0], lambda jid: f"jail {jid} not found")
    user = words[1] if len(words) == 2 else ""
    jexec = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "jexec")
    os.execv(jexec, ["jexec", *_command(record, user)])


def _command(record: Record, user: str) -> list[str]:
    """What jexec(8) is to be called with."""
    jid = str(record.jid)
    if all(os.isatty(fd) for fd in (0, 1, 2)):
        login = _login(record)
        if login and not user.startswith("-"):
            return ["-l", jid, login, "-f", user or _ROOT]
    return ["-l", *(["-U", user] if user else []), jid]


def _login(record: Record) -> str:
    """Where the jail has login(1) and users for it; "" where it has not."""
    if record.remote:
        return ""  # of a jail in this one only its broker could tell
    try:
        tree = attach.open_tree_of(record)
    except OSError:
        raise JailError(f'jail "{record.name}" not found') from None
    try:
        return next((f"/{path}" for path in _LOGIN if _has(tree, path)), "") if _has(tree, "etc/passwd") else ""
    finally:
        os.close(tree)


def _has(tree: int, path: str) -> bool:
    try:
        os.close(openat2(tree, path.encode(), O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, BENEATH))
    except OSError:
        return False
    return True
