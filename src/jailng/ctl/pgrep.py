"""pgrep(1) and pkill(1) with FreeBSD's -j: the host's own pgrep finds by everything else, and who is where is ours."""

from __future__ import annotations

import getopt
import grp
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from jailng.core import registry
from jailng.errors import JailError, UsageError
from jailng.params.values import visible
from jailng.procs import printed, process, signals
from jailng.procs.jails import Jails, membership
from jailng.procs.printed import confirmed
from jailng.procs.process import Process

USAGE = """usage: pgrep -j jail[,jail...] [-LSfilnoqvx] [other options of the host's pgrep] [pattern ...]
       pkill -j jail[,jail...] [-signal] [-ILfilnovx] [other options of the host's pkill] [pattern ...]"""
ANY = -1
_NO_MATCH, _BAD_USAGE, _ERROR = 1, 2, 3  # of pgrep(1), on both systems
# Options of procps, and behind them those that FreeBSD has and procps has not.
_LETTERS = "cfinoxLAF:g:G:O:P:s:t:u:U:r:j:"
_OF_PGREP, _OF_PKILL = "adlvw" + "qS", "eH" + "Ilv"
_LONG = {
    "count": "c", "full": "f", "ignore-case": "i", "newest": "n", "oldest": "o", "exact": "x", "logpidfile": "L",
    "ignore-ancestors": "A", "pidfile=": "F", "pgroup=": "g", "group=": "G", "older=": "O", "parent=": "P",
    "session=": "s", "terminal=": "t", "euid=": "u", "uid=": "U", "runstates=": "r", "inverse": "v", "list-full": "a",
    "list-name": "l", "delimiter=": "d", "lightweight": "w", "echo": "e", "require-handler": "H",
    "signal=": "", "cgroup=": "", "ns=": "", "nslist=": "",
}  # fmt: skip
_OURS = "cnojvaldeHIqS"  # not for the host's own: the jail decides before them
_IDS = "uUG"  # of users and groups, which a jail has of its own
_CRITERIA = {"-F", "-g", "-G", "-O", "-P", "-s", "-t", "-u", "-U", "-r", "--cgroup", "--ns"}
_PKILL_AT_PGREP = re.compile("^pgrep(?=:)", re.MULTILINE)


@dataclass
class Options:
    """The command line, taken apart: what is ours, what the host's pgrep is given, and the patterns."""

    name: str
    jails: list[str] = field(default_factory=list)
    letters: set[str] = field(default_factory=set)
    delimiter: str = "\n"
    signal: int = 15
    passed: list[str] = field(default_factory=list)
    ids: list[tuple[str, int]] = field(default_factory=list)  # letters, and where in ``passed`` their arguments are
    patterns: list[str] = field(default_factory=list)

    def has(self, letter: str) -> bool:
        """Whether that option was given."""
        return letter in self.letters


def answer(argv: list[str], real: str | None, name: str = "pgrep") -> int:
    """Run ``name``, pgrep or pkill; ``real`` is the host's own. Raises UsageError where that is to answer: no -j."""
    options = parse(argv, name)
    if real is None:
        raise JailError("the host's own is not to be found in PATH, which is to match all but the jail", _ERROR)
    if options.has("n") and options.has("o"):
        raise JailError("Options -n and -o are mutually exclusive", _ERROR)
    jids = chosen(options.jails)
    for letter, at in options.ids:
        options.passed[at] = _of_the_hosts(letter, options.passed[at], jids)
    there = {known.pid: known for known in process.processes()}
    matched = _matched(options, real)
    if isinstance(matched, int):
        return matched
    found = _found(options, there, jids, matched)
    if options.has("n") or options.has("o"):
        best = max if options.has("n") else min
        found = [best(found, key=lambda known: (known.birth, known.pid))] if found else []
    return _list(options, found) if name == "pgrep" else _kill(options, found)


