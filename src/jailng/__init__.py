"""jailng: FreeBSD's jail(8) on Linux."""
