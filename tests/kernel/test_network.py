"""The network of an address jail, as those see it who are on the LAN, on the host and inside."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jailng.core import network, registry
from jailng.core.index import DIRECTORY
from jailng.core.link import GATEWAY
from jailng.errors import JailError
from jailng.linux import netdevice
from jailng.params.address import addresses
from tests.kernel.networks import (
    Departures,
    Jail,
    Namespace,
    attach,
    client,
    counter,
    datagrams,
    host_addresses,
    ip,
    run,
    server,
    set_switch,
    settle,
    switch,
    undo,
    until_up,
)

_JAILS, _INDEX = Path(DIRECTORY, "jails"), Path(DIRECTORY, "index")
HOST = {4: "198.51.100.1", 6: "2001:db8:1::1"}
JAIL = {4: "198.51.100.10", 6: "2001:db8:1::10"}
LAN = {4: "198.51.100.2", 6: "2001:db8:1::2"}
FAR = {4: "203.0.113.2", 6: "2001:db8:2::2"}
ANY = {4: "0.0.0.0", 6: "::"}
BITS = {4: 24, 6: 64}
both = pytest.mark.parametrize("version", [4, 6])


def _with_prefix(addresses: dict[int, str]) -> tuple[str, str]:
    return f"{addresses[4]}/{BITS[4]}", f"{addresses[6]}/{BITS[6]}"


@pytest.fixture
def lan() -> Iterator[Namespace]:
    """A machine on the LAN that the host's ep0 leads to. ep0 has the jail's addresses as aliases."""
    with attach("ep0", _with_prefix(HOST), _with_prefix(LAN)) as made:
        four, six = _with_prefix(JAIL)
        ip(f"address add {four} broadcast + dev ep0", f"address add {six} dev ep0 nodad preferred_lft 0")
        yield made


@pytest.fixture
def jail(lan: Namespace) -> Iterator[Jail]:
    """A jail with both addresses, which is undone and ended afterwards."""
    made = Jail()
    departures = Departures()
    link = made.set_up(7, JAIL[4], JAIL[6])
    yield made
    undo(link)
    if not made.ended:
        made.end()
        departures.wait("jng7")


def _exchange(listener: socket.socket, caller: socket.socket) -> str:
    """By which address the listener sees the client, once both have heard each other."""
    served, (seen, *_) = listener.accept()
    with listener, caller, served:
        caller.sendall(b"ask")
        assert served.recv(3) == b"ask"
        served.sendall(b"tell")
        assert caller.recv(4) == b"tell"
    assert isinstance(seen, str)
    return seen


@both
def test_lan_reaches_jail(lan: Namespace, jail: Jail, version: int) -> None:
    assert _exchange(jail.listen(JAIL[version]), lan.connect(JAIL[version])) == LAN[version]


@both
def test_a_cable_that_is_pulled_out_and_put_back(lan: Namespace, jail: Jail, version: int) -> None:
    """With the carrier the kernel forgets for whom the host answers, but for what is permanent."""
    own = {4: "198.51.100.99", 6: "2001:db8:1::99"}[version]  # an administrator's
    run("ip", "neighbour", "add", "proxy", own, "dev", "ep0", "nud", "permanent")
    answered = run("ip", f"-{version}", "neighbour", "show", "proxy")
    for state in ("DOWN", "UP"):
        lan.run("ip", "link", "set", "ep0", state.lower())
        while json.loads(run("ip", "-j", "link", "show", "ep0"))[0]["operstate"] != state:
            time.sleep(0.01)
    left = run("ip", f"-{version}", "neighbour", "show", "proxy")
    if own not in left:
        pytest.skip("this kernel forgets whatever it is told")
    assert left == answered
    if version == 6:  # which goes from an interface that is taken down
        lan.run("ip", "address", "add", f"{LAN[6]}/64", "dev", "ep0", "nodad")
    lan.run("ip", "neighbour", "flush", "dev", "ep0")
    assert _exchange(jail.listen(JAIL[version]), lan.connect(JAIL[version])) == LAN[version]
    assert _exchange(lan.listen(LAN[version], 81), jail.connect(LAN[version], 81)) == JAIL[version]


@pytest.mark.parametrize("lost", ["link", "addresses"])
def test_an_interface_that_is_taken_down_or_loses_its_addresses(lan: Namespace, jail: Jail, lost: str) -> None:
    """The kernel then forgets for whom the host answers on that interface."""
    if lost == "link":
        ip("link set ep0 down", "link set ep0 up")
    else:  # as DHCP does with another lease
        run("ip", "-4", "address", "flush", "dev", "ep0")
        ip("address add 198.51.100.7/24 dev ep0")
    lan.run("ip", "neighbour", "flush", "dev", "ep0")
    assert _exchange(jail.listen(JAIL[4]), lan.connect(JAIL[4])) == LAN[4]


@pytest.mark.parametrize("setting", ["all/arp_ignore", "ep0/arp_ignore", "ep0/arp_filter"])
def test_a_host_that_answers_for_what_an_interface_has_alone(lan: Namespace, setting: str) -> None:
    """So it is with the addresses of jails: not on another interface, though the host routes there.

    That may be on the same LAN, where it would lead to the wrong one.
    """
    set_switch(f"ipv4/conf/{setting}", "1")
    made, departures = Jail(), Departures()
    link = made.set_up(7, JAIL[4])
    shown = run("ip", "neighbour", "show", "proxy")
    undo(link)
    made.end()
    departures.wait("jng7")
    set_switch(f"ipv4/conf/{setting}", "0")
    assert f"{JAIL[4]} dev ep0 proxy" in shown
    assert JAIL[4] not in run("ip", "neighbour", "show", "proxy")


@both
def test_host_reaches_jail_from_its_own_address(jail: Jail, version: int) -> None:
    listener = jail.listen(JAIL[version])
    assert _exchange(listener, client(JAIL[version])) == HOST[version]


@both
def test_jail_reaches_lan_from_its_own_address(lan: Namespace, jail: Jail, version: int) -> None:
    assert _exchange(lan.listen(LAN[version]), jail.connect(LAN[version])) == JAIL[version]


def test_lan_is_answered_at_once(lan: Namespace, jail: Jail) -> None:
    # With the kernel's default proxy_delay a broadcast ARP request is answered after 0 to 800 ms, at random.
    assert switch("ipv4/neigh/ep0/proxy_delay") == "0"
    listener = jail.listen(JAIL[4])
    with lan.entered():
        run("ip", "neighbour", "flush", "dev", "ep0")
    assert _exchange(listener, lan.connect(JAIL[4])) == LAN[4]


@both
def test_two_jails_reach_each_other(jail: Jail, version: int) -> None:
    other_address = {4: "198.51.100.11", 6: "2001:db8:1::11"}
    ip(f"address add {other_address[4]}/24 dev ep0", f"address add {other_address[6]}/64 dev ep0 nodad preferred_lft 0")
    other, departures = Jail(), Departures()
    link = other.set_up(8, other_address[4], other_address[6])
    seen = _exchange(jail.listen(JAIL[version]), other.connect(JAIL[version]))
    undo(link)
    other.end()
    departures.wait("jng8")
    assert seen == other_address[version]


def test_inside_looks_like_the_host_interface(jail: Jail) -> None:
    (model,) = json.loads(run("ip", "-j", "address", "show", "ep0"))
    lo, own = json.loads(jail.run("ip", "-j", "address"))
    assert (own["ifname"], own["address"], own["mtu"]) == ("ep0", model["address"], model["mtu"])
    shown = {(a["family"], a["local"], a["prefixlen"], a.get("broadcast")) for a in own["addr_info"]}
    assert shown == {("inet", JAIL[4], 24, "198.51.100.255"), ("inet6", JAIL[6], 64, None)}
    assert {a["local"] for a in lo["addr_info"]} == {"127.0.0.1", "::1"}
    assert {route["dst"] for route in json.loads(jail.run("ip", "-j", "route"))} == {"default"}


def test_inside_without_ipv6_has_none(lan: Namespace) -> None:
    jail, departures = Jail(), Departures()
    link = jail.set_up(7, ip4=JAIL[4])
    shown = {a["local"] for found in json.loads(jail.run("ip", "-j", "address")) for a in found["addr_info"]}
    undo(link)
    jail.end()
    departures.wait("jng7")
    assert shown == {JAIL[4], "127.0.0.1"}


def test_a_namespace_that_is_born_without_ipv6(lan: Namespace) -> None:
    """As net.core.devconf_inherit_init_net, which is one for the machine, has them where the host's IPv6 is off."""
    jail, departures = Jail(), Departures()
    with jail.entered():
        ip("link set lo up", "address delete ::1/128 dev lo")
    link = jail.set_up(7, ip4=JAIL[4])
    with jail.listen(JAIL[4]) as listener:
        assert _exchange(listener, lan.connect(JAIL[4])) == LAN[4]
    undo(link)
    jail.end()
    departures.wait("jng7")


