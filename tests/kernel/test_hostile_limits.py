"""Root inside takes all there is of everything; root of the host can still use each."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel import hostile
from tests.kernel.conftest import Command
from tests.kernel.stage import Stage

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
# What ends it: the user's share. Anything else is not exhausted, and shows nothing.
ENDS = {
    "inotify instances": "EMFILE",
    "message queues": "EMFILE",
    "pending signals": "EAGAIN",
    "timers": "EAGAIN",
    "keys": "EPERM",
    "pseudo-terminals": "ENOSPC",
    "pipe memory": "EPERM",
    "asynchronous requests": "ENOSYS",
    "open files": "EMFILE",
}


def _call(number: int, *words: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    result: int = _libc.syscall(number, *[ctypes.c_long(word) if isinstance(word, int) else word for word in words])
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _many_files() -> None:
    """In the child: more descriptors than there are terminals, which systemd does not give to what it starts."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(20000, hard), hard))


def _use_inotify() -> None:
    os.close(_call(294, 0))


def _use_queues() -> None:
    os.close(_call(240, b"of-the-host", os.O_CREAT | os.O_RDWR, 0o600, None))
    _call(241, b"of-the-host")


def _use_signals() -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {40})
    _call(129, os.getpid(), 40, struct.pack("=iii", 40, 0, -1) + bytes(116))
    signal.sigwait({40})
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _use_timers() -> None:
    timer = ctypes.create_string_buffer(8)
    _call(222, 0, None, timer)
    _call(226, int.from_bytes(timer.raw[:4], "little"))


def _use_keys() -> None:
    _call(250, 21, _call(248, b"user", b"of-the-host", b"x", 1, -2))


def _use_terminals() -> None:
    for fd in os.openpty():
        os.close(fd)


def _use_pipes() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, 1031, 1 << 20)
    os.close(reading)
    os.close(writing)


def _use_requests() -> None:
    context = ctypes.create_string_buffer(8)
    _call(206, 128, context)
    _call(207, int.from_bytes(context.raw, "little"))


def _use_files() -> None:
    for fd in [os.open("/dev/null", os.O_RDONLY) for _ in range(500)]:
        os.close(fd)


HOST: dict[str, Callable[[], None]] = {
    "inotify instances": _use_inotify,
    "message queues": _use_queues,
    "pending signals": _use_signals,
    "timers": _use_timers,
    "keys": _use_keys,
    "pseudo-terminals": _use_terminals,
    "pipe memory": _use_pipes,
    "asynchronous requests": _use_requests,
    "open files": _use_files,
}


@pytest.fixture(scope="module")
def hostile_root(request: pytest.FixtureRequest, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the attempts are made; its content is a hostile root's, and no test may rely on it."""
    return hostile.prepare(request, stage, tmp_path_factory)


@pytest.fixture(scope="module", params=["private", "shared"])
def exhausted(
    request: pytest.FixtureRequest, jail: Command, checkout: Path, hostile_root: Path
) -> Iterator[dict[str, tuple[int, str]]]:
    """A jail that has everything; how many of each, and how the kernel put an end to it."""
    parameters = ["persist", f"path={hostile_root}", f"ng.uids={request.param}"]
    made = jail("-c", "name=exhausted", *parameters)
    assert made.returncode == 0, made.stderr
    argv = [str(checkout / "bin/jexec"), "exhausted", *hostile.program("probes.exhaust")]
    holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=_many_files)
    assert holder.stdout is not None
    try:
        yield json.loads(holder.stdout.readline())
    finally:
        removed = jail("-R", "exhausted")
        holder.communicate()
    assert removed.returncode == 0, removed.stderr


@pytest.mark.parametrize("kind", HOST)
def test_the_host_can_still_use(exhausted: dict[str, tuple[int, str]], kind: str) -> None:
    """What a jail takes is counted to the jail's first uid, never to root."""
    count, end = exhausted[kind]
    assert end == ENDS[kind] and (count > 0 or end in ("EPERM", "ENOSYS")), f"{count} taken, then {end}"
    HOST[kind]()
