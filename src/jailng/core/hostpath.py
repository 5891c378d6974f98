"""Paths of the host's that may lead into a jail's tree, where its root decides what they mean.

Or into a directory of the host's that was mounted into a jail and that its root writes in: no tree, but its as well.

``exec.consolelog=/jail/web/var/log/console`` is a path of the administrator's until it comes to the jail's root, and an
enemy's from there on; and it may come there by another spelling, or by a link of the host's.
"""

from __future__ import annotations

import posix

from jailng.linux import filekind, mountfd, ns
from jailng.linux import mount as m
from jailng.linux.libc import EINVAL, ELOOP, SHORTAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

_ENXIO = 6  # a FIFO that nobody reads
_PATIENCE, _MOMENT = 5.0, 0.02  # seconds
_MOST_LINKS = 40  # as the kernel's own (namei(7): MAXSYMLINKS)
_DIRECTORY = m.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC


def beneath(root: int, path: str) -> str | None:
    """What is left of an absolute path of the host's where it comes to ``root``, a descriptor of a directory.

    None where it does not come there, or ends before. No link in the tree of ``root`` has been followed then. Raises
    OSError (ELOOP, or there was no telling).
    """
    found = come_to({identity(root)}, path)
    if found is None:
        return None
    posix.close(found[0])
    return found[1]