def test_host_addresses_are_the_same_before_during_and_after(lan: Namespace) -> None:
    settle("ep0")
    before = host_addresses()
    jail, departures = Jail(), Departures()
    link = jail.set_up(7, JAIL[4], JAIL[6])
    assert host_addresses() == before
    jail.end()
    departures.wait("jng7")
    assert host_addresses() == before
    undo(link)
    assert host_addresses() == before


@both
def test_host_answers_again_when_the_namespace_is_gone(lan: Namespace, jail: Jail, version: int) -> None:
    on_host = server(ANY[version])
    departures = Departures()
    jail.end()
    departures.wait("jng7")
    assert _exchange(on_host, lan.connect(JAIL[version])) == LAN[version]


@both
def test_host_answers_at_once_when_undone(lan: Namespace, jail: Jail, version: int) -> None:
    assert jail.link is not None
    on_host = server(ANY[version])
    undo(jail.link)  # the namespace lives: nothing is waited for
    assert _exchange(on_host, lan.connect(JAIL[version])) == LAN[version]


def test_undone_is_undone(lan: Namespace, jail: Jail) -> None:
    assert jail.link is not None
    shown = (["route", "show", "table", "all"], ["-6", "route", "show", "table", "all"], ["neighbour", "show", "proxy"])
    during = [run("ip", *words) for words in shown]
    for _ in range(2):
        undo(jail.link)
    after = [run("ip", *words) for words in shown]
    assert all("proto 106" in text for text in during)
    assert not any("proto 106" in text for text in after)


