"""The probes as they come in: a stream of files for a shell to put down, with the host's Python in it.

Whatever has /bin/sh, dd, mkdir and chmod, and passes standard input on, can be looked at so, be it a jail, a chroot or
another's container; of its own it needs no Python and no C library (docs/decisions/0024-audit.md).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import zipfile
from pathlib import Path

from jailng.core import outfit
from jailng.core.interpreter import PYTHON
from jailng.errors import JailError

CACHE = Path("/var/cache/jailng/probes")
HERE = Path(__file__).resolve().parent
# The half that runs inside; ``__init__`` has nothing but its docstring.
INSIDE = """__init__ probe numbers inside calls counters devices files ipc leaks mounts namespaces network processes
    procfs resources sockets""".split()
# The directory is taken away whatever ends this, but for SIGKILL; then the next one does it. A name that is taken is
# not used, and what lies in a file system without programs does not run. /dev/null need not be there: bwrap(1) binds
# without devices.
SCRIPT = """\
umask 077
for top in /dev/shm /tmp /var/tmp /run /root; do
    for old in $top/.jailng-audit.*; do
        [ -d "$old" ] && [ ! -d "/proc/${old##*.}" ] && ! kill -0 "${old##*.}" 2>&- && rm -rf "$old"
    done
    here=$top/.jailng-audit.$$
    mkdir $here 2>&- || { here=; continue; }
    printf '#!/bin/sh\\nexit 0\\n' 2>&- >$here/try && chmod 700 $here/try && $here/try 2>&- && break
    rm -rf $here
    here=
done
[ "$here" ] || { echo 'no directory that programs can be put into and run from' >&2; exit 1; }
trap 'cd /; rm -rf $here' EXIT
trap 'exit 1' HUP INT TERM PIPE
cd $here || exit 1
while read -r size mode name; do
    [ "$size" = run ] && break
    case $name in */*) mkdir -p "${name%/*}";; esac
    dd of="$name" bs="$size" count=1 iflag=fullblock 2>$here/said && chmod "$mode" "$name" || exit 1
done
[ "$size" = run ] || { echo 'standard input has an end: does the command pass it on?' >&2; exit 1; }
$here/lib/$mode --library-path $here/lib $here/bin/python3 -ISB -c "$name" $1
"""


def stream() -> bytes:
    """All files, each after a line that says how long it is, its mode and its name, and a last line of what to run.

    Kept in ``CACHE``, one for each release of jailng and of Python. Raises JailError.
    """
    sources = [HERE.parent / "__init__.py", *(HERE / f"{name}.py" for name in INSIDE)]
    kept = CACHE / outfit.stamp(sources)
    try:
        return kept.read_bytes()
    except FileNotFoundError:
        pass
    try:
        CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=".new-") as directory:
            made = _make(Path(directory), sources)
            (Path(directory) / "stream").write_bytes(made)
            for old in CACHE.glob("[!.]*"):
                old.unlink()
            os.rename(f"{directory}/stream", kept)
    except (OSError, subprocess.CalledProcessError) as error:
        raise JailError(f"{CACHE}: the probes cannot be made ready: {error}") from None
    return made


def _make(directory: Path, sources: list[Path]) -> bytes:
    loader, version = outfit.gather(directory, sources)
    package = directory / "src/jailng/__init__.py"
    package.write_text("")  # a program in a container has no use for the rest
    library = directory / f"lib/python{version}"
    archive = directory / f"lib/python{version.replace('.', '')}.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for top in (library, directory / "src"):
            _compile(top)
            for file in sorted(top.rglob("*.pyc")):
                if "__pycache__" not in file.parts:
                    zipped.write(file, file.relative_to(top))
    marker = library / "os.py"  # by which Python knows its home
    marker.write_text("")
    shipped = [file for file in directory.rglob("*") if file.is_file() and ".so" in file.name]
    shipped += [directory / "lib" / loader, directory / "bin/python3", archive, marker]
    parts = []
    for file in sorted(set(shipped)):
        content = file.read_bytes() or b"\n"
        mode = "700" if os.access(file, os.X_OK) or file.name == loader else "600"
        parts.append(f"{len(content)} {mode} {file.relative_to(directory)}\n".encode() + content)
    parts.append(f"run {loader} from jailng.audit.inside import main; main()\n".encode())
    return b"".join(parts)


def _compile(top: Path) -> None:
    """Beside the sources, since a zip file has them there; without looking at the sources' times."""
    how = ["-q", "-b", "-f", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([PYTHON, "-ISm", "compileall", *how, str(top)], check=True, stdout=subprocess.DEVNULL)
