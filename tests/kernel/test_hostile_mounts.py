"""What a jail's root calls the places where the host has mounted something for it: lines of /proc/self/mountinfo.

Of these many commands of the host's read, about other jails and about none.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.ctl import roots
from jailng.linux import ns
from tests.kernel import debian
from tests.kernel.conftest import Command
from tests.kernel.networks import run

# What ends a line, or parts words, to one way or another of taking text apart; and what is no UTF-8.
NAME = "a\rb\rc\x0bd\x0ce\x1cf\x1dg\x85h\u2028i\u2029j\xa0k\udcff"


@pytest.fixture
def odd(jail: Command, jexec: Command, small_root: Path) -> Iterator[Path]:
    """Such a place, of a running jail ``x``."""
    (small_root / "way/in").mkdir(parents=True)
    made = jail("-c", "name=x", "persist", f"path={small_root}", f"mount=tmpfs {small_root}/way/in tmpfs rw")
    assert made.returncode == 0, made.stderr
    assert jexec("x", "/bin/busybox", "mv", "/way", f"/{NAME}").returncode == 0
    place = small_root / NAME / "in"
    assert place.is_mount()
    yield place
    os.rename(small_root / NAME, small_root / "way")
    assert jail("-r", "x").returncode == 0
    assert not (small_root / "way/in").is_mount()


def test_other_jails_are_listed(odd: Path, jail: Command, jailctl: Command, tmp_path: Path) -> None:
    root = debian.small(tmp_path / "other")
    assert jail("-c", "name=y", "persist", f"path={root}").returncode == 0
    record = registry.remains("y")
    assert record is not None
    pidfd = os.pidfd_open(record.init_pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert ns.ends_within(pidfd, 60)
    os.close(pidfd)
    done = jailctl("list")
    jail("-r", "y")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[1:3] for line in done.stdout.splitlines()[1:]] == [["x", "running"], ["y", "ended"]]


def test_a_jail_of_another_network_is_removed(odd: Path, jail: Command, checkout: Path, tmp_path: Path) -> None:
    root = debian.small(tmp_path / "other")
    run("ip", "netns", "add", "far")
    try:
        run("ip", "-n", "far", "link", "add", "ep0", "type", "veth", "peer", "name", "far")
        run("ip", "-n", "far", "link", "set", "ep0", "up")
        words = ("name=y", f"path={root}", "interface=ep0", "ip4.addr=198.51.100.10", "persist")
        run("ip", "netns", "exec", "far", str(checkout / "bin/jail"), "-qc", *words)
        done = jail("-r", "y")
        assert (done.returncode, done.stderr) == (0, "")
        assert "198.51.100.10" not in run("ip", "-n", "far", "-o", "-4", "address")
    finally:
        run("ip", "netns", "delete", "far")


def test_a_root_is_made(odd: Path, small_root: Path) -> None:
    assert roots._mounts(small_root) == [str(odd)]
    assert roots._mounts(small_root / "none") == []


def test_a_jail_is_audited(odd: Path, jailctl: Command) -> None:
    done = jailctl("audit", "-c", "mounts", "x")
    assert "Traceback" not in done.stderr and done.returncode == 0, done


def test_a_place_that_was_moved_far_down(jail: Command, jexec: Command, small_root: Path, tmp_path: Path) -> None:
    """Deeper than a path can be, and than what the kernel tells of a mount in one page."""
    (small_root / "way/in").mkdir(parents=True)
    made = jail("-c", "name=x", "persist", f"path={small_root}", f"mount=tmpfs {small_root}/way/in tmpfs rw")
    assert made.returncode == 0, made.stderr
    script = """
        mv /way $0
        for i in $(seq 100); do mkdir /new && mv $0 /new && mv /new $0 || exit 1; done
        cat /proc/self/mountinfo | wc -c
    """
    done = jexec("x", "/bin/sh", "-c", script, "/" + "d" * 250)
    assert done.returncode == 0 and int(done.stdout) > 25000, done
    # Nor is it in the way of another jail, or of whoever looks on.
    root = debian.small(tmp_path / "other")
    (root / "mnt").mkdir()
    other = jail("-c", "name=y", f"path={root}", f"mount=tmpfs {root}/mnt tmpfs rw", "command=/bin/true")
    assert (other.returncode, other.stderr) == (0, "")
    done = jail("-r", "x")
    assert (done.returncode, done.stderr) == (0, "")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        assert "d" * 250 not in file.read()
    subprocess.run(["rm", "-rf", str(small_root / ("d" * 250))], check=True)
