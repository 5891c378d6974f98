"""jail(8) in a chroot, where no user namespace can be made and the root is no mount: it finds its way, and back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.stage import MS_BIND, MS_REC, mount, unmount

IN_CHROOT = """
set -e
"$1" -c path="$2" host.hostname=cell command=hostname
"$1" -c name=stays path="$2" persist
"$3" stays pwd
"$1" -r stays
test "$(pwd)" = "$4"
"""


@pytest.fixture
def chroot(checkout: Path, tmp_path: Path) -> Iterator[Path]:
    """A directory, not a mount point, below which everything that is needed is as it is below /."""
    top = tmp_path / "chroot"
    top.mkdir()
    names = {"bin", "dev", "etc", "lib", "lib64", "proc", "run", "sys", "usr", checkout.parts[1], tmp_path.parts[1]}
    mounted = []
    for name in sorted(names):
        source, target = Path("/", name), top / name
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_dir():
            target.mkdir()
            mount(str(source), target, None, MS_BIND | MS_REC)
            mounted.append(target)
    yield top
    for target in mounted:
        unmount(target)


def test_a_jail_is_made_entered_and_removed_in_a_chroot(checkout: Path, chroot: Path, small_root: Path) -> None:
    script = ["sh", "-c", f"cd {checkout}; {IN_CHROOT}", "sh"]
    words = [str(checkout / "bin/jail"), str(small_root), str(checkout / "bin/jexec"), str(checkout)]
    done = subprocess.run(["chroot", str(chroot), *script, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cell\n/\n", "")
