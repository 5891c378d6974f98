"""ps(1) as FreeBSD 15 has it: ``jailctl ps``, with columns that tell of the jail, and the host's shim, without."""

from __future__ import annotations

import getopt
import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jailng.core import registry
from jailng.errors import JailError, UsageError
from jailng.params.values import visible
from jailng.procs import columns, jsontext, printed
from jailng.procs.columns import Column, short_terminal
from jailng.procs.descent import by_descent
from jailng.procs.jails import Jails, membership
from jailng.procs.process import Process, processes, terminal_name

USAGE = """usage: jailctl ps [-AacdlmrSuwx] [-J jail[,jail...]] [-O fmt | -o fmt]
                  [-p pid[,pid...]] [-t tty[,tty...]] [-U user[,user...]]
                  [--init] [--json | --libxo json] [pid ...]
       jailctl ps -L"""
# Format for -u, -l and neither: of bin/ps/ps.c, and with what a jail adds.
_FORMATS = {
    "": "pid,tt,state,time,command",
    "u": "user,pid,%cpu,%mem,vsz,rss,tt,state,start,time,command",
    "l": "uid,pid,ppid,cpu,pri,nice,vsz,rss,mwchan,state,tt,time,command",
}
_JAIL_FORMATS = {
    "": "jid,pid,tt,state,time,command",
    "u": "user,inside,jid,pid,%cpu,%mem,vsz,rss,tt,state,start,time,command",
    "l": "uid,inside,jid,pid,ppid,cpu,pri,nice,vsz,rss,mwchan,state,tt,time,command",
}
_LETTERS = "AacdlLmrSuwx"
_ARGUMENTS = "JOoptU"
_WIDE = 131  # columns of a printer


@dataclass
class Options:
    """The command line, taken apart. A selection that was not asked for is None."""

    everybody: bool = False
    without_terminal: bool = False
    names_only: bool = False
    keys: bool = False
    init: bool = False
    style: str = ""
    order: str = ""
    descent: bool = False
    wide: int = 0
    json: bool = False
    called: tuple[str, ...] = ()
    jails: list[str] | None = None
    pids: list[int] | None = None
    terminals: list[str] | None = None
    users: list[int] | None = None
    columns: list[tuple[str, Column]] = field(default_factory=list)

    @property
    def selects(self) -> bool:
        """Whether it says which processes, in any way."""
        lists = (self.jails, self.pids, self.terminals, self.users)
        return self.everybody or any(chosen is not None for chosen in lists)


def main(argv: list[str]) -> int:
    """Run ``jailctl ps``; its exit status. Raises UsageError and JailError."""
    options = parse(argv, _JAIL_FORMATS)
    jails = Jails()
    chosen = jails.jids(options.jails) if options.jails is not None else None
    return show(options, jails, chosen, of_jails=not options.selects and not options.without_terminal)


def shim(argv: list[str]) -> int:
    """Run FreeBSD's ps. Raises UsageError for what FreeBSD's does not have, or ours not yet."""
    options = parse(argv, _FORMATS)
    options.called = ("ps", *argv)
    chosen = {_jid(word) for word in options.jails} if options.jails is not None else None
    return show(options, Jails(), chosen)


def _jid(word: str) -> int:
    """addelem_jid() of FreeBSD's bin/ps: to it any number is a jid. Raises JailError."""
    if not word:
        raise JailError("Invalid (zero-length) jail id")
    if word.isascii() and word.isdigit():
        return int(word[:10])
    found = registry.find(word)
    if found is None:
        raise JailError(f"Invalid jail id: {visible(word)}")
    return found.jid


def parse(argv: list[str], formats: dict[str, str]) -> Options:
    """The options of a command line; ``formats`` are those of -u, -l and neither. Raises UsageError."""
    options = Options()
    words = _without_long(argv, options)
    if words and not words[0].startswith("-") and not words[0].isdigit():
        words[0] = "-" + words[0]  # as ever: ps aux
    try:
        options_given, words = getopt.getopt(words, _LETTERS + "".join([f"{letter}:" for letter in _ARGUMENTS]))
    except getopt.GetoptError:
        raise UsageError(USAGE) from None
    asked = [(option[1], argument) for option, argument in options_given]
    for letter, argument in [*asked, *[("p", word) for word in words]]:
        _apply(options, letter, argument)
    if not any(letter == "o" for letter, _ in asked):
        standard = _columns(formats[options.style])
        added = options.columns
        place = 1 + next((at for at, (_, known) in enumerate(standard) if known.field == "pid"), -1)
        options.columns = [*standard[:place], *added, *standard[place:]]
    return options


def _without_long(argv: Sequence[str], options: Options) -> list[str]:
    rest = []
    words = iter(argv)
    for word in words:
        if word == "--init":
            options.init = True
        elif word == "--json":
            options.json = True
        elif word == "--libxo" or word.startswith(("--libxo=", "--libxo:")):
            style = word[8:] or next(words, "")
            if style.split(",")[0] not in ("json", "J"):
                raise JailError(f"--libxo {visible(style)}: not honoured, only json is")
            options.json = True
        else:
            rest.append(word)
    return rest


