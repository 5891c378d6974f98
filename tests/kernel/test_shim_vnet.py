"""ifconfig's vnet, -vnet, -j and epair: interfaces that go to a jail's network namespace, and come back."""

from __future__ import annotations

import re
import subprocess
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


def test_the_loopback_of_a_jail_by_its_name_on_freebsd(shim: Shim, cell: str) -> None:
    """Without inet and alias it is the host's own ifconfig that is to do it, which knows no lo0 either."""
    quiet(shim, "-j", "cell", "lo0", "inet", "127.0.0.1/8", "up")
    quiet(shim, "-j", "cell", "lo0", "127.0.0.2", "netmask", "255.0.0.0")
    assert "\tinet 127.0.0.2 netmask 0xff000000\n" in shim("ifconfig", "-j", "cell", "lo0").stdout
    quiet(shim, "-j", "cell", "lo0", "inet", "127.0.0.3/8", "alias")
    assert "\tinet 127.0.0.3 netmask 0xff000000\n" in shim("ifconfig", "-j", "cell", "lo0").stdout


def test_a_jail_among_the_options(shim: Shim, cell: str) -> None:
    """As getopt(3) has it."""
    listed = shim("ifconfig", "-j", "cell", "-a").stdout
    assert listed.startswith("lo: ")
    for words in ("-jcell", "-aj cell", f"-j{cell} -a", "-a -j cell", "-g all -aj cell", "-jcell lo0"):
        assert shim("ifconfig", *words.split()).stdout == listed
    quiet(shim, "-jcell", "lo0", "descr", "-j5")


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


# Bridges, VLANs and loopbacks, as FreeBSD's configurations of jails with vnet have them


@pytest.fixture
def gone() -> Iterator[None]:
    """No interface is left of what a test makes."""
    yield
    for name in re.findall(r"^\d+: ([^:@]+)", run("ip", "-o", "link"), re.MULTILINE):
        if name != "lo" and name in run("ip", "-o", "link"):
            run("ip", "link", "delete", name)


def member(name: str) -> str:
    found = re.search(r" master (\S+)", run("ip", "link", "show", "dev", name))
    return found[1] if found else ""


def test_a_bridge(shim: Shim, gone: None) -> None:
    assert shim("ifconfig", "bridge", "create").stdout == "bridge0\n"
    quiet(shim, "bridge1", "create", "up")
    taken = shim("ifconfig", "bridge1", "create")
    assert taken.stderr == "ifconfig: SIOCIFCREATE2 (bridge1): File exists\n"
    assert shim("ifconfig", "epair", "create").stdout == "epair0a\n"
    quiet(shim, "bridge0", "addm", "epair0a", "addm", "epair0b", "up")
    assert (member("epair0a"), member("epair0b")) == ("bridge0", "bridge0")
    assert "UP," in shim("ifconfig", "bridge0").stdout
    assert shim("ifconfig", "bridge0", "addm", "epair0a").stderr == "ifconfig: BRDGADD epair0a: File exists\n"
    busy = shim("ifconfig", "bridge1", "addm", "epair0a")
    assert busy.stderr == "ifconfig: BRDGADD epair0a: Device or resource busy\n"
    assert shim("ifconfig", "bridge0", "addm", "ep9").stderr == "ifconfig: BRDGADD ep9: No such file or directory\n"
    quiet(shim, "bridge0", "private", "epair0a")
    assert "isolated on" in run("bridge", "-d", "link", "show", "dev", "epair0a")
    quiet(shim, "bridge0", "-private", "epair0a")
    assert "isolated off" in run("bridge", "-d", "link", "show", "dev", "epair0a")
    quiet(shim, "bridge0", "deletem", "epair0a")
    assert member("epair0a") == ""
    missing = shim("ifconfig", "bridge0", "deletem", "epair0a")
    assert missing.stderr == "ifconfig: BRDGDEL epair0a: No such file or directory\n"
    quiet(shim, "bridge0", "destroy")
    assert member("epair0b") == ""


