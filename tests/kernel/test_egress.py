"""ng.egress: what leaves a jail, and what its root does to get around it."""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import jailng
from jailng.api import connection
from jailng.core import registry, ruleset
from jailng.params.model import Parameters
from tests.kernel import faults, ruled
from tests.kernel.conftest import Command
from tests.kernel.networks import (
    PATIENCE,
    Namespace,
    Socket,
    client,
    counter,
    datagrams,
    inside,
    ip,
    reaches,
    run,
    server,
)
from tests.kernel.ruled import HOST, HOST6, JAIL, JAIL6, OTHER, OTHER6, PEER, PEER6, lan

__all__ = ["lan"]  # a fixture

WORLD, WORLD6 = "203.0.113.2", "2001:db8:2::2"


@pytest.fixture
def world(lan: Namespace) -> Namespace:
    """What the host reaches through a gateway, which stands in the same place."""
    with lan.entered():
        ip("link set lo up", f"address add {WORLD}/32 dev lo", f"address add {WORLD6}/128 dev lo nodad")
    ip(f"route add {WORLD}/32 via {PEER}", f"route add {WORLD6}/128 via {PEER6}")
    return lan


class Cell(ruled.Cell):
    parameter = "ng.egress"

    def other(self, *rules: str) -> None:
        self(*rules, name="other", words=(f"ip4.addr={OTHER}", f"ip6.addr={OTHER6}"))

    def change(self, rules: str, name: str = "cell") -> None:
        done = self.jail("-m", f"name={name}", f"ng.egress={rules}")
        assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def cell(jail: Command, small_root: Path) -> Iterator[Cell]:
    made = Cell(jail, small_root)
    yield made
    made.remove()


def counted(chain: str, comment: str) -> int:
    """Packets that the rules with that comment have counted."""
    shown = json.loads(run("nft", "-j", "list", "chain", "inet", "jailng_egress", chain))["nftables"]
    rules = [entry["rule"] for entry in shown if "rule" in entry]
    counters = [
        part["counter"]
        for rule in rules
        if rule.get("comment") == comment
        for part in rule["expr"]
        if "counter" in part
    ]
    assert counters, f"{comment} is in no rule of {chain}"
    return sum(int(found["packets"]) for found in counters)


def until_is(seen: Callable[[], object], wanted: object) -> None:
    """Wait for it: what was sent may be on its way still, where the kernel has much to do."""
    until = time.monotonic() + PATIENCE
    while (found := seen()) != wanted:
        assert time.monotonic() < until, found


def chain_of(name: str) -> str:
    from jailng.core import registry

    record = registry.find(name)
    assert record is not None
    return f"jail{record.jid}"


def test_without_rules_all_is_as_ever(lan: Namespace, world: Namespace, cell: Cell) -> None:
    cell()
    assert "jailng_egress" not in run("nft", "list", "ruleset")
    with inside("cell") as there:
        assert reaches(there, PEER, 80)
        assert reaches(there, WORLD6, 80)
        assert not reaches(there, HOST, 80)


def test_rules_are_asked_in_their_order(lan: Namespace, world: Namespace, cell: Cell) -> None:
    cell(f"drop tcp to {PEER} port 80", f"pass tcp to {PEER},{WORLD6} port 80-90,443", "pass udp to any port 53")
    chain = chain_of("cell")
    with inside("cell") as there:
        assert [reaches(there, PEER, port) for port in (80, 81, 91, 443)] == [False, True, False, True]
        assert reaches(there, WORLD6, 80)
        assert not reaches(there, WORLD, 80)
        assert reaches(there, WORLD, 53, "udp")
        assert not reaches(there, WORLD, 54, "udp")
    assert counted(chain, "1") >= 1
    until_is(lambda: (counted(chain, "2"), counted(chain, "3")), (3, 1))
    assert counted(chain, "rest") >= 3


