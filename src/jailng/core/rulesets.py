"""Which device nodes and links are in a jail's /dev, by devfs rule set: devfs(8), devfs.rules(5).

Pure: what is computed here, core/rootfs.py makes; what it is computed from where the host's administrator has rules of
his own, core/devices.py finds. docs/decisions/0009-devices.md says why further devices have to be named. Loaded where
a jail has another rule set than the usual, whose result core/devfs.py has.
"""

from __future__ import annotations

from jailng.core.devfs import DEVICES, JAIL_RULESET, LINKS
from jailng.errors import JailError
from jailng.linux.libc import ENOENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from jailng.core.devfs import Link, Node

    # pattern of the path, types of devices (words), action, its argument; the first two are empty for any
    Rule = tuple[str, str, str, str]
    Rulesets = Mapping[int, tuple[Rule, ...]]
    # the id of a user or group: "user" or "group", and what the rule says
    Ids = Callable[[str, str], int]

_BLOCK, _TYPE = 0o060000, 0o170000


def _unhidden(names: str) -> tuple[Rule, ...]:
    return tuple([(name, "", "unhide", "") for name in names.split()])


# FreeBSD's /etc/defaults/devfs.rules; full and tty are added, since Linux programs expect them in every /dev.
RULESETS: Rulesets = {
    1: (("", "", "hide", ""),),
    2: _unhidden("log null zero full crypto random urandom"),
    3: _unhidden("pty* tty* ptmx pts pts/* fd fd/* stdin stdout stderr"),
    4: (("", "", "include", "1"), ("", "", "include", "2"), ("", "", "include", "3"), *_unhidden("fuse zfs")),
    5: (("", "", "include", "4"), *_unhidden("pf")),
}
NAMES = {
    "devfsrules_hide_all": 1,
    "devfsrules_unhide_basic": 2,
    "devfsrules_unhide_login": 3,
    "devfsrules_jail": 4,
    "devfsrules_jail_vnet": 5,
}


class Dev:
    """What a /dev has under a rule set, as it is worked out: of each entry its node, and whether it is hidden.

    ``further`` are devices of the host's beyond ``DEVICES``. They are hidden to begin with, and only a rule that names
    one shows it: whose pattern has no wildcard before the first "/".
    """

    __slots__ = ("_further", "_hidden", "_ids", "_nodes", "_rulesets")

    def __init__(self, rulesets: Rulesets, further: Iterable[Node], ids: Ids) -> None:
        named = [*further]
        self._rulesets = rulesets
        self._ids = ids
        self._nodes: dict[str, Node] = {node[0]: node for node in [*DEVICES, *named]}
        self._further = {node[0] for node in named}
        self._hidden = set(self._further)

    def apply(self, number: int, including: tuple[int, ...] = ()) -> None:
        """Apply the rules of a set in their order, so that the last which matches wins. Raises JailError."""
        if number not in self._rulesets:
            raise JailError(f"devfs ruleset {number} not found", errno=ENOENT)
        if number in including:
            raise JailError(f"devfs ruleset {number} includes itself")
        for rule in self._rulesets[number]:
            try:
                self._apply_one(rule, (*including, number))
            except ValueError:
                raise JailError(f"devfs ruleset {number}: {rule[2]}: not a number: {rule[3]}") from None

    def _apply_one(self, rule: Rule, including: tuple[int, ...]) -> None:
        pattern, types, action, argument = rule
        if action == "include":
            # FreeBSD goes one level deep, vfs.devfs.rule_depth, and passes over what is deeper. Of hiding, that is.
            self.apply(int(argument), including)
            return
        names = [name for name in self._nodes if self._matches(name, pattern, types)]
        names += [name for name, _ in LINKS if not types and (not pattern or matches(pattern, name))]
        if action == "hide":
            self._hidden.update(names)
        elif action == "unhide":
            kept = set() if pattern and not _is_wild(pattern.partition("/")[0]) else self._further
            self._hidden.difference_update(set(names) - kept)
        else:
            self._change(names, action, argument, including[-1])

    def _matches(self, name: str, pattern: str, types: str) -> bool:
        if pattern and not matches(pattern, name):
            return False
        return not types or any(_is_of_type(self._nodes[name], kind) for kind in types.split())

    def _change(self, names: list[str], action: str, argument: str, ruleset: int) -> None:
        if action not in ("mode", "user", "group"):
            raise JailError(f"devfs ruleset {ruleset}: unknown action {action}")
        number = int(argument, 8) & 0o777 if action == "mode" else self._ids(action, argument)
        for name in names:
            if name in self._nodes:
                _, mode, major, minor, uid, gid = self._nodes[name]
                if action == "mode":
                    mode = mode & _TYPE | number
                elif action == "user":
                    uid = number
                else:
                    gid = number
                self._nodes[name] = (name, mode, major, minor, uid, gid)

    def nodes(self) -> list[Node]:
        """The nodes that are shown."""
        return [node for name, node in self._nodes.items() if name not in self._hidden]

    def links(self) -> list[Link]:
        """The links that are shown."""
        return [link for link in LINKS if link[0] not in self._hidden]


def shown(
    ruleset: int = 0, rulesets: Rulesets = RULESETS, further: Iterable[Node] = (), ids: Ids | None = None
) -> tuple[list[Node], list[Link]]:
    """The device nodes and the symbolic links (name, target) of a /dev under this ruleset.

    0 means 4, as for jail(8). Without ``ids`` users and groups are numbers. Raises JailError for a ruleset, an action
    or an argument that there is not.
    """
    dev = Dev(rulesets, further, ids or (lambda _, text: int(text)))
    dev.apply(ruleset or JAIL_RULESET)
    return dev.nodes(), dev.links()


def named(ruleset: int, rulesets: Rulesets) -> list[str]:
    """What devices of the host's a rule set may show: the first parts of the paths that its rules name.

    Raises JailError.
    """
    found: dict[str, None] = {}
    for pattern, _, action, _ in _rules(ruleset or JAIL_RULESET, rulesets, ()):
        first = pattern.partition("/")[0]
        if action == "unhide" and first and not _is_wild(first):
            found[first] = None
    return list(found)


def _rules(number: int, rulesets: Rulesets, including: tuple[int, ...]) -> Iterator[Rule]:
    if number not in rulesets:
        raise JailError(f"devfs ruleset {number} not found", errno=ENOENT)
    if number in including:
        raise JailError(f"devfs ruleset {number} includes itself")
    for rule in rulesets[number]:
        if rule[2] == "include" and rule[3].isdecimal():
            yield from _rules(int(rule[3]), rulesets, (*including, number))
        yield rule


def _is_of_type(node: Node, kind: str) -> bool:
    """Whether a device is of a kind that devfs(8) knows: disk, mem, tape or tty."""
    _, mode, major, minor, *_ = node
    if mode & _TYPE == _BLOCK:
        return kind == "disk"
    if kind == "mem":
        return major == 1 and minor in (1, 2, 4)  # mem, kmem, port
    if kind == "tape":
        return major in (9, 37)  # st, ide-tape
    return kind == "tty" and (major in (4, 5) or 136 <= major <= 143 or major in (166, 188, 204))


def writable(nodes: Iterable[Node]) -> list[str]:
    """Which of these are disks or memory, by name: what securelevel keeps from being written from 1 upwards."""
    return [node[0] for node in nodes if _is_of_type(node, "disk") or _is_of_type(node, "mem")]


def _is_wild(pattern: str) -> bool:
    return any(mark in pattern for mark in "*?[")


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
