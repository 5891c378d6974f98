"""ipnat(8) and a jail on the host's own stack (ng.stack=shared): its streams are translated like any of the host's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace
from tests.kernel.stacked import HOST, HOST6, ONE, ONE6, PEER, PEER6, Inside, ask, caller, lan
from tests.kernel.translating import loader, sessions

__all__ = ["lan"]


@pytest.fixture(params=["one address", "several"])
def cell(request: pytest.FixtureRequest, lan: Namespace, jail: Command, debian_python: Path) -> Iterator[None]:
    """A jail that listens on its one address, or on all of several."""
    addresses = f"ip4.addr={ONE}" if request.param == "one address" else f"ip4.addr={ONE},198.51.100.11"
    made = jail("-c", "name=cell", f"path={debian_python}", "ng.stack=shared", addresses, f"ip6.addr={ONE6}", "persist")
    assert made.returncode == 0, made.stderr
    yield
    assert jail("-r", "cell").returncode == 0


@pytest.mark.usefixtures("cell")
@pytest.mark.parametrize(
    ("version", "own", "host", "peer"), [(4, ONE, HOST, PEER), (6, ONE6, HOST6, PEER6)], ids=["ip4", "ip6"]
)
def test_streams(version: int, own: str, host: str, peer: str, lan: Namespace, ipnat: Command, checkout: Path) -> None:
    bits, kind = (32, "AF_INET") if version == 4 else (128, "AF_INET6")
    loader(ipnat)(
        f"map ep0 {own}/{bits} -> {host}/{bits} portmap tcp/udp 10000:65000",
        f"rdr ep0 {host}/{bits} port 8021 -> {own} port 21 tcp",
    )
    try:
        listening = lan.listen(peer, 53)
        asked = f"s = made({kind}); tell(error=attempt(lambda: s.connect(('{peer}', 53))))"
        assert ask(checkout, asked) == {"error": None}
        assert caller(listening) == host
        any_address = "" if version == 4 else own
        serving = f"s = made({kind}); s.bind(('{any_address}', 21)); s.listen(); tell(ready=1); c, a = s.accept()"
        with Inside(checkout, f"{serving}; tell(peer=a[0], sent=c.send(b'x'))") as inside:
            inside.next()
            came = lan.connect(host, 8021)
            assert inside.next() == {"peer": peer, "sent": 1}
            assert came.recv(1) == b"x"
        assert sorted(line.split()[0] for line in sessions(ipnat)) == ["MAP", "RDR"]
    finally:
        assert ipnat("-CF").returncode == 0


@pytest.mark.usefixtures("cell")
@pytest.mark.parametrize(
    ("version", "own", "host", "peer"), [(4, ONE, HOST, PEER), (6, ONE6, HOST6, PEER6)], ids=["ip4", "ip6"]
)
def test_datagrams(
    version: int, own: str, host: str, peer: str, lan: Namespace, ipnat: Command, checkout: Path
) -> None:
    """Of a socket that is connected, as a resolver's is, or bound."""
    bits, kind = (32, "AF_INET") if version == 4 else (128, "AF_INET6")
    loader(ipnat)(f"map ep0 {own}/{bits} -> {host}/{bits} portmap tcp/udp 10000:65000")
    try:
        heard = lan.datagrams(peer, 53)
        code = f"""
a = made({kind}, SOCK_DGRAM); a.connect(("{peer}", 53)); a.send(b"connected")
b = made({kind}, SOCK_DGRAM); b.bind(("{own}", 5300)); b.sendto(b"bound", ("{peer}", 53))
tell(sent=1); tell(answers=[one.recv(99).decode() for one in (a, b)])"""
        with Inside(checkout, code) as inside:
            inside.next()
            for _ in range(2):
                text, caller_ = heard.recvfrom(99)
                assert caller_[0] == host
                heard.sendto(text.upper(), caller_)
            assert inside.next() == {"answers": ["CONNECTED", "BOUND"]}
    finally:
        assert ipnat("-CF").returncode == 0
