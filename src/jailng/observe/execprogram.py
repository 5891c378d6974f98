"""The programs on the kernel's tracepoints of processes: what a jail's processes execute, and which session ends.

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
from jailng.observe.execplaces import Places
from jailng.observe.tracecode import Trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.bpfmap import Map

EXEC, EXIT = 1, 2
ENTERED, NEW, UNKNOWN, CUT, DETACHED, UNREADABLE = 1, 2, 4, 8, 16, 32

# A record: time kind flags | pid, inside ppid, inside sid, inside | uid euid gid links | inode dev magic |
# session before | tty | sizes of: name given, interpreter, path, arguments | size of all arguments | whose the socket
# is, and its descriptor | family, local port, remote port | remote and local address | where it is | uid before
HEAD = struct.Struct("=QII 6I 4I QII QQ 16s 4I Q II HHH2x 16s16s Q I4x")
(
    TIME, KIND, FLAGS, PID, PID_IN, PARENT, PARENT_IN, SESSION, SESSION_IN, UID, EUID, GID, LINKS, INODE, DEVICE, MAGIC,
    LINEAGE, BEFORE, TTY, NAME_SIZE, INTERPRETER_SIZE, PATH_SIZE, ARGUMENTS_SIZE, ARGUMENTS_ALL, HELD, HELD_FD, FAMILY,
    PORT, REMOTE_PORT, REMOTE, LOCAL, SOCKET, UID_BEFORE,
) = (
    0, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 64, 68,
    72, 80, 88, 104, 108, 112, 116, 120, 128, 132, 136,
    138, 140, 144, 160, 176, 184,
)  # fmt: skip
SCRATCH = 16384
_NAME_MOST, _INTERPRETER_MOST, _PART_MOST, _PATH_MOST, ARGUMENTS_MOST = 1024, 256, 256, 2048, 4096
_PARTS = 40  # directories of a path that are told of
_LEVELS = 20  # of cgroups, from the root
_GENERATIONS, _DESCRIPTORS = 7, 16
COUNTERS = struct.Struct("=QQQ")  # execs and ends that found no room in the ring; lineages that found none
COUNTED_RECORDS, COUNTED_LINEAGES = 0, 8
LINEAGE_SIZE = 24  # leader of the session, uid at the last exec, session, the one before

# Places on the stack.
_LEVEL_ID, _JAIL, _ONE, _TWO, _THREE, _CHAIN = -16, -24, -32, -40, -48, -56
_KEY, _OLD = -64, -88
_SHORT = -(88 + LINEAGE + 16)  # a whole record of an exit, without what only an exec has

_TCP, _INET, _INET6, _ESTABLISHED, _CLOSE_WAIT = 6, 2, 10, 1, 8
_S_IFSOCK = 0xC000


class Maps:
    """The maps that the programs share."""

    __slots__ = ("jails", "lineages", "rings", "scratch")

    def __init__(self, jails: Map, rings: Map, lineages: Map, scratch: Map) -> None:
        self.jails = jails
        self.rings = rings
        self.lineages = lineages
        self.scratch = scratch


def _find_jail(code: Trace, maps: Maps) -> None:
    """The outermost jail that the current process is in: its cgroup's number and its counters go on the stack."""
    for level in range(1, _LEVELS):
        code.set(R1, level)
        code.call(bpf.GET_CURRENT_ANCESTOR_CGROUP_ID)
        code.when(R0, "==", 0, "out")
        code.put(FRAME, _LEVEL_ID, R0)
        code.look_up(maps.jails.fd, _LEVEL_ID)
        code.when(R0, "==", 0, f"outside {level}")
        code.put(FRAME, _JAIL, R0)
        code.jump("found")
        code.label(f"outside {level}")
    code.jump("out")
    code.label("found")


def _find_lineages(code: Trace, maps: Maps) -> None:
    """R9 = the jail's map of lineages."""
    code.look_up(maps.lineages.fd, _LEVEL_ID)
    code.when(R0, "==", 0, "out")
    code.copy(R9, R0)


