"""The stage is a host of its own, and what is left on it does not go unseen."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.leftovers import differences, snapshot
from tests.kernel.stage import Stage, mount, mounts, unmount

Change = tuple[Callable[[], object], Callable[[], object]]


def _run(line: str) -> None:
    subprocess.run(line.split(), check=True)


@pytest.fixture
def changes(stage: Stage, tmp_path: Path) -> dict[str, Change]:
    """For each kind of thing that can be left behind: how to leave it, how to take it away."""
    children: list[subprocess.Popen[bytes]] = []
    hostname = socket.gethostname()
    cgroup = stage.cgroup2 / "jng7"
    shm, entry = Path("/dev/shm/left"), Path("/run/jailng/jails/7")

    def end_child() -> None:
        children[0].kill()
        children[0].wait()

    def enter() -> None:
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.touch()

    return {
        "process": (lambda: children.append(subprocess.Popen(["sleep", "1000"])), end_child),
        "mount": (lambda: mount("none", tmp_path, "tmpfs"), lambda: unmount(tmp_path)),
        "cgroup": (cgroup.mkdir, cgroup.rmdir),
        "interface": (lambda: _run("ip link add jng7 type veth peer name inside"), lambda: _run("ip link del jng7")),
        "address, route or rule": (
            lambda: _run("ip route add local 192.0.2.7 dev lo table local"),
            lambda: _run("ip route del local 192.0.2.7 dev lo table local"),
        ),
        "firewall rule": (lambda: _run("nft add table inet jailng"), lambda: _run("nft delete table inet jailng")),
        "sysctl": (
            lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"),
            lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("0"),
        ),
        "named network namespace": (lambda: _run("ip netns add left"), lambda: _run("ip netns del left")),
        "registry entry": (enter, entry.unlink),
        "shared memory, semaphore or queue": (shm.touch, shm.unlink),
        "hostname": (lambda: socket.sethostname("left"), lambda: socket.sethostname(hostname)),
    }


KINDS = [
    "process",
    "mount",
    "cgroup",
    "interface",
    "address, route or rule",
    "firewall rule",
    "sysctl",
    "named network namespace",
    "registry entry",
    "shared memory, semaphore or queue",
    "hostname",
]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_is_found(stage: Stage, changes: dict[str, Change], kind: str) -> None:
    leave, take_away = changes[kind]
    before = snapshot(stage)
    leave()
    try:
        found = differences(stage, before, wait=0)
    finally:
        take_away()
    assert any(line.startswith(f"{kind} left behind: ") for line in found), found


def test_every_kind_is_tried(stage: Stage) -> None:
    assert set(KINDS) == set(snapshot(stage))


def test_what_is_lost_is_found(stage: Stage) -> None:
    _run("ip address add 192.0.2.7/32 dev lo")
    before = snapshot(stage)
    _run("ip address del 192.0.2.7/32 dev lo")
    found = differences(stage, before, wait=0)
    assert any(line.startswith("address, route or rule lost: ") and "192.0.2.7" in line for line in found), found


def test_what_goes_by_itself_is_waited_for(stage: Stage) -> None:
    before = snapshot(stage)
    with subprocess.Popen(["sleep", "0.05"]) as child:
        assert differences(stage, before) == []
        assert child.wait() == 0


def test_the_stage_has_its_own_network_and_cgroups(stage: Stage) -> None:
    assert os.readlink("/proc/self/ns/net") != f"net:[{os.fstat(stage.host_net).st_ino}]"
    assert sorted(os.listdir("/proc/sys/net/ipv4/conf")) == ["all", "default", "lo"]
    assert os.getpid() in stage.processes()
    assert "0::/stage" in Path("/proc/self/cgroup").read_text().splitlines()


def test_nothing_mounted_here_reaches_the_host(stage: Stage, tmp_path: Path) -> None:
    mount("none", tmp_path, "tmpfs")
    try:
        outside = Path("/proc/1/mountinfo").read_text()
        assert str(tmp_path) in {found.target for found in mounts()}
        assert str(tmp_path) not in outside
    finally:
        unmount(tmp_path)


def test_a_user_namespace_can_be_made(stage: Stage) -> None:
    """As in no chroot: whatever the check was started in, the tests are not."""
    subprocess.run(["unshare", "--user", "true"], check=True)
