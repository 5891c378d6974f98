"""What a cold ``jail -c path=… command=/bin/true`` takes with several commits, and how much more than with the first.

Each round does it once with each, and starts the bare interpreter once, so that what slows the machine slows all alike.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import measure, side_by_side
from bench.peers import CHECKOUT
from tests.kernel import debian

_PYTHON = "python3 -IS -c pass"


def main() -> int:
    """Measure and print; 1 if a command failed."""
    options = _options()
    root = debian.make(debian.PLAIN, say=lambda line: print(line, file=sys.stderr))
    with tempfile.TemporaryDirectory(prefix="jailng-bench-") as work:
        commands = {_PYTHON: ["/usr/bin/python3", "-IS", "-c", "pass"]}
        for commit in options.commits:
            place = CHECKOUT if commit == "." else _checked_out(commit, Path(work))
            subprocess.run(["make", "-s", "-C", place], check=True, stdout=2)
            commands[commit] = [str(place / "bin/jail"), "-c", f"path={root}", "command=/bin/true"]
        side_by_side.stage(options.hybrid)
        try:
            samples = _measure(commands, options.rounds)
        except measure.Failed as failed:
            print(f"bench: {failed}", file=sys.stderr)
            return 1
    print("\n".join(_text(samples, options.commits[0])))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a cold start of a jail with several commits side by side.")
    parser.add_argument(
        "commits", nargs="+", metavar="COMMIT", help='what git knows them by; ".": this checkout as it is'
    )
    parser.add_argument("--rounds", type=int, default=100, help="how often it is done with each (default: 100)")
    parser.add_argument("--hybrid", action="store_true", help="with the cgroups of this machine, not cgroup2 alone")
    return parser.parse_args()


def _checked_out(commit: str, work: Path) -> Path:
    place = work / commit.replace("/", "_")
    subprocess.run(["git", "clone", "-q", "--shared", "-n", CHECKOUT, place], check=True)
    subprocess.run(["git", "-C", place, "checkout", "-q", commit], check=True)
    return place


def _measure(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each; the first rounds fill caches, and are not told. Raises Failed."""
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 2):
        for name, argv in commands.items():
            took = measure.spawn(argv)
            if number > 1:
                samples[name].append(took)
    return samples


def _text(samples: dict[str, list[float]], first: str) -> list[str]:
    width = max(len(name) for name in samples)
    found = {name: (statistics.median(took), sorted(took)[len(took) // 10]) for name, took in samples.items()}
    machine = f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} processors"
    lines = [
        f"{machine}, load {os.getloadavg()[0]:.1f}; {len(samples[first])} rounds, interleaved; milliseconds",
        f"{'':{width}}    median      10 %  more than {first}  x {_PYTHON}",
    ]
    for name, (median, tenth) in found.items():
        more = f"{median - found[first][0]:+.2f} {tenth - found[first][1]:+.2f}"
        lines.append(
            f"{name:{width}}  {median:8.2f}  {tenth:8.2f}  {more:>{10 + len(first)}}  {median / found[_PYTHON][0]:8.2f}"
        )
    return lines
