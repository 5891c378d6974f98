"""A post's processes: a supervisor, which holds what must outlive a crash, and a worker, which does the work.

A kind of post is a module with two functions. ``hold(record)`` makes, in the supervisor, what a worker finds again when
the one before it has died: maps and rings of the kernel, listening sockets. It raises JailError or OSError where there
can be no such post. ``work(duty, held)`` is the worker: it calls ``duty.ready()`` once nothing of the jail escapes it,
goes on until the jail has ended or ``duty.refresh()`` says that it is no longer wanted, finishes what it has, and
returns. Where it dies of anything else there is another at once, which is told that there was a gap (``duty.again``).
"""

from __future__ import annotations

import importlib
import os
import resource
import select
import signal
import time

from jailng.core import beside, registry
from jailng.errors import JailError, explain
from jailng.limits import syslog
from jailng.linux import child, ns
from jailng.observe import posts
from jailng.params import log, watch  # noqa: F401  # for ``posts.wanted`` of a worker
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from jailng.core.registry import Record

    class Kind(Protocol):
        """A module that is a kind of post."""

        def hold(self, record: Record) -> object:
            """In the supervisor."""

        def work(self, duty: Duty, held: object) -> None:
            """In a worker."""


# Of each kind of posts.KINDS.
_MODULES = {"tty": "jailng.observe.terminals", "packets": "jailng.observe.capture", "log": "jailng.observe.logger"}
_READY = signal.SIGUSR1  # from a worker to its supervisor
_SIGNALS = {signal.SIGHUP, signal.SIGCHLD, signal.SIGTERM, _READY}
_SHORT, _PAUSE = 1.0, 2.0  # seconds: a worker that has lived no longer is followed by the next only after a pause
_LAST = 3  # workers that may die after the jail has ended, or the post was told to end


class Duty:
    """What a worker has to do: for which jail, and until when.

    ``init``: a pidfd of the jail's PID 1, readable when the jail has ended. ``bell``: readable when the jail's record
    may have changed, or when this post is to end. ``again``: another worker or post was here before, in this jail's
    life, and died.
    """

    __slots__ = ("_tells", "again", "bell", "ending", "init", "kind", "record")

    def __init__(self, record: Record, kind: str, init: int, bell: int, again: bool, tells: int) -> None:
        self.record = record
        self.kind = kind
        self.init = init
        self.bell = bell
        self.again = again
        self.ending = False
        self._tells = tells

    def ready(self) -> None:
        """Nothing of the jail escapes this post from now on: whoever waits for that may go on."""
        if self.awaited:
            # The supervisor first: killed after whoever waits has heard it, this worker is followed by another.
            os.kill(os.getppid(), _READY)
            os.write(self._tells, b"ready")
            self.close()

    @property
    def awaited(self) -> bool:
        """Whether it still has to say that it is ready."""
        return self._tells >= 0

    def close(self) -> None:
        """It has been said."""
        if self.awaited:
            os.close(self._tells)
            self._tells = -1

    def refuse(self, why: str) -> None:
        """Whoever waits is told why there can be no such post, if somebody does."""
        if self.awaited:
            os.write(self._tells, why.encode("utf-8", "surrogateescape")[:4000])

    def refresh(self) -> bool:
        """Take note of the bell, and read the record afresh; whether the jail's parameters still ask for this post."""
        try:
            while os.read(self.bell, 4096):
                pass
        except BlockingIOError:
            pass
        record = registry.load(self.record.jid)
        if record is None or record.init != self.record.init:
            return False
        self.record = record
        return not self.ending and self.kind in posts.wanted(record)

    def renew(self) -> None:
        """Go by the record as it is now, as the worker before did, as far as it still asks for this post."""
        record = registry.load(self.record.jid)
        if record is not None and record.init == self.record.init and self.kind in posts.wanted(record):
            self.record = record

    def ended(self) -> bool:
        """Whether the jail has."""
        return ns.ends_within(self.init, 0)


