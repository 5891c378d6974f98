"""IPv4 by sockets of IPv6 (::ffff:0:0/96), in a jail whose ng.sockets leaves IPv4 out."""

from __future__ import annotations

import select
from pathlib import Path
from socket import AF_INET

import pytest

from tests.kernel.conftest import Command
from tests.kernel.networks import PATIENCE, Namespace, Socket, client
from tests.kernel.stacked import ONE, ONE6, PEER, PEER6, Inside, ask, caller, lan

__all__ = ["lan"]  # a fixture

TRIED = f"""
def six(kind=SOCK_STREAM): return made(AF_INET6, kind)
tell(four=attempt(lambda: made().close()),
    clothed=attempt(lambda: six().connect(("::ffff:{PEER}", 80))),
    connected=attempt(lambda: six(SOCK_DGRAM).connect(("::ffff:{PEER}", 53))),
    sent=attempt(lambda: six(SOCK_DGRAM).sendto(b"x", ("::ffff:{PEER}", 53))),
    six=attempt(lambda: six().connect(("{PEER6}", 80))))
"""
REFUSED = {"four": "EAFNOSUPPORT", "clothed": "EAFNOSUPPORT", "connected": "EAFNOSUPPORT", "sent": "EAFNOSUPPORT"}
LISTENING = """
s = made(AF_INET6); s.setsockopt(41, IPV6_V6ONLY, 0); s.bind(("::", 21)); s.listen()
u = made(AF_INET6, SOCK_DGRAM); u.setsockopt(41, IPV6_V6ONLY, 0); u.bind(("::", 53))
tell(ready=True)
while True: tell(peer=s.accept()[1][0], asked=u.recvfrom(9)[0].decode())
"""


def _call(lan: Namespace, answered: bool) -> None:
    """From the LAN, by IPv4 and then by IPv6, by UDP and TCP; by IPv6 when what has gone before has got there."""
    lan.datagrams().sendto(b"four", (ONE, 53))
    with lan.entered(), Socket(AF_INET) as four:
        four.settimeout(PATIENCE if answered else 0)
        assert (four.connect_ex((ONE, 21)) == 0) is answered
        lan.datagrams(version=6).sendto(b"six", (ONE6, 53))
        client(ONE6, 21).close()


@pytest.mark.parametrize("stack", ["own", "shared"])
def test_no_ipv4_by_sockets_of_ipv6(lan: Namespace, jail: Command, checkout: Path, stack: str) -> None:
    """Out or in, of TCP and UDP; from the start, and when it is taken away and given back while the jail runs."""
    there, there6 = lan.listen(PEER, 80), lan.listen(PEER6, 80)
    words = (f"ng.stack={stack}", f"ip4.addr={ONE}", f"ip6.addr={ONE6}")
    made = jail("-c", "name=cell", "path=/", "persist", "ng.sockets=unix,route", *words)
    assert (made.returncode, made.stderr) == (0, "")
    assert ask(checkout, TRIED) == {**REFUSED, "six": None}
    assert caller(there6) == ONE6
    with Inside(checkout, LISTENING) as inside:
        inside.next()
        for permitted in (False, True, False):
            if permitted:
                assert jail("-m", "name=cell", "ng.sockets=").returncode == 0
            _call(lan, permitted)
            if permitted:
                assert inside.next() == {"peer": f"::ffff:{PEER}", "asked": "four"}
                assert ask(checkout, TRIED) == {
                    "four": None,
                    "clothed": None,
                    "connected": None,
                    "sent": 1,
                    "six": None,
                }
                assert caller(there) == ONE and caller(there6) == ONE6
            assert inside.next() == {"peer": PEER6, "asked": "six"}
            if permitted:
                assert jail("-m", "name=cell", "ng.sockets=unix").returncode == 0
        assert ask(checkout, TRIED) == {**REFUSED, "six": None}
        inside.process.kill()
    assert not select.select([there], [], [], 0)[0]
    assert jail("-r", "cell").returncode == 0
