"""Moving all that is in a jail to a directory of a hierarchy of cgroup v1 that it is given while it runs."""

from __future__ import annotations

import posix

from jailng.linux import cgroup
from jailng.linux.libc import EBUSY, ESRCH

_MOST_PASSES = 1000
_GUESTS = "guest"
HOSTS = ("broker", "sockets")  # leaves of a jail's cgroup for processes of the host's


def gather(path: str, directory: str) -> None:
    """Move all that is in a cgroup of v2 there: again and again, since they may fork meanwhile. Raises OSError.

    Those in the directory already, and below it, stay where they are; so do the host's processes beside the jail's.
    """
    fd = posix.open(f"{directory}/cgroup.procs", posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        for _ in range(_MOST_PASSES):
            left = members(path) - _there(directory)
            if not left:
                return
            for pid in left:
                try:
                    posix.write(fd, b"%d" % pid)
                except OSError as error:
                    if error.errno != ESRCH:  # it has ended
                        raise
    finally:
        posix.close(fd)
    raise OSError(EBUSY, "its processes multiply faster than they are moved")


def members(path: str) -> set[int]:
    """Who is in a jail's cgroup of v2 or below, but for the dead and the host's."""
    found: set[int] = set()
    names = [path]
    while names:
        name = names.pop()
        try:
            found.update(cgroup.members(name))
        except FileNotFoundError:
            continue
        # What lies below the guest's own a jailed root has named.
        hosts = () if _GUESTS in name.split("/") else HOSTS
        names += [f"{name}/{one}" for one in cgroup.directories_in(name) if one not in hosts]
    return found


def _there(directory: str) -> set[int]:
    """Who is in a cgroup of v1 or below."""
    return members(directory)  # an absolute path leads where it says
