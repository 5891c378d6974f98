"""The watching of a jail: a process of the host's, the warden, for rules that no kernel carries out by itself.

It ends with the jail. Nothing depends on it but these rules; where it was killed the next command that comes upon the
jail starts it anew. It lives in a cgroup beside the jails', for in the jail's it would have to do with what the jail
leaves it of processors and memory.
"""

from __future__ import annotations

import posix
import time

from jailng.core import interpreter, registry
from jailng.errors import JailError
from jailng.linux import cgroup, ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.params.limit import Limit

HOME = "jailng/warden"  # of all wardens
_SIGHUP, _SIGKILL = 1, 9
_SECONDS = 5.0
_MOMENT = 0.5


def watched(limits: list[Limit]) -> list[Limit]:
    """Those that take a warden."""
    return [one for one in limits if one.action not in ("deny", "throttle")]


def ensure(record: Record, limits: list[Limit]) -> None:
    """See to it that these are watched, and if there are none that nobody watches. Needs the lock. Raises JailError."""
    if registry.is_alive(record.warden):
        _tell(record)  # it looks for itself, and ends where there is nothing for it to do
    elif limits:
        _start(record)


def _tell(record: Record) -> None:
    try:
        pidfd = ns.pidfd_open(int(record.warden.partition(" ")[0]))
        try:
            ns.pidfd_send_signal(pidfd, _SIGHUP)
        finally:
            posix.close(pidfd)
    except OSError:
        pass  # the jail has ended, and its warden with it


def _start(record: Record) -> None:
    pid, _, inode = record.init.partition(" ")
    argv = interpreter.command("jailng.limits.warden", record.jid, int(pid), int(inode))
    # None of the caller's streams: who waits for their end would wait for the jail's.
    streams = [(posix.POSIX_SPAWN_OPEN, fd, "/dev/null", posix.O_RDWR, 0) for fd in (0, 1, 2)]
    try:
        # Until it listens, what tells it to look again waits.
        warden = posix.posix_spawn(
            interpreter.PYTHON, argv, {}, file_actions=streams, setsid=True, setsigmask=(_SIGHUP,)
        )
    except OSError as error:
        raise JailError(f"{interpreter.PYTHON}: {error.strerror}") from None
    record.append([f"warden {registry.process_id(warden)}"])


def end(record: Record) -> None:
    """For a jail that has ended: so has its warden, and leaves nothing behind."""
    pid, _, inode = record.warden.partition(" ")
    try:
        pidfd = ns.pidfd_open(int(pid))
    except OSError:
        pass
    else:
        try:
            if str(posix.fstat(pidfd).st_ino) == inode:
                ns.pidfd_send_signal(pidfd, _SIGKILL)
                ns.ends_within(pidfd, _SECONDS)
        except OSError:
            pass  # it was faster
        finally:
            posix.close(pidfd)
    leave()


def leave() -> None:
    """Remove the wardens' cgroup, and what it lies in, if nobody is in there."""
    until = time.monotonic() + _MOMENT
    for directory in (HOME, HOME.partition("/")[0]):
        while not _removed(directory) and time.monotonic() < until:
            time.sleep(_MOMENT / 100)


def _removed(directory: str) -> bool:
    """Whether that has come to an end: the kernel may count a process that has ended for a moment longer."""
    try:
        posix.rmdir(directory, dir_fd=cgroup.unified_root())
    except FileNotFoundError:
        pass
    except OSError:
        try:
            return bool(cgroup.members(directory) or cgroup.directories_in(directory))
        except OSError:
            pass  # somebody else was faster
    return True
