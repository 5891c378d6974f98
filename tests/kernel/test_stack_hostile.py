"""ng.stack=shared against root inside: each way to the host's stack, and beside it the way that is the jail's to go."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace, client, datagrams, ip, server, set_switch
from tests.kernel.stacked import (
    BOTH,
    HOST,
    HOST6,
    ONE,
    ONE6,
    PEER,
    PEER6,
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

RAW = having(f"ip4.addr={ONE}", f"ip6.addr={ONE6}", "allow.raw_sockets")

_FROM = """
def message4(source): return [(SOL_IP, 8, struct.pack("=i4s4s", 0, inet_aton(source), bytes(4)))]  # IP_PKTINFO
def message6(source): return [(41, 50, inet_pton(AF_INET6, source) + bytes(4))]  # IPV6_PKTINFO
def sent(peer, source, connected):
    six = ":" in peer
    one = made(AF_INET6 if six else AF_INET, SOCK_DGRAM)
    if connected: one.connect((peer, 53))
    control = (message6 if six else message4)(source)
    return attempt(lambda: one.sendmsg([source.encode()], control, 0, *([] if connected else [(peer, 53)])) > 0)
"""


def _heard(listening: socket.socket) -> list[tuple[bytes, str]]:
    """What has arrived: each datagram with the address that it is from."""
    found = []
    while select.select([listening], [], [], 0)[0]:
        text, address = listening.recvfrom(99)
        found.append((text, address[0]))
    return found


@BOTH
def test_another_source_by_a_control_message(cell: Namespace, checkout: Path) -> None:
    heard = {PEER: cell.datagrams(PEER, 53), PEER6: cell.datagrams(PEER6, 53)}
    code = f"""{_FROM}
tell(said=[sent(peer, source, connected) for connected in (False, True)
    for peer, source in (("{PEER}", "{HOST}"), ("{PEER}", "{TWO}"), ("{PEER6}", "{HOST6}"), ("{PEER6}", "{TWO6}"))],
    own=[sent("{PEER}", "{ONE}", True), sent("{PEER6}", "{ONE6}", False)])"""
    said = ask(checkout, code)
    assert said["said"] == ["EADDRNOTAVAIL"] * 8
    assert said["own"] == [True, True]
    assert _heard(heard[PEER]) == [(ONE.encode(), ONE)]
    assert _heard(heard[PEER6]) == [(ONE6.encode(), ONE6)]


@BOTH
def test_a_sticky_source_and_an_ipv4_address_for_an_ipv6_socket(cell: Namespace, checkout: Path) -> None:
    heard = {PEER: cell.datagrams(PEER, 53), PEER6: cell.datagrams(PEER6, 53)}
    code = f"""
sticky = made(AF_INET6, SOCK_DGRAM)
sticky.setsockopt(41, 50, inet_pton(AF_INET6, "{HOST6}") + bytes(4))
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(name, one, flags):  # with a struct sockaddr_in, of which Python makes none for this socket
    address = struct.pack("=HH4s8x", AF_INET, htons(53), inet_aton("{PEER}"))
    if name == "connect": done = libc.connect(one.fileno(), address, 16)
    else: done = libc.sendto(one.fileno(), b"mixed", 5, flags, address, 16)
    return errno.errorcode[ctypes.get_errno()] if done < 0 else done
tell(sticky=attempt(lambda: sticky.sendto(b"sticky", ("{PEER6}", 53))),
    connect=call("connect", made(AF_INET6, SOCK_DGRAM), 0), sendto=call("sendto", made(AF_INET6, SOCK_DGRAM), 0))"""
    said = ask(checkout, code)
    assert said == {"sticky": 6, "connect": "EAFNOSUPPORT", "sendto": 5}
    assert _heard(heard[PEER]) == [(b"mixed", ONE)]
    assert _heard(heard[PEER6]) == [(b"sticky", ONE6)]  # Linux looks at its interface alone


@BOTH
def test_listening_without_binding_is_heard_of_at_its_address_alone(cell: Namespace, checkout: Path) -> None:
    code = """
s, t = made(), made(AF_INET6); s.listen(); t.listen()
tell(ports=[s.getsockname()[1], t.getsockname()[1]]); input()"""
    with Inside(checkout, code) as inside:
        four, six = inside.next()["ports"]
        assert answers(ONE, four)  # the control
        assert answers(ONE6, six)
        for address in (HOST, TWO, "127.0.0.1"):
            assert not answers(address, four)
        for address in (HOST6, TWO6, "::1", HOST, "127.0.0.1"):
            assert not answers(address, six)


def test_a_datagram_socket_that_the_kernel_binds_hears_what_is_for_its_address(cell: Namespace, checkout: Path) -> None:
    code = f"""
