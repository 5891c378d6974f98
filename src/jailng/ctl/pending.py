"""Jails that ``jailctl restart`` stops and has yet to start again: what one that is killed leaves to the next.

Each call has a file in /run/jailng/restart, named after its process, with the jails' names; it goes when all are done
with. What a process that is no more has left there is taken on by the next restart that these jails have to do with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from errno import EACCES, EPERM, EROFS
from pathlib import Path

from jailng.core.index import DIRECTORY
from jailng.linux import processid

_PLACE = Path(DIRECTORY, "restart")
_FILE = re.compile(r"(\d+ \d+)(\.new)?", re.ASCII)


def left() -> set[str]:
    """The names of those that calls which were killed have left. Raises OSError."""
    return {name for file in _left() for name in _names(file)}


def begin(names: Collection[str]) -> Path | None:
    """Have these be known to be under way; ``end`` takes the file. Raises OSError.

    None where nothing may be left: for who is not root, and may not restart anything either, and in a jail whose /run
    is read-only.
    """
    file = _PLACE / processid.of(os.getpid())
    try:
        for place, mode in ((_PLACE.parent, 0o755), (_PLACE, 0o700)):  # the registry's, whatever the umask
            with suppress(FileExistsError):
                os.mkdir(place, mode)
        _write(file, names)
    except OSError as error:
        if error.errno not in (EACCES, EPERM, EROFS):
            raise
        return None
    forget(names)  # they are this one's from now on
    return file


def end(file: Path) -> None:
    """All are done with. Raises OSError."""
    file.unlink(missing_ok=True)


def forget(names: Collection[str]) -> None:
    """Whatever was to be done with these, it is not any more. Raises OSError."""
    for file in _left():
        before = _names(file)
        if after := [name for name in before if name not in names]:
            if len(after) != len(before):
                _write(file, after)
        else:
            file.unlink(missing_ok=True)


def _left() -> Iterator[Path]:
    try:
        files = sorted(_PLACE.iterdir())
    except (FileNotFoundError, PermissionError):  # there are none, or they are root's
        return
    for file in files:
        found = _FILE.fullmatch(file.name)
        if found and not processid.is_alive(found[1]):
            yield file


def _write(file: Path, names: Collection[str]) -> None:
    new = file.with_name(f"{file.name}.new")
    new.write_bytes(b"".join([os.fsencode(name) + b"\n" for name in names]))
    new.rename(file)


def _names(file: Path) -> list[str]:
    try:
        return [os.fsdecode(name) for name in file.read_bytes().split(b"\n")[:-1]]
    except FileNotFoundError:
        return []  # another restart has taken them on
