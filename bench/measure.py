"""Timing: everything once, then everything again, so that what slows the machine slows all alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator

from bench.peers import Peer

OPERATIONS = ("run", "start", "enter", "ls", "stop")
Samples = dict[str, dict[str, list[float]]]


class Failed(Exception):
    """A command that did not do what was to be measured: which, and its exit status."""


def spawn(argv: list[str], stderr: str = "/dev/null") -> float:
    """Run a command to its end; milliseconds. Its standard streams are /dev/null. Raises Failed."""
    nothing = (os.O_RDWR, 0o600)
    streams = [(os.POSIX_SPAWN_OPEN, fd, stderr if fd == 2 else "/dev/null", *nothing) for fd in range(3)]
    began = time.perf_counter()
    # glibc's posix_spawn is vfork(2) and exec: however big this process is, it costs no copy of it.
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=streams)
    _, status = os.waitpid(pid, 0)
    took = (time.perf_counter() - began) * 1000
    if status:
        raise Failed(f"{' '.join(argv)}: status {os.waitstatus_to_exitcode(status)}")
    return took


def call(what: list[str] | Callable[[], object]) -> float:
    """Milliseconds that a command, or a function of this program, takes. Raises Failed, or what the function raises."""
    if isinstance(what, list):
        return spawn(what)
    began = time.perf_counter()
    what()
    return (time.perf_counter() - began) * 1000


def rounds(peers: list[Peer], count: int) -> Iterator[tuple[str, str, float]]:
    """(operation, name of the peer, milliseconds), ``count`` + 1 rounds of all; the first fills caches and is not told.

    Raises Failed.
    """
    for number in range(count + 1):
        for operation in OPERATIONS:
            for peer in peers:
                what = getattr(peer, operation)
                if what is not None:
                    took = call(what)
                    if number:
                        yield operation, peer.name, took


def table(samples: Samples, against: str) -> Iterator[str]:
    """The samples as lines of text. Ratios are of medians: to ``against`` in the same operation."""
    width = max(len(name) for by_name in samples.values() for name in by_name)
    for operation in OPERATIONS:
        by_name = samples.get(operation, {})
        if not by_name:
            continue
        yield ""
        yield f"{operation:{width}}  {'median':>8} {'minimum':>8}  {'x ' + against:>8}"
        own = statistics.median(by_name[against])
        for name, values in sorted(by_name.items(), key=lambda item: statistics.median(item[1])):
            median = statistics.median(values)
            yield f"{name:{width}}  {median:8.2f} {min(values):8.2f}  {median / own:8.2f}"
