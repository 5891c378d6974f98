"""Sockets of the host and of its jails, as /proc/PID/net shows those of a network namespace; and who has them open."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Container, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace

from jailng.core import attach
from jailng.core.registry import Record
from jailng.errors import JailError
from jailng.linux import ns, sockdiag
from jailng.linux.netlink import Netlink
from jailng.linux.visit import InNamespace
from jailng.params.model import Parameters
from jailng.procs import process, signals
from jailng.procs.jails import Jails, membership
from jailng.procs.process import Process

_MOST = 1 << 26  # bytes of one table: half a million connections
DESCRIPTORS = 1 << 17  # of a jail, that are looked at: thousands of processes may share millions
_STATES = (
    "", "ESTABLISHED", "SYN_SENT", "SYN_RCVD", "FIN_WAIT_1", "FIN_WAIT_2", "TIME_WAIT", "CLOSED", "CLOSE_WAIT",
    "LAST_ACK", "LISTEN", "CLOSING", "SYN_RCVD",
)  # fmt: skip
_KINDS = {1: "stream", 2: "dgram", 5: "seqpac"}
_ACCEPTING = 0x10000  # __SO_ACCEPTCON of include/linux/net.h
_CONNECTED = 3
_SOCKET = re.compile(r"socket:\[([0-9]+)\]")
_MAPPED = bytes(10) + b"\xff\xff"
_PROTOCOLS = ("tcp", "udp")
_UNIX = re.compile(
    rb"[0-9a-fA-F]+: ([0-9A-F]{8}) ([0-9A-F]{8}) ([0-9A-F]{8}) ([0-9A-F]{4}) ([0-9A-F]{2}) +([0-9]+)(?: (.*))?"
)


@dataclass(frozen=True)
class End:
    """One end of an Internet socket. No address (all zeros) is "", and no port is 0."""

    address: str = ""
    port: int = 0


@dataclass(frozen=True)
class Socket:
    """A socket. ``protocol`` is tcp or udp, or stream, dgram or seqpac of the UNIX domain.

    ``version`` is 4, 6, or 46 where both come to it; "" of the UNIX domain.

    ``jid`` is the first jail whose network namespace it is in, 0 for the host's; ``state`` is FreeBSD's word, for TCP
    alone. ``inode`` is 0 where no process has it any more.
    """

    protocol: str
    version: str
    inode: int
    jid: int
    local: End = End()
    foreign: End = End()
    state: str = ""
    received: int = 0
    sent: int = 0
    path: str = ""
    accepting: bool = False
    connected: bool = False

    def is_of(self, versions: frozenset[str]) -> bool:
        """Whether it is of one of these versions, "" among them for the UNIX domain."""
        return not versions.isdisjoint(self.version or ("",))


@dataclass(frozen=True)
class Holder:
    """A process, the jail it is in, and the descriptor by which it has a socket open."""

    process: Process
    jid: int
    descriptor: int


def sockets(jails: Jails, unix: bool = True) -> list[Socket]:
    """Every socket of the host's network namespace and of the jails', the host's first.

    One that a jail of a single address has bound to none has that: FreeBSD's kernel binds it there (prison_local_ip4).
    """
    found: list[Socket] = []
    for jid, directory in _namespaces(jails):
        record = jails.record(jid) if jid else None
        addresses = _addresses(record)
        with _diagnosis(record) or nullcontext() as netlink:
            both = _both_versions(netlink)
            for protocol in _PROTOCOLS:
                for version in ("4", "6"):
                    name = protocol + ("6" if version == "6" else "")
                    for one in inet(_table(f"{directory}/{name}"), protocol, version, jid, both):
                        address = addresses.get(one.version, "")
                        found.append(one if one.local.address else replace(one, local=End(address, one.local.port)))
            if unix:
                found += _unix_domain(netlink, directory, jid)
    return found


def _addresses(record: Record | None) -> dict[str, str]:
    """The address of each version of which a jail has exactly one."""
    if record is None:
        return {}
    params = Parameters.from_texts(record.params)
    given = {version: params.addresses(f"ip{version}.addr") for version in ("4", "6")}
    return {version: addresses[0].bare for version, addresses in given.items() if len(addresses) == 1}


def _namespaces(jails: Jails) -> Iterator[tuple[int, str]]:
    """The directories of /proc that show the host's network namespace and each other one that a jail has."""
    yield 0, "/proc/self/net"
    seen = {_identity("self")}
    for record in jails.running():
        pid = str(record.init_pid)
        try:
            known = _identity(pid)
        except PermissionError:  # not root: who shares the host's is told by the parameters
            if record.shares_network:
                continue
            known = -record.jid
        except OSError:
            continue
        if known not in seen:
            seen.add(known)
            yield record.jid, f"/proc/{pid}/net"


def _identity(pid: str) -> int:
    return os.stat(f"/proc/{pid}/ns/net").st_ino


def _table(path: str) -> bytes:
    """The lines below the heading; none where the jail has ended meanwhile, or the kernel does without IPv6."""
    try:
        with open(path, "rb") as file:
            return file.read(_MOST).partition(b"\n")[2]
    except OSError:
        return b""


