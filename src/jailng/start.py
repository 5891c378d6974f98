"""Starting a command: its modules from one file, laid out in the order in which they need one another.

A command loads three dozen small modules, and of the time that takes two thirds go into finding them: a directory
listing, two stats, an open and two reads each, and the import system's own bookkeeping. ``make`` (and the package's
postinst) writes what they compile to into one file beside them; here each is executed, and the imports in it find the
others done. A module whose source has changed since, or that is not in the file, is imported as ever, so the file can
never make a difference but in time (docs/decisions/0004-one-file.md has the numbers).
"""

from __future__ import annotations

import gc
import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    # name, path below the package's parent, size and mtime_ns of the source, whether it is a package, length of the code
    Entry = tuple[str, str, int, int, bool, int]

_ROOT = __file__.rpartition("/jailng/")[0]
_FILE = f"{_ROOT}/jailng/__pycache__/%s.{sys.implementation.cache_tag}.command"
COMMANDS = {
    "jail": ("jailng.cli.jail", "jailng.engine.inside"),
    "jls": ("jailng.cli.jls",),
    "jexec": ("jailng.cli.jexec",),
}


def run(command: str) -> NoReturn:
    """Run one of ``COMMANDS`` with the words of this process's command line, and end the process."""
    gc.disable()  # nothing lives long enough to be collected, and looking for it costs a millisecond
    load(command)
    module = __import__(COMMANDS[command][0], fromlist=["main"])
    posix._exit(module.main(sys.argv[1:]))


def load(command: str) -> bool:
    """Load what the command's file holds; False where it is missing, or from the first module on that has changed."""
    try:
        fd = posix.open(_FILE % command, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return False
    try:
        length = int.from_bytes(posix.read(fd, 4), sys.byteorder)
        entries: list[Entry] = marshal.loads(posix.read(fd, length))
        return all(_load(entry, fd) for entry in entries)
    except (EOFError, TypeError, ValueError):
        return False
    finally:
        posix.close(fd)


def _load(entry: Entry, fd: int) -> bool:
    name, path, size, mtime, package, length = entry
    # A module at a time: what is read for one lies where the last one's lay, and no fresh memory is asked for.
    code = posix.read(fd, length)
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
        exec(marshal.loads(code), module.__dict__)
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
        found = [_entry(name) for name in _completed(modules)]
        head = marshal.dumps([entry for entry, _ in found])
        posix.write(fd, len(head).to_bytes(4, sys.byteorder) + head + b"".join([code for _, code in found]))
        posix.close(fd)
        posix.rename(f"{path}.new", path)


def _completed(modules: tuple[str, ...]) -> list[str]:
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

                spec.loader.exec_module = exec_module  # type: ignore[method-assign]
            return spec

    sys.meta_path.insert(0, Recorder)  # type: ignore[arg-type]
    try:
        for name in modules:
            __import__(name)
    finally:
        sys.meta_path.remove(Recorder)  # type: ignore[arg-type]
    return order


def _entry(name: str) -> tuple[Entry, bytes]:
    file = sys.modules[name].__file__
    assert file is not None
    source = posix.stat(file)
    with open(file, "rb") as text:
        code = marshal.dumps(compile(text.read(), file, "exec", optimize=2, dont_inherit=True))
    package = file.endswith("/__init__.py")
    return (name, file[len(_ROOT) + 1 :], source.st_size, source.st_mtime_ns, package, len(code)), code
