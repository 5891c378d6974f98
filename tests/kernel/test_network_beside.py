"""Jails beside other people's firewalls: nothing of theirs changes, and what they let through goes on to pass."""

from __future__ import annotations

import json
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace, attach, counter, ip, reaches, run, set_switch, switch
from tests.kernel.test_doctor import Doctor

JAIL = "198.51.100.10"
_BRIDGED = "bridge/bridge-nf-call-iptables"
# As Docker 27 leaves iptables(8), with one container that has a port published.
DOCKER = """
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 198.18.17.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 198.18.17.0/24 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 198.18.17.2:80
COMMIT
"""
# libvirt's, of its network "default", in its own table since libvirt 10.4.
LIBVIRT = """
table ip libvirt_network {
    chain forward {
        type filter hook forward priority filter; policy accept;
        counter jump guest_cross
        counter jump guest_input
        counter jump guest_output
    }
    chain guest_output {
        ip saddr 198.18.122.0/24 iif "ep2" counter accept
        iif "ep2" counter reject
    }
    chain guest_input {
        oif "ep2" ip daddr 198.18.122.0/24 ct state established,related counter accept
        oif "ep2" counter reject
    }
    chain guest_cross {
        iif "ep2" oif "ep2" counter accept
    }
    chain guest_nat {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 198.18.122.0/24 ip daddr != 198.18.122.0/24 counter masquerade
    }
}
"""
# An administrator's, who lets in what he knows and forwards nothing.
OWN = """
table inet filter {
    set lan { type ipv4_addr; flags interval; elements = { 198.51.100.0/24 } }
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iif "lo" accept
        ip saddr @lan tcp dport { 22, 80 } counter accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
    }
    chain output { type filter hook output priority filter; policy accept; }
}
"""


@pytest.fixture
def lan() -> Iterator[Namespace]:
    with attach("ep0", ("198.51.100.1/24", "2001:db8:1::1/64"), ("198.51.100.2/24", "2001:db8:1::2/64")) as made:
        ip(f"address add {JAIL}/24 dev ep0", "route add default via 198.51.100.2")
        yield made


@pytest.fixture
def container(lan: Namespace) -> Iterator[Namespace]:
    """A container of Docker's, on its bridge."""
    if shutil.which("iptables-restore") is None:
        pytest.skip("needs iptables(8)")
    with attach("docker0", ("198.18.17.1/24", "2001:db8:17::1/64"), ("198.18.17.2/24", "2001:db8:17::2/64")) as made:
        with made.entered():
            ip("route add default via 198.18.17.1")
        with loaded("iptables-restore", DOCKER):
            set_switch("ipv4/ip_forward", "1")
            yield made
            set_switch("ipv4/ip_forward", "0")


@contextmanager
def loaded(program: str, text: str) -> Iterator[None]:
    """A ruleset, as long as that lasts; jails have been there and are gone."""
    subprocess.run([program, *(["-f", "-"] if program == "nft" else [])], input=text, text=True, check=True)
    yield
    run("nft", "flush", "ruleset")


def _ruleset() -> str:
    return run("nft", "-s", "list", "ruleset")


@contextmanager
def serving(jail: Command, root: Path, name: str = "web") -> Iterator[None]:
    serve = "sh -c 'nc -ll -p 80 -e hostname </dev/null >/dev/null 2>&1 & until netstat -ltn | grep -q :80; do :; done'"
    words = (f"path={root}", f"host.hostname={name}", f"ip4.addr={JAIL}", f"exec.start={serve}", "persist")
    done = jail("-c", f"name={name}", *words)
    assert (done.returncode, done.stderr) == (0, "")
    yield
    assert jail("-r", name).returncode == 0


def test_docker(container: Namespace, lan: Namespace, jail: Command, small_root: Path, checkout: Path) -> None:
    """Its containers stay reachable, its rules as they were; it drops what is not its own, and doctor knows the way."""
    before, doctor = _ruleset(), Doctor(checkout)
    listener = container.listen("198.18.17.2")

    def container_is_reached() -> None:
        with lan.connect("198.51.100.1", 8080) as caller:
            served, (seen, *_) = listener.accept()
            assert seen == "198.51.100.2"
            served.close()
            assert caller.recv(1) == b""

    container_is_reached()
    with serving(jail, small_root):
        container_is_reached()
        assert not reaches(lan, JAIL, 80)
        (found,) = doctor.findings("forward")
        assert "by chain FORWARD of table ip filter, whose policy is drop" in found["what"]
        assert found["remedy"] == [f"iptables -I DOCKER-USER -{way} jng+ -j ACCEPT" for way in ("i", "o")]
        doctor.mend(found)
        assert doctor.findings("forward", 0) == []
        assert lan.said(JAIL) == "web"
        container_is_reached()
        for way in ("i", "o"):
            run("iptables", "-D", "DOCKER-USER", f"-{way}", "jng+", "-j", "ACCEPT")
    container_is_reached()
    listener.close()
    assert _ruleset() == before
    assert switch("ipv4/ip_forward") == "1"