u = made(kind=SOCK_DGRAM); u.sendto(b"x", ("{PEER}", 53)); tell(port=u.getsockname()[1]); input()
tell(heard=u.recv(99).decode())
u.setblocking(False); tell(more=attempt(lambda: u.recv(99).decode()))"""
    with Inside(checkout, code) as inside:
        port = inside.next()["port"]
        for address in (HOST, TWO, "127.0.0.1", ONE):
            datagrams().sendto(address.encode(), (address, port))
        inside.go_on()
        assert (inside.next(), inside.next()) == ({"heard": ONE}, {"more": "EAGAIN"})


_TAKE = """
def taken(option, address, family=AF_INET):
    one = made(family, SOCK_DGRAM)
    one.setsockopt(SOL_SOCKET, option, 1)
    return attempt(lambda: one.bind((address, 5300)))
one = made(kind=SOCK_DGRAM); one.bind(("", 5301)); one.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
tell(said=[taken(SO_REUSEADDR, ""), taken(SO_REUSEPORT, ""), taken(SO_REUSEADDR, "::", AF_INET6)], port=5301); input()
"""


@pytest.mark.parametrize("cell", [[f"ip4.addr={ONE},{TWO}", f"ip6.addr={ONE6}", f"ng.uids={uids}"] for uids in (
    "private", "shared")], indirect=True, ids=["private", "shared"])  # fmt: skip
def test_ports_of_the_host_that_others_may_share(cell: Namespace, checkout: Path) -> None:
    """What a jail of several addresses binds to none would share them, and take what is for the host."""
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        with datagrams() as mine, datagrams() as second, datagrams() as third:
            for one in (mine, second, third):
                one.setsockopt(socket.SOL_SOCKET, option, 1)
            mine.bind(("0.0.0.0", 5300))
            second.bind(("0.0.0.0", 5300))  # the control: who is root of the host may
            second.close()
            with Inside(checkout, _TAKE) as inside:
                assert inside.next()["said"] == ["EADDRINUSE"] * 3
                if option == socket.SO_REUSEADDR:  # nor does the option afterwards open what the jail has
                    with pytest.raises(OSError, match="in use"):
                        third.bind(("0.0.0.0", 5301))
                for number in range(20):
                    datagrams().sendto(str(number).encode(), (HOST, 5300))
                assert len(_heard(mine)) == 20


def test_options_of_sockets(cell: Namespace, checkout: Path) -> None:
    """What is refused; and what is not, so that it can be seen that these would not fail by themselves."""
    code = f"""
def tried(level, option, value, kind=SOCK_DGRAM):
    return attempt(lambda: made(kind=kind).setsockopt(level, option, value))
group = inet_aton("224.0.0.251") + inet_aton("{ONE}")
tell(device=tried(SOL_SOCKET, 25, b"ep0"), index=tried(SOL_SOCKET, 62, 1),
    route=tried(SOL_IP, 4, bytes([131, 7, 4, 127, 0, 0, 1, 0])),
    unicast=tried(SOL_IP, 50, htonl(1)), group=tried(SOL_IP, 35, group), mcast=tried(SOL_IP, 42, bytes(136)),
    encapsulation=tried(17, 100, 2), ulp=tried(6, 31, b"tls", SOCK_STREAM), transparent=tried(SOL_IP, 19, 1),
    mark=tried(SOL_SOCKET, 36, 1), repair=tried(6, 19, 1, SOCK_STREAM), debug=tried(SOL_SOCKET, 1, 1))
tell(broadcast=tried(SOL_SOCKET, 6, 1), ttl=tried(SOL_IP, 2, 9), buffer=tried(SOL_SOCKET, 8, 9999),
    nodelay=tried(6, 1, 1, SOCK_STREAM),
    reuse=tried(SOL_SOCKET, 2, 1), filter=tried(SOL_SOCKET, 8, struct.pack("i", 9999) + bytes(9000)))
