"""Where what was seen of jails is kept: /var/log/jailng/NAME, root's alone.

A directory a jail, by its name, so that what one jail of that name has left is beside what the next one leaves; it
stays when the jail is removed. A jail that is renamed goes on in the directory that it began in until it is restarted.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from jailng.core import registry
from jailng.errors import JailError

BASE = "/var/log/jailng"
_PRIVATE = 0o700


def directory(name: str, *parts: str) -> Path:
    """The directory of the jail of that name, or one below it, made if need be. Raises JailError."""
    path = Path(BASE)
    for part in ("", name, *parts):
        path = path / part
        _ensure(path)
    return path


def jails() -> list[str]:
    """The names of all jails of which something is kept."""
    try:
        found = [entry.name for entry in os.scandir(BASE) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return sorted([name for name in found if not name.startswith(".")])  # what belongs to all, as no jail is named


def named(word: str) -> str:
    """The name, for which something may be kept, of the jail of that name, or jid while it runs; "": it is none."""
    record = registry.find(word)
    name = record.name if record is not None else word
    return "" if "/" in name or name.startswith(".") else name


def _ensure(path: Path) -> None:
    """Others than root must neither read it nor have put it there. Raises JailError."""
    try:
        os.makedirs(path.parent, exist_ok=True)
        try:
            os.mkdir(path, _PRIVATE)
        except FileExistsError:
            pass
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode):
            raise JailError(f"{path}: not a directory")
        if found.st_uid != 0:
            raise JailError(f"{path}: belongs to uid {found.st_uid}, not to root")
        if found.st_mode & 0o077:
            os.chmod(path, _PRIVATE)
    except OSError as error:
        raise JailError(f"{path}: {error.strerror}") from None
