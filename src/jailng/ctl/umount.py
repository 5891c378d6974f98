"""umount(8) with FreeBSD's ``-a -F FILE``: what a file like /etc/fstab names. All else is the host's own."""

from __future__ import annotations

import getopt
import subprocess
from pathlib import Path

from jailng.conf import fstab
from jailng.ctl import mount
from jailng.errors import UsageError

USAGE = "usage: umount -a -F fstab [-fv]"


def answer(argv: list[str], real: str | None) -> int:
    """Take away what is there, the last of the file first; 1 if one stays.

    Raises JailError, OSError; UsageError for what ``real``, the host's own, is to answer.
    """
    try:
        options, words = getopt.getopt(argv, "aF:fv")
    except getopt.GetoptError:
        raise UsageError(USAGE) from None
    given = dict(options)
    if words or "-F" not in given or "-a" not in given or real is None:
        raise UsageError(USAGE)
    letters = [letter for letter in ("-f", "-v") if letter in given]
    status = 0
    for entry in reversed(fstab.parse(Path(given["-F"]).read_text(encoding="utf-8", errors="surrogateescape"))):
        if mount.is_mounted(entry.target):
            done = subprocess.run([real, *letters, "--", entry.target], check=False)
            status |= int(done.returncode != 0)
    return status