"""
    with Inside(checkout, code) as inside:
        refused = inside.next()
        assert refused.pop("debug") == "EACCES"  # the kernel's own word
        assert {refused.pop(name) for name in ("ulp", "encapsulation")} == {"ENOPROTOOPT"}  # of every jail's filter
        assert set(refused.values()) == {"EPERM"}, refused
        assert set(inside.next().values()) == {None}
    with datagrams() as control:
        control.setsockopt(socket.SOL_SOCKET, 25, b"ep0")
        control.setsockopt(socket.SOL_IP, 35, socket.inet_aton("224.0.0.251") + socket.inet_aton(HOST))


def test_a_source_route_to_the_host_s_loopback(cell: Namespace, checkout: Path) -> None:
    """Even where the host would follow it."""
    for name in ("all", "lo", "ep0"):
        set_switch(f"ipv4/conf/{name}/accept_source_route", "1")
    hidden = datagrams("127.0.0.1", 6379)
    code = f"""
def way(hop): return [(SOL_IP, 7, bytes([131, 7, 4]) + inet_aton(hop) + bytes(1))]  # LSRR
u = made(kind=SOCK_DGRAM)
tell(said=[attempt(lambda: u.sendmsg([b"x"], way(hop), 0, ("{ONE}", 6379))) for hop in ("127.0.0.1", "{PEER}")],
    own=attempt(lambda: u.sendmsg([b"x"], [], 0, ("{ONE}", 6380))))"""
    assert ask(checkout, code) == {"said": ["EPERM", "EPERM"], "own": 1}
    assert not _heard(hidden)
    for name in ("all", "lo", "ep0"):
        set_switch(f"ipv4/conf/{name}/accept_source_route", "0")


def test_protocols_that_no_program_sees(cell: Namespace, checkout: Path) -> None:
    code = """
tell(said=[attempt(lambda: made(AF_INET, kind, protocol)) for kind, protocol in
    ((SOCK_STREAM, 262), (SOCK_STREAM, 132), (SOCK_DGRAM, 136), (SOCK_DGRAM, 33), (SOCK_SEQPACKET, 132), (6, 33))],
    tcp=attempt(lambda: made(AF_INET, SOCK_STREAM, 6).close()),
    udp=attempt(lambda: made(AF_INET, SOCK_DGRAM, 17).close()))"""
    said = ask(checkout, code)
    assert said.pop("said") == ["EPROTONOSUPPORT"] * 4 + ["ESOCKTNOSUPPORT"] * 2
    assert said == {"tcp": None, "udp": None}


@having(f"ip4.addr={ONE}", "allow.socket_af", "allow.raw_sockets")
def test_other_families_are_of_the_empty_namespace(cell: Namespace, checkout: Path) -> None:
    """And other protocols of these families stay shut."""
    code = """
p = made(AF_PACKET, SOCK_RAW, htons(3))
tell(names=[name for _, name in if_nameindex()], said=[attempt(lambda: made(AF_INET, kind, protocol))
    for kind, protocol in ((SOCK_STREAM, 132), (SOCK_DGRAM, 136), (10, htons(3)))])  # SOCK_PACKET"""
    said = ask(checkout, code)
    assert said["names"] == ["lo", "ep0"]
    assert said["said"] == ["EPROTONOSUPPORT", "EPROTONOSUPPORT", "EPERM"]


def test_fast_open_and_a_connection_that_is_dissolved(cell: Namespace, checkout: Path) -> None:
    there = cell.listen(PEER, 80)
    hidden = server("127.0.0.1", 6379)
    code = f"""
f = made(); f.setblocking(True); f.sendto(b"fast", 0x20000000, ("{PEER}", 80))  # MSG_FASTOPEN
g = made(); g.setblocking(True); said = attempt(lambda: g.sendto(b"fast", 0x20000000, ("127.0.0.1", 6379)))
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
d = made(kind=SOCK_DGRAM); d.connect(("{PEER}", 53)); libc.connect(d.fileno(), bytes(16), 16)  # AF_UNSPEC
d.sendto(b"d", ("{PEER}", 53))
b = made(); bound = libc.bind(b.fileno(), bytes(16), 16)  # AF_UNSPEC and INADDR_ANY: as INADDR_ANY
tell(fast=f.getsockname()[0], said=said, dissolved=d.getsockname()[0],
    bound=[bound, errno.errorcode[ctypes.get_errno()]])"""
    said = ask(checkout, code)
    assert said == {"fast": ONE, "said": "ECONNREFUSED", "dissolved": ONE, "bound": [-1, "EAFNOSUPPORT"]}
    assert caller(there) == ONE
    assert not select.select([hidden], [], [], 0)[0]


