"""Paths of the host's that may lead into a jail's tree, where its root decides what they mean.

``exec.consolelog=/jail/web/var/log/console`` is a path of the administrator's until it comes to the jail's root, and an
enemy's from there on; and it may come there by another spelling, or by a link of the host's.
"""

from __future__ import annotations

import posix

from jailng.linux.libc import ELOOP, SHORTAGES
from jailng.linux.mount import O_PATH

_S_IFMT, _S_IFLNK = 0o170000, 0o120000
_MOST_LINKS = 40  # as the kernel's own (namei(7): MAXSYMLINKS)


def beneath(root: int, path: str) -> str | None:
    """What is left of an absolute path of the host's where it comes to ``root``, a descriptor of a directory.

    None where it does not come there, or ends before. No link in the tree of ``root`` has been followed then. Raises
    OSError (ELOOP, or there was no telling).
    """
    top = posix.fstat(root)
    here = posix.open("/", O_PATH | posix.O_CLOEXEC)
    rest = path.split("/")[::-1]
    links = 0
    try:
        while rest:
            name = rest.pop()
            if name in ("", "."):
                continue
            try:
                found = posix.open(name, O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=here)
            except OSError as error:
                if error.errno in SHORTAGES:
                    raise
                return None
            status = posix.fstat(found)
            if status.st_mode & _S_IFMT == _S_IFLNK:
                posix.close(found)
                target = posix.readlink(name, dir_fd=here)
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(ELOOP, posix.strerror(ELOOP), path)
                rest += target.split("/")[::-1]
                if not target.startswith("/"):
                    continue
                found = posix.open("/", O_PATH | posix.O_CLOEXEC)
                status = posix.fstat(found)
            posix.close(here)
            here = found
            if (status.st_dev, status.st_ino) == (top.st_dev, top.st_ino):
                return "/".join([name for name in rest[::-1] if name not in ("", ".")])
    finally:
        posix.close(here)
    return None
