"""Processes that move a tree, each confined to one end of the way, with a pipe between them, and who waits for them.

Whatever is at one end cannot harm the other. A process for the host's side has a directory for its root and five
capabilities; one for a jail's side is in the jail, as what jexec(8) starts is, and has no more than these there.
Neither can load a module any more, and nobody may look into either. What comes from the pipe is believed by nobody.
"""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import resource
import select
import signal
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from jailng.core import attach, lookup, privileges
from jailng.core.registry import Record
from jailng.ctl.tarin import Refused
from jailng.ctl.told import Excess, Told
from jailng.errors import JailError
from jailng.linux import child, ns
from jailng.params.model import Parameters
from jailng.params.values import visible

# CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SETFCAP
_CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 31
_MEMORY = 1 << 30  # bytes of address space: an archive that takes more to be read is none
PATIENCE = 60  # seconds without a sign of life
_STOPS = 5  # times that one is found stopped
_SHOWN = 20  # files of which a command tells one by one
_LINE = 1 << 16
_PIECE = 1 << 16
BUFFER = 1 << 18
_PIPE_SIZE = 1 << 20
_F_SETPIPE_SZ = 1031


@dataclass
class Carrier:
    """A process that moves something: its side is how messages name it."""

    side: str
    jailed: bool
    pid: int
    pidfd: int
    heard: int
    rest: bytes = b""
    over: bool = False
    ended: str = ""
    consequence: str = ""
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    last: float = 0.0
    stops: int = 0

    def hear(self) -> None:
        """Take in what it has said. What is not understood is not believed."""
        data = os.read(self.heard, _LINE)
        self.last = time.monotonic()
        if not data:
            self.over = True
            return
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()[:_LINE]
        for line in lines:
            with suppress(ValueError, TypeError, AttributeError, RecursionError, OverflowError):
                for word, value in json.loads(line or b"{}").items():
                    self._take(word, value)

    def _take(self, word: str, value: object) -> None:
        if word == "done" and isinstance(value, dict):
            self.counts = {str(key): int(number) for key, number in value.items()}
            self.counts.setdefault("done", 1)
        elif word in ("ended", "consequence"):
            setattr(self, word, str(value))
        elif word in ("failed", "skipped") and len(getattr(self, word)) < 1000:
            getattr(self, word).append(str(value))

    @property
    def done(self) -> bool:
        """Whether it has come to its end."""
        return "done" in self.counts and not self.ended and not self.consequence


def on_host(side: str, run: Callable[[Told], None], keep: tuple[int, ...], top: int) -> Carrier:
    """A process that has the directory ``top`` for its root; of descriptors it has ``keep`` and that one."""

    def confine() -> None:
        ns.unshare(ns.CLONE_NEWNS | ns.CLONE_NEWNET | ns.CLONE_NEWIPC)
        os.fchdir(top)
        os.chroot(".")

    _load()
    heard, say = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = child.clone3()
    if pid == 0:
        _be(run, say, (*keep, top), confine)
    os.close(say)
    return Carrier(side, False, pid, pidfd, heard, last=time.monotonic())


def _load() -> None:
    """What a process needs of Python's once it can load nothing any more."""
    for name in ("utf-8", "ascii", "iso8859-1"):
        codecs.lookup(name)


def in_jail(record: Record, run: Callable[[Told], None], keep: tuple[int, ...]) -> Carrier:
    """A process in a jail, of which it is a member as any other. Raises JailError."""
    params = Parameters.from_texts(record.params)
    entry = attach.Entry(record, privileges.confine(params, record.joined))
    _load()
    heard, say = os.pipe2(os.O_CLOEXEC)

    def confine() -> None:
        ns.setns(entry.init, attach.JOINED)
        child.set_ids(0, 0, [])
        os.close(entry.init)

    def life() -> None:
        _be(run, say, (*keep, entry.init), confine)

    try:
        pid, pidfd = lookup.born(entry, life)
    except OSError as error:
        raise JailError(f"{visible(record.name)}: {error.strerror}") from None
    finally:
        os.close(say)
        entry.close()
    return Carrier(visible(record.name), True, pid, pidfd, heard, last=time.monotonic())


def _be(run: Callable[[Told], None], say: int, keep: tuple[int, ...], confine: Callable[[], None]) -> NoReturn:
    """The process's whole life."""
    told = Told(say)
    try:
        _let_go(say, keep)
        confine()
        child.capset(_CAPABILITIES)
        child.set_dumpable(False)
        child.die_with_parent(signal.SIGKILL)
        run(told)
        told.done()
    except BrokenPipeError:
        told.ended("nobody takes it", consequence=True)
    except (Refused, Excess) as error:
        told.ended(str(error))
    except (tarfile.TarError, EOFError) as error:
        told.ended(f"not a whole archive: {error}", consequence=True)
    except OSError as error:
        named = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        told.ended(f"{named}{error.strerror or error}")
    except MemoryError:
        told.ended("takes more memory than there is for it")
    except BaseException as error:
        told.ended(f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _let_go(say: int, keep: tuple[int, ...]) -> None:
    """Of all that a Python has of the host's, but for what it holds in memory."""
    sys.path[:] = []  # in a jail what is there is the jail's
    sys.meta_path[:] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.setsid()
    os.umask(0o022)
    first = 0
    for fd in sorted({say, *keep}):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, 1 << 20)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    take_little()


