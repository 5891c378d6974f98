"""What an attempt is, how it is made, and how it is judged."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping

Facts = Mapping[str, str]  # what the host knows of itself, to recognise it by
Verdict = tuple[str, str]
Attempt = Callable[[Facts], Verdict]

HELD = "held"
EXPOSED = "exposed"  # something of the host is told, or a part of the kernel answers that should not
ESCAPED = "escaped"  # something outside was read, changed, signalled or made
BROKEN = "broken"  # the attempt itself failed: nothing is known

ATTEMPTS: dict[str, Attempt] = {}
_PATIENCE = 60  # seconds; an emulated machine looks for a module of each of 256 protocols
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_CLONE_NEWNS = 0x20000

Argument = int | bytes | ctypes.Array[ctypes.c_char] | None


def attempt(name: str) -> Callable[[Attempt], Attempt]:
    """Register a function under a name that begins with its class: ``files: chroot twice``."""

    def register(function: Attempt) -> Attempt:
        assert name not in ATTEMPTS, name
        ATTEMPTS[name] = function
        return function

    return register


def call(number: int, *arguments: Argument) -> int:
    """A system call by its number. Raises OSError."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def why(error: OSError) -> str:
    """The kernel's word for it."""
    return os.strerror(error.errno or 0)


def tried(action: Callable[[], object], verdict: str = ESCAPED) -> Verdict:
    """``verdict`` if the action succeeds, held if the kernel refuses it."""
    try:
        result = action()
    except OSError as error:
        return HELD, why(error)
    return verdict, f"it works: {str(result)[:100]}"


def asked(action: Callable[[], object]) -> Verdict:
    """Held only where the call is denied before anything looks at its arguments, which make no sense."""
    try:
        result = action()
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT):
            return HELD, why(error)
        return EXPOSED, f"the kernel answers: {why(error)}"
    return EXPOSED, f"the kernel answers: {result}"


def found(things: list[str] | list[int], verdict: str = EXPOSED) -> Verdict:
    """Held if there is none."""
    return (verdict, " ".join(map(str, things))[:200]) if things else (HELD, "nothing there")


def told(file: str, secret: str, what: str = "") -> Verdict:
    """Exposed if ``secret`` stands in the file."""
    try:
        with open(file, "rb") as opened:
            content = opened.read(1 << 20).decode("utf-8", "replace")
    except OSError as error:
        return HELD, why(error)
    return (EXPOSED, f"{file}: {what or secret}") if secret in content else (HELD, f"{file} does not tell")


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


def run(name: str, function: Attempt, facts: Facts) -> Verdict:
    """Make one attempt, in a process, a session and an empty current directory of its own."""
    directory = tempfile.mkdtemp(prefix="attempt-")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            os.close(reading)
            os.chdir(directory)
            # What one attempt mounts or unmounts is not to be the next one's world.
            if "unconfined" in facts and _libc.unshare(_CLONE_NEWNS):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            try:
                verdict = function(facts)
            except Exception as error:
                verdict = BROKEN, f"{type(error).__name__}: {error}"
            os.write(writing, json.dumps(verdict).encode())
        finally:
            os._exit(0)
    os.close(writing)
    in_time = bool(select.select([reading], [], [], _PATIENCE)[0])
    said = os.read(reading, 65536) if in_time else b""
    os.close(reading)
    for target in (-pid, pid):
        try:
            os.kill(target, signal.SIGKILL)
        except OSError:
            pass
    _, status = os.waitpid(pid, 0)
    shutil.rmtree(directory, ignore_errors=True)
    if said:
        verdict, line = json.loads(said)
        return verdict, line
    if not in_time:
        return BROKEN, f"no answer within {_PATIENCE} seconds"
    ended = os.waitstatus_to_exitcode(status)
    return (HELD, "killed by SIGSYS") if ended == -signal.SIGSYS else (BROKEN, f"ended with {ended}")


def run_all(facts: Facts, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Make every attempt whose name begins so: (name, verdict, line)."""
    for name, function in ATTEMPTS.items():
        if name.startswith(prefix):
            yield name, *run(name, function, facts)