def test_a_new_name(shim: Shim, gone: None) -> None:
    assert shim("ifconfig", "epair7", "create", "up").stdout == "epair7a\n"
    assert shim("ifconfig", "epair7a", "name", "www0").stdout == "www0\n"
    assert "UP," in shim("ifconfig", "www0").stdout
    taken = shim("ifconfig", "epair7b", "name", "www0")
    assert taken.stderr == "ifconfig: ioctl SIOCSIFNAME (set name): File exists\n"


def test_a_mac_address_by_itself(shim: Shim, gone: None) -> None:
    """As jib and BastilleBSD set and ask for it, a word at a time."""
    assert shim("ifconfig", "epair", "create").returncode == 0
    quiet(shim, "epair0a", "ether", "02:11:22:33:44:55")
    assert shim("ifconfig", "epair0a", "ether").stdout == (
        "epair0a: flags=8802<BROADCAST,SIMPLEX,MULTICAST> mtu 1500\n\tether 02:11:22:33:44:55\n"
    )


def test_a_listing_of_one_family_or_of_one_group(shim: Shim, gone: None) -> None:
    """As scripts ask for the addresses of a jail, and for the interfaces that they have made."""
    for kind in ("epair", "bridge", "lo"):
        assert shim("ifconfig", kind, "create").returncode == 0
    quiet(shim, "bridge0", "addm", "epair0a", "inet", "192.0.2.1/24")
    quiet(shim, "bridge0", "inet6", "2001:db8::1/64")
    head = r"bridge0: flags=\d+<\S+> mtu 1500\n"
    for family, lines in (
        ("inet", r"\tinet 192\.0\.2\.1 netmask 0xffffff00 broadcast 192\.0\.2\.255\n"),
        ("inet6", r"\tinet6 2001:db8::1 prefixlen 64\n"),
        ("ether", r"\tether \S+\n"),
    ):
        assert re.fullmatch(head + lines, shim("ifconfig", "bridge0", family).stdout)
    everything = shim("ifconfig", "-a", "inet").stdout
    assert (everything.count(" mtu "), everything.count("\tinet "), everything.count("inet6")) == (5, 2, 0)
    for words, names in (
        ("-l ether", "bridge0 epair0a epair0b lo1"), ("-l", "bridge0 epair0a epair0b lo lo1"), ("-glo", "lo lo1"),
        ("-g epair", "epair0a epair0b"), ("-l -g epair", "epair0a epair0b"), ("-g nobody", ""),
    ):  # fmt: skip
        done = shim("ifconfig", *words.split())
        assert (sorted(done.stdout.split()), done.returncode) == (names.split(), 0), words
    for words, names in (("-lu", "bridge0 lo"), ("-d -l", "epair0a epair0b lo1"), ("-l -du", ""), ("-ug lo", "lo")):
        assert sorted(shim("ifconfig", *words.split()).stdout.split()) == names.split(), words
    assert shim("ifconfig", "-u").stdout == shim("ifconfig", "-au").stdout != shim("ifconfig", "-a").stdout
    assert shim("ifconfig", "-glo").stdout == "lo\nlo1\n"  # one a line
    assert shim("ifconfig", "-ag", "bridge").stdout == shim("ifconfig", "bridge0").stdout
    assert "\tmember: epair0a " in shim("ifconfig", "bridge0").stdout


def test_addresses_without_alias(shim: Shim, gone: None) -> None:
    """Of IPv4 the first is replaced, of IPv6 it is one more."""
    assert shim("ifconfig", "epair", "create").returncode == 0
    quiet(shim, "epair0a", "inet", "192.0.2.1/24", "up")
    quiet(shim, "epair0a", "inet", "192.0.2.2/24")
    quiet(shim, "epair0a", "inet", "198.51.100.1/24", "alias")
    quiet(shim, "epair0a", "inet6", "2001:db8::1/64")
    quiet(shim, "epair0a", "inet6", "2001:db8::2/64")
    shown = shim("ifconfig", "epair0a").stdout
    assert re.findall(r"inet (\S+)", shown) == ["192.0.2.2", "198.51.100.1"]
    assert {"2001:db8::1", "2001:db8::2"} <= set(re.findall(r"inet6 (\S+)", shown))
    quiet(shim, "epair0a", "inet6", "2001:db8::1/64", "delete")
    assert "2001:db8::1 " not in shim("ifconfig", "epair0a").stdout


