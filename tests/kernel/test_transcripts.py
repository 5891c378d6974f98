"""jail(8) and jexec(8) against the transcripts of tests/fidelity: they make real jails, so it takes a stage.

The commands of a file are run one after the other, in a directory of their own (``HERE``). ``ROOT`` is the path of a
root with busybox in it, and with root and alice in its passwd. The host has an interface ep0, and no /etc/jail.conf
but what a transcript writes. Commands other than ours are the host's.
"""

from __future__ import annotations

import shlex
import subprocess
from difflib import unified_diff
from pathlib import Path

import pytest

from tests.fidelity.transcripts import Transcript, numbered, read, written
from tests.kernel.conftest import ENVIRONMENT, Command
from tests.kernel.networks import Namespace

FIDELITY = Path(__file__).parents[1] / "fidelity"
FILES = sorted(path.relative_to(FIDELITY) for name in ("jail", "jexec") for path in (FIDELITY / name).glob("*.txt"))
OURS = ("jail", "jls", "jexec")


class Place:
    """Where the commands of a file run."""

    def __init__(self, checkout: Path, root: Path, here: Path) -> None:
        self.checkout = checkout
        self.names = {"ROOT": str(root), "HERE": str(here)}
        self.here = here

    def meant(self, text: str) -> str:
        """A transcript's text with paths for their names."""
        for name, path in self.names.items():
            text = text.replace(name, path)
        return text

    def shown(self, text: str) -> str:
        """Output with names for the paths."""
        for name, path in self.names.items():
            text = text.replace(path, name)
        return text

    def run(self, transcript: Transcript) -> str:
        """Run a command; its answer, as a transcript has it."""
        for name, content in transcript.files.items():
            (self.here / name).parent.mkdir(parents=True, exist_ok=True)
            (self.here / name).write_text(self.meant(content))
        program, *arguments = shlex.split(self.meant(transcript.command))
        argv = [str(self.checkout / "bin" / program) if program in OURS else program, *arguments]
        done = subprocess.run(
            argv,
            input=self.meant(transcript.given),
            capture_output=True,
            text=True,
            timeout=60,
            env={**ENVIRONMENT, "PATH": f"{self.checkout}/bin:{ENVIRONMENT['PATH']}"},
            cwd=self.here,
        )
        out, err = self.shown(done.stdout), self.shown(done.stderr)
        return written(transcript, numbered(transcript.out, out), numbered(transcript.err, err), done.returncode)


@pytest.fixture
def place(public: Path, small_root: Path, tmp_path: Path, etc: Path, lan: Namespace) -> Place:
    """Where there is nothing but a root."""
    (etc / "jail.conf").unlink(missing_ok=True)
    here = tmp_path / "here"
    here.mkdir()
    return Place(public, small_root, here)


def test_there_are_transcripts() -> None:
    assert sum(len(read(path)) for path in FIDELITY.glob("*/*.txt")) > 300


@pytest.mark.parametrize("path", FILES, ids=str)
def test_transcripts(jail: Command, place: Place, path: Path) -> None:
    expected, found = [], []
    try:
        for transcript in read(FIDELITY / path):
            expected.append(written(transcript, transcript.out, transcript.err, transcript.status))
            found.append(place.run(transcript))
    finally:
        jail("-q", "-R", "*")
    wanted, given = ("\n\n".join(answers).splitlines() for answers in (expected, found))
    if wanted != given:
        pytest.fail("\n".join(unified_diff(wanted, given, "expected", "found", lineterm="", n=4)), pytrace=False)