def test_answers_pass_whatever_the_rules(lan: Namespace, cell: Cell) -> None:
    cell("none")
    with inside("cell") as there:
        for address, peer in ((JAIL, PEER), (JAIL6, PEER6)):
            listener = there.listen(address)
            with lan.connect(address) as caller:
                accepted, seen = listener.accept()
                accepted.sendall(b"welcome")
                assert (caller.recv(10), seen[0]) == (b"welcome", peer)
                accepted.close()
            asked, asks = there.datagrams(address, 53), lan.datagrams(version=6 if ":" in address else 4)
            asks.sendto(b"who", (address, 53))
            asked.sendto(b"me", asked.recvfrom(10)[1])
            assert asks.recv(10) == b"me"
            assert not reaches(there, peer, 80)


def test_the_host_is_reached_as_far_as_is_said(lan: Namespace, cell: Cell) -> None:
    """It is not meant by any: it takes its name, or its address."""
    cell("pass to any", "pass tcp to host port 53", f"pass tcp to {HOST} port 54")
    listeners = [server(address, port) for address in (HOST, HOST6) for port in (53, 54, 55)]
    with inside("cell") as there:
        found = [reaches(there, address, port) for address in (HOST, HOST6) for port in (53, 54, 55)]
        assert found == [True, True, False, True, False, False]
        assert reaches(there, PEER, 80)
    assert len(listeners) == 6
    assert counted(f"{chain_of('cell')}-host", "rest") >= 3


def test_a_network_never_means_the_host(lan: Namespace, cell: Cell) -> None:
    cell("pass to 198.51.100.0/24", "pass to 0.0.0.0/0")
    listener = server(HOST, 53)
    with inside("cell") as there:
        assert not reaches(there, HOST, 53)
        assert reaches(there, PEER, 53)
    listener.close()


def test_honeypot(lan: Namespace, world: Namespace, cell: Cell) -> None:
    """DNS and some web, and nobody who is near."""
    cell("honeypot")
    cell.other()
    listener = server(HOST, 80)
    with inside("cell") as there:
        assert reaches(there, WORLD, 80)
        assert reaches(there, WORLD6, 443)
        assert reaches(there, WORLD, 53, "udp")
        assert not any(reaches(there, address, 80) for address in (HOST, PEER, PEER6, OTHER, OTHER6))
        assert not reaches(there, WORLD, 22)
        for number in range(60):  # more than a burst, faster than the rate
            made = Socket(socket.AF_INET, socket.SOCK_STREAM)
            with there.entered():
                made = Socket(socket.AF_INET, socket.SOCK_STREAM)
            made.setblocking(False)
            made.connect_ex((WORLD, 80 if number % 2 else 443))
            made.close()
    listener.close()
    assert counted(f"{chain_of('cell')}-2", "2 over") > 0
    assert counted(f"{chain_of('cell')}", "rest") > 0
    assert counted(f"{chain_of('cell')}-host", "rest") > 0


@pytest.mark.parametrize("place", ["lan", "world"])
def test_half_of_the_world_is_no_lan(lan: Namespace, world: Namespace, cell: Cell, place: str) -> None:
    """A tunnel has such routes, without a gateway, to go before the default route."""
    halves = ("0.0.0.0/1", "128.0.0.0/1", "2000::/3")
    ip(*[f"route add {half} dev ep0" for half in halves])
    cell(f"pass tcp to {place} port 80")
    with inside("cell") as there:
        assert [reaches(there, address, 80) for address in (WORLD, WORLD6)] == [place == "world"] * 2
        assert [reaches(there, address, 80) for address in (PEER, PEER6)] == [place == "lan"] * 2
    ip(*[f"route del {half} dev ep0" for half in halves])


def test_a_preset_is_extended(lan: Namespace, world: Namespace, cell: Cell) -> None:
    cell("honeypot", f"pass udp to {PEER} port 53")
    with inside("cell") as there:
        assert reaches(there, PEER, 53, "udp")
        assert not reaches(there, PEER, 54, "udp")