@SEVERAL
def test_bound_to_none_with_a_port_it_cannot_connect(cell: Namespace, checkout: Path) -> None:
    """The kernel would take the host's address."""
    code = f"""
a = made(); a.bind(("", 2121)); b = made(); b.bind(("{TWO}", 2123))
c = made(AF_INET6); c.bind(("::", 2122))
tell(said=[attempt(lambda: a.connect(("{PEER}", 80))), attempt(lambda: c.connect(("{PEER6}", 80))),
    attempt(lambda: c.connect(("::ffff:{PEER}", 80)))], control=attempt(lambda: b.connect(("{PEER}", 80))))"""
    assert ask(checkout, code) == {"said": ["EADDRNOTAVAIL"] * 3, "control": "ECONNREFUSED"}


def test_the_host_s_interfaces_sockets_and_names(cell: Namespace, checkout: Path) -> None:
    """By ioctl(2), /proc, netlink and abstract sockets."""
    hidden = server("127.0.0.1", 6379)
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0jailng-test")
    abstract.listen()
    with hidden, abstract:
        code = """
import fcntl
one = made()
def asked(request, content=b"ep0"): return attempt(lambda: len(fcntl.ioctl(one, request, content.ljust(64, b"\\0"))))
tell(asked=[asked(request) for request in
        (0x890B, 0x8914, 0x8922, 0x8946, 0x8947, 0x8954, 0x894C, 0x89B0, 0x89F0, 0x8B01)],
    tcp=open("/proc/net/tcp").read().count("\\n"), unix="jailng-test" in open("/proc/net/unix").read(),
    dev=[line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]],
    route=open("/proc/net/route").read().count("ep0"),
    diag=attempt(lambda: socket(AF_NETLINK, SOCK_RAW, 4)), names=[name for _, name in if_nameindex()],
    abstract=attempt(lambda: made(AF_UNIX).connect("\\0jailng-test")), readable=asked(0x541B), at_mark=asked(0x8905))"""
        said = ask(checkout, code)
    assert said == {
        "asked": ["EPERM"] * 10, "tcp": 1, "unix": False, "dev": ["lo", "ep0"], "route": 0, "diag": "EAFNOSUPPORT",
        "names": ["lo", "ep0"], "abstract": "ECONNREFUSED", "readable": 64, "at_mark": 64,
    }  # fmt: skip


_PACKET = """
def packet(source, target, options=b""):
    udp = struct.pack("!HHHH", 9999, 53, 8 + 4, 0) + b"raw!"
    first = 0x45 + len(options) // 4
    head = struct.pack("!BBHHHBBH", first, 0, 20 + len(options) + len(udp), 1, 0, 9, 17, 0)
    return head + inet_aton(source) + inet_aton(target) + options + udp
"""


@RAW
def test_raw_sockets_have_the_jail_s_source_and_hear_what_is_for_it(cell: Namespace, checkout: Path) -> None:
    heard = cell.datagrams(PEER, 53)
    code = f"""{_PACKET}
r = made(AF_INET, SOCK_RAW, 255)
u = made(AF_INET, SOCK_RAW, 17)
free = made(AF_INET, SOCK_RAW, 17); rebound = attempt(lambda: free.bind(("{HOST}", 0)))
tell(name=r.getsockname()[0], spoofed=[attempt(lambda: r.sendto(packet(source, "{PEER}"), ("{PEER}", 0)))
    for source in ("{HOST}", "{TWO}", "192.0.2.7")],
    own=attempt(lambda: r.sendto(packet("{ONE}", "{PEER}"), ("{PEER}", 0))),
    options=attempt(lambda: r.sendto(packet("{ONE}", "{PEER}", bytes([1, 1, 1, 0])), ("{PEER}", 0))),
    loopback=attempt(lambda: r.sendto(packet("{ONE}", "127.0.0.1"), ("127.0.0.1", 0))),
    from_host=attempt(lambda: free.sendto(struct.pack("!HHHH", 9, 53, 8, 0), ("{PEER}", 0))),
    own_too=attempt(lambda: u.sendto(struct.pack("!HHHH", 9, 53, 8, 0), ("{PEER}", 0))),
    six=attempt(lambda: made(AF_INET6, SOCK_RAW, 58).sendto(bytes([128, 0, 0, 0, 0, 1, 0, 1]), ("{PEER6}", 0))),
    ping=attempt(lambda: made(AF_INET, SOCK_DGRAM, 1)))
input()
u.setblocking(False); free.setblocking(False)
tell(heard=[attempt(lambda: inet_ntoa(one.recv(99)[16:20])) for one in (u, u, free, free)])"""
    with Inside(checkout, code) as inside:
        said = inside.next()
        assert said["spoofed"] == ["EPERM"] * 3
        assert (said["from_host"], said["options"], said["loopback"]) == ("EPERM",) * 3
        assert (said["name"], said["own"], said["own_too"], said["six"]) == (ONE, 32, 8, 8)
        assert said["ping"] == "EACCES"
        assert {address for _, address in _heard(heard)} == {ONE}
        for address in (HOST, TWO, ONE):
            datagrams().sendto(b"y", (address, 5300))
        inside.go_on()
        assert inside.next()["heard"] == [ONE, "EAGAIN", "EAGAIN", "EAGAIN"]


