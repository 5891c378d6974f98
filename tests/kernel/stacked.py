"""What the tests of ng.stack=shared stand on: a host on a LAN, a jail ``cell`` on its stack, and Python in that."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path
from socket import SO_ERROR, SOL_SOCKET
from typing import Any

import pytest

from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace, Socket, attach, client, family, ip, server
from tests.kernel.stage import Stage
from tests.kernel.stdio_host import until

ONE, TWO, HOST, PEER = "198.51.100.10", "198.51.100.11", "198.51.100.1", "198.51.100.2"
ONE6, TWO6, HOST6, PEER6 = "2001:db8:1::10", "2001:db8:1::11", "2001:db8:1::1", "2001:db8:1::2"
PYTHON = "/usr/bin/python3"
BEGIN = """
import errno, json, os, socket, struct, sys
from socket import *
def tell(**facts): print(json.dumps(facts), flush=True)
def attempt(work):
    try: return work()
    except OSError as error: return errno.errorcode[error.errno]
def made(family=AF_INET, kind=SOCK_STREAM, protocol=0):
    one = socket(family, kind, protocol)
    one.settimeout(60)
    if kind == SOCK_STREAM: one.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)  # connections of tests before this one wait
    return one
"""


class Inside:
    """Python in the jail ``cell``: what it prints is JSON, a line at a time."""

    def __init__(self, checkout: Path, code: str, *options: str) -> None:
        argv = [str(checkout / "bin/jexec"), *options, "cell", PYTHON, "-ISc", BEGIN + code]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def next(self) -> Any:
        """What it says next."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    def go_on(self) -> None:
        """Give it the line that it waits for."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate("\n", timeout=60)


def ask(checkout: Path, code: str, *options: str) -> Any:
    """What a program in the jail prints, as its only line."""
    with Inside(checkout, code, *options) as inside:
        return inside.next()


def caller(listening: Socket) -> str:
    """Whose connection it accepts next."""
    accepted, address = listening.accept()
    accepted.close()
    return str(address[0])


@pytest.fixture
def lan() -> Iterator[Namespace]:
    """The host's ep0 leads to a LAN; it has the addresses .10 and .11, ::10 and ::11 for jails."""
    with attach("ep0", (f"{HOST}/24", f"{HOST6}/64"), (f"{PEER}/24", f"{PEER6}/64")) as made:
        for address in (f"{ONE}/24", f"{TWO}/24", f"{ONE6}/64", f"{TWO6}/64"):
            ip(f"address add {address} dev ep0{' nodad' if ':' in address else ''}")
        yield made


@pytest.fixture
def cell(request: pytest.FixtureRequest, lan: Namespace, jail: Command) -> Iterator[Namespace]:
    """A jail of that name, with the addresses and parameters that the test asks for."""
    words = getattr(request, "param", (f"ip4.addr={ONE}",))
    made = jail("-c", "name=cell", "path=/", "persist", "ng.stack=shared", *words)
    assert (made.returncode, made.stderr) == (0, "")
    yield lan
    assert jail("-r", "cell").returncode == 0


def having(*words: str) -> pytest.MarkDecorator:
    """Of the fixture ``cell``: the jail's parameters."""
    return pytest.mark.parametrize("cell", [words], indirect=True, ids=[" ".join(words)])


BOTH = having(f"ip4.addr={ONE}", f"ip6.addr={ONE6}")
SEVERAL = having(f"ip4.addr={ONE},{TWO}", f"ip6.addr={ONE6},{TWO6}")


def answers(address: str, port: int) -> bool:
    """Whether a connection is made in the time that the loopback has for a hundred others."""
    with Socket(family(address)) as one:
        one.setblocking(False)
        one.connect_ex((address, port))
        with server("127.0.0.1", 9) as control:
            for _ in range(100):
                client("127.0.0.1", 9).close()
                control.accept()[0].close()
        return bool(select.select([], [one], [], 0)[1]) and one.getsockopt(SOL_SOCKET, SO_ERROR) == 0


def broker(stage: Stage) -> int:
    """The pid of the only one there is, once it has no children."""
    found: list[int] = []

    def is_alone() -> bool:
        found[:] = [pid for pid, name in stage.processes().items() if name == "jail-sockets"]
        return len(found) == 1

    until(is_alone, "there is one broker")
    return found[0]
