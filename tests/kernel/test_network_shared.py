"""What jails' networks share on the host: the table, the switches of forwarding, and the aliases of interfaces."""

from __future__ import annotations

import json
import os
import re
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.core import alias, firewall, network, registry
from jailng.core.index import DIRECTORY
from jailng.core.link import Host
from jailng.ctl import lent
from jailng.errors import JailError
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import NETLINK_NETFILTER, Netlink
from jailng.params.address import Address, addresses
from tests.kernel.networks import (
    Departures,
    Jail,
    Namespace,
    attach,
    counter,
    datagrams,
    host_addresses,
    ip,
    run,
    set_switch,
    switch,
    undo,
)

_JAILS = Path(DIRECTORY, "jails")
_INDEX = Path(DIRECTORY, "index")
FORWARDING = "ipv4/conf/ep0/forwarding"
# From Linux 6.17 on IPv6 is forwarded for one interface, before for all or none. The switch, where it is, and what is
# written to it: force_forwarding takes only 0 and 1.
SIX, FORWARDING_6, OURS_6 = (
    ("6:ep0", "ipv6/conf/ep0/force_forwarding", "1")
    if firewall.can_forward_one()
    else ("6:all", "ipv6/conf/all/forwarding", "2")
)


@pytest.fixture(autouse=True)
def lan() -> Iterator[Namespace]:
    """The host's ep0 leads to a LAN; it has the addresses .10 and .11, ::10 and ::11 for jails."""
    with attach("ep0", ("198.51.100.1/24", "2001:db8:1::1/64"), ("198.51.100.2/24", "2001:db8:1::2/64")) as made:
        for last in ("10", "11"):
            ip(f"address add 198.51.100.{last}/24 dev ep0", f"address add 2001:db8:1::{last}/64 dev ep0 nodad")
        _JAILS.mkdir(parents=True, exist_ok=True)
        yield made
        for path in (*_JAILS.iterdir(), _INDEX):
            path.unlink(missing_ok=True)


def _record(jid: int, *switches: str, boot: str = "") -> None:
    """A jail's record, as far as it matters to others, and its line in the index."""
    lines = f"boot {boot or registry.boot_id()}\nnetns {os.stat('/proc/self/ns/net').st_ino}\n"
    (_JAILS / str(jid)).write_text(f"{lines}undo {firewall.undo_line(jid, list(switches))}\n")
    with _INDEX.open("a") as index:
        index.write(f"{jid}\t{jid}\tjail{jid}\t198.51.100.{jid}\n")


def _strike_out(jid: int) -> None:
    with open(_JAILS / str(jid), "a") as record:
        record.write("undone\n")


def _guarded() -> set[str] | None:
    with Netlink(NETLINK_NETFILTER) as netlink:
        return firewall.guarded(netlink)


def test_the_table_is_what_its_docstring_says() -> None:
    assert firewall.__doc__ is not None
    written = re.findall(r"^    (.+)$", firewall.__doc__, re.M)
    firewall.hold([])
    shown = run("nft", "--stateless", "list", "table", "inet", "jailng")
    firewall.release(["7"])
    shown = re.sub(r"\t(set|counter) \w+ \{.*?\n\t\}\n", "", shown, flags=re.S).replace("; policy accept;", "")
    assert _words(shown.splitlines()) == _words(written)


def _words(lines: list[str]) -> list[list[str]]:
    found = [line.partition("#")[0].replace('name "', "name ").split() for line in lines]
    return [[word.replace('"', "") for word in line] for line in found if line]


def test_the_last_jail_takes_table_and_switches_with_it() -> None:
    _record(7, "4:ep0", SIX, "proxy:6")
    firewall.hold(["4:ep0", SIX, "proxy:6"])
    _record(8, "4:ep0")
    firewall.hold(["4:ep0"])
    assert _guarded() == {"4:ep0", SIX}
    assert (switch(FORWARDING), switch(FORWARDING_6)) == ("3", OURS_6)
    firewall.release(["7", "4:ep0", SIX, "proxy:6"])
    _strike_out(7)
    assert _guarded() == {"4:ep0"}
    assert (switch(FORWARDING), switch(FORWARDING_6)) == ("3", "0")
    assert switch("ipv6/conf/all/proxy_ndp") == "0"
    firewall.release(["8", "4:ep0"])
    assert _guarded() is None
    assert (switch(FORWARDING), switch("ipv4/neigh/ep0/proxy_delay")) == ("0", "80")


