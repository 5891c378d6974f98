"""Which jail a process is in, and what its users are called there."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Iterable
from functools import cache

from jailng.core import attach, passwd, registry
from jailng.core.index import UIDS_PER_JAIL
from jailng.core.registry import Record
from jailng.errors import JailError
from jailng.linux.mount import BENEATH, RESOLVE_NO_XDEV
from jailng.linux.mountfd import openat2
from jailng.params.values import visible

# A jail in another is below the members of that one; a broker is the host's (core/boot.py).
_CGROUP = re.compile(r"/jailng/(?:[0-9]{1,6}/members/)*([0-9]{1,6})/(members|init|broker)(?:/|$| )")
_BENEATH = BENEATH | RESOLVE_NO_XDEV
_USER = r"(?![0-9]+$)[^\s-]\S*"
_NAME = 32  # characters: login names are no longer, and a column is not to be widened at will


def membership(cgroup: str) -> tuple[int, bool]:
    """The jid that a cgroup2 path tells of, 0 for the host's, and whether it is the place of the jail's PID 1.

    Membership is the cgroup and nothing else: a process in the jail's pid namespace alone is not in the jail.
    """
    found = _CGROUP.match(cgroup)
    return (int(found[1]), found[2] == "init") if found and found[2] != "broker" else (0, False)


@cache
def user_name(uid: int) -> str:
    """The host's name for a uid, or the number where it has none.

    A jail's private uids have none, and are not given one: whoever is root in a jail would choose what the host reads.
    """
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def named(word: str, unknown: Callable[[str], str]) -> Record:
    """The running jail of that name or jid, by jail_getid(3) of FreeBSD: there a number is a jid, and need not be one.

    ``unknown`` says what the system call would that is then made with it. Raises JailError.
    """
    known = registry.find(word)
    if known is not None:
        return known
    if word.isascii() and word.isdigit():
        raise JailError(unknown(word.lstrip("0") or "0"))
    raise JailError(f'jail "{visible(word)}" not found')


class Jails:
    """The jails there are, as far as the caller may know them; each is looked up once."""

    def __init__(self) -> None:
        self._records: dict[int, Record | None] = {}
        self._users: dict[int, dict[int, str]] = {}

    def record(self, jid: int) -> Record | None:
        """The running jail of that jid."""
        if jid not in self._records:
            try:
                known = registry.load(jid)
                self._records[jid] = known if known is not None and known.alive() else None
            except (OSError, ValueError):
                self._records[jid] = None
        return self._records[jid]

    def name(self, jid: int) -> str:
        """A jail's name; the number of one that has gone, and "-" for the host."""
        if jid == 0:
            return "-"
        known = self.record(jid)
        return known.name if known is not None else str(jid)

    def running(self) -> list[Record]:
        """Every running jail, by ascending jid."""
        found = []
        for jid in registry.jids():
            known = self.record(jid)
            if known is not None:
                found.append(known)
        return found

    def inside_uid(self, jid: int, uid: int) -> int | None:
        """What the jail calls a uid of the host's; None if it cannot name it, or the jail is none."""
        known = self.record(jid) if jid else None
        if known is None:
            return None
        if known.params.get("ng.uids") == "shared":
            return uid
        return uid - known.base if known.base <= uid < known.base + UIDS_PER_JAIL else None

    def outside_id(self, jid: int, inside: int | None) -> int | None:
        """What the host calls a uid or gid of the jail's; None if there is none, or the jail is none."""
        known = self.record(jid) if jid else None
        if known is None or inside is None:
            return None
        if known.params.get("ng.uids") == "shared":
            return inside
        return known.base + inside if inside < UIDS_PER_JAIL else None

    def inside_user(self, jid: int, uid: int) -> str:
        """The name of a uid by the jail's own passwd, the jail's number for it without one, or "-"."""
        inside = self.inside_uid(jid, uid)
        return "-" if inside is None else self._users_of(jid).get(inside, str(inside))

    def uid_inside(self, jid: int, user: str) -> int | None:
        """The uid that the jail's own passwd has for a name, or a number that is one; None if there is no such user."""
        if user.isascii() and user.isdigit():
            return int(user)
        return next((uid for uid, name in self._users_of(jid).items() if name == user), None)

    def _users_of(self, jid: int) -> dict[int, str]:
        if jid not in self._users:
            known = self.record(jid)
            self._users[jid] = {} if known is None else _users(known)
        return self._users[jid]

    def jids(self, words: Iterable[str]) -> set[int]:
        """Jails by jid or name, ``0`` and the empty word for the host. Raises JailError: the jail is not found."""
        chosen = set()
        for word in words:
            if word in ("", "0"):
                chosen.add(0)
                continue
            found = registry.find(word)
            if found is None:
                raise JailError(f"jail {word} not found" if word.isdigit() else f'jail "{visible(word)}" not found')
            chosen.add(found.jid)
        return chosen


def _users(record: Record) -> dict[int, str]:
    """The users of a jail's passwd. The file is the enemy's: no links, no pipes, no more than 1 MB, no odd names."""
    try:
        # PID 1's root and not the path: that may be another directory by now.
        root = attach.open_tree_of(record)
    except OSError:
        return {}
    try:
        return user_names(passwd.lines(openat2(root, b"etc/passwd", passwd.FLAGS, _BENEATH)))
    except OSError:
        return {}
    finally:
        os.close(root)


def user_names(lines: list[list[str]]) -> dict[int, str]:
    """Names by uid, of the first line for each as getpwuid(3) finds it; what is no line of passwd(5) is passed over.

    So are names with spaces in them, or that are numbers, or begin with a dash: in a table they would be taken for
    other columns, for another's uid, and for no user.
    """
    found: dict[int, str] = {}
    for fields in lines:
        if len(fields) < 7 or not re.fullmatch("[0-9]{1,10}", fields[2]) or not re.fullmatch(_USER, fields[0]):
            continue
        found.setdefault(int(fields[2]), fields[0][:_NAME])
    return found
