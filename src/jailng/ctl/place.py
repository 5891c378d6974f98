"""Where a root is made: as PATH.partial beside its place, by one command at a time, until all of it is there."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from jailng.core import hostpath, image, reach, rootfs
from jailng.ctl import hostfile
from jailng.errors import JailError
from jailng.params.values import visible


def partial(path: Path) -> Path:
    """What the root at ``path`` is called as long as it is made."""
    return path.with_name(path.name + ".partial")


@contextmanager
def taken(path: Path, verb: str) -> Iterator[None]:
    """The directory that the root shall lie in is there, for root alone; if nothing comes of it, it goes again.

    Raises JailError if something is at ``path``, or if another user of the host could reach it, and OSError (ELOOP)
    where a link that a jail's root has made is on the way.
    """
    heed_signals()
    directories = _make_above(path, verb)
    try:
        yield
    except BaseException:
        for directory in directories:
            with suppress(OSError):
                directory.rmdir()
        raise


def heed_signals() -> None:
    """From now on SIGTERM and SIGHUP are what an interruption from the terminal is: what was begun is taken away.

    But for what the caller has ignored, as nohup(1) does.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _make_above(path: Path, verb: str) -> list[Path]:
    """What was made, the lowest first."""
    owner = hostpath.owner(str(path))
    if owner:
        why = f"in the tree of jail {visible(owner)}, whose root could change the way there: stop it first"
        raise JailError(f"{verb}: {path}: {why}")
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise JailError(f"{verb}: {path}: File exists")
    if path == Path("/") or (path.is_dir() and any(path.iterdir())):
        raise JailError(f"{verb}: {path}: Directory not empty")
    kept = image.file_of(str(path))
    if os.path.lexists(kept):  # with ng.quota=image a jail would have that for its root, and not what is made here
        raise JailError(f"{verb}: {kept}: File exists, and is the root of a jail of ng.quota=image: move it away")
    above = path.parent
    missing = [directory for directory in (above, *above.parents) if not directory.exists()]
    there = missing[-1].parent if missing else above
    os.close(hostfile.opened(str(there), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    for directory in reversed(missing):
        directory.mkdir(mode=0o755)
    if missing:
        above.chmod(0o700)
    descriptor = rootfs.open_root(str(above))
    try:
        # As for the root itself, which is not there yet: it will have the usual mode, so it is its parents that count.
        mend = reach.reachable(descriptor, str(path), inside=False)
    finally:
        os.close(descriptor)
    if mend:
        # A directory that everybody needs cannot be closed.
        instead = f"chmod 0700 {above}" if mend.startswith("chmod") else f"use /jail/{path.name}"
        raise JailError(f"{verb}: {path}: other users of this host can reach {above}: {instead}")
    return missing


@contextmanager
def alone(path: Path, verb: str, clear: Callable[[], None]) -> Iterator[None]:
    """Nobody else makes this root; whatever ends this, nothing that looks like one is left.

    ``clear`` takes away what an earlier one has left, and what this one leaves. Raises JailError.
    """
    mark = partial(path).with_name(partial(path).name + ".lock")
    lock = -1
    while lock < 0 or not _is_at(mark, lock):  # else who had it has just taken it away
        if lock >= 0:
            os.close(lock)
        lock = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise JailError(f"{verb}: {path}: is being made by another jailctl") from None
    try:
        clear()
        yield
    finally:
        try:
            clear()
        finally:
            mark.unlink(missing_ok=True)
            os.close(lock)


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
