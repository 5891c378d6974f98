"""jls(8) against transcripts."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from jailng.cli import jls
from jailng.params.table import listed
from tests.fidelity.jails import Jails
from tests.fidelity.transcripts import Transcript, read

ALL = [
    pytest.param(transcript, id=f"{path.stem}: {transcript.command}")
    for path in sorted((Path(__file__).parent / "jls").glob("*.txt"))
    for transcript in read(path)
]


def test_there_are_transcripts() -> None:
    assert len(ALL) > 200


@pytest.mark.parametrize("name", listed())
def test_each_parameter_has_one(name: str) -> None:
    """A row of the table with an effect to be seen: ``tests/fidelity/jls/parameters.txt`` says what it looks like."""
    commands = [transcript.command for transcript in read(Path(__file__).parent / "jls/parameters.txt")]
    assert f"jls -n {name}" in commands


@pytest.mark.parametrize("transcript", ALL)
def test_transcript(transcript: Transcript, capfd: pytest.CaptureFixture[str]) -> None:
    program, *arguments = shlex.split(transcript.command)
    assert program == "jls"
    status = jls.run(arguments, Jails(*transcript.jails))
    out, err = capfd.readouterr()
    assert out == transcript.out
    assert err == transcript.err
    assert status == transcript.status
