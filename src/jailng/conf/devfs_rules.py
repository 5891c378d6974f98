"""devfs.rules(5): the rule sets of a text, as FreeBSD's rc.subr (devfs_rulesets_from_file) and devfs(8) read it.

``[name=number]`` begins a rule set, and takes away what was known of that number. Every other line is what would
follow ``devfs rule -s number``, in the shell's quotes: ``$name`` is the number of a set, ``#`` begins a comment, a
backslash at the end joins two lines. Pure: it reads no file and knows no user's name.
"""

from __future__ import annotations

import re
import shlex

from jailng.errors import JailError
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    # pattern of the path, words for types of devices, action, its argument; the first two are empty for any
    Rule = tuple[str, str, str, str]

TYPES = ("disk", "mem", "tape", "tty")
_SECTION = re.compile(r"\[(.*)=([0-9]+)\]")
_NUMBER = re.compile(r"[0-9]{1,9}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+))")
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxst]*)+)")
_OCTAL = re.compile(r"[0-7]{1,5}")
_LAST = 65535
_STEP = 100  # between the numbers that the kernel gives to rules which come without one
_ACTIONS = {"hide": 0, "unhide": 0, "mode": 1, "user": 1, "group": 1, "include": 1}  # how many arguments
_WHO = {"u": 0o700, "g": 0o070, "o": 0o007, "a": 0o777}
_WHAT = {"r": 0o444, "w": 0o222, "x": 0o111}
_UMASK = 0o022  # rc(8)'s, which a mode that does not say whose it is goes through


def parse(
    text: str, known: Mapping[int, tuple[Rule, ...]], names: Mapping[str, int]
) -> tuple[dict[int, tuple[Rule, ...]], dict[str, int]]:
    """The rule sets by number, and the numbers by name: those ``known`` before with what the text adds or replaces.

    Raises JailError: line N, what, why.
    """
    rulesets, numbers = dict(known), dict(names)
    rules: dict[int, list[Rule]] = {}
    ruleset = 0
    for number, line in _lines(text):
        try:
            if line.startswith("["):
                ruleset = _section(line, numbers)
                rules = {}
            else:
                _command(_words(line, numbers), ruleset, rules)
        except JailError as error:
            raise JailError(f"line {number}: {error}") from None
        if ruleset:
            rulesets[ruleset] = tuple([rule for at in sorted(rules) for rule in rules[at]])
    return rulesets, numbers


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """What the shell's read gives: lines that say something, joined where a backslash ends one, and their numbers."""
    begun, joined = 0, ""
    for number, line in enumerate(text.split("\n"), 1):
        begun = begun if joined else number
        joined += line
        if joined.endswith("\\") and not joined.lstrip().startswith("#"):
            joined = joined[:-1]
            continue
        if joined.strip() and not joined.lstrip().startswith("#"):
            yield begun, joined.strip()
        joined = ""
    if joined.strip():
        yield begun, joined.strip()


def _section(line: str, numbers: dict[str, int]) -> int:
    found = _SECTION.match(line)
    if found is None:
        raise JailError(f"cannot extract rule number ({visible(line)})")
    if not _NAME.fullmatch(found[1]):
        raise JailError(f"cannot extract rule name ({visible(line)})")
    number = int(found[2]) if _NUMBER.fullmatch(found[2]) else 0
    if not 0 < number <= _LAST:
        raise JailError(f"{visible(found[1])}={found[2]}: the number of a rule set is from 1 to {_LAST}")
    numbers[found[1]] = number
    return number


def _words(line: str, numbers: Mapping[str, int]) -> list[str]:
    """A line as the shell takes it apart, the names of rule sets replaced by their numbers."""

    def number_of(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in numbers:
            raise JailError(f"${name}: no rule set of that name before this line")
        return str(numbers[name])

    scanner = shlex.shlex(line, posix=True, punctuation_chars=False)
    scanner.whitespace_split = True
    scanner.commenters = "#"
    try:
        return [_VARIABLE.sub(number_of, word) for word in scanner]
    except ValueError:
        raise JailError(f"{visible(line)}: no quote at its end") from None


def _command(words: list[str], ruleset: int, rules: dict[int, list[Rule]]) -> None:
    """Carry out one command of ``devfs rule``: add, del or delset."""
    if not words:
        return
    command, *arguments = words
    if not ruleset:
        raise JailError(f"{visible(command)}: belongs to no rule set: [name=number] comes first")
    if command == "delset" and not arguments:
        rules.clear()
    elif command == "del" and len(arguments) == 1 and _NUMBER.fullmatch(arguments[0]):
        rules.pop(int(arguments[0]), None)
    elif command == "add":
        _add(arguments, rules)
    else:
        raise JailError(f"unknown command: {visible(' '.join(words))}")


def _add(words: list[str], rules: dict[int, list[Rule]]) -> None:
    if not words:
        raise JailError("unexpected end of rulespec")
    if _NUMBER.fullmatch(words[0]):
        number, words = int(words[0]), words[1:]
        if number in rules:
            raise JailError(f"{number}: there is a rule of that number")
    else:
        number = max(rules, default=0) + _STEP
    if not 0 < number <= _LAST:
        raise JailError(f"{number}: the number of a rule is from 1 to {_LAST}")
    rules[number] = _rule(words)


def _rule(words: list[str]) -> list[Rule]:
    """One rule: conditions, then actions, each of which becomes a rule of its own with the same conditions."""
    pattern, types, actions = "", "", []
    rest = list(words)
    while rest and rest[0] in ("path", "type"):
        condition, argument = rest.pop(0), _argument(rest, words[len(words) - len(rest) - 1])
        if condition == "path":
            pattern = argument
        elif argument in TYPES:
            types = f"{types} {argument}".strip()
        else:
            raise JailError(f"unknown type: {visible(argument)}")
    while rest:
        action = rest.pop(0)
        if action not in _ACTIONS:
            raise JailError(f"unknown argument: {visible(action)}")
        argument = _argument(rest, action) if _ACTIONS[action] else ""
        actions.append((pattern, types, action, _checked(action, argument)))
    return actions


def _argument(rest: list[str], what: str) -> str:
    if not rest:
        raise JailError(f"expecting argument for {what}")
    return rest.pop(0)


def _checked(action: str, argument: str) -> str:
    if action == "mode":
        return f"{_mode(argument):o}"
    if action == "include" and not _NUMBER.fullmatch(argument):
        raise JailError(f"include: not a number: {visible(argument)}")
    return argument


def _mode(text: str) -> int:
    """Permissions as chmod(1) reads them, of nothing: setmode(3), getmode(3)."""
    if _OCTAL.fullmatch(text):
        return int(text, 8) & 0o777
    mode = 0
    for clause in text.split(","):
        found = _CLAUSE.fullmatch(clause)
        if found is None:
            raise JailError(f"invalid mode: {visible(text)}")
        mask = 0o777 & ~_UMASK if not found[1] else 0
        for who in found[1]:
            mask |= _WHO[who]
        for sign, letters in re.findall(r"([-+=])([rwxst]*)", found[2]):
            bits = mask & sum({_WHAT.get(letter, 0) for letter in letters})
            mode = mode & ~bits if sign == "-" else (mode & ~mask if sign == "=" else mode) | bits
    return mode
