"""Where jailinit is, and how it is executed: PID 1, and the way into a jail whose uids are the host's."""

from __future__ import annotations

import posix

from jailng.core.program import kept
from jailng.errors import JailError
from jailng.linux import mount
from jailng.linux.libc import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.program import Program, Running

_MFD_EXEC = 0x10  # Linux 6.3
_ATTRIBUTES = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
_opened = -1
_coming: Running | None = None  # the process whose program is as good as ``_opened``


def path() -> str:
    """Where the program is."""
    return place("jailinit/jailinit", "lib/jailng/jailinit")


def place(beside: str, below: str) -> str:
    """Where something of jailng's is that is no module: in a checkout, or below what the package is installed to."""
    package = __file__.rpartition("/core/")[0]
    if package.endswith("/src/jailng"):
        return package[: -len("src/jailng")] + beside
    prefix, installed, _ = package.partition("/lib/python3/")
    return f"{prefix if installed else '/usr'}/{below}"


def lay_open(way: Program, number: int) -> None:
    """Have a program open jailinit on a detached read-only mount of its own, for its ``execute_fd``.

    Through /proc/PID/exe a jailed root whose uids are the host's could otherwise write to it (CVE-2019-5736).
    """
    attr = words(_ATTRIBUTES, 0, 0, 0)
    flags = mount.OPEN_TREE_CLONE | posix.O_CLOEXEC
    way.must("open_tree", mount.AT_FDCWD, way.text(path()), flags, keep=number, label=path())
    way.must("mount_setattr", kept(number), way.text(b""), mount.AT_EMPTY_PATH, way.data(attr), len(attr), label=path())


def copy(owner: int) -> int:
    """A copy of jailinit that no jail's root may read, though his uid be the host's, as an O_PATH descriptor.

    The memory of a process that executes what it may not read belongs to the user namespace in which it might
    (would_dump() in fs/exec.c): the host's, so that a jailed root, who has CAP_SYS_PTRACE in his own, cannot trace it.
    ``owner`` is a uid and gid that no jail has. Raises JailError where jailinit is not built, or OSError.
    """
    try:
        code = posix.open(path(), posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        raise not_built() from None
    file = posix.memfd_create("jailinit", posix.MFD_CLOEXEC | _MFD_EXEC)
    try:
        posix.sendfile(file, code, 0, posix.fstat(code).st_size)
        posix.fchmod(file, 0o111)
        posix.fchown(file, owner, owner)
        return posix.open(f"/proc/self/fd/{file}", mount.O_PATH | posix.O_CLOEXEC)
    finally:
        posix.close(code)
        posix.close(file)


def take(init: Running | None) -> None:
    """Use henceforth what this PID 1 will run, of a jail which nobody has entered yet: the same file, and as safe.

    Until ``keep``, or ``take(None)``: a pid that has been waited for may be anybody's.
    """
    global _coming
    _coming = init


def keep() -> None:
    """What was to be taken is there: hold it, whatever becomes of that PID 1. Raises OSError."""
    global _coming, _opened
    if _coming is not None and _opened < 0:
        _opened = posix.open(f"/proc/{_coming.pid}/exe", mount.O_PATH | posix.O_CLOEXEC)
    _coming = None


def detached() -> str:
    """What to execute for a process that enters a jail: jailinit on such a mount. It stays for this process's life.

    Waits for a PID 1 that was to be taken. Raises JailError where it is not built, or with what failed in PID 1.
    """
    global _opened
    if _opened < 0 and _coming is not None:
        _coming.arrived()
    keep()
    if _opened < 0:
        from jailng.linux import mountfd

        try:
            tree = mountfd.open_tree(mount.AT_FDCWD, path().encode())
        except FileNotFoundError:
            raise not_built() from None
        mountfd.mount_setattr(tree, _ATTRIBUTES)
        _opened = tree
    return f"/proc/self/fd/{_opened}"


def not_built() -> JailError:
    """What there is to say where the program is missing."""
    return JailError(f"{path()}: not built: make -C {path().rpartition('/')[0]}")
