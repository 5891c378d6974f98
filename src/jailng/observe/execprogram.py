"""The program on the kernel's tracepoint of execs: what a jail's processes execute, who they are, and from where.

What it looks at it copies out of the kernel's structures to a record (``execrecord``). Whose a process is, and which
session it is in, ``execlineage`` finds out.
"""

from __future__ import annotations

from jailng.linux import bpf, filekind
from jailng.linux.bpf import FRAME, R0, R1, R2, R3, R6, R7, R8, R9
from jailng.observe.execlineage import KEY, Maps, descend, end, find_jail, mark, tell
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
    INTERPRETER_MOST,
    INTERPRETER_SIZE,
    KIND,
    LINKS,
    LOCAL,
    NAME_MOST,
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
from jailng.observe.offsets import Offsets
from jailng.observe.tracecode import Trace

_PART_MOST, _PATH_MOST, _ARGUMENTS_MOST = 256, 2048, 4096
_PARTS = 40  # directories of a path that are told of
_GENERATIONS, _DESCRIPTORS = 7, 16

# Places on the stack, beside ``execlineage``'s.
_ONE, _TWO, _THREE, _CHAIN = -32, -40, -48, -56

_TCP, _INET, _INET6, _ESTABLISHED, _CLOSE_WAIT = 6, 2, 10, 1, 8
_SESSION = 8 * 3  # PIDTYPE_SID, of the pids in struct signal_struct


def execute(at: Offsets, maps: Maps) -> bytes:
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
    for place in range(0, HEAD.size, 8):
        code.put(R8, place, R1)
    code.call(bpf.KTIME_GET_BOOT_NS)
    code.put(R8, TIME, R0)
    code.set(R1, EXEC)
    code.put(R8, KIND, R1, 4)
    _identify(code, at)
    descend(code, maps)
    _look_for_socket(code, at)
    _describe_file(code, at)
    tell(code, maps)
    return end(code)


def _number_inside(code: Trace, at: Offsets, task: int, place: int, level: int) -> None:
    """Of a task, to the record; and the level of its pid namespace to the stack. R9 is lost."""
    code.hop(R9, task, at["task_struct", "thread_pid"])
    code.hop(R1, R9, at["pid", "level"], 4)
    code.put(FRAME, level, R1)
    code.shift_left(R1, 4)  # sizeof(struct upid)
    code.add_of(R9, R1)
    code.keep(place, 4, R9, at["pid", "numbers"] + at["upid", "nr"])


def _identify(code: Trace, at: Offsets) -> None:
    """Who it is. R7: the task."""
    code.keep(PID, 4, R7, at["task_struct", "tgid"])
    _number_inside(code, at, R7, PID_IN, _ONE)
    code.hop(R9, R7, at["task_struct", "cred"])
    code.keep(UID, 4, R9, at["cred", "uid"])
    code.keep(EUID, 4, R9, at["cred", "euid"])
    code.keep(GID, 4, R9, at["cred", "gid"])
    code.hop(R9, R7, at["task_struct", "real_parent"])
    code.put(FRAME, _THREE, R9)
    code.keep(PARENT, 4, R9, at["task_struct", "tgid"])
    code.fetch(R9, FRAME, _THREE)
    code.put(FRAME, _THREE, R7)
    code.copy(R7, R9)
    _number_inside(code, at, R7, PARENT_IN, _TWO)
    code.fetch(R7, FRAME, _THREE)
    code.fetch(R1, FRAME, _ONE)
    code.fetch(R2, FRAME, _TWO)
    code.when_of(R1, "==", R2, "within")
    mark(code, ENTERED)
    code.label("within")
    code.hop(R9, R7, at["task_struct", "signal"])
    code.put(FRAME, _THREE, R9)
    code.hop(R9, R9, at["signal_struct", "tty"])
    code.when(R9, "==", 0, "no terminal")
    code.keep(TTY, 16, R9, at["tty_struct", "name"])
    code.label("no terminal")
    code.fetch(R9, FRAME, _THREE)
    code.hop(R9, R9, at["signal_struct", "pids"] + _SESSION)
    code.keep(SESSION, 4, R9, at["pid", "numbers"] + at["upid", "nr"])
    code.hop(R1, R9, at["pid", "level"], 4)
    code.fetch(R2, FRAME, _ONE)
    code.when_words_differ(R1, R2, "session from outside")
    code.shift_left(R2, 4)
    code.add_of(R9, R2)
    code.keep(SESSION_IN, 4, R9, at["pid", "numbers"] + at["upid", "nr"])
    code.label("session from outside")


