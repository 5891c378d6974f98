"""What watching terminals costs: the watched jail's shell, another jail, the host's processes, and memory.

``bench/watch`` as root. Each round measures everything once without a watched jail and once with one, in turn. Of
single calls it is the processor's time in microseconds, by a Python program.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from tests.kernel.stage import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS, mount, unshare

_BIN = Path(__file__).resolve().parent.parent / "bin"
_PYTHON = "/usr/bin/python3"
_INSIDE = """
import json, os, pty, sys, time, tty
def each(work, times):
    before = time.process_time()  # what others take of the processor is not counted
    for _ in range(times): work()
    return (time.process_time() - before) / times * 1e6
found = {}
null, zero = os.open("/dev/null", os.O_RDWR), os.open("/dev/zero", os.O_RDONLY)
found["getppid"] = each(os.getppid, 200000)
found["read of /dev/zero"] = each(lambda: os.read(zero, 1), 100000)
found["write to /dev/null"] = each(lambda: os.write(null, b"x"), 100000)
found["open"] = each(lambda: os.close(os.open("/dev/null", os.O_RDONLY)), 50000)
master, slave = pty.openpty()
tty.setraw(slave)
def key():
    os.write(master, b"k"); os.read(slave, 1); os.write(slave, b"k"); os.read(master, 1)
found["key and echo"] = each(key, 20000)
size, piece = 16 << 20, b"o" * 4096
if os.fork() == 0:
    for _ in range(size // len(piece)):
        done = 0
        while done < len(piece): done += os.write(slave, piece[done:])
    os._exit(0)
before, rest = time.perf_counter(), size
while rest: rest -= len(os.read(master, 65536))
found["output, s for 16 MB"] = time.perf_counter() - before
print(json.dumps(found))
"""


def main() -> int:
    """Measure and print medians; 1 if a command failed."""
    parser = argparse.ArgumentParser(description="Measure what watching terminals costs.")
    parser.add_argument("--rounds", type=int, default=7, help="how often everything is done (default: 7)")
    options = parser.parse_args()
    unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for place in ("/run", "/var/log"):
        mount("none", place, "tmpfs", 0, "mode=755")
    try:
        _measure(options.rounds)
    except subprocess.CalledProcessError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        subprocess.run([str(_BIN / "jail"), "-qR", "*"], check=False)
    return 0


def _jail(*words: str) -> None:
    subprocess.run([str(_BIN / "jail"), "-qc", "path=/", "persist", *words], check=True)


def _measure(rounds: int) -> None:
    places = {"host": [], "another jail": [str(_BIN / "jexec"), "other"], "watched jail": [str(_BIN / "jexec"), "cell"]}
    taken: dict[tuple[str, str, bool], list[float]] = {}
    memory = []
    _jail("name=other")
    for _ in range(rounds):
        for watched in (False, True):
            _jail("name=cell", *(["ng.watch=tty"] if watched else []))
            for place, way in places.items():
                for name, value in json.loads(_said(way)).items():
                    taken.setdefault((place, name, watched), []).append(value)
            if watched:
                memory.append(_memory())
            subprocess.run([str(_BIN / "jail"), "-qr", "cell"], check=True)
    print(f"{'':14}{'':22}{'not watched':>12}{'watched':>12}{'ratio':>8}")
    for place, name in dict.fromkeys((place, name) for place, name, _ in taken):
        without, with_ = (statistics.median(taken[place, name, watched]) for watched in (False, True))
        print(f"{place:14}{name:22}{without:12.3f}{with_:12.3f}{with_ / without:8.2f}")
    print(
        f"\nA post's two processes: {statistics.median(memory) / 1024:.1f} MB (PSS); besides, 4 MB for the jail's ring."
    )


def _said(way: list[str]) -> str:
    return subprocess.run([*way, _PYTHON, "-Ic", _INSIDE], check=True, stdout=subprocess.PIPE, text=True).stdout


def _memory() -> int:
    """Proportional set size of the post's processes, in kB."""
    total = 0
    for record in Path("/run/jailng/jails").iterdir():
        for line in record.read_text().splitlines():
            if line.startswith("post tty "):
                supervisor = line.split()[2]
                children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
                for pid in (supervisor, *children):
                    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                    total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


if __name__ == "__main__":
    sys.exit(main())
