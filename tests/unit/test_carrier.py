"""What a process that moves files says to the one that waits for it: nothing of it has to make sense."""

import os

import pytest

from jailng.ctl.carrier import Carrier


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 60_000,
        b'{"done": {"failed": 1e999}}',
        b'{"done": {"failed": NaN}}',
        b'{"done": {"failed": []}}',
        b'{"done": {"failed": "' + b"9" * 5000 + b'"}}',
        b"[]",
        b"\xff\x1b",
        b"7",
    ],
)
def test_what_makes_no_sense_is_not_heard(line: bytes) -> None:
    heard, say = os.pipe()
    os.write(say, line + b'\n{"failed": "a: b"}\n')
    os.close(say)
    carrier = Carrier("host", False, -1, -1, heard)
    while not carrier.over:
        carrier.hear()
    os.close(heard)
    assert carrier.failed == ["a: b"]
    assert not carrier.done
