"""``jailctl top``: what jails use, or the processes of one; live on a terminal, once for a program."""

from __future__ import annotations

import getopt
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jailng.ctl import listing
from jailng.ctl.listing import Column
from jailng.ctl.load import OfJails, OfProcesses
from jailng.errors import JailError, UsageError
from jailng.limits.rule import humanized
from jailng.linux import ns
from jailng.params.values import visible
from jailng.procs import printed
from jailng.procs.columns import elapsed, minutes
from jailng.procs.jails import named

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

USAGE = "usage: jailctl top [-b] [-d seconds] [-n times] [-s column] [--json] [jail]"
_FIRST = 0.3  # seconds between the look that is not shown and the first that is
_DELAY = 2.0


def _size(value: Any) -> str:
    return "-" if value is None else humanized(int(value))


def _age(value: Any) -> str:
    return elapsed(float(value))


def _percent(value: Any) -> str:
    return "-" if value is None else f"{value:.1f}"


_JAILS = [
    Column("jid", left=False, least=5),
    Column("name", least=8),
    Column("cpu", "CPU%", False, _percent),
    Column("memory", "MEM", False, _size),
    Column("processes", "PROCS", False),
    Column("read", "READ/s", False, _size),
    Column("write", "WRITE/s", False, _size),
    Column("receive", "RECV/s", False, _size),
    Column("transmit", "SENT/s", False, _size),
    Column("age", "AGE", False, _age),
]
_PROCESSES = [
    Column("pid", left=False),
    Column("user", least=8),
    Column("cpu", "CPU%", False, _percent),
    Column("memory", "MEM", False, _size),
    Column("threads", "THR", False),
    Column("state", "S"),
    Column("time", "TIME", False, lambda value: minutes(float(value))),
    Column("age", "AGE", False, _age),
    Column("command"),
]
# Which go first where a terminal is too narrow for all.
_SPARED = ("transmit", "receive", "write", "read", "threads", "age", "processes", "state", "time", "memory")
# FreeBSD's fields of -o, as far as there are such columns.
_ORDERS = {
    "cpu": "cpu", "res": "memory", "size": "memory", "time": "time", "threads": "threads", "command": "command",
    "pid": "pid",
}  # fmt: skip
_LEAST = 8  # characters of a command line
_TEXTS = ("name", "user", "command", "state")  # sorted by alphabet; all else, the most first


class _View:
    """What is looked at, and in which order it is shown."""

    def __init__(self, source: OfJails | OfProcesses, order: str) -> None:
        self.source = source
        self.title = "jails" if isinstance(source, OfJails) else "processes"
        self.columns = _JAILS if isinstance(source, OfJails) else _PROCESSES
        if order not in self.keys:
            raise JailError(f"top: -s {visible(order)}: not one of {', '.join(self.keys)}")
        self.order = order
        self.reverse = False
        self.rows: list[dict[str, Any]] = []

    @property
    def keys(self) -> list[str]:
        """The columns, by the names that -s knows."""
        return [column.key for column in self.columns]

    def look(self) -> None:
        """Look again. Raises JailError."""
        self.rows = self.source.look()

    def sorted(self) -> list[dict[str, Any]]:
        """The rows in order."""
        text = self.order in _TEXTS
        missing: Any = "" if text else -1
        rising = text or self.order in ("jid", "pid")

        def key(row: dict[str, Any]) -> Any:
            value = row[self.order]
            return missing if value is None else value

        return sorted(self.rows, key=key, reverse=rising is self.reverse)

    def fitting(self, rows: list[dict[str, Any]], width: int) -> list[Column]:
        """The columns that there is room for."""
        columns = list(self.columns)
        widths = {one.key: max([len(one.heading), *[len(one.text(row)) for row in rows]]) for one in columns}
        if "command" in widths:
            widths["command"] = min(widths["command"], _LEAST)
        for key in _SPARED:
            if sum([widths[one.key] + 2 for one in columns]) - 2 <= width:
                break
            columns = [one for one in columns if one.key != key]
        return columns

    def press(self, key: str) -> None:
        """A key that chooses the order: < and > the column beside, r the other way round, or a column's own letter."""
        place = self.keys.index(self.order)
        letters = {"c": "cpu", "m": "memory", "p": self.keys[0], "a": "age", "n": self.keys[1]}
        if key in "<>":
            self.order = self.keys[(place + (1 if key == ">" else -1)) % len(self.keys)]
        elif key == "r":
            self.reverse = not self.reverse
        elif key in letters:
            self.order = letters[key]

    def summary(self) -> str:
        """All of it in a line."""
        cpu = sum([row["cpu"] or 0 for row in self.rows])
        memory = sum([row["memory"] for row in self.rows])
        clock = time.strftime("%T")
        return f"{clock}  {len(self.rows)} {self.title}  cpu {cpu:.1f}%  memory {humanized(memory)}"


