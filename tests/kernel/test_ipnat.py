"""Rules of ipnat(5) on a host with a LAN and a jail: what packets look like at the other side."""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jailng.core import firewall
from tests.kernel.conftest import Command
from tests.kernel.networks import PATIENCE, Jail, Namespace, client, datagrams, ip, run, server
from tests.kernel.translating import (
    ARTICLE,
    CELL,
    CELL6,
    HOST,
    HOST6,
    LAN,
    LAN6,
    OTHER,
    Load,
    exchange,
    loader,
    network,
    sessions,
    standing,
)


@pytest.fixture
def lan() -> Iterator[Namespace]:
    """The machine behind the host's ep0."""
    with network() as made:
        yield made


@pytest.fixture
def cell(lan: Namespace) -> Iterator[Jail]:
    """The jail."""
    with standing(7, CELL, CELL6) as made:
        yield made


@pytest.fixture
def rules(ipnat: Command) -> Iterator[Load]:
    """Loads lines of rules; at the end none is left."""
    yield loader(ipnat)
    assert ipnat("-CF").returncode == 0


def _outwards(cell: Jail, lan: Namespace, to: str = LAN, port: int = 53) -> tuple[str, int]:
    return exchange(lan.listen(to, port), cell.connect(to, port))


def _inwards(cell: Jail, lan: Namespace, port: int, inside: int, to: str = HOST) -> tuple[str, int]:
    return exchange(cell.listen(CELL, inside), lan.connect(to, port))


def test_nothing(ipnat: Command) -> None:
    done = ipnat("-CF")
    flushed = "0 entries flushed from NAT table\n0 entries flushed from NAT list\n"
    assert (done.stdout, done.stderr, done.returncode) == (flushed, "", 0)
    assert ipnat("-l").stdout == "List of active MAP/Redirect filters:\n\nList of active sessions:\n"
    assert "jailng_nat" not in run("nft", "list", "tables")


