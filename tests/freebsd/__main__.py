"""Run FreeBSD's own tests of NAT: ``python -m tests.freebsd DIRECTORY [CASE...]``, as root.

``DIRECTORY`` is tests/sys of FreeBSD's source, of which nothing is in this repository: netpfil/common and common are
enough. Its tests are run as they are, by atf.sh beside this file; where FreeBSD's programs have other words than
Linux's, the programs of bin stand in for them, and for the rest ``jail``, ``jexec``, ``ipnat`` and the shims of this
checkout. Each test has a network and a /run of its own. Exits 1 if one fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FILES = ("nat.sh", "rdr.sh")
# A host of its own: no interface but lo, no jails.
_STAGE = 'mount -t tmpfs -o mode=755 run /run && ip link set lo up && exec "$@"'


def main(directory: Path, wanted: list[str]) -> int:
    """Run all tests with ipnat, or those that are named. The exit status."""
    path = f"{HERE / 'bin'}:{ROOT / 'bin'}:{ROOT / 'shims'}:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {"PATH": path, "JAILNG": str(ROOT), "HOME": "/", "LANG": "C.UTF-8"}
    atf = ["bash", str(HERE / "atf.sh")]
    failed = 0
    for file in (directory / "netpfil/common" / name for name in FILES):
        listed = subprocess.run([*atf, str(file)], env=environment, capture_output=True, text=True, check=True)
        for case in [case for case in listed.stdout.split() if case.startswith("ipfnat_")]:
            if wanted and f"{file.stem}:{case}" not in wanted:
                continue
            stage = ["unshare", "-n", "-m", "-p", "-f", "--mount-proc", "sh", "-c", _STAGE, "sh"]
            done = subprocess.run(
                [*stage, *atf, str(file), case], env=environment, capture_output=True, text=True, cwd="/"
            )
            result = done.stdout.strip().rpartition("\n")[2]
            print(f"{file.stem}:{case}: {result}", flush=True)
            if result != "passed":
                failed += 1
                print(done.stdout + done.stderr)
    return min(failed, 1)


if __name__ == "__main__":
    if len(sys.argv) < 2 or os.geteuid():
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
