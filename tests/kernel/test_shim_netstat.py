"""The shim ``netstat``: routes and interfaces, by the formats of FreeBSD's, and JSON as libxo has it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command, Shim, standing
from tests.kernel.networks import Namespace, attach, ip, run

ETHER = "00:50:04:cc:3e:cc"
_HEAD = "Destination        Gateway            Flags     Netif Expire"
_HEAD6 = "Destination                       Gateway                       Flags     Netif Expire"


@pytest.fixture
def ogoun() -> Iterator[Namespace]:
    """The article's host, 10.0.0.75 on ep0, with ways to elsewhere."""
    with attach("ep0", ("10.0.0.75/24", "2001:db8:1::75/64"), ("10.0.0.33/24", "2001:db8:1::33/64")) as made:
        ip(f"link set ep0 address {ETHER}")
        ip("route add default via 10.0.0.33", "route add ::/0 via 2001:db8:1::33")
        ip("route add 203.0.113.0/24 via 10.0.0.34", "route add blackhole 198.51.100.0/24")
        ip("route add unreachable 192.0.2.9", "route add 192.0.2.128/25 dev ep0")
        ip("route add 198.18.0.0/15 nexthop via 10.0.0.33 nexthop via 10.0.0.34")
        yield made
        for to in ("198.51.100.0/24", "192.0.2.9"):
            ip(f"route delete {to}")


def number(interface: str) -> int:
    return int(run("ip", "-o", "link", "show", "dev", interface).split(":")[0])


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.splitlines()


def test_routes(shim: Shim, ogoun: Namespace) -> None:
    link, loopback = f"link#{number('ep0')}", f"link#{number('lo')}"

    def line(to: str, through: str, flags: str, name: str) -> str:
        return f"{to:<18} {through:<18} {flags:<6} {name:>8}"

    expected = [
        "Routing tables",
        "",
        "Internet:",
        _HEAD,
        line("default", "10.0.0.33", "UGS", "ep0"),
        line("10.0.0.0/24", link, "U", "ep0"),
        line("10.0.0.75", link, "UHS", "lo"),
        line("127.0.0.1", loopback, "UH", "lo"),
        line("192.0.2.9", "link#0", "UHRS", "---"),
        line("192.0.2.128/25", link, "US", "ep0"),
        line("198.18.0.0/15", "10.0.0.33", "UGS", "ep0"),
        line("198.18.0.0/15", "10.0.0.34", "UGS", "ep0"),
        line("198.51.100.0/24", "link#0", "USB", "---"),
        line("203.0.113.0/24", "10.0.0.34", "UGS", "ep0"),
    ]
    assert said(shim("netstat", "-rn", "-f", "inet")) == expected
    for words in (["-4rn"], ["-nr4"], ["-r4"], ["-rn", "-finet", "-F", "0"]):
        assert said(shim("netstat", *words)) == expected
    everything = said(shim("netstat", "-rn"))
    assert everything[: len(expected)] == expected
    assert everything[len(expected) : len(expected) + 3] == ["", "Internet6:", _HEAD6]
    until = time.monotonic() + 30
    while (six := said(shim("netstat", "-6rn"))[1:]) and not any("fe80::%ep0/64 " in line for line in six):
        assert time.monotonic() < until, six  # the kernel makes it, some time after the interface is up
    assert six[:3] == ["", "Internet6:", _HEAD6]
    assert f"{'default':<33} {'2001:db8:1::33':<29} {'UGS':<6} {'ep0':>8}" in six
    assert f"{'2001:db8:1::/64':<33} {link:<29} {'U':<6} {'ep0':>8}" in six
    assert f"{'fe80::%ep0/64':<33} {link:<29} {'U':<6} {'ep0':>8}" in six
    assert f"{'2001:db8:1::75':<33} {link:<29} {'UHS':<6} {'lo':>8}" in six
    done = shim("netstat", "-rn", "-F", "1")
    assert (done.stdout, done.stderr, done.returncode) == ("", "netstat: 1: invalid fib\n", 64)


