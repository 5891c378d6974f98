"""What ng.stack=shared costs (docs/decisions/0013-shared-stack.md).

``PYTHONPATH=.:src python3 -m bench.stack`` in the checkout, as root. A server, on the host and in jails, and a client
on the host, on the loopback of an empty network; every round has each of them once. What runs in the jail and asks for
sockets is measured by itself.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.kernel.stage import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS, mount, unshare

_BIN = Path(__file__).resolve().parent.parent / "bin"
_PYTHON = "/usr/bin/python3"
# Where the server is, and its address: the host has both.
_JAILS = {"shared": ("192.0.2.10", "ng.stack=shared"), "own": ("192.0.2.11", "ng.stack=own")}
_HOST = "192.0.2.9"
_SERVE = """
import socket, sys
s = socket.socket(); s.setsockopt(1, 2, 1); s.bind((sys.argv[1], 5001)); s.listen(128); print("ready", flush=True)
buffer = bytearray(1 << 20)
while True:
    one, _ = s.accept()
    while one.recv_into(buffer): pass
    one.close()
"""
_INSIDE = """
import json, socket, statistics, sys, time
def timed(work, given):
    taken = []
    for one in given:
        before = time.perf_counter(); work(one); taken.append(time.perf_counter() - before)
    return statistics.median(taken) * 1e6
def some(): return [socket.socket() for _ in range(100)]
print(json.dumps({"socket": timed(lambda _: socket.socket().close(), range(2000)),
    "bind": timed(lambda one: one.bind(("", 0)), some()),
    "connect": timed(lambda one: one.connect((sys.argv[1], 5001)), some())}))
"""


def main() -> int:
    """Measure and print medians; 1 if a command failed."""
    parser = argparse.ArgumentParser(description="Measure what the host's stack costs a jail.")
    parser.add_argument("--rounds", type=int, default=9, help="how often everything is done (default: 9)")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long is sent (default: 0.5)")
    options = parser.parse_args()
    unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    mount("none", "/run", "tmpfs", 0, "mode=755")
    lines = [
        "link set lo up",
        *[f"address add {where}/32 dev lo" for where in ("192.0.2.9", "192.0.2.10", "192.0.2.11")],
    ]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    servers = {"loopback": (_HOST, _served([], _HOST))}
    try:
        for name, (address, stack) in _JAILS.items():
            words = [f"name={name}", "path=/", "persist", f"ip4.addr={address}", stack]
            subprocess.run([str(_BIN / "jail"), "-qc", *words], check=True)
            servers[name] = address, _served([str(_BIN / "jexec"), name], address)
        _measure(servers, options.rounds, options.seconds)
    except subprocess.CalledProcessError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        for _, server in servers.values():
            server.kill()
        subprocess.run([str(_BIN / "jail"), "-qR", "*"], check=False)
    return 0


def _served(enter: list[str], address: str) -> subprocess.Popen[str]:
    started = subprocess.Popen([*enter, _PYTHON, "-ISc", _SERVE, address], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    started.stdout.readline()
    return started


def _measure(servers: dict[str, tuple[str, subprocess.Popen[str]]], rounds: int, seconds: float) -> None:
    sent: dict[str, list[float]] = {name: [] for name in servers}
    connected: dict[str, list[float]] = {name: [] for name in servers}
    inside: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, (address, _) in servers.items():
            sent[name].append(_send(address, seconds))
            connected[name].append(_connect(address))
            enter = [] if name == "loopback" else [str(_BIN / "jexec"), name]
            argv = [*enter, _PYTHON, "-ISc", _INSIDE, _HOST if name == "loopback" else address]
            inside[name].append(json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout))
    columns = ("Gbit/s", "connect in, us", "socket inside, us", "bind", "connect")
    print(f"{'server':10}" + "".join([f"{column:>20}" for column in columns]))
    for name in servers:
        figures = [statistics.median(sent[name]), statistics.median(connected[name])]
        figures += [statistics.median([one[key] for one in inside[name]]) for key in ("socket", "bind", "connect")]
        print(f"{name:10}" + "".join([f"{figure:20.1f}" for figure in figures]))


def _send(address: str, seconds: float) -> float:
    """Gbit/s to the server there."""
    block = bytes(1 << 20)
    count = 0
    with socket.create_connection((address, 5001)) as one:
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            one.sendall(block)
            count += 1
        return count * len(block) * 8 / (time.perf_counter() - begin) / 1e9


def _connect(address: str) -> float:
    """Microseconds that connect(2) takes."""
    taken = []
    for _ in range(500):
        with socket.socket() as one:
            begin = time.perf_counter()
            one.connect((address, 5001))
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken) * 1e6


if __name__ == "__main__":
    sys.exit(main())
