"""The broker of a jail that may have jails in it: a process of the host's that makes them when it is asked.

It listens on a socket in the jail's /dev, asks the kernel who is calling (the caller's pidfd, and its cgroup), and has
a child of its own do what is asked (engine/behalf.py), so that nothing that a jailed root can think of keeps it from
the next call. It lives in the jail's cgroup and ends with the jail. Nothing depends on it but what is asked of it;
whoever enters the jail next starts it anew.
"""

from __future__ import annotations

import posix
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, socket

from jailng.core import attach, beside, deviceprogram, elsewhere, interpreter, nested, own
from jailng.errors import JailError, explain
from jailng.linux import cgroup, child, mount, mountfd, processid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

_BACKLOG = 64
_SIGHUP, _SIGTERM = 1, 15


def ensure(record: Record) -> None:
    """See to it that a jail which may have jails in it has its broker. Needs the jail's lock. Raises JailError."""
    if record.params.get("children.max", "0") == "0" or processid.is_alive(record.broker):
        return
    listening = _listen(record)
    try:
        cgroup.make(f"{record.cgroup}/broker")  # now, while nobody can take the jail's away
        deviceprogram.free(f"{record.cgroup}/broker")  # it makes the device nodes of other jails
        argv = interpreter.command("jailng.engine.brokerage", listening.fileno(), record.jid)
        with elsewhere.Network(record):  # in which it makes jails
            # Who ends the unit, or the session, in which this is may do so before the broker is out of its cgroup.
            started = beside.spawn(argv, blocked=(_SIGHUP, _SIGTERM), handed=(listening.fileno(),))
    except (JailError, OSError) as error:
        raise JailError(f"children.max: {explain(error)}") from None
    finally:
        listening.close()
    record.append([f"broker {started}"])


def revive(record: Record) -> None:
    """As ``ensure``, unless another command is at work on the jail, or the jail's root keeps it from having one."""
    if not processid.is_alive(record.broker) and record.lock(wait=False):
        try:
            ensure(record)
        except JailError:
            pass
        finally:
            record.unlock()


def _listen(record: Record) -> socket:
    """A socket that listens in the jail's /dev, made by the jail's root: the host's has no number in that mount."""
    root = -1
    try:
        root = attach.open_tree_of(record)
        flags = mount.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
        directory = mountfd.openat2(root, own.DIRECTORY[1:].encode(), flags, mount.BENEATH)
    except OSError as error:
        raise JailError(f"children.max: {own.DIRECTORY} in the jail: {error.strerror}") from None
    finally:
        if root >= 0:
            posix.close(root)
    listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    before = posix.umask(0)
    try:
        with child.Guise(record.owner):
            try:
                posix.unlink(nested.NAME, dir_fd=directory)
            except FileNotFoundError:
                pass
            listening.bind(f"/proc/self/fd/{directory}/{nested.NAME}")
            listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise JailError(f"children.max: {nested.SOCKET} in the jail: {error.strerror}") from None
    finally:
        posix.umask(before)
        posix.close(directory)
    return listening
