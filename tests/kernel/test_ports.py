"""Ports below 1024 in a jail whose network namespace is not its own: the host's, another jail's, the outer one's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.kernel.conftest import Command
from tests.kernel.networks import attach, ip, settle

Make = Callable[..., None]
ADDRESS = "198.51.100.10"
# Port 80 is that of other tests, whose connections keep it for a minute after their end.
_CODE = """
import errno, socket
try: socket.socket().bind(("", 1)); print("ok")
except OSError as error: print(errno.errorcode[error.errno])
"""
# The checkout, and the Python of its own, may lie on a file system that a jail in a jail does not see.
BIND = ("/usr/bin/python3", "-ISc", _CODE)


@pytest.fixture
def make(jail: Command) -> Iterator[Make]:
    """Make a jail of that name on the host's tree; all are removed afterwards."""
    names: list[str] = []

    def made(name: str, *words: str) -> None:
        names.append(name)
        done = jail("-c", f"name={name}", "path=/", "persist", *words)
        assert (done.returncode, done.stderr) == (0, "")

    yield made
    for name in reversed(names):
        jail("-r", name)


@pytest.fixture
def neighbour(make: Make) -> Iterator[None]:
    """A jail that has the address already."""
    with attach("ep0", ("198.51.100.1/24",), ("198.51.100.2/24", "2001:db8:1::2/64")):
        ip(f"address add {ADDRESS}/32 dev ep0")
        settle("ep0")
        make("first", f"ip4.addr={ADDRESS}")
        yield


@pytest.mark.parametrize(
    "words", [("ip4=inherit",), ("ng.stack=shared", "ip4.addr=127.0.0.1"), (f"ip4.addr={ADDRESS}",)]
)
def test_without_suser_root_has_none(neighbour: None, make: Make, jexec: Command, words: tuple[str, ...]) -> None:
    make("with", *words)
    assert jexec("with", *BIND).stdout == "ok\n"
    make("without", *words, "allow.nosuser")
    assert jexec("without", *BIND).stdout == "EACCES\n"


@pytest.mark.parametrize("word", ["ip4=inherit", f"ip4.addr={ADDRESS}"])
@pytest.mark.parametrize("name", ["reserved_ports", "suser"])
def test_they_are_taken_and_given(
    neighbour: None, make: Make, jail: Command, jexec: Command, word: str, name: str
) -> None:
    make("cell", word)
    for change, said in ((f"allow.no{name}", "EACCES"), (f"allow.{name}", "ok"), (f"allow.no{name}", "EACCES")):
        assert jail("-m", "name=cell", change).returncode == 0
        assert jexec("cell", *BIND).stdout == f"{said}\n"
    jail("-r", "cell")
    make("cell", word, f"allow.no{name}")
    assert jail("-m", "name=cell", f"allow.{name}").returncode == 0
    assert jexec("cell", *BIND).stdout == "ok\n"


def test_raw_sockets_are_for_the_first_alone(neighbour: None, make: Make, jail: Command) -> None:
    make("second", f"ip4.addr={ADDRESS}")
    done = jail("-m", "name=second", "allow.raw_sockets")
    sentence = "allow.raw_sockets: only in the jail that had the address first can Linux allow them"
    assert (done.returncode, done.stderr) == (1, f"jail: {sentence}\n")
    assert jail("-m", "name=first", "allow.raw_sockets").returncode == 0


@pytest.mark.parametrize("name", ["reserved_ports", "suser"])
def test_what_is_taken_from_a_jail_is_taken_from_those_in_it(
    make: Make, jail: Command, jexec: Command, name: str
) -> None:
    make("outer", "ip4.addr=127.0.0.1", "children.max=1")
    make("outer.inner", "ip4=inherit")
    assert jexec("outer.inner", *BIND).stdout == "ok\n"
    assert jail("-m", "name=outer", f"allow.no{name}").returncode == 0
    assert jexec("outer.inner", *BIND).stdout == "EACCES\n"


@pytest.mark.parametrize("name", ["reserved_ports", "suser"])
def test_a_jail_has_none_by_the_one_that_it_is_in(make: Make, jexec: Command, name: str) -> None:
    make("outer", "ip4=inherit", "ng.uids=shared", "children.max=1")
    make("outer.inner", "ip4=inherit", f"allow.no{name}")
    assert jexec("outer", *BIND).stdout == "ok\n"
    assert jexec("outer.inner", *BIND).stdout == "EACCES\n"
