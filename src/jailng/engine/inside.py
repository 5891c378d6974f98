"""Running a command in a jail and waiting for it, as exec.start, ``command`` and jexec(8) do."""

from __future__ import annotations

import posix

from jailng.core import attach, privileges, registry, stdio, waiting
from jailng.engine import command
from jailng.errors import UNREACHED, JailError, explain
from jailng.linux import cgroup, ns, processid
from jailng.linux.libc import ESRCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.passwd import User
    from jailng.core.registry import Record
    from jailng.core.stdio import Streams
    from jailng.params.model import Parameters

_SIGKILL, _SIGTERM = 9, 15
_FLAGS, _PENDING = 6, 28  # of /proc/PID/stat, behind the name
_PF_EXITING = 4
AT_ONCE = 32  # so many processes of a jail are waited for together
# What a root by ``jailctl bootstrap`` has for those, as FreeBSD's Handbook calls them in its jail.conf.
_SHIMS = "/usr/lib/jailng/shims"
_SHIMMED = ("/sbin/ifconfig", "/sbin/route", "/sbin/sysctl", "ifconfig", "route", "sysctl")


def run(
    params: Parameters,
    running: Parameters,
    record: Record,
    names: dict[str, str],
    argv: list[str],
    background: bool = False,
) -> None:
    """Run one command of exec.start, exec.stop or ``command``, in a jail of the parameters ``running``, and wait.

    Raises JailError unless it succeeds.
    """
    command.judge(" ".join(argv), _run(params, running, record, names, argv, background))


def _run(
    params: Parameters, running: Parameters, record: Record, names: dict[str, str], argv: list[str], background: bool
) -> int:
    user: str | User | None = command.user_of(params, "exec.jail_user") or None
    if isinstance(user, str) and params.flag("exec.system_jail_user"):
        from jailng.core.passwd import of_the_host_inside

        user = of_the_host_inside(user)
    clean = params.flag("exec.clean")
    environment = command.inside_environment(params, names)
    instead = f"{_SHIMS}/{argv[0].rpartition('/')[2]}" if argv[0] in _SHIMMED else ""
    where = None if clean else "/"
    wanted = attach.Command(argv, environment, user, where, clean, background, "exec {}", instead=instead)
    with _Output(params, record) as fds:
        return attached(running, record, wanted, fds)


class Attended:
    """A command in the jail with a process that attends to it (streams, signals), so that this one need not.

    It can be left to itself, and several can run at once.
    """

    __slots__ = ("_line", "_pid", "_pidfd", "_said")

    def __init__(self) -> None:
        self._line = ""
        self._pid = self._pidfd = self._said = -1

    def begin(
        self, params: Parameters, running: Parameters, record: Record, names: dict[str, str], argv: list[str]
    ) -> command.Wait:
        """Start it; it has the time of exec.timeout. Raises OSError."""
        seconds = params.number("exec.timeout")
        return self.attend(" ".join(argv), lambda: _run(params, running, record, names, argv, False), seconds)

    def attend(self, line: str, work: Callable[[], int], seconds: int) -> command.Wait:
        """Have a process do that ``work``, which returns a wait status. Raises OSError."""
        from jailng.linux import child

        self._line = line
        self._said, say = posix.pipe2(posix.O_CLOEXEC)
        self._pid, self._pidfd = child.clone3()
        if self._pid == 0:
            registry.forked()
            try:
                _let_go_of_terminal()
                waiting.finish(work())
            except (JailError, OSError) as error:
                posix.write(say, explain(error).encode("utf-8", "surrogateescape"))
            finally:
                posix._exit(1)
        posix.close(say)
        return command.Wait([self._pidfd], seconds)

    def end(self, timed_out: bool) -> None:
        """It has ended, or had its time, and is then left to itself. Raises JailError unless it succeeded."""
        try:
            if timed_out:
                raise JailError(f"{self._line}: timed out")
            _, status = posix.waitpid(self._pid, 0)
            complaint = posix.read(self._said, 4096)
            if complaint:
                raise JailError(complaint.decode("utf-8", "surrogateescape"))
            command.judge(self._line, status)
        finally:
            posix.close(self._pidfd)
            posix.close(self._said)


def _let_go_of_terminal() -> None:
    """Have a null device in place of a terminal for stdin.

    The three streams are then no terminal of the jail's, for which the caller's would be in raw mode: of several that
    take it over at once, the last gives it back as it was not, and one that is left to itself never does.
    """
    if posix.isatty(0):
        waiting.give_up([0])