def test_a_rate_is_for_flows(lan: Namespace, cell: Cell) -> None:
    cell(f"pass udp to {PEER} port 9 rate 2/day burst 3")
    asked = lan.datagrams(PEER, 9)
    with inside("cell") as there:
        for _ in range(6):
            there.datagrams().sendto(b"x", (PEER, 9))
        first = asked.recvfrom(10)[1]
        chain = f"{chain_of('cell')}-1"
        until_is(lambda: (counted(chain, "1"), counted(chain, "1 over")), (3, 3))
        asked.sendto(b"answer", first)  # from now on it is a connection, and has no rate


def test_what_is_logged_is_told_to_a_group(lan: Namespace, cell: Cell) -> None:
    """The kernel's own log is the initial network namespace's alone; nfnetlink tells in each."""
    group = 77
    with _nflog(group) as listener:
        cell(f"drop tcp to {PEER} log web group {group}", f"pass udp to any log group {group}")
        with inside("cell") as there:
            reaches(there, PEER, 80)
            there.datagrams().sendto(b"x", (PEER, 9))
            said = b""
            while b"jailng cell: \0" not in said:
                said += listener.recv(65536)
            assert b"jailng cell web: \0" in said
            # By the name that it has.
            assert cell.jail("-m", f"jid={chain_of('cell')[4:]}", "name=renamed").returncode == 0
            cell.made = ["renamed"]
            there.datagrams().sendto(b"x", (PEER, 9))
            while b"jailng renamed: \0" not in said:
                said += listener.recv(65536)


class _nflog:
    """Whoever listens to an nfnetlink group."""

    def __init__(self, group: int) -> None:
        self.socket = Socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
        self.socket.settimeout(PATIENCE)
        body = struct.pack(">BBH", 0, 0, group) + struct.pack("=HHBxxx", 5, 1, 1)  # NFULNL_CFG_CMD_BIND
        message = struct.pack("=IHHII", 16 + len(body), 4 << 8 | 1, 5, 1, 0) + body
        self.socket.send(message)
        answer = self.socket.recv(4096)
        assert struct.unpack_from("=i", answer, 16)[0] == 0

    def __enter__(self) -> Socket:
        return self.socket

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def test_rules_of_a_jail_that_runs_change(lan: Namespace, cell: Cell) -> None:
    """And are asked of what it has begun before: a connection that they forbid is cut, one that they allow goes on."""
    cell()
    with inside("cell") as there:
        listeners = [lan.listen(PEER, port) for port in (80, 81)]
        mine = [there.connect(PEER, port) for port in (80, 81)]
        theirs = [listener.accept()[0] for listener in listeners]
        cell.change(f"pass tcp to {PEER} port 80")
        mine[0].sendall(b"on")
        assert theirs[0].recv(10) == b"on"
        # What is never acknowledged would keep its network namespace for minutes.
        mine[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        mine[1].sendall(b"on")
        theirs[1].settimeout(0.3)
        with pytest.raises(TimeoutError):
            theirs[1].recv(10)
        assert not reaches(there, PEER, 82)
        cell.change("none")
        assert not reaches(there, PEER, 80)
        cell.change("")
        assert "jailng_egress" not in run("nft", "list", "ruleset")
        assert reaches(there, PEER, 80)
        assert not reaches(there, HOST, 80)
        for end in (*mine, *theirs):
            end.close()


# What root inside tries. All of it is sent with more than a jailed root has: raw sockets, whatever the parameters are.


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _segment(source: str, target: str, port: int, flags: int) -> bytes:
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack(">HHIIBBHHH", 40000, port, 1, 1, 5 << 4, flags, 1024, 0, 0)
    check = _checksum(ends + struct.pack(">BBH", 0, 6, len(head)) + head)
    return head[:16] + struct.pack(">H", check) + head[18:]


def _packet(source: str, target: str, protocol: int, body: bytes, fragment: int = 0) -> bytes:
    ends = socket.inet_aton(source), socket.inet_aton(target)
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 7, fragment, 64, protocol, 0, *ends) + body


def _raw(sender: Namespace, packet: bytes, target: str) -> None:
    with sender.entered():
        made = Socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    made.sendto(packet, (target, 0))
    made.close()


