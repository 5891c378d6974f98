"""sysctl(8): FreeBSD's names of what a client asks about jails. All else is the host's own to answer.

Options, outputs and errors are those of sbin/sysctl/sysctl.c of FreeBSD 15.
"""

from __future__ import annotations

import os
import subprocess
import sys

from jailng.core import jailinit
from jailng.ctl import listing, mib, shim, vnet
from jailng.ctl.mib import Variable, View
from jailng.errors import JailError, UsageError
from jailng.params.values import visible

USAGE = """\
usage: jailctl sysctl [-bdehiNnoqtTWx] [-j jail] name[=value] ...
       jailctl sysctl [-bdehNnoqtTWx] [-j jail] -a
       jailctl sysctl --json [-TW] -a | name ..."""
_LETTERS = frozenset("AabdehiNnoqtTwWxX")
_OURS = ("jail", "kern", "security")  # the tops of trees that Linux does not have
_THEIRS = frozenset("Nnq")  # letters that mean about the same to the host's own
_SIZES = {mib.BYTE: 1, mib.INTEGER: 4, mib.UNSIGNED: 4, mib.LONG: 8}
_SPACE = " \t\n\v\f\r"


def main(argv: list[str]) -> int:
    """``jailctl sysctl``. Raises UsageError."""
    if "--json" in argv:
        return _listing([word for word in argv if word != "--json"])
    script = f"{jailinit.place('shims', 'lib/jailng/shims')}/sysctl"
    real = shim.behind(script, os.environ.get("PATH", os.defpath))
    try:
        return answer(argv, real)
    except UsageError:
        if real is None or not argv:
            raise
        os.execv(real, ["sysctl", *argv])


def _listing(argv: list[str]) -> int:
    """Our variables as JSON: all, or those below the names. Raises UsageError."""
    letters, words = _options(argv)
    if not letters <= set("aTW") or ("a" in letters) is bool(words) or any(set(word) & set("=:") for word in words):
        raise UsageError(USAGE)
    call = _Call(letters, None, words)
    chosen = [variable for word in words for variable in call.below(word)] if words else call.variables
    unknown = [word for word in words if not call.below(word)]
    status = sum([_complain(f"unknown oid '{word}'") for word in unknown])
    rows = [call.fact(variable) for variable in chosen if variable.kind != mib.NODE and call.is_shown(variable)]
    return listing.document({"variables": rows}) or status


def answer(argv: list[str], real: str | None) -> int:
    """Answer all words of a command line, those that are not about jails by the program ``real``; the exit status.

    With -j it is the jail's own that answers, in there. Raises UsageError where there is nothing in it that is ours to
    answer.
    """
    jail, argv = vnet.jail_of(argv)
    if jail is not None:
        jexec = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "jexec")
        os.execv(jexec, ["jexec", "-l", "--", jail, "sysctl", *argv])
    letters, words = _options(argv)
    call = _Call(letters, real, words)
    if letters & set("AaX") and not words:
        return call.all()
    if not any(call.is_ours(word) for word in words):
        raise UsageError(USAGE)
    if {"N", "n"} <= letters:
        raise UsageError(USAGE)
    return sum([call.one(word) for word in words])


def _options(argv: list[str]) -> tuple[set[str], list[str]]:
    """As getopt(3) of FreeBSD has it: options come first. Raises UsageError for what only the host's own knows."""
    words = list(argv)
    letters: set[str] = set()
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        letters |= set(word[1:])
    if not letters <= _LETTERS:
        raise UsageError(USAGE)
    return letters, words


