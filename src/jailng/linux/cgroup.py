"""cgroup2, wherever a v1, hybrid or v2 host has it, and the few files of it that a jail lives by. cgroups(7)."""

from __future__ import annotations

import posix
import time

from jailng.linux.libc import EBUSY, ENODEV, ENOENT, ESRCH
from jailng.linux.mount import O_PATH
from jailng.linux.ns import pidfd_open

_UNIFIED = (
    b"/sys/fs/cgroup",
    b"/sys/fs/cgroup/unified",
    b"/proc/1/root/sys/fs/cgroup",
    b"/proc/1/root/sys/fs/cgroup/unified",
)
_PERSIST = b"user.jailng.persist"
_DYING = 0.1  # seconds that a PID 1 without processes may take to end; it takes a few ms
_AT_ONCE = 32  # so many processes are waited for together: a jail may have more of them than this one descriptors
_DIRECTORY = posix.O_DIRECTORY | posix.O_CLOEXEC
# Where a host with hierarchies of v1 has that of the controller cpuset, by the custom of cgroups(7).
_CPUSETS = "/sys/fs/cgroup/cpuset"
_open_root: int | None = None


def unified_root() -> int:
    """A directory fd of the cgroup2 hierarchy's root, kept open for the process's life.

    Every kernel with cgroups has the hierarchy; where nobody mounted it (pure v1), a detached mount of our own does.
    Raises OSError (ENODEV: a kernel without cgroups).
    """
    global _open_root
    if _open_root is None:
        for path in _UNIFIED:
            try:
                fd = posix.open(path, O_PATH | _DIRECTORY)
            except OSError:
                continue
            try:
                posix.stat("cgroup.controllers", dir_fd=fd)  # no hierarchy of v1 has that file
            except OSError:
                posix.close(fd)
                continue
            _open_root = fd
            break
        else:
            from jailng.linux.mountfd import new_file_system

            _open_root = new_file_system(b"cgroup2", [])
    return _open_root


def make(path: str) -> None:
    """Make the cgroup2 directory ``path`` (relative to the root) and its ancestors. Raises OSError."""
    root = unified_root()
    try:
        posix.mkdir(path, 0o755, dir_fd=root)
    except FileExistsError:
        pass
    except FileNotFoundError:
        above = path.rpartition("/")[0]
        if not above:
            raise
        make(above)
        make(path)  # whoever removes the last one in there may have taken it away again


def open_directory(path: str) -> int:
    """A directory fd of the cgroup ``path``, for clone3's CLONE_INTO_CGROUP. Raises OSError."""
    return posix.open(path, posix.O_RDONLY | _DIRECTORY, dir_fd=unified_root())


def open_file(path: str, flags: int) -> int:
    """Open a control file, such as ``jailng/7/members/cgroup.events``. Raises OSError."""
    return posix.open(path, flags | posix.O_CLOEXEC, dir_fd=unified_root())


def write(path: str, text: bytes) -> None:
    """Write to a control file. Raises OSError."""
    fd = open_file(path, posix.O_WRONLY)
    try:
        posix.write(fd, text)
    finally:
        posix.close(fd)


def read(path: str) -> bytes:
    """The first 64 kB of a control file. Raises OSError."""
    fd = open_file(path, posix.O_RDONLY)
    try:
        return posix.read(fd, 65536)
    finally:
        posix.close(fd)


def exists(path: str) -> bool:
    """Whether there is a cgroup ``path`` in the hierarchy as it is mounted here."""
    return posix.access(path, posix.F_OK, dir_fd=unified_root())


def cpuset(path: str) -> str:
    """The directory for the cgroup ``path``, a jail's or one below, in the v1 hierarchy of cpuset.

    One for a jail of the host's, and for all that is in it: it is made where processors are taken from the jail
    (linux/cpuset.py), and goes with the cgroup. On a host with v2 alone nothing is there.
    """
    return "/".join([_CPUSETS, *path.split("/")[:2]])


def populated(path: str) -> bool:
    """Whether a process lives in the cgroup ``path`` or below; no if there is no such cgroup."""
    try:
        return b"populated 1" in read(path + "/cgroup.events")
    except FileNotFoundError:
        return False


def members(path: str) -> list[int]:
    """The pids in the cgroup ``path`` itself, as this process's pid namespace numbers them (others are 0).

    Raises OSError (ENOENT: there is none). One that is removed meanwhile has none.
    """
    fd = open_file(path + "/cgroup.procs", posix.O_RDONLY)
    pids = b""
    try:
        while part := posix.read(fd, 65536):
            pids += part
    except OSError as error:
        if error.errno != ENODEV:
            raise
        pids = b""
    finally:
        posix.close(fd)
    return [int(pid) for pid in pids.split()]


