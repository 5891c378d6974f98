"""The command for which a jail is made, brought as far as it can come while the jail's tree is not there yet."""

from __future__ import annotations

import posix

from jailng import start
from jailng.core import attach, stdio
from jailng.engine import command
from jailng.errors import JailError
from jailng.linux import ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.confinement import Confinement
    from jailng.core.program import Running
    from jailng.core.registry import Record
    from jailng.core.stdio import Streams
    from jailng.params.model import Parameters


class Ready:
    """A command that has come as far as it can while its jail's tree is being made: it waits to be told to enter."""

    __slots__ = ("_gate", "_running", "_streams")

    def __init__(self, gate: int, running: Running, streams: Streams) -> None:
        self._gate = gate
        self._running = running
        self._streams = streams

    def run(self) -> int:
        """Have it enter, relay, wait; the raw wait status. Raises JailError."""
        try:
            posix.write(self._gate, b"\0")
        except BrokenPipeError:
            pass  # another command has removed the jail, and it has been killed with that
        finally:
            posix.close(self._gate)
        # For the wait and the jail's end, while this process has nothing else to do.
        start.load_rest()
        import select  # noqa: F401

        from jailng.core import waiting

        self._running.forked()
        self._running.arrived()
        pid = self._running.pid
        pidfd = ns.pidfd_open(pid)
        try:
            return waiting.wait(pid, pidfd, self._streams)
        finally:
            posix.close(pidfd)

    def close(self) -> None:
        """Let go of it; it has not entered, and ends."""
        posix.close(self._gate)
        self._streams.close()
        try:
            self._running.forked()
            self._running.arrived()
        except JailError:
            return
        posix.waitpid(self._running.pid, 0)


def prepare(
    params: Parameters, record: Record, names: dict[str, str], argv: list[str], confinement: Confinement
) -> Ready | None:
    """The command of a jail whose PID 1 is there and whose tree is not, or None where it cannot begin without.

    Raises JailError.
    """
    fds = (0, 1, 2)
    if params.given("exec.jail_user") or params.text("exec.consolelog"):
        return None
    if not all(_is_callers(fd) for fd in fds) or stdio.needs_tree(fds):
        return None
    clean = params.flag("exec.clean")
    environment = command.inside_environment(params, names)
    wanted = attach.Command(argv, environment, None, None if clean else "/", clean, label="exec {}")
    entry = attach.Entry(record, confinement)
    waited, gate = posix.pipe2(posix.O_CLOEXEC)
    try:
        streams = stdio.prepare(stdio.NEWBORN, entry.base, fds)
        return Ready(gate, attach.launch(entry, wanted, None, streams, waited), streams)
    finally:
        posix.close(waited)
        entry.close()


def _is_callers(fd: int) -> bool:
    """Whether a standard stream is one, and not what this process has opened because it was closed."""
    try:
        return posix.get_inheritable(fd)
    except OSError:
        return False
