"""The commands of exec.* and ``command``, on the host and in the jail (usr.sbin/jail/command.c)."""

from __future__ import annotations

import posix

from jailng.errors import JailError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.params.model import Parameters

# A command with one of these is for sh; any other is split at white space and executed as it stands.
_FOR_SHELL = frozenset("!\"$&'()*;<>?[\\]`{|}~")
_PYTHONS = "C.UTF-8"
# Of the caller's environment a jail sees no more than this unless exec.clean is switched off by name.
_HARMLESS = ("TERM", "LANG", "LANGUAGE", "TZ", "COLUMNS", "LINES")


def split(text: str) -> tuple[list[str], bool]:
    """A command string as argv, and whether it is to run in the background (an ``&`` as its very last character)."""
    background = text.endswith("&") and not _FOR_SHELL & set(text[:-1])
    if background:
        text = text[:-1]
    if _FOR_SHELL & set(text):
        return ["/bin/sh", "-c", text], background
    # Of bytes white space is what it is to C, and not what else Unicode calls so: text from the web has it in words.
    words = text.encode("utf-8", "surrogateescape").split()
    return [word.decode("utf-8", "surrogateescape") for word in words], background


def caller_environment() -> dict[str, str]:
    """This process's environment as text, as its caller has made it."""
    made = {
        key.decode("utf-8", "surrogateescape"): value.decode("utf-8", "surrogateescape")
        for key, value in posix.environ.items()
    }
    if made.get("LC_CTYPE") == _PYTHONS and _is_pythons_own():
        del made["LC_CTYPE"]
    return made


def _is_pythons_own() -> bool:
    """Whether this process was started without an LC_CTYPE.

    Without a locale Python gives itself one, and whom it starts as well (PEP 538): one that a jail need not have.
    """
    from jailng.linux import content

    try:
        return b"\0LC_CTYPE=" not in b"\0" + content.read("/proc/self/environ")
    except OSError:
        return False


def inside_environment(params: Parameters, names: dict[str, str]) -> dict[str, str]:
    """What a command in the jail is given; PATH, HOME and the like are filled in when its user is known.

    FreeBSD hands over all of the caller's environment. It tells a jailed root about the host, so here only what says
    how to show text passes; ``exec.noclean`` given by name asks for FreeBSD's way. ``names`` are JID, JNAME and JPATH.
    """
    caller = caller_environment()
    if params.flag("exec.clean"):
        return clean(caller)
    if params.given("exec.clean"):
        return {**caller, **names}
    return {**harmless(caller), **names}


def clean(environment: dict[str, str]) -> dict[str, str]:
    """What is left of an environment by exec.clean and ``jexec -l``, before the user's own is added."""
    from jailng.core.attach import CLEAN_PATH

    return {**{key: environment[key] for key in ("TERM",) if key in environment}, "PATH": CLEAN_PATH}


def harmless(environment: dict[str, str]) -> dict[str, str]:
    """What of an environment says no more than how to show text."""
    return {key: value for key, value in environment.items() if key in _HARMLESS or key.startswith("LC_")}


def user_of(params: Parameters, name: str) -> str:
    """The user that a parameter names, "" where it is not given.

    Raises JailError where it names nobody, which is not to mean root.
    """
    user = params.text(name)
    if not user and params.given(name):
        raise JailError(": no such user")
    return user


class Wait:
    """What a jail on its way waits for: these processes, ``seconds`` at most (0: without end).

    ``counts``: it is a command of exec.*, of which ``-p`` limits how many run at once.
    """

    __slots__ = ("counts", "pidfds", "seconds")

    def __init__(self, pidfds: list[int], seconds: float, counts: bool = True) -> None:
        self.pidfds = pidfds
        self.seconds = seconds
        self.counts = counts

    def __repr__(self) -> str:
        return f"<Wait {self.pidfds} {self.seconds}>"


# What is yielded before a command is begun: whoever carries the steps out may let it wait for its turn.
TURN = Wait([], 0)


def judge(name: str, status: int) -> None:
    """Raises JailError, in jail(8)'s words, unless the wait status says that the command succeeded."""
    if posix.WIFSIGNALED(status):
        raise JailError(f"{name}: exited on signal {posix.WTERMSIG(status)}")
    if status:
        raise JailError(f"{name}: failed")
