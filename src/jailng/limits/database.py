"""The rules of rctl(8) that there are: FreeBSD's kernel has them, and here a file below /run, gone with the boot.

A rule is about a jail's name, whether such a jail runs or not. Lines are rules as ``Rule.text`` has them, in the order
in which they were added, after one with the boot that they are of, since /run may be on a disk. The file is replaced
whole.
"""

from __future__ import annotations

import posix

from jailng.core import registry
from jailng.core.index import RULES, Index
from jailng.limits.rule import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.limits.rule import Rule

_CREATE = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC


def read() -> list[Rule]:
    """All of them. Raises OSError."""
    try:
        fd = posix.open(RULES, posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        text = posix.read(fd, posix.fstat(fd).st_size)
    finally:
        posix.close(fd)
    boot, _, rest = text.decode("utf-8", "surrogateescape").partition("\n")
    return [_parsed(line) for line in rest.split("\n")[:-1]] if boot == f"boot {registry.boot_id()}" else []


def _parsed(line: str) -> Rule:
    try:
        rule = parse(line)
    except OSError as error:
        raise OSError(error.errno, error.strerror, RULES) from None
    rule.per = rule.per or rule.subject
    return rule


def of_jail(name: str) -> list[Rule]:
    """Those of the jail of that name."""
    return [rule for rule in read() if rule.subject == "jail" and rule.id == name]


def change(changed: Callable[[list[Rule]], list[Rule]]) -> list[Rule]:
    """Replace the rules by what ``changed`` makes of them; those that there were. Raises OSError."""
    with Index():  # for its lock, and the directory
        before = read()
        after = changed(before)
        text = "".join([f"{line}\n" for line in (f"boot {registry.boot_id()}", *[rule.text for rule in after])])
        fd = posix.open(f"{RULES}.new", _CREATE, 0o644)
        try:
            posix.fchmod(fd, 0o644)
            rest = text.encode("utf-8", "surrogateescape")
            while rest:
                rest = rest[posix.write(fd, rest) :]
        except OSError:
            posix.unlink(f"{RULES}.new")
            raise
        finally:
            posix.close(fd)
        if after:
            posix.rename(f"{RULES}.new", RULES)
        else:  # a start looks for the file, and need not read one in which there is nothing
            posix.unlink(f"{RULES}.new")
            _remove()
    return before


def _remove() -> None:
    try:
        posix.unlink(RULES)
    except FileNotFoundError:
        pass


def with_rule(rules: list[Rule], rule: Rule) -> list[Rule]:
    """The rules and this one, which takes the place of what it replaces."""
    return [other for other in rules if not rule.replaces(other)] + [rule]


def in_order(rules: list[Rule]) -> list[Rule]:
    """As FreeBSD's kernel lists them: the newest first, those of one jail together."""
    names = list(dict.fromkeys([rule.id for rule in rules]))
    return [rule for name in names[::-1] for rule in rules[::-1] if rule.id == name]
