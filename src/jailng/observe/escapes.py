"""Escape sequences in what was shown: taken out of it, or let through where they can do no harm to who replays it.

The forms are those of ECMA-48 and of xterm's ctlseqs. What a terminal is let have of a recording is a list of what is
known to draw, and to do nothing else: whatever makes a terminal send something (as if it had been typed), write to the
clipboard, print, change what keys send, or talk to other programs is on no list.
"""

from __future__ import annotations

import re

# Control strings: OSC, DCS, APC, PM and SOS; then CSI; then the others of ESC. Each begins with ESC or as one of C1,
# and no string has one of these in it: who shows a million of them would else have the rest looked through for each.
_STRING = r"(?:\x1b[\]P_^X]|[\x90\x98\x9d-\x9f])"
_BODY = r"[^\x07\x18\x1a\x1b\x80-\x9f]*"
_STRING_END = r"(?:\x07|\x1b\\|\x9c|\x18|\x1a)"
_CSI = r"(?:\x1b\[|\x9b)"
_SEQUENCE = re.compile(
    rf"(?P<string>{_STRING})(?P<body>{_BODY}){_STRING_END}"
    rf"|{_CSI}(?P<parameters>[0-?]*)(?P<between>[ -/]*)(?P<final>[@-~])"
    r"|\x1b(?P<intermediate>[ -/]*)(?P<escape>[0-Z\\-~])"
    r"|(?P<control>[\x00-\x1f\x7f-\x9f])"
)
# What may still become one.
_BEGUN = re.compile(rf"(?:{_STRING}{_BODY}\x1b?|{_CSI}[0-?]*[ -/]*|\x1b[ -/]*)\Z")
_LONGEST = 65536
# The same, each begun by a control character, so that the matcher passes over all else at once.
_REST_OF_STRING = rf"{_BODY}{_STRING_END}"
_REST = (
    rf"(?:(?<=\x1b)(?:[\]P_^X]{_REST_OF_STRING}|\[[0-?]*[ -/]*[@-~]|[ -/]*[0-Z\\-~])"
    rf"|(?<=\x9b)[0-?]*[ -/]*[@-~]|(?<=[\x90\x98\x9d-\x9f]){_REST_OF_STRING})?"
)
_PLAIN = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f]{_REST}")
_TYPED = re.compile(rf"[\x00-\x07\x0b-\x1f\x80-\x9f]{_REST}")

_CONTROLS = frozenset("\a\b\t\n\v\f\r\x0e\x0f")
_FINALS = frozenset("@ABCDEFGHIJKLMPSTXZ`abdefgmrsu")
_ESCAPES = frozenset("78DEHM")
_ANSI_MODES = frozenset(["4"])
# Screen and cursor; not those of keys, mouse, focus, paste, width of the window.
_MODES = frozenset("5 6 7 12 25 45 47 69 1047 1048 1049 2026".split())
_TITLES = ("0", "1", "2")
_TITLE = 256  # characters
_SCREENS = frozenset(["47", "1047", "1049"])
# Attributes, character sets, margins, modes and the cursor as they are at the beginning. Not every terminal knows
# DECSTR, which is all of it: tmux keeps margins and insert mode.
_RESET = "\x1b[?2026l\x1b[?69l\x1b[?5l\x1b[!p\x1b[4l\x1b[m\x1b(B\x0f\x1b7\x1b[r\x1b8\x1b[?7h\x1b[?25h"
# What that leaves as it is, and what puts it back: tab stops, as far as a line goes; the cursor's shape; the origin,
# with which the cursor goes away from where it is.
_TABS, _SHAPE, _ORIGIN = "\x1b7\r\x1b[3g" + "\x1b[8C\x1bH" * 32 + "\x1b8", "\x1b[0 q", "\x1b[?6l\x1b[999H"
# In place of RIS, which takes away as well what has scrolled out of sight: that is the operator's, of what came before.
_CLEARED = f"{_RESET}\x1b[H\x1b[2J"
_SCROLLED_AWAY = "3"
_BEYOND = re.compile("[0-9]{6}")  # a number that no screen has, and some terminals have miscounted by
# A title that stays says of the operator's window that it is where it is not.
_PUSH_TITLE, _POP_TITLE = "\x1b[22;0t", "\x1b[23;0t"


