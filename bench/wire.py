"""The network of an address jail, of a namespace behind a plain veth, and of a container on podman's bridge.

A server in each, and a client on the host and on another machine of its LAN; every round has each of them once. It
changes nothing of the host's: it has a network, a /run and a view of the mounts of its own (docs/speed.md).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import side_by_side
from tests.kernel import debian
from tests.kernel.networks import Namespace, attach, ip, set_switch

_BIN = Path(__file__).resolve().parent.parent / "bin"
_PYTHON = "/usr/bin/python3"
_PORT = 5001
_JAIL, _PLAIN = "198.18.0.10", "198.18.0.11"
# One connection after the other: the first byte says what is wanted of it.
_SERVE = """
import socket, sys
s = socket.socket(); s.setsockopt(1, 2, 1); s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(1024)
print("ready", flush=True)
buffer, block = bytearray(1 << 20), bytes(1 << 20)
while True:
    one, _ = s.accept()
    one.setsockopt(6, 1, 1)
    what = one.recv(1)
    try:
        while what == b"<" and one.recv_into(buffer): pass
        while what == b">": one.sendall(block)
        while what == b"=" and (said := one.recv(1)): one.sendall(said)
    except OSError: pass
    one.close()
"""


@dataclass
class Place:
    """A network namespace with a server in it, at an address."""

    name: str
    address: str
    server: subprocess.Popen[str]


def main() -> int:
    """Measure and print medians, and ratios to the plain veth; 1 if a command failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=15, help="how often everything is done (default: 15)")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long is sent each time (default: 0.5)")
    parser.add_argument("--json", action="store_true", help="print every sample, as JSON")
    options = parser.parse_args()
    side_by_side.stage()
    with contextlib.ExitStack() as stack:
        try:
            lan = stack.enter_context(
                attach("ep0", ("198.18.0.1/24", "2001:db8:1::1/64"), ("198.18.0.2/24", "2001:db8:1::2/64"))
            )
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/root")))
            places = [stack.enter_context(make(work)) for make in (_plain, _jail)]
            if shutil.which("podman"):
                places.append(stack.enter_context(_podman(work)))
                with lan.entered():
                    ip(f"route add {places[-1].address} via 198.18.0.1")
            samples = _measured(lan, places, options.rounds, options.seconds)
        except subprocess.CalledProcessError as error:
            print(f"bench: {error}\n{error.stderr or ''}", file=sys.stderr)
            return 1
    print(json.dumps(samples, indent=2) if options.json else "\n".join(_text(samples, places)))
    return 0


