"""Jails with several addresses: on several interfaces, on none; from which they speak; words for ifconfig(8)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jailng.core import alias
from jailng.params.address import addresses
from tests.kernel.conftest import Command
from tests.kernel.networks import (
    Departures,
    Jail,
    Namespace,
    attach,
    client,
    counter,
    datagrams,
    host_addresses,
    inside,
    ip,
    run,
    settle,
    undo,
)

ONE = {4: ("198.51.100.10", "198.51.100.11"), 6: ("2001:db8:1::10", "2001:db8:1::11")}
TWO = {4: "203.0.113.10", 6: "2001:db8:2::10"}
LAN_ONE = {4: "198.51.100.2", 6: "2001:db8:1::2"}
LAN_TWO = {4: "203.0.113.2", 6: "2001:db8:2::2"}
both = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture
def lans() -> Iterator[tuple[Namespace, Namespace]]:
    """Two LANs, behind ep0, by which the default route leads, and ep1; both have addresses for a jail."""
    with (
        attach("ep0", ("198.51.100.1/24", "2001:db8:1::1/64"), ("198.51.100.2/24", "2001:db8:1::2/64")) as one,
        attach("ep1", ("203.0.113.1/24", "2001:db8:2::1/64"), ("203.0.113.2/24", "2001:db8:2::2/64")) as two,
    ):
        ip(*[f"address add {ONE[4][n]}/24 dev ep0" for n in (0, 1)], f"address add {TWO[4]}/24 dev ep1")
        six = [f"address add {address}/64 dev ep0 nodad preferred_lft 0" for address in ONE[6]]
        ip(*six, f"address add {TWO[6]}/64 dev ep1 nodad preferred_lft 0")
        ip("route add default via 198.51.100.2", "route add default via 2001:db8:1::2")
        with two.entered():  # the way back, from the one network to the other, goes by the host
            ip("route add default via 203.0.113.1", "route add default via 2001:db8:2::1")
        with one.entered():
            ip("route add 203.0.113.0/24 via 198.51.100.1", "route add 2001:db8:2::/64 via 2001:db8:1::1")
        yield one, two


@contextmanager
def running(ip4: str, ip6: str, fixed: tuple[int, ...] = ()) -> Iterator[Jail]:
    """A jail of jid 7 that is undone and ended afterwards."""
    jail, departures = Jail(), Departures()
    link = jail.set_up(7, ip4, ip6, fixed=fixed)
    try:
        yield jail
    finally:
        undo(link)
        jail.end()
        departures.wait(*[end.host_name for end in link.ends])


def _seen(listener: socket.socket, caller: socket.socket) -> str:
    """By which address the listener sees the caller."""
    served, (seen, *_) = listener.accept()
    with listener, caller, served:
        assert isinstance(seen, str)
        return seen


def test_each_interface_is_seen_inside_with_its_own_addresses(lans: tuple[Namespace, Namespace]) -> None:
    models = {name: json.loads(run("ip", "-j", "address", "show", name))[0] for name in ("ep0", "ep1")}
    with running(f"{ONE[4][0]},{TWO[4]},{ONE[4][1]}", f"{TWO[6]},{ONE[6][0]}") as jail:
        shown = {found["ifname"]: found for found in json.loads(jail.run("ip", "-j", "address"))}
        assert shown.keys() == {"lo", "ep0", "ep1"}
        for name, addresses in (("ep0", {*ONE[4], ONE[6][0]}), ("ep1", {TWO[4], TWO[6]})):
            assert shown[name]["address"] == models[name]["address"]
            assert {a["local"] for a in shown[name]["addr_info"]} == addresses


@both
def test_a_jail_is_reached_by_each_interface_and_answers_by_it(lans: tuple[Namespace, Namespace], version: int) -> None:
    with running(f"{ONE[4][0]},{TWO[4]}", f"{ONE[6][0]},{TWO[6]}") as jail:
        for lan, theirs, ours in ((lans[0], LAN_ONE, ONE[version][0]), (lans[1], LAN_TWO, TWO[version])):
            listener = jail.listen(ours)
            assert _seen(listener, lan.connect(ours)) == theirs[version]
            listener = jail.listen(ours)
            assert _seen(listener, client(ours))  # from the host
        # From another network, by the interface that the host would not have taken.
        listener = jail.listen(TWO[version])
        assert _seen(listener, lans[0].connect(TWO[version])) == LAN_ONE[version]
        assert counter("spoofed") == 0


@both
def test_it_speaks_to_a_network_from_its_address_there(lans: tuple[Namespace, Namespace], version: int) -> None:
    with running(f"{ONE[4][0]},{TWO[4]}", f"{ONE[6][0]},{TWO[6]}") as jail:
        for lan, theirs, ours in ((lans[0], LAN_ONE, ONE[version][0]), (lans[1], LAN_TWO, TWO[version])):
            listener = lan.listen(theirs[version])
            assert _seen(listener, jail.connect(theirs[version])) == ours
        # Elsewhere as the host: by ep0, also where the first address is on ep1.
    with running(f"{TWO[4]},{ONE[4][0]}", f"{TWO[6]},{ONE[6][0]}") as jail:
        sender = jail.datagrams(version=version)
        sender.connect(({4: "192.0.0.8", 6: "100::1"}[version], 9))
        seen = sender.getsockname()[0]
        sender.close()
        assert seen == ONE[version][0]


@both
def test_it_speaks_by_the_routes_of_the_host_from_its_address_there(
    lans: tuple[Namespace, Namespace], version: int
) -> None:
    """By the interface by which the host speaks to the world and its address there answers never came back."""
    ip(f"route add 198.18.0.0/16 via {LAN_TWO[4]}", f"route add 2001:db8:99::/48 via {LAN_TWO[6]}")
    with running(f"{ONE[4][0]},{TWO[4]}", f"{ONE[6][0]},{TWO[6]}") as jail:
        spoken = []
        for target in (
            {4: "198.18.0.8", 6: "2001:db8:99::8"}[version],
            {4: "198.19.0.8", 6: "2001:db8:98::8"}[version],
        ):
            sender = jail.datagrams(version=version)
            sender.connect((target, 9))
            spoken.append(sender.getsockname()[0])
            sender.close()
    assert spoken == [TWO[version], ONE[version][0]]


@both
def test_it_speaks_to_a_network_of_the_hosts_from_an_alias_without_its_prefix(
    lans: tuple[Namespace, Namespace], version: int
) -> None:
    own = {4: ("198.51.100.20", "203.0.113.20"), 6: ("2001:db8:1::20", "2001:db8:2::20")}
    ip(*[f"address add {own[4][n]}/32 dev ep{n}" for n in (0, 1)])
    ip(*[f"address add {own[6][n]}/128 dev ep{n} nodad preferred_lft 0" for n in (0, 1)])
    with running(",".join(own[4]), ",".join(own[6])) as jail:
        for lan, theirs, ours in zip(lans, (LAN_ONE, LAN_TWO), own[version], strict=True):
            listener = lan.listen(theirs[version])
            assert _seen(listener, jail.connect(theirs[version])) == ours
        assert counter("spoofed") == 0


def test_it_speaks_to_others_from_an_address_that_is_on_an_interface(lans: tuple[Namespace, Namespace]) -> None:
    """One of the loopback is for the host alone, be it the first."""
    private, second, first = "192.0.2.10", "203.0.113.20", "198.51.100.20"
    places = (f"{private}/32 dev lo", f"{second}/32 dev ep1", f"{first}/32 dev ep0")
    ip(*[f"address add {place}" for place in places])
    for own in (f"{private},{second},{first}", f"{private},{first}"):
        with running(own, "") as jail:
            listener = lans[0].listen(LAN_ONE[4])
            assert _seen(listener, jail.connect(LAN_ONE[4])) == first
            sender = jail.datagrams(version=4)
            sender.connect(("192.0.0.8", 9))
            seen = sender.getsockname()[0]
            sender.close()
            assert seen == first
    ip(f"address delete {places[0]}")


@both
def test_without_saddrsel_it_speaks_from_its_first_address_alone(
    lans: tuple[Namespace, Namespace], version: int
) -> None:
    other = LAN_TWO[version]
    addresses = f"{ONE[4][0]},{TWO[4]},{ONE[4][1]}", f"{ONE[6][0]},{TWO[6]},{ONE[6][1]}"
    with running(*addresses) as jail:  # the control
        listener = lans[1].listen(other)
        assert _seen(listener, jail.connect(other)) == TWO[version]
    with running(*addresses, fixed=(4, 6)) as jail:
        listener = lans[1].listen(other)
        assert _seen(listener, jail.connect(other)) == ONE[version][0]
        receiver = lans[1].datagrams(other, 9)
        jail.datagrams(version=version).sendto(b"unconnected", (other, 9))
        assert receiver.recvfrom(100)[1][0] == ONE[version][0]
        bound = jail.datagrams(TWO[version], 0)  # who asks for another gets it
        bound.sendto(b"bound", (other, 9))
        bound.close()
        assert receiver.recvfrom(100)[1][0] == TWO[version]
        assert counter("spoofed") == 0


@both
def test_an_address_on_no_interface_cannot_be_used(lans: tuple[Namespace, Namespace], version: int) -> None:
    nowhere = {4: "192.0.2.77", 6: "2001:db8:9::77"}
    with (
        running(f"{ONE[4][0]},192.0.2.77", f"{ONE[6][0]},2001:db8:9::77") as jail,
        jail.entered(),
        datagrams(version=version) as one,
        datagrams(version=version) as other,
    ):
        with pytest.raises(OSError, match="Cannot assign requested address"):
            one.bind((nowhere[version], 9))
        other.bind((ONE[version][0], 9))
    # Not even the host's packets to whoever has that address are led to the jail.
    assert "192.0.2.77" not in run("ip", "route", "show", "table", "all")


def test_a_jail_whose_addresses_are_all_on_no_interface(jail: Command, small_root: Path) -> None:
    words = ("ip4.addr=192.0.2.77", "command=/bin/busybox", "httpd", "-f", "-p", "192.0.2.77:80")
    assert (
        "leave out 192.0.2.77, which is on no interface\n" in jail("--plan", "-c", f"path={small_root}", *words).stdout
    )
    done = jail("-c", f"path={small_root}", *words)
    assert done.returncode == 1
    assert "bind: Cannot assign requested address" in done.stderr


def test_an_address_on_an_interface_that_is_down(jail: Command, small_root: Path) -> None:
    """It is the host's all the same, and the jail's from the start."""
    ip("link add ep3 type veth peer name ep4", "address add 198.51.100.30/24 dev ep3")
    done = jail("-c", f"path={small_root}", "ip4.addr=198.51.100.30", "command=/bin/busybox", "ip", "address")
    ip("link delete ep3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "inet 198.51.100.30/24" in done.stdout


def test_an_interface_that_is_down_comes_up_with_an_alias(jail: Command, small_root: Path) -> None:
    """As FreeBSD's jail(8) has it by ifconfig(8): a card that only jails use needs nothing else."""
    ip("link add ep3 type veth peer name ep4", "link set ep4 up")
    done = jail("-c", f"path={small_root}", "ip4.addr=ep3|198.51.100.30/24", "command=/bin/busybox", "true")
    link, addresses = run("ip", "-o", "link", "show", "ep3"), run("ip", "address", "show", "ep3")
    ip("link delete ep3")
    assert (done.returncode, done.stderr) == (0, "")
    assert ",UP," in link
    assert "198.51.100.30" not in addresses