def parse(argv: list[str], name: str) -> Options:
    """The options of a command line. Raises UsageError if it has no -j, JailError where it has and is none."""
    options = Options(name)
    words = list(argv)
    if name == "pkill":
        _take_signal(words, options)
    letters = _LETTERS + (_OF_PGREP.replace("d", "d:") if name == "pgrep" else _OF_PKILL)
    try:
        asked, options.patterns = getopt.gnu_getopt(words, letters, list(_LONG))
    except getopt.GetoptError as error:
        if any(re.match("-[A-Za-z]*j", word) for word in words):
            raise JailError(f"{error.msg}\n{USAGE}", _BAD_USAGE) from None
        raise UsageError(USAGE) from None
    for option, argument in asked:
        _apply(options, option, argument)
    if not options.has("j"):
        raise UsageError(USAGE)
    if options.has("v") and (options.has("n") or options.has("o")):
        raise JailError(f"-v and -{'n' if options.has('n') else 'o'} exclude each other", _BAD_USAGE)
    return options


def _take_signal(words: list[str], options: Options) -> None:
    """As procps has it, the first word that is ``-`` and a signal, wherever it stands among the options."""
    for place, word in enumerate(words):
        if word == "--":
            return
        known = signals.number(word[1:]) if word[:1] == "-" and len(word) > 1 else None
        if known is not None:
            options.signal = known
            del words[place]
            return


def _apply(options: Options, option: str, argument: str) -> None:
    letter = option[1:]
    if option.startswith("--"):
        letter = _LONG.get(option[2:], _LONG.get(f"{option[2:]}=", ""))
    options.letters.add(letter)
    if letter == "j":
        options.jails += argument.split(",")
    elif letter == "d":
        options.delimiter = argument
    elif option == "--signal" and options.name == "pkill":
        known = signals.number(argument)
        if known is None:
            raise JailError(f'Unknown signal "{visible(argument)}".', _BAD_USAGE)
        options.signal = known
    elif letter not in _OURS or not letter:
        plain = f"-{letter}" if letter else option
        takes = argument or f"{letter}:" in _LETTERS or not letter
        if letter and letter in _IDS:
            options.ids.append((letter, len(options.passed) + 1))
        options.passed += [plain, argument] if takes else [plain]


def chosen(words: Iterable[str]) -> set[int]:
    """Jids, with ANY for all jails and 0 for the host, by makelist() of FreeBSD's bin/pkill. Raises JailError."""
    jids = set()
    for word in words:
        if not word:
            raise JailError(f"-j needs jails\n{USAGE}", _BAD_USAGE)
        if re.fullmatch("-[0-9]+", word):
            raise JailError(f"Negative jail ID `{word}'", _BAD_USAGE)
        if word.isascii() and word.isdigit():
            jids.add(int(word) or ANY)  # 0 for any: what -j meant once
        elif word in ("any", "none"):
            jids.add(ANY if word == "any" else 0)
        else:
            known = registry.find(word)
            if known is None:
                raise JailError(f"Invalid jail ID or name `{visible(word)}'", _BAD_USAGE)
            jids.add(known.jid)
    return jids


def _of_the_hosts(letter: str, words: str, jids: set[int]) -> str:
    """Users or groups as the host's own knows them: a jail's uid 33 is another number there.

    A name is the jail's own, or the host's as on FreeBSD; what nobody knows is left for the host's own to complain of.
    """
    jails = Jails()
    inside = [record.jid for record in jails.running()] if ANY in jids else sorted(jids - {0})
    found = []
    for word in words.split(","):
        own = _number(letter, word)
        wanted = [(jid, jails.uid_inside(jid, word) if letter != "G" else None) for jid in inside]
        known = [jails.outside_id(jid, own if number is None else number) for jid, number in wanted]
        numbers = [str(number) for number in known if number is not None]
        found += [*numbers, *([word] if own is not None or not numbers else [])]
    return ",".join(found)


def _number(letter: str, word: str) -> int | None:
    """The number that the host has for a user, or a group."""
    if word.isascii() and word.isdigit():
        return int(word[:20])
    try:
        return grp.getgrnam(word).gr_gid if letter == "G" else pwd.getpwnam(word).pw_uid
    except KeyError:
        return None