def inet(table: bytes, protocol: str, version: str, jid: int, both: Container[int] = ()) -> list[Socket]:
    """The sockets of a /proc/net/tcp, tcp6, udp or udp6: proc_pid_net(5). ``both``: inodes of those of version 46."""
    found = []
    for line in table.splitlines():
        words = line.split()
        try:
            local, foreign = _end(words[1]), _end(words[2])
            state = int(words[3], 16)
            sent, received = [int(word, 16) for word in words[4].split(b":")]
            inode = int(words[9])
        except (IndexError, ValueError):
            continue
        # What came to a socket of both versions by IPv4 is an IPv4 connection.
        shown = "46" if inode in both else "4" if version == "6" and _is_mapped(words[1]) else version
        name = _STATES[state] if protocol == "tcp" and state < len(_STATES) else ""
        listening = name == "LISTEN"
        # Of a listener the kernel gives connections that wait, and how many may: FreeBSD's columns are of bytes.
        queues = (0, 0) if listening else (received, sent)
        found.append(Socket(protocol, shown, inode, jid, local, foreign, name, *queues, accepting=listening))
    return found


def _packed(word: bytes) -> bytes:
    # Words of 32 bits in the machine's order, which /proc prints as numbers.
    digits = word.partition(b":")[0]
    return b"".join([bytes.fromhex(digits[at : at + 8].decode())[::-1] for at in range(0, len(digits), 8)])


def _is_mapped(word: bytes) -> bool:
    return _packed(word).startswith(_MAPPED)


def _end(word: bytes) -> End:
    packed = _packed(word)
    port = int(word.partition(b":")[2], 16)
    if packed.startswith(_MAPPED):
        packed = packed[len(_MAPPED) :]
    if not any(packed):
        return End("", port)
    return End(socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed), port)


def _diagnosis(record: Record | None) -> Netlink | None:
    """What asks the kernel in the network namespace of a jail, or the host's; None for whoever may not."""
    try:
        if record is None:
            return Netlink(sockdiag.NETLINK_SOCK_DIAG)
        init = attach.open_init(record)
        try:
            with InNamespace(init, ns.CLONE_NEWNET):
                return Netlink(sockdiag.NETLINK_SOCK_DIAG)
        finally:
            os.close(init)
    except (JailError, OSError):
        return None


def _both_versions(netlink: Netlink | None) -> set[int]:
    try:
        return sockdiag.both_versions(netlink) if netlink is not None else set()
    except OSError:  # this kernel does not tell
        return set()


def _unix_domain(netlink: Netlink | None, directory: str, jid: int) -> list[Socket]:
    """The sockets of the network namespace that ``netlink`` asks about, and in which ``directory`` of /proc is."""
    try:
        if netlink is not None:
            return [_diagnosed(found, jid) for found in sockdiag.unix_domain(netlink)]
    except OSError:  # this kernel does not tell
        pass
    return unix_domain(_table(f"{directory}/unix"), jid)


def _diagnosed(found: sockdiag.Unix, jid: int) -> Socket:
    return Socket(
        _KINDS.get(found.kind, "?"),
        "",
        found.inode,
        jid,
        path=found.name.replace(b"\0", b"@").decode("utf-8", "surrogateescape"),  # as /proc/net/unix writes it
        accepting=found.state == sockdiag.LISTEN,
        connected=found.state == sockdiag.ESTABLISHED,
    )


def unix_domain(table: bytes, jid: int) -> list[Socket]:
    """The sockets of a /proc/net/unix. A path may hold newlines, so a line of the table may be a jail's invention."""
    found = []
    for line in table.split(b"\n"):
        row = _UNIX.fullmatch(line)
        if row is None:
            continue
        accepting = bool(int(row[3], 16) & _ACCEPTING)
        found.append(
            Socket(
                _KINDS.get(int(row[4], 16), "?"),
                "",
                int(row[6]),
                jid,
                path=(row[7] or b"").decode("utf-8", "surrogateescape"),
                accepting=accepting,
                connected=int(row[5], 16) == _CONNECTED,
            )
        )
    return found


def holders(beyond: set[int] | None = None) -> dict[int, list[Holder]]:
    """Who has which socket open, by the socket's inode: of the processes whose descriptors the caller may see.

    Of a jail no more than ``DESCRIPTORS`` are looked at; the jids of those that have more go into ``beyond``.
    """
    found: dict[int, list[Holder]] = {}
    left: dict[int, int] = {}
    for pid in process.pids():
        there = process.read(pid)
        if there is None:
            continue
        jid, _ = membership(there.cgroup)
        names = process.descriptors(pid, left.setdefault(jid, DESCRIPTORS) + 1 if jid else None)
        if jid:
            if len(names) > left[jid] and beyond is not None:
                beyond.add(jid)
            del names[left[jid] :]
            left[jid] -= len(names)
        inodes = _sockets_of(pid, names)
        holding = signals.same(there) if inodes else None
        if holding is not None:
            for descriptor, inode in inodes:
                found.setdefault(inode, []).append(Holder(holding, jid, descriptor))
    return found


def _sockets_of(pid: int, names: list[str]) -> list[tuple[int, int]]:
    found = []
    for name in names:
        try:
            link = _SOCKET.fullmatch(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            continue
        if link is not None:
            found.append((int(name), int(link[1])))
    return sorted(found)


def believed(listed: list[Socket], held: dict[int, list[Holder]]) -> Iterator[tuple[Socket, list[Holder]]]:
    """Each socket once, with who has it. Of what a jail's table says only its own processes and the host's count.

    The host's table comes first and jails may write lines into their own, so a line that repeats a socket is no socket.
    """
    seen: set[int] = set()
    for found in listed:
        if found.inode and found.inode in seen:
            continue
        who = [holder for holder in held.get(found.inode, []) if found.jid == 0 or holder.jid in (0, found.jid)]
        if found.inode:
            seen.add(found.inode)
        yield found, who
