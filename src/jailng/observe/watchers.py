"""Those who watch a jail's terminals live: jailctl(8), by a socket that only root can reach.

A watcher says what it wants, one JSON object a message, and is sent events (observe/event.py), one a message. One that
does not keep up loses what comes meanwhile, and is told how much; nobody waits for it. What it has asked for it has
from when ``HEARD`` comes back on.

    {"watch": null}            the events of all terminals
    {"watch": [dev, number]}   of one
    {"watch": false}           none for now
    {"watch": false, "made": JID}  the terminals of that jail in this one are this one's when that is heard
    {"typed": "HEX", "watch": [dev, number]}  the watcher has typed that, which is recorded
"""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from contextlib import suppress
from typing import Any

from jailng.observe import event, shared
from jailng.observe.event import Event

_ROOM = 4 << 20  # bytes that wait for a watcher, as far as the kernel gives them
_SO_SNDBUFFORCE = 32
_MOST = 64  # watchers
_PATIENCE = 1.0  # seconds, for one who asks and does not read
_MOST_LATER = 4096  # events that wait for room
_LONGEST = 65536
HEARD = b"."


def place(jid: int) -> str:
    """Where the post of a jail listens."""
    return f"{shared.DIRECTORY}/{jid}{shared.SOCKET}"


def listening(jid: int) -> socket.socket:
    """The socket there. Raises OSError."""
    os.makedirs(shared.DIRECTORY, mode=0o700, exist_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    with suppress(FileNotFoundError):
        os.unlink(place(jid))
    made.bind(place(jid))
    os.chmod(place(jid), 0o600)
    made.listen(8)
    return made


class Watcher:
    """One of them."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.wants: tuple[int, int] | None = None
        self.watches = False
        self._missed = 0
        self._later: deque[bytes] = deque()
        self.gone = False
        connection.setblocking(False)
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _ROOM)

    def concerned(self, one: Event) -> bool:
        """Whether it has asked for that."""
        return self.watches and (self.wants is None or one.terminal < 0 or self.wants == one.session)

    def send(self, one: Event, message: bytes) -> None:
        """Send an event if there is room; else it is counted, and sent later if it is the begin or end of a session."""
        self.flush(one.time)
        if not self.behind and self._try(message):
            return
        if one.kind in (event.START, event.END) and len(self._later) < _MOST_LATER:
            self._later.append(message)
        else:
            self._missed += one.count if one.kind == event.DROPPED else 1

    def want(self, wants: tuple[int, int] | None, watches: bool) -> None:
        """Have it get that from now on."""
        self.wants, self.watches = wants, watches
        self._missed = 0
        self._later.clear()
        self.connection.setblocking(True)
        self.connection.settimeout(_PATIENCE)
        try:
            self.connection.send(HEARD)
        except OSError:
            self.gone = True
        self.connection.setblocking(False)

    @property
    def behind(self) -> bool:
        """Whether something is still to be sent."""
        return bool(self._missed or self._later)

    def flush(self, time: int) -> None:
        """Send what has waited, as far as there is room; how much was missed first."""
        if self._missed and self._try(Event(time, event.DROPPED, count=self._missed).packed()):
            self._missed = 0
        while not self._missed and self._later and self._try(self._later[0]):
            self._later.popleft()

    def _try(self, message: bytes) -> bool:
        try:
            self.connection.send(message)
        except BlockingIOError:
            return False
        except OSError:
            self.gone = True
        return True


class Watchers:
    """All who watch one jail."""

    def __init__(self, listens: socket.socket) -> None:
        self.listens = listens
        self.all: dict[int, Watcher] = {}
        self.had_any = False

    def fds(self) -> list[int]:
        """What to wait for."""
        return [self.listens.fileno(), *self.all]

    def tell(self, one: Event) -> None:
        """Send an event to those who want it."""
        message = b""
        for watcher in self.all.values():
            if watcher.concerned(one):
                message = message or one.packed()
                watcher.send(one, message)

    def flush(self, time: int) -> bool:
        """Send what has waited for room; whether something still does."""
        behind = [watcher for watcher in self.all.values() if watcher.behind]
        for watcher in behind:
            watcher.flush(time)
        return any(watcher.behind for watcher in behind)

    def hear(self, ready: list[int]) -> list[tuple[Watcher, dict[str, Any]]]:
        """Let in who has come, let go who has left; what the others say."""
        said = []
        for fd in ready:
            watcher = self.all.get(fd)
            if watcher is not None:
                found = self._said(watcher)
                if found:
                    said.append((watcher, found))
        if self.listens.fileno() in ready:
            self._let_in()
        for fd in [fd for fd, watcher in self.all.items() if watcher.gone]:
            self.all.pop(fd).connection.close()
        return said

    def _let_in(self) -> None:
        while True:
            try:
                connection, _ = self.listens.accept()
            except OSError:
                return
            if len(self.all) >= _MOST:
                connection.close()
                continue
            self.had_any = True
            self.all[connection.fileno()] = Watcher(connection)

    def _said(self, watcher: Watcher) -> dict[str, Any]:
        try:
            message = watcher.connection.recv(_LONGEST)
        except BlockingIOError:
            return {}
        except OSError:
            message = b""
        if not message:
            watcher.gone = True
            return {}
        try:
            found = json.loads(message)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            watcher.gone = True
            return {}
        return found

    def close(self) -> None:
        """Let all go."""
        for watcher in self.all.values():
            watcher.connection.close()
        self.all.clear()
