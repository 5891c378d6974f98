"""One file a command: it loads what imports would, in time or not at all, and nothing that has changed since."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jailng import start
from tests.imports import run

INTERPRETER = "/usr/bin/python3"
COMMANDS = {"jail": ("-c", "path=/", "--plan", "command=/bin/true"), "jls": ("-j", "none"), "jexec": ("none", "true")}
_LOADED = """
import sys
sys.path.append(sys.argv[1])
import jailng.start as start
whole = start.load(sys.argv[2])
while start.load_rest():
    pass
print(whole, *sorted(name for name in sys.modules if name.startswith("jailng.")))
"""


@pytest.fixture(scope="module")
def gathered(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources elsewhere, with the files freshly gathered."""
    tmp_path = tmp_path_factory.mktemp("gathered")
    shutil.copytree(checkout / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; sys.path.append(sys.argv[1]); import jailng.gather as g; import os; " + (
        "os.makedirs(sys.argv[1] + '/jailng/__pycache__', exist_ok=True); g.gather()"
    )
    subprocess.run([INTERPRETER, "-I", "-c", code, str(tmp_path / "src")], check=True)
    return tmp_path / "src"


@pytest.fixture
def copy(gathered: Path, tmp_path: Path) -> Path:
    """A copy of these, of the test's own."""
    return shutil.copytree(gathered, tmp_path / "src")


def _load(source: Path, command: str) -> list[str]:
    arguments = [INTERPRETER, "-IS", "-c", _LOADED, str(source), command]
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_it_holds_what_the_command_imports(copy: Path, checkout: Path, command: str) -> None:
    whole, *loaded = _load(copy, command)
    assert whole == "True"
    _, imported = run(checkout / "bin" / command, *COMMANDS[command])
    assert {name for name in imported if name.startswith("jailng.")} <= set(loaded)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_changed_source_is_not_taken_from_it(copy: Path, command: str) -> None:
    with (copy / "jailng/linux/libc.py").open("a") as text:
        text.write("# changed\n")
    whole, *loaded = _load(copy, command)
    assert whole == "False"
    assert "jailng.linux.libc" not in loaded


def test_a_torn_file_is_passed_over(copy: Path) -> None:
    (file,) = (copy / "jailng/__pycache__").glob("jls.*.command")
    file.write_bytes(file.read_bytes()[:-100])
    assert _load(copy, "jls")[0] == "False"
    file.write_bytes(b"")
    assert _load(copy, "jls")[0] == "False"


def test_functions_are_what_they_were(copy: Path) -> None:
    """Without annotations and docstrings, but the same names, defaults and values."""
    code = _LOADED + (
        "import jailng.linux.libc as libc, jailng.params.table as table\n"
        "print(libc.words(1, 2, size=2).hex(), table.lookup('ip4.addr').kind, libc.syscall.__defaults__)\n"
    )
    arguments = [INTERPRETER, "-IS", "-c", code, str(copy), "jail"]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    expected = (1).to_bytes(2, sys.byteorder).hex() + (2).to_bytes(2, sys.byteorder).hex()
    assert done.stdout.splitlines()[-1] == f"{expected} ip4 (0, 0, 0, 0, 0, 0)"


@pytest.mark.parametrize("stale", ["changed", "torn", "missing", "fresh"])
def test_a_script_starts_from_it_or_without_it(copy: Path, checkout: Path, stale: str) -> None:
    (copy.parent / "bin").mkdir()
    shutil.copy(checkout / "bin/jls", copy.parent / "bin/jls")
    (file,) = (copy / "jailng/__pycache__").glob("jls.*.command")
    if stale == "changed":
        with (copy / "jailng/start.py").open("a") as text:
            text.write("sys.stderr.write('imported\\n')\n")
    elif stale == "torn":
        file.write_bytes(file.read_bytes()[:1000])
    elif stale == "missing":
        file.unlink()
    done = subprocess.run([copy.parent / "bin/jls", "-j", "none"], capture_output=True, text=True)
    assert done.stderr == ("imported\n" if stale == "changed" else "") + 'jls: jail "none" not found\n'
    assert done.returncode == 1


def test_what_is_not_built_in_is_imported_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as fcntl and _struct where the interpreter is not Debian's."""
    monkeypatch.setattr(start, "_BUILT_IN", ("_nowhere",))
    start._load_built_in()
    assert "_nowhere" not in sys.modules


def test_what_configurations_take_is_in_one_file_too(copy: Path, checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "jail.conf").write_text("a { path = /; }\n")
    _, imported = run(checkout / "bin/jail", "-f", str(tmp_path / "jail.conf"), "-e", ":")
    code = _LOADED.replace("start.load_rest()", 'start.load_more("configured")', 1)
    arguments = [INTERPRETER, "-IS", "-c", code, str(copy), "jail"]
    _, *loaded = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()
    assert {name for name in imported if name.startswith("jailng.")} <= set(loaded)
    assert "jailng.cli.configured" in loaded
