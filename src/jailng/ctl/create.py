"""``jailctl create``: a jail that has no process and no root. What joins it brings one (``jailctl join -c``)."""

from __future__ import annotations

import sys

from jailng.core import registry
from jailng.engine import beginning, ending, life
from jailng.errors import JailError, UsageError
from jailng.linux import ns
from jailng.params import instance
from jailng.params.model import Parameters
from jailng.params.values import visible

USAGE = "usage: jailctl create jailname"


class _Voice(life.Voice):
    """Tells of what ought to be mended."""

    __slots__ = ()

    def warn(self, text: str) -> None:
        """On standard error."""
        sys.stderr.write(f"jailctl: create: {visible(text)}\n")


def main(argv: list[str]) -> int:
    """Make the jail. Raises UsageError, JailError."""
    if len(argv) != 1 or not argv[0] or argv[0].startswith("-"):
        raise UsageError(USAGE)
    name = argv[0]
    if ns.is_jailed():
        raise JailError("create: only the host makes jails without a root")
    try:
        params = Parameters()
        params.add("name", name)
        for parameter, value in instance.created():
            params.add(parameter, value)
        if registry.find(name) is not None:
            raise JailError(f'"{name}" already exists')
        ending.clear_away(name)
        life.settle(params, _Voice())
        beginning.start(life.Life(params, None, _Voice()))
    except JailError as error:
        raise JailError(f"create: {error}", error.status) from None
    return 0
