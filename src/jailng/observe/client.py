"""The other end of observe/watchers.py: what a command that watches a jail's terminals asks of its post."""

from __future__ import annotations

import errno
import json
import os
import socket
from contextlib import suppress

from jailng.core import registry
from jailng.core.registry import Record
from jailng.errors import JailError
from jailng.linux import processid
from jailng.observe import event, posts, watchers
from jailng.observe.event import Event
from jailng.params.values import visible

_TRIES = 5
_SECONDS = 5.0
_LONGEST = 1 << 17
_KIND = "tty"


class Watching:
    """A connection to the post of a jail. ``fd`` becomes readable when there are events, or the post has gone."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.fd = connection.fileno()

    def watch(self, dev: int, number: int) -> None:
        """Have the events of one terminal: all from when this returns on. Raises OSError."""
        self._ask([dev, number])

    def watch_all(self) -> None:
        """Have those of all of the jail's. Raises OSError."""
        self._ask(None)

    def pause(self) -> None:
        """Have no more events for now. Raises OSError."""
        self._ask(False)

    def made(self, jid: int) -> None:
        """Have it take in a jail that is in its own. Raises OSError."""
        self._ask(False, made=jid)

    def typed(self, dev: int, number: int, text: bytes) -> None:
        """Have it recorded that this has been typed into a terminal. Raises OSError."""
        self._say({"watch": [dev, number], "typed": text.hex()})

    def _ask(self, wanted: list[int] | bool | None, **more: int) -> None:
        self._say({"watch": wanted, **more})
        while (message := self.connection.recv(_LONGEST)) != watchers.HEARD:  # else it is what was wanted before
            if not message:
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    def _say(self, words: dict[str, object]) -> None:
        self.connection.send(json.dumps(words).encode())

    def read(self) -> Event | None:
        """The next event; None: the post, or the jail, has ended."""
        try:
            message = self.connection.recv(_LONGEST)
        except ConnectionError:
            message = b""
        return event.unpacked(message) if message else None

    def close(self) -> None:
        """Watch no more."""
        self.connection.close()


def connect(record: Record) -> Watching:
    """Watch a jail: by its own post, or by one of a jail that it is in, which has its terminals too, or by a new one.

    Raises JailError: what the kernel or the jail lacks for it.
    """
    for one in registry.upwards(record):
        if processid.is_alive(one.posts.get(_KIND, "")):
            with suppress(OSError):
                return _connected(one)
    reason = ""
    for _ in range(_TRIES):
        if not record.lock() or not record.alive():
            record.unlock()
            raise JailError(f'jail "{visible(record.name)}" not found')
        try:
            posts.ensure(record, _KIND)
            return _connected(record)
        except OSError as error:
            reason = error.strerror or str(error)
        finally:
            record.unlock()
        processid.ends(record.posts.get(_KIND, ""), _SECONDS)  # one that nobody watched any more was about to leave
    raise JailError(f"{visible(record.name)}: its terminals cannot be watched: {reason}")


def keep(record: Record) -> None:
    """Have the post of a jail that is to be recorded stay; one that is about to leave has left when this returns.

    It may be there for those who watched, of whom there are none any more. Needs the jail's lock.
    """
    try:
        made = _connected(record)
        try:
            made.connection.settimeout(_SECONDS)
            made.pause()  # before it leaves after that it reads the record again
        finally:
            made.close()
    except TimeoutError:
        pass  # it is there, and does not get to it
    except OSError:
        processid.ends(record.posts.get(_KIND, ""), _SECONDS)


def made_in(record: Record, jid: int) -> None:
    """Nothing on the terminals of that jail, which is in this one, escapes its post when this returns.

    One that does not answer, or has ended, finds them by itself.
    """
    with suppress(OSError):
        made = _connected(record)
        try:
            made.connection.settimeout(_SECONDS)
            made.made(jid)
        finally:
            made.close()


def _connected(record: Record) -> Watching:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        made.connect(watchers.place(record.jid))
    except OSError:
        made.close()
        raise
    return Watching(made)
