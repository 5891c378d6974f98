"""Parts of the kernel that may be modules."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache

_MODPROBE = ("/usr/sbin/modprobe", "/sbin/modprobe")


@cache
def has(name: str) -> bool:
    """Whether the kernel has this module, which is loaded if it can be, or has the same built in.

    One that is built in and has no parameters is seen in the kernel's list of symbols alone.
    """
    if os.path.isdir(f"/sys/module/{name}"):
        return True
    for program in _MODPROBE:
        if os.path.exists(program):
            done = subprocess.run([program, "-q", name], stdin=subprocess.DEVNULL, capture_output=True, check=False)
            if done.returncode == 0:
                return True
            break
    try:
        with open("/proc/kallsyms", "rb") as file:
            return re.search(rb" %s(_init)?\n" % name.encode(), file.read()) is not None
    except OSError:
        return False
