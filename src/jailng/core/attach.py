"""jail_attach(2): bring a process into a jail. A pid namespace takes only newborn ones, so there is one fork.

Until the exec, the process has the host's privileges or the memory of one that had; so it is not dumpable before it is
born, it runs and loads nothing of the jail's, and it parses the jail's passwd only when all it could lose is gone.
"""

from __future__ import annotations

import _signal
import errno
import posix

from jailng.core import jailinit, passwd, process, stdio
from jailng.errors import JailError, explain
from jailng.linux import caps, cgroup, mount, ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.confinement import Confinement
    from jailng.core.passwd import User
    from jailng.core.registry import Record
    from jailng.core.stdio import Streams

_JOINED = ns.CLONE_NEWUSER | ns.CLONE_NEWNS | ns.CLONE_NEWUTS | ns.CLONE_NEWTIME
_OPEN = posix.O_RDONLY | posix.O_CLOEXEC
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# How long a jailed file system may keep us waiting for its passwd or a directory, in seconds.
_PATIENCE = 10
_PR_SET_SECUREBITS = 28


class Command:
    """What to run: argv, environment, user and directory, all as the jail sees them.

    ``user`` is a name or number of the jail's passwd, a ``User`` that was looked up on the host, or None for root
    without any look-up. ``cwd`` of None is the user's home with ``login`` and the jail's root without.
    """

    __slots__ = ("argv", "cwd", "env", "login", "user")

    def __init__(
        self,
        argv: list[str],
        env: dict[str, str],
        user: str | User | None = None,
        cwd: str | None = None,
        login: bool = False,
    ) -> None:
        self.argv = argv
        self.env = env
        self.user = user
        self.cwd = cwd
        self.login = login


class Entry:
    """A jail that is about to be entered: its PID 1, which is verified to be the record's, and what it confines to."""

    __slots__ = ("base", "cgroup", "confinement", "flags", "init", "privileged", "shared_uids")

    def __init__(self, record: Record, confinement: Confinement) -> None:
        """Raises JailError where the jail has ended meanwhile."""
        params = record.params
        self.confinement = confinement
        self.cgroup = f"{record.cgroup}/members"
        self.shared_uids = params.get("ng.uids") == "shared"
        self.base = 0 if self.shared_uids else record.base
        self.privileged = params.get("allow.suser", "true") == "true"
        shared_net = "inherit" in (params.get("ip4"), params.get("ip6"))
        shared_ipc = params.get("sysvshm") == "inherit"
        self.flags = _JOINED | (0 if shared_net else ns.CLONE_NEWNET) | (0 if shared_ipc else ns.CLONE_NEWIPC)
        try:
            self.init = ns.pidfd_open(record.init_pid)
        except OSError:
            raise JailError(f'jail "{record.name}" not found') from None
        if f"{record.init_pid} {posix.fstat(self.init).st_ino}" != record.init:
            posix.close(self.init)
            raise JailError(f'jail "{record.name}" not found')

    def close(self) -> None:
        """Let go of PID 1."""
        posix.close(self.init)


def open_tree_of(record: Record) -> int:
    """The jail's root as an O_PATH descriptor, by way of its PID 1. Raises OSError."""
    return posix.open(f"/proc/{record.init_pid}/root", mount.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)


def jail_attach(entry: Entry, command: Command, streams: Streams) -> tuple[int, int]:
    """Start ``command`` in the jail; returns (pid, pidfd) once it has been executed.

    Raises JailError saying what failed in there: ``execvp: CMD: strerror``, ``USER: no such user`` and the like.
    """
    members = _members(entry)
    program = jailinit.open_program() if entry.shared_uids else -1
    said, say = posix.pipe2(posix.O_CLOEXEC)
    here = posix.open("/proc/self/ns/pid", _OPEN)
    caps.set_dumpable(False)
    try:
        ns.setns(entry.init, ns.CLONE_NEWPID)
        try:
            pid, pidfd = ns.clone3(0, members)
            if pid == 0:
                _enter(entry, command, streams, say, program)
        finally:
            ns.setns(here, ns.CLONE_NEWPID)
    except OSError as error:
        posix.close(said)
        raise JailError(f"jail_attach: {error.strerror}") from None
    finally:
        for fd in (members, here, say, program):
            if fd >= 0:
                posix.close(fd)
    try:
        complaint = posix.read(said, 4096)
    finally:
        posix.close(said)
    if complaint:
        posix.waitpid(pid, 0)
        posix.close(pidfd)
        if len(complaint) == 8 and complaint[4:] == bytes(4):  # jailinit's own word: the errno of its execve
            raise JailError(f"execvp: {command.argv[0]}: {posix.strerror(complaint[0])}")
        raise JailError(complaint.decode("utf-8", "surrogateescape"))
    return pid, pidfd


