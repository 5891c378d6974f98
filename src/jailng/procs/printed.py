"""Tables as FreeBSD's programs print them, and nothing in them that could steer a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from jailng.params.values import straight, visible

_FOLDED = 16  # places that there must be for a column to be folded


@dataclass(frozen=True)
class Heading:
    """The head of a column; ``left`` aligns it, ``least`` is how wide it is at least."""

    title: str
    left: bool = True
    least: int = 0


def lines(
    headings: Sequence[Heading],
    rows: Sequence[Sequence[str]],
    width: int = 0,
    titles: bool = True,
    folded: bool = False,
) -> list[str]:
    """The lines of a table, as wide as its contents ask for; with ``width`` cut to so many places of a terminal's.

    Where there is room for it, and it is to be ``folded``, what the last column has goes on in the lines below, in its
    place: what a terminal goes on with by itself begins where lines of the table do.
    """
    table = [[heading.title for heading in headings]] if titles else []
    table += [[*map(straight, row[:-1]), *map(visible, row[-1:])] for row in rows]
    last = len(headings) - 1
    widths = [
        max([heading.least, *[len(row[place]) for row in table]], default=0) for place, heading in enumerate(headings)
    ]
    made = []
    for row in table:
        cells = [
            cell.rjust(wide) if not heading.left else cell if place == last else cell.ljust(wide)
            for place, (heading, cell, wide) in enumerate(zip(headings, row, widths, strict=True))
        ]
        front = " ".join([*cells[:-1], ""])
        indent = _places(front)
        if folded and width - indent >= _FOLDED:
            first, *more = _parted(cells[-1], width - indent)
            made += [front + first, *[" " * indent + part for part in more]]
        else:
            made.append(cut(front + cells[-1], width) if width else front + cells[-1])
    return made


def _parted(text: str, room: int) -> list[str]:
    """In parts that a terminal has room for."""
    parts = []
    while text:
        parts.append(cut(text, room))
        text = text[len(parts[-1]) :]
    return parts or [""]


def _places(text: str) -> int:
    """How many it takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import east_asian_width

    return sum([2 if east_asian_width(char) in ("W", "F") else 1 for char in text])


def cut(line: str, width: int) -> str:
    """What of a line a terminal has room for: what goes on in the next would look like a line of the table there."""
    if line.isascii():
        return line[:width]
    for at, char in enumerate(line):
        width -= _places(char)
        if width < 0:
            return line[:at]
    return line


def terminal_width() -> int:
    """Characters on a line, by COLUMNS or by the terminal; 0 for no limit, as where no terminal reads: bin/ps/ps.c."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isascii() and asked.isdigit() and int(asked[:9]) > 0:
        return int(asked[:9])
    try:
        # Not in the last column: there some terminals go on to the next line by themselves.
        return max(os.get_terminal_size(1).columns - 1, 0)
    except OSError:
        return 0


def say(made: Sequence[str]) -> int:
    """Write lines to standard output; the exit status, 1 where they could not be written."""
    data = "".join([line + "\n" for line in made]).encode("utf-8", "surrogateescape")
    try:
        write(data)
    except BrokenPipeError:
        return 0  # whoever read has enough
    except OSError as error:
        print(f"{os.path.basename(sys.argv[0])}: standard output: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def write(data: bytes) -> None:
    """All of it to standard output. Raises OSError."""
    while data:
        data = data[os.write(1, data) :]


def confirmed(question: str) -> bool:
    """Ask on standard output, and whether the answer, a line of standard input, begins with y."""
    print(question, end="", flush=True)
    return sys.stdin.readline()[:1] in ("y", "Y")