def test_to_release_twice_is_no_error() -> None:
    firewall.hold(["4:ep0"])
    for _ in range(2):
        firewall.release(["7", "4:ep0"])
    assert (_guarded(), switch(FORWARDING)) == (None, "0")


def test_records_of_another_boot_hold_nothing() -> None:
    _record(8, "4:ep0", boot="00000000-0000-0000-0000-000000000000")
    firewall.hold(["4:ep0"])
    firewall.release(["7", "4:ep0"])
    assert (_guarded(), switch(FORWARDING)) == (None, "0")


def test_an_interface_that_is_gone_is_no_error() -> None:
    ip("link add ep1 type veth peer name ep2")
    firewall.hold(["4:ep1", "6:ep1"])
    ip("link delete ep1")
    firewall.release(["7", "4:ep1", "6:ep1"])
    assert _guarded() is None


def test_an_interface_that_goes_while_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a jail which has ended: the kernel has told of its address, and has none of that number any more."""
    gone = rt.Address(index=1 << 20, packed=socket.inet_aton("169.254.1.1"), prefix=32, broadcast=b"")
    listed = Host.aliases
    with Netlink() as netlink:
        there = [interface.index for interface in Host(netlink).carriers(4)]
        monkeypatch.setattr(Host, "aliases", lambda host, family: [*listed(host, family), gone])
        assert [interface.index for interface in Host(netlink).carriers(4)] == there
        assert list(lent._check_own(netlink, [gone])) == []


def test_forwarding_of_the_administrator_is_left_alone() -> None:
    set_switch("ipv4/ip_forward", "1")
    set_switch(FORWARDING_6, "1")
    link = network.survey(7, addresses("ip4", "x", "198.51.100.10") + addresses("ip6", "x", "2001:db8:1::10"))
    assert link.switches == ["proxy:6"]
    firewall.hold(link.switches)
    assert _guarded() == set()
    firewall.release(["7", *link.switches])
    assert (switch(FORWARDING), switch(FORWARDING_6)) == ("1", "1")
    set_switch("ipv4/ip_forward", "0")
    set_switch(FORWARDING_6, "0")


def test_forwarding_that_an_administrator_switches_on_meanwhile_stays_on() -> None:
    firewall.hold(["4:ep0"])
    set_switch("ipv4/ip_forward", "1")  # as Docker's daemon does when it starts
    firewall.hold(["4:ep0"])  # any other jail: the guard must not stand in the way
    assert _guarded() == set()
    firewall.release(["7", "4:ep0"])
    assert switch(FORWARDING) == "1"
    set_switch("ipv4/ip_forward", "0")
    set_switch("ipv4/neigh/ep0/proxy_delay", "80")


def test_a_flushed_ruleset_is_made_anew_for_all_jails() -> None:
    _record(7, "4:ep0", SIX, "proxy:6")
    firewall.hold(["4:ep0", SIX, "proxy:6"])
    run("nft", "flush", "ruleset")
    link = network.survey(8, addresses("ip6", "x", "2001:db8:1::11"))
    assert link.switches == [SIX, "proxy:6"]  # switched on already, but by the other jail
    _record(8, *link.switches)
    firewall.hold(link.switches)
    assert _guarded() == {"4:ep0", SIX}
    firewall.release(["8", *link.switches])
    _strike_out(8)
    firewall.release(["7", "4:ep0", SIX, "proxy:6"])


def test_the_table_is_missed_by_no_release() -> None:
    firewall.hold(["4:ep0"])
    run("nft", "flush", "ruleset")
    firewall.release(["7", "4:ep0"])
    assert switch(FORWARDING) == "0"


def test_other_tables_are_left_alone() -> None:
    run("nft", "add table inet admin { chain c { tcp dport 22 accept; }; }")
    before = run("nft", "list", "table", "inet", "admin")
    firewall.hold(["4:ep0"])
    assert run("nft", "list", "table", "inet", "admin") == before
    firewall.release(["7", "4:ep0"])
    assert run("nft", "list", "ruleset") == before
    run("nft", "delete", "table", "inet", "admin")


@pytest.fixture
def before_6_17(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that forwards IPv6 for all interfaces or none."""
    monkeypatch.setattr(firewall, "can_forward_one", lambda: False)


