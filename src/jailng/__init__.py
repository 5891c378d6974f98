"""jailng: FreeBSD's jail(8) on Linux.

For Python programs: ``Jail``, ``jails``, ``JailError`` and ``CompletedProcess`` (docs/python.md). They are loaded when
they are first asked for, since every command imports this package too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subprocess import CompletedProcess as CompletedProcess

    from jailng.api.jail import Jail as Jail
    from jailng.api.jail import jails as jails
    from jailng.errors import JailError as JailError
else:
    _HOME = {
        "CompletedProcess": "subprocess",
        "Jail": "jailng.api.jail",
        "JailError": "jailng.errors",
        "jails": "jailng.api.jail",
    }

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = globals()[name] = getattr(import_module(_HOME[name]), name)
        return found

    def __dir__():
        return sorted([*globals(), *_HOME])


__all__ = ["CompletedProcess", "Jail", "JailError", "jails"]
