"""A rule of rctl(8), or a filter, which is a rule with gaps: SUBJECT:ID:RESOURCE:ACTION=AMOUNT/PER.

Read as usr.bin/rctl/rctl.c and sys/kern/kern_rctl.c of FreeBSD 15 do it one after the other: the command turns names
and units into numbers, the kernel reads the rest, and each has its own complaints.
"""

from __future__ import annotations

import errno
import posix

from jailng.errors import JailError
from jailng.params.limit import ACTIONS, RESOURCES, SUBJECTS, Limit, expand, most
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_NAME = 255
_SHORT = {"u": "user", "g": "group", "p": "process", "l": "loginclass", "c": "loginclass", "class": "loginclass"}
_SHORT["j"] = "jail"
_SCALE = 1024
_CUT = 973  # of 1024: what 9 and more than that would be rounded to takes two digits before the point
_PREFIXES = ("", "K", "M", "G", "T", "P", "E")


class Rule:
    """What is "", or None of ``amount``, was not given: any will do for a filter."""

    __slots__ = ("action", "amount", "id", "per", "resource", "subject")

    def __init__(
        self,
        subject: str = "",
        id: str = "",  # noqa: A002  # rctl(8)'s word
        resource: str = "",
        action: str = "",
        amount: int | None = None,
        per: str = "",
    ) -> None:
        self.subject = subject
        self.id = id
        self.resource = resource
        self.action = action
        self.amount = amount
        self.per = per

    @property
    def text(self) -> str:
        """As the kernel writes it: without what goes without saying."""
        return self.shown()

    def shown(self, human: bool = False) -> str:
        """The same, with ``human`` the amount in units."""
        amount = humanized(self.amount or 0) if human else str(self.amount)
        per = f"/{self.per}" if self.per != self.subject else ""
        return f"{self.subject}:{self.id}:{self.resource}:{self.action}={amount}{per}"

    @property
    def whole(self) -> bool:
        """Whether nothing is missing (rctl_rule_fully_specified())."""
        named = self.subject and self.id and self.resource and self.action and self.per
        return bool(named) and self.amount is not None

    @property
    def limit(self) -> Limit:
        """It without its subject. Whole."""
        assert self.amount is not None
        return Limit(self.resource, self.action, self.amount, self.per)

    def matches(self, other: Rule) -> bool:
        """Whether this, as a filter, lets the other through (rctl_rule_matches())."""
        for slot in self.__slots__:
            wanted = getattr(self, slot)
            if wanted not in ("", None) and wanted != getattr(other, slot):
                return False
        return True

    def replaces(self, other: Rule) -> bool:
        """Whether the other goes when this is added (rctl_rule_add())."""
        same = (self.subject, self.id) == (other.subject, other.id)
        return same and self.limit.replaces(other.limit)

    def __repr__(self) -> str:
        return f"<Rule {self.text}>"


def of_jail(name: str, limit: Limit) -> Rule:
    """The rule that a limit of a jail is."""
    return Rule("jail", name, limit.resource, limit.action, limit.amount, limit.per)


def expanded(text: str, number_of: Callable[[str, str], int | None] | None) -> str:
    """The rule as the command hands it to the kernel: short words, names of users, and units made whole.

    ``number_of`` has the number of a user or group; None leaves names as they are. Raises JailError.
    """
    parts = text.split(":", 2)
    if len(parts) < 2:
        raise JailError(f"malformed rule '{visible(text)}': missing subject")
    subject, name = parts[:2]
    rest = parts[2] if parts[2:] else ""
    subject = _SHORT.get(subject.lower(), subject)
    if number_of is not None and subject.lower() in ("user", "group") and name:
        name = str(_number(text, subject.lower(), name, number_of))
    resource, colon, rest = rest.partition(":")
    action, mark, rest = _cut(rest, "=/")
    amount, slash, per = rest.partition("/")
    if not amount:
        return f"{subject}:{name}:{resource}{colon}{action}{mark}{rest}"
    number = expand(amount)
    if number is None:
        raise JailError(f"malformed rule '{visible(text)}': invalid numeric value '{visible(amount)}'")
    return f"{subject}:{name}:{resource}:{action}={number}{slash}{per}"


def _number(text: str, kind: str, name: str, number_of: Callable[[str, str], int | None]) -> int:
    found = number_of(kind, name)
    if found is not None:
        return found
    if not name[0].isdigit():
        raise JailError(f"malformed rule '{visible(text)}': unknown {kind} '{visible(name)}'")
    if not (name.isascii() and name.isdigit() and len(name) < 12):
        raise JailError(f"malformed rule '{visible(text)}': trailing characters after numerical id")
    return int(name)


def _cut(text: str, marks: str) -> tuple[str, str, str]:
    """strsep(3): up to the first of several characters, that, and what follows."""
    for at, char in enumerate(text):
        if char in marks:
            return text[:at], char, text[at + 1 :]
    return text, "", ""


def parse(text: str) -> Rule:
    """Read a rule or filter as the kernel does (rctl_string_to_rule()), without names of users. Raises OSError."""
    parts = text.split(":", 3)
    subject, name, resource, rest = parts + [""] * (4 - len(parts))
    action, _, rest = _cut(rest, "=/")
    amount, _, per = rest.partition("/")
    made = Rule(_word(subject, SUBJECTS), name, _word(resource, RESOURCES), _word(action, ACTIONS), None, "")
    _check_id(made)
    if amount:
        if not (amount.isascii() and amount.isdigit()) or len(amount) > 20:
            raise complaint(errno.EINVAL)
        made.amount = int(amount)
        if made.amount > most(made.resource):
            raise complaint(errno.ERANGE)
    made.per = _word(per, SUBJECTS)
    return made


def _word(text: str, words: tuple[str, ...] | dict[str, tuple[str, str, str]]) -> str:
    word = text.lower()
    if word and word not in words:
        raise complaint(errno.EINVAL)
    return word


def _check_id(rule: Rule) -> None:
    if not rule.id:
        return
    if not rule.subject or (rule.subject in ("process", "user") and not (rule.id.isascii() and rule.id.isdigit())):
        raise complaint(errno.EINVAL)
    if rule.subject in ("loginclass", "jail") and len(rule.id.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
        raise complaint(errno.ENAMETOOLONG)
    if any(char < " " or char == "\x7f" for char in rule.id):  # no jail's name has one, and rules are kept one a line
        raise complaint(errno.EINVAL)


def complaint(number: int, why: str = "") -> OSError:
    """An error by its number, in FreeBSD's words, and why where that is Linux's doing."""
    text = "Result too large" if number == errno.ERANGE else posix.strerror(number)
    return OSError(number, f"{text}: {why}" if why else text)


def humanized(number: int) -> str:
    """An amount in units of 1024, of at most five characters (humanize_number(3), HN_AUTOSCALE and HN_DECIMAL)."""
    rest = scale = 0
    while number >= 10**4 or (number == 10**4 - 1 and rest >= _SCALE // 2):
        number, rest = divmod(number, _SCALE)
        scale += 1
    tenths = (rest * 10 + _SCALE // 2) // _SCALE
    if scale and (number < 9 or (number == 9 and rest < _CUT)):
        return f"{number + tenths // 10}.{tenths % 10}{_PREFIXES[scale]}"
    return f"{number + (rest + _SCALE // 2) // _SCALE}{_PREFIXES[scale]}"
