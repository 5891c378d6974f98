"""Making the kit (core/kit.py): a directory with jail, jls and jexec, their modules, and the host's Python.

It is made once for each release of jailng and of Python, which takes half a second, and kept below ``CACHE``.
"""

from __future__ import annotations

import ast
import compileall
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jailng
from jailng.core.interpreter import PYTHON
from jailng.core.kit import COMMANDS, PLACE
from jailng.errors import JailError

CACHE = Path("/var/cache/jailng/commands")
_PACKAGE = Path(jailng.__file__).parent
_PARTS = (".", "linux", "params", "conf", "core", "engine", "cli")
_TOP = f"""\
#!/bin/sh
here={PLACE}
exec $here/lib/{{loader}} --library-path $here/lib $here/bin/python3 -ISXutf8 $here/bin/{{command}}.py "$@"
"""
_SCRIPT = """\
import sys
sys.path.append("{place}/src")
sys.argv[0] = "{command}"
from jailng.start import run
run("{command}")
"""
# What a Python loads that imports these modules: the file of each, and of each library.
_ASK = """\
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError:
        pass
print(sys.version_info[0], sys.version_info[1], sep=".")
print(sys._base_executable)
for module in list(sys.modules.values()):
    if getattr(module, "__file__", None):
        print("module", module.__file__)
for line in open("/proc/self/maps"):
    path = line.rstrip("\\n").partition("/")[2]
    if ".so" in path:
        print("library", "/" + path)
"""


def ready() -> str:
    """The kit's directory, made where it is not there yet. Raises JailError."""
    try:
        sources = sorted(_sources())
        kit = CACHE / stamp(sources)
        if kit.is_dir():
            return str(kit)
        CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=".new-") as made:
            _make(Path(made), sources)
            os.chmod(made, 0o755)
            try:
                os.rename(made, kit)
            except OSError:
                if not kit.is_dir():  # another command was faster
                    raise
            else:
                os.mkdir(made)  # for whoever removes it
    except (OSError, subprocess.CalledProcessError) as error:
        raise JailError(f"{CACHE}: the commands for jails in jails cannot be made: {error}") from None
    return str(kit)


def _sources() -> list[Path]:
    """The modules of the three commands, and no others that need much of Python. Raises OSError."""
    # Path.glob() is silent about a directory that cannot be read.
    places = [_PACKAGE / part for part in _PARTS]
    found = [place / name for place in places for name in os.listdir(place) if name.endswith(".py")]
    return [source for source in found if source.name not in ("gather.py", "outfit.py", "jailctl.py", "devfs_rules.py")]


def stamp(sources: list[Path]) -> str:
    """What tells a kit from one of other sources or of another Python."""
    found = [os.stat(PYTHON), *map(os.stat, sources)]
    newest = max(status.st_mtime_ns for status in found)
    return f"{newest:x}-{sum(status.st_size for status in found):x}"


def _make(kit: Path, sources: list[Path]) -> None:
    loader, _ = gather(kit, sources)
    compileall.compile_dir(kit / "src", quiet=2, optimize=0)
    for command in COMMANDS:
        (kit / "bin" / f"{command}.py").write_text(_SCRIPT.format(place=PLACE, command=command))
        (kit / command).write_text(_TOP.format(loader=loader, command=command))
        (kit / command).chmod(0o755)


def gather(kit: Path, sources: list[Path]) -> tuple[str, str]:
    """Put modules of jailng into a directory, with the host's Python and what they need of it.

    The name of the dynamic loader, in ``lib``, and Python's version. Raises OSError, CalledProcessError.
    """
    for source in sources:
        target = kit / "src/jailng" / source.relative_to(_PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    (kit / "lib").mkdir()
    (kit / "bin").mkdir()
    said = subprocess.run(
        [PYTHON, "-IS", "-c", _ASK, *sorted(_imported(sources))], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    version, executable = said[:2]
    shutil.copy(executable, kit / "bin/python3")
    return _copy(kit, version, said[2:]), version


def _copy(kit: Path, version: str, said: list[str]) -> str:
    """Copy Python's modules and libraries; the dynamic loader's name."""
    standard = kit / f"lib/python{version}"
    (standard / "lib-dynload").mkdir(parents=True)
    loader = ""
    for line in said:
        kind, path = line.split(" ", 1)
        if kind == "module" or "/lib-dynload/" in path:
            target = standard / path.partition(f"/python{version}/")[2]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        else:
            name = os.path.basename(path)
            if name.startswith("ld-"):
                loader = name
            else:
                stem, _, version_of_it = name.partition(".so.")
                name = f"{stem}.so.{version_of_it.partition('.')[0]}"  # libz.so.1.3.1 is asked for as libz.so.1
            shutil.copy(path, kit / "lib" / name)
    compileall.compile_dir(standard, quiet=2)
    if not (standard / "os.py").exists():  # by which Python knows its home
        (standard / "os.py").touch()
    return loader


def _imported(sources: list[Path]) -> set[str]:
    """The modules outside jailng that these import, at once or later."""
    names: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source.read_bytes())):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return {name for name in names if name.partition(".")[0] in sys.stdlib_module_names}
