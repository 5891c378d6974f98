"""ifconfig's vnet, -vnet, -j and epair: interfaces that go to a jail's network namespace, and come back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command, Shim
from tests.kernel.networks import run


@pytest.fixture
def cell(jail: Command, small_root: Path) -> Iterator[str]:
    """A jail with a network namespace of its own and nothing in it; its jid."""
    made = jail("-i", "-c", "name=cell", f"path={small_root}", "persist")
    assert (made.returncode, made.stderr) == (0, "")
    yield made.stdout.strip()
    jail("-r", "cell")


@pytest.fixture
def pair(shim: Shim, cell: str) -> Iterator[str]:
    """A new epair's first end. It goes before the jail, with which it would."""
    made = shim("ifconfig", "epair", "create")
    assert (made.stderr, made.returncode) == ("", 0)
    name = made.stdout.strip()
    yield name
    for words in ((), ("-j", "cell")):
        if name in shim("ifconfig", *words, "-l").stdout.split():
            assert shim("ifconfig", *words, name, "destroy").returncode == 0
    assert not re.search("epair", run("ip", "link"))


def quiet(shim: Shim, *words: str) -> None:
    done = shim("ifconfig", *words)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def interfaces(shim: Shim, *words: str) -> list[str]:
    done = shim("ifconfig", *words, "-l")
    assert (done.stderr, done.returncode) == ("", 0)
    return sorted(done.stdout.split())


def test_an_epair_is_two_interfaces_with_a_wire(shim: Shim, pair: str, cell: str, jexec: Command) -> None:
    assert pair == "epair0a"
    assert interfaces(shim) == ["epair0a", "epair0b", "lo"]
    quiet(shim, "epair0b", "vnet", "cell")
    assert interfaces(shim) == ["epair0a", "lo"]
    assert "epair0b" in interfaces(shim, "-j", "cell")
    quiet(shim, "epair0a", "inet", "192.0.2.1/24", "alias")
    quiet(shim, "epair0a", "up")
    quiet(shim, "-j", "cell", "epair0b", "inet", "192.0.2.2/24", "alias")
    quiet(shim, "-j", cell, "epair0b", "up")
    assert "\tinet 192.0.2.2 netmask 0xffffff00 " in shim("ifconfig", "-j", "cell", "epair0b").stdout
    assert "1 packets received" in run("ping", "-c", "1", "-W", "10", "192.0.2.2").replace(
        " received", " packets received"
    )
    quiet(shim, "epair0b", "-vnet", "cell")
    assert interfaces(shim) == ["epair0a", "epair0b", "lo"]
    assert "epair0b" not in interfaces(shim, "-j", "cell")
    assert "192.0.2.2" not in shim("ifconfig", "epair0b").stdout  # an address stays where it was given


def test_units_of_epairs(shim: Shim, pair: str) -> None:
    assert shim("ifconfig", "epair", "create", "up").stdout == "epair1a\n"
    assert "UP," in shim("ifconfig", "epair1a").stdout
    assert shim("ifconfig", "epair7", "create").stdout == "epair7a\n"
    taken = shim("ifconfig", "epair7", "create")
    assert (taken.stdout, taken.stderr) == ("", "ifconfig: SIOCIFCREATE2 (epair7): File exists\n")
    quiet(shim, "epair0b", "destroy")
    assert interfaces(shim) == ["epair1a", "epair1b", "epair7a", "epair7b", "lo"]
    assert shim("ifconfig", "epair", "plumb").stdout == "epair0a\n"
    for name in ("epair1a", "epair7b"):
        quiet(shim, name, "unplumb")
    assert interfaces(shim) == ["epair0a", "epair0b", "lo"]


def test_an_interface_by_the_jails_number(shim: Shim, pair: str, cell: str) -> None:
    quiet(shim, "epair0a", "vnet", cell)
    quiet(shim, "epair0a", "-vnet", cell)
    assert "epair0a" in interfaces(shim)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("ep9", "vnet", "cell"), "interface ep9 does not exist"),
        (("lo", "vnet", "cell"), "SIOCSIFVNET: Invalid argument"),
        (("epair0a", "vnet", "nowhere"), 'jail "nowhere" not found'),
        (("epair0a", "vnet", "no\x1bwhere"), 'jail "no\\x1bwhere" not found'),
        (("epair0a", "vnet", "999999"), "SIOCSIFVNET: Device not configured"),
        (("epair0a", "-vnet", "nowhere"), 'jail "nowhere" not found'),
        (("epair0a", "-vnet", "999999"), "SIOCSIFRVNET: Device not configured"),
        (("epair0a", "-vnet", "cell"), "SIOCSIFRVNET: Device not configured"),
        (("ep9", "destroy"), "interface ep9 does not exist"),
        (("lo", "destroy"), "SIOCIFDESTROY: Invalid argument"),
        (("-j", "nowhere", "epair0a", "up"), 'jail "nowhere" not found'),
        (("-j", "999999", "-l"), "jail_attach(999999): Invalid argument"),
        (("-j", "cell", "ep9", "up"), "interface ep9 does not exist"),
    ],
)
def test_complaints(shim: Shim, pair: str, words: tuple[str, ...], complaint: str) -> None:
    done = shim("ifconfig", *words)
    assert (done.stdout, done.stderr, done.returncode) == ("", f"ifconfig: {complaint}\n", 1)
    assert {"epair0a", "epair0b"} <= set(interfaces(shim))


def test_one_of_that_name_is_there_already(shim: Shim, pair: str, cell: str) -> None:
    quiet(shim, "epair0b", "vnet", "cell")
    quiet(shim, "-j", "cell", "epair0b", "up")
    run("ip", "link", "add", "epair0b", "type", "veth", "peer", "name", "other")
    try:
        done = shim("ifconfig", "epair0b", "vnet", "cell")
        assert done.stderr == "ifconfig: SIOCSIFVNET: File exists\n"
        done = shim("ifconfig", "epair0b", "-vnet", "cell")
        assert done.stderr == "ifconfig: SIOCSIFRVNET: File exists\n"
    finally:
        run("ip", "link", "delete", "other")


def test_a_jail_that_shares_the_hosts_network(shim: Shim, jail: Command, small_root: Path) -> None:
    words = ("name=same", f"path={small_root}", "persist", "ip4=inherit", "ip6=inherit")
    assert jail("-c", *words).returncode == 0
    assert shim("ifconfig", "lo", "vnet", "same").stderr == "ifconfig: SIOCSIFVNET: File exists\n"
    assert shim("ifconfig", "lo", "-vnet", "same").stderr == "ifconfig: SIOCSIFRVNET: File exists\n"
    assert interfaces(shim, "-j", "same") == interfaces(shim)
    assert jail("-r", "same").returncode == 0


def test_what_is_not_understood_is_the_real_ones_in_the_jail(shim: Shim, pair: str, cell: str) -> None:
    quiet(shim, "epair0b", "vnet", "cell")
    quiet(shim, "-j", "cell", "epair0b", "mtu", "1400")
    assert " mtu 1400\n" in shim("ifconfig", "-j", "cell", "epair0b").stdout
    assert "mtu 1400" not in run("ip", "link")