def take_little() -> None:
    """This process has so much memory and no more, or what its caller has left it."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = _MEMORY if hard == resource.RLIM_INFINITY else min(_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def pipe() -> tuple[int, int]:
    """Both ends of a wide pipe."""
    ends = os.pipe2(os.O_CLOEXEC)
    with suppress(OSError):
        fcntl.fcntl(ends[0], _F_SETPIPE_SZ, _PIPE_SIZE)
    return ends


class Pump:
    """Copies one of the caller's streams from or to a pipe, in a thread; ``outside``: it waits for the caller's."""

    def __init__(self, source: int, to: int, outside_is_source: bool, first: bytes = b"") -> None:
        self.outside = False
        self._first = first  # what has been read of it already
        self.error: OSError | None = None
        self._source, self._to, self._outside_is_source = source, to, outside_is_source
        self._thread = threading.Thread(target=self._copy, daemon=True)

    def start(self) -> None:
        """Begin; the pipe's end is closed when all is copied."""
        self._thread.start()

    def _copy(self) -> None:
        try:
            while True:
                self.outside = self._outside_is_source
                data = self._first or os.read(self._source, _PIECE)
                self._first = b""
                self.outside = not self._outside_is_source
                if not data:
                    return
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._to, rest) :]
        except OSError as error:
            self.error = error
        finally:
            self.outside = False
            os.close(self._to if self._outside_is_source else self._source)

    def join(self) -> None:
        """Wait for the end of what is being copied out."""
        self._thread.join()


def wait(carriers: list[Carrier], pump: Pump | None = None) -> None:
    """Until all have ended, or one gives no sign of life for too long. Raises JailError for what went wrong.

    None of them is left, but for one that the kernel does not let end yet.
    """
    try:
        waiter = select.poll()
        for one in carriers:
            waiter.register(one.heard, select.POLLIN)
        while left := [one for one in carriers if not one.over]:
            ready = [fd for fd, _ in waiter.poll(1000)]
            for one in left:
                if one.heard in ready:
                    one.hear()
                    if one.over:
                        waiter.unregister(one.heard)
            if any(one.jailed for one in carriers):  # else nobody is an enemy, and a slow disk may be slow
                _check(left, pump)
    finally:
        stop(carriers)
    for one in carriers:
        if one.ended:
            raise JailError(f"{one.side}: {visible(one.ended)}")
    for one in carriers:
        if not one.done:
            raise JailError(f"{one.side}: {visible(one.consequence) or 'was killed'}")


def wait_out(carriers: list[Carrier], pump: Pump, what: str) -> None:
    """``wait`` of what is copied out to what the caller calls ``what``. Raises JailError."""
    try:
        wait(carriers, pump)
    except JailError:
        if pump.error is None or isinstance(pump.error, BrokenPipeError):
            raise
    pump.join()
    if pump.error is not None:
        raise JailError(f"{what}: {pump.error.strerror}")


def stop(carriers: list[Carrier]) -> None:
    """End them."""
    for one in carriers:
        _end(one)


def _check(left: list[Carrier], pump: Pump | None) -> None:
    now = time.monotonic()
    for one in left:
        if one.jailed and _is_stopped(one):
            _let_go_on(one)
    if pump is not None and pump.outside:
        for one in left:
            one.last = now
    stopped = [one for one in left if now - one.last > PATIENCE]
    if stopped and len(stopped) == len(left):
        first = next((one for one in stopped if one.jailed), stopped[0])
        raise JailError(f"{first.side}: nothing has moved for {PATIENCE} seconds")


def _is_stopped(one: Carrier) -> bool:
    try:
        return os.waitid(os.P_PID, one.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False  # it has ended


def _let_go_on(one: Carrier) -> None:
    """Root of its jail has stopped it, and could have it take as long as he likes. Raises JailError."""
    one.stops += 1
    if one.stops > _STOPS:
        raise JailError(f"{one.side}: is stopped by its root, again and again")
    signal.pidfd_send_signal(one.pidfd, signal.SIGCONT)


def _end(one: Carrier) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(one.pidfd, signal.SIGKILL)
    if ns.ends_within(one.pidfd, 2):
        os.waitpid(one.pid, 0)
    os.close(one.pidfd)
    os.close(one.heard)


def report(verb: str, carriers: list[Carrier]) -> int:
    """Say what was left behind: 1 if anything was that should not have been."""
    for one in carriers:
        for text in [*one.failed[:_SHOWN], *[f"{text}, left out" for text in one.skipped[:_SHOWN]]]:
            print(f"jailctl: {verb}: {one.side}: {visible(text)}", file=sys.stderr)
        for word, what in (("failed", "could not be copied"), ("skipped", "were left out")):
            more = one.counts.get(word, 0) - _SHOWN
            if more > 0:
                print(f"jailctl: {verb}: {one.side}: and {more} more {what}", file=sys.stderr)
        if dropped := one.counts.get("dropped", 0):
            files = "one file" if dropped == 1 else f"{dropped} files"
            print(f"jailctl: {verb}: {one.side}: set-user-ID or set-group-ID of {files} left out", file=sys.stderr)
    return int(any(one.counts.get("failed", 0) for one in carriers))
