"""What root of a jail with vnet does to its own stack, and cannot do to any other."""

from __future__ import annotations

import json
import os
import select
import shlex
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.core import connection
from tests.kernel.confined import judges_types
from tests.kernel.conftest import Command
from tests.kernel.networks import Jail as Stack
from tests.kernel.networks import Socket, ip, run, set_switch, switch, until_up
from tests.kernel.stage import Stage
from tests.kernel.test_allow import USUALLY

NETPOWERS = (Path(__file__).parent / "netpowers.py").read_text()
_POWERS = (Path(__file__).parent / "powers.py").read_text()
PYTHON = ("command=/usr/bin/python3", "-IS", "-")

OWN = (
    "address, up, MAC address, neighbour, route, rule, veth, bridge, member of a bridge, macvlan, vxlan, queueing, "
    "nft, nft's filter, nft's NAT, packets, raw socket, raw socket of IPv6, forwarding, forwarding of IPv6, mark, "
    "generic netlink"
).split(", ")
_REFUSED = {
    "EPERM": "host name, new network namespace, new user namespace, own namespace again, bpf, perf, kernel's queue, "
    "an interface of the host's, an interface on the host's",
    "EROFS": "sysctl of the kernel, sysctl of netfilter, sysctl of bridges",
    "EACCES": "sysctl of the machine's memory, the host's interfaces, the host's addresses",
    "ENOTSUP": "ethtool, transceiver, driver's own",
    "EAFNOSUPPORT": "netlink of XFRM, netlink of uevents, netlink of audit, netlink of sockets, vsock, alg, key",
    "ESRCH": "its wire by a pid",
    "EINVAL": "its wire by a file",
    "ENOENT": "tun",
}
REFUSED = {name: error for error, names in _REFUSED.items() for name in names.split(", ")}
HOSTS = {name: error for name, error in REFUSED.items() if "the host's" in name}
# Which a kernel may not have.
_OPTIONAL = {
    "sysctl of netfilter": "/proc/sys/net/netfilter/nf_hooks_lwtunnel",
    "sysctl of bridges": "/proc/sys/net/bridge",
}


@pytest.fixture
def wire() -> Iterator[str]:
    """A wire from the host's epair0a, 192.0.2.1, to epair0b."""
    ip(
        "link add epair0a type veth peer name epair0b",
        "address add 192.0.2.1/24 dev epair0a",
        "link set epair0a up",
    )
    yield "epair0b"
    ip("link delete epair0a")


@pytest.fixture
def kinds() -> None:
    """Modules are the host's to load."""
    for kind in ("bridge", "macvlan link lo", "vxlan id 7 dstport 4789"):
        name, _, more = kind.partition(" ")
        words = more.replace("link lo", "").split()
        link = ("link", "lo") if "link lo" in more else ()
        subprocess.run(["ip", "link", "add", *link, "name", "kind0", "type", name, *words], capture_output=True)
        subprocess.run(["ip", "link", "delete", "kind0"], capture_output=True)
    rules = (
        "add table ip kinds; add chain ip kinds post { type nat hook postrouting priority 100; }; delete table ip kinds"
    )
    subprocess.run(["nft", rules], check=True)


@pytest.mark.parametrize("uids", ["private", "shared"])
def test_its_own_stack_and_no_other(wire: str, kinds: None, jail: Command, uids: str) -> None:
    words = ("name=v", "path=/", "vnet", f"vnet.interface={wire}", f"ng.uids={uids}")
    rules, sysctls = run("nft", "list", "ruleset"), _sysctls()
    done = jail("-c", *words, *PYTHON, wire, stdin=NETPOWERS)
    assert done.returncode == 0, done.stderr
    came = json.loads(done.stdout)
    expected = {**dict.fromkeys(OWN, "ok"), **REFUSED}
    expected |= {name: "ENOENT" for name, path in _OPTIONAL.items() if not os.path.exists(path)}
    assert came == expected
    assert (run("nft", "list", "ruleset"), _sysctls()) == (rules, sysctls)


