r"""A listing: a table on a terminal (rich, where that is installed), plain columns in a pipe, or JSON with ``--json``.

    columns = [Column("jid", left=False), Column("name"), Column("size", left=False, shown=human)]
    given, words = listing.options(argv, USAGE, "n:")
    return listing.show("jails", columns, [{"jid": 1, "name": "web", "size": 4096}], "--json" in given)

A row maps a column's key to a value of JSON's: JSON has the rows as they are, whatever columns there are; in a table a
value is text. What could steer a terminal is shown as ``\xNN``, whoever wrote it.
"""

from __future__ import annotations

import getopt
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from jailng.errors import UsageError
from jailng.params.values import straight, visible
from jailng.procs import jsontext, printed

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

Row = Mapping[str, Any]
_WORD = 12  # characters that stay on one line


@dataclass(frozen=True)
class Column:
    """One column. ``title`` is its key in capitals if it is not given; ``left`` the side it is aligned to.

    ``shown`` makes a table's text of a value, ``style`` rich's style of it ("red"); ``least`` is the width in a pipe.
    """

    key: str
    title: str = ""
    left: bool = True
    shown: Callable[[Any], str] | None = None
    style: Callable[[Any], str] | None = None
    least: int = 0

    @property
    def heading(self) -> str:
        """What stands above it."""
        return self.title or self.key.upper()

    def text(self, row: Row) -> str:
        """What a table has of this column in a row, and nothing in it that could steer a terminal."""
        value = row.get(self.key)
        return visible(self.shown(value) if self.shown is not None else plain(value))


def plain(value: object) -> str:
    """A value of JSON's as a table has it: "-" for nothing, yes and no, lists with commas."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join([plain(one) for one in value])
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def options(
    argv: Sequence[str], usage: str, letters: str = "", words: Sequence[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """Options, as getopt(3) knows them and ``--json``, and the words that are none. Raises UsageError."""
    try:
        asked, rest = getopt.gnu_getopt(list(argv), letters, ["json", *words])
    except getopt.GetoptError:
        raise UsageError(usage) from None
    return dict(asked), rest


def show(
    name: str,
    columns: Sequence[Column],
    rows: Iterable[Row],
    as_json: bool,
    more: Row | None = None,
    titles: bool = True,
) -> int:
    """Print a listing, and return the exit status. ``more`` is what JSON's object has beside the rows, ``name``."""
    if as_json:
        return document({name: [dict(row) for row in rows], **(more or {})})
    rows = list(rows)
    console = terminal()
    if console is not None and _short(columns, rows) <= console.width:
        return draw(console, [table(columns, rows, titles)])
    return printed.say(lines(columns, rows, titles, shown_width(), folded=True))


def shown_width() -> int:
    """How wide the terminal is that standard output is; 0 where it is none."""
    return printed.terminal_width() if os.isatty(1) else 0


def document(value: object) -> int:
    """Print JSON, as every reader takes it. The exit status."""
    return printed.say([jsontext.dumped(value, indent=2)])


def lines(
    columns: Sequence[Column], rows: Iterable[Row], titles: bool = True, width: int = 0, folded: bool = False
) -> list[str]:
    """The lines of plain columns, cut to ``width`` where that is not 0, or ``folded``."""
    headings = [printed.Heading(column.heading, column.left, column.least) for column in columns]
    cells = [[column.text(row) for column in columns] for row in rows]
    return [line.rstrip() for line in printed.lines(headings, cells, width, titles, folded)]


def terminal() -> Console | None:
    """What draws on standard output; None where that is no terminal, or where there is no rich (python3-rich)."""
    try:
        if not os.isatty(1):
            return None
        from rich.console import Console
    except ImportError:
        return None
    return Console(highlight=False, markup=False, emoji=False)


def _width(column: Column, rows: Sequence[Row]) -> int:
    return max([len(column.heading), *[len(column.text(row)) for row in rows]])


def _short(columns: Sequence[Column], rows: Sequence[Row]) -> int:
    """How wide a table is at least: of what is longer than a word a part is on the next line."""
    return sum([min(_width(column, rows), _WORD) + 2 for column in columns])


def table(columns: Sequence[Column], rows: Iterable[Row], titles: bool = True) -> Table:
    """A table of rich's."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, show_header=titles, header_style="bold")
    rows = list(rows)
    for column in columns:
        side: Literal["left", "right"] = "left" if column.left else "right"
        least = min(_width(column, rows), _WORD)
        made.add_column(Text(column.heading), justify=side, overflow="fold", min_width=least)
    for row in rows:
        styles = [column.style(row.get(column.key)) if column.style is not None else "" for column in columns]
        texts = [column.text(row) for column in columns]
        texts[:-1] = map(straight, texts[:-1])
        made.add_row(*[Text(text, style=how) for text, how in zip(texts, styles, strict=True)])
    return made


def draw(console: Console, drawn: Iterable[RenderableType]) -> int:
    """Print what rich draws; the exit status."""
    with console.capture() as captured:
        for one in drawn:
            console.print(one)
    return printed.say(captured.get().splitlines())
