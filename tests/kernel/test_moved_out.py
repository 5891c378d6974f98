"""What the host moves out of a jail's tree under a process in it leads nowhere; docs/decisions/0022-root-below.md."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.conftest import Command

_WAITS = "cd /srv/data; echo in; read answer; ls ..; ls ../.."

# To a root below that of a process that is left behind, and up from that one's.
_ESCAPES = "sleep 99 & chroot /proc /$!/root/bin/busybox ls /$!/root/..; kill $!"


@pytest.fixture
def neighbour(small_root: Path) -> Path:
    """A directory beside the jail's root, on the same file system, with something in it that is not the jail's."""
    (small_root / "srv/data").mkdir(parents=True)
    made = small_root.parent / "neighbour"
    made.mkdir()
    (made / "secret").touch()
    return made


@pytest.fixture
def cell(jail: Command, small_root: Path, neighbour: Path) -> Iterator[str]:
    made = jail("-c", "name=cell", f"path={small_root}", "persist")
    assert made.returncode == 0, made.stderr
    yield "cell"
    jail("-R", "cell")


@contextmanager
def _inside(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """A shell that is in /srv/data, and looks above it when it is told to."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*argv, "-c", _WAITS], stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "in\n"
        yield shell


def _above(shell: subprocess.Popen[str]) -> str:
    return shell.communicate("\n", timeout=20)[0]


def test_a_directory_moved_to_a_neighbour(jexec: Command, cell: str, small_root: Path, neighbour: Path) -> None:
    with _inside(str(jexec("-h").args[0]), cell, "/bin/sh") as shell:
        (small_root / "srv/data").rename(neighbour / "data")
        seen = _above(shell)
    assert seen.count("No such file or directory") == 2, seen


def test_it_would_be_seen(small_root: Path, neighbour: Path) -> None:
    """chroot(2) alone lets whoever is in there up, without any trick."""
    with _inside("chroot", str(small_root), "/bin/sh") as shell:
        (small_root / "srv/data").rename(neighbour / "data")
        seen = _above(shell)
    assert "secret" in seen
    (small_root / "dev").mkdir(exist_ok=True)
    (small_root / "dev/null").touch()  # the shell has what runs in the background read it
    script = f"mount -t proc proc {small_root}/proc; exec chroot {small_root} /bin/sh -c '{_ESCAPES}'"
    argv = ["unshare", "--mount", "/bin/sh", "-c", script]
    above = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert {"neighbour", "small"} <= set(above.stdout.split())


def test_the_root_itself_moved(jexec: Command, cell: str, small_root: Path, neighbour: Path) -> None:
    """Whoever has another root than the jail's is not stopped by that on the way up; the mount's root stops him."""
    look = ("/bin/sh", "-c", _ESCAPES)
    before = jexec(cell, *look)
    assert "srv\n" in before.stdout, before
    try:
        small_root.rename(neighbour / "small")
        moved = jexec(cell, *look)
    finally:
        (neighbour / "small").rename(small_root)
    assert moved.stdout == before.stdout, moved
