"""Processes of the host's that run beside a jail: wardens (limits/watch.py) and posts (observe/posts.py).

Each is started by a command, looks after one jail, and ends with it. They live in a cgroup beside the jails', for in
the jail's they would have to do with what the jail leaves of processors and memory, and in their starter's they would
end with that.
"""

from __future__ import annotations

import posix
import time

from jailng.core import interpreter, process, registry
from jailng.errors import JailError
from jailng.linux import cgroup, content, ns, processid
from jailng.linux.libc import syscall, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.registry import Record

HOME = "jailng/beside"  # the cgroup of all of them
_SIGKILL = 9
_SIGNALS = [number for number in range(1, 65) if number not in (9, 19, 32, 33)]  # without KILL, STOP, and libc's own
_SECONDS = 5.0
_MOMENT = 0.5
_ROUNDS = 8
_PATIENCE, _PAUSE = 60.0, 0.02  # seconds, with a starter that lives
_STARTER = "JAILNG_STARTER"


def start(
    record: Record, module: str, *numbers: int, blocked: tuple[int, ...] = (), handed: tuple[int, ...] = ()
) -> str:
    """Start ``main`` of a module with the jid, PID 1's pid, its pidfd's inode and more numbers; which process that is.

    These signals wait until it wants them; it has these descriptors by their numbers. Raises JailError.
    """
    pid, _, inode = record.init.partition(" ")
    return spawn(interpreter.command(module, record.jid, int(pid), int(inode), *numbers), blocked, handed)


def spawn(argv: list[str], blocked: tuple[int, ...] = (), handed: tuple[int, ...] = ()) -> str:
    """Start the interpreter in a session of its own; which process that is (linux/processid.py). Raises JailError."""
    # Nothing of the caller's: who waits for his streams' end, or for a lock of his, would wait for the jail's.
    files = [(posix.POSIX_SPAWN_OPEN, fd, "/dev/null", posix.O_RDWR, 0) for fd in (0, 1, 2)]
    kept: list[int] = []
    try:
        kept = [fd for fd in _inherited() if fd > 2 and fd not in handed]
        for fd in kept:  # POSIX_SPAWN_CLOSE refuses what is above a limit (RLIMIT_NOFILE) that has been lowered since
            posix.set_inheritable(fd, False)
        for fd in handed:
            posix.set_inheritable(fd, True)
        started = posix.posix_spawn(
            interpreter.PYTHON,
            argv,
            {_STARTER: str(posix.getpid())},
            file_actions=files,
            setsid=True,
            setsigmask=blocked,
            setsigdef=_SIGNALS,
        )
        return processid.of(started)
    except OSError as error:
        raise JailError(f"{interpreter.PYTHON}: {error.strerror}") from None
    finally:
        for fd in kept:
            posix.set_inheritable(fd, True)


def _inherited() -> list[int]:
    """The descriptors that outlive an exec."""
    found: list[int] = []
    for name in posix.listdir("/proc/self/fd"):
        try:
            if posix.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:  # by which they were listed
            pass
    return found


def shed(limits: bool = True) -> None:
    """Have nothing of whoever has started this process, which outlives him: to be called first of all.

    That is his keys, what he is preferred or put back by, and his mask for new files. His ``limits`` would end this
    process, or what it writes; who makes jails keeps them, for these.
    """
    posix.chdir("/")
    posix.umask(0o022)
    calls: list[tuple[str, tuple[int | bytes | None, ...]]] = [
        ("keyctl", (process.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)),
        ("sched_setaffinity", (0, process.PROCESSORS, b"\xff" * process.PROCESSORS)),
        ("sched_setattr", (0, process.scheduling(posix.SCHED_OTHER, 0, 0), 0)),
        ("ioprio_set", (process.IOPRIO_WHO_PROCESS, 0, 0)),
    ]
    if limits:
        calls += [("prlimit64", (0, which, words(size, size), None)) for which, size in process.lifted_limits()]
    for name, arguments in calls:
        try:
            syscall(name, *arguments)
        except OSError:
            pass  # in a container, say, it is not this process's to change
    try:
        score = posix.open(process.SCORE, posix.O_WRONLY | posix.O_CLOEXEC)
        posix.write(score, b"0")
        posix.close(score)
    except OSError:
        pass


