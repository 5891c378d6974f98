"""New namespaces, and those of others: the way to the kernel's largest surface."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from functools import partial

from .probe import ESCAPED, EXPOSED, HELD, SEEN, Facts, Verdict, call, found, probe, tried, why

_SIGCHLD = 17
FLAGS = {
    "time": 0x80,
    "mnt": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}


def _unshare(flags: int, facts: Facts) -> Verdict:
    return tried(lambda: call("unshare", flags), EXPOSED)


def _born(make: partial[int]) -> Verdict:
    """Both parent and child come back from ``make``."""
    parent = os.getpid()

    def run() -> str:
        pid = make()
        if pid == 0 or os.getpid() != parent:
            os._exit(0)
        os.waitpid(pid, 0)
        return "born"

    return tried(run, EXPOSED)


def _clone(flags: int, facts: Facts) -> Verdict:
    return _born(partial(call, "clone", flags | _SIGCHLD, 0, 0, 0, 0))


def _clone3(flags: int, facts: Facts) -> Verdict:
    arguments = struct.pack("=11Q", flags, 0, 0, 0, _SIGCHLD, 0, 0, 0, 0, 0, 0)
    return _born(partial(call, "clone3", arguments, len(arguments)))


for _name, _flags in FLAGS.items():
    probe(f"namespaces: unshare {_name}")(partial(_unshare, _flags))
    probe(f"namespaces: clone3 {_name}", light=True)(partial(_clone3, _flags))
    if _name != "time":  # its bit is part of clone(2)'s signal
        probe(f"namespaces: clone {_name}", light=True)(partial(_clone, _flags))
        probe(f"namespaces: clone {_name}, its high half garbage", light=True)(
            partial(_clone, _flags | 0x7EADBEEF << 32)
        )
probe("namespaces: unshare all")(partial(_unshare, 0x7E020080))
probe("namespaces: clone user and mnt")(partial(_clone, FLAGS["user"] | FLAGS["mnt"]))
probe("namespaces: clone3 without any")(partial(_clone3, 0))


def _setns(name: str, pid: str, facts: Facts) -> Verdict:
    try:
        fd = os.open(f"/proc/{facts.get(pid, pid)}/ns/{name}", os.O_RDONLY)
    except OSError as error:
        return HELD, f"open: {why(error)}"
    return tried(lambda: call("setns", fd, 0), EXPOSED)


for _name in FLAGS:
    probe(f"namespaces: setns to PID 1's {_name}")(partial(_setns, _name, "init"))
    if _name != "user":  # which the kernel lets nobody join who is in it
        probe(f"namespaces: setns to its own {_name}")(partial(_setns, _name, "self"))


@probe("namespaces: setns by pidfd")
def _setns_pidfd(facts: Facts) -> Verdict:
    return tried(lambda: call("setns", os.pidfd_open(int(facts["init"])), FLAGS["mnt"]), EXPOSED)


def _relative(name: str, facts: Facts) -> Verdict:
    """NS_GET_USERNS leads from a namespace to the host's, if it leads anywhere."""
    fd = os.open(f"/proc/self/ns/{name}", os.O_RDONLY)
    try:
        other = fcntl.ioctl(fd, 0xB701)
    except OSError as error:
        return HELD, why(error)
    return SEEN, f"{os.fstat(other).st_ino} {os.stat('/proc/self/ns/user').st_ino}"


def _is_own(seen: str, facts: Facts) -> Verdict:
    found, own = seen.split()
    held = found == own != facts["ns user"]
    return (HELD, "the jail's own") if held else (EXPOSED, "the host's" if found == facts["ns user"] else "another's")


for _name in FLAGS:
    if _name != "user":
        probe(f"namespaces: NS_GET_USERNS of {_name}", _is_own, light=True)(partial(_relative, _name))


@probe("namespaces: the mount namespaces before and after")
def _neighbours(facts: Facts) -> Verdict:
    """NS_MNT_GET_NEXT and NS_MNT_GET_PREV, since 6.12."""
    fd = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    memory = ctypes.create_string_buffer(16)
    got = []
    for request in (0x8010B70B, 0x8010B70C):
        try:
            got.append(call("ioctl", fd, request, memory))
        except OSError:
            continue
    return found(got, ESCAPED)


def _compared(seen: str, facts: Facts) -> Verdict:
    theirs = [word.partition("=")[::2] for word in seen.split()]
    return found([name for name, inode in theirs if facts.get(f"ns {name}") == inode])


@probe("namespaces: those that are the host's", _compared)
def _shared(facts: Facts) -> Verdict:
    """By their inodes."""
    return SEEN, " ".join(f"{name}={os.stat(f'/proc/self/ns/{name}').st_ino}" for name in FLAGS)


def _count_limit(facts: Facts) -> Verdict:
    try:
        with open("/proc/sys/user/max_user_namespaces") as file:
            number = int(file.read())
    except OSError as error:
        return HELD, why(error)
    return (HELD, "0") if number == 0 else (EXPOSED, str(number))


probe("namespaces: how many user namespaces may be made")(_count_limit)


def _userns_of_pidfd(facts: Facts) -> Verdict:
    """PIDFD_GET_USER_NAMESPACE of PID 1, since 6.11."""
    pidfd = os.pidfd_open(int(facts["init"]))
    return tried(lambda: fcntl.ioctl(pidfd, 0xFF09, 0), EXPOSED)


probe("namespaces: PID 1's by pidfd ioctl")(_userns_of_pidfd)
