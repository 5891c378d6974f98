"""``jailctl restart``: stop jails of jail.conf(5), and start them. ctl/startstop.py does it."""

from __future__ import annotations

from jailng.ctl import startstop

USAGE = startstop.usage("restart")


def main(argv: list[str]) -> int:
    """Run ``jailctl restart``; its exit status. Raises UsageError and JailError."""
    return startstop.run("restart", argv)
