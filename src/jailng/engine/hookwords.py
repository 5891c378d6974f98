"""What a command string of the host's would execute, and work on (``hookfiles``), as far as it can be seen in it.

It is followed as sh(1) would: assignments, ``cd``, programs that execute others. What is only known when it runs (a
variable that is not in the environment, what a command prints, what a script does) is not seen.
"""

from __future__ import annotations

from jailng.engine import hookfiles
from jailng.engine.hooktables import (
    CHANGERS,
    DECLARING,
    FINDS,
    GLUED,
    KEYWORDS,
    LOADED,
    LOCAL,
    OBEDIENT,
    READERS,
    RUNNERS,
    SHELLS,
    THROUGH,
    TOLD,
)
from jailng.engine.shellwords import Pattern, commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    Found = Generator[tuple[int, str, str, str], bool, None]

_DEEPEST = 4  # sh -c in sh -c

PROGRAM, SCRIPT, ROOT = range(3)


def executed(argv: list[str], environment: dict[str, str], cwd: str) -> Found:
    """What a command would execute: a kind, a word, the directory it is relative to ("" if that is not known), PATH.

    PROGRAM: the word is looked up in PATH if it has no slash, and if that finds something it is executed. SCRIPT: if it
    is a file, it is read and obeyed. ROOT: if it is a directory, a program in that is executed. The generator is to be
    sent each time whether it was so. The other kinds are those of ``hookfiles``.
    """
    state = _State(dict(environment), cwd)
    yield from state.command([*argv], 0)


