"""ng.stack=shared: FreeBSD's model, a jail on the host's stack that is held to its addresses."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import signal
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

import jailng
from jailng.api import connection
from jailng.core import registry
from jailng.linux import libc
from tests.kernel import confined
from tests.kernel.conftest import Command, Shim
from tests.kernel.networks import Namespace, attach, client, counter, datagrams, host_addresses, ip, run, server
from tests.kernel.stacked import (
    BEGIN,
    BOTH,
    HOST,
    HOST6,
    ONE,
    ONE6,
    PEER,
    PEER6,
    PYTHON,
    SEVERAL,
    TWO,
    TWO6,
    Inside,
    answers,
    ask,
    broker,
    caller,
    cell,
    having,
    lan,
)
from tests.kernel.stage import Stage
from tests.kernel.stdio_host import until

__all__ = ["cell", "lan"]  # fixtures


_LISTEN = "s = made(); s.bind(('', 21)); s.listen(); tell(name=s.getsockname(), pid=os.getpid()); "


def test_the_host_s_own_ss_lists_the_jail_s_listener_with_its_process(
    stage: Stage, cell: Namespace, checkout: Path
) -> None:
    with Inside(checkout, _LISTEN + "input()") as inside:
        assert inside.next()["name"] == [ONE, 21]
        shown = run("ss", "-Htlnp")
        found = re.search(rf"LISTEN .* {re.escape(ONE)}:21 .*\"python3\",pid=(\d+)", shown)
        assert found is not None, shown
        assert stage.processes()[int(found[1])] == "python3"
        assert f"{ONE}:21" in run("ss", "-Htan")


def test_it_is_reached_from_the_host_and_from_the_lan_and_sees_who_calls(cell: Namespace, checkout: Path) -> None:
    code = _LISTEN + "[tell(peer=s.accept()[1][0]) for _ in range(2)]"
    with Inside(checkout, code) as inside:
        inside.next()
        with client(ONE, 21):
            assert inside.next()["peer"] == HOST
        with cell.connect(ONE, 21):
            assert inside.next()["peer"] == PEER


def test_what_the_jail_does_not_listen_for_is_the_host_s(cell: Namespace, checkout: Path) -> None:
    """And as soon as it does, on a port that the host has not, it is the jail's."""
    on_host = server("0.0.0.0", 25)
    with cell.connect(ONE, 25):
        accepted, _ = on_host.accept()
        with accepted:
            assert accepted.getsockname()[0] == ONE
    assert ask(checkout, "tell(said=attempt(lambda: made().bind(('', 25))))")["said"] == "EADDRINUSE"


def test_it_speaks_from_its_address(cell: Namespace, checkout: Path) -> None:
    there = cell.listen(PEER, 80)
    heard = cell.datagrams(PEER, 53)
    code = f"""
c = made(); c.connect(("{PEER}", 80))
u = made(kind=SOCK_DGRAM); u.sendto(b"u", ("{PEER}", 53))
v = made(kind=SOCK_DGRAM); v.connect(("{PEER}", 53)); v.send(b"v")
tell(c=c.getsockname()[0], v=v.getsockname()[0]); input()"""
    with Inside(checkout, code) as inside:
        assert inside.next() == {"c": ONE, "v": ONE}
        assert caller(there) == ONE
        assert {heard.recvfrom(9)[0]: heard.recvfrom(9)[1][0]} == {b"u": ONE}


def test_binding_as_prison_local_ip4_has_it(cell: Namespace, checkout: Path) -> None:
    code = f"""
def bound(address, kind=SOCK_STREAM):
    one = made(kind=kind)
    return attempt(lambda: one.bind((address, 0)) or one.getsockname()[0])
tell(**{{f"{{kind.name}} {{a}}": bound(a, kind) for kind in (SOCK_STREAM, SOCK_DGRAM)
    for a in ("0.0.0.0", "127.0.0.1", "127.9.9.9", "{ONE}", "{HOST}", "{TWO}", "192.0.2.77")}})"""
    said = ask(checkout, code)
    for kind in ("SOCK_STREAM", "SOCK_DGRAM"):
        for address in ("0.0.0.0", "127.0.0.1", "127.9.9.9", ONE):
            assert said[f"{kind} {address}"] == ONE
        for address in (HOST, TWO, "192.0.2.77"):
            assert said[f"{kind} {address}"] == "EADDRNOTAVAIL"


