"""The worker for terminals, after others have died."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from jailng.observe import event, terminals
from jailng.observe.event import Event


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
