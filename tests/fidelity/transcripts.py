r"""Transcripts: text files of commands and, to the byte, what FreeBSD 15 answers.

``$ COMMAND ...`` is a command, in the shell's quotes; what follows it is its output: ``| `` before a line of standard
output, or ``|- `` before one without a newline, ``! `` before one of standard error, ``= N`` an exit status that is
not 0 (negative: died of that signal). ``< `` is before a line of its standard input.
``file NAME`` is a file that is written before the next command, its lines marked with ``> ``; an absolute name is meant
as it stands, any other one in the directory in which the commands run, whose path is ``HERE``.
``NUMBER`` in output stands for any number: jids and pids.
``jail JID NAME parameter=value ...`` is a jail of the registry, for commands that are only told of jails; there ``\n``
in a value is a newline. ``#`` begins a comment.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from tests.fidelity.jails import Jail


@dataclass
class Transcript:
    """One command of a file, what it is to answer, the files that it is to find, and the jails of that file."""

    jails: list[Jail]
    files: dict[str, str]
    command: str
    given: str = ""
    out: str = ""
    err: str = ""
    status: int = 0


@dataclass
class _Reading:
    """What has been read so far."""

    jails: list[Jail] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    name: str = ""
    found: list[Transcript] = field(default_factory=list)


def read(path: Path) -> list[Transcript]:
    """The commands of a file in order."""
    reading = _Reading()
    for line in path.read_text().splitlines():
        mark, _, rest = line.partition(" ")
        assert _take(reading, mark, rest) or not line or mark.startswith("#"), f"{path}: {line}"
    return reading.found


def _take(reading: _Reading, mark: str, rest: str) -> bool:
    found = reading.found
    if mark == "jail":
        reading.jails.append(_jail(rest))
    elif mark == "file":
        reading.name = rest
        reading.files[rest] = ""
    elif mark == ">":
        reading.files[reading.name] += rest + "\n"
    elif mark == "$":
        found.append(Transcript(reading.jails, reading.files, rest))
        reading.files = {}
    elif mark == "<":
        found[-1].given += rest + "\n"
    elif mark in ("|", "|-"):
        found[-1].out += rest + ("\n" if mark == "|" else "")
    elif mark == "!":
        found[-1].err += rest + "\n"
    elif mark == "=":
        found[-1].status = int(rest)
    else:
        return False
    return True


def _jail(text: str) -> Jail:
    jid, name, *words = shlex.split(text)
    record = Jail(int(jid), name)
    for word in words:
        key, _, value = word.partition("=")
        record.params[key] = value.replace("\\n", "\n")
    return record


def numbered(expected: str, found: str) -> str:
    """``found``, with ``NUMBER`` in its lines where ``expected`` has that; what does not fit is left as it is."""
    wanted, lines = expected.splitlines(keepends=True), found.splitlines(keepends=True)
    for at, (want, line) in enumerate(zip(wanted, lines, strict=False)):
        if "NUMBER" in want and re.fullmatch(re.escape(want).replace("NUMBER", "[0-9]+"), line):
            lines[at] = want
    return "".join(lines)


def written(transcript: Transcript, out: str, err: str, status: int) -> str:
    """An answer as a transcript has it, for people to compare."""
    lines = [f"$ {transcript.command}", *_marked("<", transcript.given), *_marked("|", out), *_marked("!", err)]
    return "\n".join([*lines, *([f"= {status}"] if status else [])])


def _marked(mark: str, text: str) -> list[str]:
    lines = []
    for line in text.splitlines(keepends=True):
        bare = line.rstrip("\n")
        first = mark if line.endswith("\n") else f"{mark}-"
        lines.append(f"{first} {bare}" if bare else first)
    return lines
