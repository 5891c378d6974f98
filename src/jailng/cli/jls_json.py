"""``jls --libxo json``: the document that libxo would print. Written by hand: importing json costs half a jls."""

from __future__ import annotations

from jailng.cli.jls_libxo import VERSION
from jailng.params.values import is_visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.cli.jls_libxo import Member, Style, Value

_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def document(jails: list[list[Member]], style: Style) -> str:
    """All of the output, with its newline."""
    top = "jail_information" if style.underscores else "jail-information"
    if style.underscores:
        jails = [[(name.replace("-", "_"), value) for name, value in members] for members in jails]
    if style.pretty:
        return _pretty(top, jails, style.indent)
    told = ", ".join([f"{{{_joined(members)}}}" for members in jails])
    return f'{{"__version": "{VERSION}", "{top}": {{"jail": [{told}]}}}}\n'


def _joined(members: list[Member]) -> str:
    # libxo parts leaves by "," and lists by ", ", and puts a space after the colon of lists alone.
    parts = []
    for name, value in members:
        if isinstance(value, list):
            parts.append(f", {_string(name)}: [{','.join([_string(item) for item in value])}]")
        else:
            parts.append(f",{_string(name)}:{_leaf(value)}")
    return "".join(parts).lstrip(", ")


def _pretty(top: str, jails: list[list[Member]], indent: int) -> str:
    pad = [" " * (indent * depth) for depth in range(6)]
    told = []
    for members in jails:
        lines = []
        for name, value in members:
            if isinstance(value, list):
                items = ",\n".join([f"{pad[5]}{_string(item)}" for item in value])
                lines.append(f"{pad[4]}{_string(name)}: [\n{items}{items and chr(10)}{pad[4]}]")
            else:
                lines.append(f"{pad[4]}{_string(name)}: {_leaf(value)}")
        told.append(f"{pad[3]}{{\n" + ",\n".join(lines) + f"\n{pad[3]}}}")
    inner = ",\n".join(told) + ("\n" if told else "")
    # The space after the version's comma is libxo's.
    head = f'{{\n{pad[1]}"__version": "{VERSION}", \n{pad[1]}"{top}": {{\n{pad[2]}"jail": [\n'
    return f"{head}{inner}{pad[2]}]\n{pad[1]}}}\n}}\n"


def _leaf(value: Value) -> str:
    if value is True:
        return "true"
    if value is False:
        return "false"
    return _string(value) if isinstance(value, str) else str(value)


def _string(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join([_SHORT.get(char) or _plain(char) for char in text]) + '"'


def _plain(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\\\x{code - 0xDC00:02x}"  # a byte that is not UTF-8: no JSON has it; as jls shows it in text
    if is_visible(char):
        return char
    # What a terminal acts upon, and what turns the rest of a line around.
    return "".join([f"\\u{unit:04x}" for unit in _units(code)])


def _units(code: int) -> tuple[int, ...]:
    """A character in UTF-16."""
    return (code,) if code < 0x10000 else (0xD7C0 + (code >> 10), 0xDC00 + (code & 0x3FF))