@pytest.mark.parametrize("stack", ["own", "shared"])
def test_an_interface_that_is_too_narrow_for_ipv6(jail: Command, small_root: Path, stack: str) -> None:
    """As those of tunnels and modems may be: below an MTU of 1280 the kernel has none, on neither end of the pair."""
    ip("link add ep3 mtu 1000 type veth peer name ep4", "address add 198.51.100.30/24 dev ep3")
    ip("link set ep3 up", "link set ep4 up")
    words = (f"ng.stack={stack}", "ip4.addr=198.51.100.30", "command=/bin/busybox", "ip", "address")
    done = jail("-c", f"path={small_root}", *words)
    ip("link delete ep3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "mtu 1000" in done.stdout
    assert "inet 198.51.100.30/24" in done.stdout


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ep0|198.51.100.20 netmask 255.255.255.128", "198.51.100.20/25 brd 198.51.100.127"),
        ("ep0|198.51.100.20/24 netmask 0xffffff80 alias", "198.51.100.20/25 brd 198.51.100.127"),
        ("ep0|198.51.100.20/24 broadcast 198.51.100.0", "198.51.100.20/24 brd 198.51.100.0"),
        ("ep0|198.51.100.20 prefixlen 26", "198.51.100.20/26 brd 198.51.100.63"),
        ("ep0|2001:db8:1::20 prefixlen 64 no_dad", "2001:db8:1::20/64"),
    ],
)
def test_words_for_ifconfig(
    lans: tuple[Namespace, Namespace], jail: Command, small_root: Path, address: str, shown: str
) -> None:
    before = host_addresses()
    kind = "ip6" if "::" in address else "ip4"
    done = jail("-c", f"path={small_root}", f"{kind}.addr={address}", "command=/bin/busybox", "ip", "address")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"inet{'6' if kind == 'ip6' else ''} {shown} scope global" in done.stdout
    assert host_addresses() == before


