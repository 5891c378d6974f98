"""Which processes of a jail a rule is about: its members, and of these the one that has most of a resource."""

from __future__ import annotations

from jailng.linux import content

_MOST_LOOKED_AT = 1000  # a jail may have far more processes than anybody wants to read /proc for
_TIMES = ("cputime", "pcpu")
_SIZES = ("datasize", "memoryuse", "memorylocked", "stacksize", "swapuse", "vmemoryuse")
# Of /proc/PID/stat, behind the name: proc(5). Resident size is in pages.
_USER, _SYSTEM, _STARTED, _RESIDENT = 11, 12, 19, 21


class Offender:
    """A process of a jail's. ``pid`` is the host's, ``uid`` the jail's; ``comm`` is whatever it calls itself."""

    __slots__ = ("comm", "pid", "uid")

    def __init__(self, pid: int, comm: str, uid: int) -> None:
        self.pid = pid
        self.comm = comm
        self.uid = uid


def worst(pids: list[int], resource: str) -> Offender:
    """The process among these to be named: the one with most of the resource, or, where that is not known, the newest.

    Where all have ended it is pid 0.
    """
    found = []
    for pid in pids[-_MOST_LOOKED_AT:]:
        fields = _stat(pid)[1]
        if not fields:
            continue
        if resource in _TIMES:
            value = fields[_USER] + fields[_SYSTEM]
        elif resource in _SIZES:
            value = fields[_RESIDENT]
        else:
            value = fields[_STARTED]
        found.append((value, pid))
    for _, pid in sorted(found, reverse=True):
        comm, fields = _stat(pid)
        uid = _uid(pid)
        if fields and uid is not None:
            return Offender(pid, comm, uid)
    return Offender(0, "", 0)


def _stat(pid: int) -> tuple[str, list[int]]:
    """Its name, which may be anything, and the numbers behind its state; none where it has ended."""
    text = _read(f"/proc/{pid}/stat")
    begin, end = text.find(b"("), text.rfind(b")")
    if begin < 0 or end < 0:
        return "", []
    fields = text[end + 1 :].split()
    if len(fields) <= _RESIDENT:
        return "", []
    return text[begin + 1 : end].decode("utf-8", "surrogateescape"), [0, *[int(field) for field in fields[1:]]]


def _uid(pid: int) -> int | None:
    """As its own jail has it, which may be one in the jail that is watched; None where it has ended meanwhile."""
    uids = content.field(_read(f"/proc/{pid}/status"), b"Uid").split()
    lines = _read(f"/proc/{pid}/uid_map").split(b"\n")[:-1]
    if not uids or not lines:
        return None
    uid = int(uids[1])
    for line in lines:
        inside, outside, count = [int(word) for word in line.split()]
        if outside <= uid < outside + count:
            return uid - outside + inside
    return uid


def _read(path: str) -> bytes:
    try:
        return content.read(path)
    except OSError:
        return b""
