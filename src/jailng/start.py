"""Starting a command: its modules from one file, laid out in the order in which they need one another.

A command loads three dozen small modules, and of the time that takes two thirds go into finding them: a directory
listing, two stats, an open and two reads each, and the import system's own bookkeeping. ``make`` (and the package's
postinst) writes what they compile to into one file beside them; here each is executed, and the imports in it find the
others done. A module whose source has changed since, or that is not in the file, is imported as ever, so the file can
never make a difference but in time (docs/decisions/0004-one-file.md has the numbers).
"""

from __future__ import annotations

import _signal
import gc
import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    # name, path below the package's parent, size and mtime_ns of the source, is it a package, length of the code
    Entry = tuple[str, str, int, int, bool, int]

ROOT = __file__.rpartition("/jailng/")[0]
# The file of a command; pycache's own tag names the interpreter that it is for.
FILE = f"{ROOT}/jailng/__pycache__/%s.{sys.implementation.cache_tag}.command"
# What a command loads at once, its own module last, and what it needs later.
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "jail": (("jailng.cli.jail",), ("jailng.engine.inside",)),
    "jls": (("jailng.core.registry", "jailng.cli.jls"), ()),
    "jexec": (("jailng.cli.jexec",), ()),
}


def run(command: str) -> NoReturn:
    """Run one of ``COMMANDS`` with the words of this process's command line, and end the process."""
    gc.disable()  # nothing lives long enough to be collected, and looking for it costs a millisecond
    load(command)
    module = __import__(COMMANDS[command][0][-1], fromlist=["main"])
    try:
        status = module.main(sys.argv[1:])
    except KeyboardInterrupt:  # what was begun has been undone on the way here
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        _signal.raise_signal(_signal.SIGINT)
        status = 1
    posix._exit(status)


_rest: list[tuple[int, list[Entry]]] = []


def load(command: str) -> bool:
    """Load what the command's file holds up to its main module; the others wait for ``load_rest``.

    False where the file is missing, or from the first module on that has changed.
    """
    if sys.pycache_prefix is not None:
        return False  # whoever says where compiled files are does not mean ours
    try:
        fd = posix.open(FILE % command, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return False
    try:
        length = int.from_bytes(posix.read(fd, 4), sys.byteorder)
        entries: list[Entry] = marshal.loads(posix.read(fd, length))
        last = [entry[0] for entry in entries].index(COMMANDS[command][0][-1]) + 1
        if all(_load(entry, fd) for entry in entries[:last]):
            _rest.append((fd, entries[last:]))
            return True
    except (EOFError, TypeError, ValueError):
        pass
    posix.close(fd)
    return False


def load_rest() -> None:
    """Load what the command needs later, while something else takes time."""
    while _rest:
        fd, entries = _rest.pop()
        all(_load(entry, fd) for entry in entries)
        posix.close(fd)


def _load(entry: Entry, fd: int) -> bool:
    name, path, size, mtime, package, length = entry
    # A module at a time: what is read for one lies where the last one's lay, and no fresh memory is asked for.
    code = posix.read(fd, length)
    if name in sys.modules:
        return True
    where = f"{ROOT}/{path}"
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
