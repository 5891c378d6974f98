"""Files that a command line names on the host, and no link on the way that a jail's root has made.

That is, of jails that run, and of those of /etc/jail.conf that do not: theirs are made already.
"""

from __future__ import annotations

from jailng.core import hostpath, trees
from jailng.engine import files


def opened(path: str, flags: int) -> int:
    """open(2). Raises OSError (ELOOP: by such a link)."""
    return hostpath.opened(path, flags, more=trees.Trees(more=files.configured_places).all, up=True)
