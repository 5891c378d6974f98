"""jailctl(8): what FreeBSD leaves to managers of jails, a verb for each thing."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys

from jailng.cli import printing
from jailng.errors import JailError, UsageError

# verb: what it is for. Each is a module of jailng.ctl.
VERBS = {
    "audit": "try, as root inside a jail or another's container, to get out, and say what held",
    "bootstrap": "make a Debian root, ready to be a jail",
    "console": "log in to a jail",
    "cp": "copy files into or out of a running jail",
    "create": "a jail in which nothing runs, without a root",
    "destroy": "end a jail and all that runs in it",
    "doctor": "whether the host gives jails what they need, and what to do where it does not",
    "drops": "packets of jails that the host has dropped: forged, or for the host itself",
    "egress": "what may leave jails, with what the rules have counted",
    "export": "write the tree of a jail as a tar archive",
    "import": "make a root of a tar archive",
    "info": "all of one jail: state, parameters, members, limits and use, who watches it",
    "join": "run a command in a jail, with a root of its own if one is named",
    "list": "jails: those that run, those of /etc/jail.conf that do not, and what is left of others",
    "log": "what is logged of jails outside them, whether it is whole, and the key to tell by",
    "logs": "what the consoles of jails have said",
    "packets": "packets of a jail: as they come, or as ng.watch has kept them",
    "ps": "processes, with the jail that each is in",
    "rc": "start and stop the jails of /etc/jail.conf: what `service jail` and the machine's start run",
    "rcipnat": "load the rules of /etc/ipnat.rules: what `service ipnat` and the machine's start run",
    "rcrctl": "load the rules of /etc/rctl.conf: what `service rctl` and the machine's start run",
    "rdr": "connections that are led to jails: list, add, del, clear",
    "replay": "a recorded session of a jail, as it was seen",
    "restart": "stop jails of /etc/jail.conf, and start them",
    "sessions": "recorded sessions of jails' terminals: a list, and what was typed or shown in them",
    "shim": "a program as FreeBSD has it: what the scripts in lib/jailng/shims run",
    "signal": "send a signal to every process of a jail",
    "sockstat": "sockets, with who has them and in which jail",
    "start": "start jails of /etc/jail.conf",
    "stop": "stop jails",
    "sysctl": "FreeBSD's sysctls that are about jails",
    "top": "what jails use, or the processes of one, live",
    "watch": "look on at a terminal of a jail, unseen",
}
_MODULES = {"import": "importing", "export": "exporting", "list": "jails"}  # else it is the verb's name
# Who stops reading ends the others, as FreeBSD's; these would leave half of something.
_WHOLE = ("bootstrap", "cp", "export", "import", "restart", "start", "stop")
# What is kept of jails is root's, and so are their packets and terminals: to others there would seem to be nothing.
_OF_ROOT = ("drops", "log", "packets", "replay", "sessions", "watch")
# The mail's; ``jailctl help`` has all.
FIRST = """\
usage: jailctl create [jailname]
       jailctl destroy [jailname]
       jailctl join [jailname] [-c chrootpath] [path] [cmd] [args...]"""
USAGE = "usage: jailctl verb [argument ...]\n" + "\n".join(
    [f"       jailctl {verb:<12} {what}" for verb, what in VERBS.items()]
)


def main(argv: list[str]) -> int:
    """Run a verb, and return the exit status: 0, 1, or what the verb says."""
    if argv[:1] == ["help"] and len(argv) == 2:
        argv = [argv[1], "--help"]
    if argv[:1] in (["-h"], ["--help"], ["help"]):
        printing.say(USAGE)
        return 0
    if not argv:
        return printing.complain(FIRST, lines=True)
    if argv[0] not in VERBS:
        return printing.complain(f"jailctl: {argv[0]}: no such verb: jailctl help has them all")
    verb = importlib.import_module(f"jailng.ctl.{_MODULES.get(argv[0], argv[0])}")
    if argv[1:2] == ["--help"] or argv[1:] == ["-h"]:  # with more behind it -h is the verb's own: sysctl
        printing.say(verb.USAGE)
        return 0
    if argv[0] in _OF_ROOT and os.geteuid() != 0:
        status = 2 if argv[:2] == ["log", "verify"] else 1  # where 1 says that the log is not whole
        return printing.complain(f"jailctl: {argv[0]}: {os.strerror(errno.EPERM)}", status)
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # the script's doing
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return int(verb.main(argv[1:]))
    except UsageError as error:
        return printing.complain(str(error), error.status, lines=True)
    except JailError as error:
        return printing.complain(f"jailctl: {error}", error.status)
    except OSError as error:
        return printing.complain(f"jailctl: {error.filename or argv[0]}: {error.strerror}")
    except KeyboardInterrupt:
        return 130


def run() -> None:
    """The command: what the script calls."""
    if sys.argv[1:2] not in [[verb] for verb in _WHOLE]:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by the caller, it would hide how a child has ended
    try:
        _occupy()
    except OSError as error:  # there is no /dev/null
        os.write(2, f"jailctl: {os.devnull}: {error.strerror}\n".encode())
        os._exit(1)
    status = main(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as error:
        status = status or printing.complain(f"jailctl: standard output: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python tries again at its end
    sys.exit(status)


def _occupy() -> None:
    """Have something where the caller has closed 0, 1 or 2, else what is opened next would be read and written there.

    To write to it is an error, as it would be without.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_RDONLY)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            os.set_inheritable(fd, True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
