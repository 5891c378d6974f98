"""What every process gives up on its way into a jail: PID 1 and each one that enters later. No way leads back.

The order is the kernel's (docs/design.md, "Entering"): the filter is attached while CAP_SYS_ADMIN in the jail's user
namespace is still held, since no_new_privs would take su and sudo away from the jail; capabilities go last.
"""

from __future__ import annotations

import _signal
import posix

from jailng.linux import caps, landlock, seccomp
from jailng.linux.libc import syscall, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.confinement import Confinement

_CLOSE_RANGE_CLOEXEC = 4
_ALL_FDS = 0xFFFFFFFF
_SIGRTMAX = 64


def leave_the_caller(confinement: Confinement) -> None:
    """Shed what was inherited from whoever ran the command: session, keys, signals, niceness, limits."""
    posix.setsid()
    caps.new_session_keyring()
    for number in range(1, _SIGRTMAX + 1):
        if _signal.getsignal(number) not in (_signal.SIG_DFL, None):
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    posix.umask(0o022)
    for resource, soft, hard in confinement.rlimits:
        syscall("prlimit64", 0, resource, words(soft, hard), None)


def close_all_on_exec() -> None:
    """Let no descriptor above 2 outlive the exec. Raises OSError."""
    syscall("close_range", 3, _ALL_FDS, _CLOSE_RANGE_CLOEXEC)


def give_up(confinement: Confinement) -> None:
    """Take the filter and the capability set for good. The caller has the ids it will run with. Raises OSError."""
    if confinement.landlock:
        landlock.restrict(confinement.landlock)
    seccomp.attach(confinement.program)
    caps.limit_to(confinement.caps)
