"""ng.rdr: connections to the host that are led to a jail, by real clients to real servers."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.core import firewall, registry
from jailng.linux import nftables as nft
from tests.kernel import ruled
from tests.kernel.conftest import Command
from tests.kernel.networks import (
    Departures,
    Namespace,
    Socket,
    attach,
    client,
    counter,
    datagrams,
    inside,
    ip,
    reaches,
    run,
    server,
    switch,
)
from tests.kernel.ruled import HOST, HOST6, JAIL, JAIL6, OTHER, PEER, PEER6, lan

__all__ = ["lan"]  # a fixture


@pytest.fixture
def far() -> Iterator[Namespace]:
    """A machine on another LAN of the host's."""
    with attach("ep1", ("203.0.113.1/24", "2001:db8:2::1/64"), ("203.0.113.2/24", "2001:db8:2::2/64")) as made:
        with made.entered():
            ip("route add default via 203.0.113.1", "route add default via 2001:db8:2::1")
        yield made


class Cell(ruled.Cell):
    parameter = "ng.rdr"


@pytest.fixture
def cell(jail: Command, small_root: Path) -> Iterator[Cell]:
    made = Cell(jail, small_root)
    yield made
    made.remove()


def peer_of(listener: Socket, caller: Socket) -> str:
    """As whom the listener sees the caller."""
    accepted, address = listener.accept()
    with accepted, caller:
        accepted.sendall(b"jail")
        assert caller.recv(10) == b"jail"
    return str(address[0])


def ruleset() -> str:
    return run("nft", "--stateless", "list", "ruleset")


def test_a_connection_is_led_to_the_jail_which_sees_who_it_is(lan: Namespace, cell: Cell) -> None:
    cell(f"tcp {HOST} 8080 -> 80", f"tcp {HOST6} 8080 -> [{JAIL6}]:80", "udp any 53 -> 5353")
    with inside("cell") as there:
        for host, address, peer in ((HOST, JAIL, PEER), (HOST6, JAIL6, PEER6)):
            assert peer_of(there.listen(address), lan.connect(host, 8080)) == peer
            asked, asks = there.datagrams(address, 5353), lan.datagrams(version=6 if ":" in host else 4)
            asks.sendto(b"who", (host, 53))
            data, seen = asked.recvfrom(10)
            assert (data, seen[0]) == (b"who", peer)
            asked.sendto(b"me", seen)
            answer, answerer = asks.recvfrom(10)
            assert (answer, answerer[0]) == (b"me", host)


def test_what_is_not_named_stays_the_host_s(lan: Namespace, cell: Cell) -> None:
    cell(f"tcp {HOST} 8080 -> 80")
    on_host = server("0.0.0.0", 8081), datagrams(HOST, 8080)
    with lan.connect(HOST, 8081):
        on_host[0].accept()[0].close()
    lan.datagrams().sendto(b"x", (HOST, 8080))
    assert on_host[1].recv(10) == b"x"


def test_the_host_itself_and_other_jails_are_led_as_well(lan: Namespace, cell: Cell) -> None:
    cell(f"tcp {HOST} 8080 -> 80", f"tcp {HOST6} 8080 -> 80")
    cell(name="other", words=("ip4.addr=198.51.100.11", "ip6.addr=2001:db8:1::11"))
    with inside("cell") as there, inside("other") as other:
        for host, address, caller in ((HOST, JAIL, "198.51.100.11"), (HOST6, JAIL6, "2001:db8:1::11")):
            listener = there.listen(address)
            assert peer_of(listener, client(host, 8080)) == host
            assert peer_of(listener, other.connect(host, 8080)) == caller


def test_a_jail_that_calls_itself_sees_the_host(lan: Namespace, cell: Cell) -> None:
    cell(f"tcp {HOST} 8080 -> 80", f"tcp {HOST6} 8080 -> 80")
    with inside("cell") as there:
        assert peer_of(there.listen(JAIL), there.connect(HOST, 8080)) == HOST
        assert peer_of(there.listen(JAIL6), there.connect(HOST6, 8080)) == HOST6


