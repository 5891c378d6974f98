"""Measure jailng side by side with its peers: start, enter, list, stop, and many jails at once (docs/speed.md)."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import many, measure, peers
from tests.kernel import debian
from tests.kernel.stage import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS, mount, mounts, unmount, unshare

_CGROUPS = Path("/sys/fs/cgroup")
# What peers leave in the cgroup tree; all else that is there is somebody else's.
_LEFT = ("bench-*", "lxc.*", "payload", "supervisor")


def main() -> int:
    """Measure and print; 1 if a command failed."""
    options = _options()
    if options.install and (packages := [package for package, _ in peers.missing()]):
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *packages], check=True, stdout=2)
    subprocess.run(["make", "-s", "-C", peers.CHECKOUT], check=True, stdout=2)
    root = Path(options.root) if options.root else debian.make(debian.PLAIN, say=_say)
    work = Path(tempfile.mkdtemp(prefix="jailng-bench-"))
    stage(options.hybrid)
    try:
        result = _measure(peers.Where(root, work), options)
    except measure.Failed as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 1
    finally:
        _sweep()
        shutil.rmtree(work, ignore_errors=True)
    print(json.dumps(result, indent=1) if options.json else "\n".join(_text(result)))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure jailng side by side with its peers.")
    parser.add_argument("--rounds", type=int, default=30, help="how often everything is done (default: 30)")
    parser.add_argument("--jails", type=int, default=200, help="how many address jails are started in one go; 0: none")
    parser.add_argument("--configured", type=int, default=1000, help="how many jails one jail.conf has; 0: none")
    parser.add_argument("--only", default="", help="comma-separated names of peers; jailng is always there")
    parser.add_argument("--root", help="the tree that every container has (default: the Debian root of the tests)")
    parser.add_argument("--install", action="store_true", help="install the peers that are missing, with apt-get")
    parser.add_argument("--json", action="store_true", help="print every sample, as JSON")
    parser.add_argument(
        "--hybrid", action="store_true", help="with the cgroups of this machine, not cgroup2 alone, and without crun"
    )
    return parser.parse_args()


def stage(hybrid: bool = False) -> None:
    """Leave the host alone, for this process's life: an empty network, a /run of its own, cgroup2 alone in sight.

    ``hybrid``: the cgroups are the machine's. Where its controllers are of v1, cgroup2 alone has none, and a jail,
    which is not made without them, mounts their hierarchies for itself: 1.2 ms that it takes nowhere else.
    """
    unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    mount("none", "/run", "tmpfs", 0, "mode=755")
    if not hybrid and any(found.kind == "cgroup" for found in mounts()):
        unmount(_CGROUPS)  # crun refuses hybrid cgroups; hosts of today are pure cgroup2
        mount("none", _CGROUPS, "cgroup2")
    lines = f"link add {peers.INTERFACE} type veth peer name other\nlink set {peers.INTERFACE} up\nlink set other up\n"
    subprocess.run(["ip", "-batch", "-"], input=f"{lines}link set lo up\n", text=True, check=True)


def _sweep() -> None:
    """Kill and remove what a peer, or a run that was interrupted, left in the cgroup tree."""
    for pattern in _LEFT:
        for left in _CGROUPS.glob(pattern):
            (left / "cgroup.kill").write_text("1")
            for directory, _, _ in os.walk(left, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)


def _measure(where: peers.Where, options: argparse.Namespace) -> dict[str, object]:
    wanted = set(filter(None, options.only.split(",")))
    absent = [program for _, program in peers.missing()]
    absent += ["crun"] if options.hybrid and "crun" not in absent else []  # it refuses hybrid cgroups
    others = [
        make(where) for _, program, make in peers.OTHERS if program not in absent and (not wanted or program in wanted)
    ]
    everybody = [*peers.scale(where), *peers.jailng(where), peers.warm(where), *others]
    samples: measure.Samples = {}
    for operation, name, took in measure.rounds(everybody, options.rounds):
        samples.setdefault(operation, {}).setdefault(name, []).append(took)
    versions = [f"{peer.name}: {_first_line(peer.version)}" for peer in others]
    return {
        "machine": f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} processors, "
        f"load {os.getloadavg()[0]:.1f}",
        "versions": versions,
        "absent": [program for program in absent if not wanted or program in wanted],
        "rounds": options.rounds,
        "milliseconds": samples,
        "many": _many(where, options.jails) if options.jails else {},
        "jails configured": options.configured,
        "configured": many.measured(where, options.configured) if options.configured else {},
    }


def _first_line(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True).stdout.partition("\n")[0]


def _many(where: peers.Where, count: int) -> dict[str, object]:
    """Address jails, started one after the other by one program and then stopped: milliseconds each."""
    import jailng

    addresses = [f"198.18.{1 + number // 250}.{1 + number % 250}" for number in range(count)]
    jails = [jailng.Jail(path=where.root, ip4_addr=[one], interface=peers.INTERFACE) for one in addresses]
    began = time.perf_counter()
    for jail in jails:
        jail.start()
    started = time.perf_counter()
    for jail in jails:
        jail.remove()
    stopped = time.perf_counter()
    return {
        "jails": count,
        "start": (started - began) * 1000 / count,
        "stop": (stopped - started) * 1000 / count,
    }


def _text(result: dict[str, object]) -> list[str]:
    samples = result["milliseconds"]
    assert isinstance(samples, dict)
    lines = [str(result["machine"]), f"{result['rounds']} rounds of everything, interleaved; milliseconds"]
    lines += [str(version) for version in result["versions"]]  # type: ignore[attr-defined]
    lines += [f"not installed: {', '.join(result['absent'])}"] if result["absent"] else []  # type: ignore[arg-type]
    lines += measure.table(samples, "jail")
    run = {name: statistics.median(values) for name, values in samples["run"].items()}
    lines += ["", f"jail / python3 -IS -c pass: {run['jail'] / run['python3 -IS -c pass']:.2f} (aim: at most 1.8)"]
    if "runc" in run:
        lines.append(f"jail / runc run: {run['jail'] / run['runc']:.2f} (aim: below 0.5)")
    if "crun" in run:
        entered = statistics.median(samples["enter"]["jailng.Jail (warm)"])
        lines.append(f"Jail.run, warm / crun run: {entered / run['crun']:.2f} (aim: below 1)")
    program = result["many"]
    if program:
        assert isinstance(program, dict)
        lines.append(
            f"{program['jails']} address jails by one program: {program['start']:.2f} each to start (aim: at most 6), "
            f"{program['stop']:.2f} to stop (aim: at most 2)"
        )
    count, configured = result["jails configured"], result["configured"]
    assert isinstance(count, int)
    assert isinstance(configured, dict)
    return [*lines, *many.text(count, configured)]
