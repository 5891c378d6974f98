"""The words of jail.conf(5): the bytes of one file to tokens, by the rules of FreeBSD's jaillex.l.

Text is latin-1 in here, a character a byte, which is how flex(1) sees it; what leaves is UTF-8, with surrogates for
what is not (``decoded``). There are no regular expressions, as the module ``re`` costs what a whole jail does. Time is
linear in the size of the file, whatever is in it.
"""

from __future__ import annotations

from jailng.errors import JailError
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    # What a token is; "" is the end of the file, "?" a character that has no place outside quotes. With a plus it
    # adjoins the token before it, and goes on with the string which that began.
    Kind = Literal["string", "string+", "variable", "variable+", "+=", ",", ";", "=", "{", "}", "?", ""]

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
_WORD = _LETTERS + "0123456789"
_BARE = _WORD + "!%&()-.:<>?@[]^`|~"
_SPACE = " \t\r\n"
_ATOMS = "$*+/\\"
_RESERVED = ",;={}"
_OCTAL = "01234567"
_HEXADECIMAL = "0123456789abcdefABCDEF"
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\n": ""}
_STRETCH = 64  # characters that are looked at together: most words are shorter
_SHOWN = 4096  # characters of a token that a message shows


class Lexer:
    """The tokens of one file: ``next`` gives the kind of each, then ``text`` is the string or the variable's name.

    ``name`` is the file's name in messages, ``line`` the number of the line on which the last token ended.
    """

    __slots__ = ("name", "line", "text", "_input", "_size", "_at", "_start", "_joins", "_closing")

    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        self.line = 1
        self.text = ""
        self._input = content.decode("latin-1")
        self._size = len(content)
        self._at = 0
        self._start = 0  # of the last token
        self._joins = False  # whether a string ended where the next token begins
        self._closing = -1  # in a string in double quotes that has variables: where it ends

    def next(self) -> Kind:
        """The kind of the next token. Raises JailError where something is unterminated, or holds a NUL."""
        text = self._input
        while True:
            at = self._start = self._at
            if self._closing >= 0:
                if at < self._closing:
                    return self._variable(at, self._closing) if text[at] == "$" else self._quoted(at)
                self._closing = -1
                self._at = at + 1
                continue
            if at >= self._size:
                return ""
            char = text[at]
            if char in _BARE:
                stretch = text[at : at + _STRETCH]
                rest = stretch.lstrip(_BARE)
                end = self._at = at + len(stretch) - len(rest) if rest else _span(text, at, _BARE)
                return self._emit("string", text[at:end])
            if char == " ":
                self._at = at + 1
                self._joins = False
            elif char in _SPACE:
                self._blank(_span(text, at, _SPACE))
            elif char == "#" or text.startswith("//", at):
                end = text.find("\n", at)
                self._blank(end if end >= 0 else self._size)
            elif text.startswith("/*", at):
                end = text.find("*/", at + 2)
                self._blank(end + 2 if end >= 0 else self._size)
                if end < 0:
                    raise JailError(f"{self.place()}: unterminated comment")
            else:
                return self._mark(char, at)

    def place(self) -> str:
        """The file and the line, as messages begin."""
        return f"{visible(self.name)} line {self.line}"

    def error(self) -> JailError:
        """A syntax error at the last token, as yyerror of jailparse.y words it."""
        if self._start >= self._size:
            return JailError(f"{visible(self.name)}: unexpected EOF")
        token = self._input[self._start : min(self._at, self._start + _SHOWN)]
        return JailError(f"{self.place()}: {visible(decoded(token), keep=_SPACE)}: syntax error")

    # Tokens

    def _mark(self, char: str, at: int) -> Kind:
        """A token that is neither space nor a bare word."""
        text = self._input
        if char in _RESERVED or text.startswith("+=", at):
            kind: Kind = char if char in _RESERVED else "+="  # type: ignore[assignment]  # each of them is a kind
            self._at = at + len(kind)
            self._joins = False
            return kind
        if char == "'":
            end = self._close(char, at + 1)
            return self._emit("string", unescape(text[at + 1 : end]), end + 1)
        if char == '"':
            self._closing = self._close(char, at + 1)
            return self._quoted(at + 1)
        if char == "$":
            return self._variable(at, self._size)
        if char in _ATOMS:
            end = _atom(text, at)
            return self._emit("string", unescape(text[at:end]), end)
        # What is above 127 FreeBSD's parser takes for the end of the file. Here it is an error.
        self._at = _span(text, at, _HIGH) if char in _HIGH else at + 1
        return "?"

    def _quoted(self, at: int) -> Kind:
        """Text in double quotes, up to the next variable or to the end and the quote."""
        end = _unescaped(self._input, "$", at, self._closing)
        if end >= 0:
            return self._emit("string", unescape(self._input[at:end]), end)
        end, self._closing = self._closing, -1
        return self._emit("string", unescape(self._input[at:end]), end + 1)

    def _variable(self, at: int, limit: int) -> Kind:
        """``$name``, ``${name}``, or a dollar sign that is no more than that."""
        text = self._input
        first = text[at + 1 : min(at + 2, limit)]
        if first == "{":
            end = _brace(text, at + 2, limit)
            if end < 0:
                raise JailError(f"{self.place()}: unterminated variable")
            return self._emit("variable", unescape(text[at + 2 : end]), end + 1)
        if not first or first not in _LETTERS:
            return self._emit("string", "$", at + 1)
        end = _span(text, at + 1, _WORD)
        return self._emit("variable", text[at + 1 : end], end)

    def _emit(self, kind: Literal["string", "variable"], text: str, end: int = -1) -> Kind:
        """The token that has ended; ``end`` is where, and -1 says that ``_at`` is there, with no line's end between."""
        if end >= 0:
            self.line += self._input.count("\n", self._at, end)
            self._at = end
        if "\0" in text:
            raise JailError(f"{self.place()}: a NUL within a string")
        self.text = text if text.isascii() else decoded(text)
        if not self._joins:
            self._joins = True
            return kind
        return "string+" if kind == "string" else "variable+"

    # Where things end

    def _blank(self, end: int) -> None:
        """Go past space or a comment: what comes next adjoins nothing."""
        self.line += self._input.count("\n", self._at, end)
        self._at = end
        self._joins = False

    def _close(self, quote: str, at: int) -> int:
        end = _unescaped(self._input, quote, at, self._size)
        if end < 0:
            raise JailError(f"{self.place()}: unterminated string")
        return end


