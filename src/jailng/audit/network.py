"""The network that the container has.

What changes it is asked for with a word that no such request may have, which the kernel looks at after the permission.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from contextlib import suppress
from functools import partial

from .probe import ABSENT, ESCAPED, EXPOSED, HELD, SEEN, Facts, Verdict, asked, call, found, probe, tried, why

_REQUEST, _ACK, _CREATE, _EXCL = 1, 4, 0x400, 0x200
_NEWLINK, _NEWADDR, _NEWROUTE, _NEWNEIGH, _NEWRULE = 16, 20, 24, 28, 32
_NEWQDISC, _NEWNSID = 36, 88
_UNKNOWN = ctypes.create_string_buffer(struct.pack("=II", 0x7FFFFFFF, 0))  # what no driver of ethtool's knows
_MOST_INTERFACES = 4096
_ADDRESS = socket.inet_aton("198.51.100.77")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _netlink(kind: int, flags: int, body: bytes) -> int:
    """One request to rtnetlink. Raises OSError with what it answers."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as made:
        made.send(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, 1, 0) + body)
        answer = made.recv(65536)
    error: int = -struct.unpack_from("=i", answer, 16)[0]
    if error:
        raise OSError(error, os.strerror(error))
    return 0


def _interfaces() -> list[tuple[int, str]]:
    try:
        return socket.if_nameindex()
    except OSError:  # there may be no netlink; the same by ioctl(2), one by one
        names = []
        for index in range(1, _MOST_INTERFACES):
            with suppress(OSError):
                names.append((index, socket.if_indextoname(index)))
        return names


def _refused(kind: int, flags: int, body: bytes) -> Verdict:
    try:
        _netlink(kind, flags, body)
    except OSError as error:
        refusals = (errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT)
        return (HELD if error.errno in refusals else ESCAPED), why(error)
    return ESCAPED, "it works"


def _on_each(facts: Facts, make: partial[Verdict]) -> Verdict:
    last = HELD, "no interface"
    for index, _ in _interfaces():
        last = make(index)
        if last[0] != HELD:
            return last
    return last


def _address(index: int) -> Verdict:
    body = struct.pack("=BBBBI", 2, 33, 0, 0, index) + _attribute(2, _ADDRESS) + _attribute(1, _ADDRESS)
    return _refused(_NEWADDR, _CREATE | _EXCL, body)


def _route(index: int) -> Verdict:
    body = struct.pack("=BBBBBBBBI", 2, 33, 0, 0, 254, 3, 253, 1, 0) + _attribute(1, _ADDRESS)
    return _refused(_NEWROUTE, _CREATE | _EXCL, body + _attribute(4, struct.pack("=I", index)))


def _link(attribute: int, value: bytes, index: int) -> Verdict:
    """Set an attribute of a link to what no link accepts, or to what it is."""
    return _refused(_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0) + _attribute(attribute, value))


def _up(index: int) -> Verdict:
    """As it is: the flags are given, and none of them is to change."""
    return _refused(_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0))


def _neighbour(index: int) -> Verdict:
    """With half an address."""
    return _refused(_NEWNEIGH, _CREATE, struct.pack("=BxxxiHBB", 2, index, 0x80, 0, 0) + _attribute(1, _ADDRESS[:2]))


