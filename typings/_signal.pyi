"""The C half of ``signal``, which typeshed does not describe: plain numbers where ``signal`` has enums."""

from collections.abc import Callable, Iterable
from types import FrameType

_Handler = Callable[[int, FrameType | None], object] | int | None

SIG_DFL: int
SIG_IGN: int
SIG_BLOCK: int
SIG_UNBLOCK: int
SIG_SETMASK: int
NSIG: int

SIGHUP: int
SIGINT: int
SIGQUIT: int
SIGABRT: int
SIGKILL: int
SIGUSR1: int
SIGUSR2: int
SIGPIPE: int
SIGALRM: int
SIGTERM: int
SIGCHLD: int
SIGCONT: int
SIGSTOP: int
SIGTSTP: int
SIGTTIN: int
SIGTTOU: int
SIGWINCH: int

def alarm(seconds: int, /) -> int: ...
def getsignal(signalnum: int, /) -> _Handler: ...
def pause() -> None: ...
def pthread_sigmask(how: int, mask: Iterable[int], /) -> set[int]: ...
def raise_signal(signalnum: int, /) -> None: ...
def set_wakeup_fd(fd: int, /, *, warn_on_full_buffer: bool = ...) -> int: ...
def signal(signalnum: int, handler: _Handler, /) -> _Handler: ...
def sigpending() -> set[int]: ...
