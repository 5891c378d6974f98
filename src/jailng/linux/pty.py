"""Terminals: pts(4), ptmx(4), ioctl_tty(2), termios(3). The termios module is no part of the interpreter: 0.3 ms."""

from __future__ import annotations

import posix
import sys
from errno import ENODEV
from fcntl import ioctl

from jailng.linux import mount, mountfd

_TCGETS = 0x5401
_TCSETS = 0x5402
_TIOCGWINSZ = 0x5413
_TIOCSWINSZ = 0x5414
_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431
_TIOCGDEV = 0x80045432

_SIZE_OF_TERMIOS = 36
_IXON_AND_INPUT_CHANGES = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x80 | 0x100 | 0x400
_OPOST = 0x1
_PARENB = 0x100
_CS8 = 0x30
_ISIG_ICANON_ECHO_ECHONL_IEXTEN = 0x1 | 0x2 | 0x8 | 0x40 | 0x8000
_ISIG = 0x1
_VTIME, _VMIN, _VSUSP = 17 + 5, 17 + 6, 17 + 10

_OPEN = posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC
_PTMX = posix.makedev(5, 2)
_TTY = 5


def open_pair(root: int | None, base: int, named: bool = False) -> tuple[int, int]:
    """A new pty as (master, slave), the slave owned by uid ``base`` with the group ``base`` + 5, ``tty``.

    It is one of the jail whose root is the directory fd ``root``. Where that has no devpts to give one, or the jail
    has used up all that are in it, the pty comes from an instance that has no place in any tree: it works as well, but
    has no name inside, which is an error if it is to be ``named``. The master is non-blocking. Raises OSError.
    """
    master = -1
    if root is not None:
        try:
            master = _jailed_master(root)
        except OSError:
            if named:
                raise
    if master < 0:
        master = _private_master(base)
    try:
        ioctl(master, _TIOCSPTLCK, bytes(4))
        # By name the slave would be looked up in a tree that belongs to the jail.
        slave = ioctl(master, _TIOCGPTPEER, _OPEN)
        posix.fchown(slave, base, base + _TTY)
    except OSError:
        posix.close(master)
        raise
    return master, slave


def _jailed_master(root: int) -> int:
    # RESOLVE_NO_XDEV cannot lead there, since /dev is a mount, but from the file system's own root it can.
    directory = mountfd.openat2(root, b"dev/pts", mount.O_PATH | posix.O_DIRECTORY, mount.BENEATH)
    try:
        if mountfd.file_system_magic(directory) != mount.DEVPTS_SUPER_MAGIC:
            raise OSError(ENODEV, posix.strerror(ENODEV))
        return _open_master(directory)
    finally:
        posix.close(directory)


def _private_master(base: int) -> int:
    group = b"%d" % (base + _TTY)
    options = [(b"newinstance", None), (b"mode", b"620"), (b"ptmxmode", b"600"), (b"gid", group), (b"max", b"1")]
    tree = mountfd.new_file_system(b"devpts", options, mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC)
    try:
        return _open_master(tree)
    finally:
        posix.close(tree)


def _open_master(devpts: int) -> int:
    flags = _OPEN | posix.O_NONBLOCK
    master = mountfd.openat2(devpts, b"ptmx", flags, mount.BENEATH | mount.RESOLVE_NO_XDEV)
    if posix.fstat(master).st_rdev != _PTMX:
        posix.close(master)
        raise OSError(ENODEV, posix.strerror(ENODEV), b"ptmx")
    return master


def device(fd: int) -> int:
    """The terminal's device number, the real one also behind /dev/tty. Raises OSError (ENOTTY: no terminal)."""
    return int.from_bytes(ioctl(fd, _TIOCGDEV, bytes(4)), sys.byteorder)


def attributes(fd: int) -> bytes:
    """The terminal's struct termios, as the kernel lays it out. Raises OSError."""
    return ioctl(fd, _TCGETS, bytes(_SIZE_OF_TERMIOS))


def set_attributes(fd: int, termios: bytes) -> None:
    """Set them at once: what is written was processed when it was written, and draining may wait for ever."""
    ioctl(fd, _TCSETS, termios)


def raw(termios: bytes) -> bytes:
    """These attributes as cfmakeraw(3) leaves them: every byte passes, none is echoed or acted upon."""
    order = sys.byteorder
    iflag, oflag, cflag, lflag = [int.from_bytes(termios[at : at + 4], order) for at in (0, 4, 8, 12)]
    iflag &= ~_IXON_AND_INPUT_CHANGES
    oflag &= ~_OPOST
    cflag = cflag & ~_PARENB | _CS8
    lflag &= ~_ISIG_ICANON_ECHO_ECHONL_IEXTEN
    made = bytearray(b"".join([flags.to_bytes(4, order) for flags in (iflag, oflag, cflag, lflag)]) + termios[16:])
    made[_VTIME], made[_VMIN] = 0, 1
    return bytes(made)


def stops(fd: int, typed: bytes, own: bytes) -> bool:
    """Whether the terminal would stop the job in its foreground because of what is ``typed``: ^Z. Raises OSError.

    The key has to be that of the terminal, too, at which it is typed and which has the attributes ``own``: those of a
    jail's are for its root to choose, and Enter would leave whoever types at it to the host's shell.
    """
    termios = attributes(fd)
    key = termios[_VSUSP : _VSUSP + 1]
    if key != own[_VSUSP : _VSUSP + 1]:
        return False
    return bool(int.from_bytes(termios[12:16], sys.byteorder) & _ISIG) and key != b"\0" and key in typed


def copy_size(source: int, target: int) -> None:
    """Give one terminal the rows and columns of another; whoever runs there gets a SIGWINCH. Raises OSError."""
    ioctl(target, _TIOCSWINSZ, ioctl(source, _TIOCGWINSZ, bytes(8)))


def in_foreground(fd: int) -> bool:
    """Whether this process may read from the terminal and set it: it is in front, or it is not its controlling one."""
    try:
        return posix.tcgetpgrp(fd) == posix.getpgrp()
    except OSError:
        return True
