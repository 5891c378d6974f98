"""What is remembered of a jail's connections, of which somebody inside may make any number."""

from __future__ import annotations

from typing import Any

import pytest

from jailng.observe import connectionprogram as program
from jailng.observe import connections
from jailng.observe.connections import Connections

_TCP, _UDP = 6, 17


def record(when: int, kind: int, socket: int, protocol: int = _TCP) -> bytes:
    here, there = bytes([192, 0, 2, 1]).ljust(16, b"\0"), bytes([192, 0, 2, 2]).ljust(16, b"\0")
    return program.RECORD.pack(when, kind, 2, protocol, 7, 0, b"sshd", there, here, 0x1600, 22, socket, 5, 6)


def take(found: Connections, *given: Any) -> dict[str, Any]:
    taken = found.take(record(*given))
    assert taken is not None
    return taken[2]


def test_that_by_which_somebody_has_come_in_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many he makes from there, one after the other."""
    monkeypatch.setattr(connections, "_MOST", 8)
    found = Connections(0)
    accepted = take(found, 1, program.ACCEPTED, 100)
    for number in range(200, 300):
        last = program.FAILED if number % 2 else program.CLOSED
        for kind in (program.CONNECT, *([program.CONNECTED] if last == program.CLOSED else []), last):
            take(found, number, kind, number)
        take(found, number, program.CONNECT, 1000 + number, _UDP)
    assert found.known(100) == (1, True)
    for number in range(400, 420):  # a socket that is closed and used again
        take(found, number, program.CONNECT, 5)
        take(found, number, program.CLOSED, 5)
    assert found.known(5) == (419, False)
    closed = take(found, 10**9 + 1, program.CLOSED, 100)
    assert (closed["connection"], closed["direction"], closed["seconds"]) == (accepted["connection"], "in", 1.0)
    assert len(found._known) <= 8
    assert len(found._over) <= 8
