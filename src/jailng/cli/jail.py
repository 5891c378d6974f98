"""jail(8): create, modify and remove jails."""

from __future__ import annotations

import posix

from jailng.cli import printing
from jailng.cli.getopt import getopt
from jailng.core import registry, undo
from jailng.engine import life
from jailng.errors import JailError, UsageError
from jailng.params.model import Parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

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
_LATER = "not honoured yet (jailng part 3)"
_DEPRECATED = "the 'allow.dying' parameter and '-d' flag are deprecated and have no effect."


class Options:
    """The options of one call: ``letters`` that were given, and what the ones with an argument were given."""

    __slots__ = ("arguments", "letters")

    def __init__(self, options: list[tuple[str, str]]) -> None:
        self.letters = "".join([letter for letter, _ in options if letter != "plan"])
        self.arguments = dict(options)

    @property
    def plan(self) -> bool:
        """Whether only to print what would be done."""
        return "plan" in self.arguments

    def has(self, letters: str) -> bool:
        """Whether any of these was given."""
        return any(letter in self.letters for letter in letters)

    def say(self, text: str) -> None:
        """Tell of a step, with -v."""
        if self.has("v"):
            printing.say(printing.visible(text))


def main(argv: list[str]) -> int:
    """Run, and return the exit status: 0 or 1."""
    try:
        return _main(argv)
    except UsageError as error:
        return printing.complain(str(error), error.status, lines=True)
    except JailError as error:
        return printing.complain(f"jail: {error}", error.status)
    except OSError as error:
        return printing.complain(f"jail: {error.filename or 'system call'}: {error.strerror}")


def _main(argv: list[str]) -> int:
    pairs, words = getopt(argv, _LETTERS, USAGE, ("plan",))
    options = Options(pairs)
    for letter in "Cefp":
        if options.has(letter):
            raise JailError(f"-{letter}: {_LATER}")
    if options.has("d"):
        printing.complain(f"jail: {_DEPRECATED}")
    if not options.has("cmrR"):
        return _old_style(options, words)
    if options.has("R") and options.has("cm"):
        raise UsageError(USAGE)
    if options.has("rR") and not options.has("cm"):
        if options.has("hlnsuU"):
            raise UsageError(USAGE)
        return _remove(options, words)
    if len(words) < 2 and not any("=" in word for word in words):
        raise JailError(f"configuration files: {_LATER}")
    return _from_command_line(options, _parameters(options, words))


def _users(options: Options, params: Parameters) -> None:
    for letter, system in (("u", True), ("U", False)):
        if letter in options.arguments:
            params.set("exec.jail_user", options.arguments[letter])
            params.set("exec.system_jail_user", system)
    for letter, name in (("n", "name"), ("s", "securelevel")):
        if letter in options.arguments:
            params.set(name, options.arguments[letter])
    for letter, name in (("l", "exec.clean"), ("h", "ip_hostname")):
        if options.has(letter):
            params.set(name, True)


def _parameters(options: Options, words: list[str]) -> Parameters:
    """``param=value …``; ``command`` takes the rest of the line."""
    params = Parameters()
    _users(options, params)
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "command":
            for argument in [value, *words[number + 1 :]] if value else words[number + 1 :]:
                params.add("command", argument)
            break
        if name == "allow.dying":
            printing.complain(f"jail: {_DEPRECATED}")
        params.add(name, value if equals else None, append=True)
    return params


def _old_style(options: Options, words: list[str]) -> int:
    """The article's form: path, hostname, addresses, command."""
    if len(words) < 4 or not words[0].startswith("/"):
        raise UsageError(USAGE)
    path, hostname, addresses, *command = words
    params = Parameters()
    _users(options, params)
    params.set("path", path)
    params.set("host.hostname", hostname)
    for address in addresses.split(",") if addresses else []:
        params.add("ip6.addr" if ":" in address else "ip4.addr", address.strip())
    for word in command:
        params.add("command", word)
    return _create(options, params, old_style=True)


def _from_command_line(options: Options, params: Parameters) -> int:
    wanted = str(params.number("jid")) if params.number("jid") else params.text("name")
    there = registry.find(wanted) if wanted else None
    if there is None:
        if options.has("c"):
            return _create(options, params)
        return _not_found(options, wanted)
    if options.has("m") and not (options.has("r") and Parameters.from_texts(there.params).restarts(params)):
        return _modify(options, there, params)
    if not options.has("r"):
        raise JailError(f'"{printing.visible(wanted)}" already exists')
    if options.plan:
        _print_removal(there)
    else:
        life.stop(life.Life(params, there, options.say, Parameters.from_texts(there.params)))
        # jail.c says it wherever there is more than one word, and here with no name before it.
        if not options.has("vqi"):
            printing.say("removed")
    return _create(options, params)


