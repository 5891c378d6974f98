"""``jailctl start``: start jails of jail.conf(5) that do not run. ctl/startstop.py does it."""

from __future__ import annotations

from jailng.ctl import startstop

USAGE = startstop.usage("start")


def main(argv: list[str]) -> int:
    """Run ``jailctl start``; its exit status. Raises UsageError and JailError."""
    return startstop.run("start", argv)
