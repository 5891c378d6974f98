r"""jls(8) against transcripts: the jails there are, a command, and to the byte what FreeBSD 15 answers.

A transcript is a text file. ``jail JID NAME parameter=value ...`` is a jail of the registry, ``$ jls ...`` a command,
both in the shell's quotes; what follows a command is its output: ``| `` before a line of standard output, ``! `` before
one of standard error, ``= N`` an exit status that is not 0. In values ``\n`` is a newline. ``#`` begins a comment.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from jailng.cli import jls
from tests.fidelity.jails import Jail, Jails


class Transcript:
    """One command of a file."""

    def __init__(self, jails: list[Jail], command: str) -> None:
        self.jails = jails
        self.command = command
        self.out = ""
        self.err = ""
        self.status = 0


def read(path: Path) -> list[Transcript]:
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
        elif mark == "!":
            found[-1].err += rest + "\n"
        elif mark == "=":
            found[-1].status = int(rest)
        else:
            assert not line or mark.startswith("#"), f"{path}: {line}"
    return found


ALL = [
    pytest.param(transcript, id=f"{path.stem}: {transcript.command}")
    for path in sorted((Path(__file__).parent / "jls").glob("*.txt"))
    for transcript in read(path)
]


def test_there_are_transcripts() -> None:
    assert len(ALL) > 70


@pytest.mark.parametrize("transcript", ALL)
def test_transcript(transcript: Transcript, capfd: pytest.CaptureFixture[str]) -> None:
    program, *arguments = shlex.split(transcript.command)
    assert program == "jls"
    status = jls.run(arguments, Jails(*transcript.jails))
    out, err = capfd.readouterr()
    assert out == transcript.out
    assert err == transcript.err
    assert status == transcript.status
