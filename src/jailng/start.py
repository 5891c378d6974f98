"""Starting a command: its modules from one file, laid out in the order in which they need one another.

A command loads three dozen small modules, and of the time that takes two thirds go into finding them: a directory
listing, two stats, an open and two reads each, and the import system's own bookkeeping. ``make`` (and the package's
postinst) writes what they compile to into one file beside them; here each is executed, and the imports in it find the
others done. A module whose source has changed since, or that is not in the file, is imported as ever, so the file can
never make a difference but in time (docs/decisions/0004-one-file.md has the numbers).

The file begins with this module's own code, which the script executes as if it stood there: the script is compiled
whenever it is run, so it is short, and it is ``jailng.start`` as well from then on.
"""

from __future__ import annotations

import _imp
import _signal
import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import NoReturn

    # name, path below the package's parent, size and mtime_ns of the source, is it a package, its code (of this: None)
    Entry = tuple[str, str, int, int, bool, CodeType | None]

ROOT: str = globals()["root"] if __name__ == "__main__" else __file__.rpartition("/jailng/")[0]
# The file of a command; pycache's own tag names the interpreter that it is for.
FILE = f"{ROOT}/jailng/__pycache__/%s.{sys.implementation.cache_tag}.command"
BEGIN = 12288  # so many bytes of it are this module's code: what a script reads
# What a command loads at once, its own module last, and then, each time ``load_rest`` is called, what it needs later.
COMMANDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "jail": (("jailng.cli.jail",), ("jailng.engine.ready",), ("jailng.core.waiting", "jailng.core.remove")),
    "jls": (("jailng.core.registry", "jailng.cli.jls"),),
    "jexec": (
        ("jailng.linux.foreign", "jailng.linux.mountfd", "jailng.cli.jexec"),
        ("jailng.core.machine", "jailng.core.fresh"),
    ),
}
# What a command loads besides where it has to, and the command: files of their own.
MORE: dict[str, tuple[str, tuple[str, ...]]] = {
    "configured": ("jail", ("jailng.conf.merge", "jailng.core.trees", "jailng.cli.configured")),
    "standing": ("jail", ("jailng.cli.standing", "jailng.engine.inside", "jailng.params.change")),
    "policed": ("jail", ("jailng.core.connection", "jailng.params.redirect", "jailng.core.ruleset")),
}
_BUILT_IN = ("gc", "fcntl", "_struct")


def run(command: str, file: int = -1) -> NoReturn:
    """Run one of ``COMMANDS`` with the words of this process's command line, and end the process.

    ``file`` is the command's file, from which the script has read this code; -1 where it has not.
    """
    if _signal.getsignal(_signal.SIGINT) != _signal.SIG_IGN:  # Python's own, for a command that has yet nothing to undo
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    if _signal.getsignal(_signal.SIGCHLD) == _signal.SIG_IGN:  # by the caller: of no child could be heard how it ended
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    try:
        file = _occupy(file)
    except OSError as error:  # there is no /dev/null
        posix.write(2, f"{command}: /dev/null: {error.strerror}\n".encode())
        posix._exit(1)
    if file >= 0 and sys.pycache_prefix is None:
        _load_built_in()
    import gc

    gc.disable()  # nothing lives long enough to be collected, and looking for it costs a millisecond
    if not load(command, file) and "jailng.start" not in sys.modules:  # this code is not what it should be
        from jailng.start import run as again

        again(command)
    module = __import__(COMMANDS[command][0][-1], fromlist=["main"])
    try:
        status = module.main(sys.argv[1:])
    except KeyboardInterrupt as interrupt:  # what was begun has been undone on the way here
        _signal.signal(interrupt.args[0], _signal.SIG_DFL)
        _signal.raise_signal(interrupt.args[0])
        status = 1
    except (ImportError, OSError) as error:  # without the memory or the descriptor to read a module, say
        what = f"{error.filename or 'system call'}: {error.strerror}" if isinstance(error, OSError) else error
        posix.write(2, f"{command}: {what}\n".encode("utf-8", "backslashreplace"))
        status = 1
    except MemoryError:
        posix.write(2, b"%s: Cannot allocate memory\n" % command.encode())
        status = 1
    posix._exit(status)


closed: list[int] = []  # which of 0, 1 and 2 the caller has


def _occupy(file: int) -> int:
    """Have /dev/null where the caller has closed 0, 1 or 2; ``file``, which may have landed there, where it is then.

    Whatever was opened next would be there: what a command writes would go to it, and what it starts would have it.
    """
    for fd in (0, 1, 2):
        try:
            if posix.get_inheritable(fd):
                continue
            if fd == file:  # nothing that survived exec is not inheritable, so it is ours
                file = posix.dup(fd)
        except OSError:
            pass
        closed.append(fd)
        null = posix.open("/dev/null", posix.O_RDWR)
        if null != fd:
            posix.dup2(null, fd)
            posix.close(null)
        posix.set_inheritable(fd, True)
    return file


_rest: list[int] = []  # the command's file, once for each part of it that is still to be loaded


def load(command: str, file: int = -1) -> bool:
    """Load what the command's file holds up to its main module; the others wait for ``load_rest``.

    False where the file is missing, or from the first module on that has changed.
    """
    if sys.pycache_prefix is not None:
        return False  # whoever says where compiled files are does not mean ours
    if file < 0:
        try:
            file = posix.open(FILE % command, posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:
            return False
        posix.lseek(file, BEGIN, 0)
    whole = _load_part(file)
    if whole:
        _rest.extend([file] * (len(COMMANDS[command]) - 1))
    if not _rest:
        posix.close(file)
    return whole


def load_rest() -> bool:
    """Load the next part of what the command needs later, while something else takes time; False: there is none."""
    if not _rest:
        return False
    file = _rest.pop()
    _load_part(file)
    if not _rest:
        posix.close(file)
    return True


def load_more(name: str) -> None:
    """Load what ``MORE`` has by that name, as far as it is as it was when it was written; imports find the rest."""
    if sys.pycache_prefix is None:
        try:
            file = posix.open(FILE % name, posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:
            return
        _load_part(file)
        posix.close(file)


def _load_built_in() -> None:
    """Have modules that are a part of Debian's interpreter without a search for them, which takes 0.03 ms each.

    Another's may have them in files, as any other module.
    """
    for name in _BUILT_IN:
        if not _imp.is_builtin(name):
            continue
        spec = type(sys.__spec__)(name, sys.__spec__.loader, origin="built-in")
        module = sys.modules[name] = _imp.create_builtin(spec)
        _imp.exec_builtin(module)


def _load_part(file: int) -> bool:
    """Execute the modules of a part, each after those that it needs; False from the first on that has changed."""
    entries: list[Entry] = []
    try:
        while size := int.from_bytes(posix.read(file, 4), "little"):
            entries += marshal.loads(posix.read(file, size))
    except (EOFError, TypeError, ValueError):
        return False
    if not entries:
        return False
    modules = sys.modules
    for name, path, size, mtime, package, code in entries:
        if name in modules:
            continue
        where = f"{ROOT}/{path}"
        try:
            source = posix.stat(where)
        except OSError:
            return False
        if source.st_size != size or source.st_mtime_ns != mtime:
            return False
        if code is None:
            modules[name] = modules["__main__"]
            continue
        module = modules[name] = type(sys)(name)
        module.__file__ = where
        if package:
            module.__path__ = [where.rpartition("/")[0]]
        try:
            exec(code, module.__dict__)
        except BaseException:
            del modules[name]
            raise
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    return True
