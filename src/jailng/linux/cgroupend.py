"""The end of a cgroup: what is in it is killed and waited for, and its directories are removed. cgroups(7)."""

from __future__ import annotations

import posix
import time

from jailng.linux import cgroup, controller
from jailng.linux.libc import EBUSY, ENODEV, ENOENT, exists
from jailng.linux.ns import pidfd_open, pidfd_send_signal

_SIGKILL = 9
_DYING = 0.1  # seconds that a PID 1 without processes may take to end; it takes a few ms
_AT_ONCE = 32  # so many processes are waited for together: a jail may have more of them than this one descriptors

# Of cgroup2 and of v1: no limit, and sixteen shares.
_HURRIED = (
    (("cpu.max", b"max"), ("cpu.weight", b"1600")),
    (("cpu.cfs_quota_us", b"-1"), ("cpu.shares", b"16384")),
)

_dying: dict[str, dict[int, int]] = {}  # by the path of a cgroup: pidfds of what ``kill`` has killed, and the pids


def kill(path: str, leaves: tuple[str, ...]) -> None:
    """Have everything in the cgroup ``path`` begin to die; ``remove`` then waits for what is in its ``leaves``.

    Raises OSError (ENOENT: there is no such cgroup). cgroup.kill is of Linux 5.14.
    """
    dying = _dying.setdefault(path, {})
    pids = [pid for leaf in leaves for pid in _left_in(f"{path}/{leaf}")]
    dying.update({fd: pid for pid in pids[:_AT_ONCE] if (fd := _pidfd(pid)) >= 0})
    if len(pids) > _AT_ONCE:
        _hurry(path)
    try:
        cgroup.write(path + "/cgroup.kill", b"1")
    except OSError as error:
        if error.errno == ENOENT or not dying:
            raise
        for fd in dying:  # there is no descriptor, say: at least these die, and then there is another try
            try:
                pidfd_send_signal(fd, _SIGKILL)
            except ProcessLookupError:
                pass  # PID 1, which was killed before it, has taken it along


def _hurry(path: str) -> None:
    """Let thousands that are to die have the processors for it: a part of a jail's usual share would be a long time.

    None of them runs a line of its own program any more.
    """
    beside = controller.existing("cpu", path)
    for name, text in _HURRIED[bool(beside)]:
        try:
            cgroup.write(f"{beside or path}/{name}", text)
        except OSError:
            pass  # it takes longer


def remove(path: str, leaves: tuple[str, ...], timeout: float = 10.0) -> None:
    """Kill everything in the cgroup ``path``, wait until it has gone, and remove it with its ``leaves``.

    What it lies in goes as well if that is at the top and nothing else is in there. Nothing is left to do where it does
    not exist. ``timeout`` is in seconds. Raises OSError (EBUSY: processes in an uninterruptible sleep are still there).
    """
    until = time.monotonic() + timeout
    for leaf in end(path, leaves, until):
        _remove_directory(f"{path}/{leaf}", until)
    _remove_directory(path, until)
    above = path.rpartition("/")[0]
    for name in controller.V1:
        if name == "cpuset" and "/" in above:
            continue  # it is that of the jail above
        top = controller.top(name)
        if top:
            _remove_directory(controller.below(name, top, path), until)
        if top and "/" not in above:
            _leave(controller.below(name, top, above))  # also where the jail's could not be made
    if "/" in above:
        return
    _leave(above)


def _leave(above: str) -> None:
    try:
        posix.rmdir(above, dir_fd=cgroup.unified_root())
    except OSError:
        pass  # there are others, or somebody else was faster


def end(path: str, leaves: tuple[str, ...], until: float) -> list[str]:
    """Kill everything in the cgroup ``path`` and wait for it to have gone, until ``time.monotonic`` is that.

    Those of the ``leaves`` that have not been removed on the way. Raises OSError, as ``remove``.
    """
    events = -1
    left = list(leaves)
    try:
        events = cgroup.open_file(f"{path}/cgroup.events", posix.O_RDONLY)
        while path in _dying or cgroup.tells_of_processes(events):
            if path not in _dying:
                kill(path, leaves)
            # Those that are empty already, while the others' processes die.
            left = [leaf for leaf in left if not _try_rmdir(f"{path}/{leaf}")]
            _wait_for(_dying.pop(path), events, until)
            if time.monotonic() > until:
                raise OSError(EBUSY, posix.strerror(EBUSY), path)
    except OSError as error:
        if error.errno not in (ENODEV, ENOENT):
            raise
    finally:
        for fd in _dying.pop(path, ()):
            posix.close(fd)
        if events >= 0:
            posix.close(events)
    return left


def _left_in(leaf: str) -> list[int]:
    try:
        pids = cgroup.members(leaf)
        if leaf.endswith("/guest"):  # it may have others in it, to any depth: of PID 1, which waits for the rest
            pids += [pid for one in cgroup.directories_in(leaf) for pid in _left_in(f"{leaf}/{one}")]
    except FileNotFoundError:
        return []
    return pids


def _wait_for(waited: dict[int, int], events: int, until: float) -> None:
    """Until the processes of these pidfds have ended, or are as good as that; closes the pidfds.

    cgroup.events is notified at most every 10 ms, so the wait is for the processes. But a PID 1 that is dead, and holds
    nothing any more, has not ended while there is a zombie in its pid namespace that its parent outside does not reap,
    say because that was stopped. The cgroup counts neither.
    """
    import select

    waiter = select.poll()
    for fd in (events, *waited):
        waiter.register(fd, select.POLLPRI if fd == events else select.POLLIN)
    while waited:
        ready = [fd for fd, _ in waiter.poll(max(1000 * (until - time.monotonic()), 1))]
        if not ready:
            break
        for fd in waited.keys() & ready:
            waiter.unregister(fd)
            posix.close(fd)
            _reap(waited.pop(fd))
        if events in ready and not cgroup.tells_of_processes(events):
            waiter.unregister(events)
            until = min(until, time.monotonic() + _DYING)
    for fd in waited:
        posix.close(fd)


def _remove_directory(name: str, until: float) -> None:
    """rmdir(2). The kernel may count a process that has ended, and was reaped, for a moment longer: EBUSY."""
    while not _try_rmdir(name):
        if time.monotonic() > until:
            raise OSError(EBUSY, posix.strerror(EBUSY), name)
        time.sleep(0.001)


def _try_rmdir(name: str) -> bool:
    """Whether the directory is gone; not while there are processes in it."""
    try:
        posix.rmdir(name, dir_fd=cgroup.unified_root())
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != EBUSY:
            if exists(name, cgroup.unified_root()):
                raise
            return True  # in a hierarchy that is mounted read-only, say, where none could be made
        below = cgroup.directories_in(name)  # of jails whose making the kill has ended
        return bool(below) and all(_try_rmdir(f"{name}/{one}") for one in below) and _try_rmdir(name)
    return True


def _pidfd(pid: int) -> int:
    try:
        return pidfd_open(pid)
    except OSError:
        return -1


def _reap(pid: int) -> None:
    try:
        posix.waitpid(pid, posix.WNOHANG)
    except ChildProcessError:
        pass
