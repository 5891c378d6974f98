"""rctl(8): rules that limit what jails use, added, shown and removed; and what they use."""

from __future__ import annotations

import errno
import os
import signal
import sys

from jailng.cli import printing
from jailng.cli.getopt import getopt
from jailng.core import index, registry
from jailng.errors import JailError, UsageError, explain
from jailng.limits import database
from jailng.limits.change import add, remove
from jailng.limits.rule import Rule, complaint, expanded, humanized, parse
from jailng.limits.shown import applying, usage
from jailng.linux import ns
from jailng.params.values import visible

USAGE = "usage: rctl [ -h ] [-a rule | -l filter | -r filter | -u filter | filter]"
_LETTERS = "ahlnru"
_MODES = "alru"
# What is said of a rule or filter that could not be served, by the option.
_FAILED = {
    "a": "failed to add rule",
    "l": "failed to get limits for",
    "r": "failed to remove rule",
    "u": "failed to show resource consumption for",
    "": "failed to show rules for",
}


def main(argv: list[str]) -> int:
    """Run the command, and return the exit status: how many rules or filters have failed."""
    try:
        options, words = getopt(argv, _LETTERS, USAGE)
        letters = {letter for letter, _ in options}
        modes = letters.intersection(_MODES)
        if len(modes) > 1:
            return printing.complain("rctl: at most one of -a, -l, -r, or -u may be specified")
        mode = next(iter(modes), "")
        if not words and mode:
            raise UsageError(USAGE)
    except UsageError as error:
        return printing.complain(str(error), error.status, lines=True)
    failed = 0
    for word in words or ["::"]:
        try:
            text = expanded(word, None if mode == "a" and "n" in letters else _number_of)
        except JailError as error:
            failed += printing.complain(f"rctl: {error}")
            continue
        try:
            _serve(mode, text, "h" in letters)
        except (JailError, OSError) as error:
            failed += printing.complain(f"rctl: {_FAILED[mode]} '{visible(word)}': {explain(error)}")
    return min(failed, 255)


def _serve(mode: str, text: str, human: bool) -> None:
    """Do what an option says with a rule or filter. Raises JailError, OSError."""
    if os.geteuid() != 0 or ns.is_jailed():
        raise complaint(errno.EPERM)
    rule = parse(text)
    given = rule.id
    if rule.subject == "process" and given:
        _must_live(int(given))
    if rule.subject == "jail":
        rule.id = _name_of(given)
    # A rule that was added when no jail ran by that number is about a jail of that name.
    by_number = parse(text) if rule.id != given else None
    if mode == "a":
        add(rule)
    elif mode == "r":
        there = [one for one in (rule, by_number) if one is not None and any(map(one.matches, database.read()))]
        for one in there or [rule]:
            remove(one)
    elif mode == "u":
        _say([f"{name}={humanized(used) if human else used}" for name, used in usage(rule).items()])
    else:
        _say([one.shown(human) for one in (applying(rule) if mode == "l" else _matched(rule, by_number))])


def _must_live(pid: int) -> None:
    """Whatever is said of a process that there is not is refused by that. Raises OSError."""
    try:
        os.kill(pid, 0)
    except OverflowError:
        raise complaint(errno.ESRCH) from None


def _matched(rule: Rule, other: Rule | None) -> list[Rule]:
    found = [one for one in database.read() if rule.matches(one) or (other is not None and other.matches(one))]
    return database.in_order(found)


def _name_of(name: str) -> str:
    """The name of the jail that runs by that number, where the number is not its name: no other can have that then."""
    record = registry.find(name) if index.is_number(name) else None
    return record.name if record is not None else name


def _number_of(kind: str, name: str) -> int | None:
    import grp
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return None


def _say(lines: list[str]) -> None:
    if lines:
        printing.answer("\n".join(map(visible, lines)))


def run() -> None:
    """The command: what the script calls."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, no child could be waited for
    sys.exit(main(sys.argv[1:]))
