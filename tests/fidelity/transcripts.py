r"""Transcripts: text files of commands and, to the byte, what FreeBSD 15 answers.

``$ COMMAND ...`` is a command, in the shell's quotes; what follows it is its output: ``| `` before a line of standard
output, or ``|- `` before one without a newline, ``! `` before one of standard error, ``= N`` an exit status that is
not 0 (negative: died of that signal).
``jail JID NAME parameter=value ...`` is a jail of the registry, for commands that are only told of jails; there ``\n``
in a value is a newline. ``#`` begins a comment.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.fidelity.jails import Jail


@dataclass
class Transcript:
    """One command of a file, what it is to answer, and the jails of that file."""

    jails: list[Jail]
    command: str
    out: str = ""
    err: str = ""
    status: int = 0


def read(path: Path) -> list[Transcript]:
    """The commands of a file in order."""
    jails: list[Jail] = []
    found: list[Transcript] = []
    for line in path.read_text().splitlines():
        mark, _, rest = line.partition(" ")
        if mark == "jail":
            jid, name, *words = shlex.split(rest)
            record = Jail(int(jid), name)
            for word in words:
                key, _, text = word.partition("=")
                record.params[key] = text.replace("\\n", "\n")
            jails.append(record)
        elif mark == "$":
            found.append(Transcript(jails, rest))
        elif mark == "|":
            found[-1].out += rest + "\n"
        elif mark == "|-":
            found[-1].out += rest
        elif mark == "!":
            found[-1].err += rest + "\n"
        elif mark == "=":
            found[-1].status = int(rest)
        else:
            assert not line or mark.startswith("#"), f"{path}: {line}"
    return found


def written(command: str, out: str, err: str, status: int) -> str:
    """An answer as a transcript has it, for people to compare."""
    lines = [f"$ {command}", *(f"| {line}" for line in out.splitlines()), *(f"! {line}" for line in err.splitlines())]
    return "\n".join([*lines, *([f"= {status}"] if status else [])])
