"""Root of an address jail against the network, with all that allow.raw_sockets and allow.socket_af give it.

Each attack is made twice: by the jail, where it fails and is counted, and with the defence taken away, where it works.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.kernel.networks import Departures, Jail, Namespace, attach, counter, datagrams, ip, run, set_switch, undo

HOST, JAIL, LAN, OTHER = "198.51.100.1", "198.51.100.10", "198.51.100.2", "198.51.100.11"
HOST6, JAIL6, LAN6 = "2001:db8:1::1", "2001:db8:1::10", "2001:db8:1::2"
_ETH_P_IP, _ETH_P_ARP, _ETH_P_IPV6 = 0x800, 0x806, 0x86DD


@pytest.fixture
def lan() -> Iterator[Namespace]:
    with attach("ep0", (f"{HOST}/24", f"{HOST6}/64"), (f"{LAN}/24", f"{LAN6}/64")) as made:
        ip(f"address add {JAIL}/24 dev ep0", f"address add {OTHER}/24 dev ep0")
        ip(f"address add {JAIL6}/64 dev ep0 nodad preferred_lft 0")
        yield made


@contextmanager
def running(jid: int, ip4: str, ip6: str = "") -> Iterator[Jail]:
    jail, departures = Jail(), Departures()
    link = jail.set_up(jid, ip4, ip6)
    try:
        yield jail
    finally:
        undo(link)
        jail.end()
        departures.wait(f"jng{jid}")


@pytest.fixture
def jail(lan: Namespace) -> Iterator[Jail]:
    with running(7, JAIL, JAIL6) as made:
        yield made


def _mac(where: Namespace | None, interface: str) -> bytes:
    shown = where.run("ip", "-j", "link", "show", interface) if where else run("ip", "-j", "link", "show", interface)
    return bytes.fromhex(json.loads(shown)[0]["address"].replace(":", ""))


def _frame(jail: Jail, kind: int, payload: bytes, source: bytes = b"") -> None:
    """Lay a frame on the jail's wire, with any MAC addresses: AF_PACKET, as allow.socket_af and raw_sockets give it."""
    frame = _mac(None, "jng7") + (source or _mac(jail, "ep0")) + struct.pack("!H", kind) + payload
    with jail.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as made:
        made.bind(("ep0", 0))
        made.send(frame)


def _udp4(source: str, target: str, port: int, payload: bytes) -> bytes:
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0) + ends
    total = sum(struct.unpack("!10H", header))
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return (
        header[:10]
        + struct.pack("!H", total)
        + header[12:]
        + struct.pack("!HHHH", 9, port, 8 + len(payload), 0)
        + payload
    )


def _icmp6(source: str, target: str, message: bytes) -> bytes:
    """An ICMPv6 message in a packet, with its sum: the hop limit is 255, as neighbour discovery wants it."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    summed = ends + struct.pack("!II", len(message), 58) + message
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    message = message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]
    return struct.pack("!IHBB", 6 << 28, len(message), 58, 255) + ends + message


def _arrives(receiver: socket.socket, send: Callable[[], None], seconds: float = 5) -> bool:
    send()
    return bool(select.select([receiver], [], [], seconds)[0])


def _by_interface(tally: str) -> dict[str, int]:
    """What a set of the table has counted of each interface."""
    (found,) = [
        entry["set"].get("elem", [])
        for entry in json.loads(run("nft", "-j", "list", "set", "inet", "jailng", tally))["nftables"]
        if "set" in entry
    ]
    return {one["elem"]["val"]: one["elem"]["counter"]["packets"] for one in found}


def _until(true: Callable[[], bool]) -> None:
    """Ask again until it is so, for as long as nobody would wait for."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it has not come to that"


@contextmanager
def without_the_table() -> Iterator[None]:
    """As somebody leaves it who flushes the ruleset; and the second line, rp_filter, is off as well."""
    text = run("nft", "list", "table", "inet", "jailng")
    run("nft", "delete", "table", "inet", "jailng")
    set_switch("ipv4/conf/jng7/rp_filter", "0")
    yield
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    set_switch("ipv4/conf/jng7/rp_filter", "1")


def test_a_forged_source_in_a_frame(lan: Namespace, jail: Jail) -> None:
    """Whatever MAC address the frame has."""
    receiver = lan.datagrams(LAN, 9)
    strange = bytes.fromhex("020000000001")

    def forge() -> None:
        for source in (OTHER, HOST, "203.0.113.7"):
            _frame(jail, _ETH_P_IP, _udp4(source, LAN, 9, b"forged"), source=strange)

    with without_the_table():
        assert _arrives(receiver, forge)
        while select.select([receiver], [], [], 0)[0]:
            receiver.recv(100)
    forge()
    _frame(jail, _ETH_P_IP, _udp4(JAIL, LAN, 9, b"true"))  # takes the same way, later
    assert receiver.recv(100) == b"true"
    assert (counter("spoofed"), _by_interface("spoofers")) == (3, {"jng7": 3})


