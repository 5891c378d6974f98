"""jail(8) with a configuration, and wherever it has several jails to do."""

from __future__ import annotations

from jailng.cli import jail as cli
from jailng.cli import jidline, printing
from jailng.conf import config
from jailng.engine import chosen
from jailng.engine.dependency import SET, START, STOP
from jailng.engine.files import Files
from jailng.errors import JailError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.cli.jail import Options
    from jailng.conf.config import Config
    from jailng.engine.batch import Batch
    from jailng.engine.dependency import Jail
    from jailng.params.model import Parameters


def exhibit(options: Options) -> int:
    """-e: every configured jail and its parameters, a line each; what is wrong with them is told before."""
    separator = options.arguments["e"]
    jails = _load(options).jails
    status = 0
    for jail in jails:
        for text in jail.errors():
            status = printing.complain(f"jail: {jail.key}: {text}")
    for jail in jails:
        if not jail.errors():
            printing.answer(config.exported(jail, separator))
    return status


def work(options: Options, words: list[str]) -> int:
    """-c, -m and their combinations with -r, of one configured jail or all of them; -C."""
    known = _load(options)
    wanted = words[0] if words else "*"
    what = sum({"c": START, "m": SET, "r": STOP}[letter] for letter in "cmr" if options.has(letter))
    batch = _batch(options, known)
    batch.afterwards = not what
    chosen.choose(batch, known, wanted, what or STOP, clean=options.has("C"))
    return _run(options, batch)


def remove(options: Options, words: list[str], configured: bool) -> int:
    """-r and -R of any number of jails, by the configuration where there is one."""
    known = _load(options) if configured else None
    forced = options.has("R")
    batch = _batch(options, known, noted=True)
    batch.forced = forced
    for word in words:
        try:
            chosen.choose(batch, None if forced else known, word, STOP)
        except JailError as error:
            printing.complain(f"jail: {error}")
            batch.failed = True
    status = _run(options, batch)
    if "*" in words and not options.plan:
        chosen.clear_remains()
    return status


def _load(options: Options) -> Config:
    return config.load(options.arguments.get("f", cli.CONFIGURATION), Files())


def _batch(options: Options, known: Config | None, noted: bool = False) -> Batch:
    """Every configured jail, none of which has anything to do yet."""

    def heard(params: Parameters) -> None:
        if params.given("allow.dying"):
            options.warn_of_dying()

    def complain(text: str) -> None:
        printing.complain(f"jail: {text}")

    batch = chosen.batch(known, lambda jail: _voice(options, jail, noted), complain, _limit(options), heard)
    batch.quiet = options.verbose < 0
    if options.plan:
        batch.plan = lambda jail, lines: cli.print_plan(lines, jail.name)
    return batch


def _voice(options: Options, jail: Jail, noted: bool) -> cli.Voice:
    return cli.Voice(jail.name, options.verbose, noted or not jail.stops)


def _limit(options: Options) -> int:
    """What -p says, read as strtol(3) does: digits up to what is none. 0 and less are no limit."""
    text = options.arguments.get("p", "").lstrip(" \t\n\v\f\r")
    digits = text[1:] if text[:1] == "+" else text
    end = next((at for at, char in enumerate(digits) if char not in "0123456789"), len(digits))
    return int(digits[:end]) if 0 < end < 10 else 0


def _run(options: Options, batch: Batch) -> int:
    if batch.plan is not None:
        batch.run()
        return int(batch.failed)
    output = cli.open_jid_file(options)
    if options.has("i"):
        batch.created = cli.say_jid
    if output >= 0:
        batch.started = lambda jail, record: _note_jid(options, batch, output, jidline.line(record.jid, _known(jail)))
    if len(batch.jails) > 1:
        import gc

        gc.disable()  # to look for what only refers to itself took a fifth of the time, and there is next to none
    batch.run()
    return int(batch.failed)


def _note_jid(options: Options, batch: Batch, output: int, line: str) -> None:
    """Where there is no room for it, the jail is there all the same, and others are still to be started."""
    try:
        cli.write_line(options, output, line)
    except JailError as error:
        printing.complain(f"jail: {error}")
        batch.failed = True


def _known(jail: Jail) -> Parameters:
    assert jail.params is not None
    return jail.params
