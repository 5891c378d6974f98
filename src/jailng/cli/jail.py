"""jail(8): create, modify and remove jails."""

from __future__ import annotations

import _signal
import posix

from jailng import start
from jailng.cli import printing
from jailng.cli.getopt import getopt
from jailng.core import registry
from jailng.engine import beginning, life
from jailng.errors import JailError, Mistakes, NotFound, UsageError, messages
from jailng.params.model import Parameters
from jailng.params.table import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from jailng.core.registry import Record

    class Configured(Protocol):
        """The module jailng.cli.configured."""

        def exhibit(self, options: Options) -> int:
            """-e."""

        def remove(self, options: Options, words: list[str], configured: bool) -> int:
            """-r and -R."""

        def work(self, options: Options, words: list[str]) -> int:
            """-c, -m, and with -r."""

    class Standing(Protocol):
        """The module jailng.cli.standing."""

        def modify(self, options: Options, record: Record, params: Parameters) -> None:
            """-m."""

        def make_way(self, options: Options, record: Record, params: Parameters) -> None:
            """The first half of -rc and the like."""

        def remove(self, options: Options, name: str) -> None:
            """-r and -R."""


USAGE = """\
usage: jail [-dhilqv] [-J jid_file] [-u username] [-U username]
            -[cmr] param=value ... [command=command ...]
       jail [-dqv] [-f file] -[cmr] [jail]
       jail [-qv] [-f file] -[rR] ['*' | jail ...]
       jail [-dhilqv] [-J jid_file] [-u username] [-U username]
            [-n jailname] [-s securelevel]
            path hostname [ip[,...]] command ...
       jail [-f file] -e separator"""
_LETTERS = "cCde:f:hiJ:lmn:p:qrRs:u:U:v"
_INTERRUPTING = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM)
CONFIGURATION = "/etc/jail.conf"
# Parameters that options stand for; "" is the option's argument, None no value.
_STANDS_FOR: dict[str, tuple[tuple[str, str | None], ...]] = {
    "h": (("ip_hostname", None),),
    "l": (("exec.clean", None),),
    "n": (("name", ""),),
    "s": (("securelevel", ""),),
    "u": (("exec.jail_user", ""), ("exec.system_jail_user", None)),
    "U": (("exec.jail_user", ""), ("exec.system_jail_user", "false")),
}
_DEPRECATED = "the 'allow.dying' parameter and '-d' flag are deprecated and have no effect."


class Options:
    """The options of one call: ``letters`` that were given, and what the ones with an argument were given."""

    __slots__ = ("arguments", "given", "letters", "warned")

    def __init__(self, options: list[tuple[str, str]]) -> None:
        self.given = options
        self.letters = "".join([letter for letter, _ in options if letter != "plan"])
        self.arguments = dict(options)
        self.warned = False

    def warn_of_dying(self, given: bool = True) -> None:
        """Say, once, that -d and allow.dying mean nothing, if any was ``given``."""
        if given and not self.warned:
            self.warned = True
            printing.complain(f"jail: {_DEPRECATED}")

    @property
    def plan(self) -> bool:
        """Whether only to print what would be done."""
        return "plan" in self.arguments

    @property
    def verbose(self) -> int:
        """-1 with -q or -i, 1 with -v, whichever came last; else 0."""
        found = [letter for letter in self.letters if letter in "qiv"]
        return 0 if not found else 1 if found[-1] == "v" else -1

    def has(self, letters: str) -> bool:
        """Whether any of these was given."""
        return any(letter in self.letters for letter in letters)


class Voice(life.Voice):
    """What one jail's steps say, after its ``name``, which is "" for a jail of the command line.

    ``noted``: created, removed and updated are told without -v.
    """

    __slots__ = ("name", "noted", "verbose")

    def __init__(self, name: str, verbose: int, noted: bool) -> None:
        self.name = name
        self.verbose = verbose
        self.noted = noted

    def say(self, text: str) -> None:
        """With -v."""
        if self.verbose > 0:
            printing.say(printing.visible(self._named(text), keep="\n\t"))

    def note(self, text: str) -> None:
        """Unless -q, or for a jail of the command line."""
        if self.verbose > 0 or (self.verbose == 0 and self.noted):
            printing.say(printing.visible(self._named(text), keep="\n\t"))

    def warn(self, text: str) -> None:
        """Always."""
        printing.complain(f"jail: {self._named(text)}")

    def fail(self, error: JailError) -> None:
        """Always."""
        for text in messages(error):
            self.warn(text)
        error.told = True

    def _named(self, text: str) -> str:
        return f"{self.name}: {text}" if self.name else text