def _not_found(options: Options, wanted: str) -> int:
    """jail(8) says it unless it is to be quiet, and fails all the same."""
    if options.has("q"):
        return 1
    raise JailError(f'"{wanted}" not found' if wanted else "no jail specified")


def _create(options: Options, params: Parameters, old_style: bool = False) -> int:
    life.settle(params)
    warning = life.check_path(params)
    if warning:
        printing.complain(f"jail: {warning}")
    if options.plan:
        return _print_plan(params)
    output = _open_jid_file(options.arguments["J"]) if "J" in options.arguments else -1
    jail = life.Life(params, None, options.say)
    if options.has("i"):
        jail.created = lambda record: printing.say(str(record.jid))
    life.start(jail)
    if output >= 0:
        posix.write(output, (_jid_line(jail, old_style) + "\n").encode("utf-8", "surrogateescape"))
        posix.close(output)
    return 0


def _print_plan(params: Parameters) -> int:
    from jailng.core import create, operation

    jid = params.number("jid") or 1
    for name, _ in life.START:
        lines = []
        if name == "jail_set":
            lines = list(operation.describe(create.plan(params, jid, registry.uid_base(0))))
        elif name == "interface":
            lines = [f"add alias {address.bare} on {where}" for where, address in life.aliases(params)]
        elif name == "command":
            lines = [f"command: {' '.join(params.strings(name))}"] if params.strings(name) else []
        elif name.startswith("exec."):
            lines = [f"{name}: {text}" for text in params.strings(name)]
        for line in lines:
            printing.say(printing.visible(line))
    return 0


def _open_jid_file(path: str) -> int:
    try:
        return posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o666)
    except OSError as error:
        raise JailError(f"open {path}: {error.strerror}") from None


def _jid_line(jail: life.Life, old_style: bool) -> str:
    """A line of -J: of the old form its five words, else the parameters that were given, as jail(8) quotes them."""
    params = jail.params
    if old_style:
        ips = ",".join([address.bare for name in ("ip4.addr", "ip6.addr") for address in params.addresses(name)])
        command = " ".join(params.strings("command"))
        return "\t".join([str(jail.there.jid), params.text("path"), params.text("host.hostname"), ips, command])
    given = [word for word in params.words(pseudo=True) if not word.startswith("jid=")]
    return "\t".join([f"jid={jail.there.jid}", *given])


def _modify(options: Options, record: Record, params: Parameters) -> int:
    from jailng.engine import modify

    if options.plan:
        changed = Parameters.from_texts(record.params).update(params)
        printing.say(printing.visible("\n".join([f"set {name}" for name in changed]), keep="\n"))
        return 0
    modify.modify(record, params)
    given = [word for word in params.words(pseudo=False) if not word.startswith("jid=")]
    options.say(" ".join([f"jail_set(JAIL_UPDATE) jid={record.jid}", *given]))
    options.say("updated")
    return 0


def _remove(options: Options, words: list[str]) -> int:
    """``-r`` and ``-R``: each jail named, or ``*``; one that fails does not keep the others."""
    if not words or (any("=" in word for word in words) and not options.has("R")):
        raise UsageError(USAGE)
    everything = "*" in words
    names = [record.name for record in registry.jails()] if everything else words
    noisy = everything or len(names) > 1
    status = 0
    for name in names:
        try:
            status = max(status, _remove_one(options, name, noisy))
        except JailError as error:
            status = printing.complain(f"jail: {error}")
    if everything and not options.plan:
        for record in registry.records():
            undo.recover(record)
    return status


def _remove_one(options: Options, name: str, noisy: bool) -> int:
    record = registry.find(name)
    if record is None:
        if not options.plan:
            life.clear_away(name)  # what a jail of that name may have left when it ended by itself
        return _not_found(options, name)
    if options.plan:
        _print_removal(record)
        return 0
    say = (lambda text: printing.say(f"{name}: {text}")) if options.has("v") else options.say
    life.stop(life.Life(Parameters.from_texts(record.params), record, say), forced=options.has("R"))
    if noisy and not options.has("qvi"):
        printing.say(printing.visible(f"{name}: removed"))
    return 0


def _print_removal(record: Record) -> None:
    for line in reversed(record.undo):
        printing.say(printing.visible(f"undo: {line}"))