class Sniffer:
    """All that arrives at a machine from a jail."""

    def __init__(self, machine: Namespace) -> None:
        with machine.entered():
            self.socket = Socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self.socket.setblocking(False)

    def seen(self, *sources: str) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        while True:
            try:
                packet, where = self.socket.recvfrom(65536)
            except BlockingIOError:
                return found
            packed = [socket.inet_pton(socket.AF_INET6 if ":" in one else socket.AF_INET, one) for one in sources]
            if where[2] != 4 and any(one in packet[8:24] for one in packed):  # not PACKET_OUTGOING
                found.append((packet[9] if packet[0] >> 4 == 4 else packet[6], packet))


def test_root_inside_gets_nothing_past_none(lan: Namespace, cell: Cell) -> None:
    """Established-looking segments, fragments, other protocols, other sources: nothing leaves, and all is counted."""
    cell("none")
    chain = chain_of("cell")
    sniffer = Sniffer(lan)
    with inside("cell") as there:
        for flags in (0x10, 0x12, 0x14, 0x01, 0x29):  # ACK, SYN ACK, RST ACK, FIN, all of Christmas
            _raw(there, _packet(JAIL, PEER, 6, _segment(JAIL, PEER, 80, flags)), PEER)
        segment = _segment(JAIL, PEER, 80, 2)
        _raw(there, _packet(JAIL, PEER, 6, segment[:16], 0x2000), PEER)
        _raw(there, _packet(JAIL, PEER, 6, segment[16:], 2), PEER)
        for protocol in (1, 4, 41, 47, 50, 132, 253):  # ICMP, IPIP, 6in4, GRE, ESP, SCTP, a test
            _raw(there, _packet(JAIL, PEER, protocol, b"\x08\0\xf7\xff" + bytes(28)), PEER)
        before = counter("spoofed")
        _raw(there, _packet(OTHER, PEER, 6, _segment(OTHER, PEER, 80, 2)), PEER)
        _raw(there, _packet(HOST, PEER, 17, bytes(8)), PEER)
        until_is(lambda: counter("spoofed"), before + 2)
        with there.entered():
            for protocol in (6, 17, 58, 132):
                made = Socket(socket.AF_INET6, socket.SOCK_RAW, protocol)
                made.sendto(bytes(40), (PEER6, 0))
                made.close()
        for target, address in ((HOST, HOST), ("255.255.255.255", HOST), ("224.0.0.1", HOST)):
            with there.entered():
                made = Socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            made.sendto(b"x", (target, 9))
            made.close()
            assert address == HOST
    until_is(lambda: counted(chain, "rest"), 5 + 1 + 7 + 4)
    assert sniffer.seen(JAIL, JAIL6, OTHER) == []
    assert counted(f"{chain}-host", "rest") >= 1


def test_by_way_of_others_it_gets_no_further(lan: Namespace, cell: Cell) -> None:
    """A neighbour, the host's addresses, a redirect of the host's: each is what it is for the rules."""
    cell(f"pass tcp to {HOST} port 8080", f"pass tcp to {PEER} port 80")
    cell(name="other", words=(f"ip4.addr={OTHER}", f"ng.rdr=tcp {HOST} 8080 -> 80"))
    on_host = server(HOST, 80)
    with inside("cell") as there, inside("other") as other:
        listener = other.listen(OTHER)
        assert not reaches(there, OTHER, 80)
        assert not reaches(there, HOST, 8080)  # which is the neighbour, and not the host
        # The host does not route for it to where it may not go, whatever it says is the way.
        with there.entered():
            made = Socket(socket.AF_INET, socket.SOCK_STREAM)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x83\x07\x04" + socket.inet_aton(OTHER) + b"\0")
            made.settimeout(0.3)
            with pytest.raises(OSError):
                made.connect((PEER, 80))
            made.close()
        cell.change("pass tcp to jails port 80")
        assert reaches(there, HOST, 8080)
        listener.close()
    on_host.close()


