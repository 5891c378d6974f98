"""``jailctl audit``: try, as root inside, what would get out of a jail, or out of what somebody else made."""

from __future__ import annotations

import getopt
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jailng.api.jail import Jail
from jailng.audit import catalogue, enter, expected, planted, report
from jailng.audit.enter import Program, Said
from jailng.audit.probe import ABSENT, ESCAPED, EXPOSED, HELD, PROBES
from jailng.audit.report import OPENED, UNKNOWN, Result
from jailng.core import registry
from jailng.core.interpreter import PYTHON
from jailng.ctl import listing
from jailng.errors import JailError, UsageError
from jailng.linux import ns
from jailng.params.values import visible
from jailng.procs import printed

if TYPE_CHECKING:
    from rich.console import RenderableType

USAGE = """usage: jailctl audit [-a] [--json] [-c class] jail
       jailctl audit [-a] [--json] [-c class] --pid pid
       jailctl audit [-a] [--json] [-c class] -- command [argument ...]
       jailctl audit --list [--json]"""
_COLOURS = {ESCAPED: "bold red", UNKNOWN: "magenta", EXPOSED: "yellow", OPENED: "cyan", HELD: "green", ABSENT: "dim"}
_COLUMNS = ("CLASS", "HELD", "EXPOSED", "OPENED", "ESCAPED", "UNKNOWN", "ABSENT")
_OWN = "jailng-audit-"


# Of sysexits.h, since 1 and 2 are answers.
_EX_USAGE, _EX_UNAVAILABLE = 64, 69


def main(argv: list[str]) -> int:
    """Run; 0 if all held, 1 if something is exposed, 2 if something escaped.

    Raises UsageError with status 64, and JailError with 69 where it could not be tried.
    """
    try:
        return _run(argv)
    except UsageError as error:
        raise UsageError(str(error), _EX_USAGE) from None
    except JailError as error:
        raise JailError(str(error), _EX_UNAVAILABLE) from None
    except OSError as error:
        raise JailError(f"audit: {error.filename or 'facts'}: {error.strerror}", _EX_UNAVAILABLE) from None


def _run(argv: list[str]) -> int:
    try:
        options, words = getopt.getopt(argv, "ac:", ["json", "list", "pid="])
    except getopt.GetoptError:
        raise UsageError(USAGE) from None
    given = dict(options)
    if "--list" in given:
        if words or not given.keys() <= {"--list", "--json"}:
            raise UsageError(USAGE)
        return listing.document({"probes": _probes()}) if "--json" in given else printed.say(_listed())
    kind = given.get("-c", "")
    if kind and kind not in _kinds():
        raise UsageError(
            f"jailctl: audit: no class of that name: {visible(kind)}\n{USAGE}\nclasses: {' '.join(_kinds())}"
        )
    is_command = "--" in argv and words == argv[argv.index("--") + 1 :]
    if not _is_one(given.get("--pid"), words, is_command):
        raise UsageError(USAGE)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _end)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # what was to run may be gone, and has said why
    if os.geteuid() != 0 or ns.is_jailed():
        raise JailError("audit: only the host's root can try this")
    about, results = _examine(given.get("--pid", ""), words, is_command, f"{kind}:" if kind else "")
    if "--json" in given:
        written = listing.document(report.as_json(results, about))
    elif (console := listing.terminal()) is not None:
        written = listing.draw(console, _drawn(about, results, "-a" in given))
    else:
        written = printed.say(_plain(about, results, "-a" in given))
    return report.status(results) or written


def _end(number: int, _: object) -> None:
    """Take away what was made, which another signal does not keep it from."""
    for other in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _is_one(pid: str | None, words: list[str], is_command: bool) -> bool:
    if pid is not None:
        return pid.isascii() and pid.isdigit() and not words
    return bool(words) if is_command else len(words) == 1


def _kinds() -> list[str]:
    return list(dict.fromkeys(probe.kind for probe in PROBES.values()))


def _examine(pid: str, words: list[str], is_command: bool, prefix: str) -> tuple[dict[str, str], list[Result]]:
    """What it is about, and the results."""
    if pid or is_command:
        with planted.host() as facts:
            said = _foreign(_joining(pid) if pid else words, facts, prefix)
        return {"target": f"pid {pid}" if pid else " ".join(words)}, report.judged(said, facts, None, prefix)
    record = registry.find(words[0])
    if record is None:
        raise JailError(f'audit: jail "{visible(words[0])}" not found')
    opened = expected.given(record.params)
    with planted.host(record.params.get("path", "/")) as facts, _sibling(facts):
        said = _jailed(record.name, facts, prefix)
    about = {"target": f"jail {record.name}", "parameters": " ".join(opened)}
    return about, report.judged(said, facts, opened, prefix)


