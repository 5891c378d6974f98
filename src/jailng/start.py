"""Starting a command: its modules from one file, laid out in the order in which they need one another.

A command loads three dozen small modules, and of the time that takes two thirds go into finding them: a directory
listing, two stats, an open and two reads each, and the import system's own bookkeeping. ``make`` (and the package's
postinst) writes what they compile to into one file beside them; here each is executed, and the imports in it find the
others done. A module whose source has changed since, or that is not in the file, is imported as ever, so the file can
never make a difference but in time (docs/decisions/0004-one-file.md has the numbers).
"""

from __future__ import annotations

import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import NoReturn

    # name, path below the package's parent, size and mtime_ns of the source, whether it is a package, code
    Entry = tuple[str, str, int, int, bool, CodeType]

_ROOT = __file__.rpartition("/jailng/")[0]
_FILE = f"{_ROOT}/jailng/__pycache__/%s.{sys.implementation.cache_tag}.command"
COMMANDS = {
    "jail": ("jailng.cli.jail", "jailng.engine.inside"),
    "jls": ("jailng.cli.jls",),
    "jexec": ("jailng.cli.jexec",),
}


def run(command: str) -> NoReturn:
    """Run one of ``COMMANDS`` with the words of this process's command line, and end the process."""
    for entry in _read(command):
        if not _load(entry):
            break
    module = __import__(COMMANDS[command][0], fromlist=["main"])
    posix._exit(module.main(sys.argv[1:]))


def _read(command: str) -> list[Entry]:
    try:
        fd = posix.open(_FILE % command, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return []
    try:
        entries: list[Entry] = marshal.loads(posix.read(fd, posix.fstat(fd).st_size))
        return entries
    except (EOFError, TypeError, ValueError):
        return []
    finally:
        posix.close(fd)


def _load(entry: Entry) -> bool:
    name, path, size, mtime, package, code = entry
    if name in sys.modules:
        return True
    where = f"{_ROOT}/{path}"
    try:
        source = posix.stat(where)
    except OSError:
        return False
    if (source.st_size, source.st_mtime_ns) != (size, mtime):
        return False
    module = type(sys)(name)
    module.__file__ = where
    module.__package__ = name if package else name.rpartition(".")[0]
    if package:
        module.__path__ = [where.rpartition("/")[0]]
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return True


def build() -> None:
    """Write the files. Run by ``make`` and ``make install``, in a process of its own."""
    for command, modules in COMMANDS.items():
        path = _FILE % command
        fd = posix.open(f"{path}.new", posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o644)
        posix.write(fd, marshal.dumps(_entries(modules)))
        posix.close(fd)
        posix.rename(f"{path}.new", path)


def _entries(modules: tuple[str, ...]) -> list[Entry]:
    """What these modules import, in the order in which the imports are completed."""
    for name in [name for name in sys.modules if name.startswith("jailng.") and name != "jailng.start"]:
        del sys.modules[name]
    order: list[str] = []
    finder = sys.meta_path[-1]

    class Recorder:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> object:
            spec = finder.find_spec(name, path, target)  # type: ignore[arg-type]
            if spec is not None and spec.loader is not None and name.startswith("jailng."):
                execute = spec.loader.exec_module

                def exec_module(module: object) -> None:
                    execute(module)  # type: ignore[arg-type]
                    order.append(name)

                spec.loader.exec_module = exec_module  # type: ignore[method-assign, assignment]
            return spec

    sys.meta_path.insert(0, Recorder)  # type: ignore[arg-type]
    try:
        for name in modules:
            __import__(name)
    finally:
        sys.meta_path.remove(Recorder)  # type: ignore[arg-type]
    return [_entry(name) for name in order]


def _entry(name: str) -> Entry:
    file = sys.modules[name].__file__
    assert file is not None
    source = posix.stat(file)
    with open(file, "rb") as text:
        code = compile(text.read(), file, "exec", optimize=2, dont_inherit=True)
    package = file.endswith("/__init__.py")
    return name, file[len(_ROOT) + 1 :], source.st_size, source.st_mtime_ns, package, code
