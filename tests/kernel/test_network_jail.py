"""The network of a jail that jail(8) makes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.core import firewall, network, readdress, registry
from jailng.engine import modify
from jailng.params.model import Parameters
from tests.kernel.conftest import Command
from tests.kernel.networks import (
    Departures,
    Namespace,
    attach,
    host_addresses,
    ip,
    run,
    server,
    set_switch,
    settle,
    switch,
)
from tests.kernel.stage import Stage

_SERVE = """#!/bin/sh
nc -ll -p 80 -e echo jail </dev/null >/dev/null 2>&1 &
until netstat -ltn | grep -q :80; do :; done
"""


@pytest.fixture
def lan() -> Iterator[Namespace]:
    with attach("ep0", ("198.51.100.1/24", "2001:db8:1::1/64"), ("198.51.100.2/24", "2001:db8:1::2/64")) as made:
        ip("address add 198.51.100.10/24 broadcast + dev ep0", "address add 2001:db8:1::10/64 dev ep0 nodad")
        yield made


def test_jail_runs_with_its_address_and_leaves_nothing(lan: Namespace, jail: Command, small_root: Path) -> None:
    settle("ep0")
    before = host_addresses()
    words = ("ip4.addr=198.51.100.10", "ip6.addr=2001:db8:1::10", "command=/bin/busybox", "ip", "address")
    done = jail("-c", f"path={small_root}", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "inet 198.51.100.10/24 brd 198.51.100.255 scope global" in done.stdout
    assert "inet6 2001:db8:1::10/64 scope global" in done.stdout
    assert host_addresses() == before
    assert "jailng" not in run("nft", "list", "ruleset")


def test_a_host_that_has_ipv6_off_for_interfaces_to_come(lan: Namespace, jail: Command, small_root: Path) -> None:
    set_switch("ipv6/conf/default/disable_ipv6", "1")
    words = ("ip6.addr=2001:db8:1::10", "command=/bin/busybox", "ping", "-c1", "-W5", "2001:db8:1::2")
    done = jail("-c", f"path={small_root}", "allow.raw_sockets", *words)
    set_switch("ipv6/conf/default/disable_ipv6", "0")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(firewall.can_forward_one(), reason="from Linux 6.17 on IPv6 is forwarded for one interface")
def test_a_kernel_that_forwards_ipv6_for_all_or_none(lan: Namespace, jail: Command, small_root: Path) -> None:
    """Whether the host's interfaces go on taking router advertisements is the administrator's to decide, once."""
    set_switch("ipv6/conf/ep0/accept_ra", "1")  # the kernel's default
    words = ("ip4.addr=198.51.100.10", "ip6.addr=2001:db8:1::10", "command=/bin/busybox", "ip", "address")
    done = jail("-c", f"path={small_root}", *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "jail: ip6.addr: this kernel forwards IPv6 for all interfaces or none (Linux 6.17 can for one), and then ep0 "
        "would no longer take router advertisements: set net.ipv6.conf.ep0.accept_ra to 2, or to 0 where none are "
        "expected\n"
    )
    set_switch("ipv6/conf/ep0/accept_ra", "2")
    done = jail("-c", f"path={small_root}", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "inet6 2001:db8:1::10/64 scope global" in done.stdout
    assert switch("ipv6/conf/all/forwarding") == "0"  # with the last jail


def test_alias_of_interface_lives_as_long_as_the_jail(lan: Namespace, jail: Command, small_root: Path) -> None:
    settle("ep0")
    before = host_addresses()
    words = ("interface=ep0", "ip4.addr=198.51.100.20/24", "command=/bin/busybox", "ip", "address")
    done = jail("-c", f"path={small_root}", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "inet 198.51.100.20/24 brd 198.51.100.255 scope global" in done.stdout
    assert host_addresses() == before


def test_the_host_answers_when_the_last_process_has_left(
    stage: Stage, lan: Namespace, jail: Command, small_root: Path
) -> None:
    on_host = server("0.0.0.0")
    (small_root / "serve").write_text(_SERVE)
    (small_root / "serve").chmod(0o755)
    done = jail("-c", "jid=7", f"path={small_root}", "ip4.addr=198.51.100.10", "command=/serve")
    assert (done.returncode, done.stderr) == (0, "")
    (daemon,) = [pid for pid, name in stage.processes().items() if name == "nc"]
    with lan.connect("198.51.100.10") as caller:
        assert caller.recv(100) == b"jail\n"
    departures = Departures()
    os.kill(daemon, signal.SIGKILL)
    departures.wait("jng7")
    with lan.connect("198.51.100.10"):
        on_host.accept()[0].close()
    assert jail("-r", "7").returncode == 1  # no such jail; what it left is cleared away all the same


def test_an_interface_whose_address_is_taken_from_a_jail(lan: Namespace, jail: Command, small_root: Path) -> None:
    """What it needed there is not guarded any more: else what an administrator's host forwards would be dropped."""
    given = ("interface=ep0", "ip4.addr=198.51.100.10", "ip6.addr=2001:db8:1::10")
    assert jail("-c", "name=a", f"path={small_root}", *given, "persist").returncode == 0
    assert '"ep0"' in run("nft", "list", "set", "inet", "jailng", "guarded")
    assert jail("-m", "name=a", "ip4.addr=198.51.100.11").returncode == 0
    assert "ipv4" not in run("nft", "list", "set", "inet", "jailng", "guarded")
    assert jail("-r", "a").returncode == 0


