"""The jail's passwd and group, read by a process that has nothing left to lose: getpwnam(3) without its libraries."""

from __future__ import annotations

import posix

from jailng.errors import JailError
from jailng.linux import filekind

_SIZE = 1 << 20
FLAGS = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_NOCTTY
_UIDS = 65536


class User:
    """A line of passwd(5), with the ids of every group that names the user."""

    __slots__ = ("gid", "groups", "home", "name", "shell", "uid")

    def __init__(self, name: str, uid: int, gid: int, groups: list[int], home: str, shell: str) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home
        self.shell = shell


def _lines(path: str) -> list[list[str]]:
    try:
        return lines(posix.open(path, FLAGS))
    except OSError:
        return []


def lines(fd: int) -> list[list[str]]:
    """The colon-separated lines of a small regular file, opened with ``FLAGS`` and closed here.

    Whatever else may have lain there has none. Raises OSError.
    """
    try:
        status = posix.fstat(fd)
        if filekind.of(status) != filekind.REGULAR or status.st_size > _SIZE:
            return []
        text = posix.read(fd, _SIZE).decode("utf-8", "surrogateescape")
    finally:
        posix.close(fd)
    return [line.split(":") for line in text.split("\n")]


def _number(text: str) -> int:
    # Python makes no number of thousands of digits.
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 and int(text) < _UIDS else -1


def find(name: str) -> User:
    """The user of that name in this process's /etc/passwd, or else of that uid.

    Raises JailError: ``NAME: no such user``, or one whose ids are none of a jail's.
    """
    users = [fields for fields in _lines("/etc/passwd") if len(fields) >= 7]
    uid = _number(name)
    found = [fields for fields in users if fields[0] == name]
    found += [fields for fields in users if uid >= 0 and _number(fields[2]) == uid]
    for fields in found:
        user, group = _number(fields[2]), _number(fields[3])
        if user < 0 or group < 0:
            continue
        groups = [
            gid
            for entry in _lines("/etc/group")
            if len(entry) >= 4 and fields[0] in entry[3].split(",") and (gid := _number(entry[2])) >= 0
        ]
        return User(fields[0], user, group, sorted({group, *groups}), fields[5] or "/", fields[6] or "/bin/sh")
    for what, text in [("uid", fields[2]) for fields in found] + [("gid", fields[3]) for fields in found]:
        if text.isascii() and text.isdigit() and len(text) < 20 and int(text) >= _UIDS:
            raise _beyond(name, what, int(text))
    raise JailError(f"{name}: no such user")


def _beyond(name: str, what: str, number: int) -> JailError:
    return JailError(f"{name}: {what} {number}: a jail has 0 to {_UIDS - 1}")


def of_the_host(name: str) -> User:
    """The user of that name in the host's own database. Raises JailError: ``NAME: no such user``."""
    import grp
    import pwd

    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise JailError(f"{name}: no such user") from None
    if -1 in (entry.pw_uid, entry.pw_gid):  # which is to setresuid(2) no id, but to leave the old one
        raise JailError(f"{name}: an id that nobody can have: {(1 << 32) - 1}")
    groups = {entry.pw_gid, *[group.gr_gid for group in grp.getgrall() if name in group.gr_mem]}
    home, shell = entry.pw_dir or "/", entry.pw_shell or "/bin/sh"
    return User(name, entry.pw_uid, entry.pw_gid, sorted(groups - {-1}), home, shell)


def of_the_host_inside(name: str) -> User:
    """The same, for a process in a jail, which has fewer ids: groups beyond them are left out. Raises JailError."""
    user = of_the_host(name)
    for what, number in (("uid", user.uid), ("gid", user.gid)):
        if number >= _UIDS:
            raise _beyond(name, what, number)
    user.groups = [gid for gid in user.groups if gid < _UIDS]
    return user
