"""``python3 -m jailng.audit.inside``: make the attempts.

Writes one JSON array a line: name, verdict, what is said.

The facts come in as one line of JSON. The last line is an empty array.
"""

from __future__ import annotations

import json
import os
import sys

from . import (  # noqa: F401  # each registers its probes
    calls,
    counters,
    devices,
    files,
    ipc,
    leaks,
    mounts,
    namespaces,
    network,
    processes,
    procfs,
    resources,
    sockets,
)
from .probe import run_all


def main() -> None:
    """Run all whose name begins with the first argument."""
    # Listing them takes a descriptor, which is closed by the time it is looked for.
    try:
        inherited = [number for number in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{number}")]
    except OSError:  # no /proc is mounted
        inherited = []
    facts = {**json.loads(sys.stdin.readline()), "inherited": " ".join(inherited), "directory": os.getcwd()}
    for result in run_all(facts, *sys.argv[1:2]):
        print(json.dumps(result), flush=True)
    print("[]", flush=True)


if __name__ == "__main__":
    main()
