"""cgroup2, wherever a v1, hybrid or v2 host has it, and the few files of it that a jail lives by. cgroups(7)."""

from __future__ import annotations

import posix

from jailng.linux import libc
from jailng.linux.libc import ENODEV, EOPNOTSUPP
from jailng.linux.mount import O_PATH

_UNIFIED = (
    b"/sys/fs/cgroup",
    b"/sys/fs/cgroup/unified",
    b"/proc/1/root/sys/fs/cgroup",
    b"/proc/1/root/sys/fs/cgroup/unified",
)
_PERSIST = b"user.jailng.persist"
_DIRECTORY = posix.O_DIRECTORY | posix.O_CLOEXEC
_open_root: int | None = None


def unified_root() -> int:
    """A directory fd of the cgroup2 hierarchy's root, kept open for the process's life.

    Every kernel with cgroups has the hierarchy; where nobody mounted it (pure v1), a detached mount of our own does.
    Raises OSError (ENODEV: a kernel without cgroups).
    """
    global _open_root
    if _open_root is None:
        for path in _UNIFIED:
            try:
                fd = posix.open(path, O_PATH | _DIRECTORY)
            except OSError:
                continue
            try:
                posix.stat("cgroup.controllers", dir_fd=fd)  # no hierarchy of v1 has that file
            except OSError:
                posix.close(fd)
                continue
            _open_root = fd
            break
        else:
            from jailng.linux.mountfd import new_file_system

            _open_root = new_file_system(b"cgroup2", [])
    return _open_root


def make(path: str) -> None:
    """Make the cgroup2 directory ``path`` (relative to the root) and those above. Raises OSError, of the whole path."""
    before = posix.umask(0o022)  # whatever that of the caller is
    try:
        _make(path)
    except OSError as error:  # in a container it may be read-only: whoever reads that has to know what
        if _open_root is not None:
            error.filename = f"{posix.readlink(f'/proc/self/fd/{_open_root}').rstrip('/')}/{error.filename}"
        raise
    finally:
        posix.umask(before)


def _make(path: str) -> None:
    root = unified_root()
    try:
        posix.mkdir(path, 0o755, dir_fd=root)
    except FileExistsError:
        pass
    except FileNotFoundError:
        above = path.rpartition("/")[0]
        if not above:
            raise
        _make(above)
        _make(path)  # whoever removes the last one in there may have taken it away again


def open_directory(path: str) -> int:
    """A directory fd of the cgroup ``path``, for clone3's CLONE_INTO_CGROUP. Raises OSError."""
    return posix.open(path, posix.O_RDONLY | _DIRECTORY, dir_fd=unified_root())


def number(path: str) -> int:
    """What programs of BPF know a cgroup2 directory by. Raises OSError."""
    return posix.stat(path, dir_fd=unified_root()).st_ino


def open_file(path: str, flags: int) -> int:
    """Open a control file, such as ``jailng/7/members/cgroup.events``. Raises OSError."""
    return posix.open(path, flags | posix.O_CLOEXEC, dir_fd=unified_root())


def write(path: str, text: bytes) -> None:
    """Write to a control file. Raises OSError."""
    fd = open_file(path, posix.O_WRONLY)
    try:
        posix.write(fd, text)
    finally:
        posix.close(fd)


def read(path: str) -> bytes:
    """The first 64 kB of a control file. Raises OSError."""
    fd = open_file(path, posix.O_RDONLY)
    try:
        return posix.read(fd, 65536)
    finally:
        posix.close(fd)


def exists(path: str) -> bool:
    """Whether there is a cgroup ``path`` in the hierarchy as it is mounted here. Raises OSError."""
    return libc.exists(path, unified_root())


def populated(path: str) -> bool:
    """Whether a process lives in the cgroup ``path`` or below; no if there is no such cgroup."""
    try:
        return b"populated 1" in read(path + "/cgroup.events")
    except FileNotFoundError:
        return False


def members(path: str) -> list[int]:
    """The pids in the cgroup ``path`` itself, as this process's pid namespace numbers them (others are 0).

    Raises OSError (ENOENT: there is none). One that is removed meanwhile has none; nor has one that is threaded, as a
    guest's may be: its processes are those of the cgroup above that is not.
    """
    return _ids(f"{path}/cgroup.procs")


def threads(path: str) -> list[int]:
    """The same of threads, of cgroup2 and, by an absolute path, of v1."""
    return _ids(f"{path}/{'tasks' if path.startswith('/') else 'cgroup.threads'}")


def _ids(path: str) -> list[int]:
    fd = open_file(path, posix.O_RDONLY)
    pids = b""
    try:
        while part := posix.read(fd, 65536):
            pids += part
    except OSError as error:
        if error.errno not in (ENODEV, EOPNOTSUPP):
            raise
        pids = b""
    finally:
        posix.close(fd)
    return [int(pid) for pid in pids.split()]


def set_persist(events: int, persist: bool) -> None:
    """Tell jailinit, which has the members' cgroup.events open too, whether the jail outlives its last member."""
    posix.setxattr(events, _PERSIST, b"1" if persist else b"0")  # type: ignore[attr-defined, unused-ignore]


def mark(path: str, name: bytes) -> None:
    """Note something on the cgroup ``path``, by an attribute that goes with it. Raises OSError."""
    fd = open_directory(path)
    try:
        posix.setxattr(fd, name, b"1")  # type: ignore[attr-defined, unused-ignore]
    finally:
        posix.close(fd)


def is_marked(path: str, name: bytes) -> bool:
    """Whether that is noted there. Raises OSError."""
    fd = open_directory(path)
    try:
        return name.decode() in posix.listxattr(fd)  # type: ignore[attr-defined, unused-ignore]
    finally:
        posix.close(fd)


def unmark(path: str, name: bytes) -> None:
    """Take the note away. Raises OSError."""
    fd = open_directory(path)
    try:
        posix.removexattr(fd, name)  # type: ignore[attr-defined, unused-ignore]
    finally:
        posix.close(fd)


def tells_of_processes(events: int) -> bool:
    """Whether a process lives in the cgroup of this cgroup.events, or below."""
    return b"populated 1" in posix.pread(events, 64, 0)


def directories_in(name: str) -> list[str]:
    """The names of the cgroups right below one; none where it does not exist. Raises OSError."""
    try:
        fd = open_directory(name)
        try:
            with posix.scandir(fd) as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        finally:
            posix.close(fd)
    except FileNotFoundError:  # also of one that is removed meanwhile
        return []
