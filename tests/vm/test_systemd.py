"""On a host where systemd is PID 1, not on a stage: the cgroup of jailng's beside systemd's own, at the root.

These run in the machine alone, and before the others, which put their process on a stage.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.linux import processid
from tests.kernel import debian, stage

pytestmark = pytest.mark.skipif(Path("/proc/1/comm").read_text() != "systemd\n", reason="PID 1 is not systemd")


def _run(*argv: str | Path) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture
def jails() -> Path:
    top = next(found.target for found in stage.mounts() if found.kind == "cgroup2")
    return Path(top, "jailng")


@pytest.fixture
def create(checkout: Path, tmp_path: Path) -> Iterator[list[str]]:
    """The command that makes jail ``a``, in which somebody sleeps; the jail is removed afterwards."""
    root = debian.small(tmp_path / "root")
    start = "exec.start=sleep 1000 >/dev/null 2>&1 </dev/null &"
    yield [f"{checkout}/bin/jail", "-c", "name=a", "jid=7", f"path={root}", start, "persist"]
    subprocess.run([checkout / "bin/jail", "-R", "a"], capture_output=True, check=False)


def _members(jails: Path) -> list[str]:
    found = []
    for pid in (jails / "7/members/cgroup.procs").read_text().split():
        with suppress(OSError):  # it has ended
            found.append(Path(f"/proc/{pid}/comm").read_text())
    return found


def _alive(checkout: Path, jails: Path) -> bool:
    until = time.monotonic() + 60
    while "sleep\n" not in _members(jails):  # what the shell has forked may not have executed it yet
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return _run(checkout / "bin/jexec", "a", "echo", "in") == "in"


def test_what_systemd_does_leaves_jails_alone(checkout: Path, jails: Path, create: list[str]) -> None:
    _run(*create)
    for command in (
        ("systemctl", "daemon-reload"),
        ("systemctl", "daemon-reexec"),
        # Controllers come on for a unit, at the root of the tree, and go off with it.
        (
            "systemd-run",
            "--wait",
            "-p",
            "MemoryMax=64M",
            "-p",
            "CPUWeight=50",
            "-p",
            "TasksMax=50",
            "-p",
            "IOWeight=5",
            "true",
        ),
        ("systemctl", "restart", "systemd-journald"),
    ):
        _run(*command)
        assert _alive(checkout, jails), command
    _run(checkout / "bin/jail", "-r", "a")
    assert not (jails / "7").exists()
    # Without the host's name, which the machine's is, too.
    assert "jailng" not in _run("journalctl", "-b", "--no-pager", "-o", "cat", "-p", "warning", "_PID=1")


def test_a_jail_outlives_the_unit_that_made_it(checkout: Path, jails: Path, create: list[str]) -> None:
    """Nobody in a jail belongs to the unit or the session from which it was started."""
    _run("systemd-run", "--wait", *create)
    assert _alive(checkout, jails)


def test_who_watches_a_jail_outlives_the_unit_that_made_it(checkout: Path, jails: Path, create: list[str]) -> None:
    """systemd sends SIGTERM to whatever the command of a unit leaves in its cgroup."""
    _run("systemd-run", "--wait", *create, "ng.limits=maxproc:log=300", "children.max=1")
    record = registry.load(7)
    assert record is not None
    for which in (record.warden, record.broker):
        assert processid.is_alive(which)


def test_a_command_does_not_see_the_callers_unit(checkout: Path, jails: Path, create: list[str]) -> None:
    _run(*create)
    before = _run("systemd-run", "--wait", "--pipe", "-q", f"{checkout}/bin/jexec", "a", "cat", "/proc/self/cgroup")
    # In the cgroup namespace of those who enter, whose root is where they are born.
    assert [line for line in before.splitlines() if line.startswith("0:")] == ["0::/"]
    assert _alive(checkout, jails)


def test_a_controller_of_ours_stays(checkout: Path, jails: Path, create: list[str]) -> None:
    """What limits will rest on: a controller that jailng has put on is not put off when systemd needs it no more."""
    _run(*create)
    top = jails.parent
    if "pids" not in (top / "cgroup.controllers").read_text().split():
        pytest.skip("the pids controller is on a hierarchy of its own")
    (top / "cgroup.subtree_control").write_text("+pids +memory")
    (jails / "cgroup.subtree_control").write_text("+pids +memory")
    (jails / "7/pids.max").write_text("40")
    _run("systemd-run", "--wait", "-p", "MemoryMax=64M", "-p", "TasksMax=50", "true")
    _run("systemctl", "daemon-reload")
    assert {"pids", "memory"} <= set((jails / "cgroup.subtree_control").read_text().split())
    assert (jails / "7/pids.max").read_text() == "40\n"
    _run(checkout / "bin/jail", "-r", "a")
    assert not jails.exists()  # the last jail takes it along, with what was on in it


def test_beside_what_is_in_the_root_all_jails_have_a_weight(checkout: Path, jails: Path, create: list[str]) -> None:
    """That of one process on each processor; so it is with other inits than systemd, whose processes lie there."""
    top = jails.parent
    if "cpu" not in (top / "cgroup.controllers").read_text().split():
        pytest.skip("the cpu controller is on a hierarchy of its own")
    scope = top / "init.scope"  # which systemd removes where it is not in there

    def move(where: Path) -> None:
        where.mkdir(exist_ok=True)
        (where / "cgroup.procs").write_text("1")

    try:
        for where, weight in ((top, 100 * (os.cpu_count() or 1)), (scope, 100)):
            move(where)
            _run(*create)
            assert (jails / "cpu.weight").read_text() == f"{weight}\n"
            _run(checkout / "bin/jail", "-r", "a")
    finally:
        move(scope)
