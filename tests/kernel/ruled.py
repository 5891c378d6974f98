"""Jails on the host's LAN that are made with rules of a parameter: ng.egress, ng.rdr."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace, attach, ip

HOST, HOST6 = "198.51.100.1", "2001:db8:1::1"
PEER, PEER6 = "198.51.100.2", "2001:db8:1::2"
JAIL, JAIL6 = "198.51.100.10", "2001:db8:1::10"
OTHER, OTHER6 = "198.51.100.11", "2001:db8:1::11"


@pytest.fixture
def lan() -> Iterator[Namespace]:
    """The host's ep0 leads to a LAN; it has the addresses of two jails."""
    with attach("ep0", (f"{HOST}/24", f"{HOST6}/64"), (f"{PEER}/24", f"{PEER6}/64")) as made:
        for four, six in ((JAIL, JAIL6), (OTHER, OTHER6)):
            ip(f"address add {four}/24 dev ep0", f"address add {six}/64 dev ep0 nodad")
        yield made


class Cell:
    """Jails that are made with some rules of ``parameter``, and removed in the end."""

    parameter = ""

    def __init__(self, jail: Command, root: Path) -> None:
        self.jail = jail
        self.root = root
        self.made: list[str] = []

    def __call__(self, *rules: str, name: str = "cell", words: tuple[str, ...] = ()) -> None:
        given = words or (f"ip4.addr={JAIL}", f"ip6.addr={JAIL6}")
        said = [f"{self.parameter}={rule}" for rule in rules]
        done = self.jail("-c", f"name={name}", f"path={self.root}", *given, *said, "persist")
        assert (done.returncode, done.stderr) == (0, "")
        self.made.append(name)

    def remove(self) -> None:
        for name in reversed(self.made):
            self.jail("-r", name)
        self.made.clear()
