"""A rule of ng.rdr: connections to an address of the host that are led to the jail.

    PROTOCOL [on INTERFACE] [from NETWORK[,...]] [to] ADDRESS|any PORT[-PORT] -> [TARGET:]PORT[-PORT] [log ...]

PROTOCOL is tcp, udp or both (tcp,udp). TARGET is one of the jail's addresses, IPv6 in brackets; where there is none it
is the jail's first of the family. A range goes to the same range, or to one port.
"""

from __future__ import annotations

from jailng.params.address import is_interface
from jailng.params.rules import TRANSPORTS, Words, show_address, show_network, show_ports
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from jailng.params.rules import Log, Network, Ports

_ARROW = "->"


class Redirect:
    """``interface``, ``sources`` and ``address`` are empty where any will do; ``target`` where the jail's first is."""

    __slots__ = ("address", "interface", "log", "ports", "protocols", "sources", "target", "target_ports")

    def __init__(self, protocols: tuple[str, ...]) -> None:
        self.protocols = protocols
        self.interface = ""
        self.sources: list[Network] = []
        self.address = b""
        self.ports: Ports = (0, 0)
        self.target = b""
        self.target_ports: Ports = (0, 0)
        self.log: Log | None = None

    @property
    def family(self) -> int:
        """4 or 6 where the rule tells, else 0: both."""
        told = [self.address, self.target, *[address for address, _ in self.sources]]
        return next(({4: 4, 16: 6}[len(address)] for address in told if address), 0)

    @property
    def text(self) -> str:
        """All of it in one form."""
        parts = [",".join(self.protocols)]
        if self.interface:
            parts.append(f"on {self.interface}")
        if self.sources:
            parts.append(f"from {','.join([show_network(source) for source in self.sources])}")
        parts += [show_address(self.address) if self.address else "any", show_ports(self.ports), _ARROW]
        target = show_address(self.target) if self.target else ""
        if target:
            target = f"[{target}]:" if ":" in target else f"{target}:"
        parts.append(target + show_ports(self.target_ports))
        if self.log is not None:
            parts.append(self.log.text)
        return " ".join(parts)


def split(text: str) -> list[str]:
    """The rules of a list: a comma before the arrow is the rule's own."""
    rules: list[str] = []
    whole = True
    for part in text.split(","):
        if whole:
            rules.append(part)
        else:
            rules[-1] += f",{part}"
        whole = _ARROW in rules[-1]
    return [rule for rule in rules if rule.strip()]


def read(texts: Iterable[str]) -> list[Redirect]:
    """The rules of a list whose elements may be lists themselves. Raises JailError."""
    return [parse(rule) for text in texts for rule in split(text)]


def parse(text: str) -> Redirect:
    """Read one rule. Raises JailError with the rule in it."""
    words = Words("ng.rdr", text.replace(_ARROW, f" {_ARROW} "))
    if _ARROW not in words.left:
        raise words.wrong(f'no "{_ARROW}" in it')
    words.stop = _ARROW
    protocol = ",".join(words.listed("the protocol"))
    if protocol not in TRANSPORTS:
        raise words.wrong(f'not tcp, udp or tcp,udp: "{visible(protocol)}"')
    made = Redirect(TRANSPORTS[protocol])
    if words.takes("on"):
        made.interface = words.take("the interface")
        if not is_interface(made.interface):
            raise words.wrong(f'not the name of an interface: "{visible(made.interface)}"')
    if words.takes("from"):
        made.sources = [words.network(source) for source in words.listed("the source")]
    words.takes("to")
    address = words.take("the address")
    if address != "any":
        made.address = words.address(address)
    words.takes("port")
    made.ports = words.ports(words.take("the port"))
    if not words.takes(_ARROW):
        raise words.wrong(f'"{_ARROW}" is wanted, not "{visible(words.next)}"')
    _read_target(words, made)
    made.log = words.log()
    return made


def _read_target(words: Words, made: Redirect) -> None:
    target, colon, ports = words.take("the port to go to").rpartition(":")
    if colon:
        made.target = words.address(target[1:-1] if target.startswith("[") and target.endswith("]") else target)
    made.target_ports = words.ports(ports)
    first, last = made.target_ports
    if first != last and made.target_ports != made.ports:
        raise words.wrong(f"{show_ports(made.ports)} goes to the same range, or to one port")
    lengths = {len(address) for address in (made.address, made.target, *[one for one, _ in made.sources]) if address}
    if len(lengths) > 1:
        raise words.wrong("IPv4 and IPv6 in one rule")
