"""What the administrator of this host has set with sysctl(8), until it goes down: a file below /run/jailng.

Lines are ``name=value`` by the names that FreeBSD has below security.jail, after one with the boot that they are of,
since /run may be on a disk.
"""

from __future__ import annotations

import posix

from jailng.core import registry
from jailng.core.index import DIRECTORY, Index
from jailng.errors import JailError
from jailng.linux.ns import is_jailed
from jailng.params.values import LIMITS

PATH = f"{DIRECTORY}/sysctl"
# Of longer ones neither a jail's record nor its /dev would be glad.
MOST_META = 65536
# FreeBSD keeps meta and env readable that are longer than a limit that was lowered: how long any can be.
LONGEST_META = "param.meta"
_BYTES = 1 << 16
_CREATE = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC
# Defaults of new jails by what they are now; a name with "no" is the reverse.
_DEFAULTS = {
    "set_hostname_allowed": "allow.set_hostname",
    "socket_unixiproute_only": "allow.nosocket_af",
    "sysvipc_allowed": "allow.sysvipc",
    "allow_raw_sockets": "allow.raw_sockets",
    "chflags_allowed": "allow.chflags",
    "mount_allowed": "allow.mount",
    "mlock_allowed": "allow.mlock",
    "enforce_statfs": "enforce_statfs",
    "devfs_ruleset": "devfs_ruleset",
}


def parameter(name: str) -> str:
    """The parameter, "no" included, whose default a sysctl below security.jail is; "" for none. It need not exist."""
    if name.startswith("mount_") and name.endswith("_allowed") and name != "mount_allowed":
        return f"allow.mount.{name[len('mount_') : -len('_allowed')]}"
    return _DEFAULTS.get(name, "")


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


def change(changes: dict[str, str]) -> None:
    """Set these, for all who read it from now on. Raises JailError, OSError."""
    if posix.geteuid() != 0:
        raise JailError("Operation not permitted")
    with Index():  # for its lock, and the directory
        held = {**read(), **changes}
        text = f"boot {registry.boot_id()}\n" + "".join([f"{name}={value}\n" for name, value in held.items()])
        fd = posix.open(f"{PATH}.new", _CREATE, 0o644)
        try:
            posix.write(fd, text.encode())
        finally:
            posix.close(fd)
        posix.rename(f"{PATH}.new", PATH)
