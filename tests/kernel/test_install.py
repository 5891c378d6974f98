"""``make install`` gives commands that need no checkout and work from anywhere; ``make uninstall`` undoes it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imports import FORBIDDEN, run
from tests.kernel.stage import mount, unmount

COMMANDS = ("jail", "jls", "jexec")


def _make(checkout: Path, target: str) -> None:
    subprocess.run(["make", "-s", "-C", str(checkout), target], check=True, stdout=subprocess.DEVNULL)


def _files() -> set[str]:
    return {path for top in ("/usr", "/var/cache/jailng") for path, _, _ in os.walk(top)} | {
        os.path.join(path, name)
        for top in ("/usr/bin", "/usr/sbin", "/usr/lib/jailng", "/usr/lib/python3", "/usr/share")
        for path, _, names in os.walk(top)
        for name in names
    }


@pytest.fixture
def system(tmp_path: Path) -> Iterator[None]:
    """A /usr to install into that is the host's own to look at, and nobody's afterwards; and an empty /var/cache.

    In the host's others write, who have jails meanwhile.
    """
    layers = tmp_path / "layers"
    layers.mkdir()
    mount("none", layers, "tmpfs")
    for name in ("upper", "work"):
        (layers / name).mkdir()
    mount("none", "/usr", "overlay", 0, f"lowerdir=/usr,upperdir={layers}/upper,workdir={layers}/work")
    mount("none", "/var/cache", "tmpfs")
    yield
    for target in ("/var/cache", "/usr", str(layers)):
        unmount(target)


def test_what_is_installed_works_and_goes_away(checkout: Path, system: None, small_root: Path) -> None:
    _make(checkout, "uninstall")  # whatever the host had
    before = _files()
    _make(checkout, "install")
    told = subprocess.run(
        ["jail", "-c", f"path={small_root}", "host.hostname=cell", "command=hostname"],
        cwd="/",
        env={"PATH": "/usr/sbin:/usr/bin", "PYTHONPATH": str(checkout), "PYTHONSTARTUP": "/nowhere"},
        capture_output=True,
        text=True,
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, "cell\n", "")
    # Where FreeBSD has it, and Sylve and others call it.
    rules = subprocess.run(["/usr/bin/rctl"], capture_output=True, text=True)
    assert (rules.returncode, rules.stdout, rules.stderr) == (0, "", "")
    _make(checkout, "uninstall")
    assert _files() == before


@pytest.mark.parametrize("command", COMMANDS)
def test_installed_commands_load_nothing_of_the_checkout(checkout: Path, system: None, command: str) -> None:
    _make(checkout, "install")
    script = Path("/usr/sbin", command)
    assert str(checkout) not in script.read_text()
    assert '"/usr/lib/python3/dist-packages"' in script.read_text()
    done, loaded = run(script, "-?")
    assert f"jailng.cli.{command}" in loaded, done.stderr
    assert not loaded & FORBIDDEN


def test_installed_modules_are_compiled(checkout: Path, system: None) -> None:
    """A module that is not costs its compilation at every start, where nobody may write beside it."""
    _make(checkout, "install")
    package = Path("/usr/lib/python3/dist-packages/jailng")
    modules = list(package.glob("**/*.py"))
    assert modules
    assert (package / "py.typed").exists()  # PEP 561: else no type checker takes the annotations
    for module in modules:
        assert list((module.parent / "__pycache__").glob(f"{module.stem}.cpython-*.pyc")), module


def test_users_can_read_what_is_installed(checkout: Path, system: None) -> None:
    """Whatever the umask of who installs it; but the one program that nobody is to read."""
    _make(checkout, "uninstall")
    before = _files()
    subprocess.run(
        ["make", "-s", "-C", str(checkout), "install"], check=True, stdout=subprocess.DEVNULL, preexec_fn=_private
    )
    new = [Path(path) for path in _files() - before]
    assert len(new) > 500
    assert [path for path in new if not path.stat().st_mode & 0o004] == [Path("/usr/lib/jailng/jailinit")]


def _private() -> None:
    os.umask(0o077)
