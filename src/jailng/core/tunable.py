"""What the administrator of this host has set with sysctl(8), until it goes down: a file below /run/jailng.

Lines are ``name=value`` by the names that FreeBSD has below security.jail, after one with the boot that they are of,
since /run may be on a disk.
"""

from __future__ import annotations

import posix

from jailng.core import registry
from jailng.core.index import DIRECTORY
from jailng.linux.ns import is_jailed
from jailng.params.values import LIMITS

PATH = f"{DIRECTORY}/sysctl"
# Of longer ones neither a jail's record nor its /dev would be glad.
MOST_META = 65536
# FreeBSD keeps meta and env readable that are longer than a limit that was lowered: how long any can be.
LONGEST_META = "param.meta"
_BYTES = 1 << 16


def read() -> dict[str, str]:
    """What has been set since the host came up. Raises OSError."""
    try:
        fd = posix.open(PATH, posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    try:
        boot, *lines = posix.read(fd, _BYTES).decode().split("\n")
    finally:
        posix.close(fd)
    if boot != f"boot {registry.boot_id()}":
        return {}
    parts = [line.partition("=") for line in lines if line]
    return {name: value for name, _, value in parts}


def load() -> dict[str, str]:
    """Have ``LIMITS`` as they have been set; all that has been. In a jail the host minds them. Raises OSError."""
    if is_jailed():
        LIMITS["meta_maxbufsize"] = MOST_META
        return {}
    found = read()
    if "meta_maxbufsize" in found:
        LIMITS["meta_maxbufsize"] = int(found["meta_maxbufsize"])
    return found