def of_process(pidfd: int) -> str:
    """The cgroup2 path of a process, as /proc has it. Raises OSError (ESRCH: it has ended)."""
    pid = _numbered(pidfd)
    file = posix.open(f"/proc/{pid}/cgroup", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        lines = posix.read(file, 65536).split(b"\n")
    finally:
        posix.close(file)
    if _numbered(pidfd) != pid:  # else what was read may be of another that has got its number
        raise OSError(ESRCH, posix.strerror(ESRCH))
    path = next(line for line in lines if line.startswith(b"0::"))[3:]
    return path.decode("utf-8", "surrogateescape")


def _numbered(pidfd: int) -> int:
    file = posix.open(f"/proc/self/fdinfo/{pidfd}", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        pid = int(posix.read(file, 4096).partition(b"Pid:")[2].split(None, 1)[0])
    finally:
        posix.close(file)
    if pid <= 0:
        raise OSError(ESRCH, posix.strerror(ESRCH))
    return pid


def set_persist(events: int, persist: bool) -> None:
    """Tell jailinit, which has the members' cgroup.events open too, whether the jail outlives its last member."""
    posix.setxattr(events, _PERSIST, b"1" if persist else b"0")  # type: ignore[attr-defined, unused-ignore]


_dying: dict[str, dict[int, int]] = {}  # by the path of a cgroup: pidfds of what ``kill`` has killed, and the pids


def kill(path: str, leaves: tuple[str, ...]) -> None:
    """Have everything in the cgroup ``path`` begin to die; ``remove`` then waits for what is in its ``leaves``.

    Raises OSError (ENOENT: there is no such cgroup). cgroup.kill is of Linux 5.14.
    """
    dying = _dying.setdefault(path, {})
    pids = [pid for leaf in leaves for pid in _left_in(f"{path}/{leaf}")][:_AT_ONCE]
    dying.update({fd: pid for pid in pids if (fd := _pidfd(pid)) >= 0})
    write(path + "/cgroup.kill", b"1")


def remove(path: str, leaves: tuple[str, ...], timeout: float = 10.0) -> None:
    """Kill everything in the cgroup ``path``, wait until it has gone, and remove it with its ``leaves``.

    What it lies in goes as well if that is at the top and nothing else is in there. Nothing is left to do where it does
    not exist. ``timeout`` is in seconds. Raises OSError (EBUSY: processes in an uninterruptible sleep are still there).
    """
    until = time.monotonic() + timeout
    end(path, leaves, until)
    for name in [*(f"{path}/{leaf}" for leaf in leaves), path]:
        _remove_directory(name, until)
    above = path.rpartition("/")[0]
    if "/" in above:
        return
    if posix.access(cpuset(path), posix.F_OK):
        _remove_directory(cpuset(path), until)
        _try_rmdir(cpuset(above))
    try:
        posix.rmdir(above, dir_fd=unified_root())
    except OSError:
        pass  # there are others, or somebody else was faster


def end(path: str, leaves: tuple[str, ...], until: float) -> None:
    """Kill everything in the cgroup ``path`` and wait for it to have gone, until ``time.monotonic`` is that.

    Raises OSError, as ``remove``.
    """
    events = -1
    try:
        events = open_file(f"{path}/cgroup.events", posix.O_RDONLY)
        while path in _dying or tells_of_processes(events):
            if path not in _dying:
                kill(path, leaves)
            for leaf in leaves:  # those that are empty already, while the others' processes die
                _try_rmdir(f"{path}/{leaf}")
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


def _left_in(leaf: str) -> list[int]:
    try:
        return members(leaf)
    except FileNotFoundError:
        return []


def tells_of_processes(events: int) -> bool:
    """Whether a process lives in the cgroup of this cgroup.events, or below."""
    return b"populated 1" in posix.pread(events, 64, 0)


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
        if events in ready and not tells_of_processes(events):
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
        posix.rmdir(name, dir_fd=unified_root())
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != EBUSY:
            raise
        below = directories_in(name)  # of jails whose making the kill has ended
        return bool(below) and all(_try_rmdir(f"{name}/{one}") for one in below) and _try_rmdir(name)
    return True


def directories_in(name: str) -> list[str]:
    """The names of the cgroups right below one; none where it does not exist. Raises OSError."""
    try:
        fd = open_directory(name)
    except FileNotFoundError:
        return []
    try:
        with posix.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    finally:
        posix.close(fd)


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
