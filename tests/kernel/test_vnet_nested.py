"""Jails in jails and vnet: a stack below a stack, one that is shared, and interfaces that are lent on and come back."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jailng.core import registry
from tests.kernel import debian as roots
from tests.kernel.conftest import Command
from tests.kernel.networks import ip
from tests.kernel.test_vnet import interfaces, look
from tests.kernel.test_vnet_inside import HOSTS, NETPOWERS, OWN, kinds
from tests.kernel.test_vnet_keeper import Keeper, be_keeper

__all__ = ["kinds"]

Inside = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def wire() -> Iterator[str]:
    ip(
        "link add epair0a type veth peer name epair0b",
        "address add 192.0.2.1/24 dev epair0a",
        "link set epair0a up",
        "link set epair0b address 02:00:00:00:00:0b mtu 1400 alias wire",
    )
    yield "epair0b"
    if "epair0a" in interfaces():
        ip("link delete epair0a")


@pytest.fixture
def root(small_root: Path) -> Path:
    """A root with the three commands, and two more below it."""
    (small_root / "usr/sbin").mkdir(parents=True)
    (small_root / "jails").mkdir(mode=0o700)
    for name in ("in", "two"):
        roots.small(small_root / "jails" / name)
        (small_root / "jails" / name / "usr/sbin").mkdir(parents=True)
    return small_root


@pytest.fixture
def inside(wire: str, root: Path, jail: Command, jexec: Command) -> Iterator[Inside]:
    """A jail ``top`` with vnet and the wire, in which a script can be run."""
    words = ("name=top", f"path={root}", "vnet", f"vnet.interface={wire}", "children.max=3", "persist")
    made = jail("-c", *words)
    assert (made.stderr, made.returncode) == ("", 0)

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return jexec("top", "/bin/sh", "-ec", f"PATH=/usr/sbin:/bin\n{script}")

    yield run
    jail("-r", "top")


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.splitlines()


def test_a_stack_below_a_stack(inside: Inside) -> None:
    lines = said(
        inside("""
        ip link add inner0 type veth
        ip link set veth0 name inner1
        ip address add 198.51.100.1/24 dev inner0
        ip link set inner0 up
        jail -c name=in path=/jails/in vnet vnet.interface=inner1 persist
        jexec in ip address add 198.51.100.2/24 dev inner1
        jexec in ip link set inner1 name other0 up
        jexec in ping -q -c 1 -W 10 198.51.100.1 | grep -c "1 packets received"
        jexec in ip -o link | cut -d: -f2 | cut -d@ -f1
        jail -r in
        ip -o link show dev inner1 | wc -l
        ip -o address show dev inner1 | wc -l
        """)
    )
    assert lines == ["1", " lo", " other0", "1", "0"]


def test_it_goes_on_to_the_next_and_comes_all_the_way_back(wire: str, inside: Inside, jail: Command) -> None:
    assert said(inside(f"jail -c name=in path=/jails/in vnet vnet.interface={wire} persist; ip -o link | wc -l")) == [
        "1"
    ]
    assert said(inside(f"jexec in ip link set {wire} address 02:66:66:66:66:66 name evil0 mtu 666 up")) == []
    assert interfaces() == {"lo", "epair0a"}
    assert jail("-r", "top").returncode == 0
    found = look(wire)
    assert (found["address"], found["mtu"], found["ifalias"]) == ("02:00:00:00:00:0b", 1400, "wire")
    assert interfaces() == {"lo", "epair0a", "epair0b"}
    assert not list(Path("/run/jailng/net").iterdir())


def test_who_sits_on_its_number_meanwhile_goes(wire: str, inside: Inside, jail: Command) -> None:
    """Root of the outer jail would have its own interface taken for the host's, which would be lost."""
    index = said(inside(f"ip -o link show dev {wire} | cut -d: -f1"))[0]
    inside(f"jail -c name=in path=/jails/in vnet vnet.interface={wire} persist")
    assert said(inside(f"ip link add {wire} index {index} type veth")) == []
    assert jail("-r", "top").returncode == 0
    assert look(wire)["ifalias"] == "wire"
    assert interfaces() == {"lo", "epair0a", "epair0b"}


