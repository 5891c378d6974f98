"""sock_diag(7): sockets of the UNIX domain, and what /proc/net does not say of the others.

In /proc/net/unix, which has those of the UNIX domain too, a name may look like more lines.
"""

from __future__ import annotations

from _struct import pack, unpack_from

from jailng.linux.netlink import NLM_F_DUMP, Netlink, attributes

NETLINK_SOCK_DIAG = 4
ESTABLISHED, LISTEN = 1, 10  # states, of TCP's: include/net/tcp_states.h
_SOCK_DIAG_BY_FAMILY = 20
_AF_UNIX = 1
_AF_INET6 = 10
_PROTOCOLS = (6, 17)  # TCP and UDP
_UNCONNECTED = 1 << LISTEN | 1 << 7  # TCP_CLOSE is that of UDP
_INET_DIAG_SKV6ONLY = 11
_INET_HEADER = 72  # struct inet_diag_msg
_ALL_STATES = 0xFFFFFFFF
_UDIAG_SHOW_NAME = 1
_UNIX_DIAG_NAME = 0
_ANY = 0xFFFFFFFF
_MOST = 1 << 19
_HEADER = 16  # struct unix_diag_msg


class Unix:
    """A socket: its SOCK_ ``kind``, its ``state``, and its ``name`` as bind(2) was given it, or b""."""

    __slots__ = ("inode", "kind", "name", "state")

    def __init__(self, inode: int, kind: int, state: int, name: bytes) -> None:
        self.inode = inode
        self.kind = kind
        self.state = state
        self.name = name

    @classmethod
    def read(cls, body: bytes) -> Unix:
        """One of the kernel's answers. Raises ValueError, struct.error."""
        kind, state, inode = unpack_from("xBBxI", body)
        name = attributes(body, _HEADER).get(_UNIX_DIAG_NAME, b"")
        # An abstract one begins with NUL, and counts to its last byte; a path ends with one, wherever its room ends.
        return cls(inode, kind, state, name if name[:1] == b"\0" else name.partition(b"\0")[0])


def unix_domain(netlink: Netlink) -> list[Unix]:
    """Those that a process has, in the network namespace in which a ``Netlink(NETLINK_SOCK_DIAG)`` was opened.

    There may be as many as somebody likes to make: of more than half a million the others are not told.
    Raises OSError (ENOENT: this kernel does not tell).
    """
    request = pack("BBxxIIIII", _AF_UNIX, 0, _ALL_STATES, 0, _UDIAG_SHOW_NAME, _ANY, _ANY)
    return [Unix.read(body) for _, body in netlink.ask((_SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, request))[:_MOST]]


def both_versions(netlink: Netlink) -> set[int]:
    """The inodes of sockets, bound to no address and not connected, to which come IPv6 and IPv4. Raises OSError."""
    found = set()
    for protocol in _PROTOCOLS:
        request = pack("BBxxI48x", _AF_INET6, protocol, _UNCONNECTED)
        for _, body in netlink.ask((_SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, request))[:_MOST]:
            address, inode = unpack_from("8x16s44xI", body)
            if not any(address) and attributes(body, _INET_HEADER).get(_INET_DIAG_SKV6ONLY) == b"\0":
                found.add(inode)
    return found