def _keep_alive_by_tcp(lan: Namespace, jail: Jail) -> socket.socket:
    """A connection that the jail cannot finish, since its peer does not read: it keeps the network namespace."""
    listener = jail.listen(JAIL[4])
    slow = lan.connect(JAIL[4])
    served, _ = listener.accept()
    served.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            served.send(bytes(65536))
    served.close()
    listener.close()
    return slow


def test_a_peer_that_does_not_read_cannot_keep_the_address(lan: Namespace, jail: Jail) -> None:
    assert jail.link is not None
    slow = _keep_alive_by_tcp(lan, jail)
    on_host = server(ANY[4])
    departures = Departures()
    jail.end()
    undo(jail.link)
    assert _exchange(on_host, lan.connect(JAIL[4])) == LAN[4]
    with pytest.raises(AssertionError, match="still there"):
        departures.wait("jng7", seconds=0.2)
    slow.close()
    run("ip", "link", "delete", "jng7")


def test_the_name_of_a_dead_jail_is_free_again(lan: Namespace, jail: Jail) -> None:
    assert jail.link is not None
    slow = _keep_alive_by_tcp(lan, jail)
    jail.end()
    undo(jail.link)
    again, departures = Jail(), Departures()
    link = again.set_up(7, JAIL[4])  # jng7 of the first is still there
    slow.close()
    assert _exchange(again.listen(JAIL[4]), lan.connect(JAIL[4])) == LAN[4]
    undo(link)
    again.end()
    departures.wait("jng7")


def _raw(version: int, source: str, target: str, payload: bytes) -> bytes:
    """A UDP packet (to port 9, no checksum but where IPv6 needs one) with a source of one's choice."""
    length = 8 + len(payload)
    kind = socket.AF_INET if version == 4 else socket.AF_INET6
    ends = socket.inet_pton(kind, source) + socket.inet_pton(kind, target)
    udp = struct.pack("!HHHH", 9, 9, length, 0) + payload
    if version == 4:
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, 17, 0) + ends + udp
    summed = ends + struct.pack("!II", length, 17) + udp + b"\0" * (length % 2)
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    udp = udp[:6] + struct.pack("!H", ~total & 0xFFFF) + payload
    return struct.pack("!IHBB", 6 << 28, length, 17, 64) + ends + udp


