"""Attach a compiled filter: seccomp(2)."""

from __future__ import annotations

from jailng.linux.libc import address, buffer, syscall, words

_SECCOMP_SET_MODE_FILTER = 1


def attach(program: bytes) -> None:
    """Put this thread, and all it will start, under ``program`` (struct sock_filter records). Irrevocable.

    The caller holds CAP_SYS_ADMIN in its user namespace: no_new_privs would take setuid programs away from the jail.
    Raises OSError.
    """
    code = buffer(program)
    header = words(len(program) // 8, size=2) + bytes(6) + words(address(code))
    syscall("seccomp", _SECCOMP_SET_MODE_FILTER, 0, header)
