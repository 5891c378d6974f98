r"""Lines of fstab(5) as jail(8) reads them, of ``mount`` and of the files of ``mount.fstab``.

FreeBSD: usr.sbin/jail/config.c (comments) and command.c (fields); unvis(3) for what ``\040`` is. What stands after the
fourth word, dump and pass, is not looked at.
"""

from __future__ import annotations

from jailng.errors import JailError
from jailng.params.values import visible

_SPACE = " \t\f\v\r\n"
_OCTAL = "01234567"
_NAMED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "s": " ", "t": "\t", "v": "\v", "E": "\x1b"}


class Entry:
    """One file system to mount: what, where, of which type, and how.

    ``device`` and ``target`` are as they are meant, escapes undone; ``kind`` is the type in whoever's spelling it was
    given; ``options`` its words, none where there was no fourth field. ``parameter`` is ``mount`` or ``mount.fstab``,
    for messages.
    """

    __slots__ = ("_words", "device", "kind", "options", "parameter", "target")

    def __init__(self, device: str, target: str, kind: str, words: str | None = None, parameter: str = "mount") -> None:
        self.device = device
        self.target = target
        self.kind = kind
        self.parameter = parameter
        self._words = words
        self.options = tuple([word for word in (words or "").split(",") if word])

    @property
    def where(self) -> str:
        """Parameter and target, with which a message about the entry begins."""
        return f"{self.parameter}: {visible(self.target)}"

    @property
    def command(self) -> str:
        """The command that FreeBSD's jail(8) runs to mount it, which ``-v`` shows."""
        options = "" if self._words is None else f" -o {self._words}"
        return f"/sbin/mount -t {self.kind}{options} {self.device} {self.target}"

    @property
    def undo_command(self) -> str:
        """The command that FreeBSD's jail(8) runs to unmount it."""
        return f"/sbin/umount -t {self.kind} {self.target}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and (self.command, self.parameter) == (other.command, other.parameter)

    def __hash__(self) -> int:
        return hash(self.command)

    def __repr__(self) -> str:
        return f"<Entry {self.command}>"


def parse(text: str, parameter: str = "mount.fstab") -> list[Entry]:
    """The entries of a file. What follows a ``#``, wherever that stands, is a comment. Raises JailError."""
    lines = [line.partition("#")[0] for line in text.split("\n")]
    return [entry for line in lines if (entry := parse_line(line, parameter)) is not None]


def parse_line(text: str, parameter: str = "mount") -> Entry | None:
    """The entry of a line, or None where it is blank. Raises JailError in FreeBSD's words."""
    fields = _fields(text)
    if not fields:
        return None
    try:
        places = [_unvis(field) for field in fields[:2]]
    except ValueError:
        raise JailError(f"{parameter}: {visible(text)}: fstab parse error") from None
    if len(fields) < 3:
        raise JailError(f"{parameter}: {visible(text)}: missing information")
    return Entry(places[0], places[1], fields[2], fields[3] if len(fields) > 3 else None, parameter)


def _fields(text: str) -> list[str]:
    for space in _SPACE[1:]:
        text = text.replace(space, " ")
    return [field for field in text.split(" ") if field][:4]


def _unvis(text: str) -> str:
    r"""Undo vis(3): ``\040``, ``\s``, ``\\``, ``\^C``, ``\M-c``, ``\xhh``. Raises ValueError for what is none."""
    head, *parts = text.split("\\")
    done = [head]
    pieces = iter(parts)
    for part in pieces:
        if part == "":  # a backslash that follows another
            try:
                done.append("\\" + next(pieces))
            except StopIteration:
                raise ValueError(text) from None
            continue
        character, length = _escape(part)
        done.append(character + part[length:])
    # Bytes one by one may have made a character of UTF-8.
    return "".join(done).encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _escape(text: str) -> tuple[str, int]:
    """The character that an escape, less its backslash, stands for, and its length."""
    first = text[0]
    if first in _OCTAL:
        digits = text[: len(text[:3]) - len(text[:3].lstrip(_OCTAL))]
        return _byte(int(digits, 8)), len(digits)
    if first == "x":
        digits = text[1 : 1 + len(text[1:3]) - len(text[1:3].lstrip("0123456789abcdefABCDEF"))]
        return _byte(int(digits, 16)), 1 + len(digits)
    if first == "^" and len(text) > 1:
        return _control(text[1]), 2
    if first == "M" and text[1:2] == "-" and len(text) > 2:
        return _byte(ord(text[2]) | 0x80), 3
    if first == "M" and text[1:2] == "^" and len(text) > 2:
        return _byte(ord(_control(text[2])) | 0x80), 3
    if first == "$":  # what vis(3) puts in to keep lines short
        return "", 1
    if first in "^M" or not (first.isascii() and first.isprintable()):
        raise ValueError(text)
    return _NAMED.get(first, first), 1


def _control(character: str) -> str:
    return "\x7f" if character == "?" else chr(ord(character) & 0x1F)


def _byte(number: int) -> str:
    """A byte as Python has it in the name of a file (PEP 383)."""
    if not 0 < number < 0x100:
        raise ValueError(number)
    return chr(number) if number < 0x80 else chr(0xDC00 + number)
