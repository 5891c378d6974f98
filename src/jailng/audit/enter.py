"""Running the probes in a container, by a program there to which standard input and output lead."""

from __future__ import annotations

import json
import os
import selectors
import time
from collections.abc import Callable, Mapping
from typing import IO, Protocol

from jailng.audit import observed
from jailng.audit.bundle import SCRIPT, stream
from jailng.audit.planted import TOLD
from jailng.audit.probe import ABSENT, BROKEN, ESCAPED, EXPOSED, HELD, SEEN
from jailng.errors import JailError
from jailng.params.values import visible

_PATIENCE = 300  # seconds; what root inside does may be anything
_MOST = 1 << 22  # bytes of what it says, which are 90 kB where nobody lies
_MOST_LINES, _LONGEST = 10_000, 1 << 16
_WORDS = frozenset([HELD, EXPOSED, ESCAPED, ABSENT, SEEN, BROKEN])

Said = dict[str, tuple[str, str]]


class Program(Protocol):
    """What Popen and jailng.api's Process have in common."""

    stdin: IO[bytes] | None
    stdout: IO[bytes] | None

    def kill(self) -> None:
        """Send SIGKILL."""

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended."""


def command(facts: Mapping[str, str], prefix: str = "") -> list[str]:
    """What is to be run inside. ``prefix`` is how the names begin of the probes that are wanted."""
    return ["/bin/sh", "-c", SCRIPT, _mark(facts), *([prefix] if prefix else [])]


def _mark(facts: Mapping[str, str]) -> str:
    """By which the host knows the program from others."""
    return f"jailng-audit-{facts['queue'][-8:]}"


def run(program: Program, facts: dict[str, str]) -> Said:
    """Have the probes made by a program that runs ``command``; its standard error is its standard output.

    Each name with its verdict and what was said; what the host sees of the program is added to the facts. Raises
    JailError, where they did not come to an end, with the last
    that was heard.
    """
    told = {name: value for name, value in facts.items() if name in TOLD}
    try:
        given = stream() + json.dumps(told).encode() + b"\n"
        said, trouble = _exchange(program, given, lambda: facts.update(observed.of(_mark(facts))))
    finally:
        program.kill()
        program.wait()
        for stream_of_it in (program.stdin, program.stdout):
            if stream_of_it is not None:
                stream_of_it.close()
    found: Said = {}
    noise = ""
    for line in said.split(b"\n", _MOST_LINES)[:_MOST_LINES]:
        try:
            heard = json.loads(line[:_LONGEST])
        except (ValueError, RecursionError):
            noise = line[:_LONGEST].decode("utf-8", "replace").strip() or noise
            continue
        if heard == []:
            return found
        if isinstance(heard, list) and len(heard) == 3 and all(isinstance(word, str) for word in heard):
            name, verdict, what = heard
            if verdict in _WORDS:
                found[name] = verdict, what
    raise JailError(f"audit: the probes came to no end: {visible(noise[:200]) or trouble or 'nothing was said'}")


def _exchange(program: Program, given: bytes, begun: Callable[[], None]) -> tuple[bytes, str]:
    """Write and read at once, until the other side has no more to say; what was in the way, if anything.

    ``begun`` is called when it has said something.
    """
    assert program.stdin is not None and program.stdout is not None
    until = time.monotonic() + _PATIENCE
    rest, said = memoryview(given), bytearray()
    os.set_blocking(program.stdin.fileno(), False)
    with selectors.DefaultSelector() as waiting:
        waiting.register(program.stdout, selectors.EVENT_READ)
        waiting.register(program.stdin, selectors.EVENT_WRITE)
        while True:
            ready = waiting.select(max(until - time.monotonic(), 0))
            if not ready:
                return bytes(said), f"not within {_PATIENCE} seconds"
            for key, _ in ready:
                if key.fileobj is program.stdout:
                    part = os.read(key.fd, 1 << 16)
                    if not said and part:
                        begun()
                    said += part
                    if not part or len(said) > _MOST:
                        return bytes(said), "" if not part else "more was said than there is to say"
                else:
                    try:
                        rest = rest[os.write(key.fd, rest) :]
                    except BrokenPipeError:
                        rest = rest[:0]
                    if not rest:
                        waiting.unregister(program.stdin)
                        program.stdin.close()
