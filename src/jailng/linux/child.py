"""Children of this process that go on with its Python: clone3(2), and what such a one gives up for good.

The ids of this module's calls are those of one thread, as the kernel has it. What enters a jail, and what becomes its
PID 1, is no such child but a program of jailinit's (core/program.py).
"""

from __future__ import annotations

import posix
import sys
from errno import ENOSYS

from jailng.linux.libc import address, buffer, syscall, words
from jailng.linux.ns import CLONE_INTO_CGROUP, CLONE_PIDFD, pidfd_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGCHLD = 17
_VERSION_3 = 0x20080522
_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
_PR_SET_DUMPABLE = 4
_WALL = 0x40000000  # threads, too
_PTRACE_DETACH = 17
_SIGTRAP = 5  # of an exec, and no signal that anybody has sent
_UNCHANGED = 0xFFFFFFFF  # of an id


def clone3(flags: int = 0, cgroup: int | None = None) -> tuple[int, int]:
    """Fork into new namespaces and, where ``cgroup`` is a cgroup2 directory, into that cgroup.

    Returns (pid, pidfd) in the parent and (0, -1) in the child. Only for a process with one thread: like fork(2) the
    child has a copy of everything, but the interpreter is not told (``os.fork`` would run its hooks and has no flags).
    Raises OSError. clone3(2), CLONE_INTO_CGROUP since Linux 5.7.
    """
    pidfd = buffer(4)
    flags |= CLONE_PIDFD
    if cgroup is not None:
        flags |= CLONE_INTO_CGROUP
    # struct clone_args: flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size cgroup
    arguments = words(flags, address(pidfd), 0, 0, _SIGCHLD, 0, 0, 0, 0, 0, cgroup or 0)
    try:
        pid = syscall("clone3", arguments, len(arguments))
    except OSError as error:
        if error.errno != ENOSYS or flags != CLONE_PIDFD:
            raise
        pid = posix.fork()  # in a jail, whose filter cannot see what clone3(2) is asked for
        return (0, -1) if pid == 0 else (pid, pidfd_open(pid))
    if pid == 0:
        return 0, -1
    return pid, int.from_bytes(pidfd.raw, sys.byteorder)


def reaped() -> Iterator[tuple[int, int]]:
    """(pid, raw wait status) of each child that has ended and was not waited for: waitpid(2), WNOHANG."""
    while True:
        try:
            pid, status = posix.waitpid(-1, posix.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if is_end(pid, status):
            yield pid, status


def is_end(pid: int, status: int) -> bool:
    """Whether a child has ended that waitpid(2) told of, which was not asked for those that have stopped.

    It tells of one that has as well, if it asked to be traced by its parent: ptrace(2), PTRACE_TRACEME. What runs in a
    jail can do that, and goes on then, with the signal at which it stopped, and traced by nobody.
    """
    if not posix.WIFSTOPPED(status):
        return True
    signal = posix.WSTOPSIG(status)
    try:
        syscall("ptrace", _PTRACE_DETACH, pid, 0, 0 if signal == _SIGTRAP else signal)
    except OSError:  # it has ended meanwhile, which is still to be heard
        pass
    return False


def let_threads_go(pid: int) -> None:
    """Reap the threads of a child that have asked to be traced by its parent, and have ended; ``is_end`` of those that
    have stopped.

    Without that the child has not ended, and neither has its pid namespace, as long as its parent lives.
    """
    try:
        names = posix.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for thread in [int(name) for name in names]:
        try:
            if thread != pid and (found := posix.waitpid(thread, posix.WNOHANG | _WALL))[0]:
                is_end(*found)
        except ChildProcessError:
            pass  # it is traced by nobody, or by somebody else


def set_ids(uid: int, gid: int, groups: list[int]) -> None:
    """Take these ids for good: real, effective and saved, of this thread only. Raises OSError."""
    listed = words(*groups, size=4) if groups else None
    syscall("setgroups", len(groups), listed)
    syscall("setresgid", gid, gid, gid)
    syscall("setresuid", uid, uid, uid)


def set_fs_ids(uid: int) -> None:
    """Have this thread do what it does to files as that uid and gid, without root's privileges there: setfsuid(2)."""
    syscall("setfsgid", uid)
    syscall("setfsuid", uid)


class Guise:
    """For as long as this lasts this thread is that uid and gid to files (``set_fs_ids``), or to those it connects to.

    What ``die_with_parent`` has asked for holds afterwards, too, of which the kernel forgets with each change of ids.
    """

    __slots__ = ("_connects", "_parent", "_signal", "_uid")

    def __init__(self, uid: int, connects: bool = False) -> None:
        self._uid = uid
        self._connects = connects

    def __enter__(self) -> None:
        if not self._uid:
            return
        asked = buffer(4)
        syscall("prctl", _PR_GET_PDEATHSIG, asked, 0, 0, 0)
        self._signal = int.from_bytes(asked.raw, sys.byteorder)
        self._parent = posix.getppid()
        if self._connects:
            self._take(self._uid)
            set_fs_ids(0)
        else:
            set_fs_ids(self._uid)

    def __exit__(self, *_: object) -> None:
        if not self._uid:
            return
        if self._connects:
            self._take(0)
        else:
            set_fs_ids(0)
        if self._signal:
            die_with_parent(self._signal)
            if posix.getppid() != self._parent:  # it has ended meanwhile
                posix.kill(posix.getpid(), self._signal)

    @staticmethod
    def _take(uid: int) -> None:
        """What SO_PEERCRED says at the other end: the effective ids. As root first, and last."""
        for name in ("setresgid", "setresuid") if uid else ("setresuid", "setresgid"):
            syscall(name, _UNCHANGED, uid, _UNCHANGED)


def capset(granted: int, permitted: int | None = None) -> None:
    """Hold exactly these: effective ``granted``, permitted the same or as given, inheritable none. Raises OSError."""
    allowed = granted if permitted is None else permitted
    halves = [(granted >> shift, allowed >> shift, 0) for shift in (0, 32)]
    data = b"".join([words(*half, size=4) for half in halves])
    syscall("capset", words(_VERSION_3, 0, size=4), data)


def set_dumpable(on: bool) -> None:
    """Whether another process of the same uid may look into this one. Inherited by fork, set again by exec."""
    syscall("prctl", _PR_SET_DUMPABLE, int(on), 0, 0, 0)


def die_with_parent(signal: int) -> None:
    """Have the kernel send ``signal`` when the parent thread ends. Any later change of credentials forgets it."""
    syscall("prctl", _PR_SET_PDEATHSIG, signal, 0, 0, 0)
