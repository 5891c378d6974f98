"""``jls --libxo xml``: the document that libxo would print. An item of a list is an element of the list's name."""

from __future__ import annotations

from jailng.cli import jls
from jailng.cli.jls_libxo import VERSION
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.cli.jls_libxo import Member, Style, Value
    from jailng.core.get import Record


def document(jails: list[tuple[Record, list[Member]]], style: Style) -> str:
    """All of the output; a newline at its end is pretty's."""
    newline = "\n" if style.pretty else ""
    pad = [" " * (style.indent * depth) if style.pretty else "" for depth in range(3)]
    parts = [f'<jail-information version="{VERSION}">']
    for record, members in jails:
        parts.append(f"{pad[1]}<jail>")
        for name, value in members:
            lines = jls.has_lines(record, name)
            parts += [f"{pad[2]}<{_text(name)}>{_text(item, lines)}</{_text(name)}>" for item in _items(value)]
        parts.append(f"{pad[1]}</jail>")
    parts.append("</jail-information>")
    return newline.join(parts) + newline


def _items(value: Value) -> list[str]:
    if isinstance(value, list):
        return value
    return [str(value).lower() if isinstance(value, bool) else str(value)]


def _text(text: str, lines: bool = False) -> str:
    """``lines``: with its newlines as they are."""
    # XML has no way to write most control characters, so they are shown as jls shows them in text.
    safe = visible(text, "\n\t").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return safe if lines else safe.replace("\n", "&#10;")
