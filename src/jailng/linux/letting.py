"""Letting go of what an enemy has sent, descriptors beside a message, however long their close would take.

Who drops the last reference to a socket of TCP waits for as long as its owner has said (SO_LINGER), unless he ends or a
signal comes (inet_release(), net/ipv4/af_inet.c). SO_LINGER can be set again by whoever has sent it, up to the last
moment, and where the kernel can refuse descriptors (SO_PASSRIGHTS, Linux 6.16) the sender would be told so.
"""

from __future__ import annotations

import _signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_ITIMER_REAL = 0
_MOMENT = 0.001


def go(release: Callable[[], object]) -> None:
    """Call that, of which no system call waits for longer than a moment. For a main thread that has no other alarm."""
    before = _signal.signal(_signal.SIGALRM, lambda *_: None)
    _signal.setitimer(_ITIMER_REAL, _MOMENT, _MOMENT)  # type: ignore[attr-defined]
    try:
        release()
    finally:
        _signal.setitimer(_ITIMER_REAL, 0)  # type: ignore[attr-defined]
        _signal.signal(_signal.SIGALRM, before)
