"""Programs that were written for FreeBSD's commands, unmodified, against a jail with Debian's python3 in it.

jailng is installed as ``make install`` does it, over the stage's own view of /usr, since some clients know no other
place than /usr/sbin. The clients are those of requirements.txt, in .venv-clients; one that is not there is an error.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel import debian as roots
from tests.kernel.conftest import nothing_left_behind, pytest_terminal_summary, stage
from tests.kernel.hostile import RECIPE
from tests.kernel.stage import Stage, mount, unmount

__all__ = ["nothing_left_behind", "pytest_terminal_summary", "stage"]

# FreeBSD's spellings (sysctl) before the host's, as jailctl(8) has it.
HOST = "/usr/sbin:/usr/bin:/sbin:/bin"
PATH = f"/usr/lib/jailng/shims:{HOST}"
# What a client can see wrong: bytes that are no text, and more of them than a pipe holds.
BYTES = bytes(range(256)) * 1024

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


@dataclass(frozen=True)
class Cell:
    """The running jail ``cell``, with the user alice (uid 1001) in it."""

    root: Path

    def read(self, path: str) -> bytes:
        return (self.root / path.lstrip("/")).read_bytes()

    def owner(self, path: str) -> int:
        return (self.root / path.lstrip("/")).stat().st_uid


@pytest.fixture(scope="session", autouse=True)
def installed(stage: Stage, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """/usr with jailng's commands in it; what the machine has there stays as it is."""
    layers = tmp_path_factory.mktemp("layers")
    mount("none", layers, "tmpfs")
    for name in ("upper", "work"):
        (layers / name).mkdir()
    mount("none", "/usr", "overlay", 0, f"lowerdir=/usr,upperdir={layers}/upper,workdir={layers}/work")
    subprocess.run(["make", "-s", "-C", str(checkout), "install"], check=True, stdout=subprocess.DEVNULL)
    yield
    unmount("/usr")
    unmount(layers)


@pytest.fixture(scope="session")
def root(request: pytest.FixtureRequest, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        made = roots.make(RECIPE, prepare=stage.onto_host_network, say=lambda line: print(f"\n{line}", flush=True))
    mine = roots.copy(made, tmp_path_factory.mktemp("roots") / "cell")
    subprocess.run(["chroot", str(mine), "useradd", "-m", "-u", "1001", "-s", "/bin/sh", "alice"], check=True)
    return mine


@pytest.fixture
def cell(root: Path) -> Iterator[Cell]:
    """Made by the installed jail(8)."""
    subprocess.run(["/usr/sbin/jail", "-c", "name=cell", f"path={root}", "host.hostname=cell", "persist"], check=True)
    yield Cell(root)
    subprocess.run(["/usr/sbin/jail", "-r", "cell"], check=True)


@pytest.fixture
def client(checkout: Path, tmp_path: Path) -> Run:
    """Runs one of the clients' own commands, at home in an empty directory."""
    environment = {
        "HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
    }

    def run(*argv: str | os.PathLike[str], timeout: float = 120, path: str = PATH, **more: str) -> Done:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment | {"PATH": f"{checkout}/.venv-clients/bin:{path}"} | more,
            cwd=tmp_path,
            check=False,
        )

    return run
