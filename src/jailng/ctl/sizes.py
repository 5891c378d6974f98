"""--max-files and --max-size of verbs that move files."""

from __future__ import annotations

import re

from jailng.ctl.told import Limits
from jailng.errors import JailError

OPTIONS = ["max-files=", "max-size="]
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def take(verb: str, limits: Limits, option: str, value: str) -> bool:
    """Whether it is one of these options, which is then carried over. Raises JailError: no such number."""
    if option == "--max-files" and re.fullmatch(r"\d{1,12}", value, re.ASCII):
        limits.files = int(value)
    elif option == "--max-size" and (size := re.fullmatch(r"(\d{1,15})([kKmMgGtT]?)", value, re.ASCII)):
        limits.size = int(size[1]) << _UNITS[size[2].lower()]
    elif option in ("--max-files", "--max-size"):
        what = "a number, 0 for any" if option == "--max-files" else "a number of bytes, as in 10g; 0 for any"
        raise JailError(f"{verb}: {option} {value}: not {what}")
    else:
        return False
    return True
