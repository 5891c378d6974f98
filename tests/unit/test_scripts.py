"""The scripts in bin/: what happens before the command that they start has begun."""

from __future__ import annotations

import gc
import shutil
import signal
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from jailng.cli import ipnat, rctl
from jailng.core import interpreter

BIN = Path(__file__).parents[2] / "bin"


_NAMES = ["jail", "jls", "jexec", "jailctl", "rctl", "ipnat"]


@pytest.mark.parametrize("name", [*_NAMES, ""])
def test_words_are_bytes_whatever_the_locale_is(name: str) -> None:
    """Those of the command line: in that of a worker, or of a command inside, or in a record, they are the same."""
    first = (BIN / name).read_text().partition("\n")[0][2:].split() if name else interpreter.command("any")[:2]
    show = [*first, "-c", "import sys; print(sys.flags.utf8_mode)"]
    assert subprocess.run(show, capture_output=True, text=True, env={"LC_ALL": "C.UTF-8"}).stdout == "1\n"


@pytest.mark.parametrize("name", _NAMES)
def test_interrupted_while_it_loads(tmp_path: Path, name: str) -> None:
    """^C ends it as a signal ends a program, without a traceback."""
    (tmp_path / "bin").mkdir()
    shutil.copy(BIN / name, tmp_path / "bin")
    package = tmp_path / "src/jailng"
    (package / "cli").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli/__init__.py").touch()
    shutil.copy(BIN.parent / "src/jailng/start.py", package)
    (package / f"cli/{name}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run([tmp_path / "bin" / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("command", [ipnat, rctl])
def test_what_ignores_interrupts_goes_on_to(command: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the background of a script, where ^C is for others."""
    found: list[object] = []

    def main(_: list[str]) -> int:
        found.append(signal.getsignal(signal.SIGINT))
        return 0

    monkeypatch.setattr(command, "main", main)
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit):
            command.run()
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        gc.enable()
    assert found == [signal.SIG_IGN]
