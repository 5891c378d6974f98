"""A jail's /dev/log while the host serves it, and the socket of the guest's own syslogd, whose name that was.

The name is in a tmpfs of the host's that the jail's root may write to. A syslogd takes the name away and binds it
anew; then the host puts its own socket there in exchange, keeps the guest's in the directory that lies below the mount
at /dev/mqueue, where the guest cannot look, and passes on to it what it gets. The guest finds what it expects: a socket
with the mode of its own, and a syslogd that hears what is sent to it. When the host no longer serves the name, the
guest's socket has it again.

All of it is done as the jail's root would, who may do no more than it can itself; no link is followed but in its tree.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jailng.core import attach
from jailng.errors import JailError
from jailng.linux import child, mount, ns, processid
from jailng.linux.libc import syscall
from jailng.linux.mountfd import open_tree, openat2
from jailng.linux.visit import InNamespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jailng.core.registry import Record

NAME = "log"
PATH = "/dev/log"
OURS, ABSENT, FOREIGN, UNUSABLE = "ours", "absent", "foreign", "unusable"
# Where a systemd listens, for which /dev/log is a link to it; and where it listens if there is no such link.
_SYSTEMD = b"run/systemd/journal/dev-log"
_COVERED = b"mqueue"  # a directory of /dev that something is mounted on
_STAGE = "dev"  # in that directory, which stands for the root of a tree then, so that the name is /dev/log
_MODE = 0o666
_NOREPLACE, _EXCHANGE = 1, 2
_MARK = "trusted.jailng.log"
_FOLDER = mount.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ITSELF = mount.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST = 4096
_SIOCUNIXFILE = 0x89E0


class Place:
    """The place of that name in the jail of a record. Raises JailError: there is no /dev; OSError."""

    def __init__(self, record: Record) -> None:
        self._owner = record.owner
        self._root = attach.open_tree_of(record)
        try:
            self.dev = _uncovered(self._root, record.init)
        except OSError as error:
            os.close(self._root)
            raise JailError(f"{PATH}: the jail has no /dev: {error.strerror}") from None
        self._inode = -1

    def close(self) -> None:
        """Let go of it; what has the name has it still."""
        os.close(self.dev)
        os.close(self._root)

    def known(self, bound: socket.socket) -> None:
        """This is the socket whose name it is, made by another process."""
        self._inode = self._inode_of(bound)

    def look(self) -> str:
        """What has the name: OURS, FOREIGN (a socket or a link of the guest's), ABSENT, or UNUSABLE."""
        try:
            found = os.stat(NAME, dir_fd=self.dev, follow_symlinks=False)
        except FileNotFoundError:
            return ABSENT
        if found.st_ino == self._inode:
            return OURS
        return FOREIGN if stat.S_ISSOCK(found.st_mode) or stat.S_ISLNK(found.st_mode) else UNUSABLE

    def take(self, keep: Callable[[socket.socket], None]) -> socket.socket:
        """Put a new socket there, and keep what the guest had there. ``keep`` is called with it before.

        Raises OSError: the guest does not let it be done, or was faster. Then all is as it was.
        """
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            with self._as_the_guest():
                self._exchange(bound, keep)
        except OSError:
            bound.close()
            raise
        return bound

    def give_back(self) -> None:
        """Let the guest's own socket have the name again, or nobody. Raises OSError."""
        with self._as_the_guest():
            folder = self._folder()
            try:
                if self.look() != OURS:
                    return
                try:
                    os.rename(NAME, NAME, src_dir_fd=folder, dst_dir_fd=self.dev)
                except FileNotFoundError:
                    os.unlink(NAME, dir_fd=self.dev)
            finally:
                os.close(folder)

    @contextmanager
    def _as_the_guest(self) -> Iterator[None]:
        before = os.umask(0)
        try:
            with child.Guise(self._owner):
                yield
        finally:
            os.umask(before)

    def _folder(self) -> int:
        return openat2(self.dev, _COVERED, _FOLDER, mount.BENEATH | mount.RESOLVE_NO_XDEV)

    def _exchange(self, bound: socket.socket, keep: Callable[[socket.socket], None]) -> None:
        folder = self._folder()
        stage = -1
        try:
            stage = self._new_stage(folder)
            self._bind(bound, folder)
            _mark(stage)
            keep(bound)
            inode = os.stat(NAME, dir_fd=stage, follow_symlinks=False).st_ino
            how = _NOREPLACE if self.look() == ABSENT else _EXCHANGE
            os.chmod(NAME, _MODE if how == _NOREPLACE else self._mode(), dir_fd=stage)
            _rename(stage, self.dev, how)
            if how == _EXCHANGE:
                self._keep(stage, folder)
            self._inode = inode
        finally:
            self._clear_stage(folder, stage)

    def _mode(self) -> int:
        """That of what the guest has there."""
        mode = os.stat(NAME, dir_fd=self.dev, follow_symlinks=False).st_mode
        return mode & 0o777 if stat.S_ISSOCK(mode) else _MODE

    def _keep(self, stage: int, folder: int) -> None:
        """Keep what has been there, unless it is the dead socket of another post. Raises OSError: it is neither."""
        theirs = os.open(NAME, _ITSELF, dir_fd=stage)
        try:
            mode = os.fstat(theirs).st_mode
            if not (stat.S_ISSOCK(mode) or stat.S_ISLNK(mode)):  # it was changed meanwhile
                _rename(stage, self.dev, _EXCHANGE)
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), PATH)
            if stat.S_ISLNK(mode) or not (_is_marked(stage) or self._is_dead(theirs, folder)):
                os.rename(NAME, NAME, src_dir_fd=stage, dst_dir_fd=folder)
        finally:
            os.close(theirs)

    @staticmethod
    def _is_dead(theirs: int, folder: int) -> bool:
        """Whether nobody has that socket, and there is one that was kept before."""
        return not _is_served(theirs) and NAME in os.listdir(f"/proc/self/fd/{folder}")

    def _new_stage(self, folder: int) -> int:
        try:
            os.mkdir(_STAGE, 0o700, dir_fd=folder)
        except FileExistsError:
            pass  # of a process that was killed
        stage = openat2(folder, _STAGE.encode(), _FOLDER, mount.BENEATH | mount.RESOLVE_NO_XDEV)
        if NAME in os.listdir(f"/proc/self/fd/{stage}"):
            self._rescue(stage, folder)
        return stage

    @staticmethod
    def _rescue(stage: int, folder: int) -> None:
        """What a process has left that was killed between two steps: the guest's socket, or one that nobody has."""
        left = os.open(NAME, _ITSELF, dir_fd=stage)
        try:
            if stat.S_ISLNK(os.fstat(left).st_mode) or (_is_served(left) and not _is_marked(stage)):
                os.rename(NAME, NAME, src_dir_fd=stage, dst_dir_fd=folder)
            else:
                os.unlink(NAME, dir_fd=stage)
        finally:
            os.close(left)

    @staticmethod
    def _clear_stage(folder: int, stage: int) -> None:
        try:
            if stage >= 0:
                os.unlink(NAME, dir_fd=stage)
        except OSError:
            pass
        try:
            os.rmdir(_STAGE, dir_fd=folder)
        except OSError:
            pass
        for fd in (stage, folder):
            if fd >= 0:
                os.close(fd)

    @staticmethod
    def _bind(bound: socket.socket, folder: int) -> None:
        """Bind it by the name that the guest's syslogd would have: getpeername(2) inside tells it."""
        here = os.open("/", _FOLDER)
        try:
            os.fchdir(folder)
            os.chroot(".")
            try:
                bound.bind(PATH)
            finally:
                os.fchdir(here)
                os.chroot(".")
        finally:
            os.close(here)

    @staticmethod
    def _inode_of(bound: socket.socket) -> int:
        """The inode of the name that a socket was bound to: SIOCUNIXFILE."""
        fd = _bound_file(bound.fileno())
        try:
            return os.fstat(fd).st_ino
        finally:
            os.close(fd)

    # The guest's own

    def guest(self) -> int:
        """A descriptor (O_PATH) of the socket of the guest's syslogd, if it has had one here, or a systemd listens.

        Raises OSError: there is none.
        """
        folder = self._folder()
        try:
            theirs = os.open(NAME, _ITSELF, dir_fd=folder)
        except FileNotFoundError:
            return self._within(_SYSTEMD)
        finally:
            os.close(folder)
        if not stat.S_ISLNK(os.fstat(theirs).st_mode):
            return theirs
        try:
            return self._within(os.readlink(b"", dir_fd=theirs)[:_LONGEST])
        finally:
            os.close(theirs)

    def _within(self, path: bytes) -> int:
        """A socket of the jail's tree. Not the host's, to which the guest can link: a line would go round for ever.

        A link that is not absolute begins in /dev.
        """
        if not path.startswith(b"/") and path != _SYSTEMD:
            path = b"dev/" + path
        found = openat2(self._root, path.lstrip(b"/"), mount.O_PATH, mount.IN_ROOT)
        status = os.fstat(found)
        ours = (status.st_dev, status.st_ino) == (os.fstat(self.dev).st_dev, self._inode)
        if ours or not stat.S_ISSOCK(status.st_mode):
            os.close(found)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found