def test_loopback_is_its_own_address(cell: Namespace, checkout: Path) -> None:
    """The host's is out of reach, by either protocol."""
    hidden = server("127.0.0.1", 6379)
    heard = datagrams("127.0.0.1", 6379)
    code = (
        _LISTEN
        + """
c = made(); c.connect(("127.0.0.1", 21)); d = made(); d.connect(("0.0.0.0", 21))
u = made(kind=SOCK_DGRAM); u.bind(("", 5353)); w = made(kind=SOCK_DGRAM); w.sendto(b"w", ("127.0.0.1", 5353))
tell(peers=[c.getpeername(), d.getpeername()], own=u.recvfrom(9)[1][0],
    host=attempt(lambda: made().connect(("127.0.0.1", 6379))),
    udp=attempt(lambda: made(kind=SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 6379))))"""
    )
    with Inside(checkout, code) as inside:
        inside.next()
        assert inside.next() == {"peers": [[ONE, 21], [ONE, 21]], "own": ONE, "host": "ECONNREFUSED", "udp": 1}
    assert not select.select([hidden, heard], [], [], 0)[0]
    with client("127.0.0.1", 6379):  # control
        assert select.select([hidden], [], [], 5)[0]


def test_a_family_without_an_address(cell: Namespace, checkout: Path) -> None:
    code = "tell(six=attempt(lambda: made(AF_INET6)), raw=attempt(lambda: made(AF_INET, SOCK_RAW, 1)), "
    code += "ping=attempt(lambda: made(AF_INET, SOCK_DGRAM, 1)), packet=attempt(lambda: made(AF_PACKET, SOCK_RAW)))"
    assert ask(checkout, code) == {"six": "EAFNOSUPPORT", "raw": "EPERM", "ping": "EPERM", "packet": "EAFNOSUPPORT"}


@BOTH
def test_ipv6(cell: Namespace, checkout: Path) -> None:
    there = cell.listen(PEER6, 80)
    code = f"""
def bound(address, kind=SOCK_STREAM, only=1):
    one = made(AF_INET6, kind); one.setsockopt(41, IPV6_V6ONLY, only)
    return attempt(lambda: one.bind((address, 0)) or one.getsockname()[0])
s = made(AF_INET6); s.bind(("::1", 21)); s.listen()
c = made(AF_INET6); c.connect(("::1", 21))
d = made(AF_INET6); d.connect(("{PEER6}", 80))
e = made(AF_INET6); f = attempt(lambda: e.connect(("::ffff:{PEER}", 80)))
u = made(AF_INET6, SOCK_DGRAM); u.bind(("{ONE6}", 5353))
made(AF_INET6, SOCK_DGRAM).sendto(b"w", ("::1", 5353))
tell(loop=bound("::1"), own=bound("{ONE6}"), host=bound("{HOST6}"), other=bound("{TWO6}"),
    mapped=bound("::ffff:{ONE}", only=0),
    mapped_any=bound("::ffff:0.0.0.0", only=0), mapped_host=bound("::ffff:{HOST}", only=0), any=bound("::"),
    listening=s.getsockname()[0], peer=c.getpeername()[0], out=d.getsockname()[0], four=e.getsockname()[0], f=f,
    udp=u.recvfrom(9)[1][0])
"""
    there4 = cell.listen(PEER, 80)
    said = ask(checkout, code)
    assert said == {
        "loop": ONE6, "own": ONE6, "host": "EADDRNOTAVAIL", "other": "EADDRNOTAVAIL", "mapped": f"::ffff:{ONE}",
        "mapped_any": f"::ffff:{ONE}", "mapped_host": "EADDRNOTAVAIL", "any": "::", "listening": ONE6, "peer": ONE6,
        "out": ONE6, "four": f"::ffff:{ONE}", "f": None, "udp": ONE6,
    }  # fmt: skip
    assert caller(there) == ONE6
    assert caller(there4) == ONE


