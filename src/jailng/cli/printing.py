"""What the commands print: one write a message, and nothing that could steer the terminal."""

from __future__ import annotations

import posix

from jailng.errors import JailError
from jailng.params.values import visible

__all__ = ["answer", "complain", "say", "visible"]


def answer(text: str) -> None:
    """What was asked for, on standard output. Raises JailError: there is no room for it. Nobody has to read it."""
    try:
        _write(1, text)
    except BrokenPipeError:
        pass
    except OSError as error:
        raise JailError(f"standard output: {error.strerror}") from None


def say(text: str) -> None:
    """A line on standard output, of what has been done, whether anybody listens or not."""
    _try_to_write(1, text)


def complain(text: str, status: int = 1, lines: bool = False) -> int:
    """One line on standard error, or with ``lines`` several; returns the exit status to end with."""
    _try_to_write(2, visible(text, keep="\n\t" if lines else "\t"))
    return status


def _try_to_write(fd: int, text: str) -> None:
    try:
        _write(fd, text)
    except OSError:
        pass  # nobody listens


def _write(fd: int, text: str) -> None:
    rest = (text + "\n").encode("utf-8", "surrogateescape")
    while rest:
        rest = rest[posix.write(fd, rest) :]
