"""jail(8): create, modify and remove jails."""

from __future__ import annotations

import posix

from jailng.cli import printing
from jailng.cli.getopt import getopt
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
       jail [-qv] [-f file] -[rR] [* | jail ...]
       jail [-dhilqv] [-J jid_file] [-u username] [-U username]
            [-n jailname] [-s securelevel]
            path hostname [ip[,...]] command ..."""
_LETTERS = "cCde:f:hiJ:lmn:p:qrRs:u:U:v"
_LATER = "not honoured yet (jailng part 3)"
_DEPRECATED = "the 'allow.dying' parameter and '-d' flag are deprecated and have no effect."


class Options:
    """The options of one call: ``letters`` that were given, and what the ones with an argument were given."""

    __slots__ = ("arguments", "letters", "plan")

    def __init__(self, options: list[tuple[str, str]], plan: bool) -> None:
        self.letters = "".join([letter for letter, _ in options])
        self.arguments = dict(options)
        self.plan = plan

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
        return printing.complain(str(error), error.status)
    except JailError as error:
        return printing.complain(f"jail: {error}", error.status)
    except OSError as error:
        return printing.complain(f"jail: {error.filename or 'system call'}: {error.strerror}")


def _main(argv: list[str]) -> int:
    plan = "--plan" in argv[: _before_words(argv)]
    if plan:
        argv = [*argv]
        argv.remove("--plan")
    pairs, words = getopt(argv, _LETTERS, USAGE)
    options = Options(pairs, plan)
    for letter in "Cefp":
        if options.has(letter):
            raise JailError(f"-{letter}: {_LATER}")
    if options.has("d"):
        printing.complain(f"jail: {_DEPRECATED}")
    if not options.has("cmrR"):
        return _old_style(options, words)
    if options.has("rR") and not options.has("cm"):
        return _remove(options, words)
    if len(words) < 2 and not any("=" in word for word in words):
        raise JailError(f"configuration files: {_LATER}")
    return _from_command_line(options, _parameters(options, words))


def _before_words(argv: list[str]) -> int:
    """How many of the leading arguments are options, so that a jail's own command may have a ``--plan``."""
    count = 0
    while count < len(argv) and argv[count].startswith("-"):
        count += 2 if argv[count][-1:] in "efJnpsuU" and not argv[count].startswith("--") else 1
    return count


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
    there = life.running(wanted) if wanted else None
    if options.has("r"):
        if not wanted:
            raise JailError("no jail specified")
        if there is not None:
            life.stop(life.Life(_of(there), there, options.say))
        elif not options.has("c"):
            raise JailError(f'"{wanted}" not found')
        return _create(options, params)
    if options.has("m") and there is not None:
        return _modify(options, there, params)
    if not options.has("c"):
        if not wanted:
            raise JailError("no jail specified")
        raise JailError(f'"{wanted}" not found')
    if there is not None:
        raise JailError(f'"{wanted}" already exists')
    return _create(options, params)


def _of(record: Record) -> Parameters:
    return Parameters.from_texts(record.params)


def _create(options: Options, params: Parameters, old_style: bool = False) -> int:
    params.settle()
    life.check_path(params)
    if options.plan:
        return _print_plan(params)
    jail = life.Life(params, None, options.say)
    life.start(jail)
    if "J" in options.arguments:
        _write_jid_file(options.arguments["J"], jail, old_style)
    if options.has("i"):
        printing.say(str(jail.there.jid))
    return 0


def _print_plan(params: Parameters) -> int:
    from jailng.core import create, operation, registry

    jid = params.number("jid") or 1
    for name, step in life.START:
        if step.__name__ == "_create":
            printing.say("\n".join(operation.describe(create.plan(params, jid, registry.uid_base(0)))))
        elif not name.startswith(("exec", "command")):
            continue
        for text in params.strings(name) if name != "jail_set" else ():
            printing.say(printing.visible(f"{name}: {text}"))
    return 0


def _write_jid_file(path: str, jail: life.Life, old_style: bool) -> None:
    params = jail.params
    if old_style:
        ips = ",".join([address.bare for name in ("ip4.addr", "ip6.addr") for address in params.addresses(name)])
        command = " ".join(params.strings("command"))
        line = "\t".join([str(jail.there.jid), params.text("path"), params.text("host.hostname"), ips, command])
    else:
        line = "\t".join(
            [f"jid={jail.there.jid}", *[line for line in params.to_lines() if not line.startswith("jid=")]]
        )
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o644)
    except OSError as error:
        raise JailError(f"open {path}: {error.strerror}") from None
    posix.write(fd, (line + "\n").encode("utf-8", "surrogateescape"))
    posix.close(fd)


def _modify(options: Options, record: Record, params: Parameters) -> int:
    from jailng.engine import modify

    modify.modify(record, params)
    options.say("updated")
    return 0


def _remove(options: Options, words: list[str]) -> int:
    """``-r`` and ``-R``: each jail named, or ``*``; one that fails does not keep the others."""
    if not words or (any("=" in word for word in words) and not options.has("R")):
        raise UsageError(USAGE)
    from jailng.core import registry

    everything = "*" in words
    names = [record.name for record in registry.jails()] if everything else words
    noisy = everything or len(names) > 1
    status = 0
    for name in names:
        try:
            _remove_one(options, name, noisy)
        except JailError as error:
            status = printing.complain(f"jail: {error}")
    if everything:
        from jailng.core import undo

        for record in registry.records():
            undo.recover(record)
    return status


def _remove_one(options: Options, name: str, noisy: bool) -> None:
    record = life.running(name)
    if record is None:
        raise JailError(f'"{name}" not found')
    if options.plan:
        printing.say("\n".join([f"undo: {line}" for line in reversed(record.undo)]))
        return
    say = (lambda text: printing.say(f"{name}: {text}")) if options.has("v") else options.say
    life.stop(life.Life(_of(record), record, say), forced=options.has("R"))
    if noisy and not options.has("qvi"):
        printing.say(printing.visible(f"{name}: removed"))
