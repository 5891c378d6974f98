"""The one function of another language: libc's syscall(2), and memory to call it with (docs/decisions/0001-ctypes.md).

``linux.libc`` loads this when it is first needed. The hot path makes do without.
"""

from __future__ import annotations

import _ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jailng.linux.libc import Buffer


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


syscall = _Function(_ctypes.dlsym(_ctypes.dlopen(None, 0), "syscall"))  # type: ignore[arg-type]  # None: this program
errno = _ctypes.get_errno
_arrays: dict[int, Any] = {}


def buffer(content: int | bytes) -> Buffer:
    """As ``linux.libc`` has it."""
    size = content if content.__class__ is int else len(content)  # type: ignore[arg-type]
    array = _arrays.get(size)
    if array is None:
        array = _arrays[size] = type("Buffer", (_ctypes.Array,), {"_type_": _Byte, "_length_": size})
    made = array()
    if content.__class__ is not int:
        made.raw = content
    return made  # type: ignore[no-any-return]


def address(memory: Buffer) -> int:
    """As ``linux.libc`` has it."""
    return _ctypes.addressof(memory)  # type: ignore[arg-type]
