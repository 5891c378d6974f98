"""What a probe is, how it is made, and what it may say.

A probe does no harm where it succeeds. A call that would change something is made such that it fails after the
permission was granted, and the errno tells the two apart; a file is opened and not written to; what has to be made is
the probe's own and taken away again. None has the kernel load a module: ``inside`` is told whether it could.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import stat
from collections.abc import Callable, Iterator, Mapping

from .numbers import NUMBERS

Facts = Mapping[str, str]
Verdict = tuple[str, str]
Function = Callable[[Facts], Verdict]

HELD = "held"
EXPOSED = "exposed"  # something of the host is told, or a part of the kernel answers that should not
ESCAPED = "escaped"  # something outside was read, changed, signalled or made
ABSENT = "absent"  # this kernel has nothing of the kind, so that nothing was tried
SEEN = "seen"  # what was seen follows, for the host to compare with what it knows of itself
BROKEN = "broken"  # the probe itself failed: nothing is known

_PATIENCE = 10  # seconds; an emulated machine is slow
_MOST = 1 << 18  # bytes that a probe may say
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mmap.restype = ctypes.c_long
_OWN = ".jailng-probe-"
_DIRECTORIES = ("/tmp", "/var/tmp", "/root")
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 1 << 18

Argument = int | bytes | ctypes.Array[ctypes.c_char] | None


class Probe:
    """One thing that is tried.

    ``judge`` is the host's, where what was seen has to be compared with what only the host knows: it is given that and
    the host's facts. ``session`` is whether it runs in a session of its own, without the terminal that it came from.
    One that is ``light`` leaves its process as it was, so that others can be made in the same.
    """

    __slots__ = ("name", "function", "judge", "session", "light")

    def __init__(
        self, name: str, function: Function, judge: Callable[[str, Facts], Verdict] | None, session: bool, light: bool
    ) -> None:
        self.name = name
        self.function = function
        self.judge = judge
        self.session = session
        self.light = light

    @property
    def kind(self) -> str:
        """Its class: what stands before the colon."""
        return self.name.partition(":")[0]


PROBES: dict[str, Probe] = {}


def probe(
    name: str, judge: Callable[[str, Facts], Verdict] | None = None, *, session: bool = True, light: bool = False
) -> Callable[[Function], Function]:
    """Register a function under a name that begins with its class: ``files: chroot twice``."""

    def register(function: Function) -> Function:
        assert name not in PROBES, name
        PROBES[name] = Probe(name, function, judge, session, light)
        return function

    return register


def call(number: int | str, *arguments: Argument) -> int:
    """A system call by its number or name. Raises OSError, ENOSYS for one that the machine has no number for."""
    if isinstance(number, str):
        number = NUMBERS.get(number, -1)
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def mapped(size: int, flags: int) -> int:
    """mmap(2) of memory without a file, writable; its address. Raises OSError."""
    result: int = _libc.mmap(None, ctypes.c_long(size), 3, flags | 0x22, -1, ctypes.c_long(0))
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def why(error: OSError) -> str:
    """The kernel's word for it. Raises the error where there was no descriptor to try with, which refuses nothing."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise error
    return os.strerror(error.errno or 0)


def tried(action: Callable[[], object], verdict: str = ESCAPED) -> Verdict:
    """``verdict`` if the action succeeds, held if the kernel refuses it."""
    try:
        result = action()
    except OSError as error:
        return HELD, why(error)
    return verdict, "it works" if result is None else f"it works: {str(result)[:100]}"


def asked(action: Callable[[], object], verdict: str = EXPOSED) -> Verdict:
    """Held only where the call is denied before anything looks at its arguments, which make no sense."""
    try:
        result = action()
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EAFNOSUPPORT, errno.EROFS):
            return HELD, why(error)
        return verdict, f"not refused: {why(error)}"
    return verdict, f"not refused: {result}"


def found(things: list[str] | list[int], verdict: str = EXPOSED) -> Verdict:
    """Held if there is none."""
    return (verdict, " ".join(map(str, things))[:200]) if things else (HELD, "nothing there")


def content(file: str) -> Verdict:
    """What stands in a file, for the host to judge; held if it cannot be read."""
    try:
        with open(file, "rb") as opened:
            return SEEN, opened.read(_MOST // 4).decode("utf-8", "replace")
    except OSError as error:
        return HELD, why(error)


def opens(path: str) -> Verdict:
    """Escaped if a device node can be opened: asked, where opening it would wake hardware or load a driver."""
    try:
        if os.statvfs(path).f_flag & os.ST_NODEV:
            return HELD, "on a file system without devices"
        if not os.access(path, os.R_OK):
            return HELD, why(PermissionError(errno.EPERM, ""))
    except OSError as error:
        return HELD, why(error)
    return ESCAPED, f"{path} may be opened"


def sees_secret(facts: Facts, directory: int | None = None) -> bool:
    """Whether the host's secret file is to be had by its path on the host, from that directory or the root."""
    path = facts["secret"] if directory is None else facts["secret"].lstrip("/")
    try:
        fd = os.open(path, os.O_RDONLY, dir_fd=directory)
    except OSError:
        return False
    try:
        return facts["token"].encode() in os.read(fd, 4096)
    finally:
        os.close(fd)


def alone() -> bool:
    """Have a mount namespace of one's own, from which nothing gets out, if that is to be had."""
    if _libc.unshare(_CLONE_NEWNS):
        return False
    return not _libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)


