"""A value of ng.log: what of a jail is logged outside it, where the log is sent besides, and how much is kept.

    syslog | exec | connections | logins | all
    forward tcp://HOST:PORT | forward tls://HOST:PORT [ca=FILE] [cert=FILE] [key=FILE] [name=HOST]
    size=N  keep=N  rate=N

``size`` is in bytes a file, of which ``keep`` stay; ``rate`` is how many lines of the guest's are taken in a second.
Numbers may end in a unit of 1024 (expand_number(3)). An IPv6 address stands in brackets.
"""

from __future__ import annotations

from jailng.errors import JailError
from jailng.params.limit import expand
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

KINDS = ("syslog", "exec", "connections", "logins")
ALL = "all"
FORWARD = "forward"
# What holds where nothing is said, the least and the most.
LIMITS: dict[str, tuple[int, int, int]] = {
    "size": (16 << 20, 4096, 1 << 40),
    "keep": (8, 2, 100000),
    "rate": (1000, 1, 10**6),
}
_SCHEMES = {"tcp": (), "tls": ("ca", "cert", "key", "name")}
_FILES = ("ca", "cert", "key")
_HOST = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
_HOST_6 = "abcdefABCDEF0123456789:.%"
_LONGEST = 253


class Forward:
    """Where a log is sent: ``scheme`` is tcp or tls, ``options`` are those of tls: ca, cert, key and name."""

    __slots__ = ("host", "options", "port", "scheme")

    def __init__(self, scheme: str, host: str, port: int, options: dict[str, str]) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.options = options

    @property
    def text(self) -> str:
        """All of it in one form."""
        words = [f"{name}={self.options[name]}" for name in _SCHEMES[self.scheme] if name in self.options]
        return " ".join([FORWARD, self.target, *words])

    @property
    def target(self) -> str:
        """``tls://HOST:PORT``."""
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Log:
    """What all values say together. ``limits`` has ``size``, ``keep`` and ``rate``; ``given`` those that were said."""

    __slots__ = ("_said", "forwards", "given", "kinds")

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self._said: list[str] = []  # kinds as they were said, all among them
        self.forwards: list[Forward] = []
        self.given: dict[str, int] = {}

    @property
    def limits(self) -> dict[str, int]:
        """Each by its name."""
        return {name: row[0] for name, row in LIMITS.items()} | self.given

    @property
    def texts(self) -> list[str]:
        """The values, each in one form."""
        limits = [f"{name}={self.given[name]}" for name in LIMITS if name in self.given]
        return [*self._said, *[one.text for one in self.forwards], *limits]

    def add(self, text: str) -> None:
        """Take one value. Raises JailError with the value in it."""
        words = text.split()
        name, equals, amount = words[0].partition("=")
        if words[0] == FORWARD:
            one = _forward(text, words[1:])
            if one.target in [other.target for other in self.forwards]:
                raise _wrong(text, f"{one.target} is said twice")
            self.forwards.append(one)
        elif len(words) > 1:
            raise _wrong(text, f'not understood: "{visible(words[1])}"; commas part values')
        elif equals and name in LIMITS:
            if name in self.given:
                raise _wrong(text, f"{name} is said twice")
            self.given[name] = _amount(text, name, amount)
        elif words[0] in (ALL, *KINDS):
            if words[0] not in self._said:
                self._said.append(words[0])
            self.kinds = [kind for kind in KINDS if kind in self._said or ALL in self._said]
        else:
            raise _wrong(text, f'not one of {", ".join([*KINDS, ALL, FORWARD, *LIMITS])}: "{visible(words[0])}"')


def read(texts: Iterable[str]) -> Log:
    """What the values, each of which may be several that commas part, say together. Raises JailError."""
    made = Log()
    for text in texts:
        for one in text.split(","):
            if one.strip():
                made.add(one)
    return made


def check(texts: Iterable[str]) -> None:
    """That what the values say is a log. Raises JailError."""
    made = read(texts)
    if made.texts and not made.kinds:
        raise JailError(f"ng.log: nothing is to be logged: not one of {', '.join([*KINDS, ALL])} is said")


def _forward(text: str, words: list[str]) -> Forward:
    scheme, colon, place = words[0].partition("://") if words else ("", "", "")
    if not colon or scheme not in _SCHEMES:
        raise _wrong(text, "not tcp://HOST:PORT or tls://HOST:PORT")
    host, colon, port = place.rpartition(":")
    if host[:1] == "[" and host[-1:] == "]" and ":" in host:
        host, letters = host[1:-1], _HOST_6
    else:
        letters = _HOST
    if not colon or not host or len(host) > _LONGEST or any(letter not in letters for letter in host):
        raise _wrong(text, f'not HOST:PORT: "{visible(place)}"')
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise _wrong(text, f'not a port from 1 to 65535: "{visible(port)}"')
    options: dict[str, str] = {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if name not in _SCHEMES[scheme] or not equals or name in options:
            said = f"not one of {', '.join(_SCHEMES[scheme])}" if _SCHEMES[scheme] else f"{scheme} has no options"
            raise _wrong(text, f'{said}: "{visible(word)}"')
        if name in _FILES and not value.startswith("/"):
            raise _wrong(text, f'{name} is not an absolute path: "{visible(value)}"')
        if not value:
            raise _wrong(text, f"{name} is empty")
        options[name] = value
    if "key" in options and "cert" not in options:
        raise _wrong(text, "a key without a certificate")
    return Forward(scheme, host, int(port), options)


def _amount(text: str, name: str, amount: str) -> int:
    _, least, most = LIMITS[name]
    found = expand(amount)
    if found is None or not least <= found <= most:
        raise _wrong(text, f'{name}: not a number from {least} to {most}: "{visible(amount)}"')
    return found


def _wrong(text: str, why: str) -> JailError:
    return JailError(f'ng.log: "{visible(" ".join(text.split()))}": {why}')
