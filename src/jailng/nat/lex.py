"""The words of ipnat(5): text to tokens, by the rules of IPFilter's lexer.c.

The end of a line means no more than a blank, so a rule may go on over lines. Time is linear in the size of the text,
whatever is in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv6Address

from jailng.errors import JailError
from jailng.params.values import visible

_KEYWORDS = frozenset(
    """age any auto bimap config divert dst dstlist encap frag from hash icmpidmap in inet inet6 mask map map-block
    mssclamp netmask no on out pool port portmap ports proto proxy purge range rewrite rdr round-robin sequential src
    sticky tag tcp tcpudp to udp""".split()
)
_OTHER = {"netmask": "mask", "eq": "=", "ne": "!=", "lt": "<", "gt": ">", "le": "<=", "ge": ">="}
# What is no name unless it is quoted, in either case of letters.
RESERVED = _KEYWORDS | _OTHER.keys()
_LONGEST = 1024  # characters of a word
_EXPANDED = 1 << 18  # characters, in all, that variables have become
_NESTED = 32  # variables in variables
_SHOWN = 64  # characters of a token in a message
_WRONG = {'"': "a string that does not end", "'": "a string that does not end", "$": "a variable that is none"}

# Blanks and comments, and what comes then. The end of the text is an empty match.
_TOKEN = re.compile(
    r"""
    (?: [ \t\r\n]+ | \\\r?\n | \#[^\n]* )*
    (?: (?P<ipv6>    (?=[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:) [0-9A-Fa-f:][0-9A-Fa-f:.]{1,44} )
      | (?P<word>    <thishost> | [^ \t\r\n=,/;{}()@\#$'"!<>:\\.0-9-] (?: [^ \t\r\n=,/;{}()@\#$'"!<>:\\-]+ | -(?!>) )* )
      | (?P<ipv4>    [0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9]) )
      | (?P<hex>     0x[0-9A-Fa-f]* )
      | (?P<number>  [0-9]+ )
      | (?P<mark>    -> | != | <= | <> | >= | >< | [-=,/;{}()@.!:<>] )
      | (?P<variable>\$ (?: \{ [^}]* \} | [A-Za-z] [A-Za-z0-9_]* ) )
      | (?P<quoted>  "[^"]*" | '[^']*' )
      | (?P<wrong>   [\s\S] )
    )?
    """,
    re.VERBOSE,
)
_REFERENCE = re.compile(r"\$(?:\$|\{([^}]*)\}|([A-Za-z][A-Za-z0-9_]*)|(.?))", re.DOTALL)
_ADJOINING = re.compile(r"[^ \t\r\n$'\"#]{0,1024}")


class Token:
    """A word of a rule. ``kind`` is ``number``, ``hex``, ``ipv4``, ``ipv6``, ``string``, a keyword, a mark, or ``""``
    at the end of the text.

    ``text`` is as it was written, without quotes; ``line`` is where it ends. A number is below 2**32.
    """

    __slots__ = ("kind", "text", "line")

    def __init__(self, kind: str, text: str, line: int) -> None:
        self.kind = kind
        self.text = text
        self.line = line

    @property
    def value(self) -> int:
        """What a number is, or a hexadecimal one."""
        return int(self.text[2:] or "0", 16) if self.kind == "hex" else int(self.text)


class Lexer:
    """The tokens of a text: ``peek`` looks at them, ``next`` takes one.

    ``name`` is the text's, for messages. ``variables`` is written by who reads: ``$x`` has the value that it has when
    it is come upon.
    """

    __slots__ = ("name", "variables", "_text", "_at", "_below", "_ahead", "_line", "_expanded")

    def __init__(self, name: str, text: str, variables: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.variables = dict(variables or {})
        self._text = text
        self._at = 0
        self._below: list[tuple[str, int]] = []  # where to go on after what a variable has become
        self._ahead: list[Token] = []
        self._line = 1
        self._expanded = 0

    def peek(self, ahead: int = 0) -> Token:
        """A token that comes, the next one or one after it. Raises JailError where there is none of any kind."""
        tokens = self._ahead
        while len(tokens) <= ahead:
            tokens.append(self._read())
        return tokens[ahead]

    def next(self) -> Token:
        """Take the next token."""
        return self._ahead.pop(0) if self._ahead else self._read()

    def error(self, what: str, token: Token, more: str = "") -> JailError:
        """An error at a token, in the words of yyerror() of lexer.c, after the file's name and the line."""
        text = visible(token.text[:_SHOWN])
        at = f"{visible(self.name)}:{token.line}"
        return JailError(f'{at}: {what} error at "{text}", line {token.line}{more and f": {more}"}')

    def expected(self, what: str) -> JailError:
        """A syntax error at the next token; ``what`` could have been there."""
        return self.error("syntax error", self.peek(), f"expected {what}")

    def place(self, line: int) -> str:
        """A file and a line, as messages begin."""
        return f"{visible(self.name)}:{line}"

    def _read(self) -> Token:
        while True:
            start = self._at
            found = _TOKEN.match(self._text, start)
            assert found is not None
            end = self._at = found.end()
            kind = found.lastgroup
            if not self._below:
                self._line += self._text.count("\n", start, end)
            if kind is None:
                if not self._below:
                    return Token("", "", self._line)
                self._text, self._at = self._below.pop()
            elif kind == "variable":
                self._expand(found[kind])
            else:
                return self._token(kind, found[kind])

    def _token(self, kind: str, word: str) -> Token:
        """A token of a piece of text, if it is one."""
        if kind == "word":
            lower = word.lower()
            kind = _OTHER.get(lower, lower if lower in _KEYWORDS else "string")
        elif kind == "mark":
            return Token(word, word, self._line)
        elif kind == "quoted":
            kind, word = "string", word[1:-1].replace("\n", " ")
        token = Token(kind, word, self._line)
        if kind == "string":
            if len(word) > _LONGEST or not word.isprintable():
                what = f"a word that is not printable or has over {_LONGEST} characters"
                raise self.error("syntax error", token, what)
        elif kind == "wrong" or (kind == "ipv6" and not _is_ipv6(word)):
            what = "no address" if kind == "ipv6" else _WRONG.get(word, "a character that has no place here")
            raise self.error("syntax error", token, what)
        elif kind in ("number", "hex") and (len(word) > 10 or token.value >> 32):
            raise self.error("syntax error", token, "a number that is too large")
        return token

    # Variables

    def _expand(self, reference: str) -> None:
        """Put what a variable stands for in its place. What adjoins it, ``${x}y``, goes on with its last word."""
        value = self._value(reference, 0)
        adjoining = _ADJOINING.match(self._text, self._at)
        assert adjoining is not None
        self._below.append((self._text, adjoining.end()))
        self._text, self._at = value + adjoining[0], 0

    def _value(self, text: str, depth: int) -> str:
        """A text with its variables replaced."""
        if depth > _NESTED:
            raise JailError(f"{self.place(self._line)}: variables in variables more than {_NESTED} deep")

        def one(found: re.Match[str]) -> str:
            name = found[1] if found[1] is not None else found[2]
            if name is None:
                if found[3] is None:
                    return "$"  # was $$
                # In the words of get_variable() of IPFilter's var.c.
                raise JailError(f"{self.place(self._line)}: variables cannot start with '{visible(found[3])}'")
            if name not in self.variables:
                raise JailError(f"{self.place(self._line)}: unknown variable '{visible(name[:_SHOWN])}'")
            value = self._value(self.variables[name], depth + 1)
            self._expanded += len(value) + 1
            if self._expanded > _EXPANDED:
                raise JailError(f"{self.place(self._line)}: variables become more than {_EXPANDED} characters")
            return value

        return _REFERENCE.sub(one, text)


def predefined(text: str) -> dict[str, str]:
    """The variables of the environment's IPNAT_PREDEFINED: ``name=value;name=value``, values quoted or not."""
    variables = {}
    for one in text.split(";"):
        name, sign, value = one.partition("=")
        if sign and name:
            quoted = len(value) > 1 and value[0] in "\"'" and value[-1] == value[0]
            variables[name] = value[1:-1] if quoted else value
    return variables


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
