"""Values of parameters: text to value and back, by the rules and in the words of FreeBSD's libjail and jail(8).

A value is a bool, an int, a str (also of a jailsys or a choice), or a tuple: of addresses, or of strings.
"""

from __future__ import annotations

from jailng.errors import JailError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.params.table import Parameter

    Value = bool | int | str | tuple["Address | str", ...]

JAIL_MAX = 999999  # the largest jid
AF_INET = 2  # socket.AF_INET; the module costs 0.3 ms, which a jail without addresses need not pay
AF_INET6 = 10
_FULL = {AF_INET: 32, AF_INET6: 128}
_SPACE = " \t\n\v\f\r"


class Address:
    """One element of ip4.addr or ip6.addr: ``[interface|]address[/prefix][ words]``.

    ``packed`` is the address in network order, ``prefix`` its number of network bits (32 or 128 if not given),
    ``interface`` and ``words`` (for ifconfig(8)) are empty if not given.
    """

    __slots__ = ("family", "packed", "prefix", "interface", "words")

    def __init__(self, family: int, packed: bytes, prefix: int | None = None, interface: str = "", words: str = ""):
        self.family = family
        self.packed = packed
        self.prefix = _FULL[family] if prefix is None else prefix
        self.interface = interface
        self.words = words

    @property
    def bare(self) -> str:
        """The address alone, as inet_ntop(3) writes it: what FreeBSD's kernel keeps, and jls(8) shows."""
        if self.family == AF_INET:
            return ".".join([str(byte) for byte in self.packed])
        from _socket import inet_ntop

        return inet_ntop(AF_INET6, self.packed)

    @property
    def text(self) -> str:
        """All of it in one form: ``parse`` makes an equal address of it."""
        front = f"{self.interface}|" if self.interface else ""
        middle = "" if self.prefix == _FULL[self.family] else f"/{self.prefix}"
        return f"{front}{self.bare}{middle}{' ' if self.words else ''}{self.words}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"<Address {self.text}>"


def parse(parameter: Parameter, text: str | None, name: str = "", negated: bool = False) -> Value:
    """The value that ``name=text`` gives, or a bare ``name`` (text None). Of a list: one element, or of ip4 and ip6 all
    that the commas part.

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
        return addresses(kind, name, text or "")
    _check_string(parameter, name, text or "")
    if kind == "list":
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


def addresses(kind: str, name: str, text: str) -> tuple[Address, ...]:
    """The addresses of a comma-separated list; none for "" and "-". ``kind`` is ip4 or ip6. Raises JailError."""
    if text in ("", "-"):
        return ()
    return tuple([_address(AF_INET if kind == "ip4" else AF_INET6, name, item) for item in text.split(",")])


def _address(family: int, name: str, text: str) -> Address:
    interface, bar, rest = text.partition("|")
    if not bar:
        interface, rest = "", text
    elif not is_interface(interface):
        raise JailError(f'{name}: not the name of an interface: "{visible(interface)}"')
    middle, _, words = rest.partition(" ")
    address, slash, mask = middle.partition("/")
    packed = _ipv4(address) if family == AF_INET else _ipv6(address)
    if packed is None:
        raise JailError(f"{name}: not an IPv{4 if family == AF_INET else 6} address: {visible(address)}")
    prefix = _prefix(family, mask) if slash else _FULL[family]
    if prefix is None:
        raise JailError(f'{name}: {address}: not a netmask or prefix length: "{visible(mask)}"')
    return Address(family, packed, prefix, interface, " ".join(words.split()))


def _ipv4(text: str) -> bytes | None:
    parts = text.split(".")
    if len(parts) != 4:
        return None
    for part in parts:
        # Like inet_pton(3): decimal without leading zeros, which elsewhere would mean octal.
        if not (part.isascii() and part.isdigit() and len(part) < 4 and int(part) < 256 and str(int(part)) == part):
            return None
    return bytes([int(part) for part in parts])


def _ipv6(text: str) -> bytes | None:
    from _socket import inet_pton

    try:
        return inet_pton(AF_INET6, text)
    except (OSError, ValueError):  # ValueError: a NUL, or bytes that are not UTF-8
        return None


def _prefix(family: int, text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= _FULL[family]:
        return int(text)
    packed = _ipv4(text) if family == AF_INET else None
    if packed is None:
        return None
    ones = f"{int.from_bytes(packed, 'big'):032b}".rstrip("0")
    return len(ones) if "0" not in ones else None


def is_interface(text: str) -> bool:
    """Whether Linux could have a network interface of that name (dev_valid_name in net/core/dev.c)."""
    return (
        0 < len(text.encode("utf-8", "surrogateescape")) < 16
        and text not in (".", "..")
        and text.isprintable()
        and not any(mark in text for mark in "/: ")
    )


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
    if not parameter.most or len(text.encode("utf-8", "surrogateescape")) <= parameter.most:
        return
    if name in ("host.hostname", "host.domainname"):
        raise JailError(f"{name}: longer than {parameter.most} bytes, which is all that Linux holds")
    if name == "osrelease":
        raise JailError(f"osrelease string must be 1-{parameter.most} bytes long")
    raise JailError(f"{name}: File {'too large' if parameter.keyed else 'name too long'}")  # EFBIG, ENAMETOOLONG


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
    r"""Text that cannot steer a terminal: what is not printable becomes an escape, but for the characters in ``keep``.

    Bytes that are not UTF-8 (surrogates, to Python) become ``\x9b`` too.
    """
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() or char in keep else _escaped(char) for char in text])


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
