"""The pseudo-terminals that there are in a jail, and whose they are, as the host's /proc tells of it.

What is read here of a process of a jail's is what the kernel says of it, but for its name, which it may choose.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from jailng.linux import content, gathering, mount, mountfd, ns
from jailng.observe.event import Facts
from jailng.procs.jails import membership
from jailng.procs.process import descriptors
from jailng.procs.process import pids as everyone

_PTMX = os.makedev(5, 2)
_FIRST_SLAVE = 136  # majors 136 to 143, of 2^20 minors each
_MOST = 1 << 20  # bytes of one file of /proc
_MOST_FDS = 4096  # of one process that are looked at
_MOST_OF_JAIL = 1 << 15  # of all processes of one jail
_ESTABLISHED = "01"


def directory(pid: int) -> int:
    """A descriptor of the devpts that a process has at /dev/pts; -1: it has none there.

    The tree is its jail's: nothing in it is followed.
    """
    try:
        tree = ns.open_root(pid)
    except OSError:
        return -1
    try:
        return mountfd.open_mounted(tree, b"dev/pts", os.O_RDONLY, mount.DEVPTS_SUPER_MAGIC)
    except OSError:
        return -1
    finally:
        os.close(tree)


def numbers(devpts: int) -> list[int]:
    """Those of the ptys in it."""
    return sorted(int(name) for name in os.listdir(devpts) if name.isdecimal())


def present(pid: int) -> tuple[int, list[int]]:
    """The devpts that a process has at /dev/pts, its device number, and the ptys in it; none are in none."""
    devpts = directory(pid)
    if devpts < 0:
        return 0, []
    try:
        return os.fstat(devpts).st_dev, numbers(devpts)
    finally:
        os.close(devpts)


@dataclass
class Process:
    """A process, as /proc/PID/stat and status have it."""

    pid: int
    parent: int
    session: int
    terminal: int  # number of its controlling pty; -1: none
    started: int
    comm: str
    uid: int


def process(pid: int) -> Process | None:
    """None: it has ended."""
    try:
        stat = _read(f"/proc/{pid}/stat")
        uid = os.stat(f"/proc/{pid}").st_uid
        status = _read(f"/proc/{pid}/status")
    except OSError:
        return None
    begin, end = stat.find(b"("), stat.rfind(b")")
    fields = stat[end + 2 :].split()
    uids = content.field(status, b"Uid").split()
    uid = int(uids[0]) if uids else uid
    device = int(fields[4])
    major, minor = device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00
    terminal = (major - _FIRST_SLAVE << 20) + minor if _FIRST_SLAVE <= major < _FIRST_SLAVE + 8 else -1
    comm = stat[begin + 1 : end].decode("utf-8", "surrogateescape")
    return Process(pid, int(fields[1]), int(fields[3]), terminal, int(fields[19]), comm, uid)


def users(pids: Iterable[int], dev: int) -> dict[int, Process]:
    """Of each terminal of that devpts the process that sits there: its session's leader, else the first."""
    found: dict[int, Process] = {}
    devices: dict[int, bool] = {}
    for pid in sorted(pids):
        one = process(pid)
        if one is None or one.terminal < 0:
            continue
        if one.session not in devices:
            devices[one.session] = _is_of(pid, dev)
        if not devices[one.session]:
            continue
        known = found.get(one.terminal)
        if known is None or (one.pid == one.session, -one.started) > (known.pid == known.session, -known.started):
            found[one.terminal] = one
    return found


def _is_of(pid: int, dev: int) -> bool:
    """Whether the pty that controls the process may be of that devpts: the one that the process has at /dev/pts."""
    devpts = directory(pid)
    if devpts < 0:
        return True
    try:
        return os.fstat(devpts).st_dev == dev
    finally:
        os.close(devpts)


@dataclass
class Terminal:
    """An open pty of a jail; ``user``: who sits there, ``opener``: who has its master."""

    dev: int
    number: int
    user: Process | None
    opener: Process | None

    @property
    def name(self) -> str:
        """What it is called inside."""
        return f"pts/{self.number}"


def terminals(init: int, path: str) -> list[Terminal]:
    """Those of the jail whose PID 1 (as the host counts it) and cgroup2 directory these are."""
    dev, found = present(init)
    if not found:
        return []
    sitting, opened = users(gathering.members(path), dev), openers(dev)
    return [Terminal(dev, one, sitting.get(one), opened.get(one)) for one in found]


