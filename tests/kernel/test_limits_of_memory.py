"""memoryuse: memory that no size tells of and that outlives processes, and what the kernel counts elsewhere."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jailng.core import limit, registry
from jailng.linux import controller
from tests.kernel import bombs
from tests.kernel.conftest import Command

MIB = 1 << 20
FILES = """
import os
number = 0
try:
    while True:
        number += 1
        os.close(os.open(f"/dev/shm/{number}" + "x" * 200, os.O_CREAT | os.O_WRONLY))
except OSError as error: print(error.errno, flush=True)
"""
MESSAGES = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
one = (ctypes.c_long * 2)(1, 0)
while (queue := libc.msgget(0, 0o1600)) >= 0:
    while libc.msgsnd(queue, one, 0, 0o4000) == 0: pass
print(ctypes.get_errno(), flush=True)
"""
SEMAPHORES = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
while libc.semget(0, 1, 0o1600) >= 0: pass
print(ctypes.get_errno(), flush=True)
"""
CONNECTIONS = """
import socket, sys
listening = socket.create_server(("127.0.0.1", 0))
kept, sent = [], 0
for _ in range(40):
    one = socket.create_connection(listening.getsockname())
    kept += [one, listening.accept()[0]]
    one.setblocking(False)
    try:
        while sent < 100 << 20: sent += one.send(bytes(65536))
    except BlockingIOError: pass
print(flush=True)
sys.stdin.read()
"""


HOLDING = "import sys; held = bytearray(b'x') * (24 << 20); print(flush=True); sys.stdin.read(); print(len(held))"


@pytest.fixture
def make(jail: Command, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Starts jails, which have the host's programs; the first is 88, with 48M."""
    root = bombs.root(tmp_path / "root")

    def started(name: str, *words: str) -> None:
        if "." not in name:
            words = ("jid=88", f"mount=/usr {root}/usr nullfs ro", "ng.limits=memoryuse:deny=48M", *words)
        made = jail("-c", f"name={name}", f"path={root}", "persist", *words)
        assert (made.returncode, made.stderr) == (0, "")

    yield started
    assert jail("-r", "cell").returncode == 0


def _file(name: str, old: str) -> Path:
    """Of the jail's cgroup, in whichever hierarchy has the controller memory."""
    top = controller.hierarchy("memory")
    return Path(top, "jailng/88", old) if top else Path("/sys/fs/cgroup/jailng/88", name)


@pytest.mark.parametrize("script", [FILES, MESSAGES, SEMAPHORES], ids=["files", "messages", "semaphores"])
def test_what_outlives_processes_leaves_room(
    make: Callable[..., None], script: str, jail: Command, jexec: Command
) -> None:
    make("cell", "sysvmsg=new", "sysvsem=new")
    done = jexec("cell", "/usr/bin/python3", "-ISc", script)
    assert (done.stdout, done.returncode) == (f"{errno.ENOSPC}\n", 0)
    assert int(_file("memory.current", "memory.usage_in_bytes").read_text()) < 16 * MIB
    assert jail("-m", "name=cell", "ng.limits=memoryuse:deny=64M,nmsgq:deny=100,nsem:deny=2000").returncode == 0
    told = jexec("cell", "/bin/cat", "/proc/sys/kernel/msgmni", "/proc/sys/kernel/sem").stdout.split()
    assert (told[0], told[2]) == ("100", "2000")
    assert jail("-m", "name=cell", "ng.limits=").returncode == 0
    assert jexec("cell", "/bin/cat", "/proc/sys/kernel/msgmni").stdout == "32000\n"
    assert ",nr_inodes=131072" in jexec("cell", "/bin/grep", " /dev/shm ", "/proc/mounts").stdout


@pytest.mark.parametrize("name", ["cell", "cell.inner"])
def test_buffers_of_sockets(
    make: Callable[..., None], name: str, jail: Command, jexec: Command, checkout: Path
) -> None:
    """cgroup v1 counts them apart."""
    make("cell", "vnet", "children.max=1")
    if not controller.hierarchy("memory"):
        pytest.skip("memory is cgroup v2's here")
    if name != "cell":
        make(name, "vnet")
    held = _file("", f"{controller.BUFFERS}.usage_in_bytes")
    argv = [f"{checkout}/bin/jexec", name, "/usr/bin/python3", "-ISc", CONNECTIONS]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"\n"
        assert 6 * MIB < int(held.read_text()) < 18 * MIB
        record = registry.find("cell")
        assert record is not None
        assert limit.usage(record)["memoryuse"] > 6 * MIB
    assert jail("-m", "name=cell", "ng.limits=").returncode == 0
    assert int(_file("", f"{controller.BUFFERS}.limit_in_bytes").read_text()) > 1 << 60


def test_less_than_is_in_use_is_refused_and_ends_nobody(
    make: Callable[..., None], jail: Command, checkout: Path
) -> None:
    """To have it fit into memory.max cgroup2 would kill."""
    make("cell")
    argv = [f"{checkout}/bin/jexec", "cell", "/usr/bin/python3", "-ISc", HOLDING]
    swaps = len(Path("/proc/swaps").read_text().splitlines()) > 1
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stdout.readline() == b"\n"
        changed = jail("-m", "name=cell", "ng.limits=memoryuse:deny=16M")
        if not swaps:
            assert (changed.returncode, changed.stderr) == (1, "jail: ng.limits: memoryuse: more is in use\n")
        assert running.communicate(b"", timeout=60)[0] == b"%d\n" % (24 << 20)
    high = _file("memory.high", "")
    assert not high.is_file() or high.read_text() == "max\n"
    held = _file("memory.max", "memory.limit_in_bytes")
    assert swaps or held.read_text() == f"{48 * MIB}\n"
    # What the cache can give back is no hindrance; nor is what one that was killed in the middle has left.
    if high.is_file():
        high.write_text(f"{46 * MIB}")
    assert jail("-m", "name=cell", "ng.limits=memoryuse:deny=40M").returncode == 0
    assert held.read_text() == f"{40 * MIB}\n"
    assert not high.is_file() or high.read_text() == "max\n"
