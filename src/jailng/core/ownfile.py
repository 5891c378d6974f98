"""The file that tells a jail of itself (``core.own``), once it is there: read inside, written anew on the host.

A module of its own, since what makes a jail does neither.
"""

from __future__ import annotations

import errno
import posix

from jailng.core import own
from jailng.linux.libc import SHORTAGES
from jailng.params.values import unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

_NEW = b"new"
_BYTES = 1 << 20
_REPLACED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.EISDIR)  # by its root
_READ = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC


def read() -> dict[str, str]:
    """Inside: the parameters of this jail that it may know of, by name, as the record has them, and ``LIMITS``.

    Empty where there is nothing to read: on the host, and in a jail without a /dev of its own. Raises OSError.
    """
    try:
        fd = posix.open(own.PATH, _READ)
    except FileNotFoundError:
        return {}
    try:
        lines = posix.read(fd, _BYTES).decode("utf-8", "surrogateescape").split("\n")
    finally:
        posix.close(fd)
    parts = [line.partition("=") for line in lines]
    return {name: unescape(value) for name, equals, value in parts if equals}


def rewrite(record: Record) -> str:
    """Write the file of a running jail anew; where its root has put something else in its place, nothing is done.

    It is an enemy's tree: no link is followed and no mount but /dev crossed, and the new file, which takes the place of
    the old one at once, is made as the jail's own root, who may do no more. Returns why it could not be written and
    tells what was before, as where its root has filled /dev, and else "". Raises OSError: no descriptors or memory.
    """
    from jailng.core.attach import open_tree_of
    from jailng.linux import child, filekind, mount
    from jailng.linux.mountfd import openat2
    from jailng.params.model import Parameters

    params = Parameters.from_texts(record.params)
    flags = mount.O_PATH | posix.O_DIRECTORY | posix.O_NOFOLLOW
    fds: list[int] = []
    try:
        fds.append(open_tree_of(record))
        fds.append(openat2(fds[0], b"dev", flags, mount.BENEATH))
        folder = openat2(fds[1], own.FOLDER, flags, mount.BENEATH | mount.RESOLVE_NO_XDEV)
        fds.append(folder)
        if filekind.of(posix.stat(own.FILE, dir_fd=folder, follow_symlinks=False)) != filekind.REGULAR:
            return ""
        with child.Guise(record.owner):
            _replace(folder, own.text(params))
    except OSError as error:
        if error.errno in SHORTAGES:  # which its root has no part in
            raise
        return "" if error.errno in _REPLACED else f"{own.PATH}: {error.strerror}"
    finally:
        for fd in fds:
            posix.close(fd)
    return ""


def _replace(folder: int, content: bytes) -> None:
    _remove_new(folder)  # of a command that was killed
    try:
        fd = posix.open(_NEW, own.CREATE, 0o644, dir_fd=folder)
        try:
            posix.fchmod(fd, 0o644)
            posix.write(fd, content)
        finally:
            posix.close(fd)
        posix.rename(_NEW, own.FILE, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        _remove_new(folder)
        raise


def _remove_new(folder: int) -> None:
    try:
        posix.unlink(_NEW, dir_fd=folder)
    except FileNotFoundError:
        pass