def _tell(code: Trace, maps: Maps, size: int = 0) -> None:
    """What R8 points to, to the ring of every jail that the current process is in: ``size`` bytes, or as R9 says."""
    for level in range(1, _LEVELS):
        following = code.fresh()
        code.set(R1, level)
        code.call(bpf.GET_CURRENT_ANCESTOR_CGROUP_ID)
        code.when(R0, "==", 0, "out")
        code.put(FRAME, _LEVEL_ID, R0)
        code.look_up(maps.rings.fd, _LEVEL_ID)
        code.when(R0, "==", 0, following)
        code.copy(R1, R0)
        if size:
            code.output(R8, size)
        else:
            code.output_of(R8, R9)
        code.when(R0, "==", 0, following)
        code.look_up(maps.jails.fd, _LEVEL_ID)
        code.when(R0, "==", 0, following)
        code.count_one(R0, COUNTED_RECORDS)
        code.label(following)


def _leave(code: Trace) -> bytes:
    code.label("out")
    code.leave(0)
    return code.assembled()


def fork(places: Places, maps: Maps) -> bytes:
    """On sched_process_fork(parent, child): what the child is descended from."""
    code = Trace()
    code.fetch(R6, R1, 8)
    code.hop(R7, R6, places.tgid, 4)
    code.hop(R8, R6, places.pid, 4)
    code.when_words_differ(R7, R8, "out")  # a thread
    _find_jail(code, maps)
    _find_lineages(code, maps)
    code.call(bpf.GET_CURRENT_PID_TGID)
    code.put(FRAME, _ONE, R0)
    code.fetch(R1, FRAME, _ONE + 4, 4)
    code.put(FRAME, _KEY, R1, 4)
    code.copy(R1, R9)
    code.frame(R2, _KEY)
    code.call(bpf.MAP_LOOKUP_ELEM)
    code.when(R0, "==", 0, "out")
    for at in range(0, LINEAGE_SIZE, 8):
        code.fetch(R1, R0, at)
        code.put(FRAME, _OLD + at, R1)
    code.put(FRAME, _KEY, R7, 4)
    _set_lineage(code)
    return _leave(code)


def _set_lineage(code: Trace) -> None:
    """What is on the stack, for the process there."""
    code.copy(R1, R9)
    code.frame(R2, _KEY)
    code.frame(R3, _OLD)
    code.set(R4, 0)
    code.call(bpf.MAP_UPDATE_ELEM)
    code.when(R0, "==", 0, "kept")
    code.fetch(R1, FRAME, _JAIL)
    code.copy(R2, R1)
    code.count_one(R2, COUNTED_LINEAGES)
    code.label("kept")


def leave(places: Places, maps: Maps) -> bytes:
    """On sched_process_exit(task): a process is gone, and with the one that leads it a session."""
    code = Trace()
    code.fetch(R6, R1, 0)
    code.hop(R7, R6, places.signal)
    code.hop(R1, R7, places.live, 4)
    code.jump_unless(R1, 0, "out")
    _find_jail(code, maps)
    _find_lineages(code, maps)
    code.zero(_SHORT, LINEAGE + 16)
    code.hop(R1, R6, places.tgid, 4)
    code.put(FRAME, _KEY, R1, 4)
    code.put(FRAME, _SHORT + PID, R1, 4)
    code.copy(R1, R9)
    code.frame(R2, _KEY)
    code.call(bpf.MAP_LOOKUP_ELEM)
    code.when(R0, "==", 0, "out")
    code.fetch(R1, R0, 8)
    code.put(FRAME, _SHORT + LINEAGE, R1)
    code.fetch(R1, R0, 0, 4)
    code.put(FRAME, _SHORT + SESSION, R1, 4)
    code.copy(R1, R9)
    code.frame(R2, _KEY)
    code.call(bpf.MAP_DELETE_ELEM)
    code.fetch(R1, FRAME, _SHORT + PID, 4)
    code.fetch(R2, FRAME, _SHORT + SESSION, 4)
    code.when_words_differ(R1, R2, "out")
    code.call(bpf.KTIME_GET_BOOT_NS)
    code.put(FRAME, _SHORT + TIME, R0)
    code.set(R1, EXIT)
    code.put(FRAME, _SHORT + KIND, R1, 4)
    code.hop(R1, R6, places.exit_code, 4)
    code.put(FRAME, _SHORT + UID, R1, 4)
    code.frame(R8, _SHORT)
    _tell(code, maps, LINEAGE + 16)
    return _leave(code)


