"""jail(8) and jexec(8) against the transcripts of tests/fidelity: they make real jails, so it takes a stage.

The commands of a file are run one after the other. ``ROOT`` is the path of a root with busybox in it, and with root and
alice in its passwd.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.fidelity.transcripts import read, written
from tests.kernel.conftest import Command

FIDELITY = Path(__file__).parents[1] / "fidelity"
FILES = sorted(path.relative_to(FIDELITY) for name in ("jail", "jexec") for path in (FIDELITY / name).glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_transcripts(jail: Command, jls: Command, jexec: Command, small_root: Path, path: Path) -> None:
    commands = {"jail": jail, "jls": jls, "jexec": jexec}
    expected, found = [], []
    try:
        for transcript in read(FIDELITY / path):
            program, *arguments = shlex.split(transcript.command.replace("ROOT", str(small_root)))
            done = commands[program](*arguments)
            out, err = (text.replace(str(small_root), "ROOT") for text in (done.stdout, done.stderr))
            expected.append(written(transcript.command, transcript.out, transcript.err, transcript.status))
            found.append(written(transcript.command, out, err, done.returncode))
    finally:
        jail("-q", "-R", "*")
    assert "\n\n".join(found) == "\n\n".join(expected)
