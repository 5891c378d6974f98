"""``jls --libxo``: libxo's options, and the document that jls makes of what it is to list.

Words, letters and messages are those of libxo 1.7 (xo_options(7)), which FreeBSD 15 has; which fields there are, and
what they are called, is jls.c's. Loaded for a command line that has the option, and for no other.
"""

from __future__ import annotations

from jailng.cli import jls
from jailng.core import get
from jailng.errors import JailError
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from jailng.cli.jls import Options
    from jailng.core.get import Column, Record

    # A string, a number or a boolean where the document's language tells them apart, a list of strings.
    Value = str | int | list[str]
    Member = tuple[str, Value]

# The format's version: JLS_XO_VERSION of jls.c.
VERSION = "2"
_OPTION = "--libxo"
_STYLES = {"json": "json", "J": "json", "text": "text", "T": "text", "xml": "xml", "X": "xml"}
# They change nothing of what jls prints: there is no colour, no unit and no key in it, and it is written at once.
_IDLE = frozenset(
    "color no-color columns dtrt filter-warn flush flush-line ignore-close info keys log-gettext no-humanize no-locale"
    " no-retain retain units utf8 warn warn-xml xpath".split()
) | frozenset("cfFgIknUWx")
# Known to libxo, and not made here.
_REFUSED = frozenset(
    "html sdparams colors color-force debug log-syslog no-top not-first encoder map map-file filter exterr"
    " exterr-brief exterr-verbose".split()
) | {"H"}


class Style:
    """What ``--libxo`` asked for. ``encoder`` is text, json or xml; ``indent`` is a number of spaces a level."""

    __slots__ = ("encoder", "pretty", "indent", "underscores")

    def __init__(self) -> None:
        self.encoder = "text"
        self.pretty = False
        self.indent = 2
        self.underscores = False


def take(argv: list[str]) -> tuple[Style, list[str]]:
    """The options of libxo that stand anywhere among the words, also after the parameters, and the other words.

    Raises JailError in libxo's words.
    """
    style = Style()
    rest = []
    words = iter(argv)
    for word in words:
        if not word.startswith(_OPTION):
            rest.append(word)
            continue
        value = word[len(_OPTION) :]
        if not value:
            following = next(words, None)
            if following is None:
                raise JailError("missing libxo option")
            value = following
        elif value[0] == "=":
            value = value[1:]
        elif value[0] != ":":
            raise JailError(f"unknown libxo option: '{visible(word)}'")
        _apply(style, value)
    return style, rest


def _apply(style: Style, value: str) -> None:
    """One option's value: words with commas between, or after a colon letters, which words may follow."""
    if value.startswith(":"):
        letters, _, value = value[1:].partition(",")
        while letters:
            letter, letters = letters[0], letters[1:]
            digits = letters[: len(letters) - len(letters.lstrip("0123456789"))] if letter == "i" else ""
            letters = letters[len(digits) :]
            _letter(style, letter, digits, letter + letters)
    encoder = ""
    for word in value.split(","):
        name = word.partition("=")[0].partition(":")[0]
        if name in _STYLES and len(name) > 1:
            # libxo says so too, and goes on with the first; two wishes are one too many.
            if encoder:
                raise JailError(f"ignoring multiple styles: '{visible(name)}'")
            style.encoder = encoder = _STYLES[name]
        elif word:
            _word(style, name, word[len(name) + 1 :])


def _letter(style: Style, letter: str, digits: str, rest: str) -> None:
    if letter in _STYLES:
        style.encoder = _STYLES[letter]
    elif letter == "P":
        style.pretty = True
    elif letter == "u":
        style.underscores = True
    elif letter == "i":
        style.indent = _indent(digits) if digits else style.indent
    elif letter in _REFUSED:
        raise JailError(f"{_OPTION}:{letter}: not honoured")
    elif letter not in _IDLE:
        raise JailError(f"unknown option: '{visible(rest)}'")


def _word(style: Style, name: str, value: str) -> None:
    if name == "pretty":
        style.pretty = True
    elif name == "underscores":
        style.underscores = True
    elif name == "indent":
        style.indent = _indent(value)
    elif name in _REFUSED or name.startswith("@"):
        raise JailError(f"{_OPTION} {visible(name)}: not honoured")
    elif name not in _IDLE or len(name) == 1:
        raise JailError(f"unknown libxo option value: '{visible(name)}'")


def _indent(text: str) -> int:
    if not text:
        raise JailError("missing value for indent option")
    if not (text.isascii() and text.isdigit() and len(text) < 3):
        raise JailError(f"indent: {visible(text)} is not from 0 to 99")
    return int(text)


def document(records: Sequence[Record], columns: list[Column], options: Options, style: Style) -> str:
    """All of the output. ``style.encoder`` is json or xml."""
    jails = [_members(record, columns, options) for record in records]
    if style.encoder == "xml":
        from jailng.cli import jls_xml

        return jls_xml.document(list(zip(records, jails, strict=True)), style)
    from jailng.cli import jls_json

    return jls_json.document(jails, style)


def _members(record: Record, columns: list[Column], options: Options) -> list[Member]:
    if columns:
        kept = [asked for asked in columns if not (options.skip and jls.skipped(record, asked))]
        return [member for asked in kept if (member := _member(record, asked, options)) is not None]
    if options.verbose:
        return [
            ("jid", record.jid),
            ("hostname", jls.hostname(record)),
            ("path", jls.path(record)),
            ("name", record.name),
            ("state", jls.state(record)),
            ("cpusetid", record.jid),
            ("ipv4_addrs", get.addresses(record, "ip4.addr")),
            ("ipv6_addrs", get.addresses(record, "ip6.addr")),
        ]
    return [
        ("name", record.name) if options.by_name else ("jid", record.jid),
        ("ipv4", jls.first_address(record)),
        ("hostname", jls.hostname(record)),
        ("path", jls.path(record)),
    ]


def _member(record: Record, asked: Column, options: Options) -> Member | None:
    """A parameter: a list of addresses, with ``-n`` a boolean, else a string, jid included; None for a missing key."""
    if asked.parameter.kind in ("ip4", "ip6"):
        return asked.name, get.addresses(record, asked.parameter.name)
    known = get.text(record, asked)
    if known is None:
        return None
    if options.name_value and asked.parameter.kind == "bool":
        return asked.name, known == "true"
    return asked.name, known