def execute(places: Places, maps: Maps) -> bytes:
    """On sched_process_exec(task, old pid, linux_binprm): the process is by now what it has executed."""
    code = Trace()
    code.copy(R6, R1)
    _find_jail(code, maps)
    code.set(R1, 0)
    code.put(FRAME, _KEY, R1, 4)
    code.look_up(maps.scratch.fd, _KEY)
    code.when(R0, "==", 0, "out")
    code.copy(R8, R0)
    code.fetch(R7, R6, 0)  # the task
    code.fetch(R6, R6, 16)  # the linux_binprm
    code.set(R1, 0)
    for at in range(0, HEAD.size, 8):
        code.put(R8, at, R1)
    code.call(bpf.KTIME_GET_BOOT_NS)
    code.put(R8, TIME, R0)
    code.set(R1, EXEC)
    code.put(R8, KIND, R1, 4)
    _identify(code, places)
    _descend(code, maps)
    _look_for_socket(code, places)
    _describe_file(code, places)
    _tell(code, maps)
    return _leave(code)


def _flag(code: Trace, flag: int) -> None:
    code.fetch(R1, R8, FLAGS, 4)
    code.add(R1, flag)
    code.put(R8, FLAGS, R1, 4)


def _number_inside(code: Trace, places: Places, task: int, place: int, level: int) -> None:
    """Of a task, to the record; and the level of its pid namespace to the stack. R9 is lost."""
    code.hop(R9, task, places.thread_pid)
    code.hop(R1, R9, places.level, 4)
    code.put(FRAME, level, R1)
    code.shift_left(R1, 4)  # sizeof(struct upid)
    code.add_of(R9, R1)
    code.keep(place, 4, R9, places.numbers)


def _identify(code: Trace, places: Places) -> None:
    """Who it is. R7: the task."""
    code.keep(PID, 4, R7, places.tgid)
    _number_inside(code, places, R7, PID_IN, _ONE)
    code.hop(R9, R7, places.cred)
    code.keep(UID, 4, R9, places.uid)
    code.keep(EUID, 4, R9, places.euid)
    code.keep(GID, 4, R9, places.gid)
    code.hop(R9, R7, places.parent)
    code.put(FRAME, _THREE, R9)
    code.keep(PARENT, 4, R9, places.tgid)
    code.fetch(R9, FRAME, _THREE)
    code.put(FRAME, _THREE, R7)
    code.copy(R7, R9)
    _number_inside(code, places, R7, PARENT_IN, _TWO)
    code.fetch(R7, FRAME, _THREE)
    code.fetch(R1, FRAME, _ONE)
    code.fetch(R2, FRAME, _TWO)
    code.when_of(R1, "==", R2, "within")
    _flag(code, ENTERED)
    code.label("within")
    code.hop(R9, R7, places.signal)
    code.put(FRAME, _THREE, R9)
    code.hop(R9, R9, places.tty)
    code.when(R9, "==", 0, "no terminal")
    code.keep(TTY, 16, R9, places.tty_name)
    code.label("no terminal")
    code.fetch(R9, FRAME, _THREE)
    code.hop(R9, R9, places.session)
    code.keep(SESSION, 4, R9, places.numbers)
    code.hop(R1, R9, places.level, 4)
    code.fetch(R2, FRAME, _ONE)
    code.when_words_differ(R1, R2, "session from outside")
    code.shift_left(R2, 4)
    code.add_of(R9, R2)
    code.keep(SESSION_IN, 4, R9, places.numbers)
    code.label("session from outside")


def _descend(code: Trace, maps: Maps) -> None:
    """Which session it is in, and which that is from."""
    _find_lineages(code, maps)
    code.zero(_OLD, LINEAGE_SIZE)
    code.fetch(R1, R8, PID, 4)
    code.put(FRAME, _KEY, R1, 4)
    code.copy(R1, R9)
    code.frame(R2, _KEY)
    code.call(bpf.MAP_LOOKUP_ELEM)
    code.when(R0, "==", 0, "first")
    for at in range(0, LINEAGE_SIZE, 8):
        code.fetch(R1, R0, at)
        code.put(FRAME, _OLD + at, R1)
    code.fetch(R1, FRAME, _OLD, 4)
    code.fetch(R2, R8, SESSION, 4)
    code.when_words_differ(R1, R2, "other session")
    code.jump("same session")
    code.label("first")
    _flag(code, UNKNOWN)
    code.fetch(R1, R8, UID, 4)
    code.put(FRAME, _OLD + 4, R1, 4)
    code.label("other session")
    _flag(code, NEW)
    code.fetch(R1, FRAME, _OLD + 8)
    code.put(FRAME, _OLD + 16, R1)
    code.fetch(R1, R8, TIME)
    code.put(FRAME, _OLD + 8, R1)
    code.fetch(R1, R8, SESSION, 4)
    code.put(FRAME, _OLD, R1, 4)
    code.label("same session")
    code.fetch(R1, FRAME, _OLD + 4, 4)
    code.put(R8, UID_BEFORE, R1, 4)
    code.fetch(R1, R8, UID, 4)
    code.put(FRAME, _OLD + 4, R1, 4)
    _set_lineage(code)
    code.fetch(R1, FRAME, _OLD + 8)
    code.put(R8, LINEAGE, R1)
    code.fetch(R1, FRAME, _OLD + 16)
    code.put(R8, BEFORE, R1)