@RAW
def test_errors_of_others_are_not_for_raw_sockets(cell: Namespace, checkout: Path) -> None:
    """Nobody listens at the peer: what ICMP brings back has in it what the host had sent."""
    code = f"""
four, six = made(AF_INET, SOCK_RAW, 17), made(AF_INET6, SOCK_RAW, 17)
four.bind(("", 0)); six.bind(("::", 0)); four.setblocking(False); six.setblocking(False)
options = [(four, SOL_IP, 11), (four, SOL_IP, 26), (six, 41, 25), (six, 41, 31)]
said = [attempt(lambda: one.setsockopt(level, name, 1)) for one, level, name in options]
u = made(kind=SOCK_DGRAM); u.setsockopt(SOL_IP, 11, 1); u.connect(("{PEER}", 9)); u.send(b"own")
tell(said=said, alert=[attempt(lambda: made(AF_INET, SOCK_RAW, 17).setsockopt(SOL_IP, 5, 1)),
    attempt(lambda: made(AF_INET6, SOCK_RAW, 255).setsockopt(41, 22, 1))])
input()
tell(own=attempt(lambda: u.recvmsg(99, 512, 0x2000)[0].decode()),  # MSG_ERRQUEUE
    others=[attempt(lambda: str(one.recvmsg(99, 512, 0x2000)[0])) for one in (four, six)])"""
    with Inside(checkout, code) as inside:
        said = inside.next()
        assert said == {"said": [None] * 4, "alert": ["EPERM"] * 2}
        for source, target in ((HOST, PEER), (HOST6, PEER6)):
            with datagrams(source) as one:
                one.setsockopt(*((41, 25) if ":" in target else (socket.SOL_IP, 11)), 1)
                one.sendto(b"of the host's", (target, 9))
                assert select.select([one], [], [], 20)[0]  # the control: the error has come
                assert one.recvmsg(99, 512, socket.MSG_ERRQUEUE)[0] == b"of the host's"
        inside.go_on()
        assert inside.next() == {"own": "own", "others": ["EAGAIN", "EAGAIN"]}


@RAW
def test_multicast_is_the_host_s_to_route(cell: Namespace, checkout: Path) -> None:
    """Whoever is the first to ask for it may route it between the host's interfaces."""
    mrt_init = 200
    code = f"""
four, six = made(AF_INET, SOCK_RAW, 2), made(AF_INET6, SOCK_RAW, 58)
tell(said=[attempt(lambda: one.setsockopt(level, {mrt_init}, 1)) for one, level in ((four, SOL_IP), (six, 41))])
input()"""
    switches = [Path(f"/proc/sys/net/{family}/conf/all/mc_forwarding") for family in ("ipv4", "ipv6")]
    with Inside(checkout, code) as inside:
        assert inside.next() == {"said": ["EPERM", "EPERM"]}
        assert [switch.read_text() for switch in switches if switch.exists()] == ["0\n"] * 2
        inside.go_on()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 2) as control:
        control.setsockopt(socket.SOL_IP, mrt_init, 1)
        assert switches[0].read_text() == "1\n"


@RAW
def test_nobody_on_the_lan_is_told_where_the_host_is(cell: Namespace, checkout: Path) -> None:
    """Neighbour advertisements, plain and behind an option; a ping behind that, and plain, as the control."""
    code = f"""
def packet(kind):
    about = inet_pton(AF_INET6, "{HOST6}") + bytes([2, 1, 2, 0, 0, 0, 0, 7])
    return struct.pack("!BBHI", kind, 0, 0, 0x20000000) + about
def disguised(kind):
    content, option = packet(kind), bytes([58, 0, 1, 4, 0, 0, 0, 0])
    addresses = inet_pton(AF_INET6, "{ONE6}") + inet_pton(AF_INET6, "{PEER6}")
    total = sum(struct.unpack("!40H", addresses + struct.pack("!II", len(content), 58) + content + bytes(8)))
    content = content[:2] + struct.pack("!H", ~(total % 0xFFFF) & 0xFFFF) + content[4:]
    return struct.pack("!IHBB", 0x60000000, 8 + len(content), 60, 255) + addresses + option + content
one, free = made(AF_INET6, SOCK_RAW, 58), made(AF_INET6, SOCK_RAW, 255)
one.setsockopt(41, 16, 255)  # IPV6_UNICAST_HOPS
tell(said=[attempt(lambda: one.sendto(packet(kind), ("{PEER6}", 0))) for kind in (133, 134, 135, 136, 137)],
    behind=attempt(lambda: free.sendto(disguised(136), ("{PEER6}", 0))),
    ping=attempt(lambda: one.sendto(packet(128), ("{PEER6}", 0))))"""
    told = cell.listen(PEER6, 80)
    client(PEER6, 80).close()  # the peer knows where the host is
    told.accept()[0].close()
    said = ask(checkout, code)
    assert said == {"said": ["EPERM"] * 5, "behind": "EPERM", "ping": 32}
    with cell.entered():
        known = subprocess.run(["ip", "-6", "neigh"], capture_output=True, text=True, check=True).stdout
    assert HOST6 in known
    assert "02:00:00:00:00:07" not in known


