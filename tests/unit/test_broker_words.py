"""What a jail's broker and its callers say to each other where they are of two releases, or something goes wrong."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from jailng.core import nested, wire
from jailng.engine import behalf
from jailng.errors import JailError, NotFound


def _told(say: Callable[[socket.socket], object]) -> JailError:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    call = nested.Connection.__new__(nested.Connection)
    call.socket = ours
    with ours, theirs:
        say(theirs)
        with pytest.raises(JailError) as caught:
            call.answer()
    return caught.value


@pytest.mark.parametrize("gone", [True, False])
def test_a_jail_that_is_gone_is_told_by_more_than_words(gone: bool) -> None:
    error = _told(lambda theirs: behalf._Talk(theirs).complain('"x" not found', gone))
    assert (type(error), str(error)) == (NotFound if gone else JailError, '"x" not found')


def test_a_broker_of_another_release_says_less() -> None:
    error = _told(lambda theirs: theirs.send(wire.pack("error", 1, '"x" not found')))
    assert (type(error), str(error), error.status) == (JailError, '"x" not found', 1)


@pytest.mark.parametrize("more", [[], [["A=b=c"]]])
def test_a_caller_of_another_release_says_less(more: list[list[str]]) -> None:
    words = wire.Words(wire.pack(["sh"], ["X=1"], ["none"], [], 0, 0, "execvp: {}", *more))
    command = behalf._command(words)
    assert (command.argv, command.env, command.added) == (["sh"], {"X": "1"}, {"A": "b=c"} if more else {})