def test_a_jail_in_a_jail_is_bound_by_both(lan: Namespace, world: Namespace, cell: Cell) -> None:
    addresses = (f"ip4.addr={JAIL}", f"ip6.addr={JAIL6}")
    cell("pass tcp to any port 80,81", "pass tcp to host port 53", words=(*addresses, "children.max=3"))
    cell(name="cell.in", words=(f"ip4.addr={JAIL}",))
    listeners = [server(HOST, port) for port in (53, 54)]
    with inside("cell.in") as there:
        assert [reaches(there, PEER, port) for port in (80, 82)] == [True, False]
        assert [reaches(there, HOST, port) for port in (53, 54)] == [True, False]
        cell.change("pass tcp to any port 81,82, pass to host", name="cell.in")
        assert [reaches(there, PEER, port) for port in (80, 81, 82)] == [False, True, False]
        assert [reaches(there, HOST, port) for port in (53, 54)] == [True, False]
        cell.change("pass tcp to any port 82")
        assert [reaches(there, PEER, port) for port in (80, 81, 82)] == [False, False, True]
        assert not reaches(there, HOST, 53)
        cell.change("")  # what has no rules above it may not open the host
        assert [reaches(there, PEER, port) for port in (80, 81, 82)] == [False, True, True]
        assert not reaches(there, HOST, 53)
        cell.change("none")
        cell.change("", name="cell.in")
        assert not reaches(there, PEER, 81)
    for listener in listeners:
        listener.close()


def _converse(name: str, listener: Socket, address: str, port: int) -> bool:
    """Whether what a jail sends from its port 7777 arrives; it is answered."""
    with inside(name) as there, there.datagrams(JAIL, 7777) as asks:
        asks.sendto(b"ask", (address, port))
        arrived = bool(select.select([listener], [], [], 0.4)[0])
        if arrived:
            listener.sendto(b"tell", listener.recvfrom(10)[1])
            assert asks.recv(10) == b"tell"
    return arrived


def test_what_others_have_begun_from_its_address_is_not_its_own(lan: Namespace, cell: Cell) -> None:
    """Conntrack remembers connections of whoever had the address before; who has it now is judged by his own rules."""
    with lan.datagrams(PEER, 9) as there, datagrams(HOST, 53) as here:
        cell()
        assert _converse("cell", there, PEER, 9)
        cell.remove()
        cell("pass udp to host port 53")
        assert not _converse("cell", there, PEER, 9)
        assert _converse("cell", here, HOST, 53)
        cell.remove()
        cell()
        assert not _converse("cell", here, HOST, 53)


def test_the_host_can_speak_to_it(lan: Namespace, cell: Cell) -> None:
    cell("none")
    with inside("cell") as there:
        listener = there.listen(JAIL)
        with client(JAIL) as caller:
            accepted, _ = listener.accept()
            accepted.sendall(b"x")
            assert caller.recv(1) == b"x"
            accepted.close()
        asked = datagrams(HOST, 5000)
        there.datagrams().sendto(b"x", (HOST, 5000))
        asked.settimeout(0.2)
        with pytest.raises(TimeoutError):
            asked.recv(1)


def test_it_is_refused_where_it_cannot_be_kept(lan: Namespace, jail: Command, small_root: Path) -> None:
    done = jail("-c", f"path={small_root}", "ip4=inherit", "ng.egress=none", "command=true")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "jail: ng.egress: not with ip4=inherit: it takes an interface of the host's that is the jail's\n"
    )
    done = jail("-c", f"path={small_root}", f"ip4.addr={JAIL}", "ng.egress=pass tcp port x", "command=true")
    assert done.stderr == 'jail: ng.egress: "pass tcp port x": not a port from 1 to 65535: "x"\n'


def test_a_jail_without_addresses_needs_none(jail: Command, small_root: Path) -> None:
    done = jail("-c", f"path={small_root}", "ng.egress=none", "command=echo", "in")
    assert (done.returncode, done.stdout) == (0, "in\n")


