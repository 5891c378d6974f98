"""For tests of ipnat(8): the article's host and LAN, a jail, and what is listed of sessions."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.kernel.conftest import Command
from tests.kernel.networks import Departures, Jail, Namespace, attach, ip, undo

HOST, LAN, CELL, OTHER = "10.0.0.75", "10.0.0.33", "192.168.10.2", "192.168.10.3"
HOST6, LAN6, CELL6 = "2001:db8:1::75", "2001:db8:1::33", "2001:db8:10::2"
ARTICLE = (
    f"map ep0 {CELL}/32 -> 0.0.0.0/32 portmap tcp/udp 10000:65000",
    f"map ep0 {CELL}/32 -> 0.0.0.0/32",
    f"rdr ep0 {HOST}/32 port 21 -> {CELL} port 21",
)
Load = Callable[..., None]


@contextmanager
def network() -> Iterator[Namespace]:
    """ogoun's ep0 with its address and two jails', and a machine behind it that knows only the first."""
    with attach("ep0", (f"{HOST}/24", f"{HOST6}/64"), (f"{LAN}/24", f"{LAN6}/64")) as made:
        ip(f"address add {CELL}/24 broadcast + dev ep0", f"address add {OTHER}/32 dev ep0")
        ip(f"address add {CELL6}/128 dev ep0 nodad preferred_lft 0")
        yield made


@contextmanager
def standing(jid: int, ip4: str, ip6: str = "") -> Iterator[Jail]:
    """A jail with these addresses."""
    made, departures = Jail(), Departures()
    link = made.set_up(jid, ip4, ip6)
    yield made
    undo(link)
    made.end()
    departures.wait(f"jng{jid}")


def loader(ipnat: Command) -> Load:
    """Loads lines of rules, in the place of all others."""

    def load(*lines: str) -> None:
        done = ipnat("-CF", "-f", "-", stdin="\n".join(lines) + "\n")
        assert (done.stderr, done.returncode) == ("", 0)

    return load


def exchange(listener: socket.socket, caller: socket.socket) -> tuple[str, int]:
    """By which address and port the listener sees the client, once both have heard each other."""
    served, seen = listener.accept()
    with listener, caller, served:
        caller.sendall(b"ask")
        assert served.recv(3) == b"ask"
        served.sendall(b"tell")
        assert caller.recv(4) == b"tell"
    return str(seen[0]), int(seen[1])


def sessions(ipnat: Command, *options: str) -> list[str]:
    """What ipnat -l says behind its second heading, with single blanks."""
    shown = ipnat("-l", *options)
    assert (shown.stderr, shown.returncode) == ("", 0)
    return [re.sub(" +", " ", line) for line in shown.stdout.partition("List of active sessions:\n")[2].splitlines()]