def opened(
    path: str,
    flags: int,
    mode: int = 0,
    more: Callable[[], Mapping[tuple[int, int], str]] | None = None,
    up: bool = False,
) -> int:
    """open(2) of a path of the host's, by no link in the tree of a running jail. Raises OSError (ELOOP: by one).

    With ``more``, nor by one in what that tells of (``trees.Trees.all``), nor by ``..`` there, since what lies above a
    directory is an enemy's to say as well: but for who comes ``up`` from where he is, in trees that nobody changes now.
    """
    name = _bytes(path)
    upwards = more is not None and not up and ".." in path.split("/")
    if not upwards:
        try:
            return mountfd.openat2(m.AT_FDCWD, name, flags, m.RESOLVE_NO_SYMLINKS, mode)
        except OSError as error:
            if error.errno != ELOOP:
                raise OSError(error.errno, error.strerror, path) from None
    found = _in_a_tree(path, more)
    if found is None:  # the links are the host's
        return posix.open(path, flags | posix.O_CLOEXEC, mode)
    try:
        if upwards and ".." in found[1].split("/"):
            raise OSError(ELOOP, posix.strerror(ELOOP))
        return mountfd.openat2(found[0], _bytes(found[1] or "."), flags, m.BENEATH, mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        posix.close(found[0])


def created(
    path: str,
    flags: int,
    mode: int,
    more: Callable[[], Mapping[tuple[int, int], str]] | None = None,
    command: str = "jail",
) -> int:
    """``opened`` of what is to be written to, with O_CREAT. Raises OSError.

    In the tree of a jail that is a regular file, since what else is there could keep the host waiting; of the host's
    own, a FIFO's reader is waited for, which the ``command`` says on standard error if it takes some time.
    """
    flags |= posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOCTTY
    try:
        fd = opened(path, flags | posix.O_NONBLOCK, mode, more, up=True)
    except OSError as error:
        if error.errno != _ENXIO or leads_through(path, more):
            raise
        return _read_by_somebody(path, flags, mode, command)
    if filekind.of(posix.fstat(fd)) != filekind.REGULAR:
        if leads_through(path, more):
            posix.close(fd)
            raise OSError(EINVAL, "not a regular file", path)
        posix.set_blocking(fd, True)
    return fd


def _read_by_somebody(path: str, flags: int, mode: int, command: str) -> int:
    """A FIFO as soon as it has a reader. Nobody is told of one that is just being started."""
    import time

    patience = time.monotonic() + _PATIENCE
    while time.monotonic() < patience:
        try:
            fd = posix.open(path, flags | posix.O_NONBLOCK, mode)
        except OSError as error:
            if error.errno != _ENXIO:
                raise
            time.sleep(_MOMENT)
        else:
            posix.set_blocking(fd, True)
            return fd
    posix.write(2, f"{command}: {path}: a FIFO that nobody reads: waiting for a reader\n".encode("utf-8", "replace"))
    return posix.open(path, flags, mode)


def owner(path: str) -> str:
    """The name of the running jail whose tree a path of the host's leads into, whether it ends there or not, or ""."""
    found = _in_a_tree(path)
    if found is None:
        return ""
    posix.close(found[0])
    return found[2]


def leads_through(path: str, more: Callable[[], Mapping[tuple[int, int], str]] | None) -> bool:
    """Whether a path comes to the tree of a running jail, or to what ``more`` tells of. Raises OSError."""
    found = _in_a_tree(path, more)
    if found is not None:
        posix.close(found[0])
    return found is not None


def wait_for(fd: int) -> None:
    """Wait for what is to be read of a FIFO or the like that was opened with O_NONBLOCK, which it is no longer then."""
    from select import POLLIN, poll

    waiter = poll()
    waiter.register(fd, POLLIN)
    waiter.poll()
    posix.set_blocking(fd, True)


def _in_a_tree(
    path: str, more: Callable[[], Mapping[tuple[int, int], str]] | None = None
) -> tuple[int, str, str] | None:
    """What of a running jail's a path comes to, as a descriptor, what is left of it there, and the jail's name.

    Raises OSError where there was no telling.
    """
    names = {**more()} if more is not None else {}
    if not ns.is_jailed():  # else the trees of the jails in this one are for the host to know
        _add_running(names)
    top = posix.stat("/")
    names.pop((top.st_dev, top.st_ino), None)  # such a jail confines no files
    found = come_to(names, path if path.startswith("/") else f"{posix.getcwd()}/{path}")
    return None if found is None else (*found, names[identity(found[0])])


def _add_running(names: dict[tuple[int, int], str]) -> None:
    from jailng.core import registry

    for record in registry.jails():
        for place in record.places:
            names.setdefault(place, record.name)
        try:
            # By no link: a root that is in the tree of another jail may be one, to anywhere.
            root = mountfd.openat2(
                m.AT_FDCWD, _bytes(record.params.get("path", "/")), _DIRECTORY, m.RESOLVE_NO_SYMLINKS
            )
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            continue
        names.setdefault(identity(root), record.name)
        posix.close(root)


def come_to(roots: Container[tuple[int, int]], path: str) -> tuple[int, str] | None:
    """The first of the roots that an absolute path comes to, as a descriptor, and what is left of it there.

    Raises OSError.
    """
    here = posix.open("/", m.O_PATH | posix.O_CLOEXEC)
    rest = path.split("/")[::-1]
    links = 0
    try:
        while rest:
            name = rest.pop()
            if name in ("", "."):
                continue
            try:
                found = posix.open(name, m.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=here)
            except OSError as error:
                if error.errno in SHORTAGES:
                    raise
                return None
            if filekind.of(posix.fstat(found)) == filekind.LINK:
                posix.close(found)
                target = posix.readlink(name, dir_fd=here)
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(ELOOP, posix.strerror(ELOOP), path)
                rest += target.split("/")[::-1]
                if not target.startswith("/"):
                    continue
                found = posix.open("/", m.O_PATH | posix.O_CLOEXEC)
            posix.close(here)
            here = found
            if identity(here) in roots and _is_directory(here):  # a file has nothing in it that could lead away
                arrived, here = here, posix.dup(here)
                return arrived, "/".join([name for name in rest[::-1] if name not in ("", ".")])
    finally:
        posix.close(here)
    return None


def _is_directory(fd: int) -> bool:
    return filekind.of(posix.fstat(fd)) == filekind.DIRECTORY


def identity(fd: int) -> tuple[int, int]:
    """Device and inode."""
    status = posix.fstat(fd)
    return status.st_dev, status.st_ino


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
