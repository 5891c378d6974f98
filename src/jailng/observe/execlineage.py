"""Where a jail's processes are from: the programs on the tracepoints of forks and ends, and what they know for an exec.

They run for every process of the host and look for its jail in a map, so that what they cost does not grow with the
number of jails. Three maps know jails by the number of their cgroups: who is asked about, and what could not be told;
the ring of each; and its lineages.

A lineage is what a process has from the one that forked it: the session of the last exec on its way, and the one before
that. Sessions have a name of their own there, the time of their first exec, since pids come again and a process whose
parent has died no longer says where it is from.
"""

from __future__ import annotations

import struct

from jailng.linux import bpf
from jailng.linux.bpf import FRAME, R0, R1, R2, R3, R4, R6, R7, R8, R9
from jailng.observe.execrecord import (
    BEFORE,
    EXIT,
    EXIT_SIZE,
    KIND,
    LINEAGE,
    MARKS,
    NEW,
    PID,
    SESSION,
    TIME,
    UID,
    UID_BEFORE,
    UNKNOWN,
)
from jailng.observe.offsets import Offsets
from jailng.observe.tracecode import Trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.bpfmap import Map

_LEVELS = 20  # of cgroups, from the root
COUNTERS = struct.Struct("=QQ")  # execs and ends that found no room in the ring; lineages that found none
_RECORDS, _LINEAGES = 0, 8
LINEAGE_SIZE = 24  # leader of the session, uid at the last exec, session, the one before
_LEADER, _UID, _SESSION, _BEFORE = 0, 4, 8, 16

# Places on the stack: the cgroup's number, the jail's counters, a key of a map, a lineage, an end. Between the first
# two and the others is what ``execprogram`` has there.
_LEVEL_ID, _JAIL = -16, -24
KEY, _OLD = -64, -88
_END = _OLD - EXIT_SIZE


class Maps:
    """The maps that the programs share."""

    __slots__ = ("jails", "lineages", "rings", "scratch")

    def __init__(self, jails: Map, rings: Map, lineages: Map, scratch: Map) -> None:
        self.jails = jails
        self.rings = rings
        self.lineages = lineages
        self.scratch = scratch


def find_jail(code: Trace, maps: Maps) -> None:
    """The outermost jail that the current process is in: its cgroup's number and its counters go on the stack."""
    for level in range(1, _LEVELS):
        outside = code.fresh()
        _look_up_level(code, level, maps.jails, outside)
        code.put(FRAME, _JAIL, R0)
        code.jump("found")
        code.label(outside)
    code.jump("out")
    code.label("found")


def tell(code: Trace, maps: Maps, size: int = 0) -> None:
    """What R8 points to, to the ring of every jail that the current process is in: ``size`` bytes, or as R9 says."""
    for level in range(1, _LEVELS):
        following = code.fresh()
        _look_up_level(code, level, maps.rings, following)
        code.copy(R1, R0)
        if size:
            code.output(R8, size)
        else:
            code.output_of(R8, R9)
        code.when(R0, "==", 0, following)
        code.look_up(maps.jails.fd, _LEVEL_ID)
        code.when(R0, "==", 0, following)
        code.count_one(R0, _RECORDS)
        code.label(following)


def _look_up_level(code: Trace, level: int, jails: Map, none: str) -> None:
    """R0 = what that map has of the cgroup of that level that the process is in; nothing: go on at ``none``."""
    code.set(R1, level)
    code.call(bpf.GET_CURRENT_ANCESTOR_CGROUP_ID)
    code.when(R0, "==", 0, "out")
    code.put(FRAME, _LEVEL_ID, R0)
    code.look_up(jails.fd, _LEVEL_ID)
    code.when(R0, "==", 0, none)


def end(code: Trace) -> bytes:
    """The program, which ends at ``out``."""
    code.label("out")
    code.leave(0)
    return code.assembled()


def mark(code: Trace, what: int) -> None:
    """Mark the record with something that it is not marked with yet. R1 is lost."""
    code.fetch(R1, R8, MARKS, 4)
    code.add(R1, what)
    code.put(R8, MARKS, R1, 4)


def fork(at: Offsets, maps: Maps) -> bytes:
    """On sched_process_fork(parent, child): what the child is descended from."""
    code = Trace()
    code.fetch(R6, R1, 8)
    code.hop(R7, R6, at["task_struct", "tgid"], 4)
    code.hop(R8, R6, at["task_struct", "pid"], 4)
    code.when_words_differ(R7, R8, "out")  # a thread
    find_jail(code, maps)
    _find_lineages(code, maps)
    code.call(bpf.GET_CURRENT_PID_TGID)
    code.shift_right(R0, 32)
    code.put(FRAME, KEY, R0, 4)
    _look_up(code, "out")
    _copy(code)
    code.put(FRAME, KEY, R7, 4)
    _set(code)
    return end(code)


