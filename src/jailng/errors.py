"""The two ways in which a command fails, and the status it then exits with."""

from __future__ import annotations

# Kinds of ``JailError`` that somebody tells from others. Words, as a class takes 0.02 ms of every command.
UNCHANGEABLE = "unchangeable"  # a jail keeps that parameter: jail(8) says so without having asked the kernel
UNREACHED = "unreached"  # a process has failed, or died, on its way to what it was to do: in a jail that has ended
_EPERM = 1  # linux/libc.py, which has it too, is above this


class JailError(Exception):
    """A failure that one line explains.

    ``str(error)`` is the sentence as FreeBSD's tools print it after ``jail: ``: lower case, no full stop.
    ``status`` is the exit status of the command that meets it; jail(8), jls(8) and jexec(8) know only 1. ``errno`` is
    that of the system call that the sentence tells of, of jail_set(2) too where FreeBSD's kernel would give another
    than EINVAL; else 0. ``kind`` is one of the words above, or "". ``told``: whoever is to know it has been told.
    """

    def __init__(self, message: str, status: int = 1, errno: int = 0, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.errno = errno
        self.kind = kind
        self.told = False


class NotFound(JailError):
    """The jail that was found is no more: it has ended, or another command has removed or renamed it."""


class UsageError(JailError):
    """The words on the command line do not make a command; the message is the usage text, whole."""


class Mistakes(JailError):
    """Several failures at once, each with a line of its own: ``messages``. ``str(error)`` has them all on one."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages

    def __reduce__(self) -> tuple[type[Mistakes], tuple[list[str]]]:
        """A pickle calls with what this was called with."""
        return type(self), (self.messages,)


def not_permitted(call: str) -> JailError:
    """What a system call says to whoever is not root, or asks for more than may be had."""
    return JailError(f"{call}: Operation not permitted", errno=_EPERM)


def messages(error: BaseException) -> list[str]:
    """The lines that an error is still to be told in."""
    if isinstance(error, JailError) and error.told:
        return []
    return error.messages if isinstance(error, Mistakes) else [explain(error)]


def explain(error: BaseException) -> str:
    """An exception as one line for the process that waits at the other end of the pipe."""
    if isinstance(error, OSError):
        what = error.filename.decode("utf-8", "replace") if isinstance(error.filename, bytes) else error.filename
        text = error.strerror or str(error)
        return f"{what}: {text}" if what else text
    if isinstance(error, (JailError, ImportError)):
        return str(error)
    return f"{type(error).__name__}: {error}"