def _look_for_socket(code: Trace, places: Places) -> None:
    """The connection that it has as its standard input; for the leader of a session, that it or an ancestor has."""
    code.put(FRAME, _THREE, R7)  # the generation that is looked at; R6 and R7 are for what it has
    code.put(FRAME, _CHAIN, R6)
    for generation in range(1, _GENERATIONS + 1):
        last = f"generation {generation}"
        code.fetch(R6, FRAME, _THREE)
        code.hop(R6, R6, places.files)
        code.hop(R6, R6, places.table)
        code.hop(R1, R6, places.most, 4)
        code.put(FRAME, _TWO, R1)
        code.hop(R6, R6, places.descriptors)
        for descriptor in range(_DESCRIPTORS):
            _look_at(code, places, generation, descriptor, last)
            if generation == 1 and descriptor == 0:
                code.fetch(R1, R8, PID, 4)
                code.fetch(R2, R8, SESSION, 4)
                code.when_words_differ(R1, R2, "looked")
        code.label(last)
        if generation < _GENERATIONS:
            code.fetch(R6, FRAME, _THREE)
            code.hop(R6, R6, places.parent)
            code.put(FRAME, _THREE, R6)
            code.hop(R1, R6, places.thread_pid)
            code.hop(R1, R1, places.level, 4)
            code.fetch(R2, FRAME, _ONE)
            code.when_words_differ(R1, R2, "looked")  # beyond the jail
    code.label("looked")
    code.fetch(R6, FRAME, _CHAIN)


def _look_at(code: Trace, places: Places, generation: int, descriptor: int, last: str) -> None:
    following = code.fresh()
    code.fetch(R1, FRAME, _TWO)
    code.set(R2, descriptor)
    code.when_of(R1, "==", R2, last)
    code.hop(R7, R6, 8 * descriptor)
    code.when(R7, "==", 0, following)
    code.hop(R1, R7, places.file_inode)
    code.hop(R1, R1, places.mode, 2)
    code.mask(R1, 0xF000)
    code.jump_unless(R1, _S_IFSOCK, following)
    code.hop(R7, R7, places.private)
    code.hop(R7, R7, places.sock)
    code.hop(R1, R7, places.protocol, 2)
    code.jump_unless(R1, _TCP, following)
    code.hop(R1, R7, places.state, 1)
    code.jump_if(R1, _ESTABLISHED, f"open{following}")
    code.jump_unless(R1, _CLOSE_WAIT, following)
    code.label(f"open{following}")
    code.hop(R1, R7, places.family, 2)
    code.put(R8, FAMILY, R1, 2)
    code.jump_if(R1, _INET, f"four{following}")
    code.jump_unless(R1, _INET6, following)
    code.set(R2, generation)
    code.put(R8, HELD, R2, 4)
    code.keep(REMOTE, 16, R7, places.remote6)
    code.keep(LOCAL, 16, R7, places.local6)
    code.jump(f"ports{following}")
    code.label(f"four{following}")
    code.set(R2, generation)
    code.put(R8, HELD, R2, 4)
    code.keep(REMOTE, 4, R7, places.remote)
    code.keep(LOCAL, 4, R7, places.local)
    code.label(f"ports{following}")
    code.set(R2, descriptor)
    code.put(R8, HELD_FD, R2, 4)
    code.keep(PORT, 2, R7, places.port)
    code.keep(REMOTE_PORT, 2, R7, places.remote_port)
    code.put(R8, SOCKET, R7)
    code.jump("looked")
    code.label(following)


