r"""JSON that every reader takes, in ASCII: a byte that is no UTF-8 is ``\xff`` in it, as a command shows it in text.

Python would write a surrogate by itself, which is no Unicode text: strict readers refuse all that it stands in, and so
a process with such a name would keep them from every other.
"""

from __future__ import annotations

import json
import re

_SURROGATE = re.compile("[\ud800-\udfff]")


def dumped(value: object, indent: int | None = None, spaces: bool = True) -> str:
    """The text, on one line if not with ``indent``."""
    separators = None if spaces else (",", ":")
    text = json.dumps(value, indent=indent, separators=separators)
    return json.dumps(_plain(value), indent=indent, separators=separators) if "\\ud" in text else text


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _plain(value: object) -> object:
    if isinstance(value, str):
        return _SURROGATE.sub(_escaped, value)
    if isinstance(value, dict):
        return {_plain(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
