"""Locks that keep no command waiting: those of a user of the host, and of a jail in the host's network.

flock(2) takes no permission but to open the file.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.conftest import ENVIRONMENT, Command

_NOBODY = 65534
_LOCK = """
import fcntl, os, sys
for path in sys.argv[1:]:
    fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
input()
"""


@contextmanager
def holding(argv: list[str], user: int) -> Iterator[None]:
    """While a program has what it has locked."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, user=user, group=user, env=ENVIRONMENT)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield
    finally:
        process.communicate("\n")


def _quickly(checkout: Path, *words: str) -> None:
    """With an end to it that no test reaches."""
    done = subprocess.run(
        [f"{checkout}/bin/{words[0]}", *words[1:]], timeout=60, capture_output=True, text=True, env=ENVIRONMENT
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def cell(jail: Command, small_root: Path) -> Iterator[str]:
    made = jail("-i", "-c", "name=cell", f"path={small_root}", "persist")
    assert made.returncode == 0, made.stderr
    yield made.stdout.strip()
    jail("-R", "cell")


def test_of_a_user_of_the_host(checkout: Path, cell: str, small_root: Path) -> None:
    """All that he can open of the registry, and his network namespace."""
    readable = ["/proc/self/ns/net"]
    for where, directories, names in os.walk("/run/jailng"):
        for path in (where, *[f"{where}/{name}" for name in (*directories, *names)]):
            if os.stat(path).st_mode & 0o004 and path not in readable:
                readable.append(path)
    assert f"/run/jailng/jails/{cell}" in readable
    with holding(["/usr/bin/python3", "-ISc", _LOCK, *readable], _NOBODY):
        _quickly(checkout, "jail", "-m", "name=cell", "securelevel=0")
        _quickly(checkout, "jail", "-c", "name=other", f"path={small_root}", "persist", "ip4.addr=192.0.2.7")
        _quickly(checkout, "jail", "-r", "other")
        _quickly(checkout, "ipnat", "-l")
        _quickly(checkout, "jail", "-r", "cell")


def test_of_a_jail_in_the_hosts_network(checkout: Path, jail: Command) -> None:
    assert jail("-c", "name=cell", "path=/", "persist", "ip4=inherit").returncode == 0
    try:
        argv = [f"{checkout}/bin/jexec", "cell", "/usr/bin/python3", "-ISc", _LOCK, "/proc/self/ns/net"]
        with holding(argv, 0):
            _quickly(checkout, "ipnat", "-l")
    finally:
        assert jail("-r", "cell").returncode == 0
