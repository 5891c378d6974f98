"""Roots for hostile programs, and the audit's probes as the tests make them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from jailng.audit import enter, planted, report
from jailng.audit.enter import Said
from tests.kernel import debian as roots
from tests.kernel.stage import Stage

PROBES = Path(__file__).resolve().parent / "probes"
AUDIT = Path(report.__file__).parent
# A Debian with the Python that the attempts are written in.
RECIPE = roots.PYTHON
OTHER_ADDRESS = "203.0.113.77"
PYTHON = "/usr/bin/python3"
# Defines ``filled``, a connection and its ends. Whoever drops the last reference to the former waits, for as long as
# somebody holds these.
LINGERING = """
import signal, socket, struct, time
def filled():
    listening = socket.create_server(("127.0.0.1", 0))
    made = socket.create_connection(listening.getsockname())
    made.setblocking(False)
    for _ in range(2):  # there is more room for a moment
        try:
            while True:
                made.send(bytes(65536))
        except BlockingIOError:
            time.sleep(0.2)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1_000_000))
    return made, listening, listening.accept()[0]
def let_go(made):  # which may be the last reference already
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    made.close()
    signal.setitimer(signal.ITIMER_REAL, 0)
"""


class Report:
    """What came of the probes, by name."""

    def __init__(self, said: Said, facts: dict[str, str], given: list[str] | None = None) -> None:
        self.results = {one.probe.name: one for one in report.judged(said, facts, given)}

    def names(self, *states: str) -> set[str]:
        return {name for name, one in self.results.items() if one.state in states}

    def lines(self, state: str) -> str:
        return "\n".join(f"{name}: {one.said}" for name, one in self.results.items() if one.state == state)

    def counts(self) -> dict[str, int]:
        return report.counts(self.results.values())


@contextmanager
def host(root: Path) -> Iterator[dict[str, str]]:
    """What a host has that a jail might want, for as long as it lasts; yields the facts."""
    subprocess.run(["ip", "address", "add", f"{OTHER_ADDRESS}/32", "dev", "lo"], check=True)
    subprocess.run(["ip", "link", "add", "seen0", "type", "veth", "peer", "seen1"], check=True)
    try:
        with planted.host(str(root)) as facts:
            yield facts
    finally:
        subprocess.run(["ip", "link", "del", "seen0"], check=True)
        subprocess.run(["ip", "address", "del", f"{OTHER_ADDRESS}/32", "dev", "lo"], check=True)


def prepare(request: pytest.FixtureRequest, stage: Stage, directories: pytest.TempPathFactory) -> Path:
    """A Debian with programs of PROBES, below a directory that only root can enter; one for all tests of a run."""
    root = directories.getbasetemp() / "hostile/root"
    if not root.exists():
        capture = request.config.pluginmanager.getplugin("capturemanager")
        assert capture is not None
        with capture.global_and_fixture_disabled():
            made = roots.make(RECIPE, prepare=stage.onto_host_network)
        root.parent.mkdir(mode=0o700)
        roots.copy(made, root)
        shutil.copytree(PROBES, root / "opt/probes", ignore=shutil.ignore_patterns("__pycache__"))
        (root / "opt/jailng/audit").mkdir(parents=True)
        for name in ("__init__", "probe", "numbers"):
            shutil.copy(AUDIT / f"{name}.py", root / "opt/jailng/audit")
    return root


def program(module: str, *arguments: str, where: str = "/opt") -> list[str]:
    """The command that runs ``module`` of PROBES inside."""
    environment = [f"PYTHONPATH={where}", "PYTHONDONTWRITEBYTECODE=1"]
    return ["/usr/bin/env", *environment, PYTHON, "-s", "-P", "-m", module, *arguments]


def run(argv: Sequence[str], facts: dict[str, str], prefix: str = "") -> Said:
    """Have the probes made by a command that runs what is added to it."""
    made = subprocess.Popen(
        [*argv, *enter.command(facts, prefix)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    return enter.run(made, facts)


def slug(name: str) -> str:
    """A name that a jail can have."""
    return re.sub(r"\W+", "-", name)
