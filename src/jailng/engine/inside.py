"""Running a command in a jail and waiting for it, as exec.start, ``command`` and jexec(8) do."""

from __future__ import annotations

import posix
import time
from select import POLLIN, poll

from jailng.core import attach, privileges, stdio, waiting
from jailng.engine import command
from jailng.errors import JailError
from jailng.linux import cgroup, ns
from jailng.params.model import Parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.passwd import User
    from jailng.core.registry import Record

_SIGTERM = 15


def run(params: Parameters, record: Record, argv: list[str], background: bool = False) -> None:
    """Run one command of exec.start, exec.stop or ``command``. Raises JailError unless it succeeds."""
    user: str | User | None = params.text("exec.jail_user") or None
    if isinstance(user, str) and params.flag("exec.system_jail_user"):
        from jailng.core.passwd import of_the_host

        user = of_the_host(user)
    wanted = attach.Command(argv, command.inside_environment(params, record), user, "/")
    with _Output(params) as fds:
        status = attached(params, record, wanted, fds, params.number("exec.timeout"), background)
    command.judge(argv, status)


def attached(
    params: Parameters,
    record: Record,
    wanted: attach.Command,
    fds: tuple[int, int, int] = (0, 1, 2),
    timeout: int = 0,
    background: bool = False,
) -> int:
    """Enter the jail, run, relay, wait; the raw wait status. Raises JailError (could not be run; timed out)."""
    entry = attach.Entry(record, privileges.confine(params))
    try:
        root = attach.open_tree_of(record)
        try:
            streams = stdio.prepare(root, entry.base, fds)
        finally:
            posix.close(root)
        pid, pidfd = attach.jail_attach(entry, wanted, streams)
    finally:
        entry.close()
    if background:
        posix.close(pidfd)
        return 0
    try:
        status = waiting.wait(pid, pidfd, streams, timeout=timeout)
    finally:
        posix.close(pidfd)
    if status == waiting.TIMED_OUT:
        raise JailError(f"{' '.join(wanted.argv)}: timed out")
    return status


class _Output:
    """The three streams of a command: exec.consolelog takes the place of stdout and stderr."""

    __slots__ = ("fd", "path")

    def __init__(self, params: Parameters) -> None:
        self.path = params.text("exec.consolelog")
        self.fd = -1

    def __enter__(self) -> tuple[int, int, int]:
        if not self.path:
            return 0, 1, 2
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC
        self.fd = posix.open(self.path, flags, 0o600)
        return 0, self.fd, self.fd

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            posix.close(self.fd)


def terminate(record: Record, timeout: int) -> list[int]:
    """Send SIGTERM to every member and wait until they have gone, ``timeout`` seconds at most; the pids."""
    until = time.monotonic() + timeout
    try:
        pids = cgroup.members(f"{record.cgroup}/members")
    except FileNotFoundError:
        return []
    waited: list[int] = []
    for pid in pids:
        try:
            pidfd = ns.pidfd_open(pid)
            waited.append(pidfd)
            ns.pidfd_send_signal(pidfd, _SIGTERM)
        except OSError:
            continue
    for pidfd in waited:
        waiter = poll()
        waiter.register(pidfd, POLLIN)
        waiter.poll(max(1000 * (until - time.monotonic()), 0))
        posix.close(pidfd)
    return pids


def of_record(record: Record) -> Parameters:
    """The parameters of a running jail."""
    return Parameters.from_texts(record.params)
