"""Values of parameters: text to value and back, by the rules and in the words of FreeBSD's libjail and jail(8).

A value is a bool, an int, a str (also of a jailsys or a choice), or a tuple: of addresses, or of strings.
"""

from __future__ import annotations

import sys

from jailng.errors import JailError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.params.address import Address
    from jailng.params.table import Parameter

    Value = bool | int | str | tuple["Address | str", ...]

JAIL_MAX = 999999  # the largest jid
# What the host's administrator may set (sysctl(8), core/tunable.py), by the name below security.jail: bytes of meta and
# of env, a NUL at the end among them.
LIMITS = {"meta_maxbufsize": 4096}
_WITH_COMMAS = ("vnet.interface", "zfs.dataset")  # lists of which a command line has all in one word
_SPACE = " \t\n\v\f\r"
# All that is written is UTF-8. A terminal of another character set, whose locale the caller then has, takes most of it
# for control characters: 0x9b, in every other letter, for that which begins escape sequences.
_UTF_8 = sys.getfilesystemencoding() == "utf-8"
# Of characters that count as printable those that show nothing: fillers, selectors of variants, marks and signs that
# are blank. First and last of each range.
_BLANKS = (
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800), (0x3164, 0x3164),
    (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0x13441, 0x13442), (0x16FE4, 0x16FE4), (0x1D159, 0x1D159), (0xE0100, 0xE01EF),
)  # fmt: skip


def parse(parameter: Parameter, text: str | None, name: str = "", negated: bool = False) -> Value:
    """The value that ``name=text`` gives, or a bare ``name`` (text None). Of a list: one element, or of ip4, ip6 and
    lists of rules all that the commas part.

    ``name`` is the name as it was given, for messages; ``negated`` says that it was the "no" form of a boolean.
    Raises JailError in FreeBSD's words.
    """
    name = name or parameter.name
    kind = parameter.kind
    if kind == "bool":
        return _boolean(name, text) is not negated
    if kind == "int":
        return _integer(parameter, name, text)
    if kind == "jailsys":
        return _jailsys(parameter, name, text)
    if kind in ("ip4", "ip6"):
        from jailng.params.address import addresses

        return addresses(kind, name, text or "")
    _check_string(parameter, name, text or "")
    if kind == "list":
        if text is not None and parameter.name in _WITH_COMMAS:
            return tuple(text.split(","))
        if not parameter.pseudo:
            from jailng.params import rules

            return rules.parse(name, text or "")
        return () if text is None else (text,)
    if kind == "choice" and text not in parameter.words:
        raise JailError(f'{name}: unknown value "{visible(text or "")}"')
    return text or ""


def show(value: Value, bare: bool = False) -> str:
    """A value as text: what ``parse`` takes, or with ``bare`` what libjail makes of it, addresses without trimmings.

    Elements of lists of strings are joined by commas, which ``parse`` cannot undo.
    """
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, tuple):
        return ",".join([item if isinstance(item, str) else item.bare if bare else item.text for item in value])
    return str(value)


def _boolean(name: str, text: str | None) -> bool:
    if text is None:
        return True
    word = text.lower()
    number = _strtol(text)
    if word in ("true", "false"):
        return word == "true"
    if number is None:
        raise JailError(f'{name}: unknown boolean value "{visible(text)}"')
    return number != 0


def _integer(parameter: Parameter, name: str, text: str | None) -> int:
    # For libjail nothing is the number 0; jail(8), for its own, wants a number or no "=" at all.
    if text is None and parameter.pseudo:
        assert isinstance(parameter.default, int)
        return parameter.default
    number = _strtol(text or "")
    if number is None or (parameter.pseudo and not text):
        raise JailError(f'{name}: non-integer value "{visible(text or "")}"')
    if number not in parameter.range:
        raise JailError(f"{name}: {text} is not from {parameter.range[0]} to {parameter.range[-1]}")
    return number


def _jailsys(parameter: Parameter, name: str, text: str | None) -> str:
    words = ("disable", "new", "inherit")  # in this order they are also 0, 1 and 2
    word = (text or "new").lower()
    number = _strtol(word)
    if number is not None and 0 <= number < 3:
        word = words[number]
    if word not in parameter.words:
        raise JailError(f'{name}: unknown jailsys value "{visible(text or "")}"')
    return word