def test_what_bastille_asks_for(shim: Shim, ogoun: Namespace, checkout: Path) -> None:
    script = """
        netstat -4rn | awk '/default/ {print $2}'
        netstat -6rn | awk '/default/ {print $2}'
        netstat -rn | awk '/default/ {print $4}' | head -n1
    """
    environment = {"PATH": f"{checkout}/shims:/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, env=environment)
    assert (done.stdout.split(), done.stderr) == (["10.0.0.33", "2001:db8:1::33", "ep0"], "")


def test_a_long_name_is_not_cut(shim: Shim, ogoun: Namespace) -> None:
    """FreeBSD cuts it to eight places; of Linux's names many are longer, and scripts take them from here."""
    ip("link add wlp0s20f3u1a type bridge", "address add 192.0.2.65/26 dev wlp0s20f3u1a", "link set wlp0s20f3u1a up")
    try:
        (found,) = [line for line in said(shim("netstat", "-4rn")) if line.startswith("192.0.2.64/26 ")]
        assert found.split()[2:] == ["U", "wlp0s20f3u1a"]
    finally:
        ip("link delete wlp0s20f3u1a")


def test_routes_as_json(shim: Shim, ogoun: Namespace) -> None:
    done = shim("netstat", "-rn", "--libxo", "json")
    assert (done.stderr, done.returncode, done.stdout.count("\n")) == ("", 0, 1)
    told = json.loads(done.stdout)
    assert told["__version"] == "1"
    families = told["statistics"]["route-information"]["route-table"]["rt-family"]
    assert [family["address-family"] for family in families] == ["Internet", "Internet6"]
    assert families[0]["rt-entry"][0] == {
        "destination": "default",
        "gateway": "10.0.0.33",
        "flags": "UGS",
        "flags_pretty": ["up", "gateway", "static"],
        "interface-name": "ep0",
    }
    for words in (["--libxo=json", "-rn"], ["--libxo:J", "-nr"], ["-r", "--libxo", "json,pretty"]):
        again = json.loads(shim("netstat", *words).stdout)["statistics"]["route-information"]["route-table"]
        assert again["rt-family"][0] == families[0]  # of IPv6 the kernel still makes some


def test_interfaces(shim: Shim, ogoun: Namespace) -> None:
    ip("link add ep7 type bridge")
    try:
        lines = said(shim("netstat", "-in"))
        assert lines[0].split() == "Name Mtu Network Address Ipkts Ierrs Idrop Opkts Oerrs Coll".split()
        rows = [line.split() for line in lines[1:]]
        link = f"<Link#{number('ep0')}>"
        ((name, mtu, *counted),) = [row for row in rows if row[2] == link]
        assert (name, mtu, counted[1]) == ("ep0", "1500", ETHER)
        assert [cell.isdigit() for cell in counted[2:]] == [True] * 6
        assert ["ep0", "-", "10.0.0.0/24", "10.0.0.75", *"------"] in rows
        assert ["ep0", "-", "2001:db8:1::/64", "2001:db8:1::75", *"------"] in rows
        assert [row[:2] for row in rows if row[0].startswith("ep7")] == [["ep7*", "1500"]]  # it is down
        # Right under their headings, and as wide as what is in them.
        assert lines[0].startswith("Name    Mtu Network ")
        for line in lines[1:]:
            assert line[: len(lines[0])].rstrip() == line
        only = said(shim("netstat", "-I", "ep0", "-b", "-f", "link"))
        assert only[0].split() == "Name Mtu Network Address Ipkts Ierrs Idrop Ibytes Opkts Oerrs Obytes Coll".split()
        assert [row.split()[0] for row in only[1:]] == ["ep0"]
        assert said(shim("netstat", "-Ilo0", "-nf", "inet"))[1].split()[2:4] == ["127.0.0.0/8", "127.0.0.1"]
    finally:
        ip("link delete ep7")


def test_interfaces_as_json(shim: Shim, ogoun: Namespace) -> None:
    done = shim("netstat", "-i", "-b", "--libxo", "json")
    assert done.stderr == ""
    told = json.loads(done.stdout)["statistics"]["interface"]
    link, four = [one for one in told if one["name"] == "ep0"][:2]
    numbers = "mtu received-packets received-errors dropped-packets received-bytes sent-packets send-errors sent-bytes"
    assert {name: type(link[name]) for name in numbers.split()} == dict.fromkeys(numbers.split(), int)
    assert (link["address"], link["network"], link["flags"]) == (ETHER, f"<Link#{number('ep0')}>", "0x8843")
    assert four == {"name": "ep0", "flags": "0x8843", "network": "10.0.0.0/24", "address": "10.0.0.75"}


def test_of_a_jail(shim: Shim, ogoun: Namespace, jail: Command, small_root: Path) -> None:
    ip("address add 10.0.0.76/24 dev ep0")
    with standing(jail, small_root, "ip4.addr=10.0.0.76", "exec.start=httpd -p 10.0.0.76:80") as name:
        for words in (["-j", name, "-rn"], ["-rnj", name], [f"-j{name}", "-nr"]):
            assert [line.split()[0] for line in said(shim("netstat", *words)) if " UHS " in line] == ["10.0.0.76"]
        assert [line.split()[3] for line in said(shim("netstat", "-j", name, "-4i"))[1:]] == ["127.0.0.1", "10.0.0.76"]
        told = json.loads(shim("netstat", "-j", name, "-an", "-p", "tcp", "--libxo", "json").stdout)
        assert told["statistics"]["socket"] == [
            {
                "protocol": "tcp4",
                "receive-bytes-waiting": 0,
                "send-bytes-waiting": 0,
                "local": {"address": "10.0.0.76", "port": "80"},
                "remote": {"address": "*", "port": "*"},
                "tcp-state": "LISTEN",
            }
        ]
    for flags in ("-rn", "-in"):
        done = shim("netstat", "-j", "nowhere", flags)
        assert (done.stdout, done.stderr, done.returncode) == ("", 'netstat: jail "nowhere" not found\n', 1)


def test_libxo_where_it_cannot_be(shim: Shim) -> None:
    done = shim("netstat", "-s", "--libxo", "json")
    assert done.stdout == "" and done.returncode == 1
    assert done.stderr.startswith("netstat: --libxo: not honoured with these options\nusage: netstat ")
    done = shim("netstat", "-rn", "--libxo", "xml")
    assert (done.stderr, done.returncode) == ("netstat: --libxo xml: not honoured, only json is\n", 1)