def _jailed(name: str, facts: dict[str, str], prefix: str) -> Said:
    argv = enter.command(facts, prefix)
    program: Program = Jail.find(name).popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return enter.run(program, facts)


def _foreign(command: list[str], facts: dict[str, str], prefix: str) -> Said:
    """By a command which runs the words that are added to it; the host's word goes into its environment."""
    argv = [*command, *enter.command(facts, prefix)]
    environment = {**os.environ, "JAILNG_AUDIT": facts["token"]}
    try:
        program = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
    except OSError as error:
        raise JailError(f"audit: {visible(command[0])}: {error.strerror}") from None
    return enter.run(program, facts)


def _joining(pid: str) -> list[str]:
    if len(pid) > 9:  # than any that there can be
        raise JailError(f"audit: pid {pid[:20]}: No such process")
    source = str(Path(__file__).resolve().parents[2])
    program = "import sys; sys.path.insert(0, sys.argv[1]); from jailng.audit.join import main; main(sys.argv[2:])"
    return [PYTHON, "-ISB", "-c", program, source, pid]


@contextmanager
def _sibling(facts: dict[str, str]) -> Iterator[None]:
    """Another jail, for as long as this process lasts. Where none can be made nothing of it is looked for."""
    words = dict(word.split("=", 1) for word in planted.SIBLING_WORDS)
    with ExitStack() as stack:
        for uids in ("private", "shared"):  # the host's root may be on a file system that cannot map uids
            other = Jail({"name": _OWN + facts["token"], **words, "persist": True, "ng.uids": uids})
            try:
                stack.enter_context(other)
            except JailError:
                continue
            break
        else:
            facts["sibling"] = ""
            yield
            return
        # A terminal's SIGINT reaches it as well, of which it would tell.
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        program = other.popen(planted.sibling(facts), stdin=pipe, stdout=pipe, stderr=null)
        stack.callback(program.wait)
        assert program.stdin is not None and program.stdout is not None
        stack.callback(program.stdin.close)
        program.stdout.readline()
        yield


def _listed() -> list[str]:
    """All probes, by the rows of the catalogue that they are of."""
    lines = []
    for number, (what, _) in catalogue.ROWS.items():
        if number in catalogue.SECTIONS:
            lines.append(f"{catalogue.SECTIONS[number].upper()}")
        lines.append(f"{number:>3} {what}")
        lines += [f"      {name}" for name in PROBES if number in catalogue.rows_of(name)]
    return lines


def _probes() -> list[dict[str, object]]:
    """All probes, each with the rows of the catalogue that it is of."""
    return [
        {"probe": name, "class": probe.kind, "rows": [str(row) for row in catalogue.rows_of(name)]}
        for name, probe in PROBES.items()
    ]


def _shown(results: list[Result], everything: bool) -> list[Result]:
    order = list(report.STATES)
    chosen = [one for one in results if everything or one.state not in (HELD, ABSENT)]
    return sorted(chosen, key=lambda one: order.index(one.state))


def _plain(about: dict[str, str], results: list[Result], everything: bool) -> list[str]:
    lines = []
    for one in _shown(results, everything):
        lines.append(f"{one.state:<8} {one.probe.name}: {one.said}")
        if one.why:
            lines.append(f"         {one.why}")
    headings = [printed.Heading(title, left=title == "CLASS") for title in _COLUMNS]
    lines += printed.lines(headings, _table(results))
    return [*lines, f"{visible(about['target'])}: {report.summary(results)}"]


def _table(results: list[Result]) -> list[list[str]]:
    return [
        [kind, *[str(counted[title.lower()]) for title in _COLUMNS[1:]]]
        for kind, counted in report.by_class(results).items()
    ]


def _drawn(about: dict[str, str], results: list[Result], everything: bool) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    shown = Table("", "tried", "what came of it", box=None, pad_edge=False)
    for one in _shown(results, everything):
        text = Text(one.said)
        if one.why:
            text.append(f"\n{one.why}", style="dim")
        shown.add_row(Text(one.state, style=_COLOURS[one.state]), Text(one.probe.name), text)
    if shown.row_count:
        yield shown
    table = Table(*[title.lower() for title in _COLUMNS], box=None, pad_edge=False)
    for row in _table(results):
        cells = [
            Text(cell, style=_COLOURS[title.lower()] if cell != "0" else "dim")
            for title, cell in zip(_COLUMNS[1:], row[1:], strict=True)
        ]
        table.add_row(Text(row[0]), *cells)
    yield table
    yield Text(f"{visible(about['target'])}: {report.summary(results)}")
