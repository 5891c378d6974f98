"""``jls --libxo json``: the document that libxo would print. Written by hand: importing json costs half a jls."""

from __future__ import annotations

from jailng.cli import jls
from jailng.core import get

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from jailng.cli.jls import Options
    from jailng.core.get import Column, Record

_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def document(records: Sequence[Record], columns: list[Column], options: Options) -> str:
    """All of the output, with its newline. The format's version is 2, JLS_XO_VERSION of jls.c."""
    jails = ", ".join([f"{{{_join(_members(record, columns, options))}}}" for record in records])
    return f'{{"__version": "2", "jail-information": {{"jail": [{jails}]}}}}\n'


def _members(record: Record, columns: list[Column], options: Options) -> list[tuple[str, str]]:
    if columns:
        kept = [asked for asked in columns if not (options.skip and jls.skipped(record, asked))]
        return [member for asked in kept if (member := _member(record, asked, options)) is not None]
    if options.verbose:
        return [
            ("jid", str(record.jid)),
            ("hostname", _string(jls.hostname(record))),
            ("path", _string(jls.path(record))),
            ("name", _string(record.name)),
            ("state", _string(jls.state(record))),
            ("cpusetid", str(record.jid)),
            ("ipv4_addrs", _strings(get.addresses(record, "ip4.addr"))),
            ("ipv6_addrs", _strings(get.addresses(record, "ip6.addr"))),
        ]
    return [
        ("name", _string(record.name)) if options.by_name else ("jid", str(record.jid)),
        ("ipv4", _string(jls.first_address(record))),
        ("hostname", _string(jls.hostname(record))),
        ("path", _string(jls.path(record))),
    ]


def _member(record: Record, asked: Column, options: Options) -> tuple[str, str] | None:
    """A parameter: a list of addresses, with ``-n`` a boolean, else a string, jid included; None for a missing key."""
    if asked.parameter.kind in ("ip4", "ip6"):
        return asked.name, _strings(get.addresses(record, asked.parameter.name))
    known = get.text(record, asked)
    if known is None:
        return None
    if options.name_value and asked.parameter.kind == "bool":
        return asked.name, known
    return asked.name, _string(known)


def _join(members: list[tuple[str, str]]) -> str:
    # libxo parts leaves by "," and lists by ", ", and puts a space after the colon of lists alone.
    parts = []
    for name, value in members:
        spaced = value.startswith("[")
        parts.append(f"{', ' if spaced else ','}{_string(name)}:{' ' if spaced else ''}{value}")
    return "".join(parts).lstrip(", ")


def _strings(items: list[str]) -> str:
    return f"[{','.join([_string(item) for item in items])}]"


def _string(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join([_SHORT.get(char) or _plain(char) for char in text]) + '"'


def _plain(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\\\x{code - 0xDC00:02x}"  # a byte that is not UTF-8: no JSON has it; as jls shows it in text
    return f"\\u{code:04x}" if code < 0x20 or 0x7F <= code < 0xA0 else char