def main(argv: list[str]) -> int:
    """Run, and return the exit status: 0 or 1. Raises KeyboardInterrupt of a signal, with its number (start.run)."""
    for number in _INTERRUPTING:
        if _signal.getsignal(number) == _signal.SIG_DFL:
            _signal.signal(number, _interrupt)
    try:
        return _main(argv)
    except UsageError as error:
        return printing.complain(str(error), error.status, lines=True)
    except JailError as error:
        for text in messages(error):
            printing.complain(f"jail: {text}")
        return error.status
    except OSError as error:
        return printing.complain(f"jail: {error.filename or 'system call'}: {error.strerror}")


def _interrupt(number: int, _: object) -> None:
    """Have what was begun undone, which no other signal is to interrupt."""
    for other in _INTERRUPTING:
        _signal.signal(other, _signal.SIG_IGN)
    raise KeyboardInterrupt(number)


def _main(argv: list[str]) -> int:
    pairs, words = getopt(argv, _LETTERS, USAGE, ("plan",))
    options = Options(pairs)
    of_old = options.has("hlnsuU")  # options that make no sense for a configuration file
    if options.has("e"):
        if options.has("cmrRC") or words:
            raise UsageError(USAGE)
        return _configured().exhibit(options)
    if not options.has("cmrRC"):
        from jailng.cli import oldform

        return oldform.create(options, words)
    if options.has("rR") and not options.has("cmC"):
        if of_old or not words or (any("=" in word for word in words) and not options.has("R")):
            raise UsageError(USAGE)
        options.warn_of_dying(options.has("d"))
        configured = not options.has("R") and _is_configured(options)
        if configured or len(words) > 1 or "*" in words[0]:
            return _configured().remove(options, words, configured)
        empty_jid_file(options)
        _standing().remove(options, words[0])
        return 0
    if len(words) > 1 or any("=" in word for word in words):
        if options.has("RC"):
            raise UsageError(USAGE)
        options.warn_of_dying(options.has("d"))
        return _from_command_line(options, _parameters(options, words))
    if options.has("R") or of_old or (options.has("r") and not options.has("cm") and not words):
        raise UsageError(USAGE)
    options.warn_of_dying(options.has("d"))
    return _configured().work(options, words)


def _configured() -> Configured:
    """The part of jail(8) that does more than one jail, or with a configuration."""
    start.load_more("configured")
    from jailng.cli import configured

    return configured


def _standing() -> Standing:
    """The part of jail(8) that is for one jail that is there already."""
    start.load_more("standing")
    from jailng.cli import standing

    return standing


def _is_configured(options: Options) -> bool:
    path = options.arguments.get("f", CONFIGURATION)
    if path == "-":
        return True
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def of_options(options: Options) -> Parameters:
    """The parameters that options stand for, in their order."""
    params = Parameters()
    for letter, argument in options.given:
        for name, value in _STANDS_FOR.get(letter, ()):
            params.add(name, argument if value == "" else value)
    return params


def _parameters(options: Options, words: list[str]) -> Parameters:
    """``param=value …``; ``command`` takes the rest of the line.

    Of what is given more than once and no list the last counts, in the place of the first. Raises Mistakes, as jail(8)
    comes upon them: of what is found first it tells all, and not of the rest.
    """
    params = of_options(options)
    given: dict[str, list[tuple[str, str | None]]] = {}
    twice: list[str] = []
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "command":
            for argument in [value, *words[number + 1 :]] if value else words[number + 1 :]:
                given.setdefault("command", []).append(("command", argument))
            break
        if name in ("allow.dying", "allow.nodying"):
            options.warn_of_dying()
        found = resolve(name)
        key = found[0].name if found is not None and found[2] is None else name
        if name in ("jid", "name") and (name in given or name in params):
            twice.append(f'cannot redefine parameter "{name}".')
        elif found is not None and found[0].kind in ("list", "ip4", "ip6"):
            given.setdefault(key, []).append((name, value if equals else None))
        else:
            given[key] = [(name, value if equals else None)]
    own, others = _added(params, [pair for pairs in given.values() for pair in pairs])
    lacking = [name for name in params.strings("depend") if registry.find(name) is None]
    first = twice + [f'depends on nonexistent jail "{printing.visible(name)}"' for name in lacking]
    if first or own or others:
        raise Mistakes(first or own or others)
    return params