def test_nothing_else_than_the_network(wire: str, debian_python: Path, jail: Command) -> None:
    """What test_allow asks a jail with an address, a jail with vnet is asked, too."""
    words = (f"path={debian_python}", "vnet", f"vnet.interface={wire}")
    done = jail("-c", *words, *PYTHON, "1", stdin=_POWERS)
    assert done.returncode == 0, done.stderr
    # The group of those who may ping without a raw socket is root's to widen there: net.ipv4.ping_group_range.
    more = {"raw socket": "ok", "ping socket": "EACCES", "socket of packet": "ok", "route": "ok"}
    assert json.loads(done.stdout) == USUALLY | more


_WRITE_ALL = """
import os, sys
wrote = 0
for place, _, names in os.walk("/proc/sys/net"):
    for name in names:
        path = os.path.join(place, name)
        try:
            with open(path) as file:
                old = file.read().split()
        except OSError:
            continue
        for step in (1, -1, 2):
            try:
                new = " ".join(str(int(word) + step) for word in old)
                # What is no number may have words in it that are.
                fd = os.open(path, os.O_WRONLY)
            except (OSError, ValueError):
                break
            try:
                os.write(fd, new.encode())
                wrote += 1
                break
            except OSError:
                pass
            finally:
                os.close(fd)
print(wrote)
"""


def _sysctls() -> dict[str, str]:
    found = {}
    for path in Path("/proc/sys/net").rglob("*"):
        if path.is_file() and path.name != "nf_conntrack_count":
            try:
                found[str(path)] = path.read_text()
            except OSError:
                continue
    return found


@pytest.mark.parametrize("uids", ["private", "shared"])
def test_no_sysctl_of_the_hosts(jail: Command, uids: str) -> None:
    """Each that can be written to inside is written to."""
    before = _sysctls()
    done = jail("-c", "path=/", "vnet", f"ng.uids={uids}", *PYTHON, stdin=_WRITE_ALL)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 300
    changed = {path for path, text in _sysctls().items() if before.get(path) != text}
    assert changed == set()


def test_without_vnet_none_of_it_is_written_to(jail: Command) -> None:
    done = jail("-c", "path=/", "ip4.addr=192.0.2.77", *PYTHON, stdin=_WRITE_ALL)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_what_it_is_told(jail: Command, jls: Command, small_root: Path) -> None:
    assert jail("-c", "name=v", f"path={small_root}", "vnet", "persist").returncode == 0
    assert jls("-j", "v", "-n", "vnet", "ip4", "devfs_ruleset").stdout == "vnet=new ip4=inherit devfs_ruleset=0\n"
    assert jail("-m", "name=v", "devfs_ruleset=5").returncode == 0
    settings = shlex.split(jls("-s", "-j", "v").stdout)
    assert jail("-r", "v").returncode == 0
    made = jail("-c", *settings)
    assert (made.returncode, made.stderr) == (0, "")
    assert shlex.split(jls("-s", "-j", "v").stdout) == settings
    assert jail("-r", "v").returncode == 0
    script = "cat /dev/.jailng/self"
    done = jail("-c", f"path={small_root}", "vnet", "command=/bin/sh", "-c", script)
    assert "\nvnet=new\n" in done.stdout


# Neighbours


def test_two_jails_on_a_bridge_of_the_hosts(jail: Command, jexec: Command, small_root: Path) -> None:
    ip("link add bridge0 type bridge", "link set bridge0 up")
    for number in (0, 1):
        ip(
            f"link add epair{number}a type veth peer name epair{number}b",
            f"link set epair{number}a master bridge0 up",
        )
        start = f"ip address add 192.0.2.{number + 7}/24 dev epair{number}b && ip link set epair{number}b up"
        words = (f"name=v{number}", f"path={small_root}", "vnet", f"vnet.interface=epair{number}b", "persist")
        made = jail("-c", *words, f"exec.start={start}")
        assert made.returncode == 0, made.stderr
    try:
        assert "1 packets received" in jexec("v0", "/bin/ping", "-c", "1", "-W", "10", "192.0.2.8").stdout
        # The administrator's word, which nobody inside can change: what is isolated reaches no other that is.
        for number in (0, 1):
            run("bridge", "link", "set", "dev", f"epair{number}a", "isolated", "on")
        jexec("v0", "/bin/sh", "-c", "ip neigh flush dev epair0b")
        assert "0 packets received" in jexec("v0", "/bin/ping", "-c", "1", "-W", "1", "192.0.2.8").stdout
    finally:
        for number in (0, 1):
            assert jail("-r", f"v{number}").returncode == 0
        ip("link delete epair0a", "link delete epair1a", "link delete bridge0")