def test_jailctl_lists_what_was_counted(lan: Namespace, cell: Cell, checkout: Path) -> None:
    cell("none", f"pass udp to {PEER} port 9 rate 1/day burst 2 log group 3", "pass tcp to any port 80", "pass to host")
    with inside("cell") as there:
        for _ in range(5):
            there.datagrams().sendto(b"1234", (PEER, 9))
        there.datagrams().sendto(b"1234", (PEER, 10))
        there.datagrams().sendto(b"1234", (HOST, 10))

    def rules() -> object:
        shown = json.loads(run(str(checkout / "bin/jailctl"), "egress", "list", "cell", "--json"))["egress"]
        return [tuple(rule.values()) for rule in shown[0]["rules"]]

    until_is(
        rules,
        [
            (f"pass udp to {PEER} port 9 rate 1/day burst 2 log group 3", 2, 64, 3),
            ("pass tcp to any port 80", 0, 0, 0),
            ("pass to host", 1, 32, 0),
            ("drop the rest", 1, 32, 0),
        ],
    )
    lines = run(str(checkout / "bin/jailctl"), "egress", "list").splitlines()
    assert lines[0].split() == "JID NAME PACKETS BYTES OVER RULE".split()
    assert len(lines) == 5


def test_jails_of_one_address_have_one_set_of_rules(
    lan: Namespace, jail: Command, cell: Cell, small_root: Path
) -> None:
    """They have one network stack: what leaves it, no rule can tell whose it is."""
    cell(f"pass tcp to {PEER} port 80", "pass tcp to host port 53", words=(f"ip4.addr={JAIL}",))
    second = ("-c", "name=second", f"path={small_root}", f"ip4.addr={JAIL}", "persist")
    done = jail(*second, "ng.egress=none")
    assert (done.returncode, done.stderr) == (
        1,
        'jail: ng.egress: jail "cell" has the address too, and not the same rules\n',
    )
    listener = server(HOST, 53)
    assert jail(*second, f"ng.egress=pass tcp to {PEER} port 80,pass tcp to host port 53").returncode == 0
    done = jail("-m", "name=second", "ng.egress=")
    assert (done.returncode, done.stderr) == (
        1,
        'jail: ng.egress: jail "cell" has the address too, and its rules are the same\n',
    )
    for _ in range(2):  # the first goes, the other is held to them
        with inside("second") as there:
            assert [reaches(there, PEER, port) for port in (80, 81)] == [True, False]
            assert [reaches(there, HOST, port) for port in (53, 54)] == [True, False]
        cell.remove()
    assert jail("-m", "name=second", "ng.egress=pass tcp to any port 81").returncode == 0
    with inside("second") as there:
        assert [reaches(there, PEER, port) for port in (80, 81)] == [False, True]
    assert jail("-r", "second").returncode == 0
    assert "jailng" not in run("nft", "list", "ruleset")
    listener.close()


def test_root_inside_gives_its_jails_no_more_than_it_has(
    lan: Namespace, jail: Command, jexec: Command, checkout: Path, cell: Cell
) -> None:
    """It makes jails by the broker: they may be held to less, and to nothing of the host's that it has not."""
    words = ("-c", "name=cell", "path=/", f"ip4.addr={JAIL}", f"ip6.addr={JAIL6}", "children.max=3", "persist")
    assert jail(*words, "ng.egress=pass tcp to any port 80", "ng.egress=pass tcp to host port 53").returncode == 0
    cell.made.append("cell")
    on_host = [server(HOST, port) for port in (53, 54)]

    def within(*arguments: str) -> tuple[int, str]:
        done = jexec("cell", str(checkout / "bin/jail"), *arguments)
        return done.returncode, done.stderr

    inner = ("-c", "name=in", "path=/", f"ip4.addr={JAIL}", "persist")
    refused = (1, "jail: jail_set: Operation not permitted\n")
    assert within(*inner, f"ng.rdr=tcp {HOST} 8080 -> 80") == refused
    assert within(*inner, "ng.egress=pass to any, pass to host") == (0, "")
    assert within("-m", "name=in", f"ng.rdr=tcp {HOST} 8080 -> 80") == refused
    with inside("cell.in") as there:
        assert [reaches(there, PEER, port) for port in (80, 81)] == [True, False]
        assert [reaches(there, HOST, port) for port in (53, 54)] == [True, False]
        assert within("-m", "name=in", "ng.egress=none") == (0, "")
        assert not reaches(there, PEER, 80)
    assert within("-r", "in") == (0, "")
    # One that has what is its outer jail's own leaves by the same interface.
    assert within("-c", "name=in", "path=/", "ip4=inherit", "ip6=inherit", "persist") == (0, "")
    with inside("cell.in") as there:
        assert [reaches(there, PEER, port) for port in (80, 81)] == [True, False]
    assert within("-r", "in") == (0, "")
    cell.change("")  # without rules above it, its own open nothing of the host
    assert within(*inner, "ng.egress=pass to any, pass to host") == (0, "")
    with inside("cell.in") as there:
        assert reaches(there, PEER, 81)
        assert not reaches(there, HOST, 53)
    for listener in on_host:
        listener.close()


