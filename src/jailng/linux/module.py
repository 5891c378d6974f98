"""Parts of the kernel that may be modules."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
from functools import cache

_MODPROBE = ("/usr/sbin/modprobe", "/sbin/modprobe")


@cache
def has(name: str) -> bool:
    """Whether the kernel has this module, which is loaded if it can be, or has the same built in.

    What is built in and has no parameters is seen in the kernel's configuration, where it is named as the module is,
    and failing that in its list of symbols, which takes 50 ms to read.
    """
    if os.path.isdir(f"/sys/module/{name}"):
        return True
    for program in _MODPROBE:
        if os.path.exists(program):
            done = subprocess.run([program, "-q", name], stdin=subprocess.DEVNULL, capture_output=True, check=False)
            if done.returncode == 0:
                return True
            break
    configuration = _configuration()
    if configuration:
        return f"\nCONFIG_{name.upper()}=y\n".encode() in configuration
    try:
        with open("/proc/kallsyms", "rb") as file:
            return re.search(rb" %s(_init)?\n" % name.encode(), file.read()) is not None
    except OSError:
        return False


def _configuration() -> bytes:
    """What this kernel was built with; nothing where it does not tell."""
    try:
        with gzip.open("/proc/config.gz") as packed:
            return packed.read()
    except OSError:
        pass
    try:
        with open(f"/boot/config-{os.uname().release}", "rb") as file:
            return file.read()
    except OSError:
        return b""