def _matched(options: Options, real: str) -> set[int] | int:
    """The pids that the host's own pgrep finds by the other options, or the status it fails with, having said why.

    FreeBSD's takes several patterns, of which one is to match.
    """
    pids: set[int] = set()
    # Where nothing but -j is asked for, all processes match.
    every: list[list[str]] = [[]] if _CRITERIA.intersection(options.passed) else [[""]]
    for words in [[pattern] for pattern in options.patterns] or every:
        argv = ["pgrep", *options.passed, "--", *words]
        done = subprocess.run(argv, executable=real, stdin=subprocess.DEVNULL, capture_output=True)
        said = done.stderr.decode("utf-8", "surrogateescape")
        if said:
            said = _PKILL_AT_PGREP.sub(options.name, said)
            print(visible(said, keep="\n\t"), end="", file=sys.stderr)
        if done.returncode not in (0, _NO_MATCH):
            return done.returncode if done.returncode > 0 else _ERROR
        pids.update([int(word) for word in done.stdout.split()])
    return pids


def _found(options: Options, there: dict[int, Process], jids: set[int], matched: set[int]) -> list[Process]:
    """Who was there before the host's pgrep looked, is still the same, and is in the right place; by ascending pid."""
    skipped = _ourselves(there)
    standing = {known.parent for known in there.values() if membership(known.cgroup)[0]}
    found = []
    if options.has("w"):  # threads, which no listing of processes has
        there = {tid: known for tid in sorted(matched) if (known := process.read(tid)) is not None}
    for pid, known in there.items():
        jid, is_init = membership(known.cgroup)
        if pid in skipped or is_init or (known.kernel and not options.has("S")):
            continue
        # jexec(8) and jail(8) become the jail's process on FreeBSD: that which stands for one is not of the host's.
        right = jid in jids or (jid > 0 and ANY in jids)
        right = right and not (jid == 0 and pid in standing)
        if (right and pid in matched) == options.has("v"):
            continue
        if options.has("H") and not int(known.status["SigCgt"], 16) << 1 >> options.signal & 1:
            continue
        now = signals.same(known)
        if now is not None:
            found.append(now)
    return found


def _ourselves(there: dict[int, Process]) -> set[int]:
    """This process and its ancestors, which FreeBSD's leaves out."""
    pids = set()
    pid = os.getpid()
    while pid and pid not in pids:
        pids.add(pid)
        pid = there[pid].parent if pid in there else 0
    return pids


def _list(options: Options, found: list[Process]) -> int:
    status = 0 if found else _NO_MATCH
    if options.has("q"):
        return status
    if options.has("c"):
        return printed.say([str(len(found))]) or status
    lines = [_line(known, options) for known in found]
    return (printed.say([options.delimiter.join(lines)]) if lines else 0) or status


def _line(known: Process, options: Options) -> str:
    if options.has("a") or (options.has("l") and options.has("f")):  # as FreeBSD's, which has no -a of that kind
        return f"{known.pid} {visible(' '.join(known.arguments) or known.comm)}"
    return f"{known.pid} {visible(known.comm)}" if options.has("l") else str(known.pid)


def _kill(options: Options, found: list[Process]) -> int:
    lines = []
    signalled = 0
    for known in found:
        if options.has("l"):
            lines.append(f"kill -{options.signal} {known.pid}")
        if options.has("I") and not confirmed(f"kill {known.pid} {visible(known.comm)}? "):
            signalled += 1
            continue
        try:
            sent = signals.send(known, options.signal)
        except OSError as error:
            print(f"pkill: signalling pid {known.pid}: {error.strerror}", file=sys.stderr)
            continue
        signalled += sent
        if sent and options.has("e"):
            lines.append(f"{visible(known.comm)} killed (pid {known.pid})")
    if options.has("c"):
        lines.append(str(signalled))
    if options.has("l") and not found:
        print("No matching processes belonging to you were found", file=sys.stderr)
    return printed.say(lines) or (0 if signalled else _NO_MATCH)