def main(argv: list[str]) -> int:
    """Run. Raises UsageError and JailError."""
    given, words = listing.options(argv, USAGE, "bd:n:s:")
    if len(words) > 1:
        raise UsageError(USAGE)
    if ns.is_jailed():
        raise JailError("top: what jails use is known to the host alone")
    delay = _seconds(given["-d"]) if "-d" in given else _DELAY
    times = _count(given["-n"]) if "-n" in given else None
    source = OfProcesses(named(words[0], lambda jid: f"jail {jid} not found")) if words else OfJails()
    view = _View(source, given.get("-s", "cpu"))
    view.look()
    time.sleep(min(_FIRST, delay))
    console = listing.terminal() if not given.keys() & {"-b", "--json"} and os.isatty(0) else None
    if console is not None:
        return _live(console, view, delay, times)
    return _batch(view, delay, 1 if times is None else times, "--json" in given)


def shim(argv: list[str]) -> int:
    """Run FreeBSD's ``top -J JAIL``. Raises JailError, and UsageError for what the host's own is to answer: no -J."""
    try:
        options, words = getopt.getopt(argv, "abCHIijnPpqSTtuvxzd:J:m:o:s:U:")
    except getopt.GetoptError:
        raise UsageError(USAGE) from None
    given = dict(options)
    if "-J" not in given:
        raise UsageError(USAGE)
    refused = [letter for letter in given if letter[1] not in "abnjqIiJdsou"] + words
    if refused or given.get("-o", "cpu") not in _ORDERS:
        raise JailError(f"{visible((refused or ['-o ' + given['-o']])[0])}: not honoured with -J")
    wanted = ["-b"] if given.keys() & {"-b", "-n"} else []
    wanted += ["-n", given["-d"]] if "-d" in given else []
    wanted += ["-d", given["-s"]] if "-s" in given else []
    try:
        return main([*wanted, "-s", _ORDERS[given.get("-o", "cpu")], "--", given["-J"]])
    except JailError as error:
        raise JailError(str(error).removeprefix("top: ")) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 < seconds <= 86400 or not text.isascii():
        raise JailError(f"top: -d {visible(text)}: not a number of seconds")
    return seconds


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise JailError(f"top: -n {visible(text)}: not a number")
    return int(text)


def _batch(view: _View, delay: float, times: int, as_json: bool) -> int:
    """Print it so many times, or with 0 until the end."""
    number = 0
    while True:
        view.look()
        rows = view.sorted()
        if as_json:
            status = listing.document({view.title: rows})
        else:
            between = [""] if number else []
            lines = listing.lines(view.columns, rows, width=listing.shown_width(), folded=True)
            status = printed.say([*between, view.summary(), *lines])
        number += 1
        if status or number == times:
            return status
        time.sleep(delay)


def _live(console: Console, view: _View, delay: float, times: int | None) -> int:
    """Draw it on the whole terminal until q is pressed, or so many times."""
    from rich.live import Live

    signal.signal(signal.SIGTERM, _end)
    with _keys() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        number = 0
        while True:
            view.look()
            number += 1
            until = time.monotonic() + delay
            while True:
                live.update(_drawn(console, view), refresh=True)
                left = until - time.monotonic()
                if left <= 0 or not select.select([keyboard], [], [], left)[0]:
                    break
                pressed = os.read(keyboard, 64).decode("ascii", "replace")
                if not pressed or "q" in pressed or "\x04" in pressed:
                    return 0
                if " " in pressed:
                    break
                for key in pressed:
                    view.press(key)
            if times and number >= times:
                return 0


def _end(*_: object) -> None:
    sys.exit(128 + signal.SIGTERM)  # the terminal is given back on the way


def _drawn(console: Console, view: _View) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    room = max(console.size.height - 4, 1)
    rows = view.sorted()[:room]
    columns = view.fitting(rows, console.size.width)
    table = listing.table(columns, rows)
    for column, drawn in zip(columns, table.columns, strict=True):
        drawn.no_wrap, drawn.overflow, drawn.min_width = True, "ellipsis", None
        if column.key == view.order:
            drawn.style = "bold"
    head = Text(view.summary(), no_wrap=True, overflow="ellipsis")
    foot = "q quit   c cpu  m memory  p number  n name  a age  < > by column   r reverse"
    return Group(head, Text(foot, style="dim", no_wrap=True, overflow="ellipsis"), table)


@contextmanager
def _keys() -> Iterator[int]:
    """Standard input with each key as it is pressed, and unseen."""
    before = termios.tcgetattr(0)
    try:
        tty.setcbreak(0)
        yield 0
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, before)