def test_the_loopback_of_the_host(jail: Jail) -> None:
    """Reached by nobody as long as route_localnet is off; Docker and Kubernetes' proxy switch it on."""
    on_loopback = datagrams("127.0.0.1", 53)

    def reach() -> None:
        _frame(jail, _ETH_P_IP, _udp4(JAIL, "127.0.0.1", 53, b"to the loopback"))

    set_switch("ipv4/conf/all/route_localnet", "1")
    with without_the_table():
        assert _arrives(on_loopback, reach)
        on_loopback.recv(100)
    reach()
    jail.datagrams().sendto(b"its own", ("127.0.0.1", 53))
    assert not select.select([on_loopback], [], [], 0.2)[0]
    set_switch("ipv4/conf/all/route_localnet", "0")
    assert (counter("denied"), _by_interface("deniers")) == (1, {"jng7": 1})


def test_the_addresses_of_the_gateway_and_the_link(lan: Namespace, jail: Jail) -> None:
    """169.254.1.1, where the host has it, fe80::1, and link-local addresses of its other interfaces."""
    ip("address add 169.254.1.1/32 dev jng7")
    four = datagrams("169.254.1.1", 53)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six:
        six.bind(("fe80::1", 53, 0, socket.if_nametoindex("jng7")))

        def reach() -> None:
            with jail.entered(), datagrams() as one, datagrams(version=6) as two:
                one.sendto(b"gateway", ("169.254.1.1", 53))
                two.sendto(b"gateway", ("fe80::1", 53, 0, socket.if_nametoindex("ep0")))

        with without_the_table():
            assert _arrives(four, reach)
            assert select.select([six], [], [], 5)[0]
            four.recv(100)
            six.recv(100)
        reach()
        _frame(jail, _ETH_P_IPV6, _icmp6(JAIL6, "fe80::1234", struct.pack("!BBHI", 128, 0, 0, 0)))
        assert not select.select([four, six], [], [], 0.2)[0]
    assert _by_interface("deniers") == {"jng7": 3}


def test_poisoned_arp(lan: Namespace, jail: Jail) -> None:
    """The host does not hear ARP from a jail, and has asked nobody."""
    ours = socket.inet_aton(LAN)
    answer = struct.pack("!HHBBH", 1, _ETH_P_IP, 6, 4, 2) + _mac(jail, "ep0") + ours + _mac(None, "jng7")
    before = run("ip", "neighbour", "show")

    def poison() -> None:
        _frame(jail, _ETH_P_ARP, answer + socket.inet_aton(HOST))
        jail.datagrams().sendto(b"behind it", (HOST, 9))

    poison()
    _until(lambda: counter("denied") == 1)  # what came behind it has been seen
    assert run("ip", "neighbour", "show") == before
    # The control: the same frame where ARP is heard, and accepted unasked.
    run("ip", "link", "set", "jng7", "arp", "on")
    set_switch("ipv4/conf/jng7/arp_accept", "1")
    ip(f"neighbour replace {LAN} lladdr 02:00:00:00:00:07 nud stale dev jng7")
    set_switch("ipv4/neigh/jng7/locktime", "0")

    def is_poisoned() -> bool:
        poison()
        return _mac(jail, "ep0").hex(":") in run("ip", "neighbour", "show", LAN, "dev", "jng7")

    _until(is_poisoned)


def test_poisoned_neighbour_discovery(lan: Namespace, jail: Jail) -> None:
    """An advertisement in the name of the LAN's machine, and one in the jail's own."""
    target = socket.inet_pton(socket.AF_INET6, LAN6)
    option = struct.pack("!BB", 2, 1) + _mac(jail, "ep0")
    message = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + target + option
    ip(f"neighbour replace {LAN6} lladdr 02:00:00:00:00:07 nud stale dev jng7")
    before = run("ip", "neighbour", "show", LAN6, "dev", "jng7")

    def poison() -> None:
        for source in (LAN6, JAIL6):
            _frame(jail, _ETH_P_IPV6, _icmp6(source, HOST6, message))

    poison()
    assert (_by_interface("spoofers"), _by_interface("deniers")) == ({"jng7": 1}, {"jng7": 1})
    assert run("ip", "neighbour", "show", LAN6, "dev", "jng7") == before
    run("ip", "link", "set", "jng7", "arp", "on")  # where nothing is drawn up against it
    ip(f"neighbour replace {LAN6} lladdr 02:00:00:00:00:07 nud stale dev jng7")
    with without_the_table():
        poison()
        _until(lambda: _mac(jail, "ep0").hex(":") in run("ip", "neighbour", "show", LAN6, "dev", "jng7"))


def test_what_one_jail_has_done_is_not_anothers(lan: Namespace, jail: Jail) -> None:
    with running(8, OTHER) as other:
        for made, times in ((jail, 2), (other, 3)):
            for _ in range(times):
                made.datagrams().sendto(b"to the host", (HOST, 9))
        assert _by_interface("deniers") == {"jng7": 2, "jng8": 3}
    with running(8, OTHER) as another:  # its interface has the name again, but not the number
        assert "jng8" not in _by_interface("deniers")
        another.datagrams().sendto(b"to the host", (HOST, 9))
        assert _by_interface("deniers")["jng8"] == 1
