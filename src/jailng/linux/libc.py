"""System calls by number, errno turned into OSError.

``ctypes`` costs 4 ms to import and ``_ctypes``, the C half that it wraps, costs 0.5: a quarter of a jail's life.
So the private half it is, in ``linux.foreign``, and loaded by whoever calls first (docs/decisions/0001-ctypes.md).
"""

from __future__ import annotations

import posix
from _struct import error, pack  # type: ignore[attr-defined]  # typeshed has it in struct alone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any, Protocol

    class Buffer(Protocol):
        """Memory that the kernel reads or writes; ``raw`` is its content."""

        raw: bytes

    Argument = int | bytes | Buffer | None


# The same on every machine that _MACHINES names; the module errno costs 0.06 ms.
EPERM, ENOENT, ESRCH, EBADF, EAGAIN, EBUSY, EEXIST, ENODEV, ENOTDIR, EOPNOTSUPP = 1, 2, 3, 9, 11, 16, 17, 19, 20, 95
EINVAL, EMFILE, ENOSPC, ENOSYS, ELOOP, ENODATA, ENOEXEC, EADDRINUSE = 22, 24, 28, 38, 40, 61, 8, 98
# ENOMEM, ENFILE, EMFILE: what was asked for may be there all the same, so that nothing may follow from its absence.
SHORTAGES = (12, 23, 24)


def keep_if(fd: int, holds: Callable[[int], bool]) -> int:
    """``fd`` if that holds of it; else it is closed, and -1. Raises what ``holds`` does, and closes it then, too."""
    try:
        if holds(fd):
            return fd
    except BaseException:
        posix.close(fd)
        raise
    posix.close(fd)
    return -1


def exists(path: str, above: int | None = None) -> bool:
    """Whether there is such a file, below the directory ``above`` if that is given. Raises OSError where unknown.

    access(2), as Python has it, is silent about why, and says of a file that is there that it is not.
    """
    try:
        posix.stat(path, dir_fd=above)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


_MACHINES = {"x86_64": 0, "aarch64": 1}
MACHINE = posix.uname().machine

# The numbers above 423 are the same on every machine; those below are looked up by column.
_TABLE = {
    "capset": (126, 91),
    "pivot_root": (155, 41),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setgroups": (116, 159),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "setns": (308, 268),
    "prctl": (157, 167),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "mount": (165, 40),
    "umount2": (166, 39),
    "umask": (95, 166),
    "ptrace": (101, 117),
    "setsid": (112, 157),
    "setitimer": (38, 103),
    "execve": (59, 221),
    "chdir": (80, 49),
    "chroot": (161, 51),
    "dup3": (292, 24),
    "sendmsg": (46, 211),
    "sendfile": (40, 71),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "openat": (257, 56),
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fchdir": (81, 50),
    "mkdirat": (258, 34),
    "mknodat": (259, 33),
    "symlinkat": (266, 36),
    "exit_group": (231, 94),
    "rt_sigaction": (13, 134),
    "ppoll": (271, 73),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "setpriority": (141, 140),
    "sched_setattr": (314, 274),
    "sched_getattr": (315, 275),
    "fgetxattr": (193, 10),
    "fsetxattr": (190, 7),
    "sched_setaffinity": (203, 122),
    "ioprio_set": (251, 30),
    "seccomp": (317, 277),
    "bpf": (321, 280),
    "execveat": (322, 281),
    "fstatfs": (138, 44),
    "statx": (332, 291),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "renameat2": (316, 276),
    "prlimit64": (302, 261),
    "ioctl": (16, 29),
    "pidfd_send_signal": (424, 424),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "openat2": (437, 437),
    "pidfd_getfd": (438, 438),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "mount_setattr": (442, 442),
    "quotactl_fd": (443, 443),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
    "lsm_list_modules": (461, 461),
    "file_getattr": (468, 468),
    "file_setattr": (469, 469),
}
if MACHINE not in _MACHINES:
    raise ImportError(f"jailng knows no system call numbers for {MACHINE}")
NR = {name: numbers[_MACHINES[MACHINE]] for name, numbers in _TABLE.items()}


_CODES = {2: "H", 4: "I", 8: "Q"}
_foreign: ModuleType | None = None


def _loaded() -> Any:
    global _foreign
    if _foreign is None:
        from jailng.linux import foreign  # 0.5 ms, of which a jail for one command needs none

        _foreign = foreign
    return _foreign


def buffer(content: int | bytes) -> Buffer:
    """Memory for the kernel: of that many zero bytes, or holding these bytes (and no NUL after them)."""
    return _loaded().buffer(content)  # type: ignore[no-any-return]


def address(memory: Buffer) -> int:
    """Where a buffer lies, for structures that hold pointers. The caller keeps the buffer alive."""
    return _loaded().address(memory)  # type: ignore[no-any-return]


def syscall(
    name: str,
    a: Argument = 0,
    b: Argument = 0,
    c: Argument = 0,
    d: Argument = 0,
    e: Argument = 0,
    f: Argument = 0,
    *,
    path: str | bytes | None = None,
) -> int:
    """Call the kernel. Integers, NUL-terminated ``bytes``, buffers or None (a null pointer).

    Raises OSError with the kernel's errno; its file name is the call's name, and ``path`` where one is given.
    """
    foreign = _foreign or _loaded()
    result: int = foreign.syscall(NR[name], a, b, c, d, e, f)
    if result == -1:
        error = foreign.errno()
        raise OSError(error, posix.strerror(error), _called(name, path))
    return result


def _called(name: str, path: str | bytes | None) -> str:
    if path is None:
        return name
    return f"{name} {path.decode('utf-8', 'surrogateescape') if isinstance(path, bytes) else path}"


def words(*values: int, size: int = 8) -> bytes:
    """Unsigned integers laid side by side in the machine's order, ``size`` bytes each: 2, 4 or 8."""
    form = f"={len(values)}{_CODES[size]}"
    try:
        return pack(form, *values)
    except error:  # one is negative, or has more bits
        mask = (1 << 8 * size) - 1
        return pack(form, *[value & mask for value in values])