@pytest.mark.usefixtures("before_6_17")
def test_old_kernel_forwards_ipv6_for_all_and_guards_all(lan: Namespace) -> None:
    with attach("ep1", ("203.0.113.1/24", "2001:db8:2::1/64"), ("203.0.113.2/24", "2001:db8:2::2/64")) as far:
        with lan.entered():
            ip("route add 2001:db8:2::/64 via 2001:db8:1::1")
        for name in ("ep0", "ep1"):
            set_switch(f"ipv6/conf/{name}/accept_ra", "0")
        jail, departures = Jail(), Departures()
        link = jail.set_up(7, ip6="2001:db8:1::10")
        assert (link.switches, _guarded()) == (["6:all", "proxy:6"], {"6:all"})
        inside, elsewhere = jail.datagrams("2001:db8:1::10", 9), far.datagrams("2001:db8:2::2", 9)
        sender = lan.datagrams(version=6)
        sender.sendto(b"for others", ("2001:db8:2::2", 9))
        sender.sendto(b"for the jail", ("2001:db8:1::10", 9))
        assert inside.recv(100) == b"for the jail"
        assert counter("unrouted") == 1
        assert not select.select([elsewhere], [], [], 0)[0]
        inside.close()
        undo(link)
        assert (switch("ipv6/conf/all/forwarding"), switch("ipv6/conf/ep0/forwarding")) == ("0", "0")
        jail.end()
        departures.wait("jng7")


@pytest.mark.usefixtures("before_6_17")
def test_old_kernel_never_makes_an_interface_deaf_to_advertisements() -> None:
    set_switch("ipv6/conf/ep0/accept_ra", "1")
    with pytest.raises(JailError, match=r"ep0 would no longer take router advertisements: set net\.ipv6\.conf\.ep0\."):
        network.survey(7, addresses("ip6", "x", "2001:db8:1::10"))
    set_switch("ipv6/conf/ep0/accept_ra", "2")
    assert network.survey(7, addresses("ip6", "x", "2001:db8:1::10")).switches == ["6:all", "proxy:6"]


def _one(kind: str, text: str) -> Address:
    (found,) = addresses(kind, "x", text)
    return found


@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [
        ("ip4", "198.51.100.30/24", {"prefixlen": 24, "broadcast": "198.51.100.255", "label": "ep0"}),
        ("ip4", "198.51.100.30", {"prefixlen": 32}),
        ("ip6", "2001:db8:1::30/64", {"prefixlen": 64, "deprecated": True, "nodad": True}),
    ],
)
def test_an_alias_comes_and_goes(kind: str, text: str, shown: dict[str, object]) -> None:
    before = host_addresses()
    address = _one(kind, text)
    assert not alias.exists("ep0", address)
    alias.add("ep0", address)
    assert alias.exists("ep0", address)
    (interface,) = json.loads(run("ip", "-j", "address", "show", "ep0"))
    (found,) = [found for found in interface["addr_info"] if found["local"] == address.bare]
    assert shown.items() <= found.items()
    for _ in range(2):
        network.UNDO["alias"](["ep0", f"{address.bare}/{address.prefix}"])
    assert host_addresses() == before


def test_an_alias_that_is_there_is_left_as_it_is() -> None:
    before = host_addresses()
    alias.add("ep0", _one("ip4", "198.51.100.10/24"))
    assert host_addresses() == before


def test_the_alias_that_goes_takes_no_other_with_it() -> None:
    # Linux calls the first address of a network its primary one, and removes the others with it.
    set_switch("ipv4/conf/ep0/promote_secondaries", "0")
    set_switch("ipv4/conf/all/promote_secondaries", "0")
    first, second = _one("ip4", "203.0.113.10/24"), _one("ip4", "203.0.113.11/24")
    alias.add("ep0", first)
    alias.add("ep0", second)
    network.UNDO["alias"](["ep0", "203.0.113.10/24"])
    assert (alias.exists("ep0", first), alias.exists("ep0", second)) == (False, True)
    assert switch("ipv4/conf/ep0/promote_secondaries") == "0"


def test_the_host_does_not_speak_from_an_alias() -> None:
    alias.add("ep0", _one("ip6", "2001:db8:1::2:1/64"))  # closer to the target than ::1 is
    sender = datagrams(version=6)
    sender.connect(("2001:db8:1::2:2", 9))
    assert sender.getsockname()[0] != "2001:db8:1::2:1"


def test_an_alias_on_no_interface_is_refused() -> None:
    with pytest.raises(JailError, match=r"^interface ep9 does not exist$"):
        alias.add("ep9", _one("ip4", "198.51.100.30"))
    network.UNDO["alias"](["ep9", "198.51.100.30/32"])  # to take it away from there is nothing to do
