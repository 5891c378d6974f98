"""The worker for terminals: after others have died, and whose one is."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jailng.observe import event, ptys, ringrecord, terminals
from jailng.observe.event import Event, Facts
from jailng.observe.shared import user_device
from jailng.observe.tracker import Session, Tracker


class _Ring:
    """Of some records, of which the first is one that nobody can read."""

    def __init__(self) -> None:
        self.position, self.waiting = 64, 32

    def skip(self) -> bool:
        self.position, self.waiting = self.position + 16, self.waiting - 16
        return True


def test_a_record_at_which_worker_after_worker_dies_is_left_out_and_counted() -> None:
    ring, told = _Ring(), memoryview(bytearray(24)).cast("Q")
    events: list[Event] = []

    def begin() -> None:
        """Another worker."""
        worker = SimpleNamespace(ring=ring, held=SimpleNamespace(told=told), _tell=events.append)
        terminals._Work._pass_over(cast(Any, worker))

    begin()  # it dies there
    begin()
    assert not events and ring.position == 64
    begin()
    assert [(one.kind, one.count) for one in events] == [(event.DROPPED, 1)]
    assert ring.position == 80
    begin()  # of something else, as the ring is read on
    ring.position = 96
    begin()
    begin()
    assert len(events) == 1
    ring.waiting = 0  # nothing there that they could have died of
    for _ in range(5):
        begin()
    assert len(events) == 1


def test_whose_a_terminal_is_is_told_with_the_first_output(tmp_path: Path) -> None:
    """A command by ssh(1) is over before it can be seen who sits there."""
    dev, slave = user_device(7), tmp_path / "3"
    slave.touch()
    told: list[Event] = []
    tracker = Tracker.__new__(Tracker)
    tracker.devs, tracker.told = {dev: os.open(tmp_path, os.O_RDONLY)}, memoryview(bytearray(8)).cast("Q")
    tracker._held, tracker.tell = None, told.append

    def users(facts: Facts, *kinds: int) -> list[object]:
        """Who is told to be there."""
        told.clear()
        tracker.sessions = {(dev, 3): Session(dev, 3, 0.0, Event(0, event.START, 3, dev), facts=facts)}
        for kind in kinds:
            head = ringrecord.HEAD.pack(1, 5 << 32, 7, 3, kind, 1, 0, 0, 80, 0, b"sshd")
            tracker.take(head + b"x")
        return [one.facts.get("user_uid") for one in told if one.kind == event.WHO]

    try:
        owner = slave.stat().st_uid
        assert users({}, ringrecord.INPUT) == []
        assert users({}, ringrecord.RESIZE, ringrecord.OUTPUT, ringrecord.OUTPUT) == [owner]
        assert users({"user_uid": owner + 1}, ringrecord.RESIZE, ringrecord.OUTPUT) == [owner]
        assert users({"user_pid": 5, "user_uid": owner + 1}, ringrecord.OUTPUT) == []
        slave.unlink()
        assert users({}, ringrecord.OUTPUT) == []
    finally:
        os.close(tracker.devs[dev])


def test_whose_connection_it_is_where_one_process_serves_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """An sshd that has forwarded ports, whose parent has the connection alone, and busybox's telnetd."""
    peers = {50: ["first:1"], 51: ["first:1", "elsewhere:80"], 60: ["first:1", "second:2", "third:3"]}
    monkeypatch.setattr(ptys, "_peers", lambda pid: [("here:23", one) for one in peers.get(pid, [])])
    monkeypatch.setattr(ptys, "process", lambda pid: SimpleNamespace(parent=50 if pid == 51 else 1))
    assert [ptys.remote(pid) for pid in (50, 51, 60, 70)] == ["first:1", "first:1", "", ""]
    assert ptys.remote(60, ["first:1", "third:3"]) == "second:2"
    assert ptys.remote(50, ["first:1"]) == "first:1"  # another session of one connection