@having(f"ip6.addr={ONE6}")
def test_ipv6_alone(cell: Namespace, checkout: Path) -> None:
    code = f"""
s = made(AF_INET6); s.bind(("::", 21))
u = made(AF_INET6, SOCK_DGRAM)
tell(name=s.getsockname()[0], four=attempt(made),
    mapped=attempt(lambda: made(AF_INET6).connect(("::ffff:{PEER}", 80))),
    bound=attempt(lambda: made(AF_INET6).bind(("::ffff:0.0.0.0", 0))),
    sent=attempt(lambda: u.sendto(b"x", ("::ffff:{PEER}", 53))))
"""
    assert ask(checkout, code) == {
        "name": ONE6, "four": "EAFNOSUPPORT", "mapped": "ENETUNREACH", "bound": "EADDRNOTAVAIL", "sent": "ENETUNREACH",
    }  # fmt: skip


@SEVERAL
def test_several_addresses(cell: Namespace, checkout: Path) -> None:
    """Bound to none it is reached by each of them and by no other; with IPv4 and IPv6 too."""
    code = """
s = made(AF_INET6); s.setsockopt(41, IPV6_V6ONLY, 0); s.bind(("::", 21)); s.listen()
t = made(); t.bind(("", 22)); t.listen()
tell(six=s.getsockname()[0], four=t.getsockname()[0])
for one, count in ((s, 4), (t, 2)):
    for _ in range(count): tell(reached=one.accept()[0].getsockname()[0])
tell(loop=[attempt(lambda: made().bind(("127.0.0.1", 0)))]); input()"""
    with Inside(checkout, code) as inside:
        assert inside.next() == {"six": "::", "four": "0.0.0.0"}
        for address in (ONE, TWO, ONE6, TWO6):
            with cell.connect(address, 21):
                assert inside.next()["reached"].removeprefix("::ffff:") == address
        for address in (ONE, TWO):
            with cell.connect(address, 22):
                assert inside.next()["reached"] == address
        for address, port in ((HOST, 21), (HOST6, 21), (HOST, 22), ("127.0.0.1", 22)):
            assert not answers(address, port)
        assert inside.next() == {"loop": [None]}


def test_a_hundred_addresses_are_listed(lan: Namespace, jail: Command, checkout: Path) -> None:
    """There may be 255, and who asks by SIOCGIFCONF, as ifconfig(8) does, is told of all."""
    many = [f"198.51.100.{last}" for last in range(100, 200)]
    ip(*[f"address add {address}/24 dev ep0" for address in many])
    words = ("ng.stack=shared", f"ip4.addr={','.join(many)}")
    assert jail("-c", "name=cell", "path=/", "persist", *words).returncode == 0
    code = """
import array, fcntl
buffer = array.array("B", bytes(16384))
count = struct.unpack("i", fcntl.ioctl(made(), 0x8912, struct.pack("iP", 16384, buffer.buffer_info()[0]))[:4])[0]
tell(listed=[inet_ntoa(bytes(buffer[at + 20:at + 24])) for at in range(0, count, 40)])"""
    assert ask(checkout, code)["listed"] == ["127.0.0.1", *many]
    assert jail("-r", "cell").returncode == 0


@pytest.mark.parametrize(("four", "six"), [(24, 64), (32, 128)])
def test_an_address_on_the_network_of_the_peer_goes_before_the_primary_one(
    lan: Namespace, jail: Command, checkout: Path, four: int, six: int
) -> None:
    """And so does one on the interface by which the host is in that network, be its own prefix what it may."""
    with attach("ep1", ("203.0.113.1/24", "2001:db8:2::1/64"), ("203.0.113.2/24", "2001:db8:2::2/64")) as other:
        ip(f"address add 203.0.113.9/{four} dev ep1", f"address add 2001:db8:2::9/{six} dev ep1 nodad")
        for address in ("203.0.113.2", "2001:db8:2::2"):
            is_six = ":" in address
            words = f"ip6.addr={ONE6},2001:db8:2::9" if is_six else f"ip4.addr={ONE},203.0.113.9"
            assert jail("-c", "name=cell", "path=/", "persist", "ng.stack=shared", words).returncode == 0
            heard, there = other.datagrams(address, 53), other.listen(address, 80)
            code = f"f = AF_INET{'6' if is_six else ''}; u = made(f, SOCK_DGRAM); u.sendto(b'x', ('{address}', 53)); "
            code += f"c = made(f); tell(said=c.connect(('{address}', 80)))"
            ask(checkout, code)
            wanted = "2001:db8:2::9" if is_six else "203.0.113.9"
            assert (heard.recvfrom(9)[1][0], caller(there)) == (wanted, wanted)
            assert jail("-r", "cell").returncode == 0


