"""Landlock scopes: landlock(7). ABI 6, Linux 6.12."""

from __future__ import annotations

import posix

from jailng.linux.libc import syscall, words

SCOPE_ABSTRACT_UNIX_SOCKET = 1
SCOPE_SIGNAL = 2


def restrict(scopes: int) -> None:
    """Keep this thread, and all it will start, from reaching what the scopes name outside of it.

    Needs CAP_SYS_ADMIN in the user namespace (or no_new_privs). Raises OSError.
    """
    attr = words(0, 0, scopes)
    ruleset = syscall("landlock_create_ruleset", attr, len(attr), 0)
    try:
        syscall("landlock_restrict_self", ruleset, 0)
    finally:
        posix.close(ruleset)
