"""jail(8) with a configuration, and wherever it has several jails to do."""

from __future__ import annotations

from jailng.cli import jail as cli
from jailng.cli import printing
from jailng.conf import config
from jailng.core import registry
from jailng.engine import ending
from jailng.engine.batch import Batch
from jailng.engine.dependency import SET, START, STOP, Jail, connect
from jailng.engine.files import Files
from jailng.errors import JailError
from jailng.params.model import Parameters
from jailng.params.table import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.cli.jail import Options
    from jailng.conf.config import Config, Setting
    from jailng.conf.config import Jail as Defined
    from jailng.core.registry import Record


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
            printing.say(config.exported(jail, separator))
    return status


def work(options: Options, words: list[str]) -> int:
    """-c, -m and their combinations with -r, of one configured jail or all of them; -C."""
    known = _load(options)
    wanted = words[0] if words else "*"
    what = sum({"c": START, "m": SET, "r": STOP}[letter] for letter in "cmr" if options.has(letter))
    batch = _batch(options, known)
    batch.afterwards = not what
    _choose(batch, known, wanted, what or STOP, clean=options.has("C"))
    return _run(options, batch)


def remove(options: Options, words: list[str], configured: bool) -> int:
    """-r and -R of any number of jails, by the configuration where there is one."""
    known = _load(options) if configured else None
    forced = options.has("R")
    batch = _batch(options, known, noted=True)
    batch.forced = forced
    for word in words:
        try:
            _choose(batch, None if forced else known, word, STOP)
        except JailError as error:
            printing.complain(f"jail: {error}")
            batch.failed = True
    status = _run(options, batch)
    if "*" in words and not options.plan:
        for record in registry.records():
            if not record.alive():
                ending.clear_away(str(record.jid))
    return status


def _load(options: Options) -> Config:
    return config.load(options.arguments.get("f", cli.CONFIGURATION), Files())


def _batch(options: Options, known: Config | None, noted: bool = False) -> Batch:
    """Every configured jail, none of which has anything to do yet."""

    def complain(jail: Jail, text: str) -> None:
        printing.complain(f"jail: {_unquoted(jail, text)}")

    made: dict[str, Jail] = {}
    for defined in known.jails if known is not None else ():
        made.setdefault(defined.key, Jail(defined.key, _reader(options, defined)))
    batch = Batch(made, lambda jail: _voice(options, jail, noted), _limit(options), complain)
    batch.quiet = options.verbose < 0
    if options.plan:
        batch.plan = lambda jail, lines: cli.print_plan(lines, jail.name)
    if known is not None:
        for defined in known.jails:
            for text in defined.errors():
                batch.fail(made[defined.key], text)
        depends = {defined.key: defined for defined in reversed(known.jails)}  # the first of a name, as in ``made``

        def depend(jail: Jail) -> tuple[str, ...]:
            setting = depends[jail.name].named("depend")
            return setting.values if setting is not None else ()

        connect(made, depend, batch.fail)
    return batch


def _voice(options: Options, jail: Jail, noted: bool) -> cli.Voice:
    return cli.Voice(jail.name, options.verbose, noted or not jail.stops)


def _unquoted(jail: Jail, text: str) -> str:
    """``"web" already exists`` names the jail itself; all else follows its name."""
    shown = printing.visible(text)
    return shown if text.startswith(f'"{jail.name}" ') else f"{printing.visible(jail.name)}: {shown}"


def _limit(options: Options) -> int:
    """What -p says, read as strtol(3) does: digits up to what is none. 0 and less are no limit."""
    text = options.arguments.get("p", "").lstrip(" \t\n\v\f\r")
    digits = text[1:] if text[:1] == "+" else text
    end = next((at for at, char in enumerate(digits) if char not in "0123456789"), len(digits))
    return int(digits[:end]) if 0 < end < 10 else 0


def _reader(options: Options, defined: Defined) -> Callable[[bool], Parameters]:
    def read(stops: bool) -> Parameters:
        params = _parameters(defined.settings(), stops)
        if params.given("allow.dying"):
            options.warn_of_dying()
        return params

    return read


def _parameters(settings: list[Setting], stops: bool) -> Parameters:
    """What a jail's settings come to. To stop a jail jail(8) looks at its own alone, so others may be wrong then."""
    return config.parameters([setting for setting in settings if not stops or _counts(setting)])


def _counts(setting: Setting) -> bool:
    found = resolve(setting.name)
    if found is not None and found[0].pseudo:
        return True
    try:
        config.parameters([setting])
    except JailError:
        return False
    return True


def _choose(batch: Batch, known: Config | None, word: str, what: int, clean: bool = False) -> None:
    """Have this done to the jails that a word of the command line means. Raises JailError where there is none."""
    if word == "*":
        batch.want([*batch.jails.values()], what, clean, wild=True, everything=True)
        if what == STOP:
            running = [_running(batch, record) for record in registry.jails()]
            batch.want([jail for jail in running if not jail.work], what, wild=True)
    elif config.is_pattern(word):
        if known is None:
            found = [_running(batch, record) for record in registry.jails() if config.matches(record.name, word)]
        else:
            found = [batch.jails[defined.key] for defined in known.match(word)]
        batch.want(found, what, clean, wild=True)
    else:
        jail = batch.jails.get(word)
        if jail is None and what == STOP:
            jail = _by_running(batch, word, batch.plan is None)
        if jail is None:
            raise JailError(f'"{printing.visible(word)}" not found')
        batch.want([jail], what, clean)


def _by_running(batch: Batch, word: str, tidy: bool) -> Jail | None:
    """The running jail of that name or jid, by its definition if its name has one."""
    record = registry.find(word)
    if record is None:
        if tidy:
            ending.clear_away(word)  # what a jail of that name may have left when it ended by itself
        return None
    return _running(batch, record)


def _running(batch: Batch, record: Record) -> Jail:
    jail = batch.jails.get(record.name)
    if jail is None:
        jail = batch.jails[record.name] = Jail(record.name, lambda stops: Parameters())
    if jail.record is None:
        jail.record = record
        jail.sought = True
    return jail


def _run(options: Options, batch: Batch) -> int:
    if batch.plan is not None:
        batch.run()
        return int(batch.failed)
    output = cli.open_jid_file(options)
    if options.has("i"):
        batch.created = cli.say_jid
    if output >= 0:
        batch.started = lambda jail, record: cli.write_line(output, cli.jid_line(record.jid, _known(jail)))
    if len(batch.jails) > 1:
        import gc

        gc.disable()  # to look for what only refers to itself took a fifth of the time, and there is next to none
    batch.run()
    return int(batch.failed)


def _known(jail: Jail) -> Parameters:
    assert jail.params is not None
    return jail.params