def test_the_outer_jails_stack_as_it_is(inside: Inside, wire: str, jls: Command) -> None:
    assert said(inside(f"ip address add 192.0.2.2/24 dev {wire}; ip link set {wire} up")) == []
    lines = said(
        inside("""
        jail -c name=in path=/jails/in ip4=inherit ip6=inherit persist
        jexec in ip -o address show dev epair0b | grep -c 192.0.2.2
        jexec in ip link set epair0b down 2>/dev/null || echo refused
        jexec in ip address add 192.0.2.3/24 dev epair0b 2>/dev/null || echo refused
        jexec in ping -c 1 192.0.2.1 >/dev/null 2>&1 || echo refused
        jexec in sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward' 2>/dev/null || echo refused
        jexec in nc -l -p 80 -e true & until netstat -ltn | grep -q :80; do :; done
        nc 127.0.0.1 80 </dev/null; echo port
        """)
    )
    assert lines == ["1", "refused", "refused", "refused", "refused", "port"]


def test_no_stack_that_is_not_asked_for(inside: Inside) -> None:
    lines = said(inside("jail -c path=/jails/in command=/bin/ip -o link | wc -l"))
    assert lines == ["1"]
    done = inside("jail -c path=/jails/in ip4.addr=192.0.2.9 persist")
    assert done.returncode == 1
    assert done.stderr == (
        "jail: ip4.addr: in a jail with vnet a jail has that one's stack (ip4=inherit), one of its own (vnet), "
        "or no address\n"
    )
    # Also where there is a jail between them that shares it.
    script = "jail -c name=in path=/jails/in ip4=inherit ip6=inherit children.max=1 persist"
    assert said(inside(script)) == []
    assert inside("jexec in sh -c 'PATH=/usr/sbin:/bin jail -c path=/ ip4.addr=192.0.2.9 persist'").returncode == 1


@pytest.mark.parametrize("words", [("ip4.addr=192.0.2.77",), ("ip4=inherit", "ip6=inherit")])
def test_who_has_no_stack_makes_none(words: tuple[str, ...], root: Path, jail: Command, jexec: Command) -> None:
    """Root of a jail without vnet would open for itself what the host has not given it; the host may."""
    assert jail("-c", "name=top", f"path={root}", "children.max=2", "persist", *words).returncode == 0
    try:
        done = jexec("top", "/usr/sbin/jail", "-c", "name=in", "path=/jails/in", "vnet", "persist")
        assert (done.stderr, done.returncode) == ("jail: jail_set: Operation not permitted\n", 1)
        made = jail("-c", "name=top.in", f"path={root}/jails/in", "vnet", "persist")
        assert (made.stderr, made.returncode) == ("", 0)
        script = "ip link add inner0 type veth && ip -o link | wc -l"
        assert jexec("top.in", "/bin/sh", "-c", script).stdout == "3\n"
        # Nor does it lend what is not its own.
        done = jexec("top", "/usr/sbin/jail", "-c", "name=two", "path=/jails/two", "vnet.interface=lo", "persist")
        assert done.returncode == 1
    finally:
        assert jail("-r", "top").returncode == 0


def test_the_host_lends_to_an_inner_one(root: Path, jail: Command, jexec: Command, wire: str) -> None:
    before = look(wire)
    assert jail("-c", "name=top", f"path={root}", "vnet", "children.max=2", "persist").returncode == 0
    made = jail("-c", "name=top.in", f"path={root}/jails/in", "vnet", f"vnet.interface={wire}", "persist")
    assert (made.stderr, made.returncode) == ("", 0)
    assert "epair0b" not in jexec("top", "/bin/ip", "link").stdout
    assert "epair0b" in jexec("top.in", "/bin/ip", "link").stdout
    done = jexec("top", "/usr/sbin/jail", "-r", "in")
    assert (done.stderr, done.returncode) == ("", 0)
    assert look(wire) == before
    assert jail("-r", "top").returncode == 0


def test_no_interface_of_anothers(inside: Inside, jail: Command, root: Path) -> None:
    """The broker lends what is in the caller's own stack to the jails in it, by name."""
    ip("link add mine0 type veth peer name mine1")
    try:
        for name in ("mine0", "epair0a", "lo", "ep9", "a/b"):
            done = inside(f"jail -c path=/jails/in vnet vnet.interface={name} persist")
            assert done.returncode == 1, name
            assert "does not exist" in done.stderr or "Invalid argument" in done.stderr
        assert {"mine0", "epair0a"} <= interfaces()
    finally:
        ip("link delete mine0")


