"""FreeBSD's route(8) as a shim: what jail.conf(5) of jails with vnet says, and what becomes of the kernel's table."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command, Shim
from tests.kernel.networks import run

GATEWAY = "192.0.2.1"


@pytest.fixture
def pair() -> Iterator[None]:
    """A wire, of which one end is in the jail; it goes with the other."""
    run("ip", "link", "add", "wire0", "type", "veth", "peer", "name", "wire1")
    run("ip", "address", "add", f"{GATEWAY}/24", "dev", "wire0")
    run("ip", "link", "set", "wire0", "up")
    yield
    run("ip", "link", "delete", "wire0")


@pytest.fixture
def cell(pair: None, jail: Command, small_root: Path, shim: Shim) -> Iterator[str]:
    """A jail with vnet, and with addresses on its end of the wire."""
    made = jail("-c", "name=cell", f"path={small_root}", "vnet", "vnet.interface=wire1", "persist")
    assert (made.returncode, made.stderr) == (0, "")
    for words in ("inet 192.0.2.2/24", "inet6 2001:db8::2/64", "up"):
        assert shim("ifconfig", "-j", "cell", "wire1", *words.split()).returncode == 0
    yield "cell"
    jail("-r", "cell")


def quiet(shim: Shim, words: str, said: str) -> None:
    done = shim("route", *words.split())
    assert (done.stdout, done.stderr, done.returncode) == (said, "", 0)


def refused(shim: Shim, words: str, said: str, why: str, status: int = 1) -> None:
    done = shim("route", *words.split())
    assert (done.stdout, done.stderr, done.returncode) == (said, f"route: {why}\n", status)


def table(jexec: Command, *words: str) -> list[str]:
    """The routes in the jail that no address has made, as ip(8) has them."""
    lines = jexec("cell", "ip", *words, "route").stdout.splitlines()
    return [" ".join(line.split()) for line in lines if " src " not in line and line[:4] not in ("fe80", "ff00")]


def test_a_default_route(shim: Shim, cell: str, jexec: Command) -> None:
    quiet(shim, f"-j cell add default {GATEWAY}", f"add net default: gateway {GATEWAY}\n")
    assert table(jexec) == [f"default via {GATEWAY} dev wire1"]
    again = f"add net default: gateway {GATEWAY} fib 0: route already in table\n"
    refused(shim, f"-j cell add default {GATEWAY}", again, "message indicates error: File exists")
    quiet(shim, "-j cell change default 192.0.2.3", "change net default: gateway 192.0.2.3\n")
    assert table(jexec) == ["default via 192.0.2.3 dev wire1"]
    done = shim("route", "-j", "cell", "-n", "get", "default")
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == [
        "   route to: default",
        "destination: default",
        "       mask: default",
        "    gateway: 192.0.2.3",
        "        fib: 0",
        "  interface: wire1",
        "      flags: <UP,GATEWAY,DONE,STATIC>",
        " recvpipe  sendpipe  ssthresh  rtt,msec    mtu        weight    expire",
        "       0         0         0         0      1500         1         0 ",
    ]
    quiet(shim, "-j cell delete default", "delete net default\n")
    assert table(jexec) == []
    gone = "delete net default fib 0: not in table\n"
    refused(shim, "-j cell delete default", gone, "route has not been found")
    refused(shim, "-j cell get default", "", "route has not been found")
    assert shim("route", "-j", "cell", "-q", "delete", "default").returncode == 0  # as FreeBSD's


def test_routes_to_hosts_and_networks(shim: Shim, cell: str, jexec: Command) -> None:
    quiet(shim, f"-j cell add 198.51.100.9 {GATEWAY}", f"add host 198.51.100.9: gateway {GATEWAY}\n")
    quiet(shim, f"-j cell add -net 198.51.100.0/24 {GATEWAY}", f"add net 198.51.100.0/24: gateway {GATEWAY}\n")
    quiet(shim, "-j cell add -host 203.0.113.9 -iface wire1", "add host 203.0.113.9: gateway wire1\n")
    quiet(shim, "-j cell add -host 203.0.113.1 -iface lo0", "add host 203.0.113.1: gateway lo0\n")
    quiet(shim, "-j cell add -blackhole 198.18.0.0/15 127.0.0.1", "add net 198.18.0.0/15: gateway 127.0.0.1\n")
    assert set(table(jexec)) == {
        f"198.51.100.9 via {GATEWAY} dev wire1",
        f"198.51.100.0/24 via {GATEWAY} dev wire1",
        "203.0.113.9 dev wire1 scope link",
        "203.0.113.1 dev lo scope link",
        "blackhole 198.18.0.0/15",
    }
    flags = {"198.51.100.9": "UP,GATEWAY,HOST,DONE,STATIC", "192.0.2.9": "UP,DONE,PINNED"}
    flags["198.18.0.1"] = "UP,DONE,STATIC,BLACKHOLE"
    for target, expected in flags.items():
        assert f"flags: <{expected}>\n" in shim("route", "-j", "cell", "get", target).stdout
    held = "delete net 192.0.2.0/24 fib 0: gateway uses the same route\n"
    refused(shim, "-j cell delete 192.0.2.0/24", held, "message indicates error: Address already in use")
    far = "add host 203.0.113.2: gateway 198.18.0.1 fib 0: Network is unreachable\n"
    jexec("cell", "ip", "route", "delete", "blackhole", "198.18.0.0/15")
    refused(shim, "-j cell add 203.0.113.2 198.18.0.1", far, "message indicates error: Network is unreachable")
    refused(shim, "-j cell add 203.0.113.2 -iface ep9", "", "interface 'ep9' does not exist")
    done = shim("route", "-j", "cell", "flush")
    assert (done.stderr, done.returncode) == ("", 0)
    assert sorted(done.stdout.splitlines()) == [
        f"198.51.100           {GATEWAY:<20} -fib 0   done",
        f"198.51.100.9         {GATEWAY:<20} -fib 0   done",
    ]
    assert set(table(jexec)) == {"203.0.113.9 dev wire1 scope link", "203.0.113.1 dev lo scope link"}


def test_ipv6(shim: Shim, cell: str, jexec: Command) -> None:
    quiet(shim, "-j cell -6 add default 2001:db8::1", "add net default: gateway 2001:db8::1\n")
    quiet(shim, "-j cell -6 change default 2001:db8::3", "change net default: gateway 2001:db8::3\n")
    quiet(shim, "-j cell add -inet6 2001:db8:5::/48 fe80::1%wire1",
          "add net 2001:db8:5::/48: gateway fe80::1%wire1\n")  # fmt: skip
    lines = shim("route", "-j", "cell", "-6", "get", "2001:db8:5::9").stdout.splitlines()
    assert lines[1:4] == ["destination: 2001:db8:5::", "       mask: ffff:ffff:ffff::", "    gateway: fe80::1%wire1"]
    assert "    gateway: 2001:db8::3\n" in shim("route", "-j", "cell", "-6", "get", "default").stdout
    quiet(shim, "-j cell -6 delete default", "delete net default\n")
    assert not any(line.startswith("default") for line in table(jexec, "-6"))


@pytest.mark.parametrize("network", ["ip4=inherit ip6=inherit", f"ip4.addr={GATEWAY} ng.stack=shared"])
def test_a_jail_without_a_network_of_its_own(
    network: str, pair: None, shim: Shim, jail: Command, small_root: Path
) -> None:
    before = run("ip", "route")
    made = jail("-c", "name=same", f"path={small_root}", "persist", *network.split())
    assert (made.returncode, made.stderr) == (0, "")
    for more in ("add default 192.0.2.9", "delete default", "flush", "add default gw 192.0.2.9"):
        refused(shim, f"-j same {more}", "", "writing to routing socket: Operation not permitted")
    assert jail("-r", "same").returncode == 0
    refused(shim, "-j same add default 192.0.2.9", "", 'jail "same" not found')
    assert run("ip", "route") == before


def test_linuxs_own_words_are_the_real_ones(shim: Shim, cell: str, jexec: Command, tmp_path: Path) -> None:
    """In the jail, with -j."""
    real = tmp_path / "route"
    real.write_text('#!/bin/sh\necho "real $*"; ip -o address show dev wire1 2>&1 | grep -c "inet 192.0.2.2/24"\n')
    real.chmod(0o755)
    path = f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin"
    for words in ("", "-n", "add default gw 192.0.2.9 dev wire1", "-A inet6 add default gw 2001:db8::1"):
        assert shim("route", *words.split(), path=path).stdout == f"real {words}\n0\n"
    assert shim("route", "-j", "cell", "-n", path=path).stdout == "real -n\n1\n"
    words = "add default gw 192.0.2.9"
    assert shim("route", "-j", "cell", *words.split(), path=path).stdout == f"real {words}\n1\n"
    assert table(jexec) == []


_IDIOM = """
www {
    path = "%s";
    vnet;
    vnet.interface = "wire1";
    exec.poststart = "ifconfig -j www wire1 inet 192.0.2.7/24 up; route -j www add default 192.0.2.1";
    persist;
}
"""


def test_the_idiom_of_jail_conf(pair: None, checkout: Path, small_root: Path, tmp_path: Path, jexec: Command) -> None:
    config = tmp_path / "jail.conf"
    config.write_text(_IDIOM % small_root)
    environment = {"PATH": f"{checkout}/shims:/usr/sbin:/usr/bin:/sbin:/bin"}
    jail = [str(checkout / "bin/jail"), "-f", str(config)]
    made = subprocess.run([*jail, "-c", "www"], capture_output=True, text=True, env=environment)
    try:
        assert (made.stdout, made.stderr) == (f"www: created\nadd net default: gateway {GATEWAY}\n", "")
        assert f"default via {GATEWAY} dev wire1" in jexec("www", "ip", "route").stdout
    finally:
        assert subprocess.run([*jail, "-r", "www"], env=environment).returncode == 0
