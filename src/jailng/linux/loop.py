"""Loop devices: files as disks. loop(4); include/uapi/linux/loop.h."""

from __future__ import annotations

import fcntl
import posix
from _struct import pack, unpack_from

from jailng.linux.libc import EBUSY, ENOENT

_CONTROL = "/dev/loop-control"
_LOOP_GET_STATUS64, _LOOP_SET_CAPACITY, _LOOP_SET_DIRECT_IO, _LOOP_CONFIGURE = 0x4C05, 0x4C07, 0x4C08, 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_AUTOCLEAR = 4
_INFO_BYTES = 232
_EXT4_IOC_RESIZE_FS = 0x40086610
_TRIES = 64
_ENXIO = 6


def attach(file: int, shown: str) -> tuple[str, int]:
    """A loop device over the open file, its path and a descriptor of it.

    It is gone when nothing has it open or mounted any more (LO_FLAGS_AUTOCLEAR), and holds ``file``, with the locks on
    it, until then. Raises OSError.
    """
    control = posix.open(_CONTROL, posix.O_RDWR | posix.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = posix.open(path, posix.O_RDWR | posix.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, _configuration(file, shown))
            except OSError as error:
                posix.close(device)
                if error.errno != EBUSY:  # somebody else was faster
                    raise OSError(error.errno, error.strerror, path) from None
                continue
            return path, device
    finally:
        posix.close(control)
    raise OSError(EBUSY, posix.strerror(EBUSY), _CONTROL)


def _configuration(file: int, shown: str) -> bytes:
    """struct loop_config."""
    name = shown.encode("utf-8", "surrogateescape")[:63]
    info = pack("5Q4I64s64s32s2Q", 0, 0, 0, 0, 0, 0, 0, 0, _LO_FLAGS_AUTOCLEAR, name, b"", b"", 0, 0)
    return pack("II", file, 0) + info + bytes(64)


def over(file: int) -> str:
    """The path of a loop device that lies over the same file already, or "". Raises OSError."""
    status = posix.fstat(file)
    device = _encoded(status.st_dev)
    for name in posix.listdir("/sys/block"):
        if name.startswith("loop") and _status(f"/dev/{name}") == (device, status.st_ino):
            return f"/dev/{name}"
    return ""


def _encoded(device: int) -> int:
    """new_encode_dev()."""
    major, minor = posix.major(device), posix.minor(device)
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def _status(path: str) -> tuple[int, int] | None:
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        if error.errno in (ENOENT, _ENXIO):
            return None
        raise
    info = bytearray(_INFO_BYTES)
    try:
        fcntl.ioctl(fd, _LOOP_GET_STATUS64, info)
    except OSError as error:
        if error.errno != _ENXIO:  # it lies over nothing
            raise
        return None
    finally:
        posix.close(fd)
    device, inode = unpack_from("2Q", info)
    return device, inode


def go_direct(device: int) -> None:
    """Have the loop device go past the page cache from now on, where it can, so that nothing is kept twice.

    Not from the start: a mount reads here and there, of which the cache has much from the last time.
    """
    try:
        fcntl.ioctl(device, _LOOP_SET_DIRECT_IO, 1)
    except OSError:
        pass


def grown(device: int) -> None:
    """Have the loop device be as large as its file is by now. Raises OSError."""
    fcntl.ioctl(device, _LOOP_SET_CAPACITY)


def resize_ext4(root: int, blocks: int) -> None:
    """Have the mounted ext4 of which ``root`` is a directory hold that many blocks. Raises OSError.

    EPERM: it takes CAP_SYS_RESOURCE.
    """
    fcntl.ioctl(root, _EXT4_IOC_RESIZE_FS, pack("Q", blocks))
