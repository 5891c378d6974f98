"""Every system call of a command fails once, and every process is killed at each: what that leads to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import debian as roots
from tests.kernel import injector
from tests.kernel.campaign import Campaign
from tests.kernel.injector import Injector
from tests.kernel.networks import Namespace, ip, settle
from tests.kernel.stage import Stage

pytestmark = pytest.mark.skipif(not injector.SUPPORTED, reason="the tracer knows the registers of x86_64 only")
ADDRESS = "198.51.100.10"


@pytest.fixture
def tracer(stage: Stage) -> Iterator[Injector]:
    with injector.injecting() as made:
        yield made


@pytest.fixture
def campaign(stage: Stage, tracer: Injector, checkout: Path, small_root: Path) -> Campaign:
    made = Campaign(stage, tracer, checkout)
    made.run("jail", "-c", f"path={small_root}", "command=/bin/true")  # compiles the filter, makes directories
    return made


@pytest.fixture
def on_lan(lan: Namespace) -> Namespace:
    settle("ep0")
    return lan


@pytest.fixture
def words(small_root: Path) -> list[str]:
    return ["-c", "name=a", "jid=7", f"path={small_root}", "persist"]


# Making a jail


def test_plain(campaign: Campaign, words: list[str]) -> None:
    campaign.creation(*words)


def test_a_command(campaign: Campaign, words: list[str]) -> None:
    campaign.creation(
        *words,
        "exec.prestart=true",
        "exec.start=sleep 100 >/dev/null 2>&1 & until grep -q sleep /proc/$!/comm; do :; done",
        "exec.created=true",
        "command=sh",
        "-c",
        "echo here",
    )


def test_a_command_alone(campaign: Campaign, small_root: Path) -> None:
    campaign.passing("jail", "-c", "name=a", "jid=7", f"path={small_root}", "command=sh", "-c", "echo here")


def test_an_address(campaign: Campaign, on_lan: Namespace, words: list[str]) -> None:
    campaign.creation(*words, "interface=ep0", f"ip4.addr={ADDRESS}", "ip6.addr=2001:db8:1::10")


def test_a_policy(campaign: Campaign, on_lan: Namespace, words: list[str]) -> None:
    campaign.creation(
        *words,
        "interface=ep0",
        f"ip4.addr={ADDRESS}",
        "ng.rdr=tcp 198.51.100.1 8080 -> 80, udp any 53 -> 53",
        "ng.egress=honeypot, pass tcp to host port 53, pass to any log group 3",
    )


def test_the_host_s_stack(campaign: Campaign, on_lan: Namespace, words: list[str]) -> None:
    campaign.creation(*words, "interface=ep0", f"ip4.addr={ADDRESS}", "ng.stack=shared")


def test_an_interface(campaign: Campaign, words: list[str]) -> None:
    ip("link add epair0a type veth peer name epair0b", "link set epair0b mtu 1400 alias wire")
    try:
        campaign.again()
        campaign.creation(*words, "vnet", "vnet.interface=epair0b")
    finally:
        ip("link delete epair0a")


def test_inherited_network(campaign: Campaign, words: list[str]) -> None:
    campaign.creation(*words, "ip4=inherit", "ip6=inherit", "allow.reserved_ports")


def test_a_broker(campaign: Campaign, words: list[str]) -> None:
    assert campaign.run("jail", *words, "children.max=2").returncode == 0  # copies the package for jails, once
    assert campaign.run("jail", "-r", "a").returncode == 0
    campaign.nothing_remains("the first")
    campaign.creation(*words, "children.max=2")


def test_mounts(campaign: Campaign, small_root: Path, words: list[str]) -> None:
    (small_root / "above").mkdir()
    (small_root.parent / "data").mkdir()
    lines = (
        f"{small_root.parent}/data {small_root}/var/tmp nullfs",
        f"t {small_root}/tmp tmpfs size=1m",
        f"{small_root.parent}/data {small_root}/above unionfs",
        f"r {small_root}/tmp ramfs",
    )
    campaign.creation(*words, *[f"mount={line}" for line in lines], "ng.uids=shared")


def test_shared_uids(campaign: Campaign, words: list[str]) -> None:
    campaign.creation(*words, "ng.uids=shared", "sysvshm=new", "allow.mlock", "securelevel=0")


def test_it_may_mount(campaign: Campaign, words: list[str]) -> None:
    more = ("allow.mount", "allow.mount.nullfs", "allow.mount.tmpfs", "allow.mount.fusefs")
    if "bpf_lsm" in campaign.run("jail", *words, *more, "command=/bin/true").stderr:
        pytest.skip("this kernel judges no mounts")
    campaign.run("jail", "-r", "a")
    campaign.creation(*words, *more)


def _with_another_in_it(root: Path) -> list[str]:
    (root / "usr/sbin").mkdir(parents=True)
    (root / "jails").mkdir(mode=0o700)
    roots.small(root / "jails/in")
    return ["-c", "name=top", "jid=6", f"path={root}", "children.max=3", "persist"]


def test_a_request_to_the_broker(campaign: Campaign, small_root: Path) -> None:
    inside = ["/usr/sbin/jail", "-c", "name=a", "path=/jails/in", "persist"]
    campaign.request(_with_another_in_it(small_root), inside, "top.a")


@pytest.fixture
def outer(jail: object, campaign: Campaign, small_root: Path) -> Iterator[str]:
    assert not campaign.run("jail", *_with_another_in_it(small_root)).returncode
    campaign.again()
    yield "top"
    assert not campaign.run("jail", "-r", "top").returncode


def test_a_jail_in_a_jail(campaign: Campaign, outer: str, small_root: Path) -> None:
    campaign.creation("-c", "name=top.a", "jid=7", f"path={small_root}/jails/in", "persist", name="top.a")


def test_two_of_one_address(campaign: Campaign, on_lan: Namespace, words: list[str], small_root: Path) -> None:
    ip(f"address add {ADDRESS}/24 dev ep0")
    campaign.again()
    campaign.run("jail", "-c", "name=one", f"path={small_root}", f"ip4.addr={ADDRESS}", "persist")
    campaign.again()
    campaign.creation(*words, f"ip4.addr={ADDRESS}")
    campaign.run("jail", "-r", "one")


# Changing one, taking it apart, entering it


def test_modification(campaign: Campaign, words: list[str]) -> None:
    campaign.modification(words, "-m", "name=a", "host.hostname=other", "meta=new", "allow.set_hostname")


def test_modification_of_a_policy(campaign: Campaign, on_lan: Namespace, words: list[str]) -> None:
    campaign.modification(
        [*words, "interface=ep0", f"ip4.addr={ADDRESS}", "ng.rdr=tcp 198.51.100.1 8080 -> 80", "ng.egress=honeypot"],
        *("-m", "name=a", "ng.rdr=tcp 198.51.100.1 8081 -> 80", "ng.egress=pass udp to any port 53"),
    )


def test_removal(campaign: Campaign, words: list[str]) -> None:
    campaign.removal([*words, "exec.start=sleep 100 >/dev/null 2>&1 &", "exec.stop=true"], "-r", "a")


def test_forced_removal(campaign: Campaign, words: list[str]) -> None:
    campaign.removal([*words, "exec.start=sleep 100 >/dev/null 2>&1 &"], "-R", "a")


def test_removal_with_an_address(campaign: Campaign, on_lan: Namespace, words: list[str]) -> None:
    campaign.removal([*words, "interface=ep0", f"ip4.addr={ADDRESS}", "ng.rdr=tcp any 80 -> 80"], "-r", "a")


def test_removal_from_another_network(campaign: Campaign, on_lan: Namespace, words: list[str]) -> None:
    """What it undoes is on the network that the jail was made on, and is found by the processes there."""
    campaign.by = ["/usr/bin/unshare", "-n"]
    campaign.removal([*words, "interface=ep0", f"ip4.addr={ADDRESS}"], "-r", "a")


def test_removal_with_the_host_s_stack(campaign: Campaign, on_lan: Namespace, words: list[str]) -> None:
    campaign.removal([*words, "interface=ep0", f"ip4.addr={ADDRESS}", "ng.stack=shared"], "-r", "a")


def test_removal_with_an_interface(campaign: Campaign, words: list[str]) -> None:
    ip("link add epair0a type veth peer name epair0b", "link set epair0b mtu 1400 alias wire")
    try:
        campaign.again()
        campaign.removal([*words, "vnet", "vnet.interface=epair0b"], "-r", "a")
    finally:
        ip("link delete epair0a")


def test_removal_with_mounts(campaign: Campaign, small_root: Path, words: list[str]) -> None:
    lines = (f"t {small_root}/tmp tmpfs size=1m", f"{small_root}/var {small_root}/var/tmp nullfs")
    campaign.removal([*words, *[f"mount={line}" for line in lines], "ng.uids=shared"], "-r", "a")


def test_removal_with_jails_in_it(campaign: Campaign, outer: str, small_root: Path) -> None:
    inner = ["-c", "name=top.a", "jid=7", f"path={small_root}/jails/in", "persist"]
    campaign.removal(inner, "-r", "top.a", name="top.a")


def test_entry(campaign: Campaign, words: list[str]) -> None:
    campaign.entry(words, "a", "/bin/echo", "here")


def test_entry_of_a_user(campaign: Campaign, small_root: Path, words: list[str]) -> None:
    (small_root / "etc").mkdir(exist_ok=True)
    (small_root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nuser:x:1001:1001::/tmp:/bin/sh\n")
    campaign.entry(words, "-l", "-U", "user", "a", "/bin/echo", "here")


def test_entry_of_a_user_of_the_host(campaign: Campaign, words: list[str]) -> None:
    campaign.entry(words, "-u", "nobody", "a", "/bin/echo", "here")


def test_entry_with_a_terminal(campaign: Campaign, words: list[str]) -> None:
    campaign.how["terminal"] = True
    campaign.entry(words, "a", "/bin/echo", "here")


def test_entry_on_the_host_s_stack(campaign: Campaign, on_lan: Namespace, words: list[str]) -> None:
    campaign.entry([*words, "interface=ep0", f"ip4.addr={ADDRESS}", "ng.stack=shared"], "a", "/bin/echo", "here")