def test_interface_source_and_range(lan: Namespace, far: Namespace, cell: Cell) -> None:
    cell(
        "tcp on ep1 any 8080 -> 80",
        f"tcp from {PEER},192.0.2.0/24 any 22 -> 2222",
        f"tcp {HOST} 8000-8010 -> 8000-8010",
        f"tcp {HOST} 9000-9010 -> 99",
    )
    with inside("cell") as there:
        web, ssh = there.listen(JAIL, 80), there.listen(JAIL, 2222)
        assert peer_of(web, far.connect("203.0.113.1", 8080)) == "203.0.113.2"
        with pytest.raises(ConnectionRefusedError):
            lan.connect(HOST, 8080)
        assert peer_of(ssh, lan.connect(HOST, 22)) == PEER
        with pytest.raises(ConnectionRefusedError):
            far.connect("203.0.113.1", 22)
        assert peer_of(there.listen(JAIL, 8007), lan.connect(HOST, 8007)) == PEER
        many = there.listen(JAIL, 99)
        assert peer_of(many, lan.connect(HOST, 9000)) == PEER
        assert peer_of(many, lan.connect(HOST, 9010)) == PEER
        with pytest.raises(ConnectionRefusedError):
            lan.connect(HOST, 9011)


def test_who_it_comes_from_counts_before_what_it_goes_to(lan: Namespace, far: Namespace, cell: Cell) -> None:
    cell(f"tcp from {PEER} any 22 -> 2222", "tcp any 22 -> 22", f"tcp {HOST} 22 -> 23")
    with inside("cell") as there:
        assert peer_of(there.listen(JAIL, 2222), lan.connect(HOST, 22)) == PEER
        assert peer_of(there.listen(JAIL, 22), far.connect("203.0.113.1", 22)) == "203.0.113.2"
        assert peer_of(there.listen(JAIL, 23), far.connect(HOST, 22)) == "203.0.113.2"


def test_a_dead_jail_s_redirect_does_not_reach_the_host(lan: Namespace, jail: Command, cell: Cell) -> None:
    """No command has run since the jail has ended: its rules are there, and its address is the host's."""
    cell(f"tcp {HOST} 8080 -> 80", f"udp {HOST} 53 -> 53")
    tcp, udp = server("0.0.0.0", 80), datagrams("0.0.0.0", 53)
    with inside("cell") as there:
        asked, asks = there.datagrams(JAIL, 53), lan.datagrams()
        asks.sendto(b"first", (HOST, 53))
        assert asked.recv(10) == b"first"
        asked.close()
    departures = Departures()
    departures.wait(f"jng{_kill('cell')}")
    asks.sendto(b"second", (HOST, 53))
    assert not reaches(lan, HOST, 8080)
    assert not reaches(None, HOST, 8080)
    assert not select.select([tcp, udp], [], [], 0)[0]
    with lan.connect(JAIL):  # by its own address it is the host's own affair
        tcp.accept()[0].close()
    before = ruleset()
    assert "jailng_rdr" in before
    assert jail("-r", "cell").returncode == 1
    assert "jailng" not in ruleset()
    asks.sendto(b"third", (HOST, 53))  # the kernel has forgotten where that was led
    assert udp.recv(10) == b"third"
    asks.close()


def _kill(name: str) -> int:
    """A jail's end, of which nobody is told; its jid."""
    record = registry.find(name)
    assert record is not None
    ended = os.pidfd_open(record.init_pid)
    os.kill(record.init_pid, signal.SIGKILL)
    assert select.select([ended], [], [], 60)[0]
    os.close(ended)
    return record.jid


def test_removal_takes_rules_and_connections(lan: Namespace, jail: Command, cell: Cell) -> None:
    before = ruleset()
    cell(f"udp {HOST} 53 -> 53", f"tcp {HOST} 8080 -> 80")
    on_host = datagrams("0.0.0.0", 53)
    asks = lan.datagrams()
    with inside("cell") as there:
        asked = there.datagrams(JAIL, 53)
        asks.sendto(b"first", (HOST, 53))
        assert asked.recv(10) == b"first"
        asked.close()
    assert jail("-r", "cell").returncode == 0
    assert ruleset() == before
    asks.sendto(b"second", (HOST, 53))
    assert on_host.recvfrom(10)[0] == b"second"  # as what it is: a datagram to the host


