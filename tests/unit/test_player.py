"""Playing by a clock that is moved by hand."""

from jailng.observe.player import Player


class Clock:
    """``keys``: when what is pressed."""

    def __init__(self, keys: list[tuple[float, bytes]] | None = None) -> None:
        self.time = 100.0
        self.keys = [(100.0 + at, key) for at, key in keys or []]

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float | None) -> bytes:
        until = self.time + seconds if seconds is not None else float("inf")
        if self.keys and self.keys[0][0] <= until:
            at, key = self.keys.pop(0)
            self.time = max(self.time, at)
            return key
        assert seconds is not None, "waits for ever"
        self.time = until
        return b""


PIECES = [(0.5, b"a"), (1.5, b"b"), (1.5, b"c"), (11.5, b"d")]


def played(
    keys: list[tuple[float, bytes]] | None = None, speed: float = 1.0, idle: float | None = None
) -> tuple[bool, list[tuple[float, bytes]]]:
    clock = Clock(keys)
    found: list[tuple[float, bytes]] = []
    ended = Player(clock, speed, idle).play(PIECES, lambda data: found.append((round(clock.time - 100, 6), data)))
    return ended, found


def test_each_at_its_time() -> None:
    assert played() == (True, PIECES)


def test_speed_and_the_longest_pause() -> None:
    assert played(speed=2)[1] == [(0.25, b"a"), (0.75, b"b"), (0.75, b"c"), (5.75, b"d")]
    assert played(idle=1)[1] == [(0.5, b"a"), (1.5, b"b"), (1.5, b"c"), (2.5, b"d")]
    assert played(speed=0.5, idle=2)[1][-1] == (7.0, b"d")


def test_paused() -> None:
    assert played([(1.0, b" "), (4.0, b"x"), (5.0, b" ")])[1] == [
        (0.5, b"a"),
        (5.5, b"b"),
        (5.5, b"c"),
        (15.5, b"d"),
    ]


def test_step_by_step() -> None:
    keys = [(0.1, b"p"), (1.0, b"."), (2.0, b"."), (3.0, b"."), (4.0, b".")]
    assert played(keys)[1] == [(1.0, b"a"), (2.0, b"b"), (3.0, b"c"), (4.0, b"d")]


def test_faster_and_slower() -> None:
    assert played([(3.5, b"+"), (4.5, b"-")])[1][-1] == (10.5, b"d")


def test_left() -> None:
    assert played([(1.0, b"q")]) == (False, [(0.5, b"a")])
    assert played([(1.0, b" "), (2.0, b"\x03")]) == (False, [(0.5, b"a")])


def test_a_slow_terminal_catches_up() -> None:
    clock = Clock()
    found = []

    def slow(data: bytes) -> None:
        found.append((round(clock.time - 100, 6), data))
        clock.time += 3

    assert Player(clock).play(PIECES, slow)
    assert found == [(0.5, b"a"), (3.5, b"b"), (6.5, b"c"), (11.5, b"d")]
