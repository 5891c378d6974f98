"""A program for the inside of a jail with vnet: what its root can do to a network, tried one by one, as a line of JSON.

It stands alone: a jail gets it on standard input. What came of each is the word "ok", or the errno.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable

_ROUTE, _NETFILTER, _GENERIC = 0, 12, 16
_SIOCETHTOOL, _SIOCSMIIREG, _SIOCDEVPRIVATE, _SIOCSIFTXQLEN = 0x8946, 0x8949, 0x89F0, 0x8943
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_libc = ctypes.CDLL(None, use_errno=True)
WIRE = sys.argv[1]
done: dict[str, str] = {}


def attempt(name: str, action: Callable[[], object]) -> None:
    try:
        action()
        done[name] = "ok"
    except OSError as error:
        done[name] = errno.errorcode.get(error.errno or 0, str(error.errno))


def tool(*words: str) -> None:
    """A command that must succeed. Raises OSError with what it said for a name."""
    ran = subprocess.run(words, capture_output=True, text=True)
    if ran.returncode:
        print(" ".join(words), ran.stderr, file=sys.stderr)
        raise OSError(255, ran.stderr)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def ask(protocol: int, kind: int, flags: int, body: bytes) -> bytes:
    """The first answer to a netlink request. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as made:
        made.settimeout(10)
        made.send(struct.pack("IHHII", 16 + len(body), kind, 1 | 4 | flags, 1, 0) + body)
        answer = made.recv(65536)
    refuse(answer)
    return answer


def refuse(answer: bytes) -> None:
    """Raises OSError where an answer is an error, or the end of a list that there is not."""
    code = struct.unpack_from("i", answer, 16)[0]
    if struct.unpack_from("H", answer, 4)[0] in (2, 3) and code:
        raise OSError(-code, os.strerror(-code))


def move_out(kind: int, value: int) -> None:
    """RTM_SETLINK of the wire with IFLA_NET_NS_PID (19) or IFLA_NET_NS_FD (28)."""
    index = socket.if_nametoindex(WIRE)
    body = struct.pack("BxHiII", 0, 0, index, 0, 0) + attribute(kind, struct.pack("I", value))
    ask(_ROUTE, 19, 0, body)


def peers_namespace() -> bytes:
    """What the namespace at the other end of the wire is called here: IFLA_LINK_NETNSID."""
    answer = ask(_ROUTE, 18, 0, struct.pack("BxHiII", 0, 0, socket.if_nametoindex(WIRE), 0, 0))
    at = 32
    while at + 4 <= len(answer):
        length, kind = struct.unpack_from("HH", answer, at)
        if kind == 37:
            return answer[at + 4 : at + 8]
        at += (length + 3) & ~3
    raise OSError(errno.ENODATA, "no such")


def look_there() -> None:
    """RTM_GETLINK with IFLA_TARGET_NETNSID."""
    there = attribute(46, peers_namespace())
    ask(_ROUTE, 18, 0x300, struct.pack("BxHiII", 0, 0, 0, 0, 0) + there)