def test_an_alias_on_each_of_two_interfaces(lans: tuple[Namespace, Namespace], jail: Command, small_root: Path) -> None:
    before = host_addresses()
    words = ("ip4.addr=ep0|198.51.100.20/24,ep1|203.0.113.20/24", "persist")
    done = jail("-c", "name=two", f"path={small_root}", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert [
        "198.51.100.20" in run("ip", "address", "show", "ep0"),
        "203.0.113.20" in run("ip", "address", "show", "ep1"),
    ] == [True, True]
    assert jail("-r", "two").returncode == 0
    assert host_addresses() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ip4.addr=198.51.100.255", "198.51.100.255: the broadcast address of a network that the host is in"),
        ("ip4.addr=ep0|198.51.100.255", "198.51.100.255: the broadcast address of a network that the host is in"),
        ("ip4.addr=ep0|198.51.100.20/0", "interface ep0: 198.51.100.20/0: a network of all addresses"),
        ("ip6.addr=ep0|2001:db8:1::20/0", "interface ep0: 2001:db8:1::20/0: a network of all addresses"),
    ],
)
def test_what_would_take_from_the_host(
    lans: tuple[Namespace, Namespace], jail: Command, small_root: Path, words: str, said: str
) -> None:
    """What is for all of a network comes to the host, and its own way to the world goes before no other."""
    for interface in ("ep0", "ep1"):
        settle(interface)  # to its own link-local address the kernel makes a route when it may use it
    before = host_addresses(), run("ip", "-6", "route"), run("ip", "route", "show", "table", "all")
    done = jail("-c", f"path={small_root}", words, "command=true")
    assert (done.returncode, done.stderr) == (1, f"jail: {said}\n")
    assert (host_addresses(), run("ip", "-6", "route"), run("ip", "route", "show", "table", "all")) == before


