"""Proxies of ARP that are of no interface, which the kernel hands on to another stack."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jailng.core import connection, registry
from jailng.linux import ns
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink
from jailng.linux.visit import InNamespace
from tests.kernel.conftest import Command
from tests.kernel.networks import ip

_OURS = {socket.inet_aton("198.51.100.7"), socket.inet_aton("198.51.100.8")}


def _make() -> None:
    with Netlink() as netlink:
        netlink.batch([rt.new_proxy(0, address, 0) for address in _OURS])


def _there() -> set[bytes]:
    with Netlink() as netlink:
        return {rt.proxied(body)[1] for _, body in netlink.ask(rt.get_proxies(4))}


@contextmanager
def _stack_of(name: str) -> Iterator[int]:
    """The network namespace of that jail, held open."""
    record = registry.find(name)
    assert record is not None
    fd = os.open(f"/proc/{record.init.split()[0]}/ns/net", os.O_RDONLY)
    try:
        yield fd
    finally:
        with InNamespace(fd, ns.CLONE_NEWNET), Netlink() as netlink:  # whatever became of it, the next test gets none
            netlink.batch([rt.delete_proxy(0, address) for address in _OURS], ignored=(errno.ENOENT,))
        os.close(fd)


def test_a_new_stack_is_without_those_of_an_old_one(jail: Command, small_root: Path) -> None:
    made = jail("-c", "name=v", f"path={small_root}", "vnet", "persist")
    assert (made.stderr, made.returncode) == ("", 0)
    with _stack_of("v") as stack:
        with InNamespace(stack, ns.CLONE_NEWNET):
            _make()
            assert _there() == _OURS
            connection.own_loopback(7).configure()  # type: ignore[attr-defined]
            assert _there() == set()
        assert jail("-r", "v").returncode == 0


@pytest.mark.parametrize("lent", [False, True])
def test_they_go_with_the_jail(jail: Command, small_root: Path, lent: bool) -> None:
    words = ["vnet.interface=epair0b"] if lent else []
    if lent:
        ip("link add epair0a type veth peer name epair0b")
    try:
        made = jail("-c", "name=v", f"path={small_root}", "vnet", *words, "persist")
        assert (made.stderr, made.returncode) == ("", 0)
        with _stack_of("v") as stack:
            with InNamespace(stack, ns.CLONE_NEWNET):
                _make()
            assert jail("-r", "v").returncode == 0
            with InNamespace(stack, ns.CLONE_NEWNET):
                assert _there() == set()
    finally:
        if lent:
            ip("link delete epair0a")