@pytest.mark.parametrize("how", ["started", "changed"])
def test_who_sends_datagrams_all_the_time_is_led_as_well(lan: Namespace, jail: Command, cell: Cell, how: str) -> None:
    """As those do who log: from one port, and so by a connection that conntrack has known since before the jail."""
    cell(name="other", words=(f"ip4.addr={OTHER}",))  # with which conntrack begins
    with (
        datagrams("0.0.0.0", 514) as on_host,
        datagrams("0.0.0.0", 515) as elsewhere,
        lan.datagrams(PEER, 514) as sender,
    ):
        for port, listener in ((514, on_host), (515, elsewhere)):
            sender.sendto(b"first", (HOST, port))
            listener.sendto(b"here", listener.recvfrom(10)[1])
            assert sender.recv(10) == b"here"
        if how == "started":
            cell("udp any 514 -> 514")
        else:
            cell()
            assert jail("-m", "name=cell", f"ng.rdr=udp {HOST} 510-514 -> 510-514").returncode == 0
        with inside("cell") as there, there.datagrams(JAIL, 514) as asked:
            sender.sendto(b"second", (HOST, 514))
            assert asked.recv(10) == b"second"
            sender.sendto(b"second", (HOST, 515))
            assert elsewhere.recv(10) == b"second"  # what is not led goes on as it did


def test_redirects_of_a_jail_that_runs_change(lan: Namespace, jail: Command, cell: Cell) -> None:
    cell(f"tcp {HOST} 8080 -> 80", f"tcp {HOST} 8081 -> 80")
    with inside("cell") as there:
        listener = there.listen(JAIL)
        kept, cut = lan.connect(HOST, 8081), lan.connect(HOST, 8080)
        ends = [listener.accept()[0] for _ in range(2)]
        assert jail("-m", "name=cell", f"ng.rdr=tcp {HOST} 8081 -> 80, tcp {HOST} 90 -> 80").returncode == 0
        kept.sendall(b"on")
        assert ends[0].recv(10) == b"on"
        cut.sendall(b"x")
        with pytest.raises(ConnectionResetError):  # by the host, which knows of no such connection
            cut.recv(10)
        with pytest.raises(ConnectionRefusedError):
            lan.connect(HOST, 8080)
        assert peer_of(listener, lan.connect(HOST, 90)) == PEER
        for end in (*ends, kept, cut):
            end.close()
    assert jail("-m", "name=cell", "ng.rdr=").returncode == 0
    assert "jailng_rdr" not in ruleset()
    with pytest.raises(ConnectionRefusedError):
        lan.connect(HOST, 8081)


def test_redirects_of_a_jail_that_had_none(lan: Namespace, far: Namespace, jail: Command, cell: Cell) -> None:
    """Forwarding for the interface by which they come is switched on with the first one, and off with the jail."""
    cell()
    with lan.entered():
        ip("route add 203.0.113.0/24 via 198.51.100.1")
    listener = lan.listen(PEER)
    assert switch("ipv4/conf/ep1/forwarding") == "0"
    assert jail("-m", "name=cell", "ng.rdr=tcp 203.0.113.1 8080 -> 80").returncode == 0
    assert switch("ipv4/conf/ep1/forwarding") != "0"
    with inside("cell") as there:
        assert peer_of(there.listen(JAIL), far.connect("203.0.113.1", 8080)) == "203.0.113.2"
    assert not reaches(far, PEER, 80)  # the host has not become a router for others
    assert counter("unrouted") > 0
    listener.close()


def test_of_two_rules_that_fit_the_one_that_leads_counts(
    lan: Namespace, jail: Command, cell: Cell, checkout: Path
) -> None:
    """Its packets are its own, whatever the order, and what the other has led goes with the other alone."""
    cell("tcp any 8080 -> 80", f"tcp {HOST} 8080 -> 81")
    with inside("cell") as there:
        listener = there.listen(JAIL, 81)
        caller = lan.connect(HOST, 8080)
        end, _ = listener.accept()
        shown = json.loads(run(str(checkout / "bin/jailctl"), "rdr", "list", "--json", "cell"))["rdr"][0]["rules"]
        assert [rule["connections"] for rule in shown] == [0, 1]
        assert shown[0]["packets"] == 0
        assert shown[1]["packets"] >= 3
        assert jail("-m", "name=cell", f"ng.rdr=tcp {HOST} 8080 -> 81").returncode == 0
        caller.sendall(b"on")
        assert end.recv(10) == b"on"
        for one in (caller, end, listener):
            one.close()


