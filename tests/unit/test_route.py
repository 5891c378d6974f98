"""The words of route(8): which are FreeBSD's, what they name, and which are left to the host's own."""

from __future__ import annotations

import ipaddress

import pytest

from jailng.ctl import destination, route
from jailng.errors import JailError, UsageError
from jailng.linux import rtnetlink as rt
from jailng.linux.routes import Route


def said(words: str, family: int = rt.AF_INET) -> str:
    """Whether it is a host, and the network."""
    command = route.parse(words.split(), family)
    made = route._route(command)
    return f"{'host' if command.is_host else 'net'} {ipaddress.ip_address(made.target)}/{made.bits}"


@pytest.mark.parametrize(
    ("words", "network"),
    [
        ("add default 192.0.2.1", "net 0.0.0.0/0"),
        ("add 0 192.0.2.1", "net 0.0.0.0/0"),
        ("add 0.0.0.0 192.0.2.1", "net 0.0.0.0/0"),
        ("add 198.51.100.9 192.0.2.1", "host 198.51.100.9/32"),
        ("add 198.51.100.0 192.0.2.1", "net 198.51.100.0/24"),
        ("add -host 198.51.100.0 192.0.2.1", "host 198.51.100.0/32"),
        ("add 198.51.100.0/22 192.0.2.1", "net 198.51.100.0/22"),
        ("add 198.51.101.9/22 192.0.2.1", "net 198.51.100.0/22"),
        ("add 198.51.100.9/32 192.0.2.1", "net 198.51.100.9/32"),
        ("add 198.51.100.9 -prefixlen 32 192.0.2.1", "host 198.51.100.9/32"),
        ("add 198.51.100.0/0 192.0.2.1", "net 198.51.100.0/24"),
        ("add 198.51.100.0/x 192.0.2.1", "net 198.51.100.0/24"),
        ("add 127.0.0.0 192.0.2.1", "net 127.0.0.0/8"),
        ("add 127.1.0.0 192.0.2.1", "host 127.1.0.0/32"),
        ("add 128.1.0.0 192.0.2.1", "net 128.1.0.0/16"),
        ("add 191.1.2.0 192.0.2.1", "host 191.1.2.0/32"),
        ("add 192.1.2.0 192.0.2.1", "net 192.1.2.0/24"),
        ("add 0x0a000001 192.0.2.1", "host 10.0.0.1/32"),
        ("add -net 0x0a.1 192.0.2.1", "net 10.1.0.0/16"),
        ("add -net 10 192.0.2.1", "net 10.0.0.0/8"),
        ("add -net 172.16 192.0.2.1", "net 172.16.0.0/16"),
        ("add -net 198.51.100.0 192.0.2.1 255.255.255.128", "net 198.51.100.0/25"),
        ("add -net 198.51.100.0 -netmask 0xffffff80 192.0.2.1", "net 198.51.100.0/25"),
        ("add 198.51.100.9 -prefixlen 25 192.0.2.1", "net 198.51.100.0/25"),
        ("add -dst 198.51.100.9 -gateway 192.0.2.1 -static", "host 198.51.100.9/32"),
        ("add -inet6 default 2001:db8::1", "net ::/0"),
        ("add -6 2001:db8:1::/48 fe80::1", "net 2001:db8:1::/48"),
        ("add -6 2001:db8:1:: 2001:db8::1", "net 2001:db8:1::/64"),
        ("add -6 :: 2001:db8::1", "net ::/0"),
        ("add -6 fd00:: 2001:db8::1", "host fd00::/128"),
        ("add -6 2001:db8:1::/127 2001:db8::1", "net 2001:db8:1::/127"),
        ("add -6 2001:db8:1::/128 2001:db8::1", "host 2001:db8:1::/128"),
        ("add -6 2001:db8:1::9 2001:db8::1", "host 2001:db8:1::9/128"),
        ("add -6 -prefixlen 32 2001:db8:1::9 2001:db8::1", "net 2001:db8::/32"),
        ("del default", "net 0.0.0.0/0"),
        ("get 198.51.100.9", "host 198.51.100.9/32"),
    ],
)
def test_destinations(words: str, network: str) -> None:
    assert said(words) == network


