"""Where jailinit is, and how it is executed: PID 1, and the way into a jail whose uids are the host's."""

from __future__ import annotations

import posix

from jailng.errors import JailError
from jailng.linux import mount

_NEW = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC


def path() -> str:
    """Where the program is: beside a checkout's sources, else in lib/jailng of what the package is installed below."""
    package = __file__.rpartition("/core/")[0]
    if package.endswith("/src/jailng"):
        return package[: -len("src/jailng")] + "jailinit/jailinit"
    prefix, installed, _ = package.partition("/lib/python3/")
    return f"{prefix if installed else '/usr'}/lib/jailng/jailinit"


def open_program() -> int:
    """jailinit on a detached read-only mount of its own, for fexecve(3).

    Through /proc/PID/exe a jailed root whose uids are the host's could otherwise write to it (CVE-2019-5736).
    Raises JailError where it is not built.
    """
    where = path()
    try:
        tree = mount.open_tree(mount.AT_FDCWD, where.encode())
    except FileNotFoundError:
        raise JailError(f"{where}: not built: make -C {where.rpartition('/')[0]}") from None
    mount.mount_setattr(tree, mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV)
    return tree


def open_copy(owner: int) -> int:
    """A copy of jailinit that no jail's root may read, though his uid be the host's, for fexecve(3).

    ``owner`` is a uid and gid that no jail has.

    The memory of a process that executes what it may not read belongs to the user namespace in which it might
    (would_dump() in fs/exec.c): the host's, so that a jailed root, who has CAP_SYS_PTRACE in his own, cannot trace it.
    Raises JailError where jailinit is not built, or OSError.
    """
    source = open_program()
    try:
        size = posix.fstat(source).st_size
        code = posix.open(f"/proc/self/fd/{source}", posix.O_RDONLY | posix.O_CLOEXEC)
    finally:
        posix.close(source)
    options: list[tuple[bytes, bytes | None]] = [(b"size", b"64k"), (b"mode", b"700")]
    tree = mount.new_file_system(b"tmpfs", options, mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV)
    try:
        copy = posix.open("jailinit", _NEW, 0o111, dir_fd=tree)
        posix.sendfile(copy, code, 0, size)
        posix.fchown(copy, owner, owner)
        posix.close(copy)
        return posix.open("jailinit", mount.O_PATH | posix.O_CLOEXEC, dir_fd=tree)
    finally:
        posix.close(code)
        posix.close(tree)