def _send_raw(where: Namespace, version: int, source: str, target: str, payload: bytes) -> None:
    with where.entered(), socket.socket(_family(version), socket.SOCK_RAW, socket.IPPROTO_RAW) as made:
        made.sendto(_raw(version, source, target, payload), (target, 0))


@both
@pytest.mark.parametrize("whose", ["a stranger's", "the host's", "the LAN's"])
def test_spoofed_source_is_dropped_and_counted(lan: Namespace, jail: Jail, version: int, whose: str) -> None:
    stranger = {4: "198.51.100.99", 6: "2001:db8:1::99"}
    source = {"a stranger's": stranger, "the host's": HOST, "the LAN's": LAN}[whose][version]
    receiver = lan.datagrams(LAN[version], 9)
    _send_raw(jail, version, source, LAN[version], b"forged")
    _send_raw(jail, version, JAIL[version], LAN[version], b"true")  # takes the same way, later
    assert receiver.recv(100) == b"true"
    assert counter("spoofed") == 1


@pytest.mark.parametrize("rp_filter", ["0", "1", "2"])
def test_a_sysctl_conf_that_sets_rp_filter_does_not_harm(lan: Namespace, jail: Jail, rp_filter: str) -> None:
    set_switch("ipv4/conf/jng7/rp_filter", rp_filter)
    assert _exchange(lan.listen(LAN[4]), jail.connect(LAN[4])) == JAIL[4]
    receiver = lan.datagrams(LAN[4], 9)
    _send_raw(jail, 4, HOST[4], LAN[4], b"forged")
    _send_raw(jail, 4, JAIL[4], LAN[4], b"true")
    assert (receiver.recv(100), counter("spoofed")) == (b"true", 1)


@both
def test_a_jail_cannot_open_connections_to_the_host(lan: Namespace, jail: Jail, version: int) -> None:
    on_host = datagrams(HOST[version], 53)
    on_lan = lan.datagrams(LAN[version], 53)
    sender = jail.datagrams(version=version)
    sender.sendto(b"to the host", (HOST[version], 53))
    sender.sendto(b"to the LAN", (LAN[version], 53))  # when this has arrived, the other would have too
    assert on_lan.recv(100) == b"to the LAN"
    assert not select.select([on_host], [], [], 0)[0]
    assert counter("denied") == 1
    run("nft", "add element inet jailng allowed { udp . 53 }")
    sender.sendto(b"again", (HOST[version], 53))
    assert on_host.recv(100) == b"again"
    run("nft", "delete element inet jailng allowed { udp . 53 }")


@both
def test_answers_to_the_host_pass(jail: Jail, version: int) -> None:
    in_jail = jail.datagrams(JAIL[version], 53)
    on_host = datagrams(version=version)
    on_host.sendto(b"ask", (JAIL[version], 53))
    question, asker = in_jail.recvfrom(100)
    in_jail.sendto(b"tell", asker)
    assert (question, on_host.recv(100)) == (b"ask", b"tell")


@both
def test_the_host_does_not_route_for_others(lan: Namespace, jail: Jail, version: int) -> None:
    far_host = {4: "203.0.113.1", 6: "2001:db8:2::1"}
    with attach("ep1", _with_prefix(far_host), _with_prefix(FAR)) as far:
        with lan.entered():
            ip(*[f"route add {FAR[v]} via {HOST[v]}" for v in (4, 6)])
        with far.entered():
            ip(*[f"route add default via {far_host[v]}" for v in (4, 6)])
        elsewhere = far.datagrams(FAR[version], 9)
        inside = jail.datagrams(JAIL[version], 9)
        sender = lan.datagrams(version=version)
        sender.sendto(b"for others", (FAR[version], 9))
        sender.sendto(b"for the jail", (JAIL[version], 9))
        assert inside.recv(100) == b"for the jail"
        assert counter("unrouted") == 1
        assert not select.select([elsewhere], [], [], 0)[0]


