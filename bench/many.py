"""Many jails of one jail.conf: made, listed, entered and removed by the commands.

They are measured by a process of its own, which goes on a stage as the kernel tests do: of a thousand jids some would
be those of the machine's jails, and a jail's cgroup has the name of its jid.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench import measure, peers
from tests.kernel.stage import Stage

_ROUNDS = 10
# What is aimed at, in milliseconds: for each jail, and for a command on which their number has no influence none.
_AIMS = {"create": 5.0, "remove": 2.0, "jls": 60.0}


def measured(where: peers.Where, count: int) -> dict[str, dict[str, float]]:
    """Milliseconds by what is done: each, where it is done to each.

    With aliases that come and go with the jails, and with such as are there.

    Raises measure.Failed.
    """
    argv = [sys.executable, "-m", "bench.many", str(where.root), str(where.work), str(count)]
    done = subprocess.run(argv, cwd=peers.CHECKOUT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise measure.Failed("bench.many")
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def main(root: str, work: str, count: str) -> None:
    """Measure on a stage, and print the result as JSON."""
    stage = Stage.enter()
    try:
        lines = f"link add {peers.INTERFACE} type veth peer name other\nlink set {peers.INTERFACE} up\n"
        subprocess.run(["ip", "-batch", "-"], input=f"{lines}link set other up\n", text=True, check=True)
        where = peers.Where(Path(root), Path(work))
        found = {"interface": _of(where, int(count), f"interface = {peers.INTERFACE};")}
        lines = "".join([f"address add {address}/32 dev {peers.INTERFACE}\n" for address in _addresses(int(count))])
        subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)
        found["aliases that are there"] = _of(where, int(count), "")
        print(json.dumps(found))
    finally:
        stage.leave()


def _addresses(count: int) -> list[str]:
    return [f"198.18.{1 + number // 250}.{1 + number % 250}" for number in range(count)]


def _of(where: peers.Where, count: int, line: str) -> dict[str, float]:
    conf = where.work / "jail.conf"
    jails = [f"many{number} {{ ip4.addr = {address}; }}" for number, address in enumerate(_addresses(count))]
    conf.write_text("\n".join([f'path = "{where.root}"; persist; {line}', *jails]))
    jail, jls, jexec = (str(peers.CHECKOUT / "bin" / name) for name in ("jail", "jls", "jexec"))
    one = ["jls -j", "jexec"]
    found: dict[str, float] = {}
    try:
        measure.spawn([jail, "-f", str(conf), "-qc", "many0"])
        commands = {"jls": [jls], "jls -j": [jls, "-j", "many0"], "jexec": [jexec, "many0", "/bin/true"]}
        for name in one:
            found[f"{name}, alone"] = _median(commands[name])
        found["create"] = measure.spawn([jail, "-f", str(conf), "-Cqc"]) / max(count - 1, 1)
        for name, command in commands.items():
            found[name] = _median(command)
    finally:
        found["remove"] = measure.spawn([jail, "-f", str(conf), "-qr", "*"]) / count
    return found


def _median(command: list[str]) -> float:
    return statistics.median([measure.spawn(command) for _ in range(_ROUNDS)])


def text(count: int, result: dict[str, dict[str, float]]) -> Iterator[str]:
    """What was measured, as lines of text."""
    for kind, found in result.items():
        yield ""
        yield f"{count} jails of one jail.conf ({kind}), milliseconds"
        for name in ("create", "remove"):
            yield f"{name + ', each':20}{found[name]:8.2f} (aim: at most {_AIMS[name]:.0f})"
        yield f"{'jls':20}{found['jls']:8.2f} (aim: below {_AIMS['jls']:.0f})"
        for name in ("jls -j", "jexec"):
            alone = found[f"{name}, alone"]
            yield f"{name:20}{found[name]:8.2f} with one jail {alone:.2f}: {found[name] / alone:.2f} (aim: 1)"


if __name__ == "__main__":
    main(*sys.argv[1:])