def test_the_callers_own_interface_by_ifconfig(inside: Inside, wire: str, jail: Command) -> None:
    assert said(inside("jail -c name=in path=/jails/in persist")) == []
    done = inside("jail -c name=two path=/jails/two vnet persist; jexec two ip -o link | wc -l")
    assert said(done) == ["1"]


def _ipv4(jexec: Command) -> list[str]:
    """The addresses and routes of ``top``."""
    return [jexec("top", "/bin/ip", "-4", "-o", *words).stdout for words in (("address",), ("route",), ("rule",))]


def test_no_stack_but_its_own_from_below(kinds: None, jail: Command, jexec: Command, checkout: Path) -> None:
    """What root of a jail with vnet is refused of the host's stack, it is refused of the stack of the jail above."""
    made = jail("-c", "name=top", "path=/", "vnet", "children.max=1", "persist")
    assert (made.stderr, made.returncode) == ("", 0)
    try:
        for words in ("link add above0 type veth peer name below0", "link set above0 up"):
            assert jexec("top", "/bin/ip", *words.split()).returncode == 0
        before = _ipv4(jexec)
        inner = (f"{checkout}/bin/jail", "-c", "path=/", "vnet", "vnet.interface=below0")
        done = jexec("top", *inner, "command=/usr/bin/python3", "-IS", "-", "below0", stdin=NETPOWERS)
        assert done.returncode == 0, done.stderr
        came = json.loads(done.stdout)
        assert {name for name, error in came.items() if error == "ok"} == set(OWN)
        assert {name: error for name, error in came.items() if name in HOSTS} == HOSTS
        assert _ipv4(jexec) == before
    finally:
        assert jail("-r", "top").returncode == 0


@pytest.fixture
def lent_on(wire: str, root: Path, inside: Inside) -> Path:
    """A jail ``top.in`` that has the wire from ``top``; its only process reads the fifo that is returned."""
    go = root / "jails/in/go"
    os.mkfifo(go)
    go.chmod(0o666)
    left = "sh -c 'cat /go >/dev/null 2>&1 &'"
    assert said(inside(f'jail -c name=in path=/jails/in vnet vnet.interface={wire} exec.start="{left}"')) == []
    return go


def _keeper(name: str) -> Keeper:
    record = registry.find(name)
    assert record is not None
    return Keeper(record.jid)


def test_comes_back_to_the_outer_jail_by_itself(wire: str, lent_on: Path, inside: Inside) -> None:
    keeper = _keeper("top.in")
    os.close(os.open(lent_on, os.O_WRONLY))
    keeper.ends()
    assert said(inside(f"ip -o link show dev {wire} | wc -l; jls | wc -l")) == ["1", "1"]


@pytest.mark.usefixtures("lent_on")
def test_comes_back_from_both_of_which_neither_lives(wire: str) -> None:
    """Two keepers: the outer jail's has to be the one who fetches it from the inner one."""
    keepers = [_keeper("top"), _keeper("top.in")]
    found = registry.find("top")
    assert found is not None
    os.kill(found.init_pid, signal.SIGKILL)
    for keeper in keepers:
        keeper.ends()
    assert look(wire)["ifalias"] == "wire"
    assert interfaces() == {"lo", "epair0a", "epair0b"}


@pytest.mark.usefixtures("lent_on")
def test_the_inner_keeper_leaves_it_to_who_undoes_the_outer_jail(wire: str, jail: Command) -> None:
    """Else it would go to a stack that is being given up meanwhile."""
    for name in ("top", "top.in"):
        keeper = _keeper(name)
        os.kill(keeper.pid, signal.SIGKILL)
        keeper.ends()
    inner, outer = registry.find("top.in"), registry.find("top")
    assert inner is not None
    assert outer is not None
    pidfd = os.pidfd_open(outer.init_pid)
    os.kill(outer.init_pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)
    be_keeper(inner.init, inner.jid)
    assert registry.load(inner.jid) is not None
    jail("-r", "top")
    assert registry.load(inner.jid) is None
    assert look(wire)["ifalias"] == "wire"