def _look_for_socket(code: Trace, at: Offsets) -> None:
    """The connection that it has as its standard input; for the leader of a session, that it or an ancestor has."""
    code.put(FRAME, _THREE, R7)  # the generation that is looked at; R6 and R7 are for what it has
    code.put(FRAME, _CHAIN, R6)
    for generation in range(1, _GENERATIONS + 1):
        last = f"generation {generation}"
        code.fetch(R6, FRAME, _THREE)
        code.hop(R6, R6, at["task_struct", "files"])
        code.hop(R6, R6, at["files_struct", "fdt"])
        code.hop(R1, R6, at["fdtable", "max_fds"], 4)
        code.put(FRAME, _TWO, R1)
        code.hop(R6, R6, at["fdtable", "fd"])
        code.move(R9, 0)
        code.label(f"descriptor {generation}")
        _look_at(code, at, generation, last)
        if generation == 1:
            code.fetch(R1, R8, PID, 4)
            code.fetch(R2, R8, SESSION, 4)
            code.when_words_differ(R1, R2, "looked")
        code.add(R9, 1)
        code.when(R9, "<", _DESCRIPTORS, f"descriptor {generation}")
        code.label(last)
        if generation < _GENERATIONS:
            code.fetch(R6, FRAME, _THREE)
            code.hop(R6, R6, at["task_struct", "real_parent"])
            code.put(FRAME, _THREE, R6)
            code.hop(R1, R6, at["task_struct", "thread_pid"])
            code.hop(R1, R1, at["pid", "level"], 4)
            code.fetch(R2, FRAME, _ONE)
            code.when_words_differ(R1, R2, "looked")  # beyond the jail
    code.label("looked")
    code.fetch(R6, FRAME, _CHAIN)


def _look_at(code: Trace, at: Offsets, generation: int, last: str) -> None:
    """Whether the descriptor R9 is a connection. R6: where there is a pointer for each; on the stack: how many."""
    following = code.fresh()
    code.fetch(R1, FRAME, _TWO)
    code.when_of(R9, "==", R1, last)
    code.copy(R7, R9)
    code.shift_left(R7, 3)
    code.add_of(R7, R6)
    code.hop(R7, R7, 0)
    code.when(R7, "==", 0, following)
    code.hop(R1, R7, at["file", "f_inode"])
    code.hop(R1, R1, at["inode", "i_mode"], 2)
    code.mask(R1, 0xF000)
    code.jump_unless(R1, filekind.SOCKET, following)
    code.hop(R7, R7, at["file", "private_data"])
    code.hop(R7, R7, at["socket", "sk"])
    code.hop(R1, R7, at["sock", "sk_protocol"], 2)
    code.jump_unless(R1, _TCP, following)
    code.hop(R1, R7, at["sock_common", "skc_state"], 1)
    code.jump_if(R1, _ESTABLISHED, f"open{following}")
    code.jump_unless(R1, _CLOSE_WAIT, following)
    code.label(f"open{following}")
    code.hop(R1, R7, at["sock_common", "skc_family"], 2)
    code.put(R8, FAMILY, R1, 2)
    code.jump_if(R1, _INET, f"four{following}")
    code.jump_unless(R1, _INET6, following)
    code.keep(REMOTE, 16, R7, at["sock_common", "skc_v6_daddr"])
    code.keep(LOCAL, 16, R7, at["sock_common", "skc_v6_rcv_saddr"])
    code.jump(f"ports{following}")
    code.label(f"four{following}")
    code.keep(REMOTE, 4, R7, at["sock_common", "skc_daddr"])
    code.keep(LOCAL, 4, R7, at["sock_common", "skc_rcv_saddr"])
    code.label(f"ports{following}")
    code.set(R2, generation)
    code.put(R8, HELD, R2, 4)
    code.put(R8, HELD_FD, R9, 4)
    code.keep(PORT, 2, R7, at["sock_common", "skc_num"])
    code.keep(REMOTE_PORT, 2, R7, at["sock_common", "skc_dport"])
    code.put(R8, SOCKET, R7)
    code.jump("looked")
    code.label(following)