@RAW
def test_ping_goes_and_raw_sockets_are_root_s(cell: Namespace, checkout: Path, jexec: Command) -> None:
    done = jexec("cell", "ping", "-c1", "-W5", PEER)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    code = """
import ctypes
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # not dumpable: its files in /proc are root's then
tell(said=attempt(lambda: made(AF_INET, SOCK_RAW, 1)), tcp=attempt(lambda: made().close()))"""
    assert ask(checkout, code, "-U", "nobody") == {"said": "EPERM", "tcp": None}


def test_whoever_has_the_jail_s_socket_is_held_too(cell: Namespace, checkout: Path, stage: Stage) -> None:
    """Root of the host here; another jail is no more than that."""
    with Inside(checkout, "s = made(); tell(fd=s.fileno()); input()") as inside:
        fd = inside.next()["fd"]
        (pid,) = [pid for pid, name in stage.processes().items() if name == "python3" and _is_inside(pid)]
        taken = socket.socket(fileno=_taken(pid, fd))
        with taken:
            for address in (HOST, TWO):
                with pytest.raises(OSError, match="Cannot assign"):
                    taken.bind((address, 2121))
            with pytest.raises(OSError, match="not permitted"):
                taken.setsockopt(socket.SOL_SOCKET, 25, b"ep0")
            taken.bind(("0.0.0.0", 2121))
            assert taken.getsockname()[0] == ONE


def _is_inside(pid: int) -> bool:
    return "/jailng/" in Path(f"/proc/{pid}/cgroup").read_text()


def _taken(pid: int, fd: int) -> int:
    import ctypes

    pidfd = os.pidfd_open(pid)
    found = ctypes.CDLL(None).syscall(438, pidfd, fd, 0)  # pidfd_getfd
    os.close(pidfd)
    assert found >= 0
    return int(found)


def test_a_limit_of_descriptors_and_callers_that_die_meanwhile(
    cell: Namespace, checkout: Path, stage: Stage, jexec: Command
) -> None:
    before = broker(stage)
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
held = []
def fill():
    while True: held.append(socket(AF_INET, SOCK_STREAM))
tell(said=attempt(fill), some=len(held) > 5)"""
    assert ask(checkout, code) == {"said": "EMFILE", "some": True}
    code = """
import signal, threading
def flood():
    while True: socket(AF_INET, SOCK_STREAM).close()
children = []
for number in range(30):
    pid = os.fork()
    if pid == 0:
        for _ in range(3): threading.Thread(target=flood, daemon=True).start()
        flood()
    children.append(pid)
for number in range(200): made().close()
for pid in children: os.kill(pid, signal.SIGKILL)
for pid in children: os.waitpid(pid, 0)
tell(mine=attempt(lambda: made().close()))"""
    assert ask(checkout, code) == {"mine": None}
    assert broker(stage) == before
    until(lambda: len(os.listdir(f"/proc/{before}/fd")) <= 5, "what they had it open for is closed")


def test_the_broker_is_out_of_reach(cell: Namespace, checkout: Path, stage: Stage, jexec: Command) -> None:
    before = broker(stage)
    code = """
import signal
seen = [name for name in os.listdir("/proc") if name.isdigit() and "sockets" in open(f"/proc/{name}/comm").read()]
pid = os.fork()
if pid == 0:
    os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try: os.kill(-1, signal.SIGCONT)
    finally: os._exit(0)
