"""Which sessions of which jails are recorded: what jailctl(8) lists, searches and replays."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from jailng.errors import JailError
from jailng.observe import cast, entry, session, store, tally
from jailng.params.values import visible

DIRECTORY = "sessions"


@dataclass(frozen=True)
class Session:
    """One recorded session. ``start`` and ``duration`` in seconds.

    ``state``: live, ended, cut off, or how it ended; damaged if there is no header, but perhaps events after it.
    """

    id: str
    jail: str
    jid: int
    path: str
    terminal: int
    facts: dict[str, str | int]
    width: int
    height: int
    start: float
    duration: float
    counts: cast.Counts
    size: int
    state: str

    @property
    def tty(self) -> str:
        """The terminal, as the jail names it; "" if it is not known."""
        return f"pts/{self.terminal}" if self.terminal >= 0 else ""

    @property
    def uid(self) -> int:
        """The user's, as the jail counts; -1 if it is not known."""
        uid = session.user_of(self.facts)
        base = int(self.facts.get("base", 0))
        return uid - base if base <= uid else uid  # of a jail in this one beyond its own 65536, as in its log

    @property
    def user(self) -> str:
        """The user's name, where it is known, or else the uid."""
        uid = "root" if self.uid == 0 else str(self.uid) if self.uid >= 0 else ""
        name = str(self.facts.get("user", uid))
        return uid if name == "0" else name  # of a tree without a passwd(5)

    @property
    def unrecorded(self) -> int:
        """Bytes that are not in the file."""
        return sum(self.counts.unrecorded.values())

    def open(self) -> BinaryIO:
        """The file, its header read. Raises OSError, and JailError if it has none."""
        file = os.fdopen(entry.opened(self.path), "rb")
        try:
            cast.opened(file)
        except ValueError as error:
            if self.state != session.DAMAGED:
                file.close()
                raise JailError(f"{visible(self.path)}: {error}") from None
        return file


def directory(jail: str) -> int:
    """The directory of a jail's sessions; -1 if there is none. Raises OSError."""
    path = f"{store.BASE}/{jail}/{DIRECTORY}"
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return -1


def sessions(jails: Iterable[str], begins: str = "") -> Iterator[Session]:
    """The sessions of these whose ids begin so, jail by jail, in the order in which they began. Raises OSError."""
    for jail in jails:
        fd = directory(jail)
        if fd < 0:
            continue
        try:
            recorded: dict[str, bool] = {}
            for name in sorted(os.listdir(fd)):
                number = session.number(name)
                found = _one(jail, fd, name, recorded) if number and number.startswith(begins) else None
                if found:
                    yield found
        finally:
            os.close(fd)


def _one(jail: str, directory: int, name: str, recorded: dict[str, bool]) -> Session | None:
    try:
        fd = entry.opened(name, directory)
    except (FileNotFoundError, entry.NoFile):
        return None
    try:
        found = session.summary(fd)
        facts = found.header.own | found.who
    except session.NotBegun:
        return None  # is being made, or was when its recorder was killed
    except ValueError:
        header = cast.Header(timestamp=session.began(name))
        found, facts = session.Summary(header, ended=session.DAMAGED, size=os.fstat(fd).st_size), {}
    finally:
        os.close(fd)
    recorder = str(facts.get("recorder", ""))
    if not found.ended and recorder not in recorded:
        recorded[recorder] = session.is_recorded(directory, recorder)
    start = int(facts["wall"]) / 1e9 if "wall" in facts else found.header.timestamp
    state = found.ended or (session.LIVE if recorded[recorder] else session.CUT_OFF)
    return Session(
        id=session.number(name),
        jail=jail,
        jid=int(facts.get("jid", 0)),
        path=f"{store.BASE}/{jail}/{DIRECTORY}/{name}",
        terminal=int(facts.get("terminal", -1)),
        facts=facts,
        width=found.header.width,
        height=found.header.height,
        start=start,
        duration=max(found.last / 1e9, time.time() - start if state == session.LIVE else 0),
        counts=found.counts,
        size=found.size,
        state=state,
    )


def find(word: str) -> Session:
    """The session of that id, or whose id begins so, perhaps after ``JAIL/``. Raises JailError and OSError."""
    jail, slash, number = word.rpartition("/")
    names = [jail] if slash else store.jails()
    found = list(sessions(names, number)) if number else []
    if not found:
        raise JailError(f"{visible(word)}: no such session")
    if len(found) > 1:
        ids = ", ".join([f"{visible(one.jail)}/{one.id}" for one in found[:5]])
        raise JailError(f"{visible(word)}: more than one session: {ids}{', ...' if len(found) > 5 else ''}")
    return found[0]


def missing(jail: str) -> dict[str, dict[str, int]]:
    """What is not recorded of a jail, all its sessions together (observe/tally.py). Raises OSError."""
    fd = directory(jail)
    if fd < 0:
        return {}
    try:
        return tally.read(fd)
    finally:
        os.close(fd)
