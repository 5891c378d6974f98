"""docs/honeypot.md, line for line: what it says to do is done, and what it says is seen is seen."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.linux import btf
from tests.kernel.bootstrapped import bootstrap
from tests.kernel.networks import Namespace
from tests.kernel.stage import CLONE_NEWNET, Stage, own_logs, setns
from tests.kernel.terminals import Screen

pytestmark = pytest.mark.skipif(not os.path.exists(btf.VMLINUX), reason="a kernel without BTF")

_BLOCK = re.compile(r"^```(\S+) ?(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPT = "root@www:~# "
_ANYTHING = "..."


def _squeezed(text: str) -> str:
    return re.sub(r"[ \t]+", " ", text)


def _pattern(line: str) -> str:
    return ".*?".join(re.escape(part) for part in re.split(r" ?\.\.\. ?", line))


class Reader:
    """Whoever does what the text says: on the host, and on the attacker's machine."""

    def __init__(self, checkout: Path, stage: Stage, lan: Namespace, top: Path) -> None:
        self._stage = stage
        self._lan = lan
        self._top = top
        (top / "bin").mkdir()
        options = "-F /dev/null -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        options += " -o ConnectionAttempts=60"  # sshd(8) listens when it is in the background
        ssh = top / "bin/ssh"
        ssh.write_text(f'#!/bin/sh\nexec /usr/bin/ssh {options} "$@"\n')
        ssh.chmod(0o755)
        self._path = f"{checkout / 'bin'}:{os.environ['PATH']}"
        self._attacker: Screen | None = None
        self.screens: list[Screen] = []
        self.done: list[str] = []

    def follow(self, kind: str, title: str, text: str) -> None:
        """One block."""
        if kind == "conf":
            Path(title).write_text(self._placed(text))
        elif title == "attacker":
            self._attack(text.splitlines())
        elif title == "watching":
            self._watch(text.splitlines())
        else:
            assert (kind, title) == ("console", "")
            self._type(text)

    def _placed(self, text: str) -> str:
        return text.replace("/jail/pot", f"{self._top}/jail/pot")

    def _type(self, text: str) -> None:
        """Commands on the host, each with what it says."""
        for part in re.split(r"^# ", text, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            self._run(command, expected)
            self.done.append(command)

    def _run(self, command: str, expected: str) -> None:
        words = shlex.split(self._placed(command)) if command.startswith("jailctl bootstrap") else []
        if words:
            done = bootstrap(self._stage, *words[2:])  # which asks the network, and has a copy
            assert done.returncode == 0, done.stderr
            return
        environment = {**os.environ, "PATH": self._path, "LC_ALL": "C.UTF-8"}
        argv = ["/bin/sh", "-c", self._placed(command)]
        pattern = re.compile(self._wanted(expected), re.DOTALL)
        until = time.monotonic() + 120
        while True:  # what was just done is on record in a moment
            done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120)
            said = self._said(done)
            if done.returncode == 0 and pattern.fullmatch(said):
                return
            assert time.monotonic() < until and command.startswith(
                ("jailctl log", "jailctl sessions", "jailctl watch", "jailctl packets", "jailctl replay")
            ), f"{command}: {done.returncode}\n{said}\nnot\n{expected}"

    def _said(self, done: subprocess.CompletedProcess[str]) -> str:
        return _squeezed((done.stdout + done.stderr).replace(f"{self._top}/jail/", "/jail/"))

    @staticmethod
    def _wanted(expected: str) -> str:
        lines = [
            "(.*\n)?" if line == _ANYTHING else rf" ?{_pattern(_squeezed(line).lstrip())}[^\n]*\n"
            for line in expected.splitlines()
        ]
        return "".join(lines)

    def _attack(self, lines: list[str]) -> None:
        if lines[0].startswith("attacker$ "):
            argv = shlex.split(lines.pop(0).removeprefix("attacker$ "))
            self._attacker = Screen(*argv, env={"PATH": f"{self._top}/bin:{os.environ['PATH']}"}, enter=self._elsewhere)
            self.screens.append(self._attacker)
        attacker = self._attacker
        assert attacker is not None
        for line in lines:
            prompt, password, typed = line.partition("password: ")
            if password:
                attacker.until(re.escape(prompt + password))
                attacker.type(typed + "\n")
            elif line.startswith(_PROMPT):
                self._enter(line.removeprefix(_PROMPT))
            else:
                attacker.until(_pattern(line))
        if lines[-1] == f"{_PROMPT}exit":
            assert attacker.end() == 0

    def _elsewhere(self) -> None:
        setns(self._lan.fd, CLONE_NEWNET)

    def _enter(self, typed: str) -> None:
        assert self._attacker is not None
        self._attacker.until(re.escape(_PROMPT))
        self._attacker.type(typed + "\n")

    def _watch(self, lines: list[str]) -> None:
        command = shlex.split(lines.pop(0).removeprefix("# "))
        screen = Screen(*command, env={"PATH": self._path})
        self.screens.append(screen)
        screen.until("[0-9]\r\n")  # since when
        for line in lines:
            if line.startswith(_PROMPT):
                self._enter(line.removeprefix(_PROMPT))
                screen.until(re.escape(line.removeprefix(_PROMPT)))
            else:
                screen.until(_pattern(line))
        screen.type("\x07")
        screen.end()


@pytest.fixture
def place(etc: Path, tmp_path: Path) -> Iterator[Path]:
    """What is / in the text, for the roots; the host's /etc and /var/log are the test's own."""
    tmp_path.chmod(0o700)
    (tmp_path / "jail").mkdir(mode=0o700)
    with own_logs():
        yield tmp_path


def test_every_line_of_it(checkout: Path, stage: Stage, lan: Namespace, place: Path) -> None:
    reader = Reader(checkout, stage, lan, place)
    blocks = _BLOCK.findall((checkout / "docs/honeypot.md").read_text())
    assert len(blocks) > 12
    try:
        for kind, title, text in blocks:
            reader.follow(kind, title, text)
    finally:
        for screen in reader.screens:
            screen.kill()
        subprocess.run([str(checkout / "bin/jail"), "-R", "pot"], capture_output=True, check=False)
    assert len(reader.done) > 20
