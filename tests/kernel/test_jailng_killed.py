"""SIGKILL at steps of jailctl's verbs: the next ``jailctl list`` tells the truth, and the verb can be run again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.linux import cgroup
from tests.kernel import faults
from tests.kernel.conftest import Command
from tests.kernel.faults import STRIDE, Step
from tests.kernel.leftovers import indexed
from tests.kernel.networks import Namespace, ip

ADDRESS = "198.51.100.7"


class Trial:
    """A verb that is killed at one step after another."""

    def __init__(self, checkout: Path, trace: Path, jailctl: Command) -> None:
        self.program = str(checkout / "bin/jailctl")
        self.trace = trace
        self.jailctl = jailctl

    def each(self, *verb: str, first: Callable[[], None], every: int = STRIDE) -> Iterator[Step]:
        """Kill it, and yield; ``first`` makes the world as it has to be before."""
        first()
        steps = faults.steps(self.trace, self.program, *verb)
        for step in steps[os.getpid() % min(every, len(steps)) :: every]:  # others on other runs, and always one
            first()
            done = faults.run(step, "signal=SIGKILL", self.program, *verb)
            assert "Traceback" not in done.stderr, (step, done.stderr)
            if done.returncode == -signal.SIGKILL:  # else it had other calls this time
                yield step

    def listed(self, step: Step) -> bool:
        """Whether ``jailctl list`` has the jail, and so has the kernel."""
        until = time.monotonic() + 60
        while True:  # what has been killed as well may live for a moment still
            done = self.jailctl("list", "-r", "--json")
            assert done.returncode == 0, (step, done.stderr)
            (rows,) = json.loads(done.stdout).values()
            there = "test" in [row["name"] for row in rows]
            if there is (registry.find("test") is not None):
                return there
            assert time.monotonic() < until, step

    def run(self, step: Step | None, *verb: str) -> None:
        """It has to succeed."""
        done = self.jailctl(*verb)
        assert (done.returncode, done.stderr) == (0, ""), (step, verb)


@pytest.fixture
def trial(checkout: Path, tmp_path: Path, jailctl: Command) -> Trial:
    """The verbs of jailctl."""
    return Trial(checkout, tmp_path / "trace", jailctl)


def test_create_and_destroy(trial: Trial) -> None:
    def absent() -> None:
        trial.jailctl("destroy", "test")

    def present() -> None:
        if registry.find("test") is None:
            trial.run(None, "create", "test")

    for step in trial.each("create", "test", first=absent, every=4 * STRIDE):
        if not trial.listed(step):
            trial.run(step, "create", "test")
        assert trial.listed(step)
    for step in trial.each("destroy", "test", first=present, every=2 * STRIDE):
        if trial.listed(step):
            done = trial.jailctl("destroy", "test")
            assert done.returncode == 0 or 'jail "test" not found' in done.stderr, (step, done.stderr)  # it was dying
        assert not trial.listed(step)
    trial.jailctl("destroy", "test")
    assert not indexed()


def test_signal_and_join(trial: Trial, small_root: Path) -> None:
    trial.run(None, "create", "test")
    for step in trial.each("signal", "-WINCH", "test", first=lambda: None, every=3 * STRIDE):
        trial.run(step, "signal", "-WINCH", "test")
        record = registry.find("test")
        assert record is not None
        assert cgroup.read(f"{record.cgroup}/members/cgroup.freeze") == b"0\n", step
    for step in trial.each("join", "test", "-c", str(small_root), "true", first=lambda: None, every=6 * STRIDE):
        trial.run(step, "join", "test", "-c", str(small_root), "true")
        assert trial.listed(step)
    trial.run(None, "destroy", "test")


def test_variables(trial: Trial, lan: Namespace, debian_python: Path) -> None:
    """Whatever it was killed at, to set it again sets it."""
    ip(f"address add {ADDRESS}/24 dev ep0")
    trial.run(None, "create", "test")
    variable = "jail.instance.test."

    def set_to(name: str, value: str) -> Callable[[], None]:
        return lambda: trial.run(None, "sysctl", f"{variable}{name}={value}")

    tried = ("join", "test", "-c", str(debian_python), "python3", "-c")
    for step in trial.each("sysctl", f"{variable}ipv4addr={ADDRESS}", first=set_to("ipv4addr", "0"), every=4 * STRIDE):
        assert trial.listed(step)
        trial.run(step, "sysctl", f"{variable}ipv4addr={ADDRESS}")
        trial.run(step, *tried, f"import socket; socket.create_server(('{ADDRESS}', 0))")
    for step in trial.each("sysctl", f"{variable}ipv4addr=0", first=set_to("ipv4addr", ADDRESS), every=4 * STRIDE):
        trial.run(step, "sysctl", f"{variable}ipv4addr=0")
        done = trial.jailctl(*tried, f"import socket; socket.create_server(('{ADDRESS}', 0))")
        assert "Cannot assign requested address" in done.stderr, step
    socket_ipv4 = ("sysctl", f"{variable}socket_ipv4_permitted=0")
    for step in trial.each(*socket_ipv4, first=set_to("socket_ipv4_permitted", "1"), every=6 * STRIDE):
        trial.run(step, *socket_ipv4)
        assert trial.jailctl(*tried, "import socket; socket.socket()").returncode == 1, step
    trial.run(None, "destroy", "test")
    ip(f"address del {ADDRESS}/24 dev ep0")