def test_others_are_spoken_to_from_the_interface_that_leads_there(
    lan: Namespace, jail: Command, checkout: Path
) -> None:
    """The first address is of the host's loopback."""
    private, private6 = "192.0.2.10", "2001:db8:5::10"
    ip(f"address add {private}/32 dev lo", f"address add {private6}/128 dev lo nodad")
    ip(f"route add default via {PEER}", f"route add default via {PEER6}")
    words = (f"ip4.addr={private},{ONE}", f"ip6.addr={private6},{ONE6}")
    assert jail("-c", "name=cell", "path=/", "persist", "ng.stack=shared", *words).returncode == 0
    for family, address, wanted in (("AF_INET", "192.0.0.8", ONE), ("AF_INET6", "100::1", ONE6)):
        code = f"u = made({family}, SOCK_DGRAM); u.connect(('{address}', 53)); tell(said=u.getsockname()[0])"
        assert ask(checkout, code)["said"] == wanted
    assert jail("-r", "cell").returncode == 0
    ip(f"address delete {private}/32 dev lo", f"address delete {private6}/128 dev lo")


def test_an_address_that_no_interface_has_can_be_bound_as_soon_as_one_does(
    lan: Namespace, jail: Command, checkout: Path
) -> None:
    made = jail("-c", "name=cell", "path=/", "persist", "ng.stack=shared", "ip4.addr=198.51.100.99")
    assert (made.returncode, made.stderr) == (0, "")
    code = f"tell(said=attempt(lambda: made().bind(('', 21))), out=attempt(lambda: made().connect(('{PEER}', 80))))"
    assert ask(checkout, code) == {"said": "EADDRNOTAVAIL", "out": "EADDRNOTAVAIL"}
    ip("address add 198.51.100.99/24 dev ep0")
    assert ask(checkout, code) == {"said": None, "out": "ECONNREFUSED"}
    assert jail("-r", "cell").returncode == 0
    ip("address delete 198.51.100.99/24 dev ep0")


@having("interface=ep0", "ip4.addr=198.51.100.20/24")
def test_alias_and_what_is_shown_inside(cell: Namespace, checkout: Path, jexec: Command, jls: Command) -> None:
    assert "198.51.100.20/24" in run("ip", "address", "show", "dev", "ep0")
    there = json.loads(jexec("cell", "ip", "-j", "address").stdout)
    (link,) = [one for one in there if one["ifname"] != "lo"]
    mac = json.loads(run("ip", "-j", "link", "show", "dev", "ep0"))[0]["address"]
    shown = [(one["local"], one["prefixlen"]) for one in link["addr_info"]]
    assert (link["ifname"], link["address"], shown) == ("ep0", mac, [("198.51.100.20", 24)])
    assert jls("-n", "-j", "cell", "ng.stack").stdout == "ng.stack=shared\n"
    code = "tell(found=getaddrinfo('198.51.100.2', 80, type=SOCK_STREAM, flags=AI_ADDRCONFIG)[0][4])"
    assert ask(checkout, code)["found"] == [PEER, 80]


def _addresses() -> set[tuple[str, str]]:
    """Of the host, with their interfaces; not what changes by itself."""
    return {(link["ifname"], one["local"]) for link in host_addresses() for one in link["addr_info"]}


def test_nothing_is_left_and_the_plan_says_what_is_done(lan: Namespace, jail: Command, stage: Stage) -> None:
    words = ("-c", "name=cell", "path=/", "ng.stack=shared", "interface=ep0", "ip4.addr=198.51.100.20/24")
    before = _addresses(), run("nft", "list", "ruleset")
    planned = jail("--plan", *words, "command=/bin/true").stdout
    assert "hold sockets of the host's stack to 198.51.100.20" in planned
    code = BEGIN + "s = made(); s.bind(('', 21)); s.listen(); tell(name=s.getsockname())"
    done = jail(*words, f"command={PYTHON}", "-ISc", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"name": ["198.51.100.20", 21]}
    assert (_addresses(), run("nft", "list", "ruleset")) == before
    until(lambda: "jail-sockets" not in stage.processes().values(), "there is no broker")