def test_article(lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    rules(*ARTICLE)
    assert _inwards(cell, lan, 21, 21)[0] == LAN
    listener = lan.listen(LAN, 53)
    caller = cell.connect(LAN, 53)
    port = caller.getsockname()[1]
    seen, new = exchange(listener, caller)
    assert seen == HOST
    assert 10000 <= new <= 65000
    shown = ipnat("-l").stdout.splitlines()
    assert shown[1:4] == [*ARTICLE[:2], f"rdr ep0 {HOST}/32 port 21 -> {CELL} port 21 tcp"]
    assert f"MAP {CELL} {port} <- -> {HOST} {new} [{LAN} 53]" in sessions(ipnat)
    assert [line for line in sessions(ipnat) if re.fullmatch(rf"RDR {CELL} 21 <- -> {HOST} 21 \[{LAN} \d+\]", line)]
    assert f"MAP {CELL:<15} {port:<5} <- -> {HOST:<15} {new:<5} [{LAN} 53]" in ipnat("-l").stdout.splitlines()
    assert ipnat("-F").stdout == "2 entries flushed from NAT table\n"
    assert sessions(ipnat) == []


def test_the_loopback(lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    """The transparent proxy of ipnat(5)'s example: told of while Linux leads nothing there, and then it works."""
    rule = f"rdr ep0 {HOST}/32 port 80 -> 127.0.0.1 port 3128 tcp"
    done = ipnat("-CF", "-f", "-", stdin=f"{rule}\n")
    words = "127.0.0.1: Linux leads nothing there unless net.ipv4.conf.ep0.route_localnet is 1"
    assert (done.stderr, done.returncode) == (f"<stdin>:1: {words}\n", 0)
    assert ipnat("-l").stdout.splitlines()[1] == rule
    Path("/proc/sys/net/ipv4/conf/ep0/route_localnet").write_text("1")
    rules(rule)
    with socket.create_server(("127.0.0.1", 3128)) as listener, lan.connect(HOST, 80) as caller:
        served, seen = listener.accept()
        with served:
            assert seen == caller.getsockname()


def test_portmap(lan: Namespace, cell: Jail, rules: Load) -> None:
    rules(f"map ep0 {CELL}/32 -> 0/32 portmap tcp/udp 2000:2001", f"map ep0 {CELL}/32 -> 0/32")
    seen = [_outwards(cell, lan) for _ in range(2)]
    assert {address for address, _ in seen} == {HOST}
    assert {port for _, port in seen} <= {2000, 2001}
    listener, caller = lan.datagrams(LAN, 53), cell.datagrams(CELL)
    caller.sendto(b"ask", (LAN, 53))
    assert listener.recvfrom(3)[1][1] in (2000, 2001)


def test_icmpidmap(lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    rules(f"map ep0 {CELL}/32 -> 0/32 icmpidmap icmp 1000:1001")
    cell.run("ping", "-n", "-c", "1", "-W", "5", LAN)
    assert sessions(ipnat) == [f"MAP {CELL} <- -> {HOST} [{LAN}]"]
    assert ipnat("-lh").stdout.splitlines()[1] == f"1 map ep0 {CELL}/32 -> 0.0.0.0/32 icmpidmap icmp 1000:1001"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("10.0.0.80/32", {"10.0.0.80"}),
        ("range 10.0.0.80-10.0.0.81", {"10.0.0.80", "10.0.0.81"}),
        ("10.0.0.80/31", {"10.0.0.80", "10.0.0.81"}),
        ("0/0", {CELL}),
    ],
)
def test_map_to(target: str, expected: set[str], lan: Namespace, cell: Jail, rules: Load) -> None:
    ip("address add 10.0.0.80/32 dev ep0", "address add 10.0.0.81/32 dev ep0")
    with lan.entered():
        ip(f"route add {CELL}/32 via {HOST}")
    rules(f"map ep0 {CELL}/32 -> {target}")
    assert _outwards(cell, lan)[0] in expected


def test_round_robin_of_map(lan: Namespace, cell: Jail, rules: Load) -> None:
    ip("address add 10.0.0.80/32 dev ep0", "address add 10.0.0.81/32 dev ep0")
    rules(*[f"map ep0 {CELL}/32 -> {target}/32 round-robin" for target in ("10.0.0.80", "10.0.0.81")])
    assert sorted([_outwards(cell, lan)[0] for _ in range(4)]) == ["10.0.0.80"] * 2 + ["10.0.0.81"] * 2


def test_bimap(lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    ip("address add 10.0.0.80/32 dev ep0")
    rules(f"bimap ep0 {CELL}/32 -> 10.0.0.80/32")
    assert _outwards(cell, lan)[0] == "10.0.0.80"
    assert exchange(cell.listen(CELL, 8080), lan.connect("10.0.0.80", 8080))[0] == LAN
    kinds = sorted(line.split(" [")[0] for line in sessions(ipnat))
    assert kinds[1] == f"BIMAP {CELL} 8080 <- -> 10.0.0.80 8080"
    assert kinds[0].startswith(f"BIMAP {CELL} ") and " <- -> 10.0.0.80 " in kinds[0]


def test_bimap_of_networks(lan: Namespace, cell: Jail, rules: Load) -> None:
    ip("address add 10.0.1.2/32 dev ep0")
    with lan.entered():
        ip(f"route add 10.0.1.0/24 via {HOST}")
    rules("bimap ep0 192.168.10.0/24 -> 10.0.1.0/24")
    assert _outwards(cell, lan)[0] == "10.0.1.2"
    assert exchange(cell.listen(CELL, 8080), lan.connect("10.0.1.2", 8080))[0] == LAN


def test_map_block(lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    """192.168.10.2 is the third of 256 sources that share an address."""
    rules(f"map-block ep0 192.168.10.0/24 -> {HOST}/32 ports auto")
    for _ in range(2):
        address, port = _outwards(cell, lan)
        assert address == HOST
        assert 1024 + 2 * 252 <= port < 1024 + 3 * 252
    assert all(line.startswith(f"MAP-BLOCK {CELL} ") for line in sessions(ipnat))
    cell.run("ping", "-n", "-c", "1", "-W", "5", LAN)
    assert f"MAP-BLOCK {CELL} <- -> {HOST} [{LAN}]" in sessions(ipnat)


@pytest.mark.parametrize(
    ("rule", "outside", "inside"),
    [
        (f"rdr ep0 {HOST}/32 port 8021 -> {CELL} port 21", 8021, 21),
        (f"rdr ep0 {HOST}/32 port 8021 -> {CELL} port 21 tcp/udp", 8021, 21),
        (f"rdr ep0 0.0.0.0/32 port 8021 -> {CELL} port 21", 8021, 21),
        (f"rdr ep0 0/0 port 8021 -> {CELL} port 21", 8021, 21),
        (f"rdr ep0 {HOST}/32 port 8000-8099 -> {CELL} port 2000", 8021, 2021),
        (f"rdr ep0 {HOST}/32 port 8000-8099 -> {CELL} port 8000", 8021, 8021),
        (f"rdr ep0 {HOST}/32 port 8000-8099 -> {CELL} port = 2000", 8021, 2000),
        (f"rdr ep0 {HOST}/32 -> {CELL} ip", 8021, 8021),
        (f"rdr ep0 from {LAN} to any port = 8021 -> {CELL} port 21 tcp", 8021, 21),
        (f"rdr ep0 from {LAN} port > 1023 to {HOST} port 8020:8022 -> {CELL} port 21 tcp", 8021, 22),
        (f"rdr ep0 ! from 10.0.0.34 to {HOST} port 8019 >< 8023 -> {CELL} port = 21 tcp", 8021, 21),
        (f"rdr ep0,* {HOST}/32 port 8021 -> {CELL} port 21 tcp frag", 8021, 21),
    ],
)
def test_rdr(rule: str, outside: int, inside: int, lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    rules(rule)
    assert _inwards(cell, lan, outside, inside)[0] == LAN
    (line,) = sessions(ipnat)
    assert re.fullmatch(rf"RDR {CELL} {inside} <- -> {HOST} {outside} \[{LAN} \d+\]", line)


@pytest.mark.parametrize(
    "rule",
    [
        f"rdr ep0 {HOST}/32 port 8022 -> {CELL} port 21",
        f"rdr ep1 {HOST}/32 port 8021 -> {CELL} port 21",
        f"rdr ep0 {HOST}/32 port 8021 -> {CELL} port 21 udp",
        f"rdr ep0 ! from {LAN} to {HOST} port = 8021 -> {CELL} port 21 tcp",
        f"rdr ep0 from 10.0.0.34 to {HOST} port = 8021 -> {CELL} port 21 tcp",
        f"rdr ep0 ! from any to {HOST} port = 8021 -> {CELL} port 21 tcp",
        f"rdr ep0 from any to {HOST} port 8021 <> 8022 -> {CELL} port 21 tcp",
    ],
)
def test_rdr_of_others(rule: str, lan: Namespace, cell: Jail, rules: Load) -> None:
    rules(rule)
    listener = server(HOST, 8021)
    assert exchange(listener, lan.connect(HOST, 8021))[0] == LAN


def test_the_longest_mask_is_tried_first(lan: Namespace, cell: Jail, rules: Load) -> None:
    rules(
        f"rdr ep0 0/0 port 8021 -> {CELL} port 1 tcp",
        f"rdr ep0 10.0.0.0/8 port 8021 -> {CELL} port 2 tcp",
        f"rdr ep0 {HOST}/32 port 8021 -> {CELL} port 3 tcp",
        f"rdr ep0 {HOST}/32 port 8021 -> {CELL} port 4 udp",
        f"rdr ep0 from any to {HOST}/32 port >= 8000 -> {CELL} port = 5 tcp",
    )
    _inwards(cell, lan, 8021, 3)
    _inwards(cell, lan, 8022, 5)


def test_exceptions(lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    with lan.entered():
        ip(f"route add {CELL}/32 via {HOST}")
    rules(
        f"no map ep0 from {CELL}/32 to {LAN}/32 port = 53 tcp;",
        f"map ep0 {CELL}/32 -> 0/32",
        f"no rdr ep0 from any to {HOST} port = 8021 tcp;",
        f"rdr ep0 {HOST}/32 port 8000-8099 -> {CELL} port = 21",
    )
    assert _outwards(cell, lan)[0] == CELL
    assert _outwards(cell, lan, port=54)[0] == HOST
    exchange(server(HOST, 8021), lan.connect(HOST, 8021))
    _inwards(cell, lan, 8022, 21)
    assert len(sessions(ipnat)) == 2


def test_turns(lan: Namespace, cell: Jail, rules: Load) -> None:
    """Two addresses in one rule, three rules, and a client that stays where it is."""
    with standing(8, OTHER) as other:
        rules(f"rdr ep0 {HOST}/32 port 80 -> {CELL},{OTHER} port 80")
        assert _served(lan, cell, other) == ["cell", "cell", "other", "other"]
        rules(*[f"rdr ep0 {HOST}/32 port 80 -> {target} port 80 tcp round-robin" for target in (CELL, OTHER)])
        assert _served(lan, cell, other) == ["cell", "cell", "other", "other"]
        rules(f"rdr ep0 {HOST}/32 port 80 -> {CELL},{OTHER} port 80 tcp round-robin sticky")
        assert len(set(_served(lan, cell, other))) == 1
        rules(*[f"rdr ep0 {HOST}/32 port 80 -> {target} port 80 tcp round-robin sticky" for target in (CELL, OTHER)])
        assert len(set(_served(lan, cell, other))) == 1
        rules(f"rdr ep0 {HOST}/32 port 80 -> {CELL}-{OTHER} port 80 tcp")
        assert _served(lan, cell, other) == ["cell", "cell", "other", "other"]


def _served(lan: Namespace, cell: Jail, other: Jail) -> list[str]:
    listeners = {"cell": cell.listen(CELL), "other": other.listen(OTHER)}
    callers = [lan.connect(HOST) for _ in range(4)]
    served: list[str] = []
    while len(served) < len(callers):  # who calls may know of a connection before who listens
        ready, _, _ = select.select(listeners.values(), [], [], PATIENCE)
        assert ready, f"only {served} have been called"
        for name, listener in listeners.items():
            if listener in ready:
                listener.accept()[0].close()
                served.append(name)
    for end in (*listeners.values(), *callers):
        end.close()
    return sorted(served)


def test_mssclamp(lan: Namespace, cell: Jail, rules: Load) -> None:
    rules(
        f"map ep0 {CELL}/32 -> 0/32 mssclamp 700 tcp",
        f"rdr ep0 {HOST}/32 port 8021 -> {CELL} port 21 tcp mssclamp 600",
    )
    for listener, caller, expected in (
        (lan.listen(LAN, 53), cell.connect(LAN, 53), 700),
        (cell.listen(CELL, 21), lan.connect(HOST, 8021), 600),
    ):
        served, _ = listener.accept()
        with listener, caller, served:
            for end in (caller, served):
                assert expected - 60 <= end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= expected


def test_age(lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    rules(f"map ep0 {CELL}/32 -> 0/32 udp age 1000/2000", f"map ep0 {CELL}/32 -> 0/32 tcp age 3000")
    listener, caller = lan.datagrams(LAN, 53), cell.datagrams(CELL)
    caller.sendto(b"ask", (LAN, 53))
    assert listener.recv(3) == b"ask"
    assert 900 <= _ttl(ipnat, 17) <= 1000  # of which some is over by now
    held = lan.listen(LAN, 53), cell.connect(LAN, 53)
    assert 2900 <= _ttl(ipnat, 6) <= 3000
    for end in held:
        end.close()


def _ttl(ipnat: Command, protocol: int) -> int:
    shown = "\n".join(sessions(ipnat, "-v"))
    found = re.search(rf"\n\tttl (\d+) use \d+ pr {protocol}/", shown)
    assert found, shown
    return int(found[1])


def test_who_has_sent_datagrams_since_before_there_were_rules(lan: Namespace, cell: Jail, rules: Load) -> None:
    """From one port, as servers of names and of time ask each other: the next one meets the rules, as with IPFilter."""
    with lan.entered():
        ip(f"route add {CELL}/32 via {HOST}")
    with (
        lan.datagrams(LAN, 123) as theirs,
        cell.datagrams(CELL, 123) as ours,
        lan.datagrams(LAN, 514) as logs,
        cell.datagrams(CELL, 514) as logged,
        datagrams(HOST, 515) as others,
    ):
        ours.sendto(b"1", (LAN, 123))
        logs.sendto(b"1", (HOST, 514))
        logs.sendto(b"1", (HOST, 515))
        assert theirs.recvfrom(1) == (b"1", (CELL, 123))
        rules(f"map ep0 {CELL}/32 -> 0/32", f"rdr ep0 {HOST}/32 port 514 -> {CELL} port 514 udp")
        ours.sendto(b"2", (LAN, 123))
        assert theirs.recvfrom(1) == (b"2", (HOST, 123))
        with suppress(ConnectionRefusedError):  # as the host has said of the first
            logs.sendto(b"2", (HOST, 514))
        logs.sendto(b"2", (HOST, 515))
        assert logged.recvfrom(1) == (b"2", (LAN, 514))
        assert [others.recv(1), others.recv(1)] == [b"1", b"2"]
        rules(f"bimap ep0 {CELL}/32 -> {HOST}/32")
        theirs.sendto(b"3", (HOST, 123))
        assert ours.recvfrom(1) == (b"3", (LAN, 123))


def test_rewrite_in(lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    """The client is not seen, so that the answer comes back through the host whatever the jail's routes are."""
    ip("address add 10.0.0.80/32 dev ep0")
    rules(f"rewrite in on ep0 proto tcp from any to {HOST} port = 8021 -> src 10.0.0.80 dst {CELL},21;")
    address, port = _inwards(cell, lan, 8021, 21)
    assert address == "10.0.0.80"
    (line,) = sessions(ipnat)
    assert re.fullmatch(rf"RWR-RDR {LAN} \d+ {HOST} 8021 ?<- -> 10.0.0.80 {port} {CELL} 21 ?", line), line


def test_rewrite_out(lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    rules(f"rewrite out on ep0 proto tcp from {CELL} to 10.0.0.99 port = 53 -> src 0/32,2000-2001 dst {LAN},54;")
    listener = lan.listen(LAN, 54)
    address, port = exchange(listener, cell.connect("10.0.0.99", 53))
    assert (address, port in (2000, 2001)) == (HOST, True)
    (line,) = sessions(ipnat)
    assert line.startswith(f"RWR-MAP {CELL} ")
    rules(f"rewrite out on ep0 from {CELL} to any -> src 0/32 dst 0/0;")
    assert _outwards(cell, lan)[0] == HOST


def test_the_host_itself(lan: Namespace, cell: Jail, rules: Load) -> None:
    """What the host says to itself goes over lo0 on FreeBSD: a rule for ep0 is not for that, one for any is."""
    rules(f"rdr ep0 {HOST}/32 port 8021 -> {CELL} port 21 tcp")
    exchange(server(HOST, 8021), client(HOST, 8021))
    for name in ("'*'", "lo0"):
        rules(f"rdr {name} {HOST}/32 port 8021 -> {CELL} port 21 tcp")
        exchange(cell.listen(CELL, 21), client(HOST, 8021))
    rules("rdr lo0 127.0.0.1/32 port 8021 -> 127.0.0.1 port 8022 tcp")
    exchange(server("127.0.0.1", 8022), client("127.0.0.1", 8021))


def test_from_another_jail(lan: Namespace, cell: Jail, rules: Load) -> None:
    with standing(8, OTHER) as other:
        rules(f"rdr lo0 {HOST}/32 port 8021 -> {CELL} port 21 tcp")
        assert exchange(cell.listen(CELL, 21), other.connect(HOST, 8021))[0] == OTHER


def test_ipv6(lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    rules(
        f"map ep0 {CELL6}/128 -> ::/128 portmap tcp/udp 10000:65000",
        f"rdr ep0 {HOST6}/128 port 8021 -> {CELL6} port 21 tcp",
        f"map ep0 {CELL}/32 -> 0/32",
    )
    assert exchange(lan.listen(LAN6, 53), cell.connect(LAN6, 53))[0] == HOST6
    assert exchange(cell.listen(CELL6, 21), lan.connect(HOST6, 8021))[0] == LAN6
    assert len(sessions(ipnat)) == 2
    assert [line.split()[0] for line in ipnat("-l").stdout.splitlines()[1:4]] == ["map", "rdr", "map"]


@pytest.mark.parametrize("default", [True, False])
@pytest.mark.parametrize(("own", "far"), [("10.9.0.2", LAN), ("2001:db8:9::2", LAN6)])
def test_a_private_address(default: bool, own: str, far: str, lan: Namespace, rules: Load) -> None:
    """A jail of an address that only the loopback has, as is usual where all of them go out by one address."""
    if ":" in own and not firewall.can_forward_one():
        pytest.skip("IPv6 is forwarded for one interface from Linux 6.17 on")
    if default:
        ip("route add default via " + LAN, "route add default via " + LAN6)
    ip(f"address add {own} dev lo" + (" nodad" if ":" in own else ""))
    with standing(7, *(["", own] if ":" in own else [own])) as made:
        rules(f"map ep0 {own} -> {HOST6 if ':' in own else HOST}")
        assert _outwards(made, lan, far)[0] == (HOST6 if ":" in own else HOST)
    ip(f"address delete {own} dev lo")
