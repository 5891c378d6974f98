"""Which program a command of exec.* on the host is, and that no jail's root says what that does."""

from __future__ import annotations

import posix

from jailng.core import trees
from jailng.engine import files, hookfiles, hookwords, shellwords
from jailng.linux import filekind
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.trees import Trees, Way
    from jailng.params.model import Parameters

_LINE = 256  # of a script, the kernel's own (BINPRM_BUF_SIZE)
_NESTED = 5  # interpreters that are scripts


class Program:
    """What is to be executed: ``path``, and ``fd`` where somebody might put something else there before that.

    ``fd`` is -1 where the path will do: nobody but root can change any directory on the way, or the file.
    """

    __slots__ = ("fd", "path")

    def __init__(self, path: str, fd: int = -1) -> None:
        self.path = path
        self.fd = fd

    def close(self) -> None:
        """Let go of it."""
        if self.fd >= 0:
            posix.close(self.fd)


def trees_of(name: str, path: str, params: Parameters) -> Trees:
    """The trees that nothing on the host may be executed from: that of a jail, and all others.

    So is what they have mounted to write in: that jail by its ``params``.
    """
    own = [
        written
        for parameter in ("mount", "mount.fstab")
        if (values := params.strings(parameter))
        for written in files.places(parameter, values)
    ]
    return trees.Trees(name, path, files.configured_places, own)


def find(argv: list[str], environment: dict[str, str], cwd: str, enemies: Trees) -> tuple[Program | None, str]:
    """The program of a command, None where there is none, and why it must not be executed, or "".

    Not only the program itself is looked at, but the interpreter of a script, the script of an interpreter, and what
    a line for sh(1) names, as far as it can be seen (``hookwords``).
    """
    found: Program | None = None
    first = True
    seen = hookwords.executed(argv, environment, cwd)
    try:
        kind, word, where, path = next(seen)
        while True:
            if kind == hookwords.PROGRAM:
                program, refusal = _look_up(word, where, path, enemies)
                hit = program is not None
                if first:
                    found = program
                elif program is not None:
                    program.close()
            elif kind in hookfiles.KINDS:
                hit, refusal = False, hookfiles.refusal(kind, word, where, enemies)
            else:
                hit, refusal = _operand(kind, word, where, enemies)
            first = False
            if refusal:
                return found, refusal
            kind, word, where, path = seen.send(hit)
    except StopIteration:
        return found, ""


def _look_up(word: str, cwd: str, path: str, enemies: Trees) -> tuple[Program | None, str]:
    """What execvp(3) would find, of which nothing can be told where there is none."""
    for candidate in [word] if "/" in word else [f"{directory or '.'}/{word}" for directory in path.split(":")]:
        way = _way(candidate, cwd)
        if way is None:
            continue
        if filekind.of(way.status) != filekind.REGULAR or not way.status.st_mode & 0o111:
            way.close()
            continue
        try:
            name = enemies.owner(way)
            refusal = _refusal(visible(candidate), name) if name else _interpreter(way, enemies, 0)
            if not way.loose or refusal or _is_script(way):
                return Program(candidate), refusal
            return Program(candidate, posix.dup(way.end)), ""
        finally:
            way.close()
    return None, ""


def _way(path: str, cwd: str) -> Way | None:
    if not path.startswith("/"):
        if not cwd:
            return None
        path = f"{cwd}/{path}"
    try:
        return trees.Way(path)
    except (OSError, ValueError):
        return None


def _refusal(path: str, name: str) -> str:
    return f"{path}: in the tree of jail {visible(name)}, whose root decides what it does (or set ng.lenient)"


def _head(way: Way) -> bytes:
    """The beginning of a file, which is a regular one: no other is opened."""
    try:
        fd = posix.open(f"/proc/self/fd/{way.end}", posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return posix.read(fd, _LINE)
    except OSError:
        return b""
    finally:
        posix.close(fd)


def _is_script(way: Way) -> bool:
    return _head(way)[:2] == b"#!"


def _interpreter(way: Way, enemies: Trees, depth: int) -> str:
    """Why the program that a script names must not be executed, or ""."""
    head = _head(way)
    words = head[2:].partition(b"\n")[0].split()
    if head[:2] != b"#!" or not words or depth == _NESTED:
        return ""
    path = words[0].decode("utf-8", "surrogateescape")
    next_way = _way(path, "/")
    if next_way is None:
        return ""
    try:
        name = enemies.owner(next_way)
        return _refusal(visible(path), name) if name else _interpreter(next_way, enemies, depth + 1)
    finally:
        next_way.close()


def _operand(kind: int, word: str, cwd: str, enemies: Trees) -> tuple[bool, str]:
    """Whether an operand is what it would be to a program that executes it, and why it must not be, or ""."""
    if isinstance(word, shellwords.Pattern) and word.whole:
        if kind == hookwords.SCRIPT or not (cwd or word.whole.startswith("/")):
            return False, ""
        matches = files.Files().glob(word.whole if word.whole.startswith("/") else f"{cwd}/{word.whole}")
        hit, refusal = _operand(hookwords.SCRIPT, matches[0], "/", enemies) if matches else (False, "")
        if refusal:
            return hit, refusal
    way = _way(word, cwd)
    if way is None:
        return False, ""
    try:
        if filekind.of(way.status) != (filekind.DIRECTORY if kind == hookwords.ROOT else filekind.REGULAR):
            return False, ""
        name = enemies.owner(way)
        return True, _refusal(visible(word), name) if name else ""
    finally:
        way.close()
