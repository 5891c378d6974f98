"""The worker's waiting, engine/loop.py."""

from __future__ import annotations

import subprocess
import sys

_NO_PROCESS = """
import posix
from jailng.engine import loop
from jailng.linux import child
waits = loop.Loop()
def refuse():
    raise BlockingIOError(11, "Resource temporarily unavailable")
child.clone3 = refuse
before = len(posix.listdir("/proc/self/fd"))
for _ in range(3):
    try:
        waits.send_off("errand", 7, lambda: [], lambda _: None)
    except BlockingIOError:
        pass
assert len(posix.listdir("/proc/self/fd")) == before
assert not waits.tasks
"""

_ANOTHERS = """
import posix
from jailng.engine import loop
waits = loop.Loop()
called = []
first, say = posix.pipe()
second, speak = posix.pipe()
quiet, _ = posix.pipe()
def take_its_place():
    waits.ignore(first)
    waits.close(second)
    waits.watch(posix.dup2(quiet, second), lambda: called.append("another"))
waits.watch(first, take_its_place)
waits.watch(second, lambda: called.append("it"))
posix.write(say, b"x")
posix.write(speak, b"x")
waits.turn()
assert not called, called
"""


def test_whoever_has_a_closed_descriptors_number_is_not_called_for_it() -> None:
    """A pidfd is not looked at again, so that a jail was let go of as one that has ended."""
    _run(_ANOTHERS)


def test_a_child_that_cannot_be_had_costs_no_descriptor() -> None:
    """The worker lives as long as the program does."""
    _run(_NO_PROCESS)


def _run(program: str) -> None:
    path = [entry for entry in sys.path if entry]
    front = f"import sys; sys.path[:0] = {path!r}\n"
    done = subprocess.run([sys.executable, "-c", front + program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
