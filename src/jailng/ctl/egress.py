"""jailctl egress: the rules of what may leave jails (ng.egress), with what they have counted."""

from __future__ import annotations

from jailng.core import tally
from jailng.ctl import rulelist
from jailng.errors import UsageError

USAGE = "usage: jailctl egress list [--json] [jail]"
_COLUMNS = {"packets": "PACKETS", "bytes": "BYTES", "over": "OVER"}


def main(argv: list[str]) -> int:
    """Run; the exit status. Raises JailError, UsageError, OSError."""
    if argv[:1] != ["list"]:
        raise UsageError(USAGE)
    return rulelist.show(rulelist.Kind("egress", USAGE, _COLUMNS, tally.leaving), argv[1:])
