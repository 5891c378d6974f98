"""How far a root has come, told from what mmdebstrap says: one line that moves on a terminal, else a line a step."""

from __future__ import annotations

import os
import re
import sys
from typing import TextIO

# What begins a step, as mmdebstrap(1) says it; what the step is called; at what percent it begins and ends.
_STEPS = (
    (r"I: running apt-get update", "lists of packages", 0, 5),
    (r"I: downloading packages", "downloading the essential ones", 5, 20),
    (r"I: extracting archives", "extracting", 20, 25),
    (r"I: installing essential", "installing the essential ones", 25, 55),
    (r"I: installing remaining", "installing the others", 55, 95),
)
# The steps for which the packages have been counted when they were downloaded.
_COUNTED = ("extracting", "installing the essential ones")
_KEEPING = ("keeping a copy", 95, 98)
_UNPACKING = ("unpacking the kept copy", 0, 95)
_WRITING = ("writing its /etc", 98, 100)
_LONGEST = 78  # characters of the line that moves
_COUNT = re.compile(r"\d+ upgraded, (\d+) newly installed")
_PACKAGE = re.compile(r"(?P<verb>Get:\d+ .*?(?=\.deb|$)|Unpacking|Setting up) ?(?P<name>[a-z0-9][a-z0-9+.-]*)?")


class Progress:
    """Where it is; ``hear`` is given each line that mmdebstrap writes."""

    def __init__(self, to: TextIO | None = None) -> None:
        self.to = to or sys.stderr
        self.moves = self.to.isatty()
        self.step = ""
        self.begin, self.end = 0, 0
        self.total, self.events, self.named = 0, 0, ""
        self.last = ""

    def hear(self, line: str) -> None:
        """Take notice of a line of mmdebstrap's, without its end."""
        for pattern, step, begin, end in _STEPS:
            if re.match(pattern, line):
                self.enter(step, begin, end)
                return
        count = _COUNT.match(line)
        if count:
            self.total, self.events = int(count[1]), 0
            return
        package = _PACKAGE.match(line)
        if package and self.total:
            if not line.startswith("Get:"):
                self.named = package["name"] or ""
            self.events += 1
            self._show()

    def enter(self, step: str, begin: int, end: int) -> None:
        """A step begins."""
        self.step, self.begin, self.end = step, begin, end
        self.events, self.named = 0, ""
        if step not in _COUNTED:
            self.total = 0
        self._show()

    def waiting(self) -> None:
        """Another one makes the same."""
        self.enter("waiting for another jailctl", 0, 0)

    def keeping(self) -> None:
        """The root is there, and is put into the cache."""
        self.enter(*_KEEPING)

    def unpacking(self) -> None:
        """The root comes out of the cache."""
        self.enter(*_UNPACKING)

    def writing(self) -> None:
        """What is left are the files of jailng's own."""
        self.enter(*_WRITING)

    @property
    def percent(self) -> int:
        """How much of the whole is done. A package is unpacked and set up, and before that perhaps fetched."""
        return self.begin + (self.end - self.begin) * self._done(100) // 100

    def _done(self, whole: int) -> int:
        """How much of the step is done, of ``whole``."""
        events = self.total * (1 if self.step.startswith("downloading") else 2)
        return whole * min(self.events, events) // events if events else 0

    def close(self, text: str) -> None:
        """The last line, which stays."""
        if self.moves:
            self.to.write("\r\x1b[K")
        self._write(text + "\n" if text else "")

    def _show(self) -> None:
        if self.moves:
            packages = f", {self._done(self.total)} of {self.total}" if self.events else ""
            named = f": {self.named}" if self.named else ""
            line = f"{self.percent:3d}%  {self.step}{packages}{named}"[: self._room()]
            if line != self.last:
                self._write(f"\r\x1b[K{line}")
        else:
            line = self.step
            if line != self.last:
                self._write(f"jailctl: bootstrap: {self.percent:3d}% {self.step}\n")
        self.last = line

    def _room(self) -> int:
        """What fits on the terminal's line: of a longer one only the end would be written over by the next."""
        try:
            columns = os.get_terminal_size(self.to.fileno()).columns
        except OSError:
            columns = 0
        return min(columns - 1, _LONGEST) if columns > 1 else _LONGEST

    def _write(self, text: str) -> None:
        try:
            self.to.write(text)
            self.to.flush()
        except OSError:
            pass  # nobody looks
