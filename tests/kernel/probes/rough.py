"""Attempts that are not made on a host at work: ``python3 -m probes.rough``.

Prints one JSON object: name to (verdict, what came of it).
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

from jailng.audit.probe import ESCAPED, HELD, Verdict, call, tried


def kill_init() -> Verdict:
    """If it could be killed, the jail would end; the host looks whether it did."""
    os.kill(1, signal.SIGKILL)
    os.kill(1, signal.SIGSTOP)
    with open("/proc/1/stat") as file:
        state = file.read().rpartition(")")[2].split()[0]
    return (HELD, "it goes on") if state in "SR" else (ESCAPED, f"its state is {state}")


def renice_user() -> Verdict:
    """Every process of the user's."""
    return tried(lambda: os.setpriority(os.PRIO_USER, 0, -20))


def thaw() -> Verdict:
    """FITHAW, which thaws a file system that somebody else has frozen."""
    fd = os.open("/", os.O_RDONLY)
    return tried(lambda: call("ioctl", fd, 0xC0045878, 0))


def take_console() -> Verdict:
    """TIOCCONS, with a terminal that would get what is written to the console."""
    _, slave = os.openpty()
    return tried(lambda: call("ioctl", slave, 0x541D, None))


def move_dev() -> Verdict:
    """A mount point to another name."""
    return tried(lambda: os.rename("/dev", "/dev.moved"))


ATTEMPTS: dict[str, Callable[[], Verdict]] = {
    "kill PID 1": kill_init,
    "nice -20 of the user": renice_user,
    "FITHAW": thaw,
    "TIOCCONS": take_console,
    "move /dev": move_dev,
}

if __name__ == "__main__":
    print(json.dumps({name: attempt() for name, attempt in ATTEMPTS.items()}))
