"""Where on the host a jail was made: the namespaces of jail(8) then, for a command that is run in others.

The record has their inodes. An inode comes again once its namespace has died; what tells a network namespace for good
is its cookie, which costs a socket to ask for, and so only jails with addresses have it written down
(docs/decisions/0010-origin.md). The way back there is ``core.elsewhere``.
"""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

_SO_NETNS_COOKIE = 71  # Linux 5.14


def lines(addresses: bool) -> list[str]:
    """What the record of a jail that is made now, with addresses or without, says of where."""
    found = [f"netns {inode('net')}", f"mntns {inode('mnt')}"]
    return [*found, f"cookie {_cookie()}"] if addresses else found


def is_here(record: Record) -> bool:
    """Whether this process is in the network namespace that the jail was made in."""
    if record.netns not in (0, inode("net")):
        return False
    return record.cookie == 0 or record.cookie == _cookie()


def inode(kind: str) -> int:
    """Of this process's namespace of that kind, as /proc/self/ns has it."""
    return posix.stat(f"/proc/self/ns/{kind}").st_ino


def _cookie() -> int:
    from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, SOL_SOCKET, socket

    asked = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
    try:
        return int.from_bytes(asked.getsockopt(SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
    finally:
        asked.close()
