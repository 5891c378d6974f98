"""pkill(1) with FreeBSD's -j, which finds as pgrep(1) does."""

from __future__ import annotations

from jailng.ctl import pgrep


def answer(argv: list[str], real: str | None) -> int:
    """Run pkill; ``real`` is the host's own. Raises UsageError where that is to answer: no -j."""
    return pgrep.answer(argv, real, "pkill")