@pytest.mark.parametrize(
    "words",
    [
        "add default gw 192.0.2.1", "add default gw 192.0.2.1 dev eth0", "add default eth0", "add default eth0:1",
        "add -net 198.51.100.0 netmask 255.255.255.0 dev eth0", "add -net 198.51.100.0/24 eth0",
        "add -host 198.51.100.9 reject", "del default metric 100", "del -net 198.51.100.0 netmask 255.255.255.0",
        "del default gw 192.0.2.1", "add -A inet6 default gw 2001:db8::1", "add -6 default gw 2001:db8::1",
        "add -6 2001:db8::/64 eth0", "add host.example 192.0.2.1", "add default 192.0.2.1 -mtu",
    ],
)  # fmt: skip
def test_what_is_linuxs_own_is_left_to_it(words: str) -> None:
    with pytest.raises(UsageError):
        route.parse(words.split())


@pytest.mark.parametrize("words", ["", "-n", "-A inet6", "-6", "--help", "-e", "monitor", "flush -C"])
def test_what_is_no_command_of_freebsds(words: str) -> None:
    with pytest.raises(UsageError):
        route.answer(words.split(), None)


@pytest.mark.parametrize(
    ("words", "complaint", "status"),
    [
        ("add default 2001:db8::1", "bad address: 2001:db8::1", 68),
        ("add 2001:db8::/32 192.0.2.1", "bad address: 2001:db8::/32", 68),
        ("add default 192.0.2.256", "bad address: 192.0.2.256", 68),
        ("add 198.51.100.0/33 192.0.2.1", "bad address: 198.51.100.0/33", 68),
        ("add 198.51.100.0 192.0.2.1 255.0.255.0", "bad address: 255.0.255.0", 68),
        ("add -6 default 192.0.2.1", "192.0.2.1: Name does not resolve", 1),
        ("add -6 2001:db8::/129 2001:db8::1", "129: bad value", 1),
        ("add -prefixlen " + "9" * 5000 + " 198.51.100.9 192.0.2.1", "9" * 5000 + ": bad value", 1),
        ("add -prefixlen 33 198.51.100.9 192.0.2.1", "33: bad value", 1),
        ("add -net 198.51.100.0 -netmask 255.255.255.256 192.0.2.1", "bad address: 255.255.255.256", 68),
        ("add -net 256 192.0.2.1", "bad address: 256", 68),
        ("add -fib 1 default 192.0.2.1", "invalid fib number: 1", 64),
    ],
)
def test_bad_addresses(words: str, complaint: str, status: int) -> None:
    with pytest.raises(JailError) as caught:
        route.parse(words.split())
    assert (str(caught.value), caught.value.status) == (complaint, status)


def test_gateways() -> None:
    assert route.parse(["add", "default", "192.0.2.1"]).gateway == bytes([192, 0, 2, 1])
    through = route.parse(["add", "default", "-interface", "epair0b"])
    assert (through.gateway, through.interface, through.through) == (b"", "epair0b", "epair0b")
    link = route.parse(["add", "-6", "default", "fe80::1%epair0b"])
    assert (link.gateway[:2], link.interface, link.through) == (b"\xfe\x80", "epair0b", "fe80::1%epair0b")


def test_networks_are_named_without_their_zeros() -> None:
    for text, prefix, name in (("198.51.100.0", 24, "198.51.100"), ("10.0.0.0", 8, "10"), ("0.0.0.0", 0, "default"),
                               ("198.51.100.0", 32, "198.51.100.0"), ("2001:db8::", 32, "2001:db8::")):  # fmt: skip
        assert destination.network(ipaddress.ip_address(text).packed, prefix) == name


def test_a_route_is_read_as_it_is_written() -> None:
    made = Route(bytes([198, 51, 100, 0]), 24, bytes([192, 0, 2, 1]), 7, mtu=1400)
    made.priority = 100
    _, _, body = made.added()
    read = Route.read(body)
    for name in Route.__slots__:
        assert getattr(read, name) == getattr(made, name), name