_LISTEN = """
import select, socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as heard:
    print("listening", flush=True)
    sys.stdin.readline()
    seen = set()
    while select.select([heard], [], [], 0)[0]:
        seen.add(heard.recv(4096)[42:].rstrip(b"\\0"))
    print(sorted(seen))
"""


def test_it_hears_its_own_wire_alone(wire: str, checkout: Path, small_root: Path, jail: Command) -> None:
    ip("link add other0 type veth peer name other1", "link set other0 up", "link set other1 up")
    script = small_root / "listen"
    argv = [str(checkout / "bin/jail"), "-c", "path=/", "vnet", f"vnet.interface={wire}"]
    argv += [f"exec.start=ip link set {wire} up", "command=/usr/bin/python3", "-IS", "-uc", _LISTEN]
    listener = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert listener.stdin is not None
    assert listener.stdout is not None
    try:
        assert listener.stdout.readline() == "listening\n"
        until_up("epair0a")
        for name, text in (("epair0a", b"for the jail"), ("other0", b"for another")):
            with Socket(socket.AF_PACKET, socket.SOCK_RAW) as made:
                made.bind((name, 0))
                made.send(b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb5" + bytes(28) + text.ljust(50, b"\0"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as local:
            local.sendto(bytes(60) + b"on the host's loopback", ("127.0.0.1", 9))
        listener.stdin.write("\n")
        listener.stdin.flush()
        heard = listener.stdout.readline()
        assert "for the jail" in heard
        assert "another" not in heard
        assert "loopback" not in heard
    finally:
        listener.communicate()
        ip("link delete other0")
    assert listener.returncode == 0
    assert not script.exists()


# Addresses by themselves

_LEASE = """#!/bin/sh
[ "$1" = bound ] && ip address add "$ip/$mask" dev "$interface" && ip route add default via "$router"
exit 0
"""


def test_dhcp(wire: str, jail: Command, small_root: Path, tmp_path: Path, stage: Stage) -> None:
    config = tmp_path / "udhcpd.conf"
    leases = tmp_path / "leases"
    leases.touch()
    config.write_text(
        f"start 192.0.2.50\nend 192.0.2.50\ninterface epair0a\nlease_file {leases}\npidfile {tmp_path}/pid\n"
        "option subnet 255.255.255.0\noption router 192.0.2.1\n"
    )
    (small_root / "lease").write_text(_LEASE)
    (small_root / "lease").chmod(0o755)
    daemon = subprocess.Popen(["busybox", "udhcpd", "-f", str(config)], stderr=subprocess.DEVNULL)
    try:
        script = f"ip link set {wire} up && udhcpc -q -n -f -i {wire} -s /lease >&2 && ip -o route && ip -o address"
        words = ("vnet", f"vnet.interface={wire}", "command=/bin/sh", "-c", script)
        done = jail("-c", f"path={small_root}", *words)
    finally:
        daemon.kill()
        daemon.wait()
    assert "default via 192.0.2.1 dev epair0b" in done.stdout, done.stderr
    assert "inet 192.0.2.50/24" in done.stdout


def test_router_advertisements(wire: str, checkout: Path) -> None:
    script = f"ip link set {wire} up; echo up; exec ip monitor address"
    argv = [str(checkout / "bin/jail"), "-c", "path=/", "vnet", f"vnet.interface={wire}"]
    inside = subprocess.Popen([*argv, "command=/bin/sh", "-c", script], stdout=subprocess.PIPE, bufsize=0)
    assert inside.stdout is not None
    try:
        assert inside.stdout.readline() == b"up\n"
        assert _advertise_until(inside.stdout.fileno(), b"2001:db8:77:")
    finally:
        inside.terminate()
        inside.communicate()


def _advertise_until(said: int, wanted: bytes) -> bool:
    """Send advertisements of a prefix until it is said there that there is such an address."""
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0)
    prefix += socket.inet_pton(socket.AF_INET6, "2001:db8:77::")
    message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix
    heard = b""
    until = time.monotonic() + 30
    with Socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as router:
        router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("epair0a"))
        while wanted not in heard and time.monotonic() < until:
            try:
                router.sendto(message, ("ff02::1", 0))
            except OSError:
                pass  # its own link-local address is still tentative
            if select.select([said], [], [], 0.3)[0]:
                heard += os.read(said, 4096)
    return wanted in heard