@pytest.mark.parametrize("prefix", [32, 8])
def test_an_alias_on_the_loopback_interface(
    lans: tuple[Namespace, Namespace], jail: Command, small_root: Path, prefix: int
) -> None:
    """As configurations that iocage(8) writes have it: the host does not speak to jails from such an address."""
    before = host_addresses()
    words = (f"ip4.addr=ep0|198.51.100.20/24,lo|127.0.0.2/{prefix}", "persist")
    done = jail("-c", "name=looped", f"path={small_root}", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "127.0.0.2" in run("ip", "address", "show", "lo", "scope", "host")
    with running(ONE[4][0], "") as beside:  # which the host reaches
        listener = beside.listen(ONE[4][0])
        assert _seen(listener, client(ONE[4][0]))
    assert jail("-r", "looped").returncode == 0
    assert host_addresses() == before


def test_an_alias_by_another_name_of_the_interface(
    lans: tuple[Namespace, Namespace], jail: Command, small_root: Path
) -> None:
    """As systemd-udevd gives them: the interface is found by it, and nothing below /proc/sys is."""
    ip("link property add dev ep0 altname enp0s7")
    before = host_addresses()
    words = ("interface=enp0s7", "ip4.addr=198.51.100.20/24", "ip6.addr=2001:db8:1::20/64", "persist")
    done = jail("-c", "name=other", f"path={small_root}", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "198.51.100.20" in run("ip", "address", "show", "ep0")
    done = jail("-r", "other")
    assert (done.returncode, done.stderr) == (0, "")
    assert host_addresses() == before


def test_an_alias_that_another_interface_has_as_well(lan: Namespace, jail: Command, small_root: Path) -> None:
    """The jail is reached by the one that is named."""
    both = [f"address {{}} {address} dev lo" for address in ("198.51.100.10/32", "2001:db8:1::10/128")]
    ip(*[line.format("add") for line in both])
    words = ("interface=ep0", "ip4.addr=198.51.100.10", "ip6.addr=2001:db8:1::10")
    assert jail("-c", "name=a", f"path={small_root}", *words, "persist").returncode == 0
    with inside("a") as there:
        for address, peer in (("198.51.100.10", "198.51.100.2"), ("2001:db8:1::10", "2001:db8:1::2")):
            assert _seen(there.listen(address), lan.connect(address)) == peer
    assert jail("-r", "a").returncode == 0
    ip(*[line.format("del") for line in both])


def test_an_alias_beside_one_that_is_lent(lans: tuple[Namespace, Namespace]) -> None:
    """The kernel makes no route to another address of a network of which the first is led into a jail."""
    ip("address add 192.0.2.10/24 dev ep0")
    (added,) = addresses("ip4", "ip4.addr", "192.0.2.11/24")
    with running("192.0.2.10", ""):
        alias.add("ep0", added)
        assert run("ip", "route", "get", "192.0.2.11").startswith("local 192.0.2.11 ")
        alias.remove(["ep0", "192.0.2.11/24"])
        assert "192.0.2.11" not in run("ip", "route", "show", "table", "local")
    ip("address delete 192.0.2.10/24 dev ep0")
