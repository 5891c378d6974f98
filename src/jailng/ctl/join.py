"""``jailctl join``: a command in a jail, with the root that the jail has or with one that it brings (core/view.py)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from jailng.core import registry, waiting
from jailng.core.attach import Command
from jailng.engine import command, inside
from jailng.errors import JailError, UsageError
from jailng.params.model import Parameters
from jailng.params.values import visible

USAGE = "usage: jailctl join jailname [-c chrootpath] [command [argument ...]]"


@dataclass
class Asked:
    """The command line. No ``argv`` is a shell; ``root`` is "" where the jail's own root is meant."""

    name: str = ""
    root: str = ""
    argv: list[str] = field(default_factory=list)


def parse(argv: list[str]) -> Asked:
    """The words after the verb: -c stands before the jail's name or behind it. Raises UsageError."""
    asked = Asked()
    words = list(argv)
    while words:
        word = words[0]
        if word == "-c" and len(words) > 1 and words[1] and not asked.root:
            asked.root = words[1]
            del words[:2]
        elif word == "--" and asked.name:
            del words[0]
            break
        elif word.startswith("-"):
            raise UsageError(USAGE)
        elif asked.name:
            break
        else:
            asked.name = words.pop(0)
    if not asked.name or words[:1] == [""]:
        raise UsageError(USAGE)
    asked.argv = words
    return asked


def main(argv: list[str]) -> int:
    """Run the command, and end as it ends. Raises UsageError, JailError."""
    asked = parse(argv)
    if os.geteuid() != 0:
        raise JailError("join: jail_attach: Operation not permitted")
    record = registry.find(asked.name)
    if record is None:
        raise JailError(f'join: jail "{visible(asked.name)}" not found')
    caller = command.caller_environment()
    wanted = Command(
        asked.argv or [caller.get("SHELL") or "/bin/sh", "-i"], command.harmless(caller), cwd="/", label="{}"
    )
    root = os.path.abspath(asked.root) if asked.root else ""
    try:
        status = inside.attached(Parameters.from_texts(record.params), record, wanted, hand_over=True, root=root)
    except JailError as error:
        raise JailError(f"join: {error}", error.status) from None
    waiting.finish(status)