class _Call:
    """One call: its letters, the variables, and the host's own program."""

    def __init__(self, letters: set[str], real: str | None, words: list[str]) -> None:
        self.letters = letters
        self.real = real
        self.view = View()
        self.variables = mib.variables(instances=not words or any(word.startswith("jail") for word in words))
        self.names = {variable.name for variable in self.variables}

    def is_ours(self, word: str) -> bool:
        """Whether a word is about a name of ours, or one that nobody else can have."""
        name = _split(word)[0].rstrip(".")
        return name.partition(".")[0] in _OURS or (name in self.names and "." in name)

    def all(self) -> int:
        """-a: all of the host's own, and then all of ours."""
        status = 0
        if self.real is not None and not self.letters & set("bdtTWxX"):
            status = self._theirs("-a")
        for variable in self.variables:
            if variable.kind != mib.NODE:
                self._show(variable)
        return status

    def _theirs(self, *words: str) -> int:
        assert self.real is not None
        sys.stdout.flush()
        letters = [f"-{letter}" for letter in sorted(self.letters & _THEIRS)]
        if "i" in self.letters:
            letters.append("-e")
        return subprocess.run([self.real, *letters, *words], check=False).returncode

    def one(self, word: str) -> int:
        """Answer one word; 0, or 1 after it has been told what is wrong with it."""
        if not self.is_ours(word):
            return (
                int(self._theirs(word) != 0) if self.real is not None else _complain(f"unknown oid '{_split(word)[0]}'")
            )
        name, value = _split(word)
        found = self.below(name)
        if not found:
            if self.letters & {"i", "q"}:
                return int("i" not in self.letters)
            return _complain(f"unknown oid '{name}'")
        if value is not None and "d" not in self.letters:
            if self.letters & {"T", "W"}:
                return _complain("Can't set variables when using -T or -W")
            return self._set(word, found[0], value)
        if found[0].kind != mib.NODE:
            return self._show(found[0], alone=True)
        if "d" in self.letters:
            self._show(found[0])
        for variable in found[1:]:
            if variable.kind != mib.NODE:
                self._show(variable)
        return 0

    def is_shown(self, variable: Variable) -> bool:
        """Whether a listing has it: with -T and -W only those of their kind."""
        return not (("W" in self.letters and variable.write is None) or ("T" in self.letters and not variable.tunable))

    def fact(self, variable: Variable) -> dict[str, object]:
        """A variable for JSON; the value of one that cannot be read is null."""
        try:
            text: str | None = variable.read(self.view)
        except (JailError, OSError):
            text = None
        value = int(text) if text is not None and variable.kind in _SIZES else text
        return {
            "name": variable.name,
            "type": variable.kind,
            "value": value,
            "writable": variable.write is not None,
            "description": variable.description,
        }

    def below(self, name: str) -> list[Variable]:
        """The variable of that name, or the node and all that is below it. A dot at the end is the node again."""
        bare = name[:-1] if name.endswith(".") else name
        exact = [variable for variable in self.variables if variable.name == bare]
        if not exact or exact[0].kind != mib.NODE:
            return exact
        return exact[:1] + [variable for variable in self.variables if variable.name.startswith(bare + ".")]

    def _set(self, word: str, variable: Variable, value: str) -> int:
        if variable.kind == mib.NODE:
            return _complain(f"oid '{variable.name}' isn't a leaf node")
        if variable.write is None:
            return _complain(f"oid '{variable.name}' is read only")
        if variable.kind != mib.STRING:
            if not value:
                return _complain("empty numeric value")
            number = _strtol(value.strip(" ,"))
            if number is None:
                return _complain(f"invalid {variable.kind} '{value}'")
            value = str(number)
        try:
            before = variable.read(self.view)
        except (JailError, OSError) as error:
            return _complain(f"{variable.name}: {_why(error)}")
        try:
            variable.write(self.view, value)
        except (JailError, OSError) as error:
            self._put(self._text(variable, before))
            return _complain(f"{word}: {_why(error)}")
        after = self._text(variable, variable.read(self.view), named=False)
        self._put(f"{self._text(variable, before)} -> {after}")
        return 0

    def _show(self, variable: Variable, alone: bool = False) -> int:
        letters = self.letters
        if not self.is_shown(variable):
            return 0
        if "N" in letters:
            self._put(variable.name)
            return 0
        separator = "=" if "e" in letters else ": "
        if letters & {"t", "d"}:
            said = [variable.kind] if "t" in letters else []
            said += [variable.description] if "d" in letters else []
            self._put(separator.join([*([] if "n" in letters else [variable.name]), *said]))
            return 0
        if variable.kind == mib.OPAQUE and not letters & set("obxAX"):
            return 0
        try:
            value = variable.read(self.view)
        except (JailError, OSError) as error:
            # As FreeBSD has it, what cannot be read is left out of a listing.
            return _complain(f"{variable.name}: {_why(error)}") if alone else 0
        if "b" in letters:
            sys.stdout.flush()
            sys.stdout.buffer.write(_raw(variable, value))
            sys.stdout.buffer.flush()
        else:
            self._put(self._text(variable, value))
        return 0

    def _text(self, variable: Variable, value: str, named: bool = True) -> str:
        separator = "=" if "e" in self.letters else ": "
        if "N" in self.letters:
            return variable.name
        if variable.kind == mib.OPAQUE:
            value = f"Format:{variable.format} Length:{len(value) // 2} Dump:0x{value}"
        elif "x" in self.letters and variable.kind in _SIZES:
            size = _SIZES[variable.kind]
            number = int(value) % (1 << 8 * size)
            value = f"{number:#0{2 + 2 * size}x}" if number else "0" * (2 + 2 * size)  # C's, as scripts know it
        return value if "n" in self.letters or not named else f"{variable.name}{separator}{value}"

    def _put(self, text: str) -> None:
        sys.stdout.write(visible(text, keep="\n\t") + "\n")
        sys.stdout.flush()


def _raw(variable: Variable, value: str) -> bytes:
    """What FreeBSD's kernel has it as."""
    if variable.kind == mib.OPAQUE:
        return bytes.fromhex(value)
    if variable.kind in _SIZES:
        size = _SIZES[variable.kind]
        return (int(value) % (1 << 8 * size)).to_bytes(size, sys.byteorder)
    return value.encode("utf-8", "surrogateescape") + b"\0"


def _why(error: JailError | OSError) -> str:
    return str(error.strerror if isinstance(error, OSError) else error)


def _split(word: str) -> tuple[str, str | None]:
    """``name``, ``name=value`` or ``name:value``, without white space and one pair of quotes around the value."""
    at = min([place for place in (word.find("="), word.find(":")) if place >= 0], default=-1)
    if at < 0:
        return word.rstrip(_SPACE), None
    value = word[at + 1 :].lstrip(_SPACE)
    if value[:1] in ("'", '"'):
        value = value[1:-1] if len(value) > 1 and value[-1] == value[0] else value[1:]
    return word[:at].rstrip(_SPACE), value


def _strtol(text: str) -> int | None:
    """strtol(3) to base 0 over all of the text; None if it is no number."""
    sign = -1 if text[:1] == "-" else 1
    digits = text[1:] if text[:1] in ("+", "-") else text
    base = 16 if digits[:2].lower() == "0x" else 8 if digits[:1] == "0" else 10
    try:
        return sign * int(digits, base) if digits.isascii() and "_" not in digits else None
    except ValueError:
        return None


def _complain(text: str) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"sysctl: {visible(text)}\n")
    return 1
