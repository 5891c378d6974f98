"""Mounts of jails on one another: several may mount on one directory, and what has come last lies on the others.

Linux takes away what is on top alone, or all together. So a mount that another jail's covers is left to that one: a
line in ``beneath`` says so, and whoever takes away the cover takes away what lies beneath it. Until then it is unseen.
FreeBSD's umount(8) takes away what is on top, whosever that may be, and comes to the same end.
"""

from __future__ import annotations

import posix

from jailng.core import elsewhere, index, mounting, registry
from jailng.errors import JailError
from jailng.linux.libc import EBUSY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

# The boot's id, then lines of two words: the number of a mount, and what lies beneath it, as a record has it. It is
# written under the lock MOUNTS.
_FILE = f"{index.DIRECTORY}/beneath"


def undo(record: Record, what: str) -> None:
    """Unmount what the record of a jail that is being undone calls that, and what other jails have left beneath it.

    A jail that is no more, and has something mounted on it or below, is cleared away first. Raises JailError, OSError
    where something else is mounted there.
    """
    tried: set[int] = set()
    if not mounting.number_of(what):
        return
    while (dead := _attempt(record, what, tried)) is not None:
        if not dead:
            return
        tried.update([one.jid for one in dead])
        _clear_away(dead)
    _undo_beneath(record, mounting.number_of(what))


def _attempt(record: Record, what: str, tried: set[int]) -> list[Record] | None:
    """None: it is gone. Else the dead jails, but for those ``tried``, that are in the way; none: left to its cover."""
    lock = index.lock_file()
    try:
        answer = elsewhere.among_its_mounts(record, lambda: mounting.unmount(what, lock))
        if not answer:
            return None
        cover, *others = [int(word) for word in answer.partition("/")[0].split()]
        owners = [one for one in _owners({cover, *others}) if one.jid != record.jid]
        dead = [one for one in owners if one.jid not in tried and not one.alive()]
        if not dead:
            lines = _lines()
            left = [mounting.number_of(line.split(" ")[1]) for line in lines]
            if cover not in left and not any(cover in _numbers(one) for one in owners):
                raise JailError(f"mount: /{answer.partition('/')[2]}: {posix.strerror(EBUSY)}")
            _write([*lines, f"{cover} {what}"])
        return dead
    finally:
        posix.close(lock)


def _undo_beneath(record: Record, number: int) -> None:
    while left := [line for line in _lines() if line.startswith(f"{number} ")]:
        undo(record, left[-1].split(" ")[1])
        lock = index.lock_file()
        try:
            mounting.hold(lock)
            _write([line for line in _lines() if line != left[-1]])
        finally:
            posix.close(lock)


def _owners(numbers: set[int]) -> list[Record]:
    """The jails whose records tell of one of these mounts, living or not."""
    return [record for record in registry.records() if numbers & _numbers(record)]


def _numbers(record: Record) -> set[int]:
    lines = [line.split(" ") for line in record.undo]
    return {mounting.number_of(words[1]) for words in lines if words[0] in ("image", "mount")} - {0}


def _clear_away(records: list[Record]) -> None:
    """Those that no command is at work on; that is not waited for, since it may wait for this one's jail."""
    from jailng.core import undo as undoing

    for record in records:
        if record.lock(wait=False):
            try:
                if not record.alive():
                    undoing.walk(record)
            except JailError:
                pass  # what there is to be told is what is in the way of this jail's mount
            finally:
                record.unlock()


def _lines() -> list[str]:
    try:
        fd = posix.open(_FILE, posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        boot, _, rest = posix.read(fd, posix.fstat(fd).st_size + 1).decode("utf-8", "surrogateescape").partition("\n")
    finally:
        posix.close(fd)
    # /run may be on a disk, and numbers begin anew; of a file that was just written a power cut may leave nothing.
    return rest.split("\n")[:-1] if boot == registry.boot_id() else []


def _write(lines: list[str]) -> None:
    if not lines:
        posix.unlink(_FILE)
        return
    new = f"{_FILE}.new"
    fd = posix.open(new, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)
    try:
        index.write(fd, "".join([line + "\n" for line in [registry.boot_id(), *lines]]), _FILE)
    finally:
        posix.close(fd)
    posix.rename(new, _FILE)