def addresses_there() -> None:
    """RTM_GETADDR with IFA_TARGET_NETNSID, which only a strict socket hears."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _ROUTE) as made:
        made.setsockopt(270, 12, 1)
        body = struct.pack("BBBBI", 2, 0, 0, 0, 0) + attribute(10, peers_namespace())
        made.send(struct.pack("IHHII", 16 + len(body), 22, 0x301, 1, 0) + body)
        refuse(made.recv(65536))


def make_link(*parts: bytes, kind: bytes = b"bridge") -> None:
    body = struct.pack("BxHiII", 0, 0, 0, 0, 0) + b"".join(parts) + attribute(18 | 0x8000, attribute(1, kind))
    ask(_ROUTE, 16, 0x600, body)


def interface_ioctl(number: int) -> None:
    with socket.socket() as made:
        memory = ctypes.create_string_buffer(struct.pack("II", 3, 0).ljust(256, b"\0"))  # ETHTOOL_GDRVINFO
        request = struct.pack("16sQ", WIRE.encode(), ctypes.addressof(memory)).ljust(40, b"\0")
        fcntl.ioctl(made, number, request)


def call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def family(name: bytes) -> int:
    """The number of a generic netlink family: CTRL_CMD_GETFAMILY. Raises OSError (ENOENT)."""
    answer = ask(_GENERIC, 16, 0, struct.pack("BBxx", 3, 1) + attribute(2, name + b"\0"))
    at = 20
    while at + 4 <= len(answer):
        length, kind = struct.unpack_from("HH", answer, at)
        if kind == 1:
            return int(struct.unpack_from("H", answer, at + 4)[0])
        at += (length + 3) & ~3
    raise OSError(errno.ENOENT, "family")


def packet() -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as made:
        made.bind((WIRE, 0))
        made.send(b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb5" + b"from inside".ljust(50, b"\0"))


def open_socket(*words: int) -> None:
    socket.socket(*words).close()


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


for name, command in {
    "address": f"ip address add 192.0.2.2/24 dev {WIRE}",
    "up": f"ip link set {WIRE} up",
    "MAC address": f"ip link set {WIRE} address 02:00:00:00:00:99",
    "neighbour": f"ip neighbour add 192.0.2.77 lladdr 02:00:00:00:00:77 dev {WIRE}",
    "route": "ip route add 203.0.113.0/24 via 192.0.2.1",
    "rule": "ip rule add from 203.0.113.7 lookup 100",
    "veth": "ip link add inner0 type veth peer name inner1",
    "bridge": "ip link add bridge0 type bridge",
    "member of a bridge": "ip link set inner0 master bridge0",
    "macvlan": f"ip link add mac0 link {WIRE} type macvlan",
    "vxlan": f"ip link add vx0 type vxlan id 7 dev {WIRE} dstport 4789",
    "queueing": f"ip link set {WIRE} txqueuelen 7",
    "nft": "nft add table inet mine",
    "nft's filter": "nft add chain inet mine in { type filter hook input priority 0; policy accept; }",
    "nft's NAT": "nft add chain ip mine post { type nat hook postrouting priority 100; }",
}.items():
    if name == "nft's NAT":
        tool("nft", "add", "table", "ip", "mine")
    attempt(name, lambda words=command: tool(*words.split()))  # type: ignore[misc]

attempt("packets", packet)
attempt("raw socket", lambda: open_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
attempt("raw socket of IPv6", lambda: open_socket(socket.AF_INET6, socket.SOCK_RAW, 58))
attempt("forwarding", lambda: write("/proc/sys/net/ipv4/ip_forward", "1"))
attempt("forwarding of IPv6", lambda: write("/proc/sys/net/ipv6/conf/all/forwarding", "1"))
attempt("generic netlink", lambda: family(b"nlctrl"))

# Further than its own stack.
attempt("host name", lambda: call("sethostname", ctypes.create_string_buffer(b"x"), 1))  # type: ignore[arg-type]
attempt("sysctl of the kernel", lambda: write("/proc/sys/kernel/domainname", "x"))
attempt("sysctl of netfilter", lambda: os.close(os.open("/proc/sys/net/netfilter/nf_hooks_lwtunnel", os.O_WRONLY)))
attempt("sysctl of bridges", lambda: os.close(os.open("/proc/sys/net/bridge/bridge-nf-call-iptables", os.O_WRONLY)))
attempt("sysctl of the machine's memory", lambda: os.close(os.open("/proc/sys/net/core/rmem_max", os.O_WRONLY)))
attempt("new network namespace", lambda: call("unshare", _CLONE_NEWNET))
attempt("new user namespace", lambda: call("unshare", _CLONE_NEWUSER))
attempt("own namespace again", lambda: call("setns", os.open("/proc/self/ns/net", os.O_RDONLY), _CLONE_NEWNET))
attempt("bpf", lambda: call("syscall", 321, 5, 0, 0))
attempt("perf", lambda: call("syscall", 298, 0, 0, -1, -1, 0))
attempt("ethtool", lambda: interface_ioctl(_SIOCETHTOOL))
attempt("transceiver", lambda: interface_ioctl(_SIOCSMIIREG))
attempt("driver's own", lambda: interface_ioctl(_SIOCDEVPRIVATE + 3))
attempt("kernel's queue", lambda: interface_ioctl(_SIOCSIFTXQLEN))
attempt("netlink of XFRM", lambda: open_socket(socket.AF_NETLINK, socket.SOCK_RAW, 6))
attempt("netlink of uevents", lambda: open_socket(socket.AF_NETLINK, socket.SOCK_RAW, 15))
attempt("netlink of audit", lambda: open_socket(socket.AF_NETLINK, socket.SOCK_RAW, 9))
attempt("netlink of sockets", lambda: open_socket(socket.AF_NETLINK, socket.SOCK_RAW, 4))
attempt("vsock", lambda: open_socket(40, socket.SOCK_STREAM, 0))
attempt("alg", lambda: open_socket(38, socket.SOCK_SEQPACKET, 0))
attempt("key", lambda: open_socket(15, socket.SOCK_RAW, 2))
attempt("its wire by a pid", lambda: move_out(19, 999999))
attempt("its wire by a file", lambda: move_out(28, os.open("/proc/self/ns/uts", os.O_RDONLY)))
attempt("the host's interfaces", look_there)
attempt("the host's addresses", addresses_there)
attempt("an interface of the host's", lambda: make_link(attribute(46, peers_namespace())))
attempt(
    "an interface on the host's",
    lambda: make_link(attribute(37, peers_namespace()), attribute(5, struct.pack("I", 1)), kind=b"macvlan"),
)
attempt("tun", lambda: os.close(os.open("/dev/net/tun", os.O_RDWR)))
attempt("mark", lambda: socket.socket().setsockopt(socket.SOL_SOCKET, 36, 1))
print(json.dumps(done))
