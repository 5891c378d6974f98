"""System calls by number, errno turned into OSError.

``ctypes`` costs 4 ms to import and ``_ctypes``, the C half that it wraps, costs 0.5: a quarter of a jail's life.
So the private half it is; a test says which part of it is used (docs/decisions/0001-ctypes.md).
"""

from __future__ import annotations

import _ctypes
import posix
from _struct import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Buffer(Protocol):
        """Memory that the kernel reads or writes; ``raw`` is its content."""

        raw: bytes

    Argument = int | bytes | Buffer | None


_MACHINES = {"x86_64": 0, "aarch64": 1}
MACHINE = posix.uname().machine

# The numbers above 423 are the same on every machine; those below are looked up by column.
_TABLE = {
    "capget": (125, 90),
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
    "setsid": (112, 157),
    "setitimer": (38, 103),
    "execve": (59, 221),
    "chdir": (80, 49),
    "dup3": (292, 24),
    "fchown": (93, 55),
    "openat": (257, 56),
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "rt_sigaction": (13, 134),
    "ppoll": (271, 73),
    "setpriority": (141, 140),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "ioprio_set": (251, 30),
    "seccomp": (317, 277),
    "bpf": (321, 280),
    "execveat": (322, 281),
    "fstatfs": (138, 44),
    "prlimit64": (302, 261),
    "ioctl": (16, 29),
    "pidfd_send_signal": (424, 424),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "openat2": (437, 437),
    "pidfd_getfd": (438, 438),
    "mount_setattr": (442, 442),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
}
if MACHINE not in _MACHINES:
    raise ImportError(f"jailng knows no system call numbers for {MACHINE}")
NR = {name: numbers[_MACHINES[MACHINE]] for name, numbers in _TABLE.items()}


class _Long(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class _Word(_ctypes._SimpleCData):  # type: ignore[type-arg]
    """A machine word: an integer of any sign is cut to it; bytes and buffers are passed by their address."""

    _type_ = "P"


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Long
    _argtypes_ = (_Word,) * 7


class _Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "c"


_syscall = _Function(_ctypes.dlsym(_ctypes.dlopen(None, 0), "syscall"))  # type: ignore[arg-type]  # None: this program
_CODES = {2: "H", 4: "I", 8: "Q"}
_arrays: dict[int, Any] = {}


def buffer(content: int | bytes) -> Buffer:
    """Memory for the kernel: of that many zero bytes, or holding these bytes (and no NUL after them)."""
    size = content if content.__class__ is int else len(content)  # type: ignore[arg-type]
    array = _arrays.get(size)
    if array is None:
        array = _arrays[size] = type("Buffer", (_ctypes.Array,), {"_type_": _Byte, "_length_": size})
    made = array()
    if content.__class__ is not int:
        made.raw = content
    return made  # type: ignore[no-any-return]


def address(memory: Buffer) -> int:
    """Where a buffer lies, for structures that hold pointers. The caller keeps the buffer alive."""
    return _ctypes.addressof(memory)  # type: ignore[arg-type]


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
    result: int = _syscall(NR[name], a, b, c, d, e, f)
    if result == -1:
        error = _ctypes.get_errno()
        raise OSError(error, posix.strerror(error), _called(name, path))
    return result


def _called(name: str, path: str | bytes | None) -> str:
    if path is None:
        return name
    return f"{name} {path.decode('utf-8', 'surrogateescape') if isinstance(path, bytes) else path}"


def words(*values: int, size: int = 8) -> bytes:
    """Unsigned integers laid side by side in the machine's order, ``size`` bytes each: 2, 4 or 8."""
    mask = (1 << 8 * size) - 1
    return pack(f"={len(values)}{_CODES[size]}", *[value & mask for value in values])
