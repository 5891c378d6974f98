"""A tar archive made a tree of, by a process that trusts no word of it and is confined to the directory it writes in.

A member is made beneath that directory, on the way to it no link is followed, and nothing that is there is written
through: a file is made under a name of its own and takes the place of what is there. Devices are never made.
"""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, Self

from jailng.ctl.told import Limits, Told
from jailng.linux import mount, mountfd

_PIECE = 1 << 20
_ZEROS = bytes(_PIECE)
_NOBODY_AT_ALL = (1 << 32) - 1  # chown(2) takes it for "as it is"
_LONGEST = 4095  # of a path, and of a link, bytes
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_XATTR = "SCHILY.xattr."
_ATTRIBUTES = ("security.capability", "system.posix_acl_", "user.")
_SPECIAL = {tarfile.CHRTYPE: "device", tarfile.BLKTYPE: "device", tarfile.FIFOTYPE: "FIFO"}


class _Member(tarfile.TarInfo):
    """tarfile takes anything that is no header for the end of an archive; here that is two blocks of zeros alone."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


class Refused(Exception):
    """A member that no archive should have; the sentence begins with its name."""


@dataclass
class Manner:
    """How members are made.

    ``names``: which first components there may be, if not any. ``rename``: what that becomes, "" for what it is. Else
    ``strip`` components are taken away. ``directory``: only a directory may have that name. ``whole``: "." in the
    archive is the top itself, and says whose that is. ``owners``: whose files are is said by the archive; else they are
    root's. ``special``: set-user-ID bits and the like stay. ``fifos`` are made; ``attributes``: extended ones are set.
    """

    names: frozenset[str] = frozenset()
    rename: str = ""
    strip: int = 0
    directory: bool = False
    whole: bool = False
    owners: bool = False
    special: bool = False
    fifos: bool = False
    attributes: bool = False


@dataclass
class Writer:
    """Makes members beneath the directory ``top``."""

    top: int
    manner: Manner
    limits: Limits
    told: Told
    _made: set[str] = field(default_factory=set)
    _directories: dict[str, tuple[int, int, tarfile.TarInfo]] = field(default_factory=dict)
    _number: int = 0
    _parent: tuple[str, int] | None = None

    def write(self, stream: BinaryIO) -> None:
        """All members of an archive. Raises OSError, tarfile.TarError, Refused, Excess."""
        with _opened(stream) as archive:
            for member in _members(archive):
                self.limits.count()
                self.told.beat()
                self._member(archive, member)
            stream.read(_PIECE)  # what pads the end, else whoever writes that would complain
            while more := stream.read(_PIECE):
                self.limits.take(len(more))
                self.told.beat()
        self._finish()

    def _member(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self._path(member.name)
        if path is None:
            self.limits.take(_length(member))
            return
        if member.type in _SPECIAL and not (member.isfifo() and self.manner.fifos):
            self.told.skipped(path, _SPECIAL[member.type])
        elif member.isdir():
            self._directory(path, member)
        elif not path:
            raise Refused(f"{member.name or '(no name)'}: is not a directory")
        else:
            try:
                self._other(archive, path, member)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EXDEV):
                    raise Refused(f"{path}: leads through a link") from None
                raise OSError(error.errno, error.strerror, path) from None

    def _other(self, archive: tarfile.TarFile, path: str, member: tarfile.TarInfo) -> None:
        parent, name = self._open_parent(path), path.rpartition("/")[2]
        if member.issym():
            if len(os.fsencode(member.linkname)) > _LONGEST or "\0" in member.linkname:
                raise Refused(f"{path}: a link that cannot be")
            new = self._temporary()
            os.symlink(member.linkname, new, dir_fd=parent)
            self._put(parent, new, name, lambda: self._mark_link(parent, new, member))
            self._made.add(path)
        elif member.islnk():
            self._link(path, parent, name, member)
        elif member.isfifo():
            new = self._temporary()
            os.mkfifo(new, 0o600, dir_fd=parent)
            self._put(parent, new, name, lambda: self._mark_fifo(parent, new, member))
        elif member.isreg():
            if self.manner.directory and "/" not in path:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            self._file(archive, path, parent, name, member)
        else:
            self.limits.take(_length(member))
            self.told.skipped(path, "special file")

    def _path(self, name: str) -> str | None:
        """Where a member goes, "" for the top itself; None where ``strip`` leaves nothing. Raises Refused."""
        if "\0" in name or len(os.fsencode(name)) > _LONGEST:
            raise Refused(f"{name[:100]}: a name that no file can have")
        parts = name.split("/")
        if name.startswith("/") or ".." in parts:
            raise Refused(f"{name}: leads out of the archive")
        if self.manner.names and parts[0] not in self.manner.names:
            raise Refused(f"{name[:100]}: was not asked for")
        if self.manner.rename:
            parts[0] = self.manner.rename
        parts = [part for part in parts if part not in ("", ".")]
        if self.manner.strip:
            if len(parts) < self.manner.strip:
                return None
            parts = parts[self.manner.strip :]
        if any(len(os.fsencode(part)) > 255 for part in parts):
            raise Refused(f"{name[:100]}: a name that no file can have")
        return "/".join(parts)

    def _open_parent(self, path: str) -> int:
        """The directory that a member goes into, made if the archive did not tell of it."""
        above = path.rpartition("/")[0]
        if self._parent is not None:
            if self._parent[0] == above:
                return self._parent[1]
            os.close(self._parent[1])
            self._parent = None
        try:
            fd = self._open(above)
        except FileNotFoundError:
            parts = above.split("/")
            for count in range(1, len(parts) + 1):
                self._make("/".join(parts[:count]), 0o755)
            fd = self._open(above)
        self._parent = (above, fd)
        return fd

    def _open(self, path: str, flags: int = os.O_PATH) -> int:
        flags |= os.O_DIRECTORY | os.O_NOFOLLOW
        return mountfd.openat2(self.top, os.fsencode(path or "."), flags, mount.BENEATH)

    def _make(self, path: str, mode: int) -> bool:
        """Make a directory whose parent is there; whether it was not there before. Raises OSError, for a link too."""
        above, _, name = path.rpartition("/")
        parent = self._open(above)
        try:
            os.mkdir(name, mode, dir_fd=parent)
            return True
        except FileExistsError:
            os.close(os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent))
            return False
        finally:
            os.close(parent)

    def _directory(self, path: str, member: tarfile.TarInfo) -> None:
        try:
            if path and "/" in path:
                self._open_parent(path)
            new = self._make(path, 0o700) if path else self.manner.whole
            if new or path in self._directories:
                fd = self._open(path)
                status = os.fstat(fd)
                os.close(fd)
                self._directories[path] = (status.st_dev, status.st_ino, member)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EXDEV):
                raise Refused(f"{path}: leads through a link") from None
            raise OSError(error.errno, error.strerror, path) from None

    def _temporary(self) -> str:
        self._number += 1
        return f".jailctl-{os.getpid()}-{self._number}"

    def _put(self, parent: int, new: str, name: str, mark: Callable[[], None]) -> None:
        """Give what was made its name, once it has all else. Raises OSError, and nothing is left then."""
        try:
            mark()
            os.rename(new, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            os.unlink(new, dir_fd=parent)
            raise

    def _link(self, path: str, parent: int, name: str, member: tarfile.TarInfo) -> None:
        """To what this archive has made, and to nothing else that may lie about."""
        target = self._path(member.linkname)
        if target not in self._made or target is None:
            raise Refused(f"{path}: a hard link to what the archive does not have: {member.linkname}")
        directory = self._open(target.rpartition("/")[0])
        try:
            new = self._temporary()
            base = target.rpartition("/")[2]
            os.link(base, new, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(directory)
        self._put(parent, new, name, lambda: None)
        try:
            os.unlink(new, dir_fd=parent)  # rename(2) of a file onto itself does nothing
        except FileNotFoundError:
            pass
        self._made.add(path)

    def _file(self, archive: tarfile.TarFile, path: str, parent: int, name: str, member: tarfile.TarInfo) -> None:
        new = self._temporary()
        fd = os.open(new, _NEW, 0o600, dir_fd=parent)

        def fill() -> None:
            self._fill(archive, fd, member)
            self._mark(fd, path, member)

        try:
            self._put(parent, new, name, fill)
        finally:
            os.close(fd)
        self._made.add(path)

    def _fill(self, archive: tarfile.TarFile, fd: int, member: tarfile.TarInfo) -> None:
        sparse: list[tuple[int, int]] | None = member.sparse  # type: ignore[assignment]
        data = archive.fileobj
        assert data is not None
        data.seek(member.offset_data)  # forwards: what is sparse has its parts one behind the other
        # An empty part tells where a file ends, or, in GNU's old format, that there is no other part.
        parts = [(0, member.size)] if sparse is None else [part for part in sparse if part[1]]
        before = 0
        for at, size in parts:
            if at < before or size < 0 or at + size > member.size:
                raise Refused(f"{member.name}: a map of holes that cannot be")
            before = at + size
            self.limits.take(size)
            os.lseek(fd, at, os.SEEK_SET)
            self._copy(data.read, fd, size)
        os.ftruncate(fd, member.size)

    def _copy(self, read: Callable[[int], bytes], fd: int, left: int) -> None:
        while left:
            piece = read(min(left, _PIECE))
            if not piece:
                raise tarfile.ReadError("unexpected end of data")
            rest = memoryview(piece)
            if piece == _ZEROS:  # what is a hole may stay one
                os.lseek(fd, len(piece), os.SEEK_CUR)
                rest = rest[:0]
            while rest:
                rest = rest[os.write(fd, rest) :]
            self.told.beat()
            left -= len(piece)

    def _mark(self, fd: int, path: str, member: tarfile.TarInfo) -> None:
        """Owner first: chown(2) takes set-user-ID bits and capabilities away."""
        os.fchown(fd, *self._owner(member))
        os.fchmod(fd, self._mode(member))
        if self.manner.attributes:
            for key, value in member.pax_headers.items():
                name = key.removeprefix(_XATTR).replace("%3D", "=").replace("%25", "%")
                if key.startswith(_XATTR) and name.startswith(_ATTRIBUTES):
                    try:
                        os.setxattr(fd, name, os.fsencode(value))
                    except OSError as error:
                        self.told.failed(path, f"{name[:100]}: {error.strerror}")
        os.utime(fd, ns=(_time(member), _time(member)))

    def _mark_link(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        os.chown(name, *self._owner(member), dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(_time(member), _time(member)), dir_fd=parent, follow_symlinks=False)

    def _mark_fifo(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        self._mark_link(parent, name, member)
        os.chmod(name, self._mode(member) & 0o777, dir_fd=parent)

    def _owner(self, member: tarfile.TarInfo) -> tuple[int, int]:
        if not self.manner.owners:
            return 0, 0
        if not (0 <= member.uid < _NOBODY_AT_ALL and 0 <= member.gid < _NOBODY_AT_ALL):
            raise Refused(f"{member.name}: an owner that nobody can be")
        return member.uid, member.gid

    def _mode(self, member: tarfile.TarInfo) -> int:
        mode = member.mode & 0o7777
        if not self.manner.special:
            if mode & 0o6000 and not member.isdir():
                self.told.dropped()
            mode &= 0o1777 if member.isdir() else 0o777
        return mode

    def _finish(self) -> None:
        """Modes and times of the directories, the deepest first: whatever is made in one changes its time."""
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None
        for path in sorted(self._directories, key=lambda path: path.count("/"), reverse=True):
            device, inode, member = self._directories[path]
            fd = self._open(path, os.O_RDONLY)
            try:
                status = os.fstat(fd)
                if (status.st_dev, status.st_ino) == (device, inode):
                    self._mark(fd, path, member)
            finally:
                os.close(fd)
            self.told.beat()


def _length(member: tarfile.TarInfo) -> int:
    """Bytes of data that follow a member, and are read whether anything is made of them or not."""
    if not member.isreg() and member.type in tarfile.SUPPORTED_TYPES:
        return 0
    sparse: list[tuple[int, int]] | None = member.sparse  # type: ignore[assignment]
    return max(member.size if sparse is None else sum(size for _, size in sparse), 0)


@contextmanager
def _sense() -> Iterator[None]:
    """tarfile stumbles over numbers, maps of holes and chains of headers that make none."""
    try:
        yield
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise tarfile.ReadError(str(error)) from None


def _opened(stream: BinaryIO) -> tarfile.TarFile:
    with _sense():
        return tarfile.open(fileobj=stream, mode="r|", errors="surrogateescape", encoding="utf-8", tarinfo=_Member)


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while True:
        with _sense():
            member = archive.next()
        if member is None:
            return
        yield member
        archive.members = []  # type: ignore[attr-defined]  # else it keeps all of them


def _time(member: tarfile.TarInfo) -> int:
    """In nanoseconds, which a float does not hold; what is no time at all is that of the year 1970."""
    seconds, _, fraction = member.pax_headers.get("mtime", "").partition(".")
    digits, parts = seconds.removeprefix("-"), f"{fraction[:9]:0<9}"
    if len(digits) < 12 and (digits + parts).isascii() and digits.isdigit() and parts.isdigit():
        nanoseconds = int(digits) * 10**9 + int(parts)
        return -nanoseconds if seconds.startswith("-") else nanoseconds
    return int(min(max(-1e11, float(member.mtime)), 1e11) if member.mtime == member.mtime else 0) * 10**9
