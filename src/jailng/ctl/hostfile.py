"""Files that a command line names on the host, and no link on the way that a jail's root has made.

That is, of jails that run, and of those that are configured and do not: theirs are made already.
"""

from __future__ import annotations

from jailng.core import hostpath
from jailng.engine.files import trees_of_jails


def opened(path: str, flags: int) -> int:
    """open(2). Raises OSError (ELOOP: by such a link)."""
    return hostpath.opened(path, flags, more=trees_of_jails, up=True)


def created(path: str, flags: int, mode: int) -> int:
    """The same of what is to be written to, with O_CREAT. Raises OSError, also for a FIFO in such a tree."""
    return hostpath.created(path, flags, mode, trees_of_jails, "jailctl")
