"""jailctl replay: a recorded session, as it was seen."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from collections.abc import Iterable, Iterator
from types import FrameType

from jailng.ctl import listing
from jailng.errors import JailError, UsageError
from jailng.linux import pty
from jailng.observe import cast, catalogue, escapes
from jailng.observe.catalogue import Session
from jailng.observe.player import Player, Wall
from jailng.params.values import visible
from jailng.procs import printed

USAGE = "usage: jailctl replay [-i seconds] [-s speed] [--raw | --text] [--typed] id"
_SPEEDS = (0.001, 1e6)
_NOTES = 20
_OUTPUT, _LOCAL = 1, 3  # of what tcgetattr returns
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
_PIECE = 1 << 16  # characters among which an escape sequence ends


def main(argv: list[str]) -> int:
    """Run; the exit status. Raises UsageError, JailError and OSError."""
    given, words = listing.options(argv, USAGE, "i:s:", ["raw", "text", "typed"])
    if len(words) != 1 or "--json" in given or ("--raw" in given and "--text" in given):
        raise UsageError(USAGE)
    speed = _number(given, "-s", *_SPEEDS)
    idle = _number(given, "-i", 0.0, 1e9)
    session = catalogue.find(words[0])
    code = cast.INPUT if "--typed" in given else cast.OUTPUT
    if "--text" in given:
        return _text(session, code)
    if speed is None and idle is None and not os.isatty(1):
        return dump(session, code)
    return _play(session, code, speed or 1.0, idle, "--raw" in given or not os.isatty(1))


def _number(given: dict[str, str], option: str, least: float, most: float) -> float | None:
    if option not in given:
        return None
    try:
        number = float(given[option])
    except ValueError:
        number = -1.0
    if not least <= number <= most:
        raise JailError(f"replay: {option}: not a number from {least:g} to {most:g}: {visible(given[option])}")
    return number


def dump(session: Session, code: str) -> int:
    """All bytes of a stream, as they were, to standard output; the exit status. Raises OSError."""
    with session.open() as file:
        for _, data in cast.pieces(cast.entries(file), code):
            printed.write(data)
    return 0


def _text(session: Session, code: str) -> int:
    """What was shown or typed as plain text, and where something is missing; the exit status."""
    held, at_margin = "", True
    with session.open() as file:
        for event in cast.entries(file):
            shown = ""
            if event.code == code:
                held += cast.printable(event.data)
                end = escapes.begun(held) if len(held) < _PIECE else len(held)
                shown, held = _plain(held[:end], code), held[end:]
            elif event.code == cast.MARKER:
                shown = f"{'' if at_margin else chr(10)}[{event.time:.3f} s: {event.data}]\n"
            if shown:
                at_margin = shown.endswith("\n")
                printed.write(visible(shown, "\n\t").encode("utf-8", "replace"))
    if not at_margin:
        printed.write(b"\n")
    return 0


def _plain(text: str, code: str) -> str:
    return escapes.plain(text.replace("\r", "\n") if code == cast.INPUT else text)


def _play(session: Session, code: str, speed: float, idle: float | None, raw: bool) -> int:
    notes: list[str] = []
    allowed = escapes.Filter()
    with session.open() as file, _Terminal() as terminal:
        found = _noted(cast.entries(file), notes)
        pieces = cast.pieces(found, code) if raw else _allowed(found, code, allowed)
        try:
            ended = Player(Wall(terminal.keys), speed, idle).play(pieces, printed.write)
        finally:
            if not raw:
                printed.write(allowed.end().encode())
    if not os.isatty(1):
        return 0
    size = os.get_terminal_size(1)
    if 0 < size.columns < session.width or 0 < size.lines < session.height:
        notes.insert(0, f"recorded at {session.width}x{session.height}; this terminal is {size.columns}x{size.lines}")
    told = notes[:_NOTES] if ended else []
    print("", *[f"jailctl: replay: {visible(note)}" for note in told], sep="\n", file=sys.stderr)
    return 0


def _allowed(found: Iterable[cast.Entry], code: str, allowed: escapes.Filter) -> Iterator[tuple[float, bytes]]:
    for event in found:
        if event.code == code:
            yield event.time, allowed.add(cast.printable(event.data)).encode()


def _noted(found: Iterable[cast.Entry], notes: list[str]) -> Iterator[cast.Entry]:
    for event in found:
        if event.code == cast.MARKER and len(notes) < _NOTES:
            notes.append(f"{event.time:.3f} s: {event.data}")
        yield event


class _Terminal:
    """Standard input as keys, one by one, and standard output as it is, while something is played.

    Afterwards both are as they were. What a terminal has answered to what was played is not left for whoever reads it
    next.
    """

    def __init__(self) -> None:
        # In the background it may not change modes, and has no keys.
        ours = [fd for fd in (0, 1) if os.isatty(fd) and pty.in_foreground(fd)]
        self.keys = 0 if 0 in ours else -1
        self._modes = [(fd, termios.tcgetattr(fd)) for fd in ours]

    def __enter__(self) -> _Terminal:
        if self._modes:
            for number in _SIGNALS:
                signal.signal(number, self._signal)
            try:
                self._change()
            except BaseException:  # a signal has come before this was over
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        for number in _SIGNALS if self._modes else ():
            signal.signal(number, signal.SIG_DFL)

    def _change(self) -> None:
        for fd, _ in self._modes:
            modes = termios.tcgetattr(fd)
            if fd == 0:
                modes[_LOCAL] &= ~(termios.ECHO | termios.ICANON)
            else:
                modes[_OUTPUT] &= ~termios.OPOST  # it has been done to what was recorded
            termios.tcsetattr(fd, termios.TCSADRAIN, modes)

    def _restore(self) -> None:
        for fd, modes in self._modes:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(fd, termios.TCSAFLUSH, modes)

    def _signal(self, number: int, _: FrameType | None) -> None:
        if number != signal.SIGTSTP:
            raise SystemExit(128 + number)
        self._restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # Whoever was stopped goes on here.
        signal.signal(number, self._signal)
        self._change()
