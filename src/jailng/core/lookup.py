"""Looking up a user in the jail's own passwd: by a process that is in the jail and has nothing left to lose.

It is the one place where a Python is in a jail: a fork of this one, not dumpable, which gives everything up before it
opens a file, is killed if that takes long, answers in six fields and ends.
"""

from __future__ import annotations

import _signal
import posix
import sys
import time
from select import POLLIN, poll

from jailng.core import attach, passwd, process
from jailng.errors import JailError, explain
from jailng.linux import child, mount, ns
from jailng.linux.libc import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.attach import Entry
    from jailng.core.passwd import User

_PATIENCE = 10
_MOMENT = 2  # seconds that it may take to die
_MOST = 65536
_ALL_FDS = 0x7FFFFFFF
_HERE = (
    (".", mount.O_PATH),
    ("/", mount.O_PATH),
    ("/proc/self/ns/mnt", posix.O_RDONLY),
    ("/proc/self/ns/net", posix.O_RDONLY),
    ("/proc/self/ns/pid", posix.O_RDONLY),
)


def born(entry: Entry, life: Callable[[], None]) -> tuple[int, int]:
    """A fork of this process that is born into the jail's pid namespace and cgroup, and has its mounts and network.

    It still has the host's privileges, and so is to open and to import nothing before it has given them up. ``life`` is
    all that it does, and never returns. Returns its pid and pidfd. This process, which has one thread, is not dumpable
    from here on. Raises OSError.
    """
    from jailng.linux import cgroup
    from jailng.linux.arguments import Hidden

    fds: list[int] = []
    try:
        # Not among the members: it is to be found out also where there may be no more of those.
        fds.append(cgroup.open_directory(entry.record.aside))
        for path, how in _HERE:
            fds.append(posix.open(path, how | posix.O_CLOEXEC))
        child.set_dumpable(False)
        with Hidden():
            if entry.shared_uids:  # as in core/attach.py
                syscall("setresuid", process.NOBODYS, 0, process.NOBODYS)
            try:
                ns.setns(entry.init, attach.BORN)
                try:
                    pid, pidfd = child.clone3(0, fds[0])
                except BlockingIOError:  # others are there for the same, or whoever has PID 1 fork
                    pid, pidfd = child.clone3()
                if pid == 0:
                    life()
            finally:
                _return(*fds[1:])
                syscall("setresuid", 0, 0, 0)
    finally:
        for fd in fds:
            posix.close(fd)
    return pid, pidfd


def _return(cwd: int, root: int, *namespaces: int) -> None:
    """To where ``born`` was called: who joins a mount namespace is at its root, which need not be this process's.

    Where that fails this process ends, since whatever it opened from here on would be the jail's.
    """
    try:
        for fd in namespaces:
            ns.setns(fd, 0)
        posix.fchdir(root)
        posix.chroot(".")
        posix.fchdir(cwd)
    except OSError as error:
        command = sys.argv[0].rpartition("/")[2]
        posix.write(2, f"{command}: the way back from the jail: {error.strerror}\n".encode())
        posix._exit(1)


def find(entry: Entry, name: str) -> User:
    """The user of that name or uid in the jail. Raises JailError: ``NAME: no such user``, or no answer."""
    said, say = posix.pipe2(posix.O_CLOEXEC)
    try:
        pid, pidfd = born(entry, lambda: _answer(entry, name, say))
    finally:
        posix.close(say)
    answer = bytearray()
    waiter = poll()
    waiter.register(said, POLLIN)
    until = time.monotonic() + _PATIENCE
    try:
        while len(answer) < _MOST and waiter.poll(max(1000 * (until - time.monotonic()), 0)):
            part = posix.read(said, _MOST)
            if not part:
                break
            answer += part
    finally:
        # A jailed root may have stopped it before its clock was set.
        ns.pidfd_send_signal(pidfd, _signal.SIGKILL)
        if ns.ends_within(pidfd, _MOMENT):  # who waits for a FUSE server does not die before that answers
            posix.waitpid(pid, 0)
        posix.close(pidfd)
        posix.close(said)
    return _user(name, bytes(answer).decode("utf-8", "surrogateescape"))


def _answer(entry: Entry, name: str, say: int) -> None:
    """The child's whole life; it never returns."""
    try:
        _signal.signal(_signal.SIGALRM, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        _signal.alarm(_PATIENCE)
        _close_all_but(entry.init, say)  # a jailed root can reach this process from the next call on
        ns.setns(entry.init, attach.JOINED)
        child.set_ids(0, 0, [])
        child.capset(0)
        child.die_with_parent(_signal.SIGKILL)  # a jailed root could stop us from here on
        user = passwd.find(name)
        groups = ",".join([str(gid) for gid in user.groups])
        answer = ["found", user.name, str(user.uid), str(user.gid), groups, user.home, user.shell]
    except BaseException as error:
        answer = ["failed", explain(error)]
    try:
        posix.write(say, "\0".join(answer).encode("utf-8", "surrogateescape")[:_MOST])
    finally:
        posix._exit(0)


def _close_all_but(*kept: int) -> None:
    first = 0
    for fd in sorted(kept):
        posix.closerange(first, fd)
        first = fd + 1
    posix.closerange(first, _ALL_FDS)


def _user(name: str, answer: str) -> User:
    fields = answer.split("\0")
    if fields[0] == "failed" and len(fields) == 2:
        raise JailError(fields[1])
    numbers = [*fields[2:4], *fields[4].split(",")] if len(fields) == 7 else [""]
    if fields[0] != "found" or not all(number.isascii() and number.isdigit() for number in numbers):
        raise JailError(f"{name}: the jail's passwd could not be read")
    uid, gid, *groups = [int(number) for number in numbers]
    return passwd.User(fields[1], uid, gid, groups, fields[5], fields[6])
