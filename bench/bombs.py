"""What a bomb in a limited jail does to a neighbour, and to whoever enters the jail and removes it.

The neighbour is a jail with a program that starts /bin/true and waits for it, again and again. Each bomb
(``tests/kernel/bombs.py``) gets a jail of its own, with limits; before it and while it goes off the neighbour is
measured, so that what slows the machine slows both. It is for a machine that has nothing else to do.
"""

from __future__ import annotations

import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.peers import CHECKOUT
from tests.kernel import bombs
from tests.kernel.stage import Stage, mounts

_TIMES = 400  # /bin/true is started so often each time
_MEASURE = f"""
import os, sys, time
print(flush=True)
for _ in sys.stdin:
    took = []
    for _ in range({_TIMES}):
        began = time.perf_counter()
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {{}}), 0)
        took.append(1000 * (time.perf_counter() - began))
    print(*took, flush=True)
"""


class Neighbour:
    """The jail beside those with bombs in them."""

    def __init__(self, top: Path) -> None:
        _run("jail", "-c", "name=neighbour", *bombs.words(bombs.root(top / "neighbour")), "persist")
        argv = [f"{CHECKOUT}/bin/jexec", "neighbour", "/usr/bin/python3", "-ISc", _MEASURE]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._heard()

    def _heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def measured(self) -> tuple[float, float]:
        """Milliseconds that /bin/true takes: the median, and what one in a hundred exceeds."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        took = sorted(map(float, self._heard().split()))
        return statistics.median(took), took[len(took) * 99 // 100]

    def end(self) -> None:
        """Remove it."""
        self._process.kill()
        self._process.wait()
        _run("jail", "-r", "neighbour")


def _run(program: str, *arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([f"{CHECKOUT}/bin/{program}", *arguments], check=True, stderr=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - began)


def _set_off(name: str, top: Path, params: list[str], neighbour: Neighbour) -> list[float]:
    _run("jail", "-c", "name=bomb", *bombs.words(bombs.root(top / name)), *params, "persist")
    before = neighbour.measured()
    argv = [f"{CHECKOUT}/bin/jexec", "bomb", "/usr/bin/python3", "-ISc", bombs.program(name)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as bomb:
        try:
            select.select([bomb.stdout], [], [], 20)
            during = neighbour.measured()
            entered = _run("jexec", "bomb", "/bin/true")
        finally:
            removed = _run("jail", "-r", "bomb")
    return [*before, *during, during[0] / before[0], during[1] / before[1], entered, removed]


def main(given: list[str]) -> None:
    """Measure on a stage, and print a line a bomb; what has a "=" is a parameter of the bombs' jails."""
    names = [word for word in given if "=" not in word]
    params = [f"ng.limits={bombs.LIMITS}", *[word for word in given if "=" in word]]
    stage = Stage.enter()
    try:
        top = Path(tempfile.mkdtemp())
        neighbour = Neighbour(top)
        try:
            print("milliseconds           without          with        ratio of       jexec  jail -r")
            print("bomb           median   99 %  median    99 %  median   99 %")
            for name in names or bombs.BOMBS:
                found = _set_off(name, top, params, neighbour)
                form = "{:12} {:8.2f} {:6.2f} {:7.2f} {:7.2f} {:7.2f} {:6.2f} {:11.0f} {:8.0f}"
                print(form.format(name, *found), flush=True)
        finally:
            neighbour.end()
        if not any(found.target.startswith(f"{top}/") for found in mounts()):  # /usr is mounted in there, if all fails
            shutil.rmtree(top)
    finally:
        stage.leave()


if __name__ == "__main__":
    main(sys.argv[1:])
