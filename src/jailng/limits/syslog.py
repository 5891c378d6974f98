"""Lines for the host's syslog: syslog(3)."""

from __future__ import annotations

import posix
import time
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, socket

_WARNING = 3 << 3 | 4  # LOG_DAEMON and LOG_WARNING
# The second is the first with systemd, where /dev is not its own.
_LISTENERS = ("/dev/log", "/run/systemd/journal/dev-log")
_KERNEL = "/dev/kmsg"
_kernel: list[int] = []  # a descriptor of the kernel's log, if there is one


def open_kernel() -> None:
    """Have the kernel's log open, for a process that will live where no device of the host's can be opened."""
    try:
        _kernel.append(posix.open(_KERNEL, posix.O_WRONLY | posix.O_CLOEXEC))
    except OSError:
        pass


def move_kernel(fd: int) -> int:
    """Have the kernel's log, if it is open, at that descriptor; the first that is free for others from there on."""
    if not _kernel:
        return fd
    posix.dup2(_kernel[0], fd, False)
    _kernel[:] = [fd]
    return fd + 1


def tell(line: str) -> None:
    """A warning by the name ``rctl``; to the kernel's log, if that is open, where nobody listens."""
    text = line.encode("utf-8", "surrogateescape")
    for address in _LISTENERS:
        sending = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
        try:
            sending.connect(address)
            sending.send(b"<%d>%s rctl: %s" % (_WARNING, time.strftime("%b %e %H:%M:%S").encode(), text))
            return
        except OSError:
            continue
        finally:
            sending.close()
    for fd in _kernel:
        try:
            posix.write(fd, b"<%d>rctl: %s" % (_WARNING, text))
        except OSError:
            pass
