"""Signals as events, and the sending of them: signalfd(2), pidfd_send_signal(2), signal(7)."""

from __future__ import annotations

import _signal
import posix
import sys

from jailng.linux.libc import MACHINE, NR, syscall, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

SI_KERNEL = 0x80

_SFD_CLOEXEC = posix.O_CLOEXEC
_SIGINFO_SIZE = 128
_PIDFD_SIGNAL_PROCESS_GROUP = 4
_RLIMIT_CORE = 4
_PR_SET_DUMPABLE = 4

NR.setdefault("signalfd4", {"x86_64": 289, "aarch64": 74}[MACHINE])


def signalfd(signals: Iterable[int]) -> int:
    """A descriptor to read ``signals`` from, which the caller has blocked. Raises OSError."""
    mask = sum([1 << number - 1 for number in set(signals)])
    return syscall("signalfd4", -1, words(mask), 8, _SFD_CLOEXEC)


def read(fd: int) -> list[tuple[int, int]]:
    """Wait for signals on a signalfd: (signal, si_code) of each. SI_KERNEL is a terminal's doing, not kill(2)'s."""
    data = posix.read(fd, 16 * _SIGINFO_SIZE)
    order = sys.byteorder
    return [
        (int.from_bytes(data[at : at + 4], order), int.from_bytes(data[at + 8 : at + 12], order, signed=True))
        for at in range(0, len(data), _SIGINFO_SIZE)
    ]


def send_to_group(pidfd: int, number: int) -> None:
    """Signal the process group that the process leads. Raises OSError (ESRCH: it leads none). Since Linux 6.9."""
    syscall("pidfd_send_signal", pidfd, number, None, _PIDFD_SIGNAL_PROCESS_GROUP)


def is_minded(pid: int, number: int) -> bool:
    """Whether a process catches or ignores that signal. Raises OSError."""
    from jailng.linux import content

    status = content.read(f"/proc/{pid}/status")  # all: the groups of a process may take most of a megabyte
    masks = [int(content.field(status, name), 16) for name in (b"SigIgn", b"SigCgt")]
    return bool((masks[0] | masks[1]) >> number - 1 & 1)


def die_of(number: int) -> NoReturn:
    """End this process by the signal, without a core, so that its parent sees the same as if it had been the command.

    Where the kernel will not have it (PID 1 of a namespace) the exit status is a shell's: 128 and the signal.
    """
    syscall("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)  # RLIMIT_CORE is not asked where core_pattern is a program: core(5)
    syscall("prlimit64", 0, _RLIMIT_CORE, words(0, 0), None)
    try:
        _signal.signal(number, _signal.SIG_DFL)
    except (OSError, ValueError):
        pass  # SIGKILL has no other
    posix.kill(posix.getpid(), number)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (number,))
    posix._exit(128 + number)