def _apply(options: Options, letter: str, argument: str) -> None:
    if letter in _ARGUMENTS:
        _apply_list(options, letter, argument)
    elif letter in "Aa":
        options.everybody = True
        options.without_terminal = options.without_terminal or letter == "A"
    elif letter == "x":
        options.without_terminal = True
    elif letter == "c":
        options.names_only = True
    elif letter == "d":
        options.descent = True
    elif letter == "L":
        options.keys = True
    elif letter in "lu":
        options.style = letter
        options.order = "cpu" if letter == "u" else options.order
    elif letter in "mr":
        options.order = "memory" if letter == "m" else "cpu"
    elif letter == "w":
        options.wide += 1
    # -S would add the children's time: it is accepted, as it changes one column in rare cases.


def _apply_list(options: Options, letter: str, argument: str) -> None:
    words = [word for word in argument.replace(",", " ").split() if word]
    if letter in "Oo":
        options.columns += _columns(argument)
    elif letter == "J":
        options.jails = [*(options.jails or []), *(words or [""])]
    elif letter == "t":
        options.terminals = [*(options.terminals or []), *[word.removeprefix("/dev/") for word in words]]
    elif letter == "p":
        if not words or not all(word.isascii() and word.isdigit() for word in words):
            raise UsageError(USAGE)
        options.pids = [*(options.pids or []), *[int(word[:20]) for word in words]]
    else:
        options.users = [*(options.users or []), *[_uid(word) for word in words]]
    if letter in "JpU":
        options.without_terminal = True


def _columns(text: str) -> list[tuple[str, Column]]:
    """Headings and columns of a format: keywords, the last of them perhaps with ``=heading``. Raises UsageError."""
    names, equals, heading = text.partition("=")
    found = []
    for name in names.replace(",", " ").split():
        try:
            known = columns.column(name)
        except JailError as error:
            raise UsageError(f"jailctl ps: {error}") from None
        found.append((known.title, known))
    if not found:
        raise UsageError("jailctl ps: no valid keywords; valid keywords:\n" + " ".join(columns.keywords()))
    if equals:
        found[-1] = (heading, found[-1][1])
    return found


def _uid(word: str) -> int:
    try:
        return pwd.getpwnam(word).pw_uid
    except KeyError:
        if word.isascii() and word.isdigit():
            return int(word[:20])
    raise JailError(f"No such user: {visible(word)}")


def show(options: Options, jails: Jails, chosen: set[int] | None, of_jails: bool = False) -> int:
    """Print what was asked for; 1 if no process is what was asked for. ``chosen``: jids. ``of_jails``: all in one."""
    if options.keys:
        return printed.say([" ".join(columns.keywords())])
    found = []
    for process in processes():
        jid, is_init = membership(process.cgroup)
        if is_init and not options.init:
            continue  # PID 1 is how the jail is made, not who is in it
        if jid != 0 if of_jails else _selected(process, jid, options, chosen):
            found.append(_as_called(process, options))
    _sort(found, options.order)
    told = by_descent(found) if options.descent else [(process, "") for process in found]
    rows = [_row(process, front, jails, options) for process, front in told]
    written = _json(options, rows) if options.json else _text(options, rows)
    return written or (0 if found else 1)


def _as_called(process: Process, options: Options) -> Process:
    """This process as whoever called a shim knows it, and not as an interpreter's."""
    if process.pid != os.getpid() or not options.called:
        return process
    line = "\0".join(options.called).encode("utf-8", "surrogateescape")
    return replace(process, comm=options.called[0], line=line)


def _selected(process: Process, jid: int, options: Options, chosen: set[int] | None) -> bool:
    if process.terminal == 0 and not options.without_terminal:
        return False
    if not options.selects:
        return process.uid == os.geteuid()
    if chosen is not None and options.everybody:
        return jid in chosen  # as scripts have it: ps a -J jail
    return (
        options.everybody
        or (chosen is not None and jid in chosen)
        or process.pid in (options.pids or ())
        or process.uid in (options.users or ())
        or (options.terminals is not None and _is_on(process, options.terminals))
    )


def _is_on(process: Process, terminals: list[str]) -> bool:
    known = {terminal_name(process.terminal), short_terminal(process.terminal)}
    return process.terminal != 0 and not known.isdisjoint(terminals)


def _sort(found: list[Process], order: str) -> None:
    found.sort(key=lambda process: (process.terminal, process.pid))
    if order == "cpu":
        found.sort(key=lambda process: round(process.percent_cpu, 1), reverse=True)
    elif order == "memory":
        found.sort(key=lambda process: process.virtual, reverse=True)


def _row(process: Process, front: str, jails: Jails, options: Options) -> list[str]:
    cells = [_cell(known, process, jails, options) for _, known in options.columns]
    if options.columns[-1][1].field in ("command", "accounting-name"):  # nowhere else, and not for args
        cells[-1] = front + cells[-1]
    return cells


def _cell(known: Column, process: Process, jails: Jails, options: Options) -> str:
    if options.names_only and known.title == "COMMAND":
        return process.comm
    return known.cell(process, jails)


def _text(options: Options, rows: list[list[str]]) -> int:
    headings = [printed.Heading(title, known.left) for title, known in options.columns]
    width = printed.terminal_width()
    if width and options.wide:
        width = max(width, _WIDE) if options.wide == 1 else 0
    titles = any(heading.title for heading in headings)
    return printed.say(printed.lines(headings, rows, width, titles))


def _json(options: Options, rows: list[list[str]]) -> int:
    # libxo has all of it as text, and so have we: clients compare "pid":"2138".
    names = [known.field for _, known in options.columns]
    listed = [dict(zip(names, [visible(cell).strip() for cell in row], strict=True)) for row in rows]
    return printed.say([jsontext.dumped({"process-information": {"process": listed}})])