class Supervisor:
    """The process that is the post, as the jail's record names it."""

    def __init__(self, duty: Duty, module: Kind, held: object, ring: int) -> None:
        self.duty = duty
        self.module = module
        self.held = held
        self._ring = ring  # the other end of the bell
        self._worker = 0
        self._born = 0.0
        self._after = 0

    def serve(self) -> None:
        """Until a worker has done its work."""
        self._fork()
        while True:
            number = signal.sigwaitinfo(_SIGNALS).si_signo
            if number == _READY:
                self.duty.close()
            elif number != signal.SIGCHLD:
                self.duty.ending |= number == signal.SIGTERM  # for the next worker, too, if this one is dead already
                os.kill(self._worker, number)
            else:
                pid, status = os.waitpid(self._worker, os.WNOHANG)
                if pid and (status == 0 or not self._follow(status)):
                    return

    def _follow(self, status: int) -> bool:
        """Have another worker after one that has died; False where there is no use in it."""
        duty = self.duty
        if duty.awaited:  # it has said why it could not begin
            return False
        syslog.tell(f"jail {visible(duty.record.name)}: {duty.kind}: process {self._worker} has died ({status})")
        if duty.ending or duty.ended():
            self._after += 1
            if self._after > _LAST:
                return False
        elif time.monotonic() - self._born < _SHORT:
            ns.ends_within(duty.init, _PAUSE)
        duty.again = True
        self._fork()
        return True

    def _fork(self) -> None:
        self._born = time.monotonic()
        parent = os.getpid()
        self._worker = os.fork()
        if self._worker == 0:
            status = 1
            try:
                child.die_with_parent(signal.SIGKILL)
                if os.getppid() == parent:
                    self._work()
                    status = 0
            finally:
                os._exit(status)

    def _work(self) -> None:
        duty = self.duty
        signal.set_wakeup_fd(self._ring, warn_on_full_buffer=False)
        signal.signal(signal.SIGHUP, lambda *_: None)
        signal.signal(signal.SIGTERM, self._term)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        try:
            if duty.again:
                duty.renew()
            self.module.work(duty, self.held)
        except Exception as error:  # nobody else would ever hear of it
            duty.refuse(explain(error))
            syslog.tell(f"jail {visible(duty.record.name)}: {duty.kind}: {visible(explain(error))}")
            raise

    def _term(self, *_: object) -> None:
        self.duty.ending = True


def main(jid: int, pid: int, inode: int, kind: int, tells: int, again: int) -> None:
    """Be the post of that kind (its place in posts.KINDS) for the jail that has this PID 1. Does not return.

    ``tells`` is where to say that it is ready, or why it cannot be.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    os.set_inheritable(tells, False)
    beside.shed()
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    name = list(posts.KINDS)[kind]
    init = -1
    before = ""
    try:
        record = beside.named(jid, lambda record: record.posts.get(name, ""))
        init = os.pidfd_open(pid)
        if record is None or record.init != f"{pid} {inode}" or os.fstat(init).st_ino != inode:
            raise ProcessLookupError
        syslog.open_kernel()
        before = beside.enter()
        module: Kind = importlib.import_module(_MODULES[name])
        bell, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        duty = Duty(record, name, init, bell, bool(again), tells)
        try:
            held = module.hold(record)
        except (JailError, OSError) as error:
            duty.refuse(explain(error))
        else:
            Supervisor(duty, module, held, ring).serve()
    except ProcessLookupError:
        pass  # the jail has ended
    except Exception as error:
        syslog.tell(f"jail {jid}: {name}: {visible(explain(error))}")
    if before:
        beside.leave(before)
    os._exit(0)


def readable(*fds: int, seconds: float | None = None) -> list[int]:
    """Those that can be read from, or whose other end is gone, when one can; none after so many seconds."""
    waiter = select.poll()
    for fd in fds:
        waiter.register(fd, select.POLLIN)
    return [fd for fd, _ in waiter.poll(None if seconds is None else 1000 * max(seconds, 0))]