def leave(at: Offsets, maps: Maps) -> bytes:
    """On sched_process_exit(task): a process is gone, and with the one that leads it a session."""
    code = Trace()
    code.fetch(R6, R1, 0)
    code.hop(R7, R6, at["task_struct", "signal"])
    code.hop(R1, R7, at["signal_struct", "live"], 4)
    code.jump_unless(R1, 0, "out")
    find_jail(code, maps)
    _find_lineages(code, maps)
    code.zero(_END, EXIT_SIZE)
    code.hop(R1, R6, at["task_struct", "tgid"], 4)
    code.put(FRAME, KEY, R1, 4)
    code.put(FRAME, _END + PID, R1, 4)
    _look_up(code, "out")
    code.fetch(R1, R0, _SESSION)
    code.put(FRAME, _END + LINEAGE, R1)
    code.fetch(R1, R0, _LEADER, 4)
    code.put(FRAME, _END + SESSION, R1, 4)
    code.copy(R1, R9)
    code.frame(R2, KEY)
    code.call(bpf.MAP_DELETE_ELEM)
    code.fetch(R1, FRAME, _END + PID, 4)
    code.fetch(R2, FRAME, _END + SESSION, 4)
    code.when_words_differ(R1, R2, "out")
    code.call(bpf.KTIME_GET_BOOT_NS)
    code.put(FRAME, _END + TIME, R0)
    code.set(R1, EXIT)
    code.put(FRAME, _END + KIND, R1, 4)
    code.hop(R1, R6, at["task_struct", "exit_code"], 4)
    code.put(FRAME, _END + UID, R1, 4)
    code.frame(R8, _END)
    tell(code, maps, EXIT_SIZE)
    return end(code)


def descend(code: Trace, maps: Maps) -> None:
    """On an exec: which session the process is in, and which that is from, to the record. R9 is lost."""
    _find_lineages(code, maps)
    code.zero(_OLD, LINEAGE_SIZE)
    code.fetch(R1, R8, PID, 4)
    code.put(FRAME, KEY, R1, 4)
    _look_up(code, "first")
    _copy(code)
    code.fetch(R1, FRAME, _OLD + _LEADER, 4)
    code.fetch(R2, R8, SESSION, 4)
    code.when_words_differ(R1, R2, "other session")
    code.jump("same session")
    code.label("first")
    mark(code, UNKNOWN)
    code.fetch(R1, R8, UID, 4)
    code.put(FRAME, _OLD + _UID, R1, 4)
    code.label("other session")
    mark(code, NEW)
    code.fetch(R1, FRAME, _OLD + _SESSION)
    code.put(FRAME, _OLD + _BEFORE, R1)
    code.fetch(R1, R8, TIME)
    code.put(FRAME, _OLD + _SESSION, R1)
    code.fetch(R1, R8, SESSION, 4)
    code.put(FRAME, _OLD + _LEADER, R1, 4)
    code.label("same session")
    code.fetch(R1, FRAME, _OLD + _UID, 4)
    code.put(R8, UID_BEFORE, R1, 4)
    code.fetch(R1, R8, UID, 4)
    code.put(FRAME, _OLD + _UID, R1, 4)
    _set(code)
    code.fetch(R1, FRAME, _OLD + _SESSION)
    code.put(R8, LINEAGE, R1)
    code.fetch(R1, FRAME, _OLD + _BEFORE)
    code.put(R8, BEFORE, R1)


def _find_lineages(code: Trace, maps: Maps) -> None:
    """R9 = the jail's map of lineages."""
    code.look_up(maps.lineages.fd, _LEVEL_ID)
    code.when(R0, "==", 0, "out")
    code.copy(R9, R0)


def _look_up(code: Trace, none: str) -> None:
    """R0 = the lineage of the process on the stack; else go on at ``none``."""
    code.copy(R1, R9)
    code.frame(R2, KEY)
    code.call(bpf.MAP_LOOKUP_ELEM)
    code.when(R0, "==", 0, none)


def _copy(code: Trace) -> None:
    """The lineage R0 to the stack."""
    for at in range(0, LINEAGE_SIZE, 8):
        code.fetch(R1, R0, at)
        code.put(FRAME, _OLD + at, R1)


def _set(code: Trace) -> None:
    """What is on the stack, for the process there."""
    code.copy(R1, R9)
    code.frame(R2, KEY)
    code.frame(R3, _OLD)
    code.set(R4, 0)
    code.call(bpf.MAP_UPDATE_ELEM)
    code.when(R0, "==", 0, "kept")
    code.fetch(R1, FRAME, _JAIL)
    code.copy(R2, R1)
    code.count_one(R2, _LINEAGES)
    code.label("kept")