def test_root_inside_can_change_nothing(jail: Jail) -> None:
    with jail.entered():
        until_up("ep0")
    before = jail.run("ip", "-j", "address"), jail.run("ip", "-j", "route")
    for words in (
        "ip address add 198.51.100.99/24 dev ep0",
        "ip address delete 198.51.100.10/24 dev ep0",
        "ip route add 203.0.113.0/24 via 169.254.1.1 dev ep0 onlink",
        "ip route delete default",
        "ip link set ep0 down",
        "ip link set ep0 address 02:00:00:00:00:01",
        "ip neighbour replace 169.254.1.1 lladdr 02:00:00:00:00:01 dev ep0",
        "nft add table inet own",
        "sysctl -w net.ipv4.ping_group_range=0\t0",
    ):
        done = jail.inside_as_root(*words.split(" "))
        assert done.returncode != 0, words
        assert "not permitted" in done.stderr or "ermission denied" in done.stderr, (words, done.stderr)
    assert (jail.run("ip", "-j", "address"), jail.run("ip", "-j", "route")) == before


def test_ping_sockets_are_for_nobody(jail: Jail) -> None:
    with jail.entered(), pytest.raises(PermissionError):
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)


def test_a_host_whose_only_addresses_are_a_jails_reaches_it() -> None:
    ip("address add 192.0.2.77/32 dev lo", "address add 2001:db8:9::77/128 dev lo")
    jail, departures = Jail(), Departures()
    link = jail.set_up(7, "192.0.2.77", "2001:db8:9::77")
    for address, gateway in (("192.0.2.77", "169.254.1.1"), ("2001:db8:9::77", "fe80::1")):
        listener = jail.listen(address)
        assert _exchange(listener, client(address)).partition("%")[0] == gateway
    undo(link)
    jail.end()
    departures.wait("jng7")
    ip("address delete 192.0.2.77/32 dev lo", "address delete 2001:db8:9::77/128 dev lo")


@pytest.mark.parametrize("order", [(7, 8), (8, 7)])
def test_the_host_does_not_speak_to_a_jail_from_a_jail_address(order: tuple[int, int]) -> None:
    # The first address of the first interface is what the kernel would take: here, both times, a jail's.
    given = {7: ("192.0.2.77", "2001:db8:9::77"), 8: ("192.0.2.78", "")}
    with attach("ep0", ("192.0.2.77/32", "2001:db8:9::77/128"), ("192.0.2.1/32", "2001:db8:9::1/128")):
        ip("address add 192.0.2.78/32 dev ep0")
        departures = Departures()
        jails = {jid: Jail() for jid in order}
        for jid, jail in jails.items():
            link = jail.set_up(jid, *given[jid])
            _record(jid, network.undo_lines(link), [address for address in given[jid] if address])
        for jid, jail in jails.items():
            for address in filter(None, given[jid]):
                listener = jail.listen(address)
                seen = _exchange(listener, client(address))
                assert seen.partition("%")[0] in ("169.254.1.1", "fe80::1")
        _end_all(jails, departures)
    _INDEX.unlink()


def test_the_host_reaches_a_jail_when_the_address_has_gone_from_which_it_spoke(lan: Namespace, jail: Jail) -> None:
    """As when a provider gives out another prefix."""
    assert _exchange(jail.listen(JAIL[6]), client(JAIL[6])) == HOST[6]
    for line in (f"address del {HOST[6]}/64 dev ep0", "address add 2001:db8:f::1/64 dev ep0 nodad"):
        ip(line)
        assert _exchange(jail.listen(JAIL[6]), client(JAIL[6])).partition("%")[0] == "fe80::1"
    ip("address del 2001:db8:f::1/64 dev ep0", f"address add {HOST[6]}/64 dev ep0 nodad")


