"""A compiled seccomp program on its way to ``confinement.CACHE``."""

from __future__ import annotations

import posix

from jailng.core import confinement
from jailng.errors import JailError

_NEW = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC


def build(key: str, lifts: list[str]) -> bytes:
    """Compile the program and leave it in the cache; where that cannot be written, the next call compiles again."""
    try:
        from jailng.core.filter import build as compiled  # 4 ms: libseccomp's binding, and collections with it
    except ImportError as error:
        raise JailError(f"cannot compile the seccomp filter: {error} (Debian: python3-seccomp)") from error
    program = compiled(frozenset(lifts))
    try:
        _store(key, program)
    except OSError:
        pass
    return program


def _store(key: str, program: bytes) -> None:
    for path, mode in ((confinement.CACHE.rpartition("/")[0], 0o755), (confinement.CACHE, 0o700)):
        try:
            posix.mkdir(path, mode)
        except FileExistsError:
            pass
    directory = posix.open(confinement.CACHE, confinement.DIRECTORY)
    temporary = f".{key}.{posix.getpid()}"
    try:
        if not confinement.ours(posix.fstat(directory)):
            return
        try:
            posix.unlink(temporary, dir_fd=directory)  # of a process that had this number and died here
        except FileNotFoundError:
            pass
        fd = posix.open(temporary, _NEW, 0o600, dir_fd=directory)
        try:
            posix.write(fd, program + confinement.trailer(program))
        finally:
            posix.close(fd)
        posix.rename(temporary, key, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        posix.close(directory)
