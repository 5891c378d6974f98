"""Take all there is of everything the kernel counts by user.

Prints a JSON object of how many of each kind it got and what ended it, and holds on to all until standard input ends.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import struct
import sys
from collections.abc import Callable

from jailng.audit.probe import call

_MQ_OPEN, _RT_SIGQUEUEINFO, _IO_SETUP, _TIMER_CREATE, _ADD_KEY = 240, 129, 206, 222, 248
_SI_QUEUE = -1
_BOUND = 200_000  # of anything that has no end
_held: list[object] = []


def _inotify() -> object:
    return call(294, os.O_CLOEXEC)


def _watches() -> object:
    """epoll(7) counts what a user watches."""
    if not _held or not isinstance(_held[-1], select.epoll):
        _held.append(select.epoll())
    reading, writing = os.pipe()
    os.close(writing)
    last = _held[-1]
    assert isinstance(last, select.epoll)
    last.register(reading)
    return reading


def _queues() -> object:
    """Queues of the default size, until they are too many or RLIMIT_MSGQUEUE ends it."""
    _queues.number += 1  # type: ignore[attr-defined]
    return call(_MQ_OPEN, f"exhaust-{_queues.number}".encode(), os.O_CREAT | os.O_RDWR, 0o600, None)  # type: ignore[attr-defined]


_queues.number = 0  # type: ignore[attr-defined]


def _signals() -> object:
    """Real-time signals to itself, which wait."""
    information = struct.pack("=iii", 40, 0, _SI_QUEUE) + bytes(116)
    return call(_RT_SIGQUEUEINFO, os.getpid(), 40, information)


def _timers() -> object:
    """POSIX timers, each of which reserves a signal."""
    return call(_TIMER_CREATE, 0, None, ctypes.create_string_buffer(8))


def _keys() -> object:
    _keys.number += 1  # type: ignore[attr-defined]
    return call(_ADD_KEY, b"user", f"exhaust-{_keys.number}".encode(), b"x", 1, -2)  # type: ignore[attr-defined]


_keys.number = 0  # type: ignore[attr-defined]


def _terminals() -> object:
    return os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)


def _files() -> object:
    return os.open("/dev/null", os.O_RDONLY)


def _pipes() -> object:
    """As much memory in pipes as there may be."""
    import fcntl

    reading, writing = os.pipe()
    fcntl.fcntl(writing, 1031, 1 << 20)  # F_SETPIPE_SZ
    return reading, writing


def _requests() -> object:
    """Asynchronous input and output: fs.aio-max-nr is one number for the whole machine."""
    memory = ctypes.create_string_buffer(8)
    return call(_IO_SETUP, 1024, memory)


KINDS: dict[str, Callable[[], object]] = {
    "inotify instances": _inotify,
    "epoll watches": _watches,
    "message queues": _queues,
    "pending signals": _signals,
    "timers": _timers,
    "keys": _keys,
    "pseudo-terminals": _terminals,
    "pipe memory": _pipes,
    "asynchronous requests": _requests,
    "open files": _files,
}


def exhaust(kind: str) -> tuple[int, str]:
    """How many there were to be had, and what the kernel said then."""
    take = KINDS[kind]
    for count in range(_BOUND):
        try:
            _held.append(take())
        except OSError as error:
            return count, errno.errorcode[error.errno or 0]
    return _BOUND, "no end"


def _start(kind: str) -> int:
    """A process for each kind, so that the descriptors which one takes are not missing for another."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, json.dumps(exhaust(kind)).encode())
        os.close(writing)
        while True:
            signal.pause()
    os.close(writing)
    return reading


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, range(32, 64))
    kinds = sys.argv[1:] or list(KINDS)
    told = {}
    for kind, reading in {kind: _start(kind) for kind in kinds}.items():
        told[kind] = json.loads(os.read(reading, 4096))
    print(json.dumps(told), flush=True)
    sys.stdin.read()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
