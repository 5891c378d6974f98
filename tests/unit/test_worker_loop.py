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


def test_a_child_that_cannot_be_had_costs_no_descriptor() -> None:
    """The worker lives as long as the program does."""
    path = [entry for entry in sys.path if entry]
    front = f"import sys; sys.path[:0] = {path!r}\n"
    done = subprocess.run([sys.executable, "-c", front + _NO_PROCESS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