def test_two_jails_of_one_redirect(lan: Namespace, jail: Command, cell: Cell, small_root: Path) -> None:
    cell(f"tcp {HOST} 8080-8090 -> 80")
    second = ("-c", "name=two", f"path={small_root}", "ip4.addr=198.51.100.11", "persist")
    done = jail(*second, f"ng.rdr=tcp {HOST} 8085 -> 80")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'jail: ng.rdr: rule 1: jail "cell" has a redirect for the same packets\n'
    assert "8080-8090" in ruleset()  # what could not be made has taken nothing of the other's with it
    done = jail(*second, f"ng.rdr=tcp {HOST} 80 -> 80, tcp {HOST} 80 -> 81")
    assert done.stderr == "jail: ng.rdr: two of the jail's redirects are for the same packets\n"
    for encloses in (f"tcp {HOST} 8000-8100 -> 80", f"tcp {HOST} 1-65535 -> 1-65535"):
        done = jail(*second, f"ng.rdr={encloses}")
        assert done.stderr == 'jail: ng.rdr: rule 1: jail "cell" has a redirect for the same packets\n'
        done = jail("-m", "name=cell", f"ng.rdr=tcp {HOST} 8085 -> 81, {encloses}")
        assert done.stderr == "jail: ng.rdr: two of the jail's redirects are for the same packets\n"
        assert "8080-8090" in ruleset()
    _kill("cell")  # nobody has cleared up after it, and its redirects are to be had
    assert jail(*second, f"ng.rdr=tcp {HOST} 8085 -> 80").returncode == 0
    assert jail("-r", "two").returncode == 0
    jail("-r", "cell")
    cell.made.clear()


NO_INTERFACE = "it takes an interface of the host's that is the jail's"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ng.rdr=tcp 8080 80", 'ng.rdr: "tcp 8080 80": no "->" in it'),
        ("ng.rdr=tcp [192.0.2.1] 8 -> 8", 'ng.rdr: "tcp [192.0.2.1] 8 -> 8": not an address: "[192.0.2.1]"'),
        ("ng.rdr=sctp any 80 -> 80", 'ng.rdr: "sctp any 80 -> 80": not tcp, udp or tcp,udp: "sctp"'),
        ("ng.rdr=tcp any 8 -> 192.0.2.1:8", 'ng.rdr: "tcp any 8 -> 192.0.2.1:8": 192.0.2.1 is no address of the jail'),
        ("ip4.addr= ip4=inherit ng.rdr=tcp any 80 -> 80", f"ng.rdr: not with ip4=inherit: {NO_INTERFACE}"),
        ("ip4.addr= ng.rdr=tcp any 80 -> 80", "ng.rdr: the jail has no address to lead to"),
    ],
)
def test_what_cannot_be_led_is_refused(lan: Namespace, jail: Command, small_root: Path, words: str, said: str) -> None:
    front, _, rule = words.partition("ng.rdr=")
    addresses = front.split()[1:] if front else [f"ip4.addr={JAIL}"]
    done = jail("-c", f"path={small_root}", *addresses, f"ng.rdr={rule}", "command=true")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"jail: {said}\n")


def test_the_host_s_own_rules_are_obeyed_and_left_alone(lan: Namespace, cell: Cell) -> None:
    """Whatever the administrator drops before the translation, and of what is forwarded after it, is dropped."""
    cell(f"tcp {HOST} 8080-8085 -> 8080-8085")
    text = """
        table inet admin {
            chain raw { type filter hook prerouting priority raw; tcp dport 8081 drop; }
            chain mangle { type filter hook prerouting priority mangle; tcp dport 8082 drop; }
            chain forward { type filter hook forward priority filter;
                tcp dport 8083 drop
                meta l4proto tcp ct original proto-dst 8084 drop
            }
            chain input { type filter hook input priority filter; policy drop; }
        }
    """
    run("nft", text)
    before = run("nft", "list", "table", "inet", "admin")
    try:
        with inside("cell") as there:
            listeners = [there.listen(JAIL, port) for port in range(8080, 8086)]
            # What he drops of what is for the host itself is not asked for what goes on to a jail.
            assert [reaches(lan, HOST, port) for port in range(8080, 8086)] == [True, False, False, False, False, True]
            assert len(listeners) == 6
        assert run("nft", "list", "table", "inet", "admin") == before
    finally:
        run("nft", "delete", "table", "inet", "admin")