def test_it_is_no_router_because_the_machine_is_one() -> None:
    """Born on a machine that forwards, as one with containers does, it would take that over; FreeBSD's does not."""
    made = Stack()
    with made.entered():
        set_switch("ipv4/ip_forward", "1")
        connection.own_loopback(7).apply({"init": made.fd})
        values = [switch(f"ipv4/conf/{name}/forwarding") for name in ("all", "default", "lo")]
    made.end()
    assert values == ["0"] * 3


# Devices


def test_the_rule_set_of_jails_with_vnet(jail: Command, etc: Path) -> None:
    """Its default is rule set 5, in which the administrator may show more than in that of the others."""
    if not Path("/dev/net/tun").exists():
        pytest.skip("this machine has no /dev/net/tun")
    os.close(os.open("/dev/net/tun", os.O_RDWR))  # its module is the host's to load
    (etc / "devfs.rules").write_text(
        "[devfsrules_jail_vnet=5]\nadd include $devfsrules_jail\nadd path net/tun mode 666 unhide\n"
    )
    done = jail("-c", "path=/", "ip4.addr=192.0.2.7", "command=/bin/ls", "/dev/net")
    assert done.returncode != 0
    script = "ip tuntap add dev tap0 mode tap && ip link set tap0 up && ip -o link show dev tap0"
    done = jail("-c", "path=/", "vnet", "command=/bin/sh", "-c", script)
    assert "tap0" in done.stdout, done.stderr
    assert "tap0" not in run("ip", "link")


# Modules


def _loaded() -> set[str]:
    modules = Path("/proc/modules")
    return {line.split()[0] for line in modules.read_text().splitlines()} if modules.exists() else set()


def _loadable() -> str:
    """A kind of interface whose module is there and not loaded; "" where there is none."""
    for kind in ("nlmon", "dummy", "ifb", "macsec", "vcan"):
        known = subprocess.run(["modprobe", "-n", "-q", kind], capture_output=True).returncode == 0
        if known and kind not in _loaded():
            return kind
    return ""


def test_no_module_is_loaded_because_of_it(jail: Command) -> None:
    if not Path("/proc/sys/kernel/modprobe").exists():
        pytest.skip("this kernel has no modules")
    kind = _loadable()
    if not kind:
        pytest.skip("no module to try it with")
    before = _loaded()
    add = f"ip link add name new0 type {kind}"
    script = f"{add}; nft add table inet t '{{ chain c {{ type filter hook input priority 0; synproxy; }} }}'"
    done = jail("-c", "path=/", "vnet", "command=/bin/sh", "-c", script)
    assert done.returncode != 0
    assert _loaded() - before == set()
    run("modprobe", kind)
    done = jail("-c", "path=/", "vnet", "command=/bin/sh", "-c", f"{add} && ip -o link show dev new0")
    assert "new0" in done.stdout, done.stderr


def test_a_kernel_that_cannot_be_kept_from_it(jail: Command) -> None:
    """Where it takes no program there is no vnet."""
    if not Path("/proc/sys/kernel/modprobe").exists() or judges_types():
        pytest.skip("this kernel can")
    done = jail("-c", "path=/", "vnet", "persist")
    assert done.returncode == 1
    assert done.stderr.startswith("jail: vnet=new: this kernel would load modules for the jail's root")