@pytest.mark.parametrize("order", [(7, 8), (8, 7)])
@pytest.mark.parametrize("host", [HOST[6], ""])
def test_the_host_speaks_to_several_jails_from_none_of_theirs(
    lan: Namespace, order: tuple[int, int], host: str
) -> None:
    """Where no way to the world tells by which address it speaks itself, and others than its own are the newer ones."""
    given = {7: JAIL[6], 8: "2001:db8:1::11"}
    ip(f"address add {given[8]}/64 dev ep0 nodad")
    if not host:
        ip(f"address del {HOST[6]}/64 dev ep0")
    departures, jails = Departures(), {jid: Jail() for jid in order}
    for jid, jail in jails.items():
        _record(jid, network.undo_lines(jail.set_up(jid, ip6=given[jid])), [given[jid]])
    seen = [_exchange(jail.listen(given[jid]), client(given[jid])).partition("%")[0] for jid, jail in jails.items()]
    _end_all(jails, departures)
    _INDEX.unlink()
    assert seen == [host or "fe80::1"] * 2


def _record(jid: int, undo: list[str], addresses: list[str]) -> None:
    """A jail's record and its line in the index, as far as they matter to others."""
    _JAILS.mkdir(parents=True, exist_ok=True)
    lines = [f"boot {registry.boot_id()}", f"netns {os.stat('/proc/self/ns/net').st_ino}", *[f"undo {u}" for u in undo]]
    (_JAILS / str(jid)).write_text("".join([f"{line}\n" for line in lines]))
    with _INDEX.open("a") as index:
        index.write(f"{jid}\t{jid}\tjail{jid}\t{','.join(addresses)}\n")


def _end_all(jails: dict[int, Jail], departures: Departures) -> None:
    """End jails that have a record, the last first, and wait until their interfaces are gone."""
    for jid, jail in reversed(jails.items()):
        assert jail.link is not None
        undo(jail.link)
        (_JAILS / str(jid)).unlink()
        jail.end()
    departures.wait(*[f"jng{jid}" for jid in jails])


def test_every_jail_has_its_own_loopback(lan: Namespace) -> None:
    jail = Jail()
    link = jail.set_up(7, "127.0.0.1", "::1")
    assert network.undo_lines(link) == []
    for address in ("127.0.0.1", "::1"):
        assert _exchange(jail.listen(address), jail.connect(address)) == address
        with pytest.raises(ConnectionRefusedError):
            client(address)
    jail.end()


@both
def test_the_address_that_the_host_speaks_with_is_refused(lan: Namespace, version: int) -> None:
    ip(f"route add default via {LAN[version]} dev ep0")
    wanted = addresses(f"ip{version}", "x", HOST[version])
    with pytest.raises(
        JailError, match=rf"^ip{version}\.addr: {HOST[version]} is the address by which the host itself"
    ):
        network.survey(7, wanted)


def test_the_host_does_not_speak_to_a_jail_from_an_address_that_passes(lan: Namespace) -> None:
    """A privacy address is gone within days, and with it the host would be to the jail whoever that is itself."""
    set_switch("ipv6/conf/ep0/use_tempaddr", "2")
    ip(f"address del {HOST[6]}/64 dev ep0", f"address add {HOST[6]}/64 dev ep0 mngtmpaddr nodad")
    ip(f"route add default via {LAN[6]} dev ep0")
    while "temporary" not in run("ip", "address", "show", "dev", "ep0") or "tentative" in run("ip", "address"):
        time.sleep(0.01)
    assert f"src {HOST[6]} " not in run("ip", "route", "get", FAR[6])  # the control
    (place,) = network.survey(7, addresses("ip6", "x", JAIL[6])).addresses
    assert place.source == socket.inet_pton(socket.AF_INET6, HOST[6])
    both_places = network.survey(7, addresses("ip6", "x", f"{JAIL[6]},{HOST[6]}")).addresses
    assert [place.source for place in both_places] == [GATEWAY[6]] * 2  # where there is no other


@pytest.mark.parametrize("others", [True, False])
def test_the_host_does_not_speak_to_a_jail_from_an_address_that_is_to_come(lan: Namespace, others: bool) -> None:
    """One that may yet be somebody else's (duplicate address detection takes a second) the kernel takes in no route."""
    ip(f"address del {HOST[6]}/64 dev ep0", "address add 2001:db8:f::1/64 dev ep0")
    if others:
        ip(f"address add {HOST[6]}/64 dev ep0 nodad")
    assert "tentative" in run("ip", "address", "show", "dev", "ep0", "to", "2001:db8:f::1")  # the control
    jail, departures = Jail(), Departures()
    link = jail.set_up(7, ip6=JAIL[6])
    seen = _exchange(jail.listen(JAIL[6]), client(JAIL[6])).partition("%")[0]
    undo(link)
    jail.end()
    departures.wait("jng7")
    assert seen == (HOST[6] if others else "fe80::1")


