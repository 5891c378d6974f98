"""Jails that ``jailctl restart`` stops and has yet to start again: what one that is killed leaves to the next.

Each call has a file in /run/jailng/restart, named after its process, with the jails' names; it goes when all are done
with. What a process that is no more has left there is taken on by the next restart that these jails have to do with.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from jailng.core import registry
from jailng.core.index import DIRECTORY

_PLACE = Path(DIRECTORY, "restart")


def left() -> set[str]:
    """The names of those that calls which were killed have left. Raises OSError."""
    return {name for file in _left() for name in _names(file)}


def begin(names: Collection[str]) -> Path:
    """Have these be known to be under way; ``end`` takes the file. Raises OSError."""
    _PLACE.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = _PLACE / registry.process_id(os.getpid())
    _write(file, names)
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
    with suppress(FileNotFoundError):
        for file in sorted(_PLACE.iterdir()):
            if not registry.is_alive(file.name.removesuffix(".new")):
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