def test_exec_start_has_it_too_and_the_broker_ends_with_the_last_process(
    lan: Namespace, jail: Command, stage: Stage, tmp_path: Path
) -> None:
    code = "import socket; s = socket.socket(); s.bind(('', 2100)); print(s.getsockname()[0])"
    words = (f'exec.start={PYTHON} -ISc "{code}"', f"command={PYTHON}", "-ISc", code)
    done = jail("-c", "path=/", "ng.stack=shared", f"ip4.addr={ONE}", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ONE}\n{ONE}\n", "")
    until(lambda: "jail-sockets" not in stage.processes().values(), "there is no broker")


@having(f"ip4.addr={ONE}", "allow.noreserved_ports")
def test_ports_below_1024_without_the_permission(cell: Namespace, checkout: Path) -> None:
    code = "tell(low=attempt(lambda: made().bind(('', 21))), high=attempt(lambda: made().bind(('', 2121))))"
    assert ask(checkout, code) == {"low": "EACCES", "high": None}


def test_ports_below_1024_are_root_s(cell: Namespace, checkout: Path) -> None:
    code = "tell(low=attempt(lambda: made().bind(('', 21))), high=attempt(lambda: made().bind(('', 2121))))"
    assert ask(checkout, code, "-U", "nobody") == {"low": "EACCES", "high": None}
    assert ask(checkout, code) == {"low": None, "high": None}


def test_two_jails_of_one_address_share_its_ports(cell: Namespace, jail: Command, checkout: Path) -> None:
    made = jail("-c", "name=other", "path=/", "persist", "ng.stack=shared", f"ip4.addr={ONE}")
    assert (made.returncode, made.stderr) == (0, "")
    with Inside(checkout, _LISTEN + "input()") as inside:
        inside.next()
        code = BEGIN + "tell(said=[attempt(lambda: made().bind(('', port))) for port in (21, 22)])"
        done = subprocess.run([checkout / "bin/jexec", "other", PYTHON, "-ISc", code], capture_output=True, text=True)
        assert json.loads(done.stdout) == {"said": ["EADDRINUSE", None]}
    assert jail("-r", "other").returncode == 0


def test_without_the_broker_there_are_no_sockets_and_the_next_to_enter_has_another(
    cell: Namespace, checkout: Path, stage: Stage
) -> None:
    code = """
for _ in sys.stdin:
    tell(said=attempt(lambda: made().close()), unix=attempt(lambda: made(AF_UNIX).close()))"""
    with Inside(checkout, code) as inside:

        def said() -> Any:
            inside.go_on()
            return inside.next()

        assert said() == {"said": None, "unix": None}
        there = os.pidfd_open(broker(stage))
        signal.pidfd_send_signal(there, signal.SIGKILL)
        assert select.select([there], [], [], 60)[0]
        os.close(there)
        assert said() == {"said": "ENOSYS", "unix": None}
        assert ask(checkout, _LISTEN)["name"] == [ONE, 21]
        assert said() == {"said": "ENOSYS", "unix": None}
    assert broker(stage)


def test_every_user_s_socket_is_the_user_s(cell: Namespace, checkout: Path) -> None:
    """For the host's ss and firewall, and for SO_REUSEPORT, which shares with sockets of the same user."""
    base = int(registry.jails()[0].base)
    code = "s = made(); s.bind(('', 2121)); s.listen(); tell(uid=os.getuid()); input()"
    for options in ((), ("-U", "nobody")):
        with Inside(checkout, code, *options) as inside:
            uid = inside.next()["uid"]
            assert f"uid:{base + uid}" in run("ss", "-Htlne", "sport", "=", ":2121")


def test_refusals(lan: Namespace, jail: Command) -> None:
    refused = jail("-c", "path=/", "persist", "ng.stack=shared", f"ip4.addr={ONE}", "children.max=2")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "jail: ng.stack=shared: neither in a jail nor with jails in it (children.max)\n"
    refused = jail("-c", "path=/", "persist", "ng.stack=mine", f"ip4.addr={ONE}")
    assert (refused.returncode, refused.stderr) == (1, 'jail: ng.stack: unknown value "mine"\n')


