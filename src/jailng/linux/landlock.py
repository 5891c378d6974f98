"""Landlock's names: landlock(7)."""

SCOPE_ABSTRACT_UNIX_SOCKET = 1  # ABI 6, Linux 6.12
