"""What a jail's broker and its callers say to each other where they are of two releases, or something goes wrong."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from jailng.core import nested, wire
from jailng.engine import behalf
from jailng.errors import UNCHANGEABLE, JailError, NotFound


def _told(say: Callable[[socket.socket], object]) -> JailError:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    call = nested.Connection.__new__(nested.Connection)
    call.socket = ours
    with ours, theirs:
        say(theirs)
        with pytest.raises(JailError) as caught:
            call.answer()
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        JailError("why"),
        JailError("why", errno=17),
        JailError("why", kind=UNCHANGEABLE),
        NotFound("why"),
        NotFound("why", errno=2),
        OSError(2, "why"),
    ],
)
def test_what_went_wrong_is_told_by_more_than_words(error: JailError | OSError) -> None:
    told = _told(lambda theirs: behalf._Talk(theirs).complain("why", error))
    assert (str(told), told.errno, told.kind) == ("why", error.errno, getattr(error, "kind", ""))
    assert isinstance(told, NotFound) == isinstance(error, NotFound)


def test_a_broker_of_another_release_says_less() -> None:
    error = _told(lambda theirs: theirs.send(wire.pack("error", 1, '"x" not found')))
    assert (type(error), str(error), error.status) == (JailError, '"x" not found', 1)


def test_a_broker_of_another_release_knows_of_more() -> None:
    error = _told(lambda theirs: theirs.send(wire.pack("error", 1, "why", 0, 17, "new", "more")))
    assert (type(error), str(error), error.status, error.errno) == (JailError, "why", 1, 17)


@pytest.mark.parametrize("more", [[], [["A=b=c"]]])
def test_a_caller_of_another_release_says_less(more: list[list[str]]) -> None:
    words = wire.Words(wire.pack(["sh"], ["X=1"], ["none"], [], 0, 0, "execvp: {}", *more))
    command = behalf._command(words)
    assert (command.argv, command.env, command.added) == (["sh"], {"X": "1"}, {"A": "b=c"} if more else {})