def named(jid: int, who: Callable[[Record], str]) -> Record | None:
    """The record, once what ``who`` finds in it is this process; None where it never is.

    Then whoever has started this was killed before he wrote it: nobody would wait for its end, and whoever comes next
    upon the jail starts another.
    """
    starter = int(posix.environ.get(_STARTER.encode(), b"0"))
    until = time.monotonic() + _PATIENCE
    while True:
        waits = posix.getppid() == starter and time.monotonic() < until
        record = registry.load(jid)
        if record is None or processid.is_own(who(record)):
            return record
        if not waits:
            return None
        time.sleep(_PAUSE)


def tell(identity: str, signal: int) -> None:
    """Send a signal to one, if it still lives. Raises OSError where there is no telling, or it cannot be sent."""
    try:
        pidfd = _open(identity)
    except ProcessLookupError:
        return
    try:
        ns.pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        pass  # it has ended meanwhile
    finally:
        posix.close(pidfd)


def end(identity: str, patience: float = 0.0) -> None:
    """Have one end: by itself within ``patience`` seconds, or killed. It leaves nothing behind.

    One that has a worker, which dies with it, is to be given time: else that is not waited for.
    """
    try:
        pidfd = _open(identity)
    except OSError:
        clear(dying=not identity)  # one that died before it could be known
        return
    dying = False
    try:
        if not ns.ends_within(pidfd, patience):
            ns.pidfd_send_signal(pidfd, _SIGKILL)
            dying = patience > 0
            ns.ends_within(pidfd, _SECONDS)
    except OSError:
        pass  # it was faster
    finally:
        posix.close(pidfd)
    clear(dying)


def _open(identity: str) -> int:
    """A pidfd of that process. Raises OSError if it lives no longer."""
    pidfd = processid.open_process(identity)
    if pidfd < 0:
        raise ProcessLookupError
    return pidfd


def enter() -> str:
    """Move this process into ``HOME``; where in cgroup2 it was, which ``leave`` takes."""
    before = own_cgroup()
    for _ in range(_ROUNDS):
        try:
            cgroup.make(HOME)
            cgroup.write(f"{HOME}/cgroup.procs", b"0")
            break
        except OSError:
            pass  # whoever left it has removed it
    return before


def leave(before: str) -> None:
    """Go back, or to the root, which in a container takes no processes, and remove what this process was in."""
    for place in (f"{before}/cgroup.procs".lstrip("/"), "cgroup.procs"):
        try:
            cgroup.write(place, b"0")
        except OSError:
            continue
        clear()
        return


def own_cgroup() -> str:
    """Where in cgroup2 this process is, from its root on; "" where that cannot be told."""
    lines = content.text("/proc/self/cgroup").split("\n")
    return next((line[4:] for line in lines if line.startswith("0::/")), "")


def clear(dying: bool = False) -> None:
    """Remove ``HOME``, and what it lies in, if nobody is in there; ``dying``: after a moment for one that is."""
    until = time.monotonic() + _MOMENT
    for directory in (HOME, HOME.partition("/")[0]):
        while not _removed(directory, dying) and time.monotonic() < until:
            time.sleep(_MOMENT / 100)


def _removed(directory: str, dying: bool) -> bool:
    """Whether that has come to an end: the kernel may count a process that has ended for a moment longer."""
    try:
        posix.rmdir(directory, dir_fd=cgroup.unified_root())
    except FileNotFoundError:
        pass
    except OSError:
        try:
            return bool(cgroup.directories_in(directory) or (cgroup.members(directory) and not dying))
        except OSError:
            pass  # somebody else was faster
    return True