def open_slave(pid: int, dev: int, number: int) -> int:
    """The slave's side of a pty of the devpts that a process has at /dev/pts, if that is ``dev``.

    It becomes nobody's controlling terminal. Raises OSError.
    """
    devpts = directory(pid)
    if devpts < 0:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"pts/{number}")
    try:
        if os.fstat(devpts).st_dev != dev:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"pts/{number}")
        flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(str(number), flags, dir_fd=devpts)
    finally:
        os.close(devpts)


def openers(dev: int) -> dict[int, Process]:
    """Of each terminal of that devpts the first process that has its master, as far as those are looked at."""
    found: dict[int, Process] = {}
    left: dict[int, int] = {}
    for pid in everyone():
        jid = _jid(pid)
        room = min(_MOST_FDS, left.get(jid, _MOST_OF_JAIL)) if jid else _MOST_FDS
        names = descriptors(pid, room)
        if jid:
            left[jid] = left.get(jid, _MOST_OF_JAIL) - len(names)
        for number in _masters(pid, dev, names):
            if number not in found and (one := process(pid)):
                found[number] = one
    return found


def is_hosts(pid: int) -> bool:
    """Whether a process is the host's, and no jail's."""
    return _jid(pid) == 0


def _jid(pid: int) -> int | None:
    """The jail that a process is in, 0 for none; None: it has ended."""
    try:
        lines = _read(f"/proc/{pid}/cgroup").decode("utf-8", "surrogateescape").split("\n")
    except OSError:
        return None
    return next((jid for line in lines if line.startswith("0::") and (jid := membership(line[3:])[0])), 0)


def _masters(pid: int, dev: int, names: Iterable[str]) -> list[int]:
    """The ptys of that devpts of which a process has the master, among these descriptors."""
    found = []
    for name in names:
        with suppress(OSError, ValueError):
            status = os.stat(f"/proc/{pid}/fd/{name}")
            if status.st_rdev == _PTMX and status.st_dev == dev:
                info = _read(f"/proc/{pid}/fdinfo/{name}")
                found.append(int(info.partition(b"tty-index:")[2].split()[0]))
    return found


def remote(pid: int, taken: Collection[str] = ()) -> str:
    """The peer of the connection that a process serves, or else its parent: ``ADDRESS:PORT``, "" where there is none.

    An sshd has it as a socket: which that is, and whose it is at the other end, the kernel says. Of one that serves
    many it is the one that is not ``taken``, by others that it serves; "" if there are several.
    """
    one = process(pid)
    for candidate in (pid, one.parent if one else 0):
        found = {remote for _, remote in _peers(candidate)} if candidate > 1 else set()
        left = found.difference(taken) or found
        if len(left) == 1:
            return left.pop()
    return ""


def peers(pid: int, local: str) -> list[str]:
    """The peers of all connections that a process has at that address and port of its own."""
    return sorted({remote for here, remote in _peers(pid) if here == local})


def _peers(pid: int) -> Iterator[tuple[str, str]]:
    """Both ends of each connection that a process has."""
    sockets = set()
    for name in descriptors(pid, _MOST_FDS):
        with suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                sockets.add(target[8:-1])
    if not sockets:
        return
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in _read(f"/proc/{pid}/net/{table}").decode("ascii", "replace").splitlines()[1:]:
                fields = line.split()
                if len(fields) > 9 and fields[9] in sockets and fields[3] == _ESTABLISHED:
                    yield address(fields[1]), address(fields[2])


def address(text: str) -> str:
    """An address and port as /proc/net/tcp and tcp6 write them: words of the machine's order, in hexadecimal."""
    host, _, port = text.partition(":")
    words = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8)]
    packed = b"".join(words)
    if len(packed) == 16 and packed.startswith(bytes(10) + b"\xff\xff"):
        packed = packed[12:]
    if len(packed) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{int(port, 16)}"
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]:{int(port, 16)}"


def facts(user: Process | None, peer: str, by: str) -> Facts:
    """What is known of a session."""
    found: Facts = {"by": by}
    if user is not None:
        found.update(user_pid=user.pid, user_uid=user.uid, user_comm=user.comm)
    if peer:
        found["remote"] = peer
    return found


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(_MOST)