def _describe_file(code: Trace, at: Offsets) -> None:
    """What was executed, by what name, with which arguments. R9: the size of the record so far. R6: linux_binprm."""
    code.call(bpf.GET_CURRENT_TASK)
    code.copy(R7, R0)
    code.set(R9, HEAD.size)
    for pointer, most, place in (
        (at["linux_binprm", "filename"], NAME_MOST, NAME_SIZE),
        (at["linux_binprm", "interp"], INTERPRETER_MOST, INTERPRETER_SIZE),
    ):
        code.put(FRAME, _TWO, R9)
        code.hop(R3, R6, pointer)
        _append_string(code, most, place)
        _length(code)
        code.put(R8, place, R2, 4)
    code.hop(R7, R7, at["task_struct", "mm"])
    code.put(FRAME, _CHAIN, R7)
    code.hop(R6, R7, at["mm_struct", "exe_file"])
    code.hop(R7, R6, at["file", "f_inode"])
    code.keep(LINKS, 4, R7, at["inode", "i_nlink"])
    code.keep(INODE, 8, R7, at["inode", "i_ino"])
    code.hop(R7, R7, at["inode", "i_sb"])
    code.keep(DEVICE, 4, R7, at["super_block", "s_dev"])
    code.hop(R7, R6, at["file", "f_path", "mnt"])
    code.hop(R6, R6, at["file", "f_path", "dentry"])
    _climb(code, at)
    code.fetch(R6, FRAME, _CHAIN)
    _append_arguments(code, at)


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


def _climb(code: Trace, at: Offsets) -> None:
    """The path of the dentry R6 in the mount R7, from its last part up."""
    code.put(FRAME, _TWO, R9)
    for part in range(_PARTS):
        root, last, following = code.fresh(), code.fresh(), code.fresh()
        code.hop(R1, R7, at["vfsmount", "mnt_root"])
        code.when_of(R1, "==", R6, root)
        code.hop(R3, R6, at["dentry", "d_name", "name"])
        _append_string(code, _PART_MOST, part)
        _length(code)
        code.when(R2, ">", _PATH_MOST, "cut")
        code.hop(R1, R6, at["dentry", "d_parent"])
        code.when_of(R1, "==", R6, "detached")
        code.copy(R6, R1)
        code.jump(following)
        code.label(root)
        code.hop(R1, R7, at["mount", "mnt_parent"] - at["mount", "mnt"])
        code.copy(R2, R1)
        code.add(R2, at["mount", "mnt"])
        code.when_of(R2, "==", R7, "climbed")
        code.put(FRAME, KEY, R2)
        code.hop(R6, R7, at["mount", "mnt_mountpoint"] - at["mount", "mnt"])
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


def _append_arguments(code: Trace, at: Offsets) -> None:
    """Those of the memory R6."""
    code.mask(R9, 4095)
    code.hop(R7, R6, at["mm_struct", "arg_start"])
    code.hop(R6, R6, at["mm_struct", "arg_end"])
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
