"""The two ways in which a command fails, and the status it then exits with."""

from __future__ import annotations


class JailError(Exception):
    """A failure that one line explains.

    ``str(error)`` is the sentence as FreeBSD's tools print it after ``jail: ``: lower case, no full stop.
    ``status`` is the exit status of the command that meets it; jail(8), jls(8) and jexec(8) know only 1. ``errno`` is
    that of the system call which has failed, where the sentence tells of one that jailinit made; else 0. ``told``:
    whoever is to know it has been told.
    """

    def __init__(self, message: str, status: int = 1, errno: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.errno = errno
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