def test_forwarding_that_the_host_drops_stays_dropped(lan: Namespace, cell: Cell) -> None:
    cell(f"tcp {HOST} 8080 -> 80")
    run("nft", "table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; }; }")
    try:
        with inside("cell") as there:
            listener = there.listen(JAIL)
            assert not reaches(lan, HOST, 8080)
            run("nft", f"add rule ip filter FORWARD ip saddr {PEER} ct status dnat accept")
            run("nft", "add rule ip filter FORWARD ct state established accept")
            assert peer_of(listener, lan.connect(HOST, 8080)) == PEER
    finally:
        run("nft", "delete", "table", "ip", "filter")


def test_rules_are_there_again_after_a_flush(lan: Namespace, cell: Cell) -> None:
    """`nft flush ruleset`, which Debian's nftables.service does: the next start of a jail mends it."""
    cell(f"tcp {HOST} 8080 -> 80")
    run("nft", "flush", "ruleset")
    cell(name="other", words=("ip4.addr=198.51.100.11",))
    with inside("cell") as there:
        assert peer_of(there.listen(JAIL), lan.connect(HOST, 8080)) == PEER


@pytest.mark.parametrize("alone", [True, False])
def test_rules_change_after_a_flush(lan: Namespace, cell: Cell, alone: bool) -> None:
    """And all else is there again: the change did not find the table to which it belongs, and was refused."""

    def change(rule: str) -> None:
        done = cell.jail("-m", "name=cell", f"ng.rdr={rule}")
        assert (done.returncode, done.stderr) == (0, "")

    cell(f"tcp {HOST} 8080 -> 80")
    if not alone:
        cell(f"tcp {HOST} 9090 -> 80", name="other", words=("ip4.addr=198.51.100.11",))
    before = ruleset()
    run("nft", "flush", "ruleset")
    change(f"tcp {HOST} 8081 -> 80")
    with inside("cell") as there:
        listener = there.listen(JAIL)
        assert peer_of(listener, lan.connect(HOST, 8081)) == PEER
        with pytest.raises(ConnectionRefusedError):
            lan.connect(HOST, 8080)
    run("nft", "flush", "ruleset")
    change("")
    assert ("table inet jailng_rdr" in ruleset()) is not alone
    change(f"tcp {HOST} 8080 -> 80")
    after = ruleset()
    assert sorted(after.replace(",", "").split()) == sorted(before.replace(",", "").split())


def test_rules_that_are_given_again_after_a_flush(lan: Namespace, cell: Cell, jailctl: Command) -> None:
    """They are not changed, and all the same in force again, with those of others: as doctor says, and `jail -cm`."""
    cell(f"tcp {HOST} 8080 -> 80")
    cell(f"tcp {HOST} 9090 -> 80", name="other", words=("ip4.addr=198.51.100.11", "ng.egress=drop"))
    before = ruleset()
    for name, given, lost in (
        ("cell", f"ng.rdr=tcp {HOST} 8080 -> 80", "flush ruleset"),
        ("other", "ng.egress=drop to any", "flush ruleset"),
        ("other", "ng.egress=drop to any", "delete table inet jailng_egress"),
    ):
        run("nft", lost)
        told = jailctl("doctor", "rules").stdout
        assert f"jail -m name={name} {shlex.quote(given)}   # as it is" in told
        done = cell.jail("-m", f"name={name}", given)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(ruleset().replace(",", "").split()) == sorted(before.replace(",", "").split())


def test_more_than_a_socket_has_room_for_at_first(lan: Namespace) -> None:
    """As the rules of a hundred jails are, when they are made anew after a flush."""
    names = [f"counter-{number}-{'x' * 100}" for number in range(2000)]
    with firewall.Netfilter() as netlink:
        netlink.transaction([nft.new_table("many"), *[nft.new_counter("many", name) for name in names]])
    assert run("nft", "list", "table", "inet", "many").count("counter-") == len(names)
    run("nft", "delete", "table", "inet", "many")