def _uncovered(root: int, init: str) -> int:
    """The jail's /dev without what is mounted in it, which the guest cannot see: a mount of its own, and nowhere.

    Raises OSError (ENOENT: there is none, or it is no tmpfs of the host's).
    """
    dev = openat2(root, b"dev", _FOLDER, mount.BENEATH)
    here = os.open("/", _FOLDER)
    there = processid.open_namespace(init, "mnt")
    try:
        _check_covered(dev)
        try:
            with InNamespace(there, ns.CLONE_NEWNS):  # the kernel copies no mount of another namespace
                return open_tree(dev)
        finally:
            os.fchdir(here)
            os.chroot(".")
    finally:
        for fd in (dev, here, there):
            os.close(fd)


def _check_covered(dev: int) -> None:
    try:
        os.close(openat2(dev, _COVERED, _FOLDER, mount.BENEATH | mount.RESOLVE_NO_XDEV))
    except OSError as error:
        if error.errno == errno.EXDEV:
            return
        raise
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), PATH)


def _mark(stage: int) -> None:
    """Tell the host's socket from any of the guest's, which can neither see nor set this."""
    try:
        os.setxattr(f"/proc/self/fd/{stage}/{NAME}", _MARK, b"1", follow_symlinks=False)
    except OSError:
        pass  # a kernel without CONFIG_TMPFS_XATTR


def _is_marked(stage: int) -> bool:
    try:
        return bool(os.getxattr(f"/proc/self/fd/{stage}/{NAME}", _MARK, follow_symlinks=False))
    except OSError:
        return False


def _rename(stage: int, dev: int, how: int) -> None:
    syscall("renameat2", stage, NAME.encode(), dev, NAME.encode(), how, path=PATH.encode())


def _is_served(address: int) -> bool:
    """Whether somebody has the socket that this descriptor (O_PATH) is of."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(f"/proc/self/fd/{address}")
        except OSError as error:
            return error.errno == errno.EPROTOTYPE  # of another type
    return True


def _bound_file(fd: int) -> int:
    """A descriptor (O_PATH) of the file that a unix socket is bound to: SIOCUNIXFILE. Raises OSError."""
    return syscall("ioctl", fd, _SIOCUNIXFILE, 0)