def _same_mtu(index: int) -> Verdict:
    """To what it is: loopback takes any, and loses its addresses by a small one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        answer = fcntl.ioctl(made, 0x8921, socket.if_indextoname(index).encode().ljust(40, b"\0"))
    return _link(4, answer[16:20], index)


def _qdisc(index: int) -> Verdict:
    """Below a parent that is none."""
    body = struct.pack("=BxxxiIII", 0, index, 0, 0x7FFF0001, 0) + _attribute(1, b"attempt\0")
    return _refused(_NEWQDISC, _CREATE, body)


def _move(index: int) -> Verdict:
    """The interface into a network namespace by descriptor: its own, which is no move, is refused all the same."""
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    return _link(28, struct.pack("=I", fd), index)


for _name, _action in {
    "add an address": _address,
    "add a route": _route,
    "set a link up": _up,
    "change the MTU": _same_mtu,
    "change the hardware address": partial(_link, 1, bytes(3)),
    "rename a link": partial(_link, 3, b"a/b\0"),
    "add a neighbour": _neighbour,
    "add a queueing discipline": _qdisc,
    "move an interface": _move,
    "attach an XDP program": partial(_link, 43 | 0x8000, _attribute(1, struct.pack("=i", -1))),
}.items():
    probe(f"network: {_name}", light=True)(lambda facts, action=_action: _on_each(facts, action))  # type: ignore[misc]


@probe("network: make an interface", light=True)
def _make(facts: Facts) -> Verdict:
    """Of a kind that is none."""
    kind = _attribute(18, _attribute(1, b"attempt\0"))
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _attribute(3, b"attempt0\0") + kind
    return _refused(_NEWLINK, _CREATE | _EXCL, body)


@probe("network: add a rule", light=True)
def _rule(facts: Facts) -> Verdict:
    body = struct.pack("=BBBBBBBBI", 2, 33, 0, 0, 254, 0, 0, 1, 0) + _attribute(1, _ADDRESS)
    return _refused(_NEWRULE, _CREATE | _EXCL, body)


@probe("network: name another network namespace", light=True)
def _nsid(facts: Facts) -> Verdict:
    """By a descriptor that is not open."""
    body = struct.pack("=Bxxx", 0) + _attribute(3, struct.pack("=i", -1)) + _attribute(1, struct.pack("=i", 7))
    verdict = _refused(_NEWNSID, 0, body)
    return (EXPOSED if verdict[0] == ESCAPED else verdict[0]), verdict[1]


def _ioctl(request: int, content: bytes, facts: Facts) -> Verdict:
    last = HELD, "no interface"
    for _, name in _interfaces():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as plain:
            try:
                made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            except OSError:
                made = plain  # interfaces are answered for by sockets of every family
            try:
                fcntl.ioctl(made, request, name.encode().ljust(16, b"\0") + content.ljust(24, b"\0"))
                last = ESCAPED, "it works"
            except OSError as error:
                last = (HELD if error.errno in (1, 25) else EXPOSED), why(error)
            if made is not plain:
                made.close()
        if last[0] != HELD:
            break
    return last


for _name, _request, _content in (
    ("SIOCSIFMTU", 0x8922, struct.pack("=i", -1)),
    ("SIOCSIFHWADDR", 0x8924, struct.pack("=H", 65535)),
    ("SIOCSIFNAME", 0x8923, b"a/b"),
    ("SIOCSIFTXQLEN", 0x8943, struct.pack("=i", -1)),
    ("SIOCETHTOOL", 0x8946, struct.pack("=Q", ctypes.addressof(_UNKNOWN))),
):
    probe(f"network: {_name}", light=True)(partial(_ioctl, _request, _content))


@probe("network: SIOCGIFBR", light=True)
def _bridges(facts: Facts) -> Verdict:
    """Without a pointer. The kernel has the module for bridges loaded for it, whoever asks."""
    if facts["modules"]:
        return ABSENT, "not tried where it would load a module"

    def ask() -> object:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
            return call("ioctl", made.fileno(), 0x8940, None)

    return asked(ask)


def _connect(address: str, port: str, facts: Facts) -> Verdict:
    if not facts.get(address):
        return ABSENT, "there is none"
    family = socket.AF_INET6 if ":" in facts[address] else socket.AF_INET

    def connect() -> str:
        with socket.socket(family, socket.SOCK_STREAM) as made:
            made.settimeout(1)
            made.connect((facts[address], int(facts[port])))
        return "connected"

    return tried(connect)


probe("network: a service on the host's loopback", light=True)(partial(_connect, "loopback", "port"))
probe("network: a service on the host's IPv6 loopback", light=True)(partial(_connect, "loopback6", "port"))
probe("network: a service at another of the host's addresses", light=True)(partial(_connect, "other address", "port"))
probe("network: a service of another jail", light=True)(partial(_connect, "sibling address", "sibling port"))


def _bind(address: str, option: tuple[int, int] | None, facts: Facts) -> Verdict:
    """An address that is not the jail's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def bind() -> str:
        with socket.socket(family, socket.SOCK_DGRAM) as made:
            if option:
                made.setsockopt(*option, 1)
            made.bind((address, 0))
        return "bound"

    return tried(bind)


for _name, _where in (("IPv4", "198.51.100.78"), ("IPv6", "2001:db8::78")):
    probe(f"network: bind a foreign {_name} address", light=True)(partial(_bind, _where, None))
probe("network: bind the host's address", light=True)(
    lambda facts: _bind(facts["other address"], None, facts) if facts["other address"] else (ABSENT, "there is none")
)


def _listed(file: str, column: int, facts: Facts) -> Verdict:
    """Sockets that are the host's: by the port on which the host listens."""
    try:
        with open(f"/proc/net/{file}") as opened:
            lines = opened.read().splitlines()[1:]
    except OSError as error:
        return HELD, why(error)
    port = f":{int(facts['port']):04X}"
    return found([line.split()[column] for line in lines if line.split()[column].endswith(port)])


for _name in ("tcp", "tcp6", "udp", "udp6"):
    probe(f"network: the host's sockets in /proc/net/{_name}", light=True)(partial(_listed, _name, 1))


def _of_host(seen: str, facts: Facts) -> Verdict:
    """By their numbers: those of a network namespace of its own begin anew, and a name alone says nothing."""
    return found([name for name in seen.split() if name in facts["links"].split()])


@probe("network: the host's interfaces", _of_host, light=True)
def _links(facts: Facts) -> Verdict:
    return SEEN, " ".join(f"{index}:{name}" for index, name in _interfaces() if name != "lo")


@probe("network: sock_diag", light=True)
def _diag(facts: Facts) -> Verdict:
    return tried(lambda: call("socket", 16, 3, 4), EXPOSED)


@probe("network: nftables", light=True)
def _nft(facts: Facts) -> Verdict:
    return tried(lambda: call("socket", 16, 3, 12), EXPOSED)
