"""Lines for the host's syslog: syslog(3)."""

from __future__ import annotations

import posix
import time
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, socket

_WARNING = 3 << 3 | 4  # LOG_DAEMON and LOG_WARNING
# The second is the first with systemd, where /dev is not its own.
_LISTENERS = ("/dev/log", "/run/systemd/journal/dev-log")
_KERNEL = "/dev/kmsg"


def tell(line: str) -> None:
    """A warning by the name ``rctl``; to the kernel's own log where nobody listens, from which it is read later."""
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
    try:
        fd = posix.open(_KERNEL, posix.O_WRONLY | posix.O_CLOEXEC)
    except OSError:
        return
    try:
        posix.write(fd, b"<%d>rctl: %s" % (_WARNING, text))
    except OSError:
        pass
    finally:
        posix.close(fd)
