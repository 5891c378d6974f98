"""The jails of a configuration as a batch, and what words of a command line choose of them and of those that run."""

from __future__ import annotations

from jailng.conf import config
from jailng.core import registry
from jailng.engine import ending
from jailng.engine.batch import Batch
from jailng.engine.dependency import STOP, Jail, connect
from jailng.errors import JailError, Mistakes, messages
from jailng.params.model import Parameters
from jailng.params.table import resolve
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.conf.config import Config, Setting
    from jailng.conf.config import Jail as Defined
    from jailng.core.registry import Record
    from jailng.engine.life import Voice

    Heard = Callable[[Parameters], None]


def batch(
    known: Config | None,
    voice: Callable[[Jail], Voice],
    complain: Callable[[str], None],
    limit: int = 0,
    heard: Heard | None = None,
) -> Batch:
    """Every jail of a configuration, none of which has anything to do yet.

    ``complain`` is told what is wrong with a jail, after its name; ``heard`` of the parameters of each that is read.
    """

    def told(jail: Jail, text: str) -> None:
        complain(_named(jail, text))

    made: dict[str, Jail] = {}
    for defined in known.jails if known is not None else ():
        made.setdefault(defined.key, Jail(defined.key, _reader(defined, heard)))
    new = Batch(made, voice, limit, told)
    if known is not None:
        for defined in known.jails:
            for text in defined.errors():
                new.spoil(made[defined.key], text)
        depends = {defined.key: defined for defined in reversed(known.jails)}  # the first of a name, as in ``made``

        def depend(jail: Jail) -> tuple[str, ...]:
            setting = depends[jail.name].named("depend")
            return setting.values if setting is not None else ()

        connect(made, depend, new.spoil)
    return new


def _named(jail: Jail, text: str) -> str:
    """``"web" already exists`` names the jail itself; all else follows its name."""
    shown = visible(text)
    return shown if text.startswith(f'"{jail.name}" ') else f"{visible(jail.name)}: {shown}"


def _reader(defined: Defined, heard: Heard | None) -> Callable[[bool], Parameters]:
    def read(stops: bool) -> Parameters:
        params = _parameters(defined.settings(), stops)
        if heard is not None:
            heard(params)
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


def choose(batch: Batch, known: Config | None, word: str, what: int, clean: bool = False) -> None:
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
            raise JailError(f'"{visible(word)}" not found')
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


def clear_remains() -> None:
    """Clear away whatever jails have left. Raises JailError, of all where it cannot be."""
    wrong: list[str] = []
    for record in registry.records():
        if not record.alive():
            try:
                ending.clear_away(str(record.jid))
            except JailError as error:
                wrong += messages(error)
    if wrong:
        raise Mistakes(wrong)
