"""``jailctl stop``: stop jails. ctl/startstop.py does it."""

from __future__ import annotations

from jailng.ctl import startstop

USAGE = startstop.usage("stop")


def main(argv: list[str]) -> int:
    """Run ``jailctl stop``; its exit status. Raises UsageError and JailError."""
    return startstop.run("stop", argv)
