"""The C half of ``signal``, without the enums that make it slow to import."""

from collections.abc import Callable, Iterable
from types import FrameType

SIG_DFL: int
SIG_IGN: int
SIG_BLOCK: int
SIG_UNBLOCK: int
SIG_SETMASK: int
SIGHUP: int
SIGINT: int
SIGQUIT: int
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

_Handler = Callable[[int, FrameType | None], object] | int | None

def signal(signalnum: int, handler: _Handler, /) -> _Handler: ...
def getsignal(signalnum: int, /) -> _Handler: ...
def alarm(seconds: int, /) -> int: ...
def pthread_sigmask(how: int, mask: Iterable[int], /) -> set[int]: ...
def set_wakeup_fd(fd: int, /, *, warn_on_full_buffer: bool = ...) -> int: ...
def sigpending() -> set[int]: ...
def raise_signal(signalnum: int, /) -> None: ...
def default_int_handler(signalnum: int, frame: FrameType | None, /) -> None: ...
