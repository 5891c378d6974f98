"""What ng.watch=packets keeps of a jail's traffic at some rates, and what it costs.

iperf3(1) sends from the host to a server in an address jail. What is kept goes to a disk of memory, so that it is not
the machine's disk that is measured. Counted are the packets of the host's end of the pair, those in the files, by the
tool and by tshark where it is installed, and those that the tool says are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench import side_by_side
from jailng.core import registry
from tests.kernel.networks import attach, ip, run
from tests.kernel.stage import mount

_BIN = Path(__file__).resolve().parent.parent / "bin"
_JAIL = "198.18.0.10"
_LOADS = {
    "TCP 0.5 Gbit/s": ["-b", "500M"],
    "TCP 1 Gbit/s": ["-b", "1G"],
    "TCP 2 Gbit/s": ["-b", "2G"],
    "TCP 4 Gbit/s": ["-b", "4G"],
    "TCP as it can": [],
    "UDP of 200 bytes, 50k/s": ["-u", "-b", "80M", "-l", "200"],
    "UDP of 200 bytes, 100k/s": ["-u", "-b", "160M", "-l", "200"],
}
_WATCHES = {"-": "", "packets": "packets size=16G", "packets snaplen=256": "packets size=16G snaplen=256"}
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure and print; 1 if a command failed or is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seconds", type=int, default=5, help="how long is sent each time (default: 5)")
    options = parser.parse_args()
    if not shutil.which("iperf3"):
        print("bench: iperf3 is not installed", file=sys.stderr)
        return 1
    side_by_side.stage()
    mount("none", "/var/log", "tmpfs", 0, "size=16g")
    print(
        f"{'load':26} {'watched':20} {'Gbit/s':>7} {'packets':>9} {'kept':>9} {'tshark':>9} {'dropped':>8} {'% CPU':>6}"
    )
    with attach("ep0", ("198.18.0.1/24", "2001:db8:1::1/64"), ("198.18.0.2/24", "2001:db8:1::2/64")):
        ip(f"address add {_JAIL}/24 dev ep0")
        for name, load in _LOADS.items():
            for watched, watch in _WATCHES.items():
                try:
                    print(f"{name:26} {watched:20} {_measured(load, watch, options.seconds)}", flush=True)
                except subprocess.CalledProcessError as error:
                    print(f"bench: {error}\n{error.stderr or ''}", file=sys.stderr)
                    return 1
    return 0


def _measured(load: list[str], watch: str, seconds: int) -> str:
    words = [
        "jid=47330",
        "name=kept",
        "path=/",
        "persist",
        f"ip4.addr={_JAIL}",
        *([f"ng.watch={watch}"] if watch else []),
    ]
    subprocess.run([_BIN / "jail", "-qc", *words], check=True, capture_output=True, text=True)
    try:
        record = registry.find("kept")
        assert record is not None
        with subprocess.Popen(
            [_BIN / "jexec", "kept", "iperf3", "-s", "-1", "--forceflush"], stdout=subprocess.PIPE
        ) as server:
            assert server.stdout is not None
            while b"listening" not in server.stdout.readline():
                pass
            before = _used(record)
            sent = run("iperf3", "-J", "-c", _JAIL, "-t", str(seconds), *load)
            server.communicate()
        time.sleep(0.2)
        cost = (_used(record) - before) / seconds * 100
        end = json.loads(sent)["end"]
        rate = (end.get("sum_received") or end["sum"])["bits_per_second"] / 1e9
        (link,) = json.loads(run("ip", "-json", "-statistics", "link", "show", f"jng{record.jid}"))
        packets = link["stats64"]["rx"]["packets"] + link["stats64"]["tx"]["packets"]
    finally:
        subprocess.run([_BIN / "jail", "-qr", "kept"], check=True)
    if not watch:
        return f"{rate:7.2f} {packets:9}"
    files = json.loads(run(str(_BIN / "jailctl"), "packets", "-l", "--json", "kept"))["files"]
    kept, dropped = (sum(one[key] for one in files) for key in ("packets", "dropped"))
    counted = _by_tshark([one["file"] for one in files])
    shutil.rmtree("/var/log/jailng/kept")
    return f"{rate:7.2f} {packets:9} {kept:9} {counted:>9} {dropped:8} {cost:6.1f}"


def _used(record: registry.Record) -> float:
    """Processor time of the jail's post and its worker so far, in seconds."""
    fresh = registry.load(record.jid)
    if fresh is None or not fresh.posts:
        return 0.0
    pid = int(fresh.posts["packets"].split()[0])
    found = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    times = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:13] for one in found]
    return sum(int(one) for pair in times for one in pair) / _TICKS


def _by_tshark(files: list[str]) -> str:
    if not shutil.which("tshark"):
        return "-"
    found = 0
    for file in files:
        argv = ["tshark", "-r", file, "-T", "fields", "-e", "frame.number"]
        found += len(subprocess.run(argv, check=True, capture_output=True).stdout.splitlines())
    return str(found)