def test_a_kernel_without_the_programs(lan: Namespace, checkout: Path, stage: Stage) -> None:
    """As one is to whoever is under a filter without bpf(2)."""
    number, missing = libc.NR["bpf"], 0x00050000 | errno.ENOSYS
    rules = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, missing), (6, 0, 0, 0x7FFF0000))
    program = b"".join([struct.pack("=HBBI", *rule) for rule in rules])
    jail = [str(checkout / "bin/jail"), "-c", "path=/", "persist", "ng.lenient"]
    argv = [*jail, "ng.stack=shared", f"ip4.addr={ONE}"]
    done = subprocess.run(argv, capture_output=True, text=True, preexec_fn=lambda: confined.attach(program))
    message = "jail: ng.stack=shared: BPF programs on a cgroup: Function not implemented\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)
    until(lambda: "jail-sockets" not in stage.processes().values(), "there is no broker")


def test_sockstat_and_ps_of_the_host_know_whose_they_are(cell: Namespace, checkout: Path, shim: Shim) -> None:
    with Inside(checkout, _LISTEN + "input()") as inside:
        inside.next()
        (row,) = [line.split() for line in shim("sockstat", "-4", "-j", "cell").stdout.splitlines()[1:]]
        assert row[1:2] + row[4:] == ["python3", "tcp4", f"{ONE}:21", "*:*"]
        assert f"{ONE}.21" in shim("netstat", "-an", "-f", "inet").stdout
        assert "jailinit" not in shim("ps", "-J", "cell", "-o", "args").stdout


def test_without_an_address_it_is_as_without_it(lan: Namespace, jail: Command, jexec: Command, stage: Stage) -> None:
    assert jail("-c", "name=cell", "path=/", "persist", "ng.stack=shared").returncode == 0
    until(lambda: "jail-sockets" not in stage.processes().values(), "there is no broker")
    code = BEGIN + "tell(said=attempt(made))"
    assert json.loads(jexec("cell", PYTHON, "-ISc", code).stdout) == {"said": "EAFNOSUPPORT"}
    assert jail("-r", "cell").returncode == 0


@having(f"ip6.addr={ONE6}", "ip4=inherit")
def test_all_of_ipv4_and_one_address_of_ipv6(cell: Namespace, checkout: Path) -> None:
    hidden = server("127.0.0.1", 6379)
    there = {PEER: cell.listen(PEER, 80), PEER6: cell.listen(PEER6, 80)}
    code = f"""
def bound(address, family=AF_INET):
    one = made(family)
    return attempt(lambda: one.bind((address, 0)) or one.getsockname()[0])
made().connect(("{PEER}", 80)); made(AF_INET6).connect(("{PEER6}", 80))
tell(four=[bound(a) for a in ("{HOST}", "{TWO}", "0.0.0.0", "127.0.0.1")],
    loop=attempt(lambda: made().connect(("127.0.0.1", 6379))),
    six=[bound(a, AF_INET6) for a in ("{HOST6}", "{ONE6}", "::1", "::ffff:{HOST}")],
    found={{one[4][0] for one in getaddrinfo("{PEER}", 80, flags=AI_ADDRCONFIG)}} == {{"{PEER}"}})"""
    said = ask(checkout, code)
    assert said["four"] == [HOST, TWO, "0.0.0.0", "127.0.0.1"]
    assert said["six"] == ["EADDRNOTAVAIL", ONE6, ONE6, f"::ffff:{HOST}"]
    assert (said["loop"], said["found"]) == (None, True)
    assert (caller(there[PEER]), caller(there[PEER6])) == (HOST, ONE6)
    hidden.close()


