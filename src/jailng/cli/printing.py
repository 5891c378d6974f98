"""What the commands print: one write a message, and nothing that could steer the terminal."""

from __future__ import annotations

import posix

from jailng.params.values import visible

__all__ = ["complain", "say", "visible"]


def say(text: str) -> None:
    """A line on standard output."""
    _write(1, text)


def complain(text: str, status: int = 1, lines: bool = False) -> int:
    """One line on standard error, or with ``lines`` several; returns the exit status to end with."""
    _write(2, visible(text, keep="\n\t" if lines else "\t"))
    return status


def _write(fd: int, text: str) -> None:
    rest = (text + "\n").encode("utf-8", "surrogateescape")
    try:
        while rest:
            rest = rest[posix.write(fd, rest) :]
    except OSError:
        pass  # nobody listens
