"""What a jail can leave behind on its host, or take away from it, and the comparison that finds it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from tests.kernel.stage import Stage, mounts

_NETWORK = """address show
route show table all
rule show
neighbour show proxy
"""
_SWITCHES = (
    "ipv4/ip_forward",
    *(f"ipv4/conf/*/{name}" for name in ("forwarding", "proxy_arp", "accept_local", "rp_filter", "route_localnet")),
    *(f"ipv6/conf/*/{name}" for name in ("forwarding", "proxy_ndp")),
)
# What the kernel changes by itself while an address or a carrier settles.
_KEPT = ("lock", "last", "pidns", "cpuinfo", "witness", "offsets", "logs")  # for as long as the machine is up
_VOLATILE = re.compile(r" (tentative|linkdown|dadfailed|expires \d+sec|(valid|preferred)_lft \w+)")


def snapshot(stage: Stage) -> dict[str, set[str]]:
    """Everything of that kind that is on the stage now, as text."""
    return {
        "process": {f"{pid} {name}" for pid, name in stage.processes().items()},
        "mount": _numbered(f"{m.kind} {m.source} on {m.target}, root {m.root}, {m.options}" for m in mounts()),
        "cgroup": {path for h in stage.hierarchies for path, _, _ in os.walk(h.mounted.target)},
        "interface": set(os.listdir("/proc/sys/net/ipv4/conf")),
        "address, route or rule": _numbered(_output("ip", "-o", "-batch", "-", given=_NETWORK)),
        "firewall rule": _numbered(_output("nft", "list", "ruleset")),
        "sysctl": set(_switches()),
        "named network namespace": {path.name for path in Path("/run/netns").glob("*")},
        "registry entry": set(_registry()),
        "shared memory, semaphore or queue": set(_ipc()),
        "hostname": {os.uname().nodename},
    }


def differences(stage: Stage, before: dict[str, set[str]], wait: float = 20.0) -> list[str]:
    """What has come and gone since ``before``, one line each.

    Waits up to ``wait`` seconds for there to be nothing: the kernel takes network namespaces, and what hangs on them,
    apart in its own time, and tells nobody when it is done.
    """
    until = time.monotonic() + wait
    pause = 0.002
    while True:
        now = snapshot(stage)
        found = [
            f"{what} {verb}: {thing}"
            for what in now
            for verb, things in (("left behind", now[what] - before[what]), ("lost", before[what] - now[what]))
            for thing in sorted(things)
        ]
        if not found or time.monotonic() > until:
            return found
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def _switches() -> Iterator[str]:
    for pattern in _SWITCHES:
        for path in Path("/proc/sys/net").glob(pattern):
            with suppress(FileNotFoundError):  # of an interface that is going
                yield f"{path}={path.read_text().strip()}"


def _numbered(lines: Iterable[str]) -> set[str]:
    """The lines as a set that knows how often each stands in it."""
    seen: dict[str, int] = {}
    for line in lines:
        seen[line] = seen.get(line, 0) + 1
    return {line if count == 1 else f"{line} (x{count})" for line, count in seen.items()}


def _output(*argv: str, given: str = "") -> list[str]:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=True)
    return [_VOLATILE.sub("", line).strip() for line in done.stdout.splitlines()]


def indexed() -> list[str]:
    """The lines of the index of jails, but for those of jails that are gone, which stay, struck out, for a while."""
    try:
        # Of names that are no UTF-8 as well.
        lines = Path("/run/jailng/index").read_text(errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    return [line for line in lines if not line.startswith("#")]


def _registry() -> Iterator[str]:
    top = Path("/run/jailng")
    for path in top.glob("**/*"):
        if path == top / "index":
            yield from (f"index: {line}" for line in indexed())
        elif path.is_file() and path.relative_to(top).parts[0] not in _KEPT and path.stem != "terminals":
            yield str(path)


def _ipc() -> Iterator[str]:
    for kind in ("shm", "sem", "msg"):
        for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]:
            yield f"{kind} {line.split()[1]}"
    for path in Path("/dev/shm").iterdir():
        yield path.name
