"""What the kernel counts once for the machine, and shows by what every process may make or ask about itself.

No file has these numbers: they are the inodes and identities of what it makes, and what netlink says of its own.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator

from .probe import ABSENT, EXPOSED, HELD, SEEN, Facts, Verdict, call, found, probe, why

_GETADDR, _GETNEIGHTBL = 22, 66
_DUMP = 0x301  # NLM_F_REQUEST, NLM_F_DUMP
_DONE = 3
_ADDRESS_HEAD, _TABLE_HEAD = 8, 4  # struct ifaddrmsg, struct ndtmsg
_IFA_CACHEINFO, _NDTA_STATS = 6, 7
_SO_NETNS_COOKIE, _STATX_MNT_ID_UNIQUE = 71, 0x4000


def _listed(kind: int, head: int) -> Iterator[dict[int, bytes]]:
    """What rtnetlink lists: the attributes of each. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as made:
        made.settimeout(5)
        made.send(struct.pack("=IHHII", 20, kind, _DUMP, 1, 0) + bytes(4))
        while True:
            answer = made.recv(1 << 16)
            while len(answer) >= 16:
                size, answered = struct.unpack_from("=IH", answer)
                if answered in (2, _DONE):  # 2: an error
                    return
                yield dict(_attributes(answer[16 + head : size]))
                answer = answer[size + 3 & ~3 :]


def _attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    while len(content) >= 4:
        size, kind = struct.unpack_from("=HH", content)
        if size < 4:
            return
        yield kind & 0x3FFF, content[4:size]
        content = content[size + 3 & ~3 :]


def _long(part: float, seen: str, facts: Facts) -> Verdict:
    """Seconds: exposed if the host is up for that part of them at least, and no file says so."""
    return found([f"{word} s" for word in seen.split() if float(word) >= float(facts["uptime"]) * part])


@probe("leaks: how long the host has been up, by times", lambda seen, facts: _long(1, seen, facts), light=True)
def _ticks(facts: Facts) -> Verdict:
    """times(2): clock ticks of a clock that no namespace shifts; it begins five minutes before it would wrap around."""
    return SEEN, str(int(os.times().elapsed))


# An address is given when its jail begins, which may have been long ago.
@probe(
    "leaks: how long the host has been up, by when an address was given",
    lambda seen, facts: _long(0.01, seen, facts),
    light=True,
)
def _addressed(facts: Facts) -> Verdict:
    """IFA_CACHEINFO: hundredths of a second, of a clock that no namespace shifts."""
    try:
        infos = [attributes.get(_IFA_CACHEINFO, b"") for attributes in _listed(_GETADDR, _ADDRESS_HEAD)]
    except OSError as error:
        return HELD, why(error)
    return SEEN, " ".join(str(struct.unpack_from("=4I", info)[2] // 100) for info in infos if len(info) >= 16)


def _many(seen: str, facts: Facts) -> Verdict:
    many = int(seen) >= int(facts["started"]) // 2
    return (EXPOSED, f"{seen} processes and threads started") if many else (HELD, "not of these")


@probe("leaks: how many processes there were, by a pidfd", _many, light=True)
def _numbered(facts: Facts) -> Verdict:
    """Its inode is the process's number among all that there ever were (Linux 6.9)."""
    fd = os.pidfd_open(os.getpid())
    try:
        return SEEN, str(os.fstat(fd).st_ino)
    finally:
        os.close(fd)


def _as_many(seen: str, facts: Facts) -> Verdict:
    """Of the machine: all of them, in whatever namespace, and some directories."""
    many = int(seen) >= int(facts["running"]) // 2
    return (EXPOSED, f"{seen} processes, about") if many else (HELD, "not of these")


@probe("leaks: how many processes there are, by the links of /proc", _as_many, light=True)
def _linked(facts: Facts) -> Verdict:
    """Which stat(2) counts."""
    return SEEN, str(os.stat("/proc").st_nlink)


@probe("leaks: how many mounts and network namespaces there were", light=True)
def _identities(facts: Facts) -> Verdict:
    """STATX_MNT_ID_UNIQUE (6.8), which begins at 2^31, and SO_NETNS_COOKIE."""
    told = []
    answer = ctypes.create_string_buffer(256)
    call("statx", -100, b"/", 0, _STATX_MNT_ID_UNIQUE, answer)
    if struct.unpack_from("=I", answer)[0] & _STATX_MNT_ID_UNIQUE:
        told.append(f"{struct.unpack_from('=Q', answer, 144)[0] - (1 << 31)} mounts")
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as made:
            cookie = struct.unpack("=Q", made.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0]
        told.append(f"{cookie} namespaces")
    except OSError:
        pass
    return (EXPOSED, ", ".join(told)) if told else (ABSENT, "this kernel has no such numbers")


@probe("leaks: neighbours of the machine by netlink", light=True)
def _neighbours(facts: Facts) -> Verdict:
    """NDTA_STATS is of a table that all network namespaces share: entries made and gone, and looked up."""
    try:
        counts = [attributes.get(_NDTA_STATS, b"") for attributes in _listed(_GETNEIGHTBL, _TABLE_HEAD)]
    except OSError as error:
        return HELD, why(error)
    made = [struct.unpack_from("=Q", content)[0] for content in counts if len(content) >= 8]
    return found([f"{number} neighbours" for number in made if number])