def _members(entry: Entry) -> int:
    try:
        return cgroup.open_directory(entry.cgroup)
    except OSError as error:
        posix.close(entry.init)
        raise JailError(f"jail_attach: {error.strerror}") from None


def _enter(entry: Entry, command: Command, streams: Streams, say: int, program: int) -> None:
    """The child's whole life up to the exec; it never returns."""
    try:
        process.leave_the_caller(entry.confinement)
        ns.setns(entry.init, entry.flags)
        # PID 1's cgroup namespace has PID 1's leaf as its root; one of this process's own shows `/` as it should.
        ns.unshare(ns.CLONE_NEWCGROUP)
        ns.set_ids(0, 0, [])
        # From here on the worst that the jail's files can do is to keep us waiting, and the clock is set.
        _signal.alarm(_PATIENCE)
        stdio.install(streams)
        process.close_all_on_exec()
        user = passwd.find(command.user) if isinstance(command.user, str) else command.user
        environment = _environment(command, user)
        cwd = command.cwd or (user.home if user is not None and command.login else "/")
        if not entry.privileged:
            ns_lock_privileges()
        if user is None or user.uid == 0:
            _change_directory(cwd)
            process.give_up(entry.confinement)
        else:
            _become(entry, user, cwd)
        _signal.alarm(0)
        caps.die_with_parent(_signal.SIGKILL)
        if _hung_up(say):
            posix._exit(127)  # the parent died before it could be asked to take us along
        _execute(entry, command.argv, environment, say, program)
    except BaseException as error:
        posix.write(say, explain(error).encode("utf-8", "surrogateescape"))
    finally:
        posix._exit(127)


def _become(entry: Entry, user: User, cwd: str) -> None:
    # The filter needs CAP_SYS_ADMIN in the namespace and the ids need CAP_SETUID, which is among those that stay.
    process.give_up(entry.confinement)
    ns.set_ids(user.uid, user.gid, user.groups)
    _change_directory(cwd)


def _change_directory(cwd: str) -> None:
    try:
        posix.chdir(cwd)
    except OSError as error:
        raise JailError(f"chdir {cwd}: {error.strerror}") from None


def ns_lock_privileges() -> None:
    """Make uid 0 a user like any other, for good: SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP and their locks."""
    from jailng.linux.libc import syscall

    syscall("prctl", _PR_SET_SECUREBITS, 0b1111, 0, 0, 0)


def _hung_up(say: int) -> bool:
    from select import POLLERR, poll

    waiter = poll()
    waiter.register(say, 0)
    return any(events & POLLERR for _, events in waiter.poll(0))


def _environment(command: Command, user: User | None) -> dict[str, str]:
    environment = dict(command.env)
    environment.setdefault("PATH", USUAL_PATH)
    environment.setdefault("HOME", user.home if user is not None else "/root")
    environment.setdefault("SHELL", user.shell if user is not None else "/bin/sh")
    environment.setdefault("USER", user.name if user is not None else "root")
    return environment


def _execute(entry: Entry, argv: list[str], environment: dict[str, str], say: int, program: int) -> None:
    if entry.shared_uids:
        # The kernel runs `#!/proc/self/exe` with the program of whoever executes it: not the host's Python, then.
        posix.set_inheritable(say, True)
        posix.execve(program, ["jailinit", "exec", str(say), *argv], environment)
    kept = errno.ENOENT
    for path in _candidates(argv[0], environment["PATH"]):
        try:
            posix.execve(path, argv, environment)
        except OSError as error:
            if error.errno == errno.EACCES:
                kept = errno.EACCES
            elif error.errno not in (errno.ENOENT, errno.ENOTDIR):
                kept = error.errno or kept
                break
    raise JailError(f"execvp: {argv[0]}: {posix.strerror(kept)}")


def _candidates(name: str, path: str) -> list[str]:
    if "/" in name:
        return [name]
    return [f"{directory or '.'}/{name}" for directory in path.split(":")] if name else []
