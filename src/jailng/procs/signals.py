"""Signals to processes that were found in a listing, whose pids may be others' by the time."""

from __future__ import annotations

import os
import signal

from jailng.linux import ns
from jailng.procs import process
from jailng.procs.jails import membership
from jailng.procs.process import Process


def number(word: str) -> int | None:
    """The signal of ``9``, ``KILL``, ``SIGKILL``, ``RTMIN+3``, in any case; None if that is none."""
    if word.isascii() and word.isdigit():
        return int(word) if len(word) < 4 and int(word) < signal.NSIG else None
    name = word.upper().removeprefix("SIG")
    for base, sign, first in (("RTMIN+", 1, signal.SIGRTMIN), ("RTMAX-", -1, signal.SIGRTMAX)):
        more = name.removeprefix(base)
        if more != name and more.isascii() and more.isdigit() and len(more) < 4:
            wanted = first + sign * int(more)
            return wanted if signal.SIGRTMIN <= wanted <= signal.SIGRTMAX else None
    try:
        return signal.Signals[f"SIG{name}"].value
    except KeyError:
        return None


def name(wanted: int) -> str:
    """A signal's name without ``SIG``; the number of one that has none."""
    try:
        return signal.Signals(wanted).name.removeprefix("SIG")
    except ValueError:
        return str(wanted)


def same(known: Process) -> Process | None:
    """What ``known`` is now; None if it has ended, or is no longer where it was: a pid is given to others again."""
    now = process.read(known.pid)
    if now is None or now.birth != known.birth or membership(now.cgroup) != membership(known.cgroup):
        return None
    return now


def send(known: Process, wanted: int) -> bool:
    """Signal a process, which is this very one; False if it has ended. Raises OSError (EPERM)."""
    try:
        held = ns.pidfd_open(known.pid)
    except ProcessLookupError:
        return False
    try:
        # The one that is held now had the pid before the comparison, so what is compared is the one that is held.
        if same(known) is None:
            return False
        ns.pidfd_send_signal(held, wanted)
    except ProcessLookupError:
        return False
    finally:
        os.close(held)
    return True