@having(f"ip4.addr={ONE}", "ip6=inherit")
def test_all_of_ipv6_and_one_address_of_ipv4(cell: Namespace, checkout: Path) -> None:
    code = f"""
def bound(address, family=AF_INET):
    one = made(family)
    return attempt(lambda: one.bind((address, 0)) or one.getsockname()[0])
s = made(AF_INET6); s.setsockopt(41, IPV6_V6ONLY, 0); s.bind(("::", 21)); s.listen()
tell(four=[bound(a) for a in ("{HOST}", "{ONE}", "127.0.0.1")], six=[bound(a, AF_INET6) for a in (
    "{HOST6}", "{TWO6}", "::1", "::ffff:{HOST}", "::ffff:127.0.0.1")]); input()"""
    with Inside(checkout, code) as inside:
        said = inside.next()
        assert said["four"] == ["EADDRNOTAVAIL", ONE, ONE]
        assert said["six"] == [HOST6, TWO6, "::1", "EADDRNOTAVAIL", f"::ffff:{ONE}"]
        for address in (HOST6, ONE6, "::1", ONE):
            assert answers(address, 21)
        for address in (HOST, TWO, "127.0.0.1"):
            assert not answers(address, 21)


@having("ip6=inherit")
def test_ipv6_of_the_host_and_no_ipv4(cell: Namespace, checkout: Path) -> None:
    code = f"""
u = made(AF_INET6, SOCK_DGRAM)
tell(four=attempt(made), six=attempt(lambda: made(AF_INET6).bind(("{HOST6}", 2121))),
    mapped=[attempt(lambda: made(AF_INET6).connect(("::ffff:{PEER}", 80))),
        attempt(lambda: made(AF_INET6).bind(("::ffff:{HOST}", 80))),
        attempt(lambda: u.sendto(b"x", ("::ffff:{PEER}", 53)))])"""
    said = ask(checkout, code)
    assert said.pop("mapped") == ["ENETUNREACH", "EADDRNOTAVAIL", "ENETUNREACH"]
    assert said == {"four": "EAFNOSUPPORT", "six": None}


def test_beside_a_jail_with_a_stack_of_its_own(cell: Namespace, jail: Command, checkout: Path) -> None:
    """It is reached as from the host; the way back is one to the host, which jails do not have."""
    made = jail("-c", "name=own", "path=/", "persist", f"ip4.addr={TWO}")
    assert (made.returncode, made.stderr) == (0, "")
    code = BEGIN + "s = made(); s.bind(('', 80)); s.listen(); tell(ready=1); tell(caller=s.accept()[1][0])"
    enter = [str(checkout / "bin/jexec"), "own", PYTHON, "-ISc"]
    with subprocess.Popen([*enter, code], stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        serving.stdout.readline()
        assert ask(checkout, f"tell(said=attempt(lambda: made().connect(('{TWO}', 80))))") == {"said": None}
        assert json.loads(serving.stdout.readline()) == {"caller": ONE}
    with Inside(checkout, _LISTEN + "input()") as inside:
        inside.next()
        code = f"s = made(); s.setblocking(False); s.connect_ex(('{ONE}', 21)); tell(sent=1)"
        assert subprocess.run([*enter, BEGIN + code], capture_output=True, text=True).stdout == '{"sent": 1}\n'
        assert counter("denied") >= 1
    assert jail("-r", "own").returncode == 0


def test_jails_of_a_file_and_one_in_another(lan: Namespace, jail: Command, jexec: Command, tmp_path: Path) -> None:
    file = tmp_path / "jail.conf"
    file.write_text(
        "ng.stack = shared; path = /; persist;\n"
        f'exec.start = "{PYTHON} -ISc \\"import socket; socket.create_server((\'\', 2100))\\"";\n'
        f"one {{ ip4.addr = {ONE}; }}\ntwo {{ ip4.addr = {TWO}; }}\n"
    )
    made = jail("-f", str(file), "-c", "*")
    assert (made.returncode, made.stderr) == (0, "")
    refused = jail("-c", "name=one.inner", "path=/", "persist", f"ip4.addr={ONE}", "ng.stack=shared")
    assert refused.returncode == 1
    removed = jail("-f", str(file), "-r", "*")
    assert (removed.returncode, removed.stderr) == (0, "")


def test_by_the_python_interface(lan: Namespace) -> None:
    code = "import socket; s = socket.socket(); s.bind(('', 2100)); print(s.getsockname()[0])"
    with jailng.Jail({"ip4.addr": ONE, "ng.stack": "shared"}, path="/") as made:
        for _ in range(2):
            assert made.run([PYTHON, "-ISc", code], capture_output=True, text=True).stdout == f"{ONE}\n"
    connection.close()