def plain(text: str, typed: bool = False) -> str:
    """Text without escape sequences, and without control characters but for tabs and newlines.

    What is ``typed`` keeps the characters that erase others: backspace and DEL.
    """
    return (_TYPED if typed else _PLAIN).sub("", text)


def pieces(text: str, typed: bool = False) -> list[tuple[int, int]]:
    """Of what ``plain`` leaves: where each piece begins there, and where it does in ``text``."""
    found, clean, begin = [], 0, 0
    for match in (_TYPED if typed else _PLAIN).finditer(text):
        if match.start() > begin:
            found.append((clean, begin))
            clean += match.start() - begin
        begin = match.end()
    return [*found, (clean, begin)]


def begun(text: str) -> int:
    """Where a sequence begins that is not whole at the end; the length of the text if there is none."""
    match = _BEGUN.search(text, max(0, len(text) - _LONGEST))
    return match.start() if match else len(text)


class Filter:
    """What of a recording an operator's terminal is given, piece by piece."""

    def __init__(self) -> None:
        self._held = ""
        self._screen = ""  # the mode by which the other screen was chosen
        self._titled = False
        self._lasting: dict[str, None] = {}  # what puts back what has been changed

    def add(self, text: str) -> str:
        """The next piece, as it may be shown."""
        text = self._held + text
        end = begun(text)
        if len(text) - end > _LONGEST // 2:
            end = len(text)  # what does not end is no sequence; what begins it does not get through
        self._held = text[end:]
        return _SEQUENCE.sub(self._allowed, text[:end])

    def end(self) -> str:
        """What makes the terminal again what it was before."""
        title = _POP_TITLE if self._titled else ""
        return self._left() + _RESET + "".join(self._lasting) + title

    def _left(self) -> str:
        """What leaves the other screen, if it was chosen."""
        return f"\x1b[?{self._screen}l" if self._screen else ""

    def _allowed(self, match: re.Match[str]) -> str:
        allowed = _allowed(match)
        if allowed.startswith("\x1b]") and not self._titled:
            self._titled = True
            return _PUSH_TITLE + allowed
        if allowed == _CLEARED:
            left, self._screen = self._left(), ""
            return left + allowed
        if allowed[-1:] in ("h", "l") and allowed.startswith("\x1b[?"):
            modes = allowed[3:-1].split(";")
            screens = [mode for mode in modes if mode in _SCREENS]
            if screens:
                self._screen = screens[-1] if allowed[-1] == "h" else ""
            if "6" in modes:
                self._lasting[_ORIGIN] = None
        elif allowed[-1:] == "g" or allowed == "\x1bH":
            self._lasting[_TABS] = None
        elif allowed[-2:] == " q":
            self._lasting[_SHAPE] = None
        return allowed


def _allowed(match: re.Match[str]) -> str:
    if match["control"]:
        return match["control"] if match["control"] in _CONTROLS else ""
    if match["string"]:
        return _title(match["body"]) if match["string"] in ("\x1b]", "\x9d") else ""
    if match["final"]:
        return _csi(match["parameters"], match["between"], match["final"])
    between, final = match["intermediate"], match["escape"]
    if final == "c" and not between:
        return _CLEARED
    if (not between and final in _ESCAPES) or between in ("(", ")") or (between == "#" and final in "34568"):
        return f"\x1b{between}{final}"
    return ""


def _title(body: str) -> str:
    which, _, text = body.partition(";")
    if which not in _TITLES:
        return ""
    return f"\x1b]{which};{''.join(filter(str.isprintable, text))[:_TITLE]}\x07"


def _csi(parameters: str, between: str, final: str) -> str:
    private = parameters[:1] if parameters[:1] in ("<", "=", ">", "?") else ""
    if _BEYOND.search(parameters):
        return ""
    whole = f"\x1b[{parameters}{between}{final}"
    if between:
        return whole if not private and between + final in (" q", "!p") else ""
    if final in "hl" and private in ("", "?"):
        modes = _MODES if private else _ANSI_MODES
        kept = [mode for mode in parameters.removeprefix("?").split(";") if mode in modes]
        return f"\x1b[{private}{';'.join(kept)}{final}" if kept else ""
    if final == "J" and _SCROLLED_AWAY in [one.lstrip("0") for one in parameters.lstrip("?").split(";")]:
        return ""
    if private:
        return whole if private == "?" and final in "JK" else ""
    return whole if final in _FINALS else ""