def run_all(facts: Facts, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Make every attempt whose name begins so: (name, verdict, line)."""
    for where in _DIRECTORIES:
        _sweep(where)
    together: list[Probe] = []
    for one in [probe for name, probe in PROBES.items() if name.startswith(prefix)]:
        if one.light:
            together.append(one)
        else:
            yield one.name, *_run([one], facts)[0]
    while together:
        verdicts = _run(together, facts)
        yield from [(one.name, *verdict) for one, verdict in zip(together, verdicts, strict=False)]
        together = together[len(verdicts) :]


def _run(probes: list[Probe], facts: Facts) -> list[Verdict]:
    """Make attempts in a process, a session and an empty current directory of their own.

    If that ends before its time the last verdict is of the attempt that ended it, and there are none of the rest.
    """
    directory = _directory(facts)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            os.setsid() if probes[0].session else os.setpgid(0, 0)
            os.chdir(directory)
            for one in probes:
                _say(writing, _made(one, facts))
        finally:
            os._exit(0)
    os.close(writing)
    said, in_time = _heard(reading)
    for target in (-pid, pid):
        try:
            os.kill(target, signal.SIGKILL)
        except OSError:
            pass
    _, status = os.waitpid(pid, 0)
    _clear(directory)
    verdicts: list[Verdict] = [(verdict, line) for verdict, line in map(json.loads, said.splitlines())]
    if len(verdicts) < len(probes):
        ended = os.waitstatus_to_exitcode(status)
        if not in_time:
            verdicts.append((BROKEN, f"no answer within {_PATIENCE} seconds"))
        elif ended == -signal.SIGSYS:
            verdicts.append((HELD, "killed by SIGSYS"))
        else:
            verdicts.append((BROKEN, f"ended with {ended}"))
    return verdicts


def _made(probe: Probe, facts: Facts) -> Verdict:
    try:
        return probe.function(facts)
    except FileNotFoundError as error:
        if str(error.filename).startswith(("/proc", "/sys", "/dev")):
            return HELD, f"{error.filename}: {why(error)}"
        return BROKEN, f"{error}"
    except Exception as error:
        return BROKEN, f"{type(error).__name__}: {error}"


def _say(pipe: int, verdict: Verdict) -> None:
    said = json.dumps(verdict).encode() + b"\n"
    while said:
        said = said[os.write(pipe, said) :]


def _directory(facts: Facts) -> str:
    """An empty one, where most programs have theirs: on the file system that is to be looked at. Raises OSError."""
    for where in (*_DIRECTORIES, facts.get("directory", ".")):
        # A name that nobody can guess: who may write there too could have put a link to elsewhere in its place.
        path = f"{where}/{_OWN}{os.getpid()}-{os.urandom(8).hex()}"
        try:
            os.mkdir(path, 0o700)
        except OSError:
            continue
        return path
    raise FileNotFoundError(errno.ENOENT, "no directory that can be written to")


def _sweep(where: str) -> None:
    """Take away the directories of attempts that were killed."""
    try:
        for name in os.listdir(where):
            if name.startswith(_OWN) and _is_left(f"{where}/{name}", name.removeprefix(_OWN).partition("-")[0]):
                _take_away(f"{where}/{name}", os.listdir(f"{where}/{name}"))
    except OSError:
        pass


def _is_left(path: str, pid: str) -> bool:
    """Whether nobody else can have written to a directory, and who made it is gone."""
    try:
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o777 == 0o700 and status.st_uid == os.geteuid():
            os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):
        pass  # it has just gone, or its name is another's
    return False


def _clear(directory: str) -> None:
    """Take away what a probe has made, as far as that goes."""
    for where, below, names in os.walk(directory, topdown=False):
        _take_away(where, names + below)


def _take_away(directory: str, names: list[str]) -> None:
    """Remove it with what is in it, but for directories with something in them: these may be mounts."""
    for path in [*(f"{directory}/{name}" for name in names), directory]:
        try:
            os.rmdir(path) if stat.S_ISDIR(os.lstat(path).st_mode) else os.unlink(path)
        except OSError:
            pass


def _heard(reading: int) -> tuple[bytes, bool]:
    """Whole lines until the other end is closed, and whether it was before nothing came for long."""
    said = b""
    in_time = False
    with os.fdopen(reading, "rb", 0) as pipe:
        while select.select([pipe], [], [], _PATIENCE)[0]:
            part = pipe.read(65536)
            if not part:
                in_time = True
                break
            said += part
    return said[: said.rfind(b"\n") + 1], in_time