_HIGH = bytes(range(128, 256)).decode("latin-1")


def decoded(text: str) -> str:
    """The bytes that text in latin-1 stands for, as UTF-8 with surrogates for what is not."""
    return text.encode("latin-1").decode("utf-8", "surrogateescape")


def unescape(text: str) -> str:
    """The string that is written with backslashes, as in C; before what has no meaning there they go (text2lval)."""
    if "\\" not in text:
        return text
    done = []
    at = 0
    while True:
        escape = text.find("\\", at)
        if escape < 0:
            done.append(text[at:])
            return "".join(done)
        done.append(text[at:escape])
        at = _atom(text, escape)
        char = text[escape + 1 : escape + 2]
        if char == "x":
            done.append(chr(int(text[escape + 2 : at] or "0", 16)))
        elif char and char in _OCTAL:
            done.append(chr(int(text[escape + 1 : at], 8) & 0xFF))
        else:
            done.append(_ESCAPES.get(char, char))


def _atom(text: str, at: int) -> int:
    """Where the character or the escape ends that begins there."""
    if text[at] != "\\":
        return at + 1
    end = at + 2
    digits = {"x": _HEXADECIMAL}.get(text[at + 1 : end], _OCTAL if text[at + 1 : end] in _OCTAL else "")
    while digits and end < at + 4 and text[end : end + 1] in digits and end < len(text):
        end += 1
    return min(end, len(text))


def _span(text: str, at: int, characters: str) -> int:
    """Where the run of such characters ends."""
    while True:
        stretch = text[at : at + _STRETCH]
        rest = stretch.lstrip(characters)
        at += len(stretch) - len(rest)
        if rest or not stretch:
            return at


def _unescaped(text: str, mark: str, at: int, limit: int) -> int:
    """Where the next ``mark`` is that no backslash takes away, or -1."""
    found = text.find(mark, at, limit)
    while found >= 0:
        escape = text.find("\\", at, found)
        if escape < 0:
            return found
        at = escape + 2
        if found < at:
            found = text.find(mark, at, limit)
    return -1


def _brace(text: str, at: int, limit: int) -> int:
    """Where the ``}`` is that ends a variable's name, or -1. Of several that a backslash precedes, the last.

    Such a one ends it only where nothing follows in its line that could be more of the name.
    """
    found = -1
    for end in range(at, limit):
        if text[end] in "\n{}":
            if text[end] == "}":
                found = end
            if text[end - 1] != "\\":
                break
    else:
        end = limit
    line = text.find("\n", at, end)
    return found if (line if line >= 0 else end) <= found + 1 else -1
