"""Which modules a command loads: what the interpreter itself says, in every process that the command forks."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

# 3 to 17 ms each where jail(8) as a whole has twelve: never on the way to a jail, into one, or to the list of them.
FORBIDDEN = frozenset(
    "argparse collections contextlib ctypes dataclasses enum functools json logging os pathlib re shutil signal socket "
    "struct subprocess tempfile typing".split()
)
# Not in /tmp: what is found there is run, as root.
_CACHE = Path(__file__).resolve().parents[1] / ".pytest_cache/modules"
_LINE = re.compile(r"import time: +\d+ \| +\d+ \| *(\S+)")


def run(script: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run a command, with the options of its first line, and say what it loaded on top of a bare interpreter."""
    interpreter, *options = script.read_text().splitlines()[0].removeprefix("#!").split()
    # Modules that come from a command's one file are not imports; with a cache elsewhere there is no such file.
    timed = [interpreter, *options, "-X", "importtime", "-X", f"pycache_prefix={_CACHE}"]
    # `-c pass` would load linecache, which a script does not.
    bare = subprocess.run([*timed, "/dev/null"], capture_output=True, text=True, check=True).stderr
    done = subprocess.run([*timed, str(script), *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done, set(_LINE.findall(done.stderr)) - set(_LINE.findall(bare))
