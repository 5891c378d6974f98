"""Jails that wait for processes: for as long as it takes, or until their time is over."""

from __future__ import annotations

import time
from select import POLLIN, poll

from jailng.linux.ns import LONGEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.engine.command import Wait
    from jailng.engine.dependency import Jail


class Asleep:
    """The jails that wait, each for processes of its own. ``commands`` is how many wait for a command of exec.*."""

    __slots__ = ("_by_fd", "_poll", "_waits", "commands")

    def __init__(self) -> None:
        self.commands = 0
        self._waits: dict[Jail, tuple[Wait, float, set[int]]] = {}  # until when, and which have not ended
        self._by_fd: dict[int, Jail] = {}
        self._poll = poll()

    def __len__(self) -> int:
        return len(self._waits)

    @property
    def descriptors(self) -> int:
        """How many pidfds are waited for."""
        return len(self._by_fd)

    def add(self, jail: Jail, wait: Wait) -> None:
        """Let a jail wait."""
        until = time.monotonic() + wait.seconds if wait.seconds else 0.0
        self._waits[jail] = (wait, until, set(wait.pidfds))
        self.commands += wait.counts
        for fd in wait.pidfds:
            self._by_fd[fd] = jail
            self._poll.register(fd, POLLIN)

    def wake(self, at_once: bool) -> tuple[Jail, bool] | None:
        """A jail whose processes have all ended, or (True) have had their time. None: ``at_once`` there is none."""
        while self._waits:
            first = min((until for _, until, _ in self._waits.values() if until), default=0.0)
            rest = 0.0 if at_once else min(max(first - time.monotonic(), 0) * 1000, LONGEST) if first else -1
            for fd, _ in self._poll.poll(rest):
                jail = self._by_fd[fd]
                left = self._waits[jail][2]
                self._forget(fd)
                left.discard(fd)
                if not left:
                    self._remove(jail)
                    return jail, False
            now = time.monotonic()
            for jail, (_, until, _) in self._waits.items():
                if until and until <= now:
                    self._remove(jail)
                    return jail, True
            if at_once:
                return None
        return None

    def _remove(self, jail: Jail) -> None:
        wait, _, left = self._waits.pop(jail)
        self.commands -= wait.counts
        for fd in left:
            self._forget(fd)

    def _forget(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._by_fd[fd]