def test_docker_that_comes_later(lan: Namespace, jail: Command, small_root: Path) -> None:
    """It switches on forwarding, and who is then led on by it, or begins something, is not the guard's business."""
    if shutil.which("iptables-restore") is None:
        pytest.skip("needs iptables(8)")
    with (
        serving(jail, small_root),
        attach("docker0", ("198.18.17.1/24", "2001:db8:17::1/64"), ("198.18.17.2/24", "2001:db8:17::2/64")) as made,
    ):
        with made.entered():
            ip("route add default via 198.18.17.1")
        ours = run("nft", "list", "table", "inet", "jailng")
        subprocess.run(["iptables-restore"], input=DOCKER, text=True, check=True)
        set_switch("ipv4/ip_forward", "1")
        for listener, caller in (
            (made.listen("198.18.17.2"), lan.connect("198.51.100.1", 8080)),
            (lan.listen("198.51.100.2"), made.connect("198.51.100.2")),
        ):
            served, _ = listener.accept()
            with listener, caller, served:
                served.sendall(b"here")
                assert caller.recv(4) == b"here"
        assert "@guarded" in ours
        set_switch("ipv4/ip_forward", "0")
        for table in ("filter", "nat"):
            run("iptables", "-t", table, "-F")
            run("nft", "delete", "table", "ip", table)


def test_what_a_bridge_of_the_hosts_hands_on(jail: Command, small_root: Path) -> None:
    """With br_netfilter it comes to the hooks of routing. What the host would have to route is still not for others."""
    if not Path("/proc/sys/net/bridge").exists():
        pytest.skip("needs br_netfilter")
    before = switch(_BRIDGED)
    with (
        attach("port1", (), ("198.51.100.2/24", "2001:db8:1::2/64")) as one,
        attach("port2", (), ("198.51.100.3/24", "2001:db8:1::3/64")) as two,
    ):
        ip("link add br0 type bridge", "link set br0 up", f"address add {JAIL}/24 dev br0")
        ip("address add 198.51.100.1/24 dev br0", *[f"link set port{number} master br0" for number in (1, 2)])
        set_switch(_BRIDGED, "1")
        try:
            with serving(jail, small_root):
                assert one.said(JAIL) == "web"
                listener = two.listen("198.51.100.3")
                with one.connect("198.51.100.3") as caller:
                    served, _ = listener.accept()
                    with served, listener:
                        served.sendall(b"here")
                        assert caller.recv(4) == b"here"
                dropped = counter("unrouted")
                elsewhere = two.datagrams("198.51.100.3", 9)
                with one.entered():
                    ip("route add 198.51.100.3/32 via 198.51.100.1")
                one.datagrams().sendto(b"by way of the host", ("198.51.100.3", 9))
                assert counter("unrouted") > dropped  # sendto(2) returns when the packet has been all the way
                assert not select.select([elsewhere], [], [], 0)[0]
        finally:
            set_switch(_BRIDGED, before)
            ip("link delete br0")


@pytest.mark.parametrize("text", [LIBVIRT, OWN], ids=["libvirt", "own"])
def test_others_rules_are_as_they_were(
    lan: Namespace, jail: Command, small_root: Path, text: str, checkout: Path
) -> None:
    with (
        attach("ep2", ("198.18.122.1/24", "2001:db8:122::1/64"), ("198.18.122.2/24", "2001:db8:122::2/64")),
        loaded("nft", text),
    ):
        before, others = _ruleset(), run("nft", "list", "ruleset")
        with serving(jail, small_root):
            during = _ruleset()
            assert during.partition("table inet jailng {")[0].strip() == before.strip()
            doctor = Doctor(checkout)
            if text is OWN:
                (found,) = doctor.findings("forward")
                doctor.mend(found)
            assert lan.said(JAIL) == "web"
            if text is OWN:
                for rule in json.loads(run("nft", "-a", "-j", "list", "chain", "inet", "filter", "forward"))[
                    "nftables"
                ]:
                    if "jng*" in str(rule):
                        run("nft", "delete", "rule", "inet", "filter", "forward", "handle", str(rule["rule"]["handle"]))
        assert _ruleset() == before
        if text is OWN:
            assert run("nft", "list", "ruleset") == others  # no packet that its rules count has come


def test_whoever_forbids_a_jail_is_obeyed(lan: Namespace, jail: Command, small_root: Path) -> None:
    """Our table lets pass what it has no word against; it does not overrule anybody."""
    forbids = 'type filter hook forward priority 10; oifname "jng*" tcp dport 80 drop;'
    rules = f"table inet admin {{ chain forward {{ {forbids} }}; }}"
    with serving(jail, small_root):
        assert lan.said(JAIL) == "web"
        with loaded("nft", rules):
            assert not reaches(lan, JAIL, 80)