def test_an_address_brings_an_interface_up(shim: Shim, gone: None) -> None:
    """As FreeBSD's kernel has it: ``ifconfig epair0b inet 192.0.2.2/24`` is all that many a jail with vnet is given."""
    assert shim("ifconfig", "epair", "create").returncode == 0
    for name, words in (("epair0a", ("inet", "192.0.2.1/24")), ("epair0b", ("inet6", "2001:db8::1/64", "alias"))):
        quiet(shim, name, *words)
        assert "<UP," in shim("ifconfig", name).stdout
        quiet(shim, name, "down")
        quiet(shim, name, *words)  # what it has already, of IPv4
        assert "<UP," in shim("ifconfig", name).stdout


def test_a_further_loopback(shim: Shim, gone: None) -> None:
    assert shim("ifconfig", "lo", "create").stdout == "lo1\n"
    quiet(shim, "lo2", "create")
    quiet(shim, "lo1", "inet", "192.0.2.1/32", "up")
    assert "1 received" in run("ping", "-c", "1", "-W", "5", "192.0.2.1")


def test_the_loopback_by_its_name_on_freebsd(shim: Shim, gone: None) -> None:
    """As scripts that set up a jail with vnet have it: ``ifconfig -j JAIL lo0 inet 127.0.0.1/8 up``."""
    before = shim("ifconfig", "lo").stdout
    for words in (("up",), ("inet", "127.0.0.1/8", "up"), ("inet6", "::1/128", "alias")):
        quiet(shim, "lo0", *words)
        assert shim("ifconfig", "lo0").stdout == before
    quiet(shim, "lo0", "inet", "127.0.0.2/32", "alias")
    assert "scope host" in run("ip", "-o", "address", "show", "to", "127.0.0.2")
    assert run("ip", "route", "get", "127.0.0.2")
    quiet(shim, "lo0", "inet", "127.0.0.2", "-alias")
    assert shim("ifconfig", "lo").stdout == before
    assert shim("ifconfig", "lo", "create").stdout == "lo1\n"
    assert shim("ifconfig", "lo1", "name", "lo0").stdout == "lo0\n"  # one that is called so goes before
    assert shim("ifconfig", "lo0").stdout.startswith("lo0: ")


def has_vlans(on: str) -> bool:
    done = subprocess.run(["ip", "link", "add", "link", on, "name", "vlan4000", "type", "vlan", "id", "4000"])
    if done.returncode == 0:
        run("ip", "link", "delete", "vlan4000")
    return done.returncode == 0


def test_a_vlan(shim: Shim, gone: None) -> None:
    done = shim("ifconfig", "vlan10", "create", "vlan", "10", "vlandev", "epair0a")
    assert done.stderr == "ifconfig: interface epair0a does not exist\n"
    assert shim("ifconfig", "epair", "create").returncode == 0
    done = shim("ifconfig", "vlan10", "create", "vlan", "4095", "vlandev", "epair0a")
    assert done.stderr == "ifconfig: invalid vlan tag 4095\n"
    done = shim("ifconfig", "vlan10", "create")
    assert done.stderr == "ifconfig: vlan: on Linux tag and vlandev are to be given when it is created\n"
    if not has_vlans("epair0a"):
        done = shim("ifconfig", "vlan10", "create", "vlan", "10", "vlandev", "epair0a")
        assert done.stderr == "ifconfig: SIOCIFCREATE2 (vlan10): Operation not supported\n"
        pytest.skip("this kernel has no VLANs")
    quiet(shim, "epair0a", "up")  # else Linux takes none up that is on it
    quiet(shim, "vlan10", "create", "vlan", "10", "vlandev", "epair0a", "up")
    assert " vlan protocol 802.1Q id 10 " in run("ip", "-d", "link", "show", "dev", "vlan10")
    quiet(shim, "epair0a.11", "create")
    assert "epair0a.11@epair0a" in run("ip", "-d", "link", "show", "dev", "epair0a.11")


