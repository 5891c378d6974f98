"""sysctl(8) sets what ``tunable`` reads."""

from __future__ import annotations

import posix

from jailng.core import registry, tunable
from jailng.core.index import Index
from jailng.errors import JailError

_CREATE = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC


def change(changes: dict[str, str]) -> None:
    """Set these, for all who read it from now on. Raises JailError, OSError."""
    if posix.geteuid() != 0:
        raise JailError("Operation not permitted")
    with Index():  # for its lock, and the directory
        held = {**tunable.read(), **changes}
        text = f"boot {registry.boot_id()}\n" + "".join([f"{name}={value}\n" for name, value in held.items()])
        fd = posix.open(f"{tunable.PATH}.new", _CREATE, 0o644)
        try:
            posix.fchmod(fd, 0o644)
            posix.write(fd, text.encode())
        finally:
            posix.close(fd)
        posix.rename(f"{tunable.PATH}.new", tunable.PATH)