def test_a_python_program_gives_lists(lan: Namespace, small_root: Path) -> None:
    rules = {"ng.rdr": [f"tcp {HOST} 8080 -> 80", "udp any 53 -> 53"], "ng.egress": ["honeypot", "pass to lan"]}
    with jailng.Jail(name="py", path=str(small_root), ip4_addr=JAIL, persist=True, **rules) as made:  # type: ignore[arg-type]
        assert made.parameters["ng.rdr"] == tuple(rules["ng.rdr"])
        with inside("py") as there:
            listener = there.listen(JAIL)
            with lan.connect(HOST, 8080) as caller:
                listener.accept()[0].close()
                assert caller.recv(1) == b""
            assert reaches(there, PEER, 22)
            made.set(ng_egress=["none"])
            assert not reaches(there, PEER, 22)
    connection.close()
    assert "jailng" not in run("nft", "list", "ruleset")


def test_a_kernel_that_refuses_half_way(
    lan: Namespace, jail: Command, jls: Command, checkout: Path, small_root: Path, tmp_path: Path
) -> None:
    """Whichever message to the kernel fails, the jail is not made, one line says so, and nothing is left."""
    rules = ("ng.egress=honeypot, pass to host", f"ng.rdr=tcp {HOST} 8080 -> 80")
    create = (str(checkout / "bin/jail"), "-c", "name=a", f"path={small_root}", f"ip4.addr={JAIL}", *rules, "persist")
    steps = [step for step in faults.steps(tmp_path / "trace", *create) if step.name in ("sendto", "socket")]
    assert jail("-r", "a").returncode == 0
    assert len(steps) > 20
    wrong = []
    for step in steps:
        done = faults.run(step, "error=ENOBUFS", *create)
        if "Traceback" in done.stderr or (done.returncode and len(done.stderr.splitlines()) != 1):
            wrong.append(f"{step}: {done.stderr}")
        if done.returncode == 0:
            jail("-r", "a")
        elif jls("-j", "a").returncode == 0:
            wrong.append(f"{step}: it is there")
        if "jailng" in run("nft", "list", "tables"):
            wrong.append(f"{step}: {run('nft', 'list', 'tables')}")
            jail("-R", "*")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("rule", ["pass tcp to any port 80", "pass udp to any port 53"])
def test_rules_asked_for_after_a_change_that_was_killed(lan: Namespace, cell: Cell, rule: str) -> None:
    """The kernel has the new ones, and the record the old ones: whichever are asked for are carried out."""
    cell("pass tcp to any port 80")
    record = registry.find("cell")
    assert record is not None and record.lock()
    params = Parameters.from_texts(record.params)
    params.add("ng.egress", "pass udp to any port 53", append=False)
    ruleset.change(record, params)
    record.unlock()
    assert "udp dport 53" in run("nft", "list", "table", "inet", "jailng_egress")
    cell.change(rule)
    shown = run("nft", "list", "table", "inet", "jailng_egress")
    assert [port for port in ("tcp dport 80", "udp dport 53") if port in shown] == [
        rule.replace("to any port", "dport")[5:]
    ]