_IDIOM = """
www {
    path = "%s";
    vnet;
    vnet.interface = "epair0b";
    exec.prestart = "ifconfig epair0 create; ifconfig bridge0 addm epair0a up; ifconfig epair0a up";
    exec.start = "ip address add 192.0.2.7/24 dev epair0b; ip link set epair0b up";
    exec.poststop = "ifconfig bridge0 deletem epair0a; ifconfig epair0a destroy";
    persist;
}
"""

# As the Handbook has it, with FreeBSD's paths.
_HANDBOOK = """
www {
    path = "%s";
    vnet;
    vnet.interface = "${epair}b";
    $id = "0";
    $bridge = "bridge0";
    $epair = "epair${id}";
    exec.prestart = "/sbin/ifconfig ${epair} create up";
    exec.prestart += "/sbin/ifconfig ${epair}a up descr jail:${name}";
    exec.prestart += "/sbin/ifconfig ${bridge} addm ${epair}a up";
    exec.start = "ip address add 192.0.2.7/24 dev ${epair}b; ip link set ${epair}b up";
    exec.poststop = "/sbin/ifconfig ${bridge} deletem ${epair}a";
    exec.poststop += "/sbin/ifconfig ${epair}a destroy";
    exec.clean;
    persist;
}
"""


@pytest.mark.parametrize("text", [_IDIOM, _HANDBOOK], ids=["names", "handbook"])
def test_the_idiom_of_freebsds_jail_conf(
    gone: None, shim: Shim, checkout: Path, small_root: Path, tmp_path: Path, text: str
) -> None:
    config = tmp_path / "jail.conf"
    config.write_text(text % small_root)
    quiet(shim, "bridge0", "create", "inet", "192.0.2.1/24", "up")
    environment = {"PATH": f"{checkout}/shims:/usr/sbin:/usr/bin:/sbin:/bin"}

    def jail(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [str(checkout / "bin/jail"), "-f", str(config), *words]
        return subprocess.run(argv, capture_output=True, text=True, env=environment)

    made = jail("-c", "www")
    assert (made.stdout, made.stderr) == ("epair0a\nwww: created\n", "")
    assert "1 received" in run("ping", "-c", "1", "-W", "10", "192.0.2.7")
    removed = jail("-r", "www")
    assert (removed.stdout, removed.stderr) == ("www: removed\n", "")
    assert interfaces(shim) == ["bridge0", "lo"]


def test_bastilles_way(gone: None, shim: Shim, checkout: Path) -> None:
    """Its jail.conf makes, renames and describes what it has made in one line of shell each."""
    script = """
        pair=$(ifconfig epair create) && ifconfig ${pair} up name e0a_www && ifconfig ${pair%a}b up name e0b_www
        ifconfig bridge create name wwwbridge
        ifconfig wwwbridge addm e0a_www up
        ifconfig e0a_www description "vnet0 host interface for Bastille jail www"
    """
    environment = {"PATH": f"{checkout}/shims:/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, env=environment)
    assert (done.stdout.split(), done.stderr) == (["e0a_www", "e0b_www", "wwwbridge"], "")
    shown = run("ip", "-d", "link", "show", "dev", "e0a_www")
    assert "alias vnet0 host interface for Bastille jail www" in shown
    assert " master wwwbridge " in shown
    assert shim("ifconfig", "e0b_www").stdout.startswith("e0b_www: flags=8843<UP,")
    shown = shim("ifconfig", "e0a_www").stdout
    assert shown.splitlines()[1] == "\tdescription: vnet0 host interface for Bastille jail www"
    assert "\n\tmember: e0a_www flags=" in shim("ifconfig", "wwwbridge").stdout