os.waitpid(pid, 0)
tell(seen=seen, mine=attempt(lambda: made().close()))"""
    assert ask(checkout, code) == {"seen": [], "mine": None}
    assert broker(stage) == before
    for text in Path(f"/proc/{before}/status").read_text().splitlines():
        if text.startswith(("CapPrm", "CapEff", "CapBnd")):
            assert (
                int(text.split()[1], 16) == 1 << 0 | 1 << 1 | 1 << 13 | 1 << 19
            )  # CHOWN, DAC_OVERRIDE, NET_RAW, SYS_PTRACE


def test_its_own_filters_do_not_get_it_more(cell: Namespace, checkout: Path) -> None:
    """One that would listen itself is refused (EBUSY); one that allows all is the weaker of the two."""
    code = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def install(action, flags):
    rule = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, action), 8)
    program = ctypes.create_string_buffer(struct.pack("=H6xQ", 1, ctypes.addressof(rule)), 16)
    return errno.errorcode[ctypes.get_errno()] if libc.syscall(317, 1, flags, program) < 0 else "done"
libc.prctl(38, 1, 0, 0, 0)
said = [install(0x7FC00000, 8), install(0x7FFF0000, 0)]
tell(said=said, host=attempt(lambda: made().bind(("{HOST}", 2121))),
    own=attempt(lambda: made().bind(("{ONE}", 2121))))"""
    assert ask(checkout, code) == {"said": ["EBUSY", "done"], "host": "EADDRNOTAVAIL", "own": None}


