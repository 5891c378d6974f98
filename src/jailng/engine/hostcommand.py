"""A command of exec.* on the host: exec.prepare, exec.prestart and the like."""

from __future__ import annotations

import _signal
import posix

from jailng.core import elsewhere, jailinit, registry
from jailng.engine import command
from jailng.errors import JailError
from jailng.linux import child
from jailng.linux.libc import ENOEXEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.passwd import User
    from jailng.core.registry import Record
    from jailng.core.trees import Trees
    from jailng.engine.hostprogram import Program
    from jailng.params.model import Parameters

_LONGEST = 1 << 16  # of a complaint, bytes
_IGNORED = (13, 25)  # PIPE, XFSZ: by Python, and what is ignored stays so over exec
_SHELL = "/bin/sh"
_HEAD = 64  # bytes of a file
_SYSTEM = ("/sbin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
# Where FreeBSD has what shims are named after: by these paths its Handbook's jail.conf, and many another, call them.
_SHIMMED = (
    *("/sbin/ifconfig", "/sbin/route", "/sbin/sysctl", "/bin/cpuset", "/usr/bin/cpuset"),
    *("/bin/pkill", "/usr/bin/pkill", "/usr/bin/killall", "/usr/sbin/service"),
    *("/sbin/mount", "/sbin/mount_nullfs", "/sbin/umount"),
)


def environment_of(params: Parameters, names: dict[str, str]) -> dict[str, str]:
    """What a command on the host is given.

    With exec.clean FreeBSD's have the PATH of root's login class besides (setusercontext(3)), where ifconfig(8) is.
    """
    caller = command.caller_environment()
    if not params.flag("exec.clean"):
        return {**caller, **names}
    found = command.clean(caller)
    shims = _shims()  # for whom has them
    first = [directory for directory in caller.get("PATH", "").split(":") if directory == shims]
    return {**found, "PATH": ":".join([*first[:1], found["PATH"], *_SYSTEM])}


def _shims() -> str:
    """Where FreeBSD's commands are."""
    return jailinit.place("shims", "lib/jailng/shims")


def user_of(params: Parameters) -> User | None:
    """Whom a command on the host runs as, None for who runs jail(8). Raises JailError: no such user."""
    name = command.user_of(params, "exec.system_user")
    if not name and not params.flag("exec.clean"):
        return None
    from jailng.core.passwd import of_the_host

    return of_the_host(name or "root")


class HostCommand:
    """A command string on its way on the host."""

    __slots__ = ("_pid", "_pidfd", "_program", "_said", "argv", "background", "line")

    def __init__(self, text: str) -> None:
        self.argv, self.background = command.split(text)
        self.line = " ".join(self.argv)  # as jail(8) shows it
        self._pid = self._pidfd = self._said = -1
        self._program: Program | None = None

    def check(self, environment: dict[str, str], user: User | None, at_home: bool, enemies: Trees) -> str:
        """Find its program, and why it must not be executed: it lies in a jail's tree, or names what does. Or "".

        The rest is as for ``begin``, which executes what was found here.
        """
        from jailng.engine import hostprogram

        if self.argv[0] in _SHIMMED and _shims() in environment.get("PATH", "").split(":"):
            self.argv[0] = f"{_shims()}/{self.argv[0].rpartition('/')[2]}"
        cwd = user.home if user is not None and at_home else _working_directory()
        self._program, refusal = hostprogram.find(self.argv, environment, cwd, enemies)
        return refusal

    def begin(
        self, environment: dict[str, str], user: User | None, seconds: int, at_home: bool, record: Record | None
    ) -> command.Wait | None:
        """Start it, as the user and ``at_home`` in that user's directory; None where there is nothing to wait for.

        It has the host's network that the jail of ``record`` was made in, if that is there still.
        """
        self._said, say = posix.pipe2(posix.O_CLOEXEC)
        self._pid, self._pidfd = child.clone3()
        if self._pid == 0:
            self._be(environment, user, at_home, record, say)
        posix.close(say)
        if self._program is not None:
            self._program.close()
        if self.background:
            posix.close(self._pidfd)
            posix.close(self._said)
            return None
        return command.Wait([self._pidfd], seconds)

    def _be(
        self, environment: dict[str, str], user: User | None, at_home: bool, record: Record | None, say: int
    ) -> None:
        failing = f"exec {self.argv[0]}"
        try:
            registry.forked()  # a home that is not answered for keeps this process, and it no lock
            if record is not None and not record.remote:
                elsewhere.Network(record).__enter__()  # for good
            for number in _IGNORED:
                _signal.signal(number, _signal.SIG_DFL)
            if self.background:
                posix.setsid()
            if user is not None:
                child.set_ids(user.uid, user.gid, user.groups)
                environment = {**environment, "HOME": user.home, "SHELL": user.shell, "USER": user.name}
                if at_home:
                    failing = f"chdir {user.home}"
                    posix.chdir(user.home)
                    failing = f"exec {self.argv[0]}"
            if self._program is not None and self._program.fd >= 0:
                _become(self._program.fd, self._program.path, self.argv, environment)
            _execute(self.argv, environment)
        except OSError as error:
            text = f"{failing}: {error.strerror}"
            if self.background:  # nobody listens
                text, say = f"jail: {text}\n", 2
            posix.write(say, text.encode("utf-8", "surrogateescape"))
        finally:
            posix._exit(1)

    def end(self, timed_out: bool) -> None:
        """It has ended, or had its time, and is then left to itself. Raises JailError unless it succeeded."""
        try:
            if timed_out:
                raise JailError(f"{self.line}: timed out")
            _, status = posix.waitpid(self._pid, 0)
            complaint = posix.read(self._said, _LONGEST)
            if complaint:
                raise JailError(complaint.decode("utf-8", "surrogateescape"))
            command.judge(self.line, status)
        finally:
            posix.close(self._pidfd)
            posix.close(self._said)


def _working_directory() -> str:
    try:
        return posix.getcwd()
    except OSError:  # it has been removed
        return ""


def _execute(argv: list[str], environment: dict[str, str]) -> None:
    path = environment.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    candidates = [argv[0]] if "/" in argv[0] else [f"{directory or '.'}/{argv[0]}" for directory in path.split(":")]
    last: OSError | None = None
    for candidate in candidates:
        try:
            _become(candidate, candidate, argv, environment)
        except FileNotFoundError as error:
            last = last or error
        except OSError as error:
            last = error
    assert last is not None
    raise last


def _become(program: str | int, path: str, argv: list[str], environment: dict[str, str]) -> None:
    """execve(2) of a file, also by its descriptor; to execvp(3) what has no format is a script of sh's."""
    try:
        posix.execve(program, argv, environment)
    except OSError as error:
        if error.errno != ENOEXEC or not _is_text(path):
            raise
        posix.execve(_SHELL, [_SHELL, path, *argv[1:]], environment)


def _is_text(path: str) -> bool:
    """Whether a file is text by its beginning: what has a format, though none that this kernel knows, is no script."""
    try:
        file = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY)
        head = posix.read(file, _HEAD)
    except OSError:
        return False
    return b"\0" not in head and b"\x7f" not in head  # ELF has both