@both
def test_it_is_refused_where_bogons_are_discarded_too(lan: Namespace, version: int) -> None:
    """A host may have no way to the addresses that are nobody's, and one to the world all the same."""
    discarded = {4: "192.0.0.0/24", 6: "100::/64"}[version]
    ip(f"route add default via {LAN[version]} dev ep0", f"route add blackhole {discarded}")
    try:
        with pytest.raises(JailError, match="is the address by which the host itself speaks to the world"):
            network.survey(7, addresses(f"ip{version}", "x", HOST[version]))
    finally:
        ip(f"route del blackhole {discarded}")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("ip4", "0.0.0.0"),
        ("ip4", "224.0.0.1"),
        ("ip4", "255.255.255.255"),
        ("ip6", "::"),
        ("ip6", "ff02::1"),
        ("ip6", "fe80::1"),
    ],
)
def test_what_is_not_the_address_of_one_host_is_refused(kind: str, text: str) -> None:
    with pytest.raises(JailError, match=rf"^{kind}\.addr: {text}: not the address of one host$"):
        network.survey(7, addresses(kind, "x", text))


def test_an_ipv4_address_as_sockets_of_ipv6_have_it_is_refused() -> None:
    with pytest.raises(JailError, match=r"^ip6\.addr: ::ffff:192\.0\.2\.7: an IPv4 address, which is for ip4\.addr$"):
        network.survey(7, addresses("ip6", "x", "::ffff:192.0.2.7"))


def test_an_interface_that_does_not_exist_is_refused() -> None:
    with pytest.raises(JailError, match=r"^interface ep9 does not exist$"):
        network.survey(7, addresses("ip4", "x", JAIL[4]), "ep9")


def test_what_the_loopback_has() -> None:
    assert netdevice.ipv4_alias("lo", bytes([127, 0, 0, 1])) == (8, b"")
    assert netdevice.ipv4_alias("lo", bytes([192, 0, 2, 77])) is None


def test_an_alias_with_a_label_is_found(lan: Namespace) -> None:
    ip("address add 198.51.100.30/25 broadcast + dev ep0 label ep0:1")
    (place,) = network.survey(7, addresses("ip4", "x", "198.51.100.30")).addresses
    assert (place.interface, place.prefix, place.broadcast) == ("ep0", 25, bytes([198, 51, 100, 127]))


def test_an_alias_on_the_loopback_is_for_the_host_alone() -> None:
    ip("address add 192.0.2.77/32 dev lo")
    jail, departures = Jail(), Departures()
    link = jail.set_up(7, "192.0.2.77")
    listener = jail.listen("192.0.2.77")
    assert _exchange(listener, client("192.0.2.77"))
    undo(link)
    jail.end()
    departures.wait("jng7")
    ip("address delete 192.0.2.77/32 dev lo")
    assert ([end.inside_name for end in link.ends], link.switches) == (["eth0"], [])


@both
def test_the_first_packet_is_not_lost(lan: Namespace, version: int) -> None:
    # The kernel leaves two things to workers: to notice that a link is up, and an IPv6 address's way in. A connection
    # that came too early took a second, as its SYN was sent again: one in fifty.
    on_lan = lan.listen(LAN[version])
    for jid in range(7, 47):
        jail, departures = Jail(), Departures()
        link = jail.set_up(jid, JAIL[4], JAIL[6])
        outwards = jid % 2 == 0
        listener = on_lan if outwards else jail.listen(JAIL[version])
        with jail.connect(LAN[version]) if outwards else lan.connect(JAIL[version]) as caller:
            retransmitted = caller.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[100]
            served, _ = listener.accept()
            served.close()
        if not outwards:
            listener.close()
        undo(link)
        jail.end()
        departures.wait(*[end.host_name for end in link.ends])
        assert retransmitted == 0


def _family(version: int) -> socket.AddressFamily:
    return socket.AF_INET if version == 4 else socket.AF_INET6