def _describe_file(code: Trace, places: Places) -> None:
    """What was executed, by what name, with which arguments. R9: the size of the record so far. R6: linux_binprm."""
    code.call(bpf.GET_CURRENT_TASK)
    code.copy(R7, R0)
    code.set(R9, HEAD.size)
    for pointer, most, place in (
        (places.filename, _NAME_MOST, NAME_SIZE),
        (places.interpreter, _INTERPRETER_MOST, INTERPRETER_SIZE),
    ):
        code.put(FRAME, _TWO, R9)
        code.hop(R3, R6, pointer)
        _append_string(code, most, place)
        code.fetch(R1, FRAME, _TWO)
        code.copy(R2, R9)
        code.subtract_of(R2, R1)
        code.put(R8, place, R2, 4)
    code.hop(R7, R7, places.mm)
    code.put(FRAME, _CHAIN, R7)
    code.hop(R6, R7, places.executed)
    code.hop(R7, R6, places.file_inode)
    code.keep(LINKS, 4, R7, places.links)
    code.keep(INODE, 8, R7, places.inode)
    code.hop(R7, R7, places.super_block)
    code.keep(DEVICE, 4, R7, places.device)
    code.keep(MAGIC, 4, R7, places.magic)
    code.hop(R7, R6, places.path_mount)
    code.hop(R6, R6, places.path_dentry)
    _climb(code, places)
    code.fetch(R6, FRAME, _CHAIN)
    _append_arguments(code, places)


def _append_string(code: Trace, most: int, name: object) -> None:
    """What R3 points to goes to the record; R9 is behind it then."""
    none = f"no {name} {code.fresh()}"
    code.mask(R9, 4095)
    code.copy(R1, R8)
    code.add_of(R1, R9)
    code.set(R2, most)
    code.call(bpf.PROBE_READ_KERNEL_STR)
    code.when(R0, "s<", 0, none)
    code.mask(R0, 2047)
    code.add_of(R9, R0)
    code.label(none)


def _climb(code: Trace, places: Places) -> None:
    """The path of the dentry R6 in the mount R7, from its last part up."""
    code.put(FRAME, _TWO, R9)
    for part in range(_PARTS):
        root, last, following = code.fresh(), code.fresh(), code.fresh()
        code.hop(R1, R7, places.mount_root)
        code.when_of(R1, "==", R6, root)
        code.hop(R3, R6, places.name)
        _append_string(code, _PART_MOST, part)
        code.fetch(R1, FRAME, _TWO)
        code.copy(R2, R9)
        code.subtract_of(R2, R1)
        code.when(R2, ">", _PATH_MOST, "cut")
        code.hop(R1, R6, places.above)
        code.when_of(R1, "==", R6, "detached")
        code.copy(R6, R1)
        code.jump(following)
        code.label(root)
        code.hop(R1, R7, places.mount_parent - places.mount)
        code.copy(R2, R1)
        code.add(R2, places.mount)
        code.when_of(R2, "==", R7, "climbed")
        code.put(FRAME, _KEY, R2)
        code.hop(R6, R7, places.mountpoint - places.mount)
        code.fetch(R7, FRAME, _KEY)
        code.label(last)
        code.label(following)
    code.label("cut")
    _flag(code, CUT)
    code.jump("climbed")
    code.label("detached")
    _flag(code, DETACHED)
    code.label("climbed")
    code.fetch(R1, FRAME, _TWO)
    code.copy(R2, R9)
    code.subtract_of(R2, R1)
    code.put(R8, PATH_SIZE, R2, 4)


def _append_arguments(code: Trace, places: Places) -> None:
    """Those of the memory R6."""
    code.mask(R9, 4095)
    code.hop(R7, R6, places.argument_start)
    code.hop(R6, R6, places.argument_end)
    code.subtract_of(R6, R7)
    code.put(R8, ARGUMENTS_ALL, R6)
    code.when(R6, ">", ARGUMENTS_MOST, "long arguments")
    code.jump("arguments")
    code.label("long arguments")
    code.set(R6, ARGUMENTS_MOST)
    code.label("arguments")
    code.mask(R6, 8191)
    code.copy(R1, R8)
    code.add_of(R1, R9)
    code.copy(R2, R6)
    code.copy(R3, R7)
    code.call(bpf.PROBE_READ_USER)
    code.when(R0, "==", 0, "got arguments")
    _flag(code, UNREADABLE)
    code.set(R6, 0)
    code.label("got arguments")
    code.put(R8, ARGUMENTS_SIZE, R6, 4)
    code.add_of(R9, R6)
    code.mask(R9, SCRATCH - 1)
