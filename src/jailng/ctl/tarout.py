"""A tree read as a tar archive, by a process that trusts nothing in it: no link is followed, nothing is waited for.

What is named is walked to beneath one directory and without links (openat2(2)), since whoever lives in the tree can
exchange any part of it at any moment. FIFOs, sockets and devices are never opened.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from jailng.ctl.told import Excess, Limits, Told
from jailng.linux import mount, mountfd

_PIECE = 1 << 20
_LONGEST = 4095  # of a path, bytes
_MOST_NAMES = 256 << 20  # characters of names of files that have more than one: whoever made them chose their length
# Of a sparse file: one that has more is read as if it had no holes, if it is then no larger than so many times what it
# takes; else it is left out: 256 MB are enough for one of 8 EB, which nothing but the disk's end would end.
_MOST_PARTS = 1 << 16
_MOST_TIMES = 16
_NOBODY = 65534
_SECOND = 10**9  # nanoseconds
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
_XATTR = "SCHILY.xattr."
_ATTRIBUTES = ("security.capability", "system.posix_acl_", "user.")


@dataclass
class Wanted:
    """What is read beneath the directory ``top``: ``name``, or "." for all in it, with what is in that if ``deep``.

    ``fifos`` are told of as such and else left out; ``attributes``: also extended ones; ``one``: what is mounted below
    is not entered. ``called`` is what the archive has instead of ``name``.
    """

    top: int
    name: str
    deep: bool = True
    fifos: bool = False
    attributes: bool = False
    one: bool = False
    called: str = ""

    def shown(self, path: str) -> str:
        """What the archive calls it that is found at ``path``."""
        return self.called + path[len(self.name) :] if self.called else path


@dataclass
class Reader:
    """Writes archives, one after the other into one stream; ``told`` hears of what was left out."""

    to: BinaryIO
    limits: Limits
    told: Told
    _links: dict[tuple[int, int], tuple[str, int]] = field(default_factory=dict)  # names, and how many are to come
    _held: int = 0  # characters of these names
    _mount: int = 0  # what is read, where that is one mount alone

    def read(self, wanted: Wanted) -> None:
        """Raises OSError where it is not there or nobody takes it, Excess."""
        root = os.stat(wanted.name, dir_fd=wanted.top, follow_symlinks=False)
        if stat.S_ISDIR(root.st_mode) and not wanted.deep:
            raise IsADirectoryError(errno.EISDIR, "is a directory (not copied)", wanted.name)
        self._mount = mountfd.mount_id(wanted.top) if wanted.one else 0
        above, _, name = wanted.name.rpartition("/")
        pending = [(above, name)]  # of a directory there may be millions
        while pending:
            above, name = pending.pop()
            path = f"{above}/{name}" if above else name
            below: list[str] = []
            try:
                status = _status(wanted.top, above, name)
                if stat.S_ISDIR(status.st_mode):
                    below = self._directory(wanted, path, status, root.st_dev)
                else:
                    self._other(wanted, path, status)
            except BrokenPipeError:
                raise
            except OSError as error:
                self.told.failed(path, error.strerror or str(error))
            pending += [(path, name) for name in reversed(below)]

    def end(self) -> None:
        """Two blocks of zeros: there is no more."""
        self.to.write(bytes(2 * tarfile.BLOCKSIZE))
        self.to.flush()

    def _directory(self, wanted: Wanted, path: str, status: os.stat_result, device: int) -> list[str]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        fd = mountfd.openat2(wanted.top, os.fsencode(path), flags, mount.BENEATH)
        try:
            status = os.fstat(fd)
            mounted = wanted.one and (status.st_dev != device or self._is_mounted(fd))
            header = _header(wanted.shown(path), status, tarfile.DIRTYPE, self._attributes(wanted, fd))
            if mounted and header.uid == _NOBODY:  # a jail's /proc, which is the host's root's; that below is not seen
                header.uid = header.gid = 0
            self._say(header)
            if mounted:
                return []
            found = []
            for name in self._names(fd):
                below = f"{path}/{name}"
                if len(os.fsencode(below)) > _LONGEST:
                    self.told.failed(below[:100] + "...", os.strerror(errno.ENAMETOOLONG))
                    continue
                found.append(name)
            return found
        finally:
            os.close(fd)

    def _is_mounted(self, fd: int) -> bool:
        """Whether it is a place where something is mounted, be it of the same file system."""
        return self._mount != 0 and mountfd.mount_id(fd) != self._mount

    def _names(self, fd: int) -> Iterator[str]:
        with os.scandir(fd) as entries:
            for count, entry in enumerate(entries):
                self.told.beat()
                if self.limits.files and count > self.limits.files:
                    raise Excess(f"more than {self.limits.files} files in one directory: --max-files")
                yield entry.name

    def _other(self, wanted: Wanted, path: str, status: os.stat_result) -> None:
        above, _, name = path.rpartition("/")
        parent = mountfd.openat2(wanted.top, os.fsencode(above or "."), os.O_PATH | os.O_DIRECTORY, mount.BENEATH)
        try:
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFLNK:
                self._symbolic(wanted, path, parent)
            elif kind == stat.S_IFREG:
                self._file(wanted, path, os.open(name, _OPEN, dir_fd=parent))
            elif kind == stat.S_IFIFO and wanted.fifos:
                self._say(_header(wanted.shown(path), status, tarfile.FIFOTYPE))
            else:
                self.told.skipped(path, _KINDS.get(kind, "special file"))
        finally:
            os.close(parent)

    def _symbolic(self, wanted: Wanted, path: str, parent: int) -> None:
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path.rpartition("/")[2], flags, dir_fd=parent)  # or another may be read than was looked at
        try:
            status, target = os.fstat(fd), os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)
        identity = (status.st_dev, status.st_ino)
        linked = self._linked(identity) if status.st_nlink > 1 else ""
        header = _header(wanted.shown(path), status, tarfile.LNKTYPE if linked else tarfile.SYMTYPE)
        header.linkname = linked or target
        self._say(header)
        if status.st_nlink > 1 and not linked:
            self._link(identity, wanted.shown(path), status.st_nlink - 1)

    def _file(self, wanted: Wanted, path: str, fd: int) -> None:
        try:
            status = os.fstat(fd)  # what was looked at may have been exchanged since
            if not stat.S_ISREG(status.st_mode):
                self.told.skipped(path, _KINDS.get(stat.S_IFMT(status.st_mode), "special file"))
                return
            if self._is_mounted(fd):
                self._say(_header(wanted.shown(path), status, tarfile.REGTYPE))
                return
            identity = (status.st_dev, status.st_ino)
            linked = self._linked(identity) if status.st_nlink > 1 else ""
            if linked:
                header = _header(wanted.shown(path), status, tarfile.LNKTYPE)
                header.linkname = linked
                self._say(header)
                return
            parts = _parts(fd, status)
            self.limits.take(sum(size for _, size in parts) if parts is not None else status.st_size)
            header = _header(wanted.shown(path), status, tarfile.REGTYPE, self._attributes(wanted, fd))
            if parts is None:
                header.size = status.st_size
                self._say(header)
                self._data(path, fd, 0, status.st_size)
                self._pad(status.st_size)
            else:
                self._sparse(header, path, fd, status.st_size, parts)
            if status.st_nlink > 1:
                self._link(identity, wanted.shown(path), status.st_nlink - 1)
        finally:
            os.close(fd)

    def _link(self, identity: tuple[int, int], name: str, left: int) -> None:
        """Remember a file of which there are as many names more; not more of them than there should be memory for."""
        if self._held + len(name) > _MOST_NAMES:
            self.told.failed(name, "too many linked files: its other names become files of their own")
            return
        self._links[identity] = name, left
        self._held += len(name)

    def _linked(self, identity: tuple[int, int]) -> str:
        """The name of the same file that the archive has already, or "". Behind its last it is forgotten."""
        name, left = self._links.pop(identity, ("", 0))
        if left > 1:
            self._links[identity] = name, left - 1
        else:
            self._held -= len(name)
        return name

    def _sparse(self, header: tarfile.TarInfo, path: str, fd: int, size: int, parts: list[tuple[int, int]]) -> None:
        """As GNU tar's format 1.0 of sparse files has it: the map, a line each number, before the data."""
        numbers = [len(parts), *[number for part in parts for number in part]]
        plan = "".join([f"{number}\n" for number in numbers]).encode()
        plan += bytes(-len(plan) % tarfile.BLOCKSIZE)
        length = sum(size for _, size in parts)
        header.pax_headers = {
            **header.pax_headers,
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": header.name,
            "GNU.sparse.realsize": str(size),
        }
        header.name = f"GNUSparseFile.0/{header.name.rpartition('/')[2]}"
        header.size = len(plan) + length
        self._say(header)
        self.to.write(plan)
        for at, count in parts:
            self._data(path, fd, at, count)
        self._pad(length)

    def _data(self, path: str, fd: int, at: int, left: int) -> None:
        """So many bytes, whatever becomes of the file meanwhile."""
        while left:
            data = os.pread(fd, min(left, _PIECE), at)
            if not data:
                self.told.failed(path, "became shorter while it was read")
                data = bytes(min(left, _PIECE))
                while left > len(data):
                    self.to.write(data)
                    self.told.beat()
                    left -= len(data)
                data = data[:left]
            self.to.write(data)
            self.told.beat()
            at += len(data)
            left -= len(data)

    def _pad(self, size: int) -> None:
        self.to.write(bytes(-size % tarfile.BLOCKSIZE))

    def _say(self, header: tarfile.TarInfo) -> None:
        self.limits.count()
        self.told.beat()
        self.to.write(header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _attributes(self, wanted: Wanted, fd: int) -> dict[str, str]:
        if not wanted.attributes:
            return {}
        try:
            names = [name for name in os.listxattr(fd) if name.startswith(_ATTRIBUTES)]
        except OSError:
            return {}
        return {_keyword(name): os.fsdecode(os.getxattr(fd, name)) for name in names}


def _status(top: int, above: str, name: str) -> os.stat_result:
    parent = mountfd.openat2(top, os.fsencode(above or "."), os.O_PATH | os.O_DIRECTORY, mount.BENEATH)
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(parent)


class _Keyword(str):
    """One that tarfile writes as the bytes that it is: it takes keywords for UTF-8, and a name may hold anything."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return os.fsencode(str(self))


def _keyword(name: str) -> str:
    """That of an attribute, in whose name an equals sign would end it: as GNU tar writes it."""
    return _Keyword(_XATTR + name.replace("%", "%25").replace("=", "%3D"))


def _header(path: str, status: os.stat_result, kind: bytes, more: dict[str, str] | None = None) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    header.type = kind
    header.mode = stat.S_IMODE(status.st_mode)
    header.uid, header.gid = status.st_uid, status.st_gid
    nanoseconds = status.st_mtime_ns
    header.mtime = nanoseconds // _SECOND
    header.pax_headers = dict(more or {})
    if nanoseconds % _SECOND:
        sign, number = "-" if nanoseconds < 0 else "", abs(nanoseconds)
        header.pax_headers["mtime"] = f"{sign}{number // _SECOND}.{number % _SECOND:09d}"
    return header


def _parts(fd: int, status: os.stat_result) -> list[tuple[int, int]] | None:
    """Where a sparse file has data, as offset and length; None for one that is not sparse, or has too many holes."""
    if status.st_blocks * 512 >= status.st_size:
        return None
    found = []
    at = 0
    while at < status.st_size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # there is no more
                break
            return None
        end = min(os.lseek(fd, begin, os.SEEK_HOLE), status.st_size)
        if begin >= end:
            break
        found.append((begin, end - begin))
        if len(found) > _MOST_PARTS:
            if status.st_size > _MOST_TIMES * 512 * status.st_blocks:
                raise OSError(errno.EFBIG, f"has more than {_MOST_PARTS} holes")
            return None
        at = end
    return [*found, (status.st_size, 0)]