def test_an_interface_that_is_taken_from_a_jail_and_given_back(
    lan: Namespace, jail: Command, jexec: Command, small_root: Path
) -> None:
    one, two = "198.51.100.10", "203.0.113.10"
    with attach("ep1", ("203.0.113.1/24", "2001:db8:2::1/64"), ("203.0.113.2/24", "2001:db8:2::2/64")):
        ip(f"address add {two}/32 dev ep1")
        words = ("name=a", f"path={small_root}", f"ip4.addr={one},{two}", "persist")
        assert jail("-c", *words).returncode == 0
        for addresses in ((two,), (one, two), (two, one)):
            done = jail("-m", "name=a", f"ip4.addr={','.join(addresses)}")
            assert (done.returncode, done.stderr) == (0, "")
            rules = jexec("a", "/bin/busybox", "ip", "rule").stdout
            wanted = [f"from {address} lookup {1000 + number}" for number, address in enumerate(addresses)]
            assert [rule for rule in wanted if rule in rules] == (wanted if len(wanted) > 1 else [])
            assert rules.count("from ") == (5 if len(wanted) > 1 else 3)
        assert jail("-r", "a").returncode == 0


def test_a_change_of_address_that_is_interrupted(
    lan: Namespace, jail: Command, jexec: Command, small_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ip("address add 198.51.100.11/24 dev ep0")
    words = ("name=a", f"path={small_root}", "ip4.addr=198.51.100.10", "persist")
    assert jail("-c", *words).returncode == 0
    record = registry.find("a")
    assert record is not None
    changes = Parameters()
    changes.add("ip4.addr", "198.51.100.11")

    def interrupted(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt(signal.SIGINT)

    monkeypatch.setattr(network, "host_side", interrupted)
    with pytest.raises(KeyboardInterrupt):
        modify.modify(record, changes)
    shown = jexec("a", "/bin/busybox", "ip", "-4", "address").stdout
    assert "inet 198.51.100.10/24" in shown and "198.51.100.11" not in shown
    assert jail("-r", "a").returncode == 0


@pytest.mark.parametrize("address", ["198.51.100.10", "198.51.100.11"])
def test_an_address_asked_for_after_a_change_that_was_killed(
    lan: Namespace, jail: Command, jexec: Command, small_root: Path, address: str
) -> None:
    """The kernel has the new one, and the record the old one: whichever is asked for the jail has."""
    ip("address add 198.51.100.11/24 dev ep0")
    assert jail("-c", "name=a", f"path={small_root}", "ip4.addr=198.51.100.10", "persist").returncode == 0
    record = registry.find("a")
    assert record is not None and record.lock()
    params = Parameters.from_texts({**record.params, "ip4.addr": "198.51.100.11"})
    readdress.change(record, params)
    record.unlock()
    assert jail("-m", "name=a", f"ip4.addr={address}").returncode == 0
    shown = jexec("a", "/bin/busybox", "ip", "-4", "-o", "address", "show", "ep0").stdout.splitlines()
    assert [line.split()[3] for line in shown] == [f"{address}/24"]
    assert jail("-r", "a").returncode == 0
