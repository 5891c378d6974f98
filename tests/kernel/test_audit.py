"""jailctl audit: what it says of a jail, of what confines nobody, and of what others make; nothing of it stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jailng.audit import planted
from jailng.core import registry
from tests.kernel.conftest import Command, _command
from tests.kernel.stage import Stage, mount, unmount

PLACES = Path("/var/cache/jailng/audit")


@pytest.fixture(scope="session")
def jailctl(checkout: Path) -> Command:
    return _command(checkout / "bin/jailctl")


@pytest.fixture
def cell(jail: Command, small_root: Path) -> Iterator[str]:
    """A jail with the defaults, in a root that has busybox and no more."""
    made = jail("-c", "name=cell", f"path={small_root}", "persist")
    assert made.returncode == 0, made.stderr
    yield "cell"
    assert jail("-r", "cell").returncode == 0


@pytest.fixture(autouse=True)
def nothing_stays(cell: str, small_root: Path) -> Iterator[None]:
    """Neither on the host nor inside."""
    PLACES.mkdir(mode=0o700, parents=True, exist_ok=True)
    mount("none", PLACES, "tmpfs", 0, "mode=700")  # other tests on this machine have audits, too
    yield
    left = list(PLACES.iterdir())
    unmount(PLACES)
    assert not left
    assert not list(small_root.glob("*/.jailng*"))


def _audit(jailctl: Command, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = jailctl("audit", "--json", *arguments)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_jail(cell: str, jailctl: Command) -> None:
    status, found = _audit(jailctl, cell)
    assert status == 1 and found["target"] == "jail cell" and found["parameters"] == ""
    assert found["counts"]["escaped"] == found["counts"]["unknown"] == found["counts"]["opened"] == 0
    assert len(found["probes"]) > 800 and found["counts"]["held"] > 500
    exposed = [one for one in found["probes"] if one["state"] == "exposed"]
    assert exposed and all(one["why"] and one["rows"] for one in exposed)


def test_a_jail_without_proc_and_dev(jail: Command, jailctl: Command, small_root: Path) -> None:
    """What is not there is not open."""
    made = jail("-c", "name=bare", f"path={small_root}", "persist", "mount.noprocfs", "mount.nodevfs")
    assert made.returncode == 0, made.stderr
    status, found = _audit(jailctl, "bare")
    assert (status, [one for one in found["probes"] if one["state"] in ("escaped", "unknown")]) == (1, [])
    assert jail("-r", "bare").returncode == 0


@pytest.mark.parametrize("sockets", ["unix", "none"])
def test_a_jail_without_netlink(jail: Command, jailctl: Command, small_root: Path, sockets: str) -> None:
    """What cannot be asked for is refused."""
    made = jail("-c", "name=silent", f"path={small_root}", "persist", f"ng.sockets={sockets}")
    assert made.returncode == 0, made.stderr
    status, found = _audit(jailctl, "silent")
    assert (status, [one for one in found["probes"] if one["state"] in ("escaped", "unknown")]) == (1, [])
    assert jail("-r", "silent").returncode == 0


def test_the_table(cell: str, jailctl: Command) -> None:
    done = jailctl("audit", "-c", "leaks", cell)
    assert done.returncode == 1 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("exposed  leaks: ") and lines[-1].startswith("jail cell: ")
    assert [line.split()[0] for line in lines if line.startswith(("CLASS", "leaks"))] == ["CLASS", "leaks"]
    everything = jailctl("audit", "-a", "-c", "files", cell)
    assert everything.returncode == 0 and "held     files: chroot twice" in everything.stdout


def test_a_process_of_a_jail_by_its_number(cell: str, jailctl: Command, checkout: Path, stage: Stage) -> None:
    """Its filters, capabilities and namespaces are taken on: what held for the jail holds."""
    record = registry.find(cell)
    assert record is not None
    argv = [str(checkout / "bin/jexec"), cell, "sh", "-c", "echo ready; cat"]
    inside = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert inside.stdout is not None and inside.stdout.readline() == "ready\n"
        members = (stage.cgroup2 / record.cgroup / "members/cgroup.procs").read_text().split()
        status, found = _audit(jailctl, "--pid", members[0])
    finally:
        inside.communicate()
    escaped = [one for one in found["probes"] if one["state"] in ("escaped", "unknown")]
    assert status == 1 and not escaped, escaped


def test_a_plain_chroot(small_root: Path, jailctl: Command) -> None:
    status, found = _audit(jailctl, "--", "chroot", str(small_root))
    assert status == 2 and found["counts"]["escaped"] > 100
    tried = {one["id"]: one for one in found["probes"]}
    assert tried["files-chroot-twice"]["state"] == "escaped" and tried["files-chroot-twice"]["rows"] == [1]


@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not here")
def test_bwrap_by_root(jailctl: Command) -> None:
    """As jailctl(8) has it, where not even /dev/null can be opened."""
    status, found = _audit(jailctl, "--", *"bwrap --bind / /".split())
    states = {one["id"]: one["state"] for one in found["probes"]}
    assert status == 2 and found["counts"]["unknown"] == 0
    assert states["proc-write-sys-kernel-core-pattern"] == states["mounts-bind-mount"] == "escaped"


@pytest.mark.skipif(not shutil.which("lxc-execute"), reason="lxc is not here")
def test_lxc_by_root(jailctl: Command, small_root: Path, tmp_path: Path) -> None:
    """As LXC starts it for root, in a mount namespace without the cgroups, which it does not find its way in here."""
    given = tmp_path / "config"
    words = {
        "rootfs.path": f"dir:{small_root}",
        "uts.name": "c",
        "net.0.type": "empty",
        "mount.auto": "proc:mixed sys:mixed",
        "apparmor.profile": "unconfined",
    }
    given.write_text("".join(f"lxc.{name} = {value}\n" for name, value in words.items()))
    for name in ("sbin", "proc", "sys", "dev", "run"):
        (small_root / name).mkdir(exist_ok=True)
    shutil.copy("/usr/sbin/init.lxc.static", small_root / "sbin/init.lxc")
    lxc = ["lxc-execute", "-n", "c", "-P", str(tmp_path), "-f", str(given), "--"]
    way = ["unshare", "-m", "sh", "-c", 'umount -lR /sys/fs/cgroup; mount -t tmpfs x /sys/fs/cgroup; exec "$@"', "sh"]
    status, found = _audit(jailctl, "--", *way, *lxc)
    assert status == 2 and found["counts"]["escaped"] > 30


def test_what_cannot_be_tried(jailctl: Command, small_root: Path) -> None:
    for words, status, said in (
        (["none"], 69, 'jailctl: audit: jail "none" not found'),
        ([], 64, "usage: jailctl audit"),
        (["-c", "none", "cell"], 64, "jailctl: audit: no class of that name: none"),
        (["--pid", "99999999"], 69, "jailctl: audit: the probes came to no end: pid 99999999: No such process"),
        (["--pid", "9" * 5000], 69, "jailctl: audit: pid 99999999999999999999: No such process"),
        (["--", "/nonexistent"], 69, "jailctl: audit: /nonexistent: No such file or directory"),
        (["--", "true"], 69, "jailctl: audit: the probes came to no end: "),
    ):
        done = jailctl("audit", *words)
        assert (done.returncode, done.stdout) == (status, "") and done.stderr.startswith(said), (words, done.stderr)
    assert jailctl("audit", "--list").stdout.count("files: chroot twice") == 1


LIES = {
    "lines without end": "busybox yes ''",
    "more than there is to say": "busybox cat /dev/zero",
    "brackets": "busybox head -c 100000 /dev/zero | busybox tr '\\0' '['",
    "a number": "busybox head -c 100000 /dev/zero | busybox tr '\\0' 9",
    "an escape": "echo; printf '\\033[31m'",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_shell_that_lies(cell: str, jailctl: Command, small_root: Path, lie: str) -> None:
    """What root inside puts in its place says what it likes, and costs the host no more than a moment."""
    shell = small_root / "bin/sh"
    shell.unlink()
    shell.write_text(f"#!/bin/busybox sh\n{LIES[lie]}\n")
    shell.chmod(0o755)
    done = jailctl("audit", cell)
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.startswith("jailctl: audit: the probes came to no end: ") and done.stderr.count("\n") == 1
    assert "\033" not in done.stderr and len(done.stderr) < 1000


def test_killed(cell: str, jailctl: Command, checkout: Path) -> None:
    """The next takes away what it has left."""
    running = subprocess.Popen([str(checkout / "bin/jailctl"), "audit", cell], stdout=subprocess.DEVNULL)
    while not list(PLACES.glob("*/socket")):
        assert running.poll() is None
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert list(PLACES.iterdir())
    planted.clear()
    assert not list(PLACES.iterdir())


def test_few_descriptors(jail: Command, jailctl: Command, small_root: Path) -> None:
    """What could not be tried for want of a descriptor was not refused, and did not succeed."""
    made = jail("-c", "name=poor", f"path={small_root}", "persist", "ng.limits=openfiles:deny=12")
    assert made.returncode == 0, made.stderr
    status, found = _audit(jailctl, "poor")
    assert jail("-r", "poor").returncode == 0
    wanting = [one for one in found["probes"] if "Too many open files" in one["said"]]
    assert status == 1 and wanting and {one["state"] for one in wanting} == {"unknown"}
    assert found["counts"]["escaped"] == 0


def test_enough_descriptors(jail: Command, jailctl: Command, small_root: Path) -> None:
    """An attempt that goes up the tree keeps one at a time."""
    made = jail("-c", "name=modest", f"path={small_root}", "persist", "ng.limits=openfiles:deny=40")
    assert made.returncode == 0, made.stderr
    _, found = _audit(jailctl, "modest")
    assert jail("-r", "modest").returncode == 0
    assert [one["id"] for one in found["probes"] if one["state"] == "unknown"] == []


def test_links_in_its_way(jailctl: Command, small_root: Path) -> None:
    """Who may write to /tmp does not have root take away what a link there leads to."""
    kept = small_root / "kept/file"
    kept.parent.mkdir()
    kept.write_text("")
    # Of the pids to come, of which one was the audit's own.
    last = int(Path("/proc/sys/kernel/ns_last_pid").read_text())
    links = [small_root / f"tmp/.jailng-probe-{pid}" for pid in range(last, last + 300)]
    for link in links:
        link.symlink_to("/kept")
    _audit(jailctl, "-c", "files", "--", "chroot", str(small_root))
    there = kept.exists(), all(link.is_symlink() for link in links)
    for link in links:
        link.unlink(missing_ok=True)
    shutil.rmtree(kept.parent)
    assert there == (True, True)


def test_what_killed_attempts_have_left(jailctl: Command, small_root: Path) -> None:
    """It is taken away where nobody else could write to it; what a living one has stays, without a /proc, too."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = small_root / f"tmp/.jailng-probe-{gone.pid}-0"
    left.mkdir(0o700)
    (left / "file").write_text("")
    (left / "point").mkdir()
    used = [small_root / f"tmp/.jailng-probe-{os.getpid()}-0", small_root / f"tmp/.jailng-audit.{os.getpid()}"]
    used.append(small_root / f"tmp/.jailng-probe-{gone.pid}-1")  # anybody may have written to this one
    for directory in used:
        directory.mkdir(0o700)
    used[-1].chmod(0o777)
    _audit(jailctl, "-c", "cgroups", "--", "chroot", str(small_root))
    there = [directory.exists() for directory in [left, *used]]
    for directory in used:
        shutil.rmtree(directory, ignore_errors=True)
    assert there == [False, True, True, True]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_ended(jailctl: Command, checkout: Path, number: signal.Signals) -> None:
    """It takes away itself what it has made."""
    argv = [str(checkout / "bin/jailctl"), "audit", "--", "sh", "-c", "echo; exec sleep 100"]
    running = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    while not list(PLACES.glob("*/socket")):
        assert running.poll() is None
    running.send_signal(number)
    assert running.wait(30) == 128 + number
    assert not list(PLACES.iterdir())
