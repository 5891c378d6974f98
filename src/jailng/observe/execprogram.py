"""The program on the kernel's tracepoint of execs: what a jail's processes execute, who they are, and from where.

What it looks at it copies out of the kernel's structures: ``execplaces`` has where these have it, ``execrecord`` what
it writes, and ``execlineage`` whose a process is and which session it is in.
"""

from __future__ import annotations

from jailng.linux import bpf
from jailng.linux.bpf import FRAME, R0, R1, R2, R3, R6, R7, R8, R9
from jailng.observe.execlineage import KEY, Maps, descend, end, find_jail, mark, tell
from jailng.observe.execplaces import Places
from jailng.observe.execrecord import (
    ARGUMENTS_ALL,
    ARGUMENTS_SIZE,
    CUT,
    DETACHED,
    DEVICE,
    ENTERED,
    EUID,
    EXEC,
    FAMILY,
    GID,
    HEAD,
    HELD,
    HELD_FD,
    INODE,
    INTERPRETER_SIZE,
    KIND,
    LINKS,
    LOCAL,
    NAME_SIZE,
    PARENT,
    PARENT_IN,
    PATH_SIZE,
    PID,
    PID_IN,
    PORT,
    REMOTE,
    REMOTE_PORT,
    SCRATCH,
    SESSION,
    SESSION_IN,
    SOCKET,
    TIME,
    TTY,
    UID,
    UNREADABLE,
)
from jailng.observe.tracecode import Trace

_NAME_MOST, _INTERPRETER_MOST, _PART_MOST, _PATH_MOST, _ARGUMENTS_MOST = 1024, 256, 256, 2048, 4096
_PARTS = 40  # directories of a path that are told of
_GENERATIONS, _DESCRIPTORS = 7, 16

# Places on the stack, beside ``execlineage``'s.
_ONE, _TWO, _THREE, _CHAIN = -32, -40, -48, -56

_TCP, _INET, _INET6, _ESTABLISHED, _CLOSE_WAIT = 6, 2, 10, 1, 8
_S_IFSOCK = 0xC000


def execute(places: Places, maps: Maps) -> bytes:
    """On sched_process_exec(task, old pid, linux_binprm): the process is by now what it has executed."""
    code = Trace()
    code.copy(R6, R1)
    find_jail(code, maps)
    code.set(R1, 0)
    code.put(FRAME, KEY, R1, 4)
    code.look_up(maps.scratch.fd, KEY)
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
    descend(code, maps)
    _look_for_socket(code, places)
    _describe_file(code, places)
    tell(code, maps)
    return end(code)


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
    mark(code, ENTERED)
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
    code.keep(REMOTE, 16, R7, places.remote6)
    code.keep(LOCAL, 16, R7, places.local6)
    code.jump(f"ports{following}")
    code.label(f"four{following}")
    code.keep(REMOTE, 4, R7, places.remote)
    code.keep(LOCAL, 4, R7, places.local)
    code.label(f"ports{following}")
    code.set(R2, generation)
    code.put(R8, HELD, R2, 4)
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
        _length(code)
        code.put(R8, place, R2, 4)
    code.hop(R7, R7, places.mm)
    code.put(FRAME, _CHAIN, R7)
    code.hop(R6, R7, places.executed)
    code.hop(R7, R6, places.file_inode)
    code.keep(LINKS, 4, R7, places.links)
    code.keep(INODE, 8, R7, places.inode)
    code.hop(R7, R7, places.super_block)
    code.keep(DEVICE, 4, R7, places.device)
    code.hop(R7, R6, places.path_mount)
    code.hop(R6, R6, places.path_dentry)
    _climb(code, places)
    code.fetch(R6, FRAME, _CHAIN)
    _append_arguments(code, places)


def _length(code: Trace) -> None:
    """R2 = how much has been appended since R9 was put down."""
    code.fetch(R1, FRAME, _TWO)
    code.copy(R2, R9)
    code.subtract_of(R2, R1)


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
        _length(code)
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
        code.put(FRAME, KEY, R2)
        code.hop(R6, R7, places.mountpoint - places.mount)
        code.fetch(R7, FRAME, KEY)
        code.label(last)
        code.label(following)
    code.label("cut")
    mark(code, CUT)
    code.jump("climbed")
    code.label("detached")
    mark(code, DETACHED)
    code.label("climbed")
    _length(code)
    code.put(R8, PATH_SIZE, R2, 4)


def _append_arguments(code: Trace, places: Places) -> None:
    """Those of the memory R6."""
    code.mask(R9, 4095)
    code.hop(R7, R6, places.argument_start)
    code.hop(R6, R6, places.argument_end)
    code.subtract_of(R6, R7)
    code.put(R8, ARGUMENTS_ALL, R6)
    code.when(R6, ">", _ARGUMENTS_MOST, "long arguments")
    code.jump("arguments")
    code.label("long arguments")
    code.set(R6, _ARGUMENTS_MOST)
    code.label("arguments")
    code.mask(R6, 8191)
    code.copy(R1, R8)
    code.add_of(R1, R9)
    code.copy(R2, R6)
    code.copy(R3, R7)
    code.call(bpf.PROBE_READ_USER)
    code.when(R0, "==", 0, "got arguments")
    mark(code, UNREADABLE)
    code.set(R6, 0)
    code.label("got arguments")
    code.put(R8, ARGUMENTS_SIZE, R6, 4)
    code.add_of(R9, R6)
    code.mask(R9, SCRATCH - 1)
