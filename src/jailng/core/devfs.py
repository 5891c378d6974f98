"""Which device nodes and links are in a jail's /dev, by devfs ruleset: devfs(8), devfs.rules(5).

Pure: what is computed here, core/rootfs.py makes. Of all devices there are, a jail can at most have those in
``DEVICES``: no rule unhides what is not there. The directories ``pts``, ``shm`` and ``mqueue`` each have a mount on
them, whatever the rules say.
"""

from __future__ import annotations

from jailng.errors import JailError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Node = tuple[str, int, int, int]
    Link = tuple[str, str]
    Rule = tuple[str, ...]
    Rulesets = Mapping[int, tuple[Rule, ...]]

JAIL_RULESET = 4  # what jail(8) takes for devfs_ruleset = 0

# name, major, minor, mode: Documentation/admin-guide/devices.txt
DEVICES: tuple[Node, ...] = (
    ("null", 1, 3, 0o666),
    ("zero", 1, 5, 0o666),
    ("full", 1, 7, 0o666),
    ("random", 1, 8, 0o666),
    ("urandom", 1, 9, 0o666),
    ("tty", 5, 0, 0o666),
)
LINKS: tuple[Link, ...] = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)

# FreeBSD's /etc/defaults/devfs.rules; full and tty are added, since Linux programs expect them in every /dev. A rule is
# (pattern, action, argument); the empty pattern means every entry.
RULESETS: Rulesets = {
    1: (("", "hide"),),  # devfsrules_hide_all
    2: tuple([(name, "unhide") for name in "log null zero full crypto random urandom".split()]),  # _unhide_basic
    3: tuple([(name, "unhide") for name in "pty* tty* ptmx pts pts/* fd fd/* stdin stdout stderr".split()]),  # _login
    4: (("", "include", "1"), ("", "include", "2"), ("", "include", "3"), ("fuse", "unhide"), ("zfs", "unhide")),
    5: (("", "include", "4"), ("pf", "unhide")),  # devfsrules_jail_vnet
}


def nodes(ruleset: int = 0, rulesets: Rulesets = RULESETS) -> list[Node]:
    """The device nodes of a /dev under this ruleset: (name, major, minor, mode).

    0 means 4, as for jail(8). Raises JailError for a ruleset, an action or an argument that there is not.
    """
    if ruleset in (0, JAIL_RULESET) and rulesets is RULESETS:
        return list(DEVICES)  # what the rules come to: tests/unit/test_devfs.py holds the two together
    shown = evaluate(ruleset or JAIL_RULESET, rulesets)
    return [(name, major, minor, shown[name]) for name, major, minor, _ in DEVICES if name in shown]


def links(ruleset: int = 0, rulesets: Rulesets = RULESETS) -> list[Link]:
    """The symbolic links of a /dev under this ruleset: (name, target). As ``nodes``."""
    if ruleset in (0, JAIL_RULESET) and rulesets is RULESETS:
        return list(LINKS)
    shown = evaluate(ruleset or JAIL_RULESET, rulesets)
    return [(name, target) for name, target in LINKS if name in shown]


def evaluate(ruleset: int, rulesets: Rulesets = RULESETS) -> dict[str, int]:
    """What a /dev shows under this ruleset: name to mode, of devices and links.

    Rules apply in their order, so that the last which matches wins; what none matches is shown. Raises JailError.
    """
    modes = {name: mode for name, _, _, mode in DEVICES} | {name: 0o777 for name, _ in LINKS}
    hidden: set[str] = set()
    _apply(ruleset, rulesets, modes, hidden, ())
    return {name: mode for name, mode in modes.items() if name not in hidden}


def _apply(
    number: int, rulesets: Rulesets, modes: dict[str, int], hidden: set[str], including: tuple[int, ...]
) -> None:
    if number not in rulesets:
        raise JailError(f"devfs ruleset {number} not found")
    if number in including:
        raise JailError(f"devfs ruleset {number} includes itself")
    for pattern, action, *arguments in rulesets[number]:
        matched = [name for name in modes if not pattern or matches(pattern, name)]
        if action == "hide":
            hidden.update(matched)
        elif action == "unhide":
            hidden.difference_update(matched)
        elif action == "mode":
            modes.update(dict.fromkeys(matched, _number(number, action, arguments, 8)))
        elif action == "include":
            _apply(_number(number, action, arguments, 10), rulesets, modes, hidden, (*including, number))
        else:
            raise JailError(f"devfs ruleset {number}: unknown action {action}")


def _number(ruleset: int, action: str, arguments: list[str], base: int) -> int:
    digits = "01234567" if base == 8 else "0123456789"
    if len(arguments) != 1 or not arguments[0] or arguments[0].strip(digits):
        raise JailError(f"devfs ruleset {ruleset}: {action}: not a number: {' '.join(arguments)}")
    return int(arguments[0], base)


def matches(pattern: str, name: str) -> bool:
    """fnmatch(3) with FNM_PATHNAME, of ``*``, ``?`` and ``[]``: what devfs(8) compares a path with."""
    if not pattern:
        return not name
    head, rest = pattern[0], pattern[1:]
    if head == "*":
        longest = len(name.partition("/")[0])
        return any(matches(rest, name[skip:]) for skip in range(longest + 1))
    if not name:
        return False
    if head == "?":
        return name[0] != "/" and matches(rest, name[1:])
    if head == "[" and "]" in rest[1:]:
        end = rest.index("]", 1)
        return _in_set(rest[:end], name[0]) and matches(rest[end + 1 :], name[1:])
    return head == name[0] and matches(rest, name[1:])


def _in_set(members: str, character: str) -> bool:
    negated = members[0] == "!"
    members = members[negated:]
    found = False
    while members:
        if len(members) > 2 and members[1] == "-":
            found |= members[0] <= character <= members[2]
            members = members[3:]
        else:
            found |= members[0] == character
            members = members[1:]
    return found != negated and character != "/"