def _check_string(parameter: Parameter, name: str, text: str) -> None:
    if "\0" in text:
        raise JailError(f"{name}: a NUL within the value")
    if parameter.keyed or not parameter.most or len(text.encode("utf-8", "surrogateescape")) <= parameter.most:
        return
    if name in ("host.hostname", "host.domainname"):
        raise JailError(f"{name}: longer than {parameter.most} bytes, which is all that Linux holds")
    if name == "interface":
        return  # Parameters.settle says what is wrong with it, after what is wrong with any address
    if name == "osrelease":
        raise JailError(f"osrelease string must be 1-{parameter.most} bytes long")
    raise JailError(f"{name}: File name too long")


def _strtol(text: str) -> int | None:
    """strtol(3) to base 10 over all of the text; 0 for no text at all, as libjail has it; None if it is no number."""
    if not text:
        return 0
    number = text.lstrip(_SPACE)
    digits = number[1:] if number[:1] in ("+", "-") else number
    if not (digits.isascii() and digits.isdigit()):
        return None
    return int(number) if len(digits) < 40 else 10**40  # CPython refuses to convert thousands of digits


def quoted(text: str) -> str:
    """A value as jail(8) writes it for others to read (quoted_print in jail.c): in quotes where it needs any, in those
    that it does not hold if there are such, and with a backslash before each backslash.
    """
    mark = '"' if not text or "'" in text else "'" if '"' in text else '"' if " " in text or "\t" in text else ""
    text = text.replace("\\", "\\\\")
    return mark + text.replace(mark, "\\" + mark) + mark if mark else text


def visible(text: str, keep: str = "") -> str:
    r"""Text that cannot steer a terminal, nor hide there: what is not printable, or shows nothing, becomes an escape,
    but for the characters in ``keep``.

    Bytes that are not UTF-8 (surrogates, to Python) become ``\x9b`` too, and in a locale of another character set than
    UTF-8 all that is not ASCII.
    """
    if is_visible(text):
        return text
    hidden = [char for char in set(text) if not is_visible(char) and char not in keep]  # of what may be megabytes
    return _with_escaped(text, hidden)


def is_visible(text: str) -> bool:
    """Whether ``visible`` leaves it as it is."""
    if not text.isprintable():
        return False
    return text.isascii() or (_UTF_8 and not any(_is_blank(char) for char in set(text)))


def _is_blank(char: str) -> bool:
    return not char.isascii() and any(first <= ord(char) <= last for first, last in _BLANKS)


def straight(text: str) -> str:
    """The same, for a column that others follow: what is written from right to left is an escape, too.

    A terminal that knows how it is written shows the numbers behind it in the other order.
    """
    text = visible(text)
    if text.isascii():
        return text
    from unicodedata import bidirectional

    return _with_escaped(text, [char for char in set(text) if bidirectional(char) in ("R", "AL", "AN")])


def _with_escaped(text: str, some: list[str]) -> str:
    return text.translate({ord(char): _escaped(char) for char in some})


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escape(text: str) -> str:
    """Text that fits on a line of a record, whatever it holds: backslashes and control characters escaped."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join([_record(char) for char in text])


def escape_word(text: str) -> str:
    """The same as one word of such a line, which ``unescape`` undoes as well."""
    return escape(text).replace(" ", "\\x20")


def _record(char: str) -> str:
    code = ord(char)
    if char == "\\":
        return "\\\\"
    if char == "\n":
        return "\\n"
    if code < 0x20 or 0x7F <= code < 0xA0:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code in (0x2028, 0x2029) else char


def unescape(text: str) -> str:
    """Undo ``escape``. A backslash that ``escape`` did not write stands for itself."""
    if "\\" not in text:
        return text
    head, *parts = text.split("\\")
    done = [head]
    pieces = iter(parts)
    for part in pieces:
        width = {"x": 2, "u": 4}.get(part[:1], 0)
        if part == "":
            # Two backslashes in a row: one of them, and what follows is text as it stands.
            done.append("\\" + next(pieces, ""))
        elif part[0] == "n":
            done.append("\n" + part[1:])
        elif width and _hexadecimal(part[1 : 1 + width], width):
            done.append(chr(int(part[1 : 1 + width], 16)) + part[1 + width :])
        else:
            done.append("\\" + part)
    return "".join(done)


def _hexadecimal(digits: str, width: int) -> bool:
    return len(digits) == width and all(digit in "0123456789abcdef" for digit in digits)
