"""Lists of rules, of ng.rdr, ng.egress, ng.limits, ng.watch and ng.log: how they are told apart, and what two are.

A rule is kept as text in one form, which ``parse`` of its kind makes an equal rule of. Commas part rules, and what a
rule lists: so where a rule begins its words say.
"""

from __future__ import annotations

from jailng.errors import JailError
from jailng.params.address import AF_INET, AF_INET6, Address, packed
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    Network = tuple[bytes, int]  # an address in network order, and how many bits of it count
    Ports = tuple[int, int]  # the first and the last


# What both kinds of rules may say of protocols that have ports.
TRANSPORTS: dict[str, tuple[str, ...]] = {
    "tcp": ("tcp",),
    "udp": ("udp",),
    "tcp,udp": ("tcp", "udp"),
    "tcp/udp": ("tcp", "udp"),
}
_PREFIX = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
_LONGEST_PREFIX = 32
_LARGEST_GROUP = 65535


def parse(name: str, text: str) -> tuple[str, ...]:
    """The rules of a list, each in its one form; none for "". ``name`` is that of the list. Raises JailError."""
    if name == "ng.limits":
        from jailng.params import limit

        return tuple([limit.parse(one.strip()).text for one in text.split(",") if one.strip()])
    if name == "ng.rdr":
        from jailng.params import redirect

        return tuple([rule.text for rule in redirect.read([text])])
    if name == "ng.watch":
        from jailng.params import watch

        return tuple([one.text for one in watch.read([text])])
    if name == "ng.log":
        from jailng.params import log

        return tuple(log.read([text]).texts)
    from jailng.params import egress

    return tuple([egress_rule.text for egress_rule in egress.read([text])])


class Log:
    """Where a rule tells of packets: the kernel's log, or an nfnetlink ``group`` (0 to 65535; -1: the log)."""

    __slots__ = ("group", "prefix")

    def __init__(self, prefix: str, group: int) -> None:
        self.prefix = prefix
        self.group = group

    @property
    def text(self) -> str:
        """As it stands in a rule."""
        return f"log{' ' if self.prefix else ''}{self.prefix}{f' group {self.group}' if self.group >= 0 else ''}"


class Words:
    """The words of a rule, taken one after the other; what is wrong with them is told with the rule's text."""

    __slots__ = ("left", "name", "stop", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.stop = ""  # a word that is taken by its name alone
        self.text = " ".join(text.split())
        self.left = self.text.split(" ")[::-1] if self.text else []

    def wrong(self, why: str) -> JailError:
        """To be raised."""
        return JailError(f'{self.name}: "{visible(self.text)}": {why}')

    @property
    def next(self) -> str:
        """The next word, "" after the last; it stays."""
        return self.left[-1] if self.left else ""

    def take(self, what: str) -> str:
        """The next word. Raises JailError where there is none: ``what`` is missing."""
        if not self.left or self.next == self.stop:
            raise self.wrong(f"{what} is missing")
        return self.left.pop()

    def takes(self, word: str) -> bool:
        """Whether the next word is that one, which is then taken."""
        if self.next != word:
            return False
        self.left.pop()
        return True

    def listed(self, what: str) -> list[str]:
        """A list: words that commas part, with or without spaces."""
        text = self.take(what)
        while self.left and (text.endswith(",") or self.next.startswith(",")):
            text += self.left.pop()
        return text.split(",")

    def number(self, text: str, what: str, most: int, least: int = 0) -> int:
        """A decimal number within bounds. Raises JailError."""
        if text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most:
            return int(text)
        raise self.wrong(f'not {what} from {least} to {most}: "{visible(text)}"')

    def ports(self, text: str) -> Ports:
        """``80`` or ``8000-8010``. Raises JailError."""
        first, dash, last = text.partition("-")
        low = self.number(first, "a port", 65535, 1)
        high = self.number(last, "a port", 65535, 1) if dash else low
        if high < low:
            raise self.wrong(f"{text}: the range ends before it begins")
        return low, high

    def address(self, text: str) -> bytes:
        """An address in network order. Raises JailError."""
        found = packed(text)
        if found is None:
            raise self.wrong(f'not an address: "{visible(text)}"')
        return found

    def network(self, text: str) -> Network:
        """``192.0.2.0/24``, or one address. Raises JailError, also where bits are set behind the prefix."""
        address, slash, length = text.partition("/")
        found = self.address(address)
        bits = self.number(length, "a prefix length", 8 * len(found)) if slash else 8 * len(found)
        if int.from_bytes(found, "big") & ((1 << (8 * len(found) - bits)) - 1):
            raise self.wrong(f"{text}: bits are set behind the prefix")
        return found, bits

    def log(self) -> Log | None:
        """``log [PREFIX] [group NUMBER]``, if that is next; it is the last part of a rule. Raises JailError."""
        found = None
        if self.takes("log"):
            prefix = self.take("") if self.left and self.next != "group" else ""
            if len(prefix) > _LONGEST_PREFIX or any(char not in _PREFIX for char in prefix):
                raise self.wrong(
                    f"a prefix of the log is at most {_LONGEST_PREFIX} letters, digits, dots and dashes: "
                    f'"{visible(prefix)}"'
                )
            group = -1
            if self.takes("group"):
                group = self.number(self.take("the number of the group"), "a group", _LARGEST_GROUP)
            found = Log(prefix, group)
        if self.left:
            raise self.wrong(f'not understood: "{visible(" ".join(self.left[::-1]))}"')
        return found


def show_ports(ports: Ports) -> str:
    """``80`` or ``8000-8010``."""
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"


def show_network(network: Network) -> str:
    """``192.0.2.0/24``; of one address the address alone."""
    address, bits = network
    return show_address(address) + (f"/{bits}" if bits < 8 * len(address) else "")


def show_address(address: bytes) -> str:
    """As inet_ntop(3) writes it."""
    return Address(AF_INET if len(address) == 4 else AF_INET6, address).bare
