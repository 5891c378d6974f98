"""killall(1) with FreeBSD's -j: the processes of a jail, by their names or all of them."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from jailng.core import registry
from jailng.core.registry import Record
from jailng.errors import JailError, UsageError
from jailng.params.values import visible
from jailng.procs import printed, process, signals
from jailng.procs.columns import short_terminal
from jailng.procs.jails import Jails, membership, named
from jailng.procs.printed import confirmed
from jailng.procs.process import Process, terminal_name

USAGE = """usage: killall [-delmsqvz] [-help] [-I] [-j jail]
               [-u user] [-t tty] [-c cmd] [-SIGNAL] [cmd]...
At least one option or argument to specify processes must be given."""
_FLAGS = "deImsqvz"
_VALUES = {"j": "jail", "u": "user", "t": "tty", "c": "procname"}
_COMM = 15  # characters that Linux keeps of a program's name


@dataclass
class Options:
    """The command line, taken apart."""

    flags: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)
    signal: int = signal.SIGTERM
    names: list[str] = field(default_factory=list)


def shim(argv: list[str]) -> int:
    """Run FreeBSD's killall. Raises JailError, and UsageError for what the host's own is to answer: no -j."""
    options = parse(argv)
    if "l" in options.flags:
        return printed.say([_all_signals()])
    wanted = _wanted(options, _attach(options.values["j"]))
    found = [known for known in process.processes() if wanted(known)]
    if "d" in options.flags:
        printed.say([f"nprocs {len(found)}"])
    done = [_act(options, known) for known in found]
    if all(acted is None for acted in done):
        if "q" not in options.flags:
            print("No matching processes were found", file=sys.stderr)
        return 1
    return 1 if False in done else 0


def parse(argv: list[str]) -> Options:
    """The options of a command line. Raises UsageError where none of them is -j, and JailError for a wrong one."""
    options = Options()
    words = list(argv)
    wrong = ""
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "-l" and "j" in options.values:
            options.flags.add("l")
            return options
        if word in ("-help", "-l", "-"):
            raise UsageError(USAGE)
        letter, rest = word[1], word[2:]
        if letter in _VALUES:
            if not rest and not words:
                wrong = wrong or f"must specify {_VALUES[letter]}"
            options.values[letter] = rest or (words.pop(0) if words else "")
        elif len(word) == 2 and letter in _FLAGS:
            options.flags.add(letter)
        else:
            known = signals.number(word[1:])
            if known is None:
                wrong = wrong or f"unknown signal {visible(word[1:])}; valid signals:\n{_all_signals()}"
            options.signal = known or 0
    if "j" not in options.values:
        raise UsageError(USAGE)
    if wrong:
        raise JailError(wrong)
    options.names = words
    return options


def _all_signals() -> str:
    lines, line = [], ""
    for known in range(1, signal.NSIG):
        line += f"{signals.name(known)} "
        if len(line) >= 75:
            lines.append(line)
            line = ""
    return "\n".join([*lines, line])


def _attach(word: str) -> Record:
    """A jail that the caller may enter, in the words of FreeBSD's, which does enter it. Raises JailError."""
    known = named(word, lambda jid: f"jail_attach({jid}): Invalid argument")
    if os.geteuid() != 0:
        raise JailError(f"jail_attach({known.jid}): Operation not permitted")
    return known


def _wanted(options: Options, jail: Record) -> Callable[[Process], bool]:
    """Whether a process is one that the options speak of: of those that are seen in the jail, and its users by name."""
    jails = Jails()
    seen = {jail.jid, *registry.jids_below(jail.name)}
    user = options.values.get("u")
    uid = jails.uid_inside(jail.jid, user) if user is not None else None
    if user is not None and uid is None:
        raise JailError(f"user {visible(user)} does not exist")
    terminal = options.values.get("t")
    names = [_named(name, options) for name in options.names]
    command = _named(options.values["c"], options) if "c" in options.values else None

    def wanted(known: Process) -> bool:
        jid, is_init = membership(known.cgroup)
        if jid not in seen or is_init or (known.state == "Z" and "z" not in options.flags):
            return False
        if uid is not None and jails.inside_uid(jail.jid, known.uids[1 if "e" in options.flags else 0]) != uid:
            return False
        if terminal is not None and not _is_on(known, terminal):
            return False
        if command is not None and not command(known):
            return False
        return not names or any(named(known) for named in names)

    return wanted


def _is_on(known: Process, terminal: str) -> bool:
    held = {terminal_name(known.terminal), short_terminal(known.terminal)}
    return known.terminal != 0 and terminal.removeprefix("/dev/") in held


def _named(name: str, options: Options) -> Callable[[Process], bool]:
    """Whether a process has that name, which the kernel may have cut: the rest is then asked of its arguments."""
    if "m" in options.flags:
        try:
            pattern = re.compile(name)
        except re.error:
            raise JailError(f"{visible(name)}: illegal regexp") from None
        return lambda known: pattern.search(known.comm) is not None

    def is_it(known: Process) -> bool:
        # Linux counts bytes, and Python has one character for each that is not of UTF-8.
        cut = name.encode("utf-8", "surrogateescape")[:_COMM].decode("utf-8", "surrogateescape")
        return known.comm == cut and (cut == name or name in {word.rpartition("/")[2] for word in known.arguments})

    return is_it


def _act(options: Options, known: Process) -> bool | None:
    """Signal a process; whether that was allowed. None if it was not to be, or has ended."""
    name, comm = signals.name(options.signal), visible(known.comm)
    question = f"Send signal {options.signal} to {comm} (pid {known.pid} uid {known.uids[0]})? "
    if "I" in options.flags and not confirmed(question):
        return None
    said = []
    if "d" in options.flags:
        device = f"dev:{known.terminal:#x} uid:{known.uids[0]}"
        said.append(f"sig:{options.signal}, cmd:{comm}, pid:{known.pid}, {device}")
    if options.flags & {"v", "s"}:
        said.append(f"kill -{name} {known.pid}")
    printed.say(said)
    if options.flags & {"d", "s"}:
        return True
    try:
        return True if signals.send(known, options.signal) else None
    except OSError as error:
        print(f"killall: warning: kill -{name} {known.pid}: {error.strerror}", file=sys.stderr)
        return False
