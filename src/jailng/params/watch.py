"""A value of ng.watch: what of a jail is recorded, and how much of it.

    tty [size=N] [rate=N] [total=N] [sessions=N] [oldest=0|1]
    packets [size=N] [files=N] [snaplen=N] [seconds=N] [filter EXPRESSION]

Numbers may end in a unit of 1024 (expand_number(3)). The expression is one of pcap-filter(7), the rest of the value.
"""

from __future__ import annotations

from jailng.errors import JailError
from jailng.params.limit import expand
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

KINDS = ("tty", "packets")
# What may be said of each kind, with what holds otherwise, the least and the most.
OPTIONS: dict[str, dict[str, tuple[int, int, int]]] = {
    "tty": {
        "size": (100 << 20, 4096, 1 << 40),  # bytes of one recording
        "rate": (1 << 20, 1024, 1 << 30),  # bytes a second of all of a jail's terminals
        "total": (1 << 30, 65536, 1 << 50),  # bytes of all recordings of a jail
        "sessions": (10000, 1, 10**6),  # recordings that are kept
        "oldest": (0, 0, 1),  # whether the oldest give way to new ones
    },
    "packets": {
        "size": (1 << 30, 1 << 20, 1 << 50),  # bytes of all files
        "files": (10, 2, 10000),
        "snaplen": (262144, 64, 262144),  # bytes of a packet
        "seconds": (0, 0, 10**8),  # that one file is written to; 0: until it is full
    },
}
_FILTER = "filter"


class Watch:
    """``options`` has all of the kind's; ``given`` those that were said, in the order of ``OPTIONS``."""

    __slots__ = ("filter", "given", "kind", "options")

    def __init__(self, kind: str, given: dict[str, int], expression: str) -> None:
        self.kind = kind
        self.given = {name: given[name] for name in OPTIONS[kind] if name in given}
        self.options = {name: row[0] for name, row in OPTIONS[kind].items()} | given
        self.filter = expression

    @property
    def text(self) -> str:
        """All of it in one form."""
        words = [self.kind, *[f"{name}={number}" for name, number in self.given.items()]]
        return " ".join([*words, *([_FILTER, self.filter] if self.filter else [])])


def split(text: str) -> list[str]:
    """The values of a list: one begins where the name of a kind follows a comma."""
    found: list[str] = []
    for part in text.split(","):
        if not found or part.split()[:1] in ([], *[[kind] for kind in KINDS]):
            found.append(part)
        else:
            found[-1] += f",{part}"
    return [one for one in found if one.strip()]


def read(texts: Iterable[str]) -> list[Watch]:
    """What the values say; each kind once. Raises JailError."""
    found: list[Watch] = []
    for text in texts:
        for one in split(text):
            watch = parse(one)
            if watch.kind in [other.kind for other in found]:
                raise JailError(f'ng.watch: "{visible(watch.kind)}" is said twice')
            found.append(watch)
    return found


def of(params: dict[str, str], kind: str) -> Watch | None:
    """What the texts of a jail's parameters say of a kind, if it is to be watched."""
    return next((one for one in read([params.get("ng.watch", "")]) if one.kind == kind), None)


def parse(text: str) -> Watch:
    """Read one value. Raises JailError with the value in it."""
    words = text.split()
    kind = words[0] if words else ""
    if kind not in KINDS:
        raise _wrong(text, f'not {" or ".join(KINDS)}: "{visible(kind)}"')
    given: dict[str, int] = {}
    for number, word in enumerate(words[1:], 1):
        if word == _FILTER and kind == "packets":
            expression = " ".join(words[number + 1 :])
            if not expression:
                raise _wrong(text, "the expression is missing")
            return Watch(kind, given, expression)
        name, equals, amount = word.partition("=")
        if not equals or name not in OPTIONS[kind]:
            raise _wrong(text, f'not one of {", ".join(OPTIONS[kind])}: "{visible(word)}"')
        if name in given:
            raise _wrong(text, f"{name} is said twice")
        given[name] = _amount(text, name, amount, OPTIONS[kind][name])
    return Watch(kind, given, "")


def _amount(text: str, name: str, amount: str, row: tuple[int, int, int]) -> int:
    _, least, most = row
    found = expand(amount)
    if found is None or not least <= found <= most:
        raise _wrong(text, f'{name}: not a number from {least} to {most}: "{visible(amount)}"')
    return found


def _wrong(text: str, why: str) -> JailError:
    return JailError(f'ng.watch: "{visible(" ".join(text.split()))}": {why}')
