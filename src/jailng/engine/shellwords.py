"""A text for sh(1), split into commands and words: quotes, operators, redirections, variables that are known."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_OPERATORS = ";&|\n()"


class Pattern(str):
    """Instead of a word with ``*`` and the like: the directory in which the first of them is. ``whole`` is the word.

    Where find(1) has found a file, ``{}``: below which, or whether at this place.
    """

    whole = ""


def commands(text: str, known: dict[str, str]) -> Iterator[tuple[list[str | None], str | None, list[str]]]:
    """The simple commands of a script, with the variables that are known in their places; what each reads from; and the
    files that it writes to.
    """
    scan = _Scan(text, known)
    while scan.more():
        words = scan.command()
        if words or scan.written:
            yield words, scan.given, scan.written


class _Scan:
    """The words of a script, one command after the other."""

    __slots__ = ("_at", "_inner", "_known", "_text", "given", "written")

    def __init__(self, text: str, known: dict[str, str]) -> None:
        self._text = text
        self._at = 0
        self._known = known
        self._inner: list[str] = []
        self.given: str | None = None  # the file that the last command's standard input is redirected from
        self.written: list[str] = []  # where its outputs go

    def more(self) -> bool:
        """Whether anything is left, in the text itself or in what it would have executed for its output."""
        if self._at >= len(self._text) and self._inner:
            self._text, self._at = self._inner.pop(), 0
        return self._at < len(self._text)

    def command(self) -> list[str | None]:
        """The words up to the next operator."""
        words: list[str | None] = []
        skip = ""  # the operator of a redirection, of which the next word is the file
        self.given = None
        self.written = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char in " \t":
                self._at += 1
            elif char == "#":
                self._at = (self._text + "\n").index("\n", self._at)
            elif char in _OPERATORS:
                self._at += 1
                break
            elif char in "<>":
                begin = self._at
                self._at += 1
                if self._text[self._at : self._at + 1] in ("<", ">", "&", "|"):
                    self._at += 1
                skip = self._text[begin : self._at]
            else:
                word = self._word()
                if self._text[self._at : self._at + 1] in ("<", ">") and word is not None and word.isdigit():
                    continue  # the number of a descriptor
                if not skip:
                    words.append(word)
                elif skip == "<":
                    self.given = word
                elif ">" in skip and word and not (skip == ">&" and (word.isdigit() or word == "-")):
                    self.written.append(word)
                skip = ""
        return words

    def _word(self) -> str | None:
        """The next word without its quotes, None if not all of it can be known."""
        found = ""
        sure = True
        matched = -1  # where the first of a pattern's characters would be
        quote = ""
        while self._at < len(self._text):
            char = self._text[self._at]
            if quote == "'":
                if char == "'":
                    quote = ""
                else:
                    found += char
                self._at += 1
            elif char == "\\":
                found += self._text[self._at + 1 : self._at + 2]
                self._at += 2
            elif char in "$`":
                value = self._value()
                sure = sure and value is not None
                found += value or ""
            elif char == quote:
                quote = ""
                self._at += 1
            elif not quote and char in "'\"":
                quote = char
                self._at += 1
            elif not quote and (char in " \t<>" or char in _OPERATORS):
                break
            else:
                if not quote and char in "*?[" and matched < 0:
                    matched = len(found)
                found += char
                self._at += 1
        if sure and matched >= 0:
            pattern = Pattern(found[: found.rfind("/", 0, matched) + 1] or ".")
            pattern.whole = found
            return pattern
        return found if sure else None

    def _value(self) -> str | None:
        """What ``$...`` or a command between backquotes stands for, None if that is not known."""
        text, at = self._text, self._at
        if text[at] == "`" or text.startswith("$(", at):
            opened = ")" if text[at] == "$" else "`"
            begin = at + (2 if text[at] == "$" else 1)
            end = text.find(opened, begin)
            end = end if end >= 0 else len(text)
            self._inner.append(text[begin:end])
            self._at = end + 1
            return None
        if text.startswith("${", at):
            end = text.find("}", at)
            end = end if end >= 0 else len(text)
            name, default = _parted(text[at + 2 : end])
            self._at = end + 1
            if default is not None and name not in self._known:
                return default
        else:
            end = at + 1
            if text[end : end + 1] in ("@", "*"):  # of which the first is what may be executed
                self._at = end + 1
                return self._known.get("1")
            while end < len(text) and (text[end].isalnum() or text[end] == "_"):
                end += 1
            name = text[at + 1 : end]
            self._at = max(end, at + 1)
            if not name:
                return "$"
        return self._known.get(name)


def _parted(inner: str) -> tuple[str, str | None]:
    """The name in ``${...}``, and what stands for it where there is none."""
    for mark in (":-", ":=", "-", "="):
        name, found, default = inner.partition(mark)
        if found and name.isidentifier():
            return name, default
    return inner, None