class _State:
    """Where the shell would be, and what it knows."""

    __slots__ = ("cwd", "known")

    def __init__(self, known: dict[str, str], cwd: str) -> None:
        self.known = known
        self.cwd = cwd

    def command(self, words: list[str | None], depth: int, given: str | None = None) -> Found:
        """One simple command; None is a word that cannot be known, ``given`` the file that is its standard input."""
        at, path = self._begin(words)
        yield from self._loaded(words, path)
        if at == len(words):
            return
        first = words[at]
        if first is None:
            return
        operands = words[at + 1 :]
        name = first.rpartition("/")[2]
        unversioned = name.rstrip("0123456789.")  # python3.13, tclsh8.6
        name = unversioned if unversioned in READERS else name
        if first == "function":  # name { command
            yield from self.command(operands[1:], depth)
            return
        if self._is_the_shells(first, operands):
            return
        if isinstance(first, Pattern):
            yield from self._matched(first, path)
        else:
            yield PROGRAM, first, self.cwd, path
        if name in READERS:
            yield from self._read(name, operands, given, path)
        yield from self._obeyed(name, operands, path)
        for kind, word in hookfiles.worked_on(name, operands):
            yield kind, word, self.cwd, path
        yield from self._nested(name, operands, path, depth)

    def _is_the_shells(self, first: str, operands: list[str | None]) -> bool:
        """Whether it is a command that changes what the shell knows and nothing else."""
        if first in ("cd", "pushd"):
            self._change(operands)
        elif first in ("builtin", "command") and operands and operands[0] in ("cd", "pushd"):
            self._change(operands[1:])
        elif first in DECLARING:
            for word in operands:
                name, equals, value = (word or "").partition("=")
                if equals:
                    self.known[name] = value
        elif first == "set" and "--" in operands:
            self._be_given(operands[operands.index("--") + 1 :], 1)
        else:
            return False
        return True

    def _be_given(self, words: list[str | None], first: int) -> None:
        """Know positional parameters, from the number ``first`` on."""
        for number, word in enumerate(words, first):
            if word:
                self.known[str(number)] = word

    def _matched(self, word: Pattern, path: str) -> Found:
        """What is executed, or read, is what matches."""
        if not (yield ROOT, word, self.cwd, path):
            yield SCRIPT, word, self.cwd, path

    def _loaded(self, words: list[str | None], path: str) -> Found:
        """What variables among the words have loaded, or read first."""
        for word in words:
            variable, _, value = (word or "").partition("=")
            if variable in LOADED:
                for part in filter(None, value.replace(" ", ":").split(":")):
                    yield SCRIPT, part, self.cwd, path
                    yield ROOT, part, self.cwd, path

    def _read(self, name: str, operands: list[str | None], given: str | None, path: str) -> Found:
        """The script of an interpreter."""
        if given:
            yield SCRIPT, given, self.cwd, path
        if _has_option(operands, READERS[name]):
            if name == "python" and not _has_option(operands, "IP"):
                yield ROOT, ".", self.cwd, path  # where it looks for modules first
            return
        for word in operands:
            if isinstance(word, Pattern):
                yield from self._matched(word, path)
            elif word and (word[0] != "-" or name in (".", "source")):
                if name in (".", "source") and "/" not in word:
                    for directory in path.split(":"):
                        yield SCRIPT, f"{directory or '.'}/{word}", self.cwd, path
                if (yield SCRIPT, word, self.cwd, path):
                    return

    def _obeyed(self, name: str, operands: list[str | None], path: str) -> Found:
        """Directories and files among the operands that say what is executed."""
        if name in CHANGERS:
            for word in operands:
                if word:
                    yield ROOT, _value_of(word), self.cwd, path
        if name in OBEDIENT:
            for word in operands:
                if word:
                    yield SCRIPT, word, self.cwd, path
        if name in LOCAL and not _has_option(operands, "C"):
            yield ROOT, ".", self.cwd, path
        if name in TOLD:
            for told in filter(None, _of_options(operands, *TOLD[name])):
                yield SCRIPT, told, self.cwd, path
                yield ROOT, told, self.cwd, path

    def _begin(self, words: list[str | None]) -> tuple[int, str]:
        """Where a command begins behind keywords and assignments, and the PATH that it is looked up in."""
        path = self.known.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        for at, word in enumerate(words):
            name, equals, value = (word or "").partition("=")
            if word in KEYWORDS:
                continue
            if not equals or not name.isidentifier():
                return at, path
            if name == "PATH":
                path = value
        for word in words:  # nothing but assignments: they are the shell's own
            name, equals, value = (word or "").partition("=")
            if equals:
                self.known[name] = value
        return len(words), path

    def _nested(self, name: str, operands: list[str | None], path: str, depth: int) -> Found:
        if depth == _DEEPEST:
            return
        if name == "eval":
            yield from self.script(" ".join([word for word in operands if word]), depth + 1)
        elif name == "trap" and operands and operands[0]:
            yield from _State(dict(self.known), self.cwd).script(operands[0], depth + 1)
        elif name in SHELLS or name in ("script", "su"):
            for at, word in enumerate(operands[:-1]):
                text = next((other for other in operands[at + 1 :] if not other or other[0] not in "-+"), None)
                if word and text and _has_option([word], "c"):
                    inner = _State(dict(self.known), self.cwd)
                    inner._be_given(operands[operands.index(text) + 1 :], 0)
                    yield from inner.script(text, depth + 1)
            for word in operands:
                if word and word.startswith(GLUED):
                    yield from self._told(name, word, depth)
            if name == "su":
                yield from self._as_another(operands, path)
        elif name == "find":
            yield from self._found(operands, path, depth)
        elif name in RUNNERS or name.startswith("ld-linux"):
            yield from self._run(name, operands, path, depth)

    def _run(self, name: str, operands: list[str | None], path: str, depth: int) -> Found:
        """What a program executes that executes one of its operands, which env(1) does elsewhere, by another PATH."""
        state = _State({**self.known, "PATH": path}, self.cwd)
        if name == "ip":
            if "exec" in operands:  # in a network namespace
                yield from state.command(operands[operands.index("exec") + 2 :], depth + 1)
            return
        before = ""
        for at, word in enumerate(operands):
            if word is None:
                return
            if isinstance(word, Pattern):
                yield from state._matched(word, path)
                return
            variable, _, value = word.partition("=")
            if name == "env" and variable == "--split-string":
                yield from state.script(value, depth + 1)
            elif name == "env" and variable in ("PATH", "--chdir"):
                if variable == "PATH":
                    state.known["PATH"] = path = value
                else:
                    state._change([value])
            elif name == "env" and (before in ("-C", "--chdir") or word[:2] == "-C" != word):
                state._change([word.removeprefix("-C")])
            elif word and word[0] != "-" and "=" not in word and (yield PROGRAM, word, state.cwd, path):
                yield from state.command(operands[at:], depth + 1)
                return
            else:
                yield from state._told(name, word, depth)
            before = word

    def _told(self, name: str, word: str, depth: int) -> Found:
        """What is executed by a word that is no program: a line for a shell, as flock(1) takes it, or a part of it."""
        text = ""
        if word.startswith(GLUED):
            text = word.partition("=")[2]
        elif name == "start-stop-daemon" and word[:2] in ("-x", "-a"):
            text = word[2:]
        elif word[:1] != "-" and len(word.split()) > 1 and "=" not in word.split()[0]:
            text = word
        if text:
            yield from _State(dict(self.known), self.cwd).script(text, depth + 1)

    def _as_another(self, operands: list[str | None], path: str) -> Found:
        """The shell that su(1) is told, and the script that it hands on to one."""
        for at, word in enumerate(operands):
            if not word:
                continue
            told: str | None = ""
            if word in ("-s", "--shell"):
                told = next(iter(operands[at + 1 :]), None)
            elif word.startswith(("-s", "--shell=")):
                told = word.removeprefix("--shell=").removeprefix("-s")
            if told:
                yield PROGRAM, told, self.cwd, path
            elif word[0] != "-":
                yield SCRIPT, word, self.cwd, path

    def _found(self, operands: list[str | None], path: str, depth: int) -> Found:
        """What find(1) executes: a command, or what it finds below one of its first operands."""
        for at, word in enumerate(operands[:-1]):
            follows = operands[at + 1]
            if word not in FINDS or not follows:
                continue
            words = operands[at + 1 :]
            yield from self.command([*words], depth + 1)
            for top in operands:
                if top and top[0] in "-(!":
                    break
                if top and follows.startswith("./"):
                    yield ROOT, top, self.cwd, path
                elif top:
                    there = [Pattern(top) if other and "{}" in other else other for other in words]
                    yield from self.command(there, depth + 1)

    def _change(self, operands: list[str | None]) -> None:
        words = [word for word in operands if word not in ("-P", "-L", "--")]
        target = words[0] if words else self.known.get("HOME")
        if target is None or target == "-":
            self.cwd = ""
        elif target.startswith("/"):
            self.cwd = target
        elif self.cwd:
            self.cwd = f"{self.cwd}/{target}"

    def script(self, text: str, depth: int) -> Found:
        """All commands of a text for sh(1)."""
        for words, given, written in commands(text, self.known):
            for word in written:
                yield THROUGH, word, self.cwd, ""
            yield from self.command(words, depth, given)


def _has_option(words: list[str | None], letters: str) -> bool:
    """Whether one of these letters is among the options that are letters."""
    return any(word and word[0] == "-" and word[1:2] != "-" and set(letters) & set(word) for word in words)


def _of_options(words: list[str | None], letters: str, names: tuple[str, ...]) -> Iterator[str]:
    """What these options are given, in a word of its own or in theirs."""
    before: str | None = None
    for word in words:
        option, _, value = (word or "").partition("=")
        if _has_option([before], letters) or before in [f"--{name}" for name in names]:
            yield word or ""
        elif option[:2] == "--":
            yield value if option[2:] in names else ""
        elif word and word[0] == "-" and word[1:2] in [*letters]:
            yield word[2:]
        before = word


def _value_of(word: str) -> str:
    """What an option like --root=DIR says, or the word itself."""
    return word.partition("=")[2] if word.startswith("-") else word