def _added(params: Parameters, pairs: list[tuple[str, str | None]]) -> tuple[list[str], list[str]]:
    """Add these; what is wrong with jail(8)'s own parameters, and with the kernel's."""
    own: list[str] = []
    others: list[str] = []
    for name, value in pairs:
        try:
            params.add(name, value, append=True)
        except JailError as error:
            found = resolve(name)
            (own if found is not None and found[0].pseudo else others).append(str(error))
    return own, others


def _from_command_line(options: Options, params: Parameters) -> int:
    wanted = str(params.number("jid")) if params.number("jid") else params.text("name")
    there = registry.find(wanted) if wanted else None
    if there is None:
        if options.has("c") and (options.has("m") or not options.has("r")):
            return create(options, params)
        raise JailError(f'"{printing.visible(wanted)}" not found' if wanted else "no jail specified")
    life.spell_path(params, there)
    if options.has("m") and not (options.has("r") and Parameters.from_texts(there.params).restarts(params)):
        empty_jid_file(options)
        done = _is_done(lambda: _standing().modify(options, there, params))
        if done:
            return 0
    elif not options.has("r"):
        raise JailError(f'"{printing.visible(wanted)}" already exists')
    else:
        done = _is_done(lambda: _standing().make_way(options, there, params))
    if not done and not options.has("c"):
        raise JailError(f'"{printing.visible(wanted)}" not found')
    return create(options, params)


def _is_done(work: Callable[[], None]) -> bool:
    """Do something to a jail that was found; False if it has ended since it was found. Raises JailError."""
    try:
        work()
    except NotFound:
        return False
    return True


def voice_of(options: Options) -> Voice:
    """What a jail of the command line tells, and how much of it."""
    return Voice("", options.verbose, noted=False)


def create(options: Options, params: Parameters, old_style: bool = False) -> int:
    """Make a jail of the command line, and do what options say of it. Raises JailError, UsageError."""
    life.settle(params, voice_of(options), old_style)
    if options.plan:
        from jailng.engine import plan

        print_plan(plan.creation(params, voice_of(options)))
        return 0
    output = open_jid_file(options)
    jail = life.Life(params, None, voice_of(options))
    if options.has("i"):
        jail.created = say_jid
    beginning.start(jail)
    if output >= 0:
        from jailng.cli import jidline

        write_line(options, output, jidline.line(jail.there.jid, params, old_style))
    return 0


def say_jid(record: Record) -> None:
    """What -i prints."""
    printing.say(str(record.jid))


def print_plan(lines: list[str], name: str = "") -> None:
    """What --plan has found out, after the jail's name where several are done."""
    for line in lines:
        printing.answer(printing.visible(f"{name}: {line}" if name else line))


def open_jid_file(options: Options) -> int:
    """The file of -J, emptied; -1 where there is none. Raises JailError."""
    if "J" not in options.arguments:
        return -1
    from jailng.core import hostpath
    from jailng.engine.files import trees_of_jails

    path = options.arguments["J"]
    try:
        return hostpath.created(path, posix.O_WRONLY | posix.O_TRUNC, 0o666, trees_of_jails)
    except OSError as error:
        raise JailError(f"open {path}: {error.strerror}") from None


def empty_jid_file(options: Options) -> None:
    """The file of -J, where nothing is started: what was in it of another time is not to be taken for an answer.

    Raises JailError.
    """
    if not options.plan and (file := open_jid_file(options)) >= 0:
        posix.close(file)


def write_line(options: Options, fd: int, line: str) -> None:
    """A line of -J. Raises JailError: of a jail that is there, and stays."""
    try:
        posix.write(fd, (line + "\n").encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise JailError(f"{options.arguments['J']}: {error.strerror}") from None
