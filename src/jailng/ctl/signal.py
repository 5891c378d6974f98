"""``jailctl signal``: a signal to every process of a jail, and of the jails in it. None is missed while they fork."""

from __future__ import annotations

import os
from signal import SIGTERM

from jailng.core import halt, registry
from jailng.errors import JailError, UsageError
from jailng.linux import ns
from jailng.params.values import visible
from jailng.procs import signals

USAGE = "usage: jailctl signal [-signal | -s signal] jailname"


def main(argv: list[str]) -> int:
    """Send it. Raises UsageError, JailError."""
    number, name = parse(argv)
    if ns.is_jailed():
        raise JailError("signal: only the host signals a whole jail: pkill -j does inside")
    if os.geteuid() != 0:
        raise JailError("signal: Operation not permitted")
    record = registry.find(name)
    if record is None or not record.lock_again():
        raise JailError(f'signal: jail "{visible(name)}" not found')
    try:
        if not record.alive():
            raise JailError(f'signal: jail "{visible(name)}" not found')
        halt.signal(record, number)
    finally:
        record.unlock()
    return 0


def parse(argv: list[str]) -> tuple[int, str]:
    """The signal, SIGTERM where none is named, and the jail. Raises UsageError, JailError."""
    words = list(argv)
    number = int(SIGTERM)
    if words and words[0] != "--" and words[0].startswith("-"):
        word = words.pop(0)[1:]
        if word == "s":
            if not words:
                raise UsageError(USAGE)
            word = words.pop(0)
        known = signals.number(word)
        if known is None:
            raise JailError(f"signal: unknown signal {visible(word)}")
        number = known
    if words[:1] == ["--"]:
        del words[0]
    if len(words) != 1 or not words[0]:
        raise UsageError(USAGE)
    return number, words[0]