def attached(
    params: Parameters,
    record: Record,
    wanted: attach.Command,
    fds: tuple[int, int, int] = (0, 1, 2),
    hand_over: bool = False,
    root: str = "",
) -> int:
    """Enter the jail, run, relay, wait; the raw wait status. Raises JailError.

    ``root`` is a directory of the host's to be its root instead of the jail's (core/view.py).
    ``hand_over``: this process has no further use for ``fds`` (core/waiting.py).
    """
    if record.remote:
        from jailng.core import nested

        if root:
            raise JailError("only the host gives a jail's process another root")
        return nested.attach(record, wanted, fds, hand_over)
    if record.params.get("children.max", "0") != "0":
        from jailng.engine import broker

        broker.revive(record)
    if record.warden or _is_watched(record.params.get("ng.limits", "")):
        from jailng.limits import standing

        standing.look_after(record)
    if record.halted:
        from jailng.core import halt

        halt.look_after(record)
    if record.posts or record.params.get("ng.watch") or record.params.get("ng.log"):
        from jailng.observe import posts

        posts.look_after(record)
    entry = attach.Entry(record, privileges.confine(params, record.joined), root)
    try:
        streams = _streams(record, entry.base, fds, not wanted.background)
        pid, pidfd = attach.jail_attach(entry, wanted, streams)
    except JailError as error:
        if (error.kind == UNREACHED and processid.is_ending(record.init)) or not record.alive():
            raise JailError(f'jail "{record.name}" not found') from None  # of which whatever it met is a consequence
        raise
    finally:
        entry.close()
    if wanted.background:
        posix.close(pidfd)
        streams.close()
        return 0
    try:
        return waiting.wait(pid, pidfd, streams, hand_over)
    finally:
        posix.close(pidfd)


def _is_watched(limits: str) -> bool:
    """Whether, by the text of ng.limits, a warden is wanted. A jail -m that was killed may not have started it."""
    return any(f":{action}" in limits.lower() for action in ("log=", "devctl=", "sig"))


def _streams(record: Record, base: int, fds: tuple[int, int, int], attended: bool) -> Streams:
    try:
        root = attach.open_tree_of(record)
    except (FileNotFoundError, ProcessLookupError):  # PID 1 has ended since
        raise JailError(f'jail "{record.name}" not found') from None
    try:
        return stdio.prepare(root, base, fds, attended)
    finally:
        posix.close(root)


class _Output:
    """The three streams of a command: exec.consolelog takes the place of stdout and stderr."""

    __slots__ = ("fd", "path", "record")

    def __init__(self, params: Parameters, record: Record) -> None:
        self.path = params.text("exec.consolelog")
        self.record = record
        self.fd = -1

    def __enter__(self) -> tuple[int, int, int]:
        if not self.path:
            return 0, 1, 2
        if not self.path.startswith("/"):
            raise JailError(f"exec.consolelog: {self.path}: not an absolute pathname")
        from jailng.engine import logfile

        try:
            self.fd = logfile.opened(self.path, self.record.params.get("path", "/"))
        except OSError as error:
            raise JailError(f"open {self.path}: {error.strerror}") from None
        return 0, self.fd, self.fd

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            posix.close(self.fd)


def deaf_init(record: Record) -> int:
    """The pid of a guest's PID 1 that SIGTERM does nothing to, since it has no handler for that; else 0."""
    if record.remote or " " not in record.guest:
        return 0
    from jailng.linux import content

    try:
        status = content.read(f"/proc/{record.init_pid}/status")
    except OSError:  # it has ended
        return 0
    caught = int(content.field(status, b"SigCgt"), 16)
    return 0 if caught & 1 << _SIGTERM - 1 else record.init_pid


def terminate(record: Record, deaf: int = 0) -> tuple[list[int], list[int]]:
    """Send SIGTERM to every member of the jail: the pids that have got it, and pidfds of the first but ``deaf``.

    A jail may have more processes than this one may have descriptors; ``members`` is for the others.
    """
    from jailng.linux import membership

    signalled: list[int] = []
    pidfds: list[int] = []
    for pid in _members(record):
        pidfd = _open_pid(pid)
        if pidfd < 0:
            continue
        try:
            # By now that number may be another's, of the host. (In a jail all that it sees are its own.)
            is_member = record.remote or record.holds(membership.of_process(pidfd))
            if is_member:
                ns.pidfd_send_signal(pidfd, _SIGTERM)
        except OSError:
            is_member = False
        if not is_member:
            posix.close(pidfd)
            continue
        signalled.append(pid)
        if len(pidfds) < AT_ONCE and pid != deaf:
            pidfds.append(pidfd)
        else:
            posix.close(pidfd)
    return signalled, pidfds


def members(record: Record, pids: list[int]) -> list[int]:
    """Pidfds of the first of these processes that are still in the jail; none where none is."""
    there = set(_members(record))
    found: list[int] = []
    for pid in pids:
        if pid in there and len(found) < AT_ONCE and (pidfd := _open_pid(pid)) >= 0:
            found.append(pidfd)
    return found


def all_are_dying(record: Record) -> bool:
    """Whether all that are in the jail, and in those in it, have been killed, and wait in the kernel for their end.

    None of them runs a line of its own program any more. proc_pid_stat(5).
    """
    from jailng.core import halt
    from jailng.linux import content

    for pid in [] if record.remote else halt.members(record):
        try:
            fields = content.read(f"/proc/{pid}/stat").rpartition(b") ")[2].split()
        except OSError:
            continue  # it has ended
        killed = int(fields[_PENDING]) & 1 << _SIGKILL - 1  # what is to end a process the kernel makes of it that
        if fields[0] == b"Z" or not (killed or int(fields[_FLAGS]) & _PF_EXITING):  # of which other threads may live
            return False
    return not record.remote


def _members(record: Record) -> list[int]:
    if record.remote:
        from jailng.core import nested

        return nested.members(record)
    try:
        return cgroup.members(record.members)
    except FileNotFoundError:
        return []


def _open_pid(pid: int) -> int:
    try:
        return ns.pidfd_open(pid)
    except OSError as error:
        if error.errno == ESRCH:
            return -1  # it has ended meanwhile
        raise