def test_interfaces_are_those_of_the_jail_whichever_socket_is_asked(
    cell: Namespace, checkout: Path, stage: Stage, jexec: Command, small_root: Path, jail: Command
) -> None:
    ip("link add other type veth peer name behind")
    code = """
import array, fcntl
def asked(one, request, name):
    found = attempt(lambda: fcntl.ioctl(one, request, name.ljust(40, b"\\0")))
    return found if isinstance(found, str) else inet_ntoa(found[20:24])
def listed(one, room):
    buffer = array.array("B", bytes(room))
    count = struct.unpack("i", fcntl.ioctl(one, 0x8912, struct.pack("iP", room, buffer.buffer_info()[0]))[:4])[0]
    return [bytes(buffer[at:at + 16]).rstrip(b"\\0").decode() for at in range(0, count, 40)]
for one in (made(), made(kind=SOCK_DGRAM), made(AF_UNIX)):
    tell(address=asked(one, 0x8915, b"ep0"), other=asked(one, 0x8933, b"other"), listed=listed(one, 4000),
        some=listed(one, 40),
        size=struct.unpack("i", fcntl.ioctl(one, 0x8912, struct.pack("iP", 0, 0))[:4])[0], index=if_nametoindex("ep0"))
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
def raw(place):
    failed = libc.ioctl(one.fileno(), ctypes.c_ulong(0x8912), ctypes.c_void_p(place)) < 0
    return errno.errorcode[ctypes.get_errno()] if failed else "done"
tell(bad=[raw(0), raw(8), raw(2**63 + 8), raw(2**64 - 8)])"""
    with Inside(checkout, code) as inside:
        for _ in range(3):
            assert inside.next() == {
                "address": ONE, "other": "ENODEV", "listed": ["lo", "ep0"], "some": ["lo"], "size": 80, "index": 2,
            }  # fmt: skip
        assert inside.next() == {"bad": ["EFAULT"] * 4}
    ip("link delete other")
    words = ("ng.stack=shared", f"ip4.addr={ONE}", "command=/bin/busybox", "ifconfig")
    done = jail("-c", f"path={small_root}", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"inet addr:{ONE}" in done.stdout


@pytest.fixture
def hops(cell: Namespace) -> Iterator[None]:
    """The peer is a router, to networks that the host reaches by it."""
    with cell.entered():
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        (interface,) = [name for _, name in socket.if_nameindex() if name != "lo"]
    routes = {_FAR: PEER, _FAR6: PEER6}
    for target, peer in routes.items():
        cell.run("ip", "route", "add", target, "dev", interface)
        ip(f"route add {target} via {peer}")
    yield
    ip(*[f"route delete {target}" for target in routes])


_FAR, _FAR6 = "203.0.113.9", "2001:db8:9::9"
_ERRORS = f"""
import ctypes
def dissolve(one): return ctypes.CDLL(None).connect(one.fileno(), bytes(28), 28)  # AF_UNSPEC
def raw(protocol=17, far="{_FAR}", told=True, bound=None):
    family, ttl, queue = (AF_INET6, (41, 16), (41, 25)) if ":" in far else (AF_INET, (SOL_IP, IP_TTL), (SOL_IP, 11))
    one = made(family, SOCK_RAW, protocol)
    one.setsockopt(*ttl, 1)
    if bound is not None: one.bind((bound, 0))
    if far: one.connect((far, 0))
    if told: one.setsockopt(*queue, 1)
    one.setblocking(False)
    return one
def queued(one): return attempt(lambda: list(one.recvmsg(99, 512, 0x2000)[0]))  # MSG_ERRQUEUE
"""


def _told_of_an_error(source: str) -> None:
    """The host sends a datagram from there, and has heard that it went too far."""
    target, six = (_FAR6, True) if ":" in source else (_FAR, False)
    with datagrams(source) as one:
        one.setsockopt(*((41, 16) if six else (socket.SOL_IP, socket.IP_TTL)), 1)
        one.setsockopt(*((41, 25) if six else (socket.SOL_IP, 11)), 1)
        one.sendto(b"of others", (target, 9))
        assert select.select([one], [], [], 20)[0]
        assert one.recvmsg(99, 512, socket.MSG_ERRQUEUE)[0] == b"of others"


@RAW
def test_a_traceroute_by_raw_sockets_finds_the_hops(cell: Namespace, hops: None, checkout: Path) -> None:
    """One is connected, and is told of errors by a queue; another reads them, and sees those of the jail's alone."""
    code = f"""{_ERRORS}
import select
def echo(kind): return struct.pack("!BBHHH", kind, 0, 0xFFFF - (kind << 8) - 1, 0, 1)
def told(one, kind):
    one.send(echo(kind))
    if not select.select([one], [], [], 20)[0]: return "nothing"
    content, control, _, _ = one.recvmsg(99, 512, 0x2000)
    (error,) = [list(data[4:7]) for _, _, data in control if len(data) >= 16][-1:]  # origin, type, code
    return [content[0] == kind, error]
four, six, reads = raw(1), raw(58, "{_FAR6}"), made(AF_INET, SOCK_RAW, 1)
input()
said = [told(four, 8), told(six, 128)]
packet = reads.recv(512)
message = packet[packet[0] % 16 * 4:]
tell(said=said, read=[*message[:2], inet_ntoa(message[20:24])])"""
    with Inside(checkout, code) as inside:
        for source in (HOST, TWO, HOST6):
            _told_of_an_error(source)
        inside.go_on()
        said = inside.next()
    assert said == {"said": [[True, [2, 11, 0]], [True, [3, 3, 0]]], "read": [11, 0, ONE]}


@RAW
def test_raw_sockets_are_not_told_of_the_errors_of_others(cell: Namespace, hops: None, checkout: Path) -> None:
    """Whatever they were bound to, or are in the end."""
    code = f"""{_ERRORS}
def bound(one, address): return attempt(lambda: one.bind((address, 0)))
def again(one, far):
    dissolve(one); bound(one, ""); bound(one, "{HOST}" if "." in far else "{HOST6}")
    attempt(lambda: one.connect((far, 0)))
    return one
kept, six = raw(), raw(17, "{_FAR6}")
changed = [bound(kept, ""), bound(kept, "{HOST}"), bound(kept, "{TWO}"), bound(six, "::"), bound(six, "{HOST6}")]
ways = dict(
    plain=raw(17, ""), any=raw(bound=""), host=raw(bound="{HOST}"), six=raw(17, "{_FAR6}", bound="{HOST6}"),
    any6=raw(17, "{_FAR6}", bound="::"), again=again(raw(), "{_FAR}"), again6=again(raw(17, "{_FAR6}"), "{_FAR6}"),
    late=again(raw(told=False), "{_FAR}"), shut=raw(), no=raw(far="0.0.0.0"), kept=kept, kept6=six)
attempt(lambda: ways["shut"].shutdown(SHUT_RDWR)); bound(ways["shut"], "{HOST}")
ways["late"].setsockopt(SOL_IP, 11, 1)
dissolved = raw(); dissolve(dissolved); ways["dissolved"] = dissolved; bound(dissolved, "")
tell(changed=changed)
input()
tell(**{{name: [queued(one), attempt(lambda: one.getsockopt(SOL_SOCKET, SO_ERROR))] for name, one in ways.items()}})"""
    with Inside(checkout, code) as inside:
        assert inside.next() == {"changed": ["EINVAL"] * 5}
        for source in (HOST, TWO, HOST6):
            _told_of_an_error(source)
        inside.go_on()
        said = inside.next()
    assert len(said) == 13 and all(found == ["EAGAIN", 0] for found in said.values()), said