@contextlib.contextmanager
def _serving(name: str, address: str, enter: list[str]) -> Iterator[Place]:
    argv = [*enter, _PYTHON, "-ISc", _SERVE, address, str(_PORT)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()
        yield Place(name, address, server)
        server.kill()


@contextlib.contextmanager
def _plain(_: Path) -> Iterator[Place]:
    """A namespace with a routed address, as ip(8) makes one: no filter, and no table is asked but the routes."""
    made = Namespace.new()
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    with made.entered():
        ip("link add plain type veth peer name eth0", "link set lo up", f"address add {_PLAIN}/32 dev eth0")
        ip(f"link set plain netns /proc/{os.getpid()}/fd/{home}", "link set eth0 up")
    os.close(home)
    ip("link set plain up", "address add 169.254.1.1/32 dev plain", f"route add {_PLAIN} dev plain")
    with made.entered():
        ip("route add 169.254.1.1 dev eth0", "route add default via 169.254.1.1")
    ip(f"neighbour add proxy {_PLAIN} dev ep0")
    set_switch("ipv4/ip_forward", "1")
    try:
        with _serving("plain veth", _PLAIN, ["nsenter", f"--net=/proc/{os.getpid()}/fd/{made.fd}"]) as place:
            yield place
    finally:
        made.close()


@contextlib.contextmanager
def _jail(_: Path) -> Iterator[Place]:
    words = ["name=wire", "path=/", "persist", f"ip4.addr=ep0|{_JAIL}/24"]
    subprocess.run([str(_BIN / "jail"), "-qc", *words], check=True, capture_output=True, text=True)
    try:
        with _serving("address jail", _JAIL, [str(_BIN / "jexec"), "wire"]) as place:
            yield place
    finally:
        subprocess.run([str(_BIN / "jail"), "-qR", "wire"], check=False)


@contextlib.contextmanager
def _podman(work: Path) -> Iterator[Place]:
    """A container on the network that podman makes by default: a bridge, netavark's rules, masquerading outwards."""
    root = debian.small(work / "root")
    common = ["podman", f"--root={work}/storage", "--runroot=/run/podman", "--storage-driver=vfs"]
    run = ["run", "-d", "--name=wire", "--network=bridge", "--cgroups=disabled", "--rootfs", str(root)]
    subprocess.run([*common, *run, "/bin/busybox", "sleep", "999999"], check=True, capture_output=True, text=True)
    try:
        asked = "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        argv = [*common, "inspect", "-f", asked, "wire"]
        pid, address = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
        with _serving("podman's bridge", address, ["nsenter", "-n", "-t", pid]) as place:
            yield place
    finally:
        subprocess.run([*common, "rm", "-f", "-t", "0", "wire"], check=False, capture_output=True)


def _measured(
    lan: Namespace, places: list[Place], rounds: int, seconds: float
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """What is measured, from where, by the name of the place: Gbit/s, and microseconds."""
    kinds = {
        "to it, Gbit/s": lambda address: _stream(address, b"<", seconds),
        "from it, Gbit/s": lambda address: _stream(address, b">", seconds),
        "connect, us": _connect,
        "there and back, us": _there_and_back,
    }
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for number in range(rounds + 1):  # the first fills caches and is not told
        for client in ("host", "LAN"):
            with lan.entered() if client == "LAN" else contextlib.nullcontext():
                for kind, measure in kinds.items():
                    for place in places:
                        value = measure(place.address)
                        if number:
                            found.setdefault(client, {}).setdefault(kind, {}).setdefault(place.name, []).append(value)
    return found


def _stream(address: str, way: bytes, seconds: float) -> float:
    """Gbit/s to the server there (<), or from it (>)."""
    buffer, count = bytearray(1 << 20), 0
    with socket.create_connection((address, _PORT)) as one:
        one.sendall(way)
        begin = time.perf_counter()
        while (taken := time.perf_counter() - begin) < seconds:
            if way == b"<":
                one.sendall(buffer)
                count += len(buffer)
            else:
                count += one.recv_into(buffer)
        return count * 8 / taken / 1e9


def _connect(address: str) -> float:
    """Microseconds that connect(2) takes."""
    taken = []
    for _ in range(300):
        with socket.socket() as one:
            begin = time.perf_counter()
            one.connect((address, _PORT))
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken) * 1e6


def _there_and_back(address: str) -> float:
    """Microseconds that a byte takes to the server and back."""
    taken = []
    with socket.create_connection((address, _PORT)) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.sendall(b"=")
        for _ in range(1000):
            begin = time.perf_counter()
            one.sendall(b"x")
            one.recv(1)
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken) * 1e6


def _text(samples: dict[str, dict[str, dict[str, list[float]]]], places: list[Place]) -> Iterator[str]:
    names = [place.name for place in places]
    machine = f"Linux {os.uname().release}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    yield f"{machine}; medians, and their ratio to the plain veth's"
    if len(names) < 3:
        yield "not installed: podman"
    for client, kinds in samples.items():
        yield ""
        yield f"{'from the ' + client:20}" + "".join([f"{name:>26}" for name in names])
        for kind, by_name in kinds.items():
            plain = statistics.median(by_name[names[0]])
            medians = [statistics.median(by_name[name]) for name in names]
            yield f"{kind:20}" + "".join([f"{median:18.1f} ({median / plain:4.2f})" for median in medians])
