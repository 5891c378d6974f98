"""The terminal of whoever looks on at another: its keys, and what it is let have of what is shown there."""

from __future__ import annotations

import codecs
import os
import shutil
import subprocess
import termios

from jailng.linux import pty
from jailng.observe import escapes
from jailng.procs import printed


class Screen:
    """The caller's terminal: every key is read at once and nothing echoed while something is watched.

    As it is shown to an operator, who sits on the host, a terminal gets what is known to draw and no more, unless it is
    ``raw``: else a guest would have it answer, as if somebody typed here, or write to his clipboard.
    """

    def __init__(self, interactive: bool, raw: bool = False) -> None:
        self._wanted = interactive and os.isatty(0)
        self._saved: bytes | None = None
        self._sequence: bytes | None = None if interactive else b""
        self._raw = raw
        self._filtered = os.isatty(1) and not raw
        self._begin()

    def _begin(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._allowed: escapes.Filter | None = None  # none, while nothing has been shown

    @property
    def end(self) -> str:
        """What ends a line."""
        return "\r\n" if self._saved is not None and os.isatty(1) else "\n"

    def enter(self) -> None:
        """Make it so."""
        if self._wanted and self._saved is None:
            self._saved = pty.attributes(0)
            pty.set_attributes(0, pty.raw(self._saved))

    def leave(self) -> None:
        """Give it back as it was."""
        if self._allowed is not None:
            printed.write(self._allowed.end().encode())
            self._begin()
        if self._saved is not None:
            if self._raw:  # it may have answered, which is not to be there for whoever reads it next
                termios.tcflush(0, termios.TCIFLUSH)
            pty.set_attributes(0, self._saved)
            self._saved = None

    def show(self, data: bytes) -> None:
        """What the guest's terminal has been given."""
        if not self._filtered:
            printed.write(data)
            return
        if self._allowed is None:
            self._allowed = escapes.Filter()
        printed.write(self._allowed.add(self._decoder.decode(data)).encode())

    def clear(self) -> None:
        """Clear it, as terminfo says for its kind."""
        if self._sequence is None:
            self._sequence = _output(["tput", "clear"]) if os.isatty(1) else b""
        printed.write(self._sequence)


def _output(argv: list[str]) -> bytes:
    if shutil.which(argv[0]) is None:
        return b""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return done.stdout if done.returncode == 0 else b""