def test_nft_reads_what_it_lists(lan: Namespace, cell: Cell, tmp_path: Path) -> None:
    cell("tcp,udp on ep0 from 203.0.113.0/24 any 8000-8010 -> 8000-8010 log web group 5", f"tcp {HOST} 80 -> 80")
    listed = ruleset()
    assert json.loads(run("nft", "-j", "list", "ruleset"))
    file = tmp_path / "listed.nft"
    file.write_text(f"flush ruleset\n{listed}")
    run("nft", "-f", str(file))
    assert _plain(ruleset()) == _plain(listed)


def _plain(listed: str) -> str:
    """Without a condition that nft(8) leaves out where another one implies it."""
    return listed.replace("meta nfproto ipv4 ", "").replace("meta nfproto ipv6 ", "")


def test_jailctl_lists_adds_and_takes_away(lan: Namespace, cell: Cell, checkout: Path) -> None:
    ctl = str(checkout / "bin/jailctl")

    def listed() -> list[tuple[object, ...]]:
        shown = json.loads(run(ctl, "rdr", "list", "--json", "cell"))["rdr"]
        return [tuple(rule.values()) for one in shown for rule in one["rules"]]

    cell(f"tcp {HOST} 8080 -> 80", f"tcp {HOST} 8081 -> 80", f"udp {HOST6} 53 -> 53")
    with inside("cell") as there:
        listener, asked = there.listen(JAIL), there.datagrams(JAIL6, 53)
        for port in (8080, 8080, 8081):
            peer_of(listener, lan.connect(HOST, port))
        asks = lan.datagrams(version=6)
        for _ in range(3):
            asks.sendto(b"1234", (HOST6, 53))
        asked.sendto(b"me", asked.recvfrom(10)[1])
        assert asks.recv(10) == b"me"
        first, second, third = listed()
        assert (first[:2], second[:2]) == ((f"tcp {HOST} 8080 -> 80", 2), (f"tcp {HOST} 8081 -> 80", 1))
        # A handshake of three, the word and its acknowledgement, and the end: of at least eight packets each.
        assert isinstance(first[2], int)
        assert isinstance(second[2], int)
        assert first[2] >= 16
        assert second[2] >= 8
        assert third == (f"udp {HOST6} 53 -> 53", 1, 4, 3 * (40 + 8 + 4) + 40 + 8 + 2)
        for end in (listener, asked, asks):
            end.close()
    run(ctl, "rdr", "add", "cell", f"tcp {HOST} 90 -> 90", "tcp  any 91->91")
    assert [rule[0] for rule in listed()][3:] == [f"tcp {HOST} 90 -> 90", "tcp any 91 -> 91"]
    run(ctl, "rdr", "del", "cell", f"tcp {HOST} 8080 -> 80", "tcp any 91 -> 91")
    assert len(listed()) == 3
    with pytest.raises(AssertionError, match=r'jailctl: ng.rdr: "tcp any 7 -> 7": there is no such rule\n'):
        run(ctl, "rdr", "del", "cell", "tcp any 7 -> 7")
    assert run(ctl, "rdr", "list").splitlines()[0].split() == "JID NAME CONNECTIONS PACKETS BYTES RULE".split()
    run(ctl, "rdr", "clear", "cell")
    assert listed() == []
    assert "jailng_rdr" not in ruleset()


def test_jails_of_one_address_have_redirects_of_their_own(lan: Namespace, jail: Command, cell: Cell) -> None:
    one = (f"ip4.addr={JAIL}",)
    cell(f"tcp {HOST} 8080 -> 80", words=one)
    cell(f"tcp {HOST} 8081 -> 81", name="second", words=one)
    with inside("second") as there:
        first, second = there.listen(JAIL, 80), there.listen(JAIL, 81)
        assert peer_of(first, lan.connect(HOST, 8080)) == PEER
        assert peer_of(second, lan.connect(HOST, 8081)) == PEER
        assert jail("-r", "cell").returncode == 0
        assert peer_of(second, lan.connect(HOST, 8081)) == PEER
        with pytest.raises(ConnectionRefusedError):
            lan.connect(HOST, 8080)


