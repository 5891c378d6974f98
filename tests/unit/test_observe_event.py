import pytest

from jailng.observe import event
from jailng.observe.event import Event


@pytest.mark.parametrize(
    "made",
    [
        Event(1 << 60, event.OUTPUT, 7, 0x500012, 4194304, 0x70000000, "bash", b"\0\xff\x1b[0m"),
        Event(5, event.DROPPED, count=1 << 40),
        Event(5, event.WHO, 0, 1, facts={"user_pid": 12, "user_comm": "-bash\udcff=i", "remote": "[2001:db8::1]:22"}),
        Event(5, event.UNRECORDED, 3, 9, 1, 2, "sixteen-bytes-xx", b"splice", 1 << 33),
    ],
)
def test_an_event_survives_a_socket(made: Event) -> None:
    again = event.unpacked(made.packed())
    assert again == made
    assert [getattr(again, name) for name in Event.__slots__] == [getattr(made, name) for name in Event.__slots__]


def test_what_is_no_event_is_told_of() -> None:
    with pytest.raises(ValueError, match="not an event"):
        event.unpacked(b"hello")
