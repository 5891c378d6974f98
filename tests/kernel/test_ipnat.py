"""ipnat(8) on a host with a LAN and a jail: what packets look like at the other side, and what is listed of them."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from tests.kernel.conftest import Command
from tests.kernel.networks import Departures, Jail, Namespace, attach, client, ip, run, undo

HOST, LAN, JAIL = "10.0.0.75", "10.0.0.33", "192.168.10.2"
FLUSHED = "0 entries flushed from NAT table\n0 entries flushed from NAT list\n"


@pytest.fixture
def lan() -> Iterator[Namespace]:
    """The article's network: ogoun's ep0 with its address and the jail's, and a machine that knows only the first."""
    with attach("ep0", (f"{HOST}/24", "fd00::75/64"), (f"{LAN}/24", "fd00::33/64")) as made:
        ip(f"address add {JAIL}/24 broadcast + dev ep0")
        yield made


@pytest.fixture
def cell(lan: Namespace) -> Iterator[Jail]:
    """The jail."""
    made, departures = Jail(), Departures()
    link = made.set_up(7, JAIL)
    yield made
    undo(link)
    made.end()
    departures.wait("jng7")


@pytest.fixture
def rules(ipnat: Command) -> Iterator[Command]:
    """Loads a text of rules, in the place of others, and at the end none is left."""

    def load(*lines: str, stdin: str = "", timeout: float = 60) -> object:
        done = ipnat("-CF", "-f", "-", stdin="\n".join(lines) + "\n")
        assert (done.stderr, done.returncode) == ("", 0)
        return done

    yield load  # type: ignore[misc]
    assert ipnat("-CF").returncode == 0


def exchange(listener: socket.socket, caller: socket.socket) -> tuple[str, int]:
    """By which address and port the listener sees the client, once both have heard each other."""
    served, seen = listener.accept()
    with listener, caller, served:
        caller.sendall(b"ask")
        assert served.recv(3) == b"ask"
        served.sendall(b"tell")
        assert caller.recv(4) == b"tell"
    return str(seen[0]), int(seen[1])


def sessions(ipnat: Command) -> list[str]:
    """What ipnat -l says after its second heading, with single spaces."""
    shown = ipnat("-l")
    assert (shown.stderr, shown.returncode) == ("", 0)
    return [re.sub(" +", " ", line) for line in shown.stdout.partition("List of active sessions:\n")[2].splitlines()]


ARTICLE = (
    f"map ep0 {JAIL}/32 -> 0.0.0.0/32 portmap tcp/udp 10000:65000",
    f"map ep0 {JAIL}/32 -> 0.0.0.0/32",
    f"rdr ep0 {HOST}/32 port 21 -> {JAIL} port 21",
)


def test_nothing(ipnat: Command) -> None:
    done = ipnat("-CF")
    assert (done.stdout, done.stderr, done.returncode) == (FLUSHED, "", 0)
    assert ipnat("-l").stdout == "List of active MAP/Redirect filters:\n\nList of active sessions:\n"
    assert "jailng_nat" not in run("nft", "list", "tables")


def test_article(lan: Namespace, cell: Jail, rules: Command, ipnat: Command) -> None:
    rules(*ARTICLE)
    assert exchange(cell.listen(JAIL, 21), lan.connect(HOST, 21))[0] == LAN
    listener = lan.listen(LAN, 53)
    with cell.entered():
        caller = client(LAN, 53)
    port = caller.getsockname()[1]
    seen, new = exchange(listener, caller)
    assert seen == HOST
    assert 10000 <= new <= 65000
    shown = ipnat("-l").stdout.splitlines()
    assert shown[1:4] == [*ARTICLE[:2], f"rdr ep0 {HOST}/32 port 21 -> {JAIL} port 21 tcp"]
    assert f"MAP {JAIL} {port} <- -> {HOST} {new} [{LAN} 53] tcp" in sessions(ipnat)
    assert [line for line in sessions(ipnat) if re.fullmatch(rf"RDR {JAIL} 21 <- -> {HOST} 21 \[{LAN} \d+\] tcp", line)]
    assert ipnat("-F").stdout == "2 entries flushed from NAT table\n"
    assert sessions(ipnat) == []
