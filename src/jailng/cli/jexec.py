"""jexec(8): run a command in a jail."""

from __future__ import annotations

import posix

from jailng.cli import printing
from jailng.cli.getopt import getopt
from jailng.core import index, registry, waiting
from jailng.core.attach import Command
from jailng.engine import command, inside
from jailng.errors import JailError, UsageError
from jailng.linux.libc import EINVAL, EPERM
from jailng.params.model import Parameters

USAGE = "usage: jexec [-l] [-d working-directory] [-u username | -U username] jail [command ...]"
TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.passwd import User

_LETTERS = "d:e:lnu:U:"


def main(argv: list[str]) -> int:
    """Run, and return the exit status; where the command dies of a signal this process does too."""
    try:
        status = _main(argv)
    except UsageError as error:
        return printing.complain(str(error), error.status, lines=True)
    except JailError as error:
        return printing.complain(f"jexec: {error}", error.status)
    waiting.finish(status)


def _main(argv: list[str]) -> int:
    options, words = getopt(argv, _LETTERS, USAGE)
    given = dict(options)
    added = _variables([argument for letter, argument in options if letter == "e"])
    if not words or ("u" in given and "U" in given):
        raise UsageError(USAGE)
    user = _of_the_host(given["u"]) if "u" in given else given.get("U")
    record = registry.asked(words[0])
    if record is None:
        if not index.is_number(words[0]) and index.jid_in(words[0]) is None:
            raise JailError(f'jail "{printing.visible(words[0])}" not found')
        jid = words[0].lstrip(" \t\n\v\f\r+0") or "0"  # to jail_getid(3) a number is a jid
        raise JailError(f"jail_attach({jid}): {posix.strerror(EPERM if posix.geteuid() else EINVAL)}")
    if posix.geteuid() != 0:
        raise JailError(f"jail_attach({record.jid}): {posix.strerror(EPERM)}")
    params = Parameters.from_texts(record.params)
    login = "l" in given
    caller = command.caller_environment()
    environment = command.clean(caller) if login else command.harmless(caller)
    argv = words[1:]
    # Else the shell is the user's, whom only the jail may know.
    if not argv and ("SHELL" in added or (user is None and not login)):
        argv = [added.get("SHELL") or caller.get("SHELL") or "/bin/sh", "-i"]
    # FreeBSD 15: -l goes to the home directory only where a user is given and -d is not.
    at_home = login and user is not None and "d" not in given
    wanted = Command(argv, environment, user, given.get("d"), at_home, added=added)
    return inside.attached(params, record, wanted, hand_over=True)


def _variables(assignments: list[str]) -> dict[str, str]:
    """What -e asks for. Raises JailError in jexec.c's words."""
    added = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise JailError(f"{assignment}: Invalid environment variable.")
        if not name:
            raise JailError("putenv: Invalid argument")
        added[name] = value
    return added


def _of_the_host(name: str) -> User:
    from jailng.core.passwd import of_the_host_inside

    return of_the_host_inside(name)