@pytest.mark.parametrize(
    ("rule", "ports"), [("tcp {} 8080 -> 80", "8080"), ("tcp,udp {} 8080-8085 -> 8080-8085", "8080-8085")]
)
def test_doctor_tells_what_is_not_asked_and_what_is_gone(
    lan: Namespace, cell: Cell, checkout: Path, rule: str, ports: str
) -> None:
    rule = rule.format(HOST)

    def doctor() -> str:
        argv = [str(checkout / "bin/jailctl"), "doctor", "rules"]
        return subprocess.run(argv, capture_output=True, text=True).stdout

    cell(rule)
    assert doctor().startswith("ok")
    run("nft", "table inet admin { chain in { type filter hook input priority filter; policy drop; }; }")
    try:
        told = doctor()
        run("nft", "table inet admin { chain FORWARD { type filter hook forward priority filter; }; }")
        [advice] = re.findall(rf"nft add rule .* proto-dst {ports} drop *# in a table of yours", told)
        run("sh", "-c", advice.replace("FILTER", "admin"))
        assert "ct original proto-dst" in run("nft", "list", "table", "inet", "admin")
    finally:
        run("nft", "delete", "table", "inet", "admin")
    assert told.startswith("note")
    assert f'as to jail "cell" by {rule}, is not asked of chain in of table inet admin' in told
    assert f'jailctl rdr add cell "{rule.replace(HOST, f"from NETWORK {HOST}")}"' in told
    run("nft", "delete", "table", "inet", "jailng_rdr")
    assert 'rules of jail "cell" are gone' in doctor()


def test_an_interface_that_is_not_there(lan: Namespace, jail: Command, small_root: Path) -> None:
    done = jail("-c", f"path={small_root}", f"ip4.addr={JAIL}", "ng.rdr=tcp on ep9 any 80 -> 80", "command=true")
    assert (done.returncode, done.stderr) == (
        1,
        'jail: ng.rdr: "tcp on ep9 any 80 -> 80": interface ep9 does not exist\n',
    )


def test_another_name_of_an_interface(lan: Namespace, jail: Command, small_root: Path) -> None:
    """No packet is told to have come by it."""
    ip("link property add dev ep0 altname enp0s7")
    done = jail("-c", f"path={small_root}", f"ip4.addr={JAIL}", "ng.rdr=tcp on enp0s7 any 80 -> 80", "command=true")
    assert (done.returncode, done.stderr) == (
        1,
        'jail: ng.rdr: "tcp on enp0s7 any 80 -> 80": enp0s7 is another name of ep0, by which packets come\n',
    )


def test_a_configuration_has_lists(
    lan: Namespace, jail: Command, jls: Command, small_root: Path, tmp_path: Path
) -> None:
    conf = tmp_path / "jail.conf"
    conf.write_text(
        f"""
        $host = "{HOST}";
        cell {{
            path = "{small_root}"; ip4.addr = {JAIL}; persist;
            ng.rdr = "tcp $host 8080 -> 80", "udp $host 53 -> 53";
            ng.rdr += "tcp any 22 -> 22 log ssh group 4";
            ng.egress = honeypot, "pass udp to 192.0.2.53 port 53,5353", "drop to lan";
        }}
        """
    )
    done = jail("-f", str(conf), "-c", "cell")
    assert (done.returncode, done.stderr) == (0, "")
    assert jls("-j", "cell", "ng.rdr").stdout.strip() == (
        f"tcp {HOST} 8080 -> 80,udp {HOST} 53 -> 53,tcp any 22 -> 22 log ssh group 4"
    )
    assert jls("-j", "cell", "-s", "ng.egress").stdout.strip() == (
        'ng.egress="honeypot,pass udp to 192.0.2.53 port 53,5353,drop to lan"'
    )
    assert jail("-f", str(conf), "-r", "cell").returncode == 0


def test_a_plan_tells_of_it(lan: Namespace, jail: Command, small_root: Path) -> None:
    rules = (f"ng.rdr=tcp {HOST} 8080 -> 80", "ng.egress=none")
    before = ruleset()
    done = jail("--plan", "-c", f"path={small_root}", f"ip4.addr={JAIL}", *rules, "command=true")
    assert f": {JAIL}; lead tcp {HOST} 8080 -> 80; judge what leaves it\n" in done.stdout
    assert ruleset() == before
