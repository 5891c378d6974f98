"""Whether other users of the host can reach the roots of jails: of those that run, and of those that are configured."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

from jailng.core import reach, registry, rootfs
from jailng.ctl.diagnosis import Finding, Jails
from jailng.engine.files import configured, configured_roots
from jailng.errors import JailError, explain


def check(_: Jails) -> Iterator[Finding]:
    """Each root that is reached, at its path or in another place where its file system is mounted."""
    for file, found in configured():
        if isinstance(found, (JailError, OSError)) and os.path.lexists(file):
            yield Finding(
                f"the roots of {file} are not known: {explain(found)}",
                (f"jail -f {shlex.quote(file)} -e ,   # until it says nothing of that",),
            )
    running = [(record.name, record.params.get("path", "/")) for record in registry.jails() if record.parent == 0]
    mounts = rootfs.mounts()
    seen: set[str] = set()
    for name, path in [*running, *configured_roots()]:
        try:
            fd = rootfs.open_root(path)
        except (JailError, ValueError):
            continue  # of one that is not there jail(8) will say so
        try:
            real = os.readlink(f"/proc/self/fd/{fd}")
            if real == "/" or real in seen:
                continue
            seen.add(real)
            mend = reach.reachable(fd, real)
            places = [(real, mend)] if mend else []
            places += reach.doors(real, mounts)
        except OSError:
            continue
        finally:
            os.close(fd)
        for door, remedy in places:
            where = "" if door == real else f" at {door}"
            yield Finding(
                f"{name}: other users of this host can reach {real}{where}: a set-uid file made inside is one outside",
                (remedy,),
            )
